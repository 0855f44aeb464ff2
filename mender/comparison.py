"""Runs compared example by example: means over seeds, intervals, paired tests, costs; as table and star plot.

A difference to the reference is marked where it survives a paired randomisation test (Fisher 1935; Smucker et al.
2007, doi:10.1145/1321440.1321528) with Holm's correction (Holm 1979) over all rows and methods of the table. A method
that is not marked may still be *not inferior*: its lower 95% bound is above a share of the reference.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from rich.table import Table

from mender.evaluation import metric_module
from mender.report import AXIS_NAMES, SEVERAL_TARGETS, interval, number, row_name, save_figure
from mender.terminal import new_console
from modeling_mender.training.presets import PROSE
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.stages import write_atomically

__all__ = [
    "METRICS",
    "Comparison",
    "compare",
    "draw_stars",
    "print_comparison",
    "randomisation_test",
    "save_comparison",
]

logger = logging.getLogger(__name__)

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
"""Metrics that runs can be compared by. In place of recall@k, sentiment pairs are compared by m@k and axes with several
targets by precision among the first min(k, all targets)."""

SIGNIFICANT = 0.05
FLIPS = 9_999
"""Random assignments of a randomisation test; the smallest p-value is 1 / (FLIPS + 1)."""
KEYS = ["matching", "condition", "axis", "stratum", "user_id", "target", "unit", "pair_id", "occurrence"]
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
        seed_spread: standard deviation of the value over seeds; `None` with one seed.
        difference: to the reference, with the ends of its interval; `None` for the reference itself.
        p_value: of that difference, by a paired randomisation test; `None` for the reference.
        p_holm: the same after Holm's correction over all rows and methods of the table.
        not_inferior: whether the value reaches (1 - margin) of the reference with 97.5% confidence.
    """

    value: float
    low: float
    high: float
    n: int
    seed_spread: float | None = None
    difference: tuple[float, float, float] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    not_inferior: bool | None = None

    @property
    def mark(self) -> str:
        """+ or - where the difference to the reference survives the correction, ~ where it is small for certain."""
        if self.difference is None:
            return ""
        if self.p_holm is not None and self.p_holm < SIGNIFICANT:
            return "+" if self.difference[0] > 0 else "-"
        return "~" if self.not_inferior else ""


@dataclass
class Comparison:
    """Everything that is shown.

    Attributes:
        source: the benchmark, and the split where that is not the test split.
        reference: the method others are compared with.
        metric: one of `METRICS`.
        margin: share of the reference by which a method may be worse and still count as not inferior.
        cells: by row label, then by method.
        costs: by method: parameters, training samples/s, request time; medians over seeds.
        runs: seed, commit and command of every run.
    """

    source: str
    reference: str
    metric: str = "recall@10"
    margin: float = 0.05
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
    margin: float = 0.05,
) -> Comparison:
    """Compare runs on the examples that all of them were measured on.

    Args:
        runs: by folder, what its five_axes.json holds.
        reference: a method's name; default: the first run's.
        resamples: of the bootstrap.
        metric: one of `METRICS`.
        margin: of non-inferiority, a share of the reference's value.

    Raises:
        ValueError: if the metric is unknown, the margin is out of range, runs are of different benchmarks or examples,
            the reference is not among them, or runs of one name differ in more than their seed.
    """
    if metric not in METRICS:
        raise ValueError(f"--metric {metric!r} is unknown; pass one of {', '.join(METRICS)}")
    if not 0 <= margin < 1:
        raise ValueError(
            f"--margin {margin} is not a share of the reference; pass a number from 0 up to 1, such as 0.05"
        )
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
    gains = {method: _by_seed([_gains(folder, metric) for folder in own]) for method, own in methods.items()}
    comparison = Comparison(source, reference, metric, margin)
    comparison.costs = {method: _costs(list(own.values())) for method, own in methods.items()}
    comparison.runs = [{name: run[name] for name in RUN_NAMES if name in run} for run in settings.values()]
    groups = gains[reference].group_by("matching", "condition", "axis", "stratum", maintain_order=True)
    order = {axis: place for place, axis in enumerate(AXIS_NAMES)}
    # The users' own preferences first, then shuffled ones; within each, the axes in their own order.
    for (matching, condition, axis, stratum), rows in sorted(
        groups, key=lambda group: (group[0][1], order.get(group[0][2], len(order)))
    ):
        row = row_name(axis, matching, condition, stratum)
        logger.info("comparing on %s: bootstrap and randomisation tests", row)
        comparison.cells[row] = _cells(rows.select(KEYS), gains, reference, resamples, margin)
    comparison.cells = _corrected(comparison.cells)
    return comparison


