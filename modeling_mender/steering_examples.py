"""What a model does with a preference, shown: one history, several sentences, a list for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["SteeringExample", "pick_request", "steer"]

SHOWN = 6


@dataclass(frozen=True)
class SteeringExample:
    """Lists that one model gave to one history.

    Attributes:
        history: titles of what the user met, oldest first.
        lists: the titles recommended, best first, by the preference that was given.
    """

    history: Sequence[str]
    lists: dict[str, list[str]]

    def markdown(self) -> str:
        """A sentence about the history and a table with one column per preference."""
        earlier = len(self.history) - SHOWN
        titles = "; ".join(self.history[-SHOWN:]) or "nothing yet"
        shown = f"{titles} (and {earlier} earlier)" if earlier > 0 else titles
        rows = list(zip(*self.lists.values(), strict=False))
        lines = [
            ["", *(f'"{preference}"' for preference in self.lists)],
            ["---"] * (1 + len(self.lists)),
            *([str(place), *titles] for place, titles in enumerate(rows, 1)),
        ]
        table = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        return f"History, oldest first: {shown}.\n\n{table}"


def pick_request(examples: Any, preferences: int = 2) -> tuple[list[str], list[str]]:
    """A history and preferences to show, by rule and not by taste.

    The user is the one with the longest history among recommendation examples; the first preference is that user's
    own, the others are those of coarse steering examples, evenly spread.

    Args:
        examples: a split of the benchmark with the columns `axis`, `history` and `preferences`.
        preferences: how many different ones.

    Returns:
        Item ids, oldest first, and preference texts; fewer where the examples hold fewer.

    Raises:
        ValueError: if there is no recommendation example.
    """
    axis = examples["axis"][:]
    histories, texts = examples["history"][:], examples["preferences"][:]
    users = [row for row, name in enumerate(axis) if name == "recommendation"]
    if not users:
        raise ValueError("no recommendation example to show; pass the test split of a benchmark")
    user = max(users, key=lambda row: len(histories[row]))
    own = texts[user][0]
    found = (text[0] for name, text in zip(axis, texts, strict=True) if name == "coarse_grained_steering")
    others = [text for text in dict.fromkeys(found) if text != own]
    step = max(1, len(others) // max(1, preferences - 1))
    return list(histories[user]), [own, *others[::step]][:preferences]


@torch.no_grad()
def steer(
    model: Any, processor: Any, history: Sequence[str], preferences: Sequence[str], top_k: int = 5
) -> SteeringExample:
    """Ask a model for the same user once per preference.

    Args:
        model: any model with `recommend`.
        processor: its processor.
        history: item ids, oldest first; they are not recommended again.
        preferences: at least one text.
        top_k: items per list.

    Raises:
        ValueError: if there is no preference, or an item is unknown.
    """
    if not preferences:
        raise ValueError("no preference to steer by; pass at least one text")
    seen = processor.item_indices(history)
    inputs = processor(list(preferences), [list(history)] * len(preferences)).to(model.device)
    found = model.recommend(**inputs, top_k=top_k, exclude=seen or None)
    lists = [[item["title"] for item in processor.decode_items(rows)] for rows in found.item_indices]
    titles = [item["title"] for item in processor.decode_items(seen)]
    return SteeringExample(titles, dict(zip(preferences, lists, strict=True)))


def _cell(text: str) -> str:
    """A text that keeps within its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
