"""Runs compared example by example: means over seeds, intervals, paired differences, costs; as table and star plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from mender.evaluation import metric_module
from mender.report import AXIS_NAMES, interval, number, row_name, save_figure
from modeling_mender.training.presets import PROSE
from preference_benchmark.hub.card import table as markdown_table
from preference_benchmark.stages import write_atomically

__all__ = ["METRICS", "Comparison", "compare", "draw_stars", "print_comparison", "save_comparison"]

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
"""Metrics that runs can be compared by; sentiment pairs are compared by m@k with the same k."""

KEYS = ["matching", "condition", "axis", "user_id", "target", "pair_id", "occurrence"]
RUN_NAMES = ("method", "seed", "commit", "command", "trained_by_commit", "trained_by_command", "seconds")
COST_NAMES = ("trained", "parameters", "samples_per_second", "request_ms", "users_per_second")


@dataclass(frozen=True)
class Cell:
    """One method on one row of the table.

    Attributes:
        value: the metric, or m@k on sentiment pairs; mean over examples and seeds.
        low: lower end of its bootstrap 95% interval.
        high: upper end.
        n: examples, or pairs.
        difference: to the reference, with the ends of its interval; `None` for the reference itself.
    """

    value: float
    low: float
    high: float
    n: int
    difference: tuple[float, float, float] | None = None

    @property
    def mark(self) -> str:
        """+ or - where the difference to the reference is more than noise."""
        if self.difference is None:
            return ""
        _, low, high = self.difference
        return "+" if low > 0 else "-" if high < 0 else ""


@dataclass
class Comparison:
    """Everything that is shown.

    Attributes:
        source: the benchmark, and the split where that is not the test split.
        reference: the method others are compared with.
        metric: one of `METRICS`.
        cells: by row label, then by method.
        costs: by method: parameters, training samples/s, request time; medians over seeds.
        runs: seed, commit and command of every run.
    """

    source: str
    reference: str
    metric: str = "recall@10"
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order given."""
        return list(self.costs)


def compare(
    runs: Mapping[Path, Mapping[str, Any]],
    reference: str | None = None,
    resamples: int = 2000,
    metric: str = "recall@10",
) -> Comparison:
    """Compare runs on the examples that all of them were measured on.

    Args:
        runs: by folder, what its five_axes.json holds.
        reference: a method's name; default: the first run's.
        resamples: of the bootstrap.
        metric: one of `METRICS`.

    Raises:
        ValueError: if the metric is unknown, runs are of different benchmarks or examples, the reference is not among
            them, or runs of one name differ in more than their seed.
    """
    if metric not in METRICS:
        raise ValueError(f"--metric {metric!r} is unknown; pass one of {', '.join(METRICS)}")
    settings = {folder: run["settings"] for folder, run in runs.items()}
    source = _common_source(settings)
    methods: dict[str, dict[Path, Mapping[str, Any]]] = {}
    for folder, own in settings.items():
        methods.setdefault(own["method"], {})[folder] = own
    reference = next(iter(methods)) if reference is None else reference
    if reference not in methods:
        raise ValueError(f"--reference {reference!r} is not among the methods; pass one of {', '.join(methods)}")
    for method, own in methods.items():
        _check_seeds(method, own)
    gains = {method: _mean_over_seeds([_gains(folder, metric) for folder in own]) for method, own in methods.items()}
    comparison = Comparison(source, reference, metric)
    comparison.costs = {method: _costs(list(own.values())) for method, own in methods.items()}
    comparison.runs = [{name: run[name] for name in RUN_NAMES if name in run} for run in settings.values()]
    groups = gains[reference].group_by("matching", "condition", "axis", maintain_order=True)
    order = {axis: place for place, axis in enumerate(AXIS_NAMES)}
    # The users' own preferences first, then shuffled ones; within each, the axes in their own order.
    for (matching, condition, axis), rows in sorted(
        groups, key=lambda group: (group[0][1], order.get(group[0][2], len(order)))
    ):
        row = row_name(axis, matching, condition)
        comparison.cells[row] = _cells(rows.select(KEYS), gains, reference, resamples)
    return comparison


def _common_source(settings: Mapping[Path, Mapping[str, Any]]) -> str:
    """The benchmark that all runs were measured on, and the split where that is not the test split."""
    for folder, own in settings.items():
        if not {"source", "method"} <= own.keys():
            raise ValueError(f"{folder} does not say which method was measured on what; evaluate its model again")
    sources = sorted({str(own["source"]) for own in settings.values()})
    if len(sources) > 1:
        raise ValueError(f"the runs are of different benchmarks: {', '.join(sources)}; compare one at a time")
    if len({own.get("exclude_seen", True) for own in settings.values()}) > 1:
        raise ValueError("some runs were evaluated with --keep-seen and others without; evaluate all in one way")
    splits = {own.get("split", "test") for own in settings.values()}
    if len(splits) > 1:
        raise ValueError("some runs were evaluated with --validation and others without; evaluate all in one way")
    return sources[0] if splits == {"test"} else f"{sources[0]}, {splits.pop()} split"


