"""Draws the figure of docs/concepts.md: python docs/images/concepts.py writes concepts.png beside this file."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK, GREY, PALE, ACCENT = "#1d2733", "#5f6b76", "#eef1f4", "#27408b"
# Sign, colour, and what the expert asks.
EXPERTS = {
    "Generator": ("+", "#4c5fd5", "Which item comes next,\ngiven wish and history?"),
    "Language": ("+", "#12876a", "Do the words of the wish\nfit the text of the item?"),
    "Behaviour": ("+", "#d07d08", "What do people with this\nhistory buy?"),
    "Avoid": ("−", "#c0392b", "Does the item match\nwhat is not wanted?"),
}
KINDS = {"stated": "a typed wish", "inferred": "a wish written\nfrom reviews", "silent": "a history alone"}
# An illustration: how much each expert adds to an item's score.
ITEMS = {
    "Malty Cardamom Black Tea": (0.35, 1.15, 0.3, 0.0),
    "Malty Espresso Blend": (0.45, 0.75, 0.35, 0.0),
    "Smoky Caramel Black Tea": (0.35, 0.55, 0.3, 0.0),
    "Malty Mint Infusion": (0.4, 1.0, 0.3, 1.3),
}


def box(axes: Axes, x: float, y: float, width: float, height: float, edge: str = GREY, face: str = "white") -> None:
    """A rounded box with its lower left corner at (x, y)."""
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=face, edgecolor=edge, linewidth=1.3))


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY) -> None:
    """An arrow between two points."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=15, color=colour, linewidth=1.6))


def heading(axes: Axes, x: float, text: str, below: str) -> None:
    """The title of a column, and a line under it."""
    axes.text(x, 7.6, text, ha="center", va="center", fontsize=13, weight="bold", color=INK)
    axes.text(x, 7.2, below, ha="center", va="center", fontsize=10.5, color=GREY)


def request(axes: Axes) -> None:
    """What a request holds."""
    heading(axes, 1.6, "1  A request", "any of three parts")
    box(axes, -0.1, 1.2, 3.4, 5.5)
    parts = (("wants", '"tea with a\nmalty brew"'), ("avoids", '"mint"'), ("has bought", "a teapot,\ndark honey"))
    for row, (name, text) in enumerate(parts):
        y = 5.0 - 1.8 * row
        box(axes, 0.1, y, 3.0, 1.5, face=PALE)
        axes.text(0.3, y + 1.22, name, va="center", fontsize=10.5, color=GREY)
        axes.text(1.6, y + 0.55, text, ha="center", va="center", fontsize=12, color=INK, linespacing=1.3)


def kinds(axes: Axes) -> None:
    """Three kinds, of which the request is the first."""
    heading(axes, 5.1, "2  Its kind", "chooses the weights")
    for row, (name, text) in enumerate(KINDS.items()):
        y, chosen = 5.0 - 1.8 * row, row == 0
        box(axes, 4.0, y, 2.2, 1.5, edge=ACCENT if chosen else "#b9c1c9", face="#e3e8f8" if chosen else "white")
        colour = ACCENT if chosen else GREY
        axes.text(5.1, y + 1.12, name, ha="center", va="center", fontsize=12, weight="bold", color=colour)
        axes.text(5.1, y + 0.48, text, ha="center", va="center", fontsize=10.5, color=colour, linespacing=1.3)
    arrow(axes, (3.4, 4.0), (3.95, 5.2), ACCENT)


def experts(axes: Axes) -> None:
    """Four experts, and how their scores enter the sum."""
    heading(axes, 8.9, "3  Experts score items", "weight × score, added up")
    for row, (name, (sign, colour, text)) in enumerate(EXPERTS.items()):
        y = 5.3 - 1.37 * row
        box(axes, 7.1, y, 3.5, 1.2, edge=colour)
        axes.add_patch(Rectangle((7.1, y + 0.1), 0.12, 1.0, color=colour))
        axes.text(7.4, y + 0.95, name, va="center", fontsize=12, weight="bold", color=colour)
        axes.text(7.4, y + 0.4, text, va="center", fontsize=10, color=INK, linespacing=1.2)
        axes.text(10.32, y + 0.6, sign, ha="center", va="center", fontsize=19, weight="bold", color=colour)
        arrow(axes, (10.65, y + 0.6), (11.65, 4.0 + 0.16 * (1.5 - row)), colour)
    arrow(axes, (6.25, 5.75), (7.05, 5.75), ACCENT)


def search(axes: Axes) -> None:
    """The tree of semantic IDs; the way that the beams took is drawn in bold."""
    heading(axes, 13.0, "4  One beam search", "along items that exist")
    box(axes, 11.7, 1.2, 2.6, 5.5, face=PALE)
    root, nodes = (13.0, 6.2), {"3": (12.35, 4.95), "7": (13.65, 4.95)}
    leaves = {"31": (12.05, 3.7), "34": (12.65, 3.7), "72": (13.35, 3.7), "75": (13.95, 3.7)}
    for name, place in {**nodes, **leaves}.items():
        above = root if len(name) == 1 else nodes[name[0]]
        taken = name in ("3", "31", "34")
        axes.plot(*zip(above, place, strict=True), color=ACCENT if taken else "#aab3bc", linewidth=3 if taken else 1.3)
        middle = ((above[0] + place[0]) / 2, (above[1] + place[1]) / 2)
        shift = -0.17 if place[0] < above[0] else 0.17
        axes.text(middle[0] + shift, middle[1], name[-1], ha="center", va="center", fontsize=11, color=INK)
        axes.plot(*place, "o", color=ACCENT if taken else "#aab3bc", markersize=7 if taken else 5)
    axes.plot(*root, "o", color=ACCENT, markersize=7)
    for (x, y), name in zip(leaves.values(), ("3-1", "3-4", "7-2", "7-5"), strict=True):
        axes.text(x, y - 0.28, name, ha="center", va="center", fontsize=10, color=INK)
    text = "each item has a\nsemantic ID, e.g. 3-1;\nsimilar items share\ntheir first code"
    axes.text(13.0, 2.25, text, ha="center", va="center", fontsize=10, color=GREY, linespacing=1.3)
    arrow(axes, (14.35, 4.0), (15.0, 4.0))


def items(axes: Axes) -> None:
    """Items in the order of their sums, each with a bar of what the experts gave."""
    heading(axes, 17.2, "5  Items, with reasons", "what each expert gave")
    zero, scale = 16.6, 1.35
    for row, (title, shares) in enumerate(ITEMS.items()):
        y, last = 5.95 - 1.37 * row, row == len(ITEMS) - 1
        rank = "⋮" if last else f"{row + 1}."
        axes.text(15.2, y + 0.4, f"{rank}  {title}", va="center", fontsize=11.5, color=GREY if last else INK)
        end = zero
        for share, (sign, colour, _) in zip(shares, EXPERTS.values(), strict=True):
            start = zero - scale * share if sign == "−" else end
            axes.add_patch(Rectangle((start, y - 0.3), scale * share, 0.4, color=colour))
            end += scale * share if sign == "+" else 0
        axes.plot((zero, zero), (y - 0.4, y + 0.2), color=INK, linewidth=1)


def main() -> None:
    """Draw and save."""
    figure, axes = plt.subplots(figsize=(16.5, 7))
    axes.set_xlim(-0.2, 19.4)
    axes.set_ylim(0.9, 8.0)
    axes.set_axis_off()
    for part in (request, kinds, experts, search, items):
        part(axes)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