def _common_source(settings: Mapping[Path, Mapping[str, Any]]) -> str:
    """The benchmark that all runs were measured on, and the split where that is not the test split."""
    for folder, own in settings.items():
        if not {"source", "method"} <= own.keys():
            raise ValueError(f"{folder} does not record its method and benchmark; evaluate its model again")
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
        # Fields that only one preset has come from another version and are not compared.
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
    """The contribution of each example to the metric; a sentiment pair counts if its item is found only when wanted."""
    ranks = pl.read_parquet(folder / "ranks.parquet").with_row_index("row")
    name, k = metric.split("@")
    hit = pl.col("rank").is_between(1, int(k))
    ranks = ranks.join(_credit(ranks, name, int(k)), on="row", how="left", maintain_order="left")
    ranks = ranks.with_columns(pl.col("gain").fill_null(0.0))
    wanted, unwanted = hit & (pl.col("sentiment") == "positive"), hit & (pl.col("sentiment") == "negative")
    paired = pl.col("pair_id") >= 0
    single = ranks.filter(~paired)
    pairs = (
        ranks.filter(paired)
        .group_by("matching", "condition", "axis", "stratum", "target", "pair_id", maintain_order=True)
        .agg(pl.col("user_id", "unit").first(), gain=wanted.any() & ~unwanted.any())
        .with_columns(pl.col("gain").cast(pl.Float64))
    )
    both = pl.concat([frame.select(*KEYS[:-1], "gain") for frame in (single, pairs)])
    # The same user and target may appear twice on a steering axis; number them so that they join one to one.
    return both.with_columns(occurrence=pl.int_range(pl.len()).over(KEYS[:-1]))


def _credit(ranks: pl.DataFrame, name: str, k: int) -> pl.DataFrame:
    """Recall (of one target), precision among the first min(k, all targets) (of several), or NDCG: row, gain."""
    found = ranks.select("row", "axis", "relevant", rank="found").explode("rank").filter(pl.col("rank") <= k)
    best = pl.min_horizontal("relevant", pl.lit(k))
    if name == "recall":
        several = pl.col("axis").is_in(SEVERAL_TARGETS)
        credit = pl.when(~several).then(1.0).when(pl.col("rank") <= best).then(1 / best).otherwise(0.0)
    else:
        ideal = pl.lit(pl.Series(np.cumsum(1 / np.log2(np.arange(k) + 2))))
        credit = 1 / (pl.col("rank") + 1).log(2) / ideal.gather(best - 1)
    return found.with_columns(gain=credit).group_by("row").agg(pl.col("gain").sum())


def _by_seed(runs: list[pl.DataFrame]) -> pl.DataFrame:
    """The gain of every example with each seed, as one list."""
    first = runs[0]
    for other in runs[1:]:
        if not other.select(KEYS).sort(KEYS).equals(first.select(KEYS).sort(KEYS)):
            raise ValueError("two seeds of one method were measured on different examples; use the same --eval-limit")
    return pl.concat(runs).group_by(KEYS, maintain_order=True).agg("gain")


def _cells(
    keys: pl.DataFrame, gains: dict[str, pl.DataFrame], reference: str, resamples: int, margin: float
) -> dict[str, Cell]:
    """Values, intervals and paired tests of all methods on the examples of one row."""
    values, spread = {}, {}
    for method, table in gains.items():
        joined = keys.join(table, on=KEYS, how="left", maintain_order="left")["gain"]
        if joined.null_count():
            missing = joined.null_count()
            raise ValueError(
                f"{method} was not measured on {missing} examples of {reference}; use the same --eval-limit for both"
            )
        by_seed = np.array(joined.to_list())
        values[method] = by_seed.mean(axis=1)
        spread[method] = float(by_seed.mean(axis=0).std(ddof=1)) if by_seed.shape[1] > 1 else None
    base = values[reference]
    others = [method for method in values if method != reference]
    metric = metric_module()
    units = keys["unit"].to_numpy() if keys["axis"][0] in metric.CHOSEN_AXES else None
    differences = [values[method] - base for method in others]
    above_margin = [values[method] - (1 - margin) * base for method in others]
    # Drawn together, values and differences of all methods: that is what makes differences paired.
    low, high = metric.bootstrap_interval(
        np.column_stack([*values.values(), *differences, *above_margin]), units=units, n_resamples=resamples
    )
    ends = list(zip(low.tolist(), high.tolist(), strict=True))
    p_values = dict(zip(others, randomisation_test(differences, units), strict=True))
    cells = {}
    for place, (method, value) in enumerate(values.items()):
        cell = Cell(float(value.mean()), *ends[place], keys.height, spread[method])
        if method != reference:
            other = others.index(method)
            cell = replace(
                cell,
                difference=(float(differences[other].mean()), *ends[len(values) + other]),
                p_value=p_values[method],
                not_inferior=ends[len(values) + len(others) + other][0] >= 0,
            )
        cells[method] = cell
    return cells


