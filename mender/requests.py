"""A request in a person's words, as the pipeline takes it: item names become ids, and what to avoid a sentence."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from mender.terminal import UserError
from modeling_mender import MenderProcessor
from preference_benchmark.preferences.polarity import invert

__all__ = ["find_items", "make_request"]

SIMILAR = 0.4
"""Share of a name's letter triples that a title needs to be suggested in its place."""


def make_request(
    processor: MenderProcessor, history: Sequence[str] = (), preferences: Sequence[str] = (), avoid: Sequence[str] = ()
) -> dict[str, Any]:
    """A request for `pipeline("generative-retrieval")`; items of the history are not recommended again.

    Args:
        processor: knows the items, and what the model reads.
        history: ids or titles of items, oldest first.
        preferences: what is wanted.
        avoid: what to leave out; becomes a sentence of the form that models are trained on.

    Raises:
        UserError: if the request is empty, an item is unknown, or the model does not read what was passed.
    """
    texts = [text.strip() for text in preferences if text.strip()]
    texts += [refusal(text) for text in avoid if text.strip()]
    reads_history = processor.history != "none"
    reads_preference = processor.preference == "text" and processor.history != "indices"
    if texts and not reads_preference:
        raise UserError("this model reads no preferences; leave --preference and --avoid out, or take another model")
    if history and not reads_history:
        raise UserError("this model reads no history; leave --history out, or take another model")
    if not texts and not history and (reads_history or reads_preference):
        raise UserError("the request is empty; pass --preference, --history or both")
    items = find_items(processor, history)
    return {"preference": texts, "history": items, "exclude": items}


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
        UserError: if a name is neither, with the most similar titles, or several items have a title.
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
            similar = _most_similar(name, processor)
            hint = f"did you mean {'; '.join(similar)}?" if similar else "pass ids or titles of its items.json"
            raise UserError(f"no item has the id or title {name!r}; {hint}")
        found += ids
    return found


def _plain(title: str) -> str:
    return " ".join(title.casefold().split())


def _most_similar(name: str, processor: MenderProcessor, count: int = 5) -> list[str]:
    """Titles with their ids that share most letter triples with a name; among equals the shorter ones."""
    asked = _triples(name)
    if not asked:
        return []

    def similarity(index: int) -> tuple[float, int]:
        title = processor.titles[index]
        return len(asked & _triples(title)) / len(asked), -len(title)

    best = heapq.nlargest(count, range(len(processor.titles)), key=similarity)
    best = [index for index in best if similarity(index)[0] >= SIMILAR]
    return [f"{processor.titles[index]!r} ({processor.item_ids[index]})" for index in best]


def _triples(text: str) -> set[str]:
    padded = f" {_plain(text)} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}
