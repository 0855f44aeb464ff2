"""Benchmarks as models need them: item columns, mixtures of matching modes, codes of the items.

A folder that `mender benchmark build` wrote, or a data set on the Hub, is loaded; raw files are built into a benchmark
first, the same one that the command builds.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from torch import Tensor

from mender.terminal import say
from modeling_mender import ResidualKMeans, RqVae, SemanticIdCatalogue
from modeling_mender.semantic_ids.tie_breaking import break_ties, report
from modeling_mender.training.data import repeated
from preference_benchmark import RECIPES, Benchmark, build, load, recipe
from preference_benchmark.axes.protocol import Protocol
from preference_benchmark.embedding import TextEmbedder, default_encoder, encoder_identity
from preference_benchmark.hub.folder import names_in
from preference_benchmark.stages import digest_of, digest_of_code

__all__ = [
    "BenchmarkData",
    "Codes",
    "benchmark_name",
    "codes_of",
    "encoder_path",
    "item_codes",
    "item_vectors",
    "load_benchmark_data",
    "reading_for",
]

logger = logging.getLogger(__name__)

CACHE = Path("outputs/cache")
_DIGITS = 12


@dataclass(frozen=True)
class BenchmarkData:
    """A benchmark in memory.

    Attributes:
        source: its name.
        items: one row per item; row number = item index.
        examples: by matching mode ("oracle", "last"), the splits train, validation and test.
        cache: folder for what can be computed from it once and for all.
        repeats: whether items are bought again, so that a target may be in its own history.
    """

    source: str
    items: Dataset
    examples: dict[str, DatasetDict]
    cache: Path
    repeats: bool = False

    @property
    def item_columns(self) -> dict[str, list[str]]:
        """Ids, titles and texts, as `build_method` takes them."""
        return {name: self.items[name][:] for name in ("item_id", "title", "text")}

    @property
    def texts(self) -> list[str]:
        """Every preference of the training split."""
        return [text for texts in self.examples["oracle"]["train"]["preferences"] for text in texts]

    def matched(self, weights: Mapping[str, float], seed: int = 0) -> DatasetDict:
        """Train and validation splits with recommendation examples of several matching modes, the other axes once.

        Args:
            weights: by matching mode, as in `Preset.matching`: 2 gives every example of a mode twice, 0.5 a random
                half. Validation takes all examples of the modes that have a weight.
            seed: seed of the random part.

        Raises:
            ValueError: if the benchmark was built without one of the modes.
        """
        modes = {mode: weight for mode, weight in weights.items() if weight}
        unknown = [mode for mode in modes if mode not in self.examples]
        if unknown:
            raise ValueError(
                f"matching={unknown[0]!r} is not in this benchmark, which has {', '.join(self.examples)}; "
                "build it with that mode, or give weight to another"
            )
        first = next(iter(modes))
        if modes == {first: 1.0}:
            return self.examples[first]
        generator = np.random.default_rng(seed)
        return DatasetDict(
            {
                "train": self._mixed("train", modes, generator),
                "validation": self._mixed("validation", dict.fromkeys(modes, 1.0), generator),
            }
        )

    def _mixed(self, split: str, weights: Mapping[str, float], generator: np.random.Generator) -> Dataset:
        parts = []
        for mode, weight in weights.items():
            examples = self.examples[mode][split]
            recommended = np.array(examples["axis"][:]) == "recommendation"
            if not parts:
                parts.append(examples.select(np.flatnonzero(~recommended)))
            parts.append(examples.select(repeated(np.flatnonzero(recommended), weight, generator)))
        return concatenate_datasets(parts)


@dataclass(frozen=True)
class Codes:
    """Semantic IDs of the items.

    Attributes:
        catalogue: codes of all items.
        codebooks: centroids of the quantizer. Shape: (L, K, C).
    """

    catalogue: SemanticIdCatalogue
    codebooks: Tensor


def benchmark_name(source: str, data: Path | None) -> str:
    """The name of a benchmark: its source or, for your own tables, the name of their folder or file.

    >>> benchmark_name("steam", Path("raw/steam")), benchmark_name("table", Path("my/Book shop"))
    ('steam', 'book-shop')
    """
    if source != "table" or data is None:
        return source
    return re.sub(r"[^a-z0-9_]+", "-", data.resolve().name.split(".")[0].lower()).strip("-_") or source


def load_benchmark_data(
    source: str, data: str | Path | None = None, encoder: str | None = None, **changes: Any
) -> BenchmarkData:
    """A benchmark: one that is built already, or one that is built here from raw files.

    What is built here is what `mender benchmark build` builds from the same recipe. It is kept under outputs/cache, so
    that training and evaluation share the work.

    Args:
        source: a recipe or a source; of a folder with built benchmarks, the name of one.
        data: a folder with built benchmarks, the name of one on the Hub, or raw files of the source; None: public
            files are downloaded, and the corner shop is generated.
        encoder: embeds preferences and items in building; default: all-MiniLM-L6-v2.
        **changes: fields of the recipe and of its protocol, see `preference_benchmark.recipe`.

    Raises:
        FileNotFoundError: if there are no such files.
        ValueError: if the source is unknown, or its files are not as expected.
    """
    if _is_hub_name(data):
        logger.info("loading the benchmark %s of %s", source, data)
        return _in_memory(load(str(data), source), encoder)
    data = None if data is None else Path(data)
    logger.info("reading the benchmark %s", source)
    names = names_in(data) if data is not None else []
    if names:
        if source not in names:
            raise ValueError(f"{data} has no benchmark {source!r}; found {', '.join(names)}. Pass --source")
        if changes:
            raise ValueError(f"{data} has built benchmarks, which {min(changes)!r} cannot change; leave it out")
        return _in_memory(load(data, source), encoder)
    name = benchmark_name(source, data)
    chosen = recipe(name, source=None if name in RECIPES else source, data=data, embedder=encoder, **changes)
    settings = {**vars(chosen), "data": None if data is None else str(data.resolve())}
    folder = CACHE / f"{name}-{digest_of(settings)[:_DIGITS]}"
    build(chosen, folder, stages=CACHE / "stages" / name)
    benchmark = load(folder)
    for line in what_was_read(benchmark.statistics["read"]):
        say(line)
    return _in_memory(benchmark, encoder)


def reading_for(max_history: int, data: str | Path | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of a recipe, so that a model that reads long histories finds them: tables keep 20 items by default.

    Args:
        max_history: items of a history that the model reads.
        data: see `load_benchmark_data`; what is built already stays as it is.
        changes: other changes.
    """
    built = _is_hub_name(data) or (data is not None and Path(data).is_dir() and bool(names_in(Path(data))))
    if built or max_history <= Protocol().max_history:
        return dict(changes)
    return {"max_history": max_history, **changes}


