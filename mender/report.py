"""The five-axis table: methods side by side on every axis, printed and as a bar chart.

Names of axes, numbers and intervals are written here for every table and plot of this package.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from rich.table import Table

from mender.terminal import new_console
from preference_benchmark.stages import write_atomically

__all__ = ["AXIS_NAMES", "Score", "draw", "in_order", "interval", "number", "print_table", "row_name", "save_figure"]

AXIS_NAMES = {
    "recommendation": "recommendation",
    "fine_grained_steering": "fine steering",
    "coarse_grained_steering": "coarse steering",
    "sentiment_following": "sentiment following",
    "history_consolidation": "history consolidation",
    "sentiment_following_with_history": "sentiment with history",
    "open_wishes": "open wishes",
    "wish_and_avoid": "wish and avoid",
}
SEVERAL_TARGETS = ("open_wishes", "wish_and_avoid")
"""Axes with several relevant items per example, whose main figure is precision among the first min(k, all of them)."""
LEGEND = (
    "m: wanted and found, unwanted and left out. fit: share of the first k for an unwanted item that fit the history. "
    "P: share of relevant items among the first min(k, all relevant). out: items to avoid among the first k."
)
COLOURS = ("#1f4e79", "#9db8d2", "#d0d0d0", "#e0a458", "#7a9e7e")


def row_name(axis: str, matching: str = "", condition: str = "", stratum: str = "") -> str:
    """The name of a table row.

    >>> row_name("recommendation", "last"), row_name("fine_grained_steering", condition="shuffled preferences")
    ('recommendation (last)', 'fine steering, shuffled preferences')
    >>> row_name("open_wishes", stratum="withheld")
    'open wishes (withheld)'
    """
    name = AXIS_NAMES.get(axis, axis.replace("_", " "))
    group = matching or stratum
    return name + (f" ({group})" if group else "") + (f", {condition}" if condition else "")


def number(value: float, digits: int = 3) -> str:
    """A number without the zero before the decimal point.

    >>> number(0.4852), number(1), number(0.00071, 4)
    ('.485', '1.000', '.0007')
    """
    return f"{value:.{digits}f}".removeprefix("0") if value < 1 else f"{value:.{digits}f}"


def interval(low: float, high: float) -> str:
    """The ends of an interval.

    >>> interval(0.415, 0.55)
    '.415-.550'
    """
    return f"{number(low)}-{number(high)}"


@dataclass(frozen=True)
class Score:
    """The results of one method on one axis.

    Attributes:
        axis: name of the axis.
        matching: how the preference of the recommendation axis was chosen; empty on other axes.
        method: name of the method.
        results: figures of the metric for this axis, without the axis in their names.
        stratum: of the examples, where the axis has strata.
    """

    axis: str
    matching: str
    method: str
    results: dict[str, float]
    stratum: str = ""

    @property
    def row(self) -> str:
        """Name of the axis for people."""
        return row_name(self.axis, self.matching, stratum=self.stratum)

    @property
    def is_paired(self) -> bool:
        """Whether the axis has sentiment pairs, which m@k counts in place of recall and NDCG."""
        return any(name.startswith("m@") for name in self.results)

    @property
    def headline_name(self) -> str:
        """Name of the main figure: m for sentiment pairs, r_precision for several targets, recall elsewhere."""
        return "m" if self.is_paired else "r_precision" if self.axis in SEVERAL_TARGETS else "recall"

    def headline(self, k: int) -> tuple[float, float, float]:
        """The axis's main figure with its interval; see `headline_name`."""
        name = f"{self.headline_name}@{k}"
        return self.results[name], self.results[f"{name}/low"], self.results[f"{name}/high"]

    def cells(self, ks: tuple[int, ...]) -> list[str]:
        """Recall and NDCG (or the metrics of `LEGEND`) at every k, the headline's interval, and the count."""
        cells = []
        for k in ks:
            if self.is_paired:
                fit = f"fit {number(self.results[f'fit@{k}'])}" if f"fit@{k}" in self.results else ""
                cells += [f"m {number(self.results[f'm@{k}'], 4)}", fit]
            elif self.axis in SEVERAL_TARGETS:
                out = f"out {self.results[f'avoided@{k}']:.2f}" if f"avoided@{k}" in self.results else ""
                cells += [f"P {number(self.results[f'r_precision@{k}'], 4)}", out]
            else:
                cells += [number(self.results[f"{name}@{k}"], 4) for name in ("recall", "ndcg")]
        _, low, high = self.headline(ks[-1])
        return [*cells, interval(low, high), f"{self.results['n']:,}"]


def in_order(scores: Iterable[Score]) -> list[Score]:
    """Scores in the order of `AXIS_NAMES`, all methods of a row side by side; other axes come last."""
    order, scores = list(AXIS_NAMES), list(scores)
    rows = list(dict.fromkeys((score.axis, score.matching, score.stratum) for score in scores))

    def place(score: Score) -> tuple[int, int]:
        axis = order.index(score.axis) if score.axis in order else len(order)
        return axis, rows.index((score.axis, score.matching, score.stratum))

    return sorted(scores, key=place)


def print_table(scores: list[Score], ks: tuple[int, ...] = (5, 10), title: str = "") -> None:
    """Print one row per axis and method."""
    table = Table(title=title, caption=LEGEND if any(score.headline_name != "recall" for score in scores) else None)
    table.add_column("axis")
    table.add_column("method")
    for k in ks:
        table.add_column(f"R@{k}", justify="right")
        table.add_column(f"N@{k}", justify="right")
    table.add_column(f"95% of R@{ks[-1]}", justify="right")
    table.add_column("n", justify="right")
    previous = None
    for score in scores:
        if previous not in (None, score.row):
            table.add_section()
        table.add_row(score.row if score.row != previous else "", score.method, *score.cells(ks))
        previous = score.row
    new_console(width=120).print(table)


def draw(scores: list[Score], path: Path, k: int = 10, title: str = "") -> None:
    """Write a bar chart of every axis's headline figure with its interval, the numbers on the bars."""
    rows = list(dict.fromkeys(score.row for score in scores))
    methods = list(dict.fromkeys(score.method for score in scores))
    figure, axes = plt.subplots(figsize=(12, 1.2 + 0.95 * len(rows)))
    height = 0.8 / len(methods)
    for position, method in enumerate(methods):
        for score in (score for score in scores if score.method == method):
            value, low, high = score.headline(k)
            y = rows.index(score.row) + (position - (len(methods) - 1) / 2) * height
            colour = COLOURS[position % len(COLOURS)]
            label = method if score.row == rows[0] else None
            axes.barh(y, value, height * 0.92, color=colour, label=label)
            axes.plot([low, high], [y, y], color="black", linewidth=1)
            axes.text(high, y, f" {number(value)}", va="center", fontsize=9)
    figures = {score.row: score.headline_name.removeprefix("r_") for score in scores}
    names = [f"{row}\n{figures[row]}@{k}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    axes.set_title(title, loc="left", pad=30)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(methods), frameon=False)
    axes.set_xlabel("share of examples; lines are bootstrap 95% intervals")
    figure.tight_layout()
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path, **settings: object) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    image = BytesIO()
    figure.savefig(image, format="png", dpi=130, **settings)
    write_atomically(path, image.getvalue())
    plt.close(figure)