def randomisation_test(
    differences: Sequence[np.ndarray], units: np.ndarray | None = None, flips: int = FLIPS, seed: int = 0
) -> list[float]:
    """Two-sided p-values of mean differences being zero, if either sign were as likely for every unit.

    Args:
        differences: of paired examples, one array per comparison. Shape of each: (N,).
        units: label of the unit whose sign flips as a whole; default: each example alone. Shape: (N,).
        flips: random assignments of signs, the same for all comparisons.
        seed: of the signs.

    >>> randomisation_test([np.ones(20), np.zeros(20)])
    [0.0001, 1.0]
    """
    if not differences:
        return []
    sums = np.column_stack(differences)
    if units is not None:
        names, unit = np.unique(units, return_inverse=True)
        sums = np.stack([np.bincount(unit.reshape(-1), column, len(names)) for column in sums.T], axis=1)
    # Units without a difference flip to nothing: only the others are drawn.
    sums = sums[np.abs(sums).max(axis=1) > 0]
    observed = np.abs(sums.sum(axis=0))
    generator, extreme = np.random.default_rng(seed), np.zeros(sums.shape[1])
    block = max(1, 2**24 // max(1, len(sums)))
    for start in range(0, flips, block):
        size = min(block, flips - start)
        signs = generator.integers(0, 2, size=(size, len(sums)), dtype=np.int8) * 2 - 1
        # Sums of the same numbers in another order differ by rounding.
        extreme += (np.abs(signs.astype(np.float64) @ sums) >= observed - 1e-9).sum(axis=0)
    return [float((count + 1) / (flips + 1)) for count in extreme]


def _corrected(table: dict[str, dict[str, Cell]]) -> dict[str, dict[str, Cell]]:
    """The cells with Holm's correction over all of them that have a p-value."""
    places = [(row, method) for row, cells in table.items() for method in cells if cells[method].p_value is not None]
    ordered = sorted(places, key=lambda place: table[place[0]][place[1]].p_value)
    corrected = {row: dict(cells) for row, cells in table.items()}
    highest = 0.0
    for left, (row, method) in zip(range(len(ordered), 0, -1), ordered, strict=True):
        highest = max(highest, min(1.0, left * table[row][method].p_value))
        corrected[row][method] = replace(table[row][method], p_holm=highest)
    return corrected


def _rows(comparison: Comparison, p_values: bool = False) -> list[list[str]]:
    """The table as text, header first."""
    k = comparison.metric.split("@")[1]
    wishes = f", precision@{k} of wishes" if comparison.metric.startswith("recall") else ""
    header = [f"{comparison.metric}; m@{k} of sentiment pairs{wishes}", "n", *comparison.methods]
    rows = [header]
    for label, cells in comparison.cells.items():
        best = max(cell.value for cell in cells.values())
        texts = []
        for method in comparison.methods:
            cell = cells[method]
            value = f"**{number(cell.value)}**" if cell.value == best and best > 0 else number(cell.value)
            text = f"{value}{cell.mark} ({interval(cell.low, cell.high)})"
            text += f" sd {number(cell.seed_spread)}" if cell.seed_spread is not None else ""
            texts.append(text + (f" p {cell.p_holm:.3g}" if p_values and cell.p_holm is not None else ""))
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


def print_comparison(comparison: Comparison, p_values: bool = False) -> None:
    """Print the table; with `p_values`, those after Holm's correction as well."""
    header, *rows = _rows(comparison, p_values)
    table = Table(title=f"{comparison.source}; against {comparison.reference}", caption=legend(comparison))
    for name in header:
        table.add_column(name, justify="left" if name == header[0] else "right")
    for row in rows:
        table.add_row(*(cell.replace("**", "") for cell in row))
    new_console(width=60 + 22 * len(comparison.methods)).print(table)


def legend(comparison: Comparison) -> str:
    """What the marks of a table mean."""
    return (
        f"+ better, - worse than {comparison.reference} (p < {SIGNIFICANT}, Holm); ~ not inferior "
        f"(within {comparison.margin:.0%}); sd: over seeds"
    )


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
    for name, angle in zip(axes.get_xticklabels(), angles, strict=True):  # outside the circle
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


def save_comparison(comparison: Comparison, folder: Path, p_values: bool = False) -> dict[str, Any]:
    """Write the table as Markdown and everything as JSON; returns what the JSON holds."""
    header, *rows = _rows(comparison, p_values)
    cells = {label: {method: vars(cell) for method, cell in cells.items()} for label, cells in comparison.cells.items()}
    record = {
        "source": comparison.source,
        "reference": comparison.reference,
        "metric": comparison.metric,
        "margin": comparison.margin,
        "cells": cells,
        "costs": comparison.costs,
        "runs": comparison.runs,
    }
    write_atomically(folder / "comparison.md", f"{markdown_table(header, rows)}\n{legend(comparison)}\n".encode())
    write_atomically(folder / "comparison.json", json.dumps(record, indent=1).encode())
    return record
