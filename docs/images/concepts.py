"""Draws the figure of docs/concepts.md: python docs/images/concepts.py writes concepts.png beside this file."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BEFORE, REQUEST, GREY = "#e9f0f7", "#fdf1de", "#5f6b76"
EDGES = {BEFORE: "#1f4e79", REQUEST: "#b9770e"}


def box(axes: Axes, x: float, y: float, title: str, text: str, colour: str, width: float = 3.3, height: float = 1.7):
    """A titled box with its lower left corner at (x, y)."""
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", facecolor=colour, edgecolor=EDGES[colour]
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height - 0.18, title, ha="center", va="top", weight="bold", fontsize=11)
    axes.text(x + width / 2, y + height - 0.62, text, ha="center", va="top", fontsize=9.5, linespacing=1.4)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], label: str = "", side: str = "center"):
    """An arrow, with a word beside its middle."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=GREY, linewidth=1.3))
    if label:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        offset = (0, 0.12) if side == "center" else (0.3, 0.1)
        align = {"ha": "center", "va": "bottom"} if side == "center" else {"ha": "left", "va": "center"}
        axes.text(x + offset[0], y + offset[1], label, fontsize=9, color=GREY, **align)


def trie(axes: Axes, x: float, y: float) -> None:
    """Three levels of codes; the way to one item is drawn in bold."""
    root, first, second = (x, y), [(x - 0.75, y - 0.62), (x + 0.75, y - 0.62)], [-1.05, -0.45, 0.45, 1.05]
    for number, node in enumerate(first):
        bold = number == 1
        axes.plot(*zip(root, node, strict=True), color="#b9770e" if bold else GREY, linewidth=2.4 if bold else 1)
        axes.text((root[0] + node[0]) / 2 + (0.24 if bold else -0.22), (root[1] + node[1]) / 2, "73"[number], **CODE)
    for number, offset in enumerate(second):
        parent, node, bold = first[number // 2], (x + offset, y - 1.22), number == 2
        axes.plot(*zip(parent, node, strict=True), color="#b9770e" if bold else GREY, linewidth=2.4 if bold else 1)
        axes.text(node[0], node[1] - 0.08, ("2", "5", "1", "4")[number], **{**CODE, "va": "top"})
        axes.plot(*node, "o", color="#b9770e" if bold else GREY, markersize=5 if bold else 3)


CODE = {"fontsize": 9.5, "ha": "center", "va": "center"}


def main() -> None:
    """Draw and save."""
    figure, axes = plt.subplots(figsize=(12.5, 6.4))
    axes.set_xlim(0, 16.6)
    axes.set_ylim(0, 8.5)
    axes.set_axis_off()
    axes.text(0.1, 8.2, "Before: once per catalogue", fontsize=12, color=EDGES[BEFORE], weight="bold")
    box(axes, 0.1, 5.9, "Reviews", '"Love the malty taste,\nbut not in loose leaves"', BEFORE)
    box(axes, 4.5, 5.9, "Preferences", '"Find tea with a malty\nbrew", "Avoid loose leaves"', BEFORE)
    box(axes, 8.9, 5.9, "Items", "title, attributes\n→ one vector each", BEFORE)
    box(axes, 13.2, 5.9, "Semantic IDs", "alike items share\ntheir first codes:  3-1, 3-4", BEFORE)
    arrow(axes, (3.4, 6.75), (4.5, 6.75))
    arrow(axes, (12.2, 6.75), (13.2, 6.75))
    axes.text(12.7, 7.85, "quantizer", fontsize=9, color=GREY, ha="center", va="bottom")
    axes.text(0.1, 4.55, "A request: milliseconds", fontsize=12, color=EDGES[REQUEST], weight="bold")
    box(axes, 0.1, 2.55, "What a person says", '"Find tea with\na malty brew"', REQUEST, height=1.65)
    box(axes, 0.1, 0.3, "What they bought", "mug, teapot, honey", REQUEST, height=1.4)
    box(axes, 4.9, 1.4, "Encoder", "a language model,\nusually frozen", REQUEST, width=2.9, height=1.75)
    box(axes, 8.7, 1.4, "Decoder", "writes a semantic ID,\none code at a time", REQUEST, width=2.9, height=1.75)
    arrow(axes, (3.4, 3.3), (4.9, 2.6))
    arrow(axes, (3.4, 1.0), (4.9, 1.9))
    arrow(axes, (7.8, 2.27), (8.7, 2.27))
    arrow(
        axes, (6.15, 5.9), (7.6, 3.2), "training: preference and history\nto the next item's semantic ID", side="right"
    )
    arrow(axes, (11.6, 2.27), (13.0, 2.27), "beams")
    axes.text(14.85, 4.3, "Prefix tree of all items", ha="center", va="top", weight="bold", fontsize=11)
    trie(axes, 14.85, 3.75)
    arrow(axes, (14.85, 5.9), (14.85, 4.4), "only codes of items\nthat exist", side="right")
    axes.text(
        14.85, 2.0, "3-1 is the item that\nanswers best", ha="center", va="top", fontsize=9.5, color=EDGES[REQUEST]
    )
    arrow(axes, (14.85, 1.25), (14.85, 0.75))
    axes.text(14.85, 0.55, "ranked titles", ha="center", va="top", weight="bold", fontsize=11)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