def _costs(runs: list[Mapping[str, Any]]) -> dict[str, float]:
    """What a method costs: medians over its seeds of what all of them measured, and their number."""
    flat = [{**run, **run.get("training", {})} for run in runs]
    measured = [name for name in COST_NAMES if all(name in run for run in flat)]
    return {name: float(np.median([run[name] for run in flat])) for name in measured} | {"seeds": len(runs)}


def _check_seeds(method: str, runs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Check that runs of one name differ in their seed, and in nothing else."""
    seen: dict[Any, Path] = {}
    presets = {folder: own["preset"] for folder, own in runs.items() if own.get("preset")}
    first, preset = next(iter(presets.items()), (None, {}))
    for folder, own in runs.items():
        seed, other = own.get("seed"), presets.get(folder, preset)
        # A field that one of them lacks comes from another version: it is not compared.
        changed = sorted(name for name in {*preset} & {*other} - {*PROSE} if preset[name] != other[name])
        if changed:
            reason = f"with different settings ({', '.join(changed)})"
        elif seed in seen:
            first, reason = seen[seed], f"with seed {seed}"
        else:
            seen[seed] = folder
            continue
        raise ValueError(
            f"{first} and {folder} are both called {method}, {reason}; leave one out, or give it another name with "
            "`mender train --name` or `mender evaluate --name`"
        )


def _gains(folder: Path, metric: str) -> pl.DataFrame:
    """What each example of a run adds to the metric; a sentiment pair counts if found when wanted and only then."""
    ranks = pl.read_parquet(folder / "ranks.parquet")
    name, k = metric.split("@")
    hit = pl.col("rank").is_between(1, int(k))
    gain = (
        hit.cast(pl.Float64) if name == "recall" else pl.when(hit).then(1 / (pl.col("rank") + 1).log(2)).otherwise(0.0)
    )
    wanted, unwanted = hit & (pl.col("sentiment") == "positive"), hit & (pl.col("sentiment") == "negative")
    paired = pl.col("pair_id") >= 0
    single = ranks.filter(~paired).with_columns(gain=gain)
    pairs = (
        ranks.filter(paired)
        .group_by("matching", "condition", "axis", "target", "pair_id", maintain_order=True)
        .agg(user_id=pl.col("user_id").first(), gain=wanted.any() & ~unwanted.any())
        .with_columns(pl.col("gain").cast(pl.Float64))
    )
    both = pl.concat([frame.select(*KEYS[:-1], "gain") for frame in (single, pairs)])
    # The same user and target may appear twice on a steering axis; number them so that they join one to one.
    return both.with_columns(occurrence=pl.int_range(pl.len()).over(KEYS[:-1]))


def _mean_over_seeds(runs: list[pl.DataFrame]) -> pl.DataFrame:
    first = runs[0]
    for other in runs[1:]:
        if not other.select(KEYS).sort(KEYS).equals(first.select(KEYS).sort(KEYS)):
            raise ValueError("two seeds of one method were measured on different examples; use the same --eval-limit")
    return pl.concat(runs).group_by(KEYS, maintain_order=True).agg(pl.col("gain").mean())


def _cells(keys: pl.DataFrame, gains: dict[str, pl.DataFrame], reference: str, resamples: int) -> dict[str, Cell]:
    """Values, intervals and paired differences of all methods on the examples of one row."""
    values = {}
    for method, table in gains.items():
        joined = keys.join(table, on=KEYS, how="left", maintain_order="left")["gain"]
        if joined.null_count():
            missing = joined.null_count()
            raise ValueError(f"{method} lacks {missing} of {reference}'s examples; use the same --eval-limit for both")
        values[method] = joined.to_numpy()
    base = values[reference]
    others = [method for method in values if method != reference]
    metric = metric_module()
    # Drawn together, values and differences of all methods: that is what makes differences paired.
    low, high = metric.bootstrap_interval(
        np.column_stack([*values.values(), *(values[method] - base for method in others)]),
        units=keys["target"].to_numpy() if keys["axis"][0] in metric.CHOSEN_AXES else None,
        n_resamples=resamples,
    )
    ends = dict(zip([*values, *((method, reference) for method in others)], zip(low, high, strict=True), strict=True))
    return {
        method: Cell(
            float(value.mean()),
            *map(float, ends[method]),
            keys.height,
            None if method == reference else (float((value - base).mean()), *map(float, ends[method, reference])),
        )
        for method, value in values.items()
    }


def _rows(comparison: Comparison) -> list[list[str]]:
    """The table as text, header first."""
    k = comparison.metric.split("@")[1]
    header = [f"{comparison.metric}; m@{k} of sentiment pairs", "n", *comparison.methods]
    rows = [header]
    for label, cells in comparison.cells.items():
        best = max(cell.value for cell in cells.values())
        texts = []
        for method in comparison.methods:
            cell = cells[method]
            value = f"**{number(cell.value)}**" if cell.value == best and best > 0 else number(cell.value)
            texts.append(f"{value}{cell.mark} ({interval(cell.low, cell.high)})")
        rows.append([label, f"{next(iter(cells.values())).n:,}", *texts])
    titles = {
        "trained": "trained parameters",
        "parameters": "parameters",
        "samples_per_second": "training samples/s",
        "request_ms": "ms per request",
        "users_per_second": "users/s, batches of 32",
        "seeds": "seeds",
    }
    for name, title in titles.items():
        costs = [comparison.costs[method].get(name) for method in comparison.methods]
        rows.append(
            [title, "", *("" if cost is None else f"{cost:,.4g}" if cost < 1e4 else f"{cost:,.0f}" for cost in costs)]
        )
    return rows


def print_comparison(comparison: Comparison) -> None:
    """Print the table: + and - mark differences to the reference that are more than noise."""
    header, *rows = _rows(comparison)
    table = Table(title=f"{comparison.source}; + and - against {comparison.reference}")
    for name in header:
        table.add_column(name, justify="left" if name == header[0] else "right")
    for row in rows:
        table.add_row(*(cell.replace("**", "") for cell in row))
    Console(width=60 + 22 * len(comparison.methods)).print(table)


def draw_stars(comparison: Comparison, path: Path) -> None:
    """The paper's star plot: one ray per axis, scaled by the best method on it; baselines are dashed."""
    labels = [label for label in comparison.cells if "shuffled" not in label]
    angles = np.linspace(0, 2 * np.pi, len(labels), endpoint=False)
    best = np.array([max(cell.value for cell in comparison.cells[label].values()) or 1.0 for label in labels])
    figure, axes = plt.subplots(figsize=(9.5, 7.5), subplot_kw={"projection": "polar"})
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    colours = plt.get_cmap("tab10")
    for position, method in enumerate(comparison.methods):
        values = np.array([comparison.cells[label][method].value for label in labels]) / best
        closed = np.append(values, values[0])
        ours = method.startswith("mender")
        axes.plot(
            np.append(angles, angles[0]),
            closed,
            color=colours(position % 10),
            linewidth=2.2 if ours else 1.4,
            linestyle="solid" if ours else "dashed",
            label=method,
        )
        if ours:
            axes.fill(np.append(angles, angles[0]), closed, color=colours(position % 10), alpha=0.06)
    names = [f"{label}\nbest {number(value)}" for label, value in zip(labels, best, strict=True)]
    axes.set_xticks(angles, names, fontsize=9)
    for name, angle in zip(axes.get_xticklabels(), angles, strict=True):  # beside the circle, not across it
        name.set_horizontalalignment("center" if abs(np.sin(angle)) < 0.1 else "left" if np.sin(angle) > 0 else "right")
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "half", "", "best"], fontsize=8, color="grey")
    axes.set_ylim(0, 1.05)
    axes.tick_params(axis="x", pad=10)
    k = comparison.metric.split("@")[1]
    axes.set_title(
        f"{comparison.source}: share of the best method's {comparison.metric} (m@{k} on sentiment pairs)", pad=34
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5, frameon=False)
    save_figure(figure, path, bbox_inches="tight")


def save_comparison(comparison: Comparison, folder: Path) -> dict[str, Any]:
    """Write the table as Markdown and everything as JSON; returns what the JSON holds."""
    header, *rows = _rows(comparison)
    cells = {label: {method: vars(cell) for method, cell in cells.items()} for label, cells in comparison.cells.items()}
    record = {
        "source": comparison.source,
        "reference": comparison.reference,
        "metric": comparison.metric,
        "cells": cells,
        "costs": comparison.costs,
        "runs": comparison.runs,
    }
    write_atomically(folder / "comparison.md", markdown_table(header, rows).encode())
    write_atomically(folder / "comparison.json", json.dumps(record, indent=1).encode())
    return record
