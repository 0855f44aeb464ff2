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
from rich.console import Console
from rich.table import Table

from preference_benchmark.stages import write_atomically

__all__ = ["AXIS_NAMES", "Score", "draw", "in_order", "interval", "number", "print_table", "row_name", "save_figure"]

AXIS_NAMES = {
    "recommendation": "recommendation",
    "fine_grained_steering": "fine steering",
    "coarse_grained_steering": "coarse steering",
    "sentiment_following": "sentiment following",
    "history_consolidation": "history consolidation",
    "sentiment_following_with_history": "sentiment with history",
}
COLOURS = ("#1f4e79", "#9db8d2", "#d0d0d0", "#e0a458", "#7a9e7e")


def row_name(axis: str, matching: str = "", condition: str = "") -> str:
    """What a row of a table is called.

    >>> row_name("recommendation", "last"), row_name("fine_grained_steering", condition="shuffled preferences")
    ('recommendation (last)', 'fine steering, shuffled preferences')
    """
    name = AXIS_NAMES.get(axis, axis.replace("_", " "))
    return name + (f" ({matching})" if matching else "") + (f", {condition}" if condition else "")


def number(value: float, digits: int = 3) -> str:
    """A share of one, without the zero before the point.

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
    """What one method reached on one axis.

    Attributes:
        axis: name of the axis.
        matching: how the preference of the recommendation axis was chosen; empty on other axes.
        method: name of the method.
        results: figures of the metric for this axis, without the axis in their names.
    """

    axis: str
    matching: str
    method: str
    results: dict[str, float]

    @property
    def row(self) -> str:
        """Name of the axis for people."""
        return row_name(self.axis, self.matching)

    @property
    def is_paired(self) -> bool:
        """Whether the axis has sentiment pairs, which m@k counts in place of recall and NDCG."""
        return any(name.startswith("m@") for name in self.results)

    def headline(self, k: int) -> tuple[float, float, float]:
        """The axis's main figure with its interval: m@k for sentiment pairs, recall@k elsewhere."""
        name = f"m@{k}" if self.is_paired else f"recall@{k}"
        return self.results[name], self.results[f"{name}/low"], self.results[f"{name}/high"]

    def cells(self, ks: tuple[int, ...]) -> list[str]:
        """Recall and NDCG (or m@k) at every k, the headline's interval, and the number of examples."""
        cells = []
        for k in ks:
            if self.is_paired:
                cells += [f"m {number(self.results[f'm@{k}'], 4)}", ""]
            else:
                cells += [number(self.results[f"{name}@{k}"], 4) for name in ("recall", "ndcg")]
        _, low, high = self.headline(ks[-1])
        return [*cells, interval(low, high), f"{self.results['n']:,}"]


def in_order(scores: Iterable[Score]) -> list[Score]:
    """Scores in the order of `AXIS_NAMES`; other axes come last."""
    order = list(AXIS_NAMES)
    return sorted(scores, key=lambda score: order.index(score.axis) if score.axis in order else len(order))


def print_table(scores: list[Score], ks: tuple[int, ...] = (5, 10), title: str = "") -> None:
    """Print one row per axis and method."""
    table = Table(title=title)
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
    Console(width=120).print(table)


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
    paired = {score.row for score in scores if score.is_paired}
    names = [f"{row}\n{'m' if row in paired else 'recall'}@{k}" for row in rows]
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
