"""Items and examples to train and evaluate on: from a benchmark that is built already, or built here from raw files.

A folder that the benchmark's command line wrote, known by the configurations that its README names, is read as
`load_dataset` reads it. Raw files are read and built once, and kept under outputs/cache, so that training and
evaluation share the work.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import Dataset, DatasetDict, concatenate_datasets, get_dataset_config_names, load_from_disk
from filelock import FileLock
from huggingface_hub import metadata_load
from torch import Tensor

from modeling_mender import ResidualKMeans, SemanticIdCatalogue
from modeling_mender.semantic_ids.tie_breaking import break_ties, report
from modeling_mender.training.data import repeated
from preference_benchmark.builder import Benchmark, build_benchmark, digest_of_builder
from preference_benchmark.embedding import TextEmbedder, default_encoder
from preference_benchmark.hub.folder import load_folder
from preference_benchmark.sources import read_source
from preference_benchmark.stages import data_files, digest_of, digest_of_code, digest_of_file, digest_of_inputs, stamps

__all__ = [
    "BenchmarkData",
    "Codes",
    "benchmark_name",
    "codes_of",
    "encoder_path",
    "item_codes",
    "load_benchmark_data",
]

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
    """

    source: str
    items: Dataset
    examples: dict[str, DatasetDict]
    cache: Path

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
            seed: of the random part.

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
    """What a benchmark is called: by its source, or, of your own tables, by their folder or file.

    >>> benchmark_name("steam", Path("raw/steam")), benchmark_name("table", Path("my/bookshop"))
    ('steam', 'bookshop')
    """
    return data.resolve().name.split(".")[0] or source if source == "table" and data is not None else source


def load_benchmark_data(
    source: str, data: Path | None, encoder: str, *, users: int = 600, items: int = 240
) -> BenchmarkData:
    """A built benchmark, read from a folder or built from raw files.

    Args:
        source: one of `SOURCES`, or the name of a data set that `data` holds.
        data: raw files of the source, or a folder with the built benchmark; `None` for the corner shop.
        encoder: embeds preferences and items in building.
        users: of the corner shop.
        items: of the corner shop.

    Raises:
        ValueError: if the source is unknown, or its files are not there or not as expected.
    """
    options = {}
    if source == "corner-shop" and data is None:
        options = {"num_users": users, "num_items": items, "seed": 0}
    if data is not None and _is_built(source, data):
        files = [data.absolute() / "README.md", *data_files(data.absolute(), "*", "[!.]*/**/*")]
        key = digest_of(source, stamps(files), encoder, digest_of_code("embedding"))
        return _read_built(source, data, CACHE / f"{source}-{key[:_DIGITS]}")
    # What this file does to a benchmark before it is kept belongs to it as well.
    code = digest_of_builder(), digest_of_file(Path(__file__))
    folder = CACHE / f"{source}-{digest_of(digest_of_inputs(source, data, options), encoder, code)[:_DIGITS]}"
    if not (folder / "complete").is_file():
        tables = read_source(source, data, **options)
        print(tables.report)
        benchmark = build_benchmark(tables, TextEmbedder(encoder), seed=0)
        print(benchmark.report)
        _keep(benchmark, folder)
    examples = {mode: load_from_disk(folder / mode) for mode in ("oracle", "last")}
    return BenchmarkData(benchmark_name(source, data), load_from_disk(folder / "items"), examples, folder)


def _keep(benchmark: Benchmark, folder: Path) -> None:
    """Save a benchmark as a whole, or not at all; where another process was first, what it saved stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
    try:
        benchmark.items.save_to_disk(scratch / "items")
        for mode, examples in benchmark.examples.items():
            examples.save_to_disk(scratch / mode)
        (scratch / "complete").touch()
        with FileLock(folder.parent / ".lock"):
            if not (folder / "complete").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def item_codes(data: BenchmarkData, encoder: str, seed: int) -> Codes:
    """Codes of all items by residual k-means, made distinct by a tie-breaking level; vectors are computed once."""
    file = data.cache / "item_vectors.npy"
    if not file.is_file():
        unfinished = data.cache / f".item_vectors.{os.getpid()}.npy"
        np.save(unfinished, TextEmbedder(encoder).encode(data.items["text"][:]), allow_pickle=False)
        unfinished.replace(file)
    return codes_of(torch.from_numpy(np.load(file, allow_pickle=False)), seed)


def codes_of(embeddings: Tensor, seed: int) -> Codes:
    """Codes of embeddings of shape (N, D), with a report on how well they tell items apart."""
    quantizer = ResidualKMeans(seed=seed).fit(embeddings)
    codes = break_ties(quantizer.encode(embeddings))
    print(report(codes, quantizer.codebook_sizes))
    # The last level has room for items that will share a code with those of today.
    room = max(quantizer.codebook_sizes[0], int(codes[:, -1].max()) + 1)
    return Codes(SemanticIdCatalogue(codes, [*quantizer.codebook_sizes, room]), quantizer.codebooks)


def encoder_path(name_or_path: str | None) -> str:
    """The encoder asked for, or the default one, with a line on where it comes from."""
    if name_or_path is not None:
        return name_or_path
    choice = default_encoder()
    print(f"encoder: {choice.description}")
    return choice.path


def _is_built(source: str, folder: Path) -> bool:
    """Whether the folder's card names configurations of a benchmark; beside raw files there may be a README as well."""
    card = folder / "README.md"
    if not card.is_file():
        return False
    try:
        configs = (metadata_load(card) or {}).get("configs")
    except (ValueError, yaml.YAMLError):  # what stands at its head is no metadata
        return False
    listed = configs if isinstance(configs, list) else []
    names = {str(config.get("config_name")) for config in listed if isinstance(config, dict)}
    # A benchmark of another name counts as well: whoever passes it learns which names it has.
    of_items = {name.removesuffix("-items") for name in names if name.endswith("-items")}
    return source in names | of_items or any(names & {name, f"{name}-last"} for name in of_items)


def _read_built(source: str, folder: Path, cache: Path) -> BenchmarkData:
    configs = get_dataset_config_names(str(folder))
    missing = [name for name in (source, f"{source}-items") if name not in configs]
    if missing:
        raise ValueError(f"{folder} has no configuration {missing[0]!r}; found {', '.join(configs)}. Pass --source")
    cache.mkdir(parents=True, exist_ok=True)
    items, examples = load_folder(folder, source)
    return BenchmarkData(source, items, examples, cache)
