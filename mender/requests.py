"""What a person asks for on a command line, as a request of the pipeline: item names, wishes, and what to avoid."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from mender.errors import UserError
from modeling_mender import MenderProcessor
from preference_benchmark.sentiment import invert

__all__ = ["find_items", "make_request"]

ALIKE = 0.4
"""Share of a name's letter triples that a title must have to be worth proposing."""


def make_request(
    processor: MenderProcessor, history: Sequence[str] = (), wishes: Sequence[str] = (), avoid: Sequence[str] = ()
) -> dict[str, Any]:
    """A request for `pipeline("generative-retrieval")`; items of the history are not recommended again.

    Args:
        processor: knows the items, and what the model reads.
        history: ids or titles of items, oldest first.
        wishes: what is wanted.
        avoid: what is to be kept out; becomes a sentence that says so, as models are trained on.

    Raises:
        UserError: if there is nothing to go by, an item is unknown, or the model does not read what was passed.
    """
    preferences = [text.strip() for text in wishes if text.strip()]
    preferences += [refusal(text) for text in avoid if text.strip()]
    reads_history = processor.history != "none"
    reads_preference = processor.preference == "text" and processor.history != "rows"
    if preferences and not reads_preference:
        raise UserError("this model reads no preferences; leave --preference and --avoid out, or take another model")
    if history and not reads_history:
        raise UserError("this model reads no history; leave --history out, or take another model")
    if not preferences and not history and (reads_history or reads_preference):
        raise UserError("nothing to go by; pass --preference, --history or both")
    items = find_items(processor, history)
    return {"preference": preferences, "history": items, "exclude": items}


def refusal(text: str) -> str:
    """The sentence that says what is to be avoided.

    >>> refusal("strong smells"), refusal("No strong smells"), refusal("please don't show me wool")
    ('Avoid strong smells', 'No strong smells', "please don't show me wool")
    """
    text = " ".join(text.split())
    return text if invert(text, rules="extended") else f"Avoid {text}"


def find_items(processor: MenderProcessor, names: Sequence[str]) -> list[str]:
    """Item ids of ids or titles; of titles, case and spaces do not matter.

    Raises:
        UserError: if a name is neither, with the titles that are most like it, or several items bear a title.
    """
    known = set(processor.item_ids)
    by_title: dict[str, list[str]] = {}
    if not known.issuperset(names):
        for item_id, title in zip(processor.item_ids, processor.titles, strict=True):
            by_title.setdefault(_plain(title), []).append(item_id)
    found = []
    for name in names:
        ids = [name] if name in known else by_title.get(_plain(name), [])
        if len(ids) > 1:
            raise UserError(f"{len(ids)} items are titled {name!r}; pass an id: {', '.join(ids[:10])}")
        if not ids:
            close = _most_alike(name, processor)
            hint = f"did you mean {'; '.join(close)}?" if close else "pass ids or titles of its items.json"
            raise UserError(f"no item has the id or title {name!r}; {hint}")
        found += ids
    return found


def _plain(title: str) -> str:
    return " ".join(title.casefold().split())


def _most_alike(name: str, processor: MenderProcessor, count: int = 5) -> list[str]:
    """Titles with their ids that share most letter triples with a name, shorter ones first where they share as many."""
    wanted = _triples(name)
    if not wanted:
        return []

    def likeness(row: int) -> tuple[float, int]:
        title = processor.titles[row]
        return len(wanted & _triples(title)) / len(wanted), -len(title)

    rows = heapq.nlargest(count, range(len(processor.titles)), key=likeness)
    return [f"{processor.titles[row]!r} ({processor.item_ids[row]})" for row in rows if likeness(row)[0] >= ALIKE]


def _triples(text: str) -> set[str]:
    padded = f" {_plain(text)} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}
