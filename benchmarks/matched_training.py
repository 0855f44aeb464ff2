"""One model, trained on preferences that were matched in some way: what is trained on is all that differs.

Shared by the benchmarks that vary matchers (`matching.py`) and writers of preferences (`cheap_preferences.py`). The
corner shop knows its customers' true tastes, so a matched preference can be held against the true reasons of the
purchase. Validation and test are those of the benchmark, whatever is trained on.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from datasets import Dataset, DatasetDict, concatenate_datasets

from mender.data import BenchmarkData, encoder_path, load_benchmark_data
from mender.evaluation import score_model
from mender.runs import provenance
from mender.training import fit, new_method, recommender_of
from modeling_mender.training.presets import PROSE, Preset
from preference_benchmark import read_tables, recipe
from preference_benchmark.axes.examples import KEYS, as_examples, examples_dataset, targets
from preference_benchmark.axes.next_item import Matcher, Similarity, match, recommendation
from preference_benchmark.checks.validation import aspects_named
from preference_benchmark.embedding import Embedder, TextEmbedder, VectorStore
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.candidates import Candidates
from preference_benchmark.stages import write_atomically
from preference_benchmark.tables import Tables

__all__ = ["ALONE", "EVERYWHERE", "Shop", "conditioned", "kept", "knowing", "plan_of", "train_and_keep"]

# No model is told whether a preference was stated or inferred: that would be a second difference between test modes.
EVERYWHERE = {"kinds": False}
ALONE = {"axes": {"recommendation": 1.0}, "negatives": "none"}


@dataclass(frozen=True)
class Shop:
    """The corner shop, and what its preferences are matched by.

    Attributes:
        data: the benchmark; only training needs it.
        tables: what it was made of, with the true tastes.
        preferences: what was written.
        embedder: compares preferences with items.
        encoder: of the benchmark and of the model; None: the default one.
        seed: of every random choice of a matcher.
    """

    data: BenchmarkData | None
    tables: Tables
    preferences: pl.DataFrame
    embedder: Embedder
    encoder: str | None = None
    seed: int = 0

    @classmethod
    def read(cls, shape: Mapping[str, int], encoder: str | None = None) -> Shop:
        """The corner shop of these options."""
        options = dict(shape)
        data = load_benchmark_data("corner-shop", None, encoder, options=options)
        tables = read_tables(recipe("corner-shop", options=options))
        vectors = data.cache / "matched_texts"
        vectors.mkdir(exist_ok=True)
        embedder = VectorStore(vectors, lambda: TextEmbedder(encoder, progress=False))
        return cls(data, tables, ExtractiveApproximator(progress=False)(tables), embedder, encoder)

    @cached_property
    def training(self) -> pl.DataFrame:
        """The training targets: user_id, step, history, target, split, and the true reasons of the purchase."""
        aspects = self.tables.items.select(target=pl.int_range(pl.len(), dtype=pl.Int32), aspects="aspects")
        rows = targets(self.tables).filter(pl.col("split") == "train").join(self.tables.truth, on=KEYS, how="left")
        rows = rows.join(aspects, on="target", how="left", maintain_order="left")
        return rows.with_columns(reasons=pl.col("likes").list.set_intersection("aspects"))

    @cached_property
    def explained(self) -> pl.DataFrame:
        """The training targets of which some candidate names a true reason: user_id, step."""
        best = self.match(knowing(self))
        return best.filter(self.name_a_reason(best)).select(KEYS)

    def match(self, matcher: str | Matcher, embedder: Embedder | None = None, **options: Any) -> pl.DataFrame:
        """The preferences that a matcher chooses for training targets: user_id, step, text; sorted."""
        found = match(self.preferences, self.tables, embedder or self.embedder, matcher, **options)
        return found.join(self.training, on=KEYS, how="semi").select(*KEYS, "text").sort(KEYS)

    def accuracy(self, matches: pl.DataFrame) -> float:
        """Share of matches that name a true reason, where some candidate does."""
        return self.name_a_reason(matches.join(self.explained, on=KEYS, how="semi")).mean()

    def name_a_reason(self, rows: pl.DataFrame) -> pl.Series:
        """Whether each text (user_id, step, text) names a true reason of the purchase at its step."""
        reasons = rows.select(KEYS).join(self.training, on=KEYS, how="left", maintain_order="left")["reasons"]
        named = aspects_named(rows["text"], self.tables.items["aspects"])
        both = pl.DataFrame({"named": named, "reasons": reasons.fill_null([])})
        return both.select(pl.col("named").list.set_intersection("reasons").list.len() > 0).to_series()


def knowing(shop: Shop) -> Matcher:
    """A matcher that knows the truth: the closest to the target of the candidates that name a true reason."""

    def matcher(candidates: Candidates, similarity: Similarity) -> pl.Series:
        right = shop.name_a_reason(candidates.named(candidates.rows).with_columns(pl.col("step").cast(pl.Int64)))
        return similarity("item") + 2 * right.cast(pl.Float32)

    return matcher


def conditioned(tables: Tables, rows: pl.DataFrame, matches: pl.DataFrame, mode: str = "oracle") -> pl.DataFrame:
    """Targets as recommendation examples with their matched preferences; those without one are asked silently.

    Args:
        tables: the data set.
        rows: some of its targets, see `preference_benchmark.axes.examples.targets`.
        matches: user_id, step, text.
        mode: how they were matched, "oracle" or "last".
    """
    silent = as_examples(
        "recommendation",
        rows.join(matches, on=KEYS, how="anti", maintain_order="left"),
        preferences=pl.lit([], dtype=pl.List(pl.String)),
        kind="silent",
    )
    return pl.concat([recommendation(tables, matches.join(rows, on=KEYS, how="semi"), mode), silent])


def training_examples(shop: Shop, matches: pl.DataFrame) -> Dataset:
    """The training split with these matches; a target without one is asked without a preference."""
    own = conditioned(shop.tables, shop.training, matches)
    others = shop.data.examples["oracle"]["train"]
    others = others.select(np.flatnonzero(np.array(others["axis"][:]) != "recommendation"))
    return concatenate_datasets([others, examples_dataset(own, shop.tables.items["item_id"])["train"]])


def train_and_keep(
    preset: Preset,
    shop: Shop,
    matches: pl.DataFrame,
    folder: Path,
    scratch: Path,
    about: Mapping[str, Any],
    *,
    seed: int = 0,
    limit: int | None = None,
    asked: Mapping[str, Dataset] | None = None,
) -> None:
    """Train on these matches, measure, and keep what is needed to compare the run: run.json and ranks.parquet.

    Args:
        preset: what is trained, and how.
        shop: the data set.
        matches: the preferences of its training targets: user_id, step, text.
        folder: where the run is kept.
        scratch: for checkpoints; removed at the end.
        about: what run.json says of the run beside its training; "method" is its name in tables.
        seed: of the training.
        limit: test examples per axis at most.
        asked: further test examples of recommendation, by the name of their matching mode.
    """
    started, origin = time.monotonic(), provenance(seed)
    used = time.process_time()
    print(f"{time.strftime('%H:%M')} {folder.name}: begins", flush=True)
    examples = {**shop.data.examples["oracle"], "train": training_examples(shop, matches)}
    data = replace(shop.data, examples={"oracle": DatasetDict(examples)})
    path = encoder_path(shop.encoder)
    method = new_method(preset, data, path, seed)
    record = fit(method, data, scratch, seed=seed)
    trained = recommender_of(method, data, record, path)
    further = {mode: DatasetDict(test=rows) for mode, rows in (asked or {}).items()}
    tested = replace(shop.data, examples=shop.data.examples | further)
    _, ranks = score_model(trained.model, trained.processor, tested, about["method"], limit, 0, shuffled=False)
    seconds = {"seconds": time.monotonic() - started, "processor_seconds": time.process_time() - used}
    seconds = {name: round(value, 1) for name, value in seconds.items()}
    content = {**origin, "source": shop.data.source, **about, "training": record, **seconds}
    folder.mkdir(parents=True, exist_ok=True)
    table = BytesIO()
    # Wishes are compared as one group, whatever they ask for.
    ranks.with_columns(stratum=pl.lit("")).write_parquet(table, compression="zstd")
    write_atomically(folder / "ranks.parquet", table.getvalue())
    write_atomically(folder / "run.json", (json.dumps(content, indent=1) + "\n").encode())
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"{time.strftime('%H:%M')} {folder.name}: done after {content['seconds'] / 60:.1f} min", flush=True)


def plan_of(run: Any) -> dict[str, Any]:
    """The fields of a run, a dataclass, and those of its `preset` that change what is trained."""
    preset = {name: value for name, value in asdict(run.preset).items() if name not in PROSE}
    return json.loads(json.dumps({**asdict(run), "preset": preset}))


def kept(folder: Path) -> dict[str, Any]:
    """What run.json holds; empty where there is none."""
    path = folder / "run.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
