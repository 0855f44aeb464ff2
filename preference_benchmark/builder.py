"""The whole benchmark in one call: two tables and an embedder in, items and examples of five axes out.

Preferences are written once and every distinct text is embedded once; the matching modes share everything but
the preference of the recommendation axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from tqdm.auto import tqdm

from preference_benchmark import axes as axis_functions
from preference_benchmark.axes import AXES, SPLITS
from preference_benchmark.embedding import CachedEmbedder, Embedder
from preference_benchmark.matching import MODES, cosines, match
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.sentiment import NEGATIVE, POSITIVE
from preference_benchmark.tables import Tables

__all__ = ["EXAMPLE_FEATURES", "Benchmark", "BenchmarkReport", "build_benchmark"]

EXAMPLE_FEATURES = Features(
    {
        "axis": ClassLabel(names=list(AXES)),
        "user_id": Value("string"),
        "history": List(Value("string")),
        "preferences": List(Value("string")),
        "sentiment": ClassLabel(names=[POSITIVE, NEGATIVE]),
        "target": Value("string"),
        "pair_id": Value("int64"),
    }
)


@dataclass(frozen=True)
class BenchmarkReport:
    """What was built; `print` it.

    Attributes:
        items: number of items.
        users: number of users.
        preferences: number of preferences written, and how many of them are distinct and negative.
        examples: number of examples by axis and split.
        similarity: per matching mode the mean cosine between target and matched preference, and, as "random",
            between target and the preference matched to another target drawn at random.
    """

    items: int
    users: int
    preferences: dict[str, int]
    examples: dict[str, dict[str, int]]
    similarity: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(len(axis) for axis in AXES)
        written = ", ".join(f"{count:,} {kind}" for kind, count in self.preferences.items())
        rows = [f"{self.items:,} items, {self.users:,} users; preferences: {written}"]
        rows.append(f"{'examples':<{width}}" + "".join(f"{split:>12}" for split in SPLITS))
        rows += [
            f"{axis:<{width}}" + "".join(f"{counts[split]:>12,}" for split in SPLITS)
            for axis, counts in self.examples.items()
        ]
        means = ", ".join(f"{name} {value:.3f}" for name, value in self.similarity.items())
        if means:
            rows.append(f"mean cosine of preference and target: {means}")
        return "\n".join(rows)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, ready to train and evaluate on.

    Attributes:
        items: one row per item; row number = item index.
        examples: by matching mode, the splits train, validation and test with `EXAMPLE_FEATURES`.
        report: counts and similarities.
    """

    items: Dataset
    examples: dict[str, DatasetDict]
    report: BenchmarkReport


def build_benchmark(
    tables: Tables,
    embedder: Embedder,
    matching: Sequence[str] = MODES,
    seed: int = 0,
    *,
    axes: Sequence[str] = AXES,
    approximate: Callable[[Tables], pl.DataFrame] | None = None,
    all_earlier_steps: bool | None = None,
    progress: bool = True,
) -> Benchmark:
    """Items and examples of a data set.

    Args:
        tables: the data set.
        embedder: embeds preferences and item texts; see `TextEmbedder`.
        matching: which modes to build, of "oracle" and "last".
        seed: of every draw.
        axes: which axes to build.
        approximate: writes the preferences; default: `ExtractiveApproximator()`.
        all_earlier_steps: whether preferences of all earlier steps are candidates in matching; default: only
            for the source "steam", as in the paper.
        progress: whether to show progress bars.

    Raises:
        ValueError: if a mode or an axis is unknown, or none is given.
    """
    matching, axes = list(dict.fromkeys(matching)), list(dict.fromkeys(axes))
    _check(matching, MODES, "matching mode")
    _check(axes, AXES, "axis")
    if all_earlier_steps is None:
        all_earlier_steps = tables.report.source == "steam"
    embedder = CachedEmbedder(embedder)
    stages = ["preferences", "embeddings", *(f"matching: {mode}" for mode in matching), *axes]
    bar = tqdm(stages, desc="Building the benchmark", disable=not progress)

    def stage() -> None:
        bar.set_postfix_str(stages[bar.n])
        bar.refresh()

    stage()
    preferences = (approximate or ExtractiveApproximator(progress=progress))(tables)
    preferences = preferences.sort("user_id", "step", "rank")
    bar.update()
    stage()
    embedder.encode(pl.concat([tables.items["text"], preferences["text"].rename("text")]))
    bar.update()
    matches = {}
    for mode in matching:
        stage()
        matches[mode] = match(preferences, tables, embedder, mode, all_earlier_steps=all_earlier_steps)
        bar.update()
    shared, recommendation = {}, {}
    for axis in axes:
        stage()
        if axis == "recommendation":
            recommendation = {m: axis_functions.recommendation(tables, found) for m, found in matches.items()}
        elif axis == "history_consolidation":
            shared[axis] = axis_functions.history_consolidation(tables, preferences)
        elif axis == "sentiment_following":
            shared[axis] = axis_functions.sentiment_following(tables, preferences, embedder)
        else:
            shared[axis] = getattr(axis_functions, axis)(tables, preferences, embedder, seed)
        bar.update()
    bar.close()
    own = {mode: {"recommendation": rows} for mode, rows in recommendation.items()}
    frames = {mode: own.get(mode, {}) | shared for mode in matching}
    report = BenchmarkReport(
        items=tables.items.height,
        users=tables.interactions["user_id"].n_unique(),
        preferences={
            "written": preferences.height,
            "distinct": preferences["text"].n_unique(),
            "negative": preferences.filter(pl.col("sentiment") == NEGATIVE).height,
        },
        examples=_counts(frames[matching[0]]),
        similarity=_similarities(matches, tables, embedder, seed),
    )
    return Benchmark(
        items=items_dataset(tables.items),
        examples={
            mode: examples_dataset(pl.concat([frame[axis] for axis in AXES if axis in frame]))
            for mode, frame in frames.items()
        },
        report=report,
    )


