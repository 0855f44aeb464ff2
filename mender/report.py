"""The five-axis table: methods side by side on every axis, as text, as a picture, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

__all__ = ["LABELS", "Score", "draw", "in_order", "print_table", "save_json"]

LABELS = {
    "recommendation": "recommendation",
    "fine_grained_steering": "fine steering",
    "coarse_grained_steering": "coarse steering",
    "sentiment_following": "sentiment following",
    "history_consolidation": "history consolidation",
    "sentiment_following_with_history": "sentiment with history",
}
COLOURS = ("#1f4e79", "#9db8d2", "#d0d0d0", "#e0a458", "#7a9e7e")


@dataclass(frozen=True)
class Score:
    """What one method reached on one axis.

    Attributes:
        axis: name of the axis.
        matching: how the preference of the recommendation axis was chosen; empty on axes it does not touch.
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
        return LABELS.get(self.axis, self.axis.replace("_", " ")) + (f" ({self.matching})" if self.matching else "")

    def headline(self, k: int) -> tuple[str, float, float, float]:
        """The axis's main figure with its interval: m@k for sentiment pairs, recall@k elsewhere."""
        name = f"m@{k}" if f"m@{k}" in self.results else f"recall@{k}"
        value = self.results[name]
        return name, value, self.results[f"{name}/low"], self.results[f"{name}/high"]


def in_order(scores: Iterable[Score]) -> list[Score]:
    """Scores in the order of `LABELS`; axes that it does not name come last."""
    order = list(LABELS)
    return sorted(scores, key=lambda score: order.index(score.axis) if score.axis in order else len(order))


def columns(score: Score, ks: tuple[int, ...]) -> list[str]:
    """Cells of one row: recall and NDCG at every k, and the headline's interval."""
    sentiment = f"m@{ks[0]}" in score.results
    cells = []
    for k in ks:
        if sentiment:
            cells += [f"m {score.results[f'm@{k}']:.4f}", ""]
        else:
            cells += [f"{score.results[f'recall@{k}']:.4f}", f"{score.results[f'ndcg@{k}']:.4f}"]
    _, _, low, high = score.headline(ks[-1])
    return [*cells, f"{low:.3f}-{high:.3f}", str(score.results["n"])]


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
        table.add_row(score.row if score.row != previous else "", score.method, *columns(score, ks))
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
            _, value, low, high = score.headline(k)
            y = rows.index(score.row) + (position - (len(methods) - 1) / 2) * height
            colour = COLOURS[position % len(COLOURS)]
            label = method if score.row == rows[0] else None
            axes.barh(y, value, height * 0.92, color=colour, label=label)
            axes.plot([low, high], [y, y], color="black", linewidth=1)
            axes.text(high, y, f" {value:.3f}", va="center", fontsize=9)
    names = [row + ("\nm@" if row.startswith("sentiment") else "\nrecall@") + str(k) for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    axes.set_title(title, loc="left", pad=30)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(methods), frameon=False)
    axes.set_xlabel("share of examples; lines are bootstrap 95% intervals")
    figure.tight_layout()
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, format="png", dpi=130)
    temporary.replace(path)
    plt.close(figure)


def save_json(scores: list[Score], settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write settings and all figures; returns what was written."""
    rows = [{"axis": s.axis, "matching": s.matching, "method": s.method, **s.results} for s in scores]
    record = {"settings": settings, "scores": rows}
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(record, indent=2), "utf-8")
    temporary.replace(path)
    return record
