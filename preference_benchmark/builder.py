"""The whole benchmark in one call: two tables and an embedder in, items and examples of all axes out.

Preferences are written once and every distinct text is embedded once; the matching modes share everything but
the preference of the recommendation axis.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

from preference_benchmark.assemble import EXAMPLES_CODE, Approximator, Parts, assemble, stage_names
from preference_benchmark.axes.examples import EXAMPLE_FEATURES, examples_dataset, items_dataset
from preference_benchmark.axes.protocol import AXES, SPLITS, Protocol
from preference_benchmark.checks.leakage import check_leakage
from preference_benchmark.embedding import Embedder, cosines, describe_items
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.polarity import NEGATIVE
from preference_benchmark.stages import Stages, digest_of_code
from preference_benchmark.tables import Tables

__all__ = ["EXAMPLE_FEATURES", "Benchmark", "BenchmarkReport", "build_benchmark", "digest_of_builder", "report_on"]


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
    protocol: Protocol | None = None,
    *,
    approximate: Approximator | None = None,
    progress: bool = True,
    **choices: object,
) -> Benchmark:
    """Items and examples of a data set.

    Args:
        tables: the data set.
        embedder: embeds preferences and item texts; see `TextEmbedder`.
        protocol: the choices; default: `Protocol()`, for the source "steam" with candidates="earlier_steps" as in
            the paper.
        approximate: writes the preferences; default: `ExtractiveApproximator()`.
        progress: whether to show progress bars.
        choices: fields of the protocol to set otherwise: seed=1, axes=["recommendation"], ...

    Raises:
        ValueError: if a choice is unknown, or an example gives away what it asks for (`LeakageError`).
    """
    if protocol is None:
        protocol = Protocol(candidates="earlier_steps" if tables.report.source == "steam" else "previous_step")
    protocol = protocol.replace(**choices)
    bar = tqdm(stage_names(protocol), desc="Building the benchmark", disable=not progress)

    def announce(name: str, found: bool) -> None:
        bar.set_postfix_str(name)
        bar.update()

    parts = assemble(
        tables,
        lambda: embedder,
        protocol,
        approximate or ExtractiveApproximator(progress=progress),
        Stages(None, announce),
        progress=progress,
    )
    bar.close()
    check_leakage(parts.tables, parts.preferences, parts.axes, protocol).enforce(protocol.leaks)
    return Benchmark(
        items=items_dataset(parts.tables.items),
        examples={
            mode: examples_dataset(pl.concat(frames.values()), parts.tables.items["item_id"])
            for mode, frames in parts.axes.items()
        },
        report=report_on(parts, protocol),
    )


def digest_of_builder() -> str:
    """A digest of the source code that a benchmark depends on, beyond its tables."""
    return digest_of_code(*EXAMPLES_CODE, "builder", "checks/leakage")


def report_on(parts: Parts, protocol: Protocol) -> BenchmarkReport:
    """Counts and similarities of a benchmark."""
    first = parts.axes[protocol.matching[0]]
    return BenchmarkReport(
        items=parts.tables.items.height,
        users=parts.tables.interactions["user_id"].n_unique(),
        preferences={
            "written": parts.preferences.height,
            "distinct": parts.preferences["text"].n_unique(),
            "negative": parts.preferences.filter(pl.col("sentiment") == NEGATIVE).height,
        },
        examples={axis: _by_split(frame) for axis, frame in first.items()},
        similarity=_similarities(parts, protocol),
    )


def _by_split(frame: pl.DataFrame) -> dict[str, int]:
    return {split: frame.filter(pl.col("split") == split).height for split in SPLITS}


def _similarities(parts: Parts, protocol: Protocol) -> dict[str, float]:
    """Mean cosine between targets and their preferences by mode, and, as a yardstick, shuffled preferences."""
    described = parts.tables.items.select("item_id").with_columns(
        describe_items(parts.tables.items, protocol.described_by).alias("target_text")
    )
    means = {}
    for mode, found in parts.matches.items():
        rows = found.join(parts.tables.interactions, on=["user_id", "step"], maintain_order="left")
        rows = rows.join(described, on="item_id", how="left", maintain_order="left")
        means[mode] = _mean(cosines(rows["text"], rows["target_text"], parts.embedder))
    other = rows["text"].gather(np.random.default_rng(protocol.seed).permutation(rows.height))
    return means | {"random": _mean(cosines(other, rows["target_text"], parts.embedder))}


def _mean(values: pl.Series) -> float:
    return float(values.mean() or 0.0)