def what_was_read(read: Mapping[str, Any]) -> list[str]:
    """Lines for a person: what was read, what was left out and why, and how to keep more of it.

    Args:
        read: the report of the tables, see `preference_benchmark.tables.report`.

    >>> what_was_read({"after": {"users": 2, "items": 3}, "dropped": {"interactions without a user id": 1}})
    ['read: 2 users, 3 items', 'left out: 1 interactions without a user id']
    """
    left_out = [f"{count:,} {reason}" for reason, count in (read.get("malformed") or {}).items() if count]
    left_out += [f"{count:,} {reason}" for reason, count in (read.get("dropped") or {}).items() if count]
    lines = ["read: " + ", ".join(f"{count:,} {what}" for what, count in read["after"].items())]
    lines += [f"left out: {'; '.join(left_out)}"] if left_out else []
    return lines + [line for line in (read.get("advice"),) if line]  # advice where most users were dropped


def _is_hub_name(data: str | Path | None) -> bool:
    return data is not None and not Path(data).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(data)) is not None


def _in_memory(benchmark: Benchmark, encoder: str | None) -> BenchmarkData:
    """The benchmark with a folder for what is computed from its items by an encoder."""
    described = benchmark.items.select_columns(["item_id", "title", "text"]).to_dict()
    key = digest_of(described, encoder_identity(encoder)[1], digest_of_code("embedding"))
    cache = CACHE / f"vectors-{benchmark.name}-{key[:_DIGITS]}"
    cache.mkdir(parents=True, exist_ok=True)
    repeats = benchmark.statistics.get("protocol", {}).get("repeats") == "keep"
    return BenchmarkData(benchmark.name, benchmark.items, benchmark.examples, cache, repeats)


def item_codes(
    data: BenchmarkData, encoder: str, seed: int, *, quantizer: str = "residual-kmeans", spread: bool = False
) -> Codes:
    """Codes of all items of a benchmark; see `codes_of`."""
    return codes_of(item_vectors(data, encoder), seed, quantizer=quantizer, spread=spread)


def item_vectors(data: BenchmarkData, encoder: str) -> Tensor:
    """Vectors of the texts of all items, which are computed once. Shape: (N, D)."""
    file = data.cache / "item_vectors.npy"
    if not file.is_file():
        logger.info("embedding the texts of %s items", f"{len(data.items):,}")
        unfinished = data.cache / f".item_vectors.{os.getpid()}.npy"
        np.save(unfinished, TextEmbedder(encoder).encode(data.items["text"][:]), allow_pickle=False)
        unfinished.replace(file)
    return torch.from_numpy(np.load(file, allow_pickle=False))


def codes_of(embeddings: Tensor, seed: int, *, quantizer: str = "residual-kmeans", spread: bool = False) -> Codes:
    """Codes of item embeddings, made distinct by a tie-breaking level; prints how well they distinguish items.

    Args:
        embeddings: one vector per item. Shape: (N, D).
        seed: of the quantizer.
        quantizer: "residual-kmeans", or "rq-vae" for the paper's.
        spread: share the last level's codes out among items that would have equal ones.

    Raises:
        ValueError: if the quantizer is unknown, or the embeddings cannot be quantised.
    """
    logger.info("choosing semantic IDs of %s items", f"{len(embeddings):,}")
    if quantizer == "residual-kmeans":
        fitted = ResidualKMeans(seed=seed).fit(embeddings)
    elif quantizer == "rq-vae":
        with torch.random.fork_rng(devices=[]):  # its networks start from random weights
            torch.manual_seed(seed)
            fitted = RqVae.for_embeddings(embeddings).fit(embeddings, seed=seed)
    else:
        raise ValueError(f"quantizer={quantizer!r} is unknown; pass residual-kmeans or rq-vae")
    codes = break_ties(fitted.encode(embeddings, spread=spread))
    print(report(codes, fitted.codebook_sizes))
    # The last level has room for items that will share a code with those of today.
    room = max(fitted.codebook_sizes[0], int(codes[:, -1].max()) + 1)
    return Codes(SemanticIdCatalogue(codes, [*fitted.codebook_sizes, room]), fitted.codebooks)


def encoder_path(name_or_path: str | None) -> str:
    """The encoder asked for, or the default one, with a line on where it comes from."""
    if name_or_path is not None:
        return name_or_path
    choice = default_encoder()
    print(f"encoder: {choice.description}")
    return choice.path
