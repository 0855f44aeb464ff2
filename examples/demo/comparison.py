"""Two ranked lists side by side: what moved up or down, what is new, what dropped out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DROPPED", "NEW", "RankedItem", "kind_of", "moves", "summary"]

NEW, DROPPED = "new", "dropped"


@dataclass(frozen=True)
class RankedItem:
    """One line of a list.

    Attributes:
        index: item index.
        item_id: the source's own id.
        title: its title.
        attributes: short phrases, perhaps none.
        score: the higher, the better; of most models the log-probability of the item.
        mentions: words to avoid that are in its title or attributes.
    """

    index: int
    item_id: str
    title: str
    attributes: tuple[str, ...]
    score: float
    mentions: tuple[str, ...] = ()


def moves(before: Sequence[RankedItem], after: Sequence[RankedItem]) -> tuple[list[int | str], list[int | str]]:
    """How items moved from the first list to the second.

    Returns:
        For each item of `before` and of `after` the places gained (negative: lost), or "dropped" and "new" where the
        other list lacks it.

    >>> a, b, c = (RankedItem(index, str(index), "", (), 0.0) for index in range(3))
    >>> moves([a, b], [b, c])
    (['dropped', 1], [1, 'new'])
    """
    was = {item.index: place for place, item in enumerate(before)}
    now = {item.index: place for place, item in enumerate(after)}
    left = [was[item.index] - now[item.index] if item.index in now else DROPPED for item in before]
    right = [was[item.index] - now[item.index] if item.index in was else NEW for item in after]
    return left, right


def summary(moved: Sequence[int | str]) -> str:
    """The second list's moves in words.

    >>> summary([0, "new", 2, "new", -1])
    '2 of 5 are new, 1 moved up, 1 moved down, 1 stayed'
    """
    kinds = Counter(kind_of(move) for move in moved)
    if kinds["same"] == len(moved):
        return f"All {len(moved)} stayed where they were"
    words = {"new": "new", "up": "moved up", "down": "moved down", "same": "stayed"}
    parts = [f"{kinds[kind]} {word}" for kind, word in words.items() if kinds[kind]]
    if kinds["new"]:
        verb = "is" if kinds["new"] == 1 else "are"
        parts[0] = f"{kinds['new']} of {len(moved)} {verb} new"
    return ", ".join(parts)


def kind_of(move: int | str) -> str:
    """The kind of a move: "up", "down", "same", "new" or "dropped"."""
    if isinstance(move, str):
        return move
    return "up" if move > 0 else "down" if move < 0 else "same"