def items_dataset(items: pl.DataFrame) -> Dataset:
    """The items table as a data set; large Arrow types become their plain counterparts."""
    found = Dataset.from_polars(items.head(0)).features
    return Dataset.from_polars(items, features=Features({name: _plain(kind) for name, kind in found.items()}))


def examples_dataset(examples: pl.DataFrame) -> DatasetDict:
    """Example frames as the splits of a data set with `EXAMPLE_FEATURES`."""
    axis, sentiment = EXAMPLE_FEATURES["axis"].names, EXAMPLE_FEATURES["sentiment"].names
    coded = examples.with_columns(
        pl.col("axis").replace_strict(axis, range(len(axis)), return_dtype=pl.Int64),
        pl.col("sentiment").replace_strict(sentiment, range(len(sentiment)), return_dtype=pl.Int64),
    )
    return DatasetDict(
        {
            split: Dataset.from_polars(
                coded.filter(pl.col("split") == split).select(list(EXAMPLE_FEATURES)), features=EXAMPLE_FEATURES
            )
            for split in SPLITS
        }
    )


def _plain(feature: object) -> object:
    if isinstance(feature, Value):
        return Value(feature.dtype.removeprefix("large_"))
    if isinstance(feature, dict):
        return {name: _plain(inner) for name, inner in feature.items()}
    return List(_plain(feature.feature)) if hasattr(feature, "feature") else feature


def _check(given: list[str], known: Sequence[str], what: str) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise ValueError(f"{what} {unknown[0] if unknown else given!r} is not known; pass some of {list(known)}.")


def _counts(frames: dict[str, pl.DataFrame]) -> dict[str, dict[str, int]]:
    return {
        axis: {split: frames[axis].filter(pl.col("split") == split).height for split in SPLITS}
        for axis in AXES
        if axis in frames
    }


def _similarities(matches: dict[str, pl.DataFrame], tables: Tables, embedder: Embedder, seed: int) -> dict[str, float]:
    """Mean cosine between targets and their preferences by mode, and, as a yardstick, shuffled preferences."""
    text = tables.items.select("item_id", target_text="text")
    means = {}
    for mode, found in matches.items():
        rows = found.join(tables.interactions, on=["user_id", "step"], maintain_order="left")
        rows = rows.join(text, on="item_id", how="left", maintain_order="left")
        means[mode] = _mean(cosines(rows["text"], rows["target_text"], embedder))
    other = rows["text"].gather(np.random.default_rng(seed).permutation(rows.height))
    return means | {"random": _mean(cosines(other, rows["target_text"], embedder))}


def _mean(values: pl.Series) -> float:
    return float(values.mean() or 0.0)
