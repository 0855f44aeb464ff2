"""What a data set of the benchmark looks like: lengths of histories, polarity of preferences, similarity margins."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.ticker import MaxNLocator

from preference_benchmark.axes.build import BuiltExamples
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE

__all__ = [
    "PLOTS",
    "draw",
]


matplotlib.use("Agg")


PLOTS = {
    "history_length.png": "How many items users have bought",
    "preferences.png": "Preferences by polarity, and how the positive and negative ones grow with the history",
    "margins.png": "How much closer the preference is to its target than to another item",
}
_BLUE, _ORANGE, _GREY = "#1f4e79", "#e0a458", "#8a8a8a"
_LABELS = {
    "fine_grained_steering": "fine steering",
    "coarse_grained_steering": "coarse steering",
    "history_consolidation": "consolidation (first of five)",
    "sentiment_following": "sentiment (positive text)",
    "sentiment_following_with_history": "sentiment with history",
}
# Without it, the same numbers give the same picture, byte for byte.
_METADATA = {"Software": None}


def draw(built: BuiltExamples, margins: dict[str, dict], title: str, folder: Path) -> None:
    """Write the pictures of `PLOTS` into a folder.

    Args:
        built: the benchmark.
        margins: the result of `validation.margins`.
        title: name of the data set.
        folder: where the pictures go.
    """
    for name, figure in (
        ("history_length.png", _history_lengths(built, title)),
        ("preferences.png", _polarities(built, title)),
        ("margins.png", _margins(margins, title)),
    ):
        figure.savefig(folder / name, dpi=100, metadata=_METADATA)
        plt.close(figure)


def _history_lengths(built: BuiltExamples, title: str) -> plt.Figure:
    length = built.tables.interactions.group_by("user_id").len()["len"].to_numpy()
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    edges = np.arange(length.min() - 0.5, length.max() + 1)
    axes.hist(length, bins=edges, color=_BLUE)
    axes.axvline(length.mean(), color=_ORANGE, label=f"mean {length.mean():.1f}")
    axes.set(xlabel="items per user, the last two held out", ylabel="users", title=f"{title}: length of histories")
    axes.legend(frameon=False)
    return _plain(figure)


def _polarities(built: BuiltExamples, title: str) -> plt.Figure:
    counts = built.preferences.group_by("step", "sentiment").len().sort("step")
    steps = np.arange(int(counts["step"].max() or 0) + 1)
    heights = {
        sentiment: np.bincount(rows["step"].to_numpy(), weights=rows["len"].to_numpy(), minlength=len(steps))
        for sentiment in (POSITIVE, NEGATIVE)
        for rows in [counts.filter(pl.col("sentiment") == sentiment)]
    }
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    bottom = np.zeros(len(steps))
    for sentiment, colour in ((POSITIVE, _BLUE), (NEGATIVE, _ORANGE)):
        total = int(heights[sentiment].sum())
        axes.bar(steps, heights[sentiment], bottom=bottom, color=colour, label=f"{sentiment} ({total:,})")
        bottom += heights[sentiment]
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="written after step", ylabel="preferences", title=f"{title}: preferences by polarity")
    axes.legend(frameon=False)
    return _plain(figure)


def _margins(margins: dict[str, dict], title: str) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(6.8, 1.4 + 0.55 * max(len(margins), 1)), layout="constrained")
    names = list(margins)[::-1]
    for place, name in enumerate(names):
        found = margins[name]
        low, first, middle, third, high = found["quantiles"]
        axes.plot([low, high], [place, place], color=_GREY, linewidth=1.2, zorder=1)
        axes.plot([first, third], [place, place], color=_BLUE, linewidth=7, solid_capstyle="butt", zorder=2)
        axes.plot(middle, place, "o", color=_ORANGE, markersize=5, zorder=3)
        axes.annotate(
            f"{found['closer']:.0%} closer", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8
        )
    axes.axvline(0, color=_GREY, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(names)), [_LABELS.get(name, name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set(
        xlabel="closer to the target than to another item by\n(cosine: median, quartiles, 5-95 %)",
        title=f"{title}: similarity margins",
    )
    return _plain(figure)


def _plain(figure: plt.Figure) -> plt.Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure
