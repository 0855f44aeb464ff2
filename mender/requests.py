"""A request as a person types it, checked and turned into what the pipeline takes: names of items become ids."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from mender.terminal import UserError
from modeling_mender import MenderProcessor

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
        avoid: what to leave out.

    Raises:
        UserError: if the request is empty, an item is unknown, or the model does not read what was passed.
    """
    wanted, avoided = ([text.strip() for text in texts if text.strip()] for texts in (preferences, avoid))
    reads_history = processor.history != "none"
    reads_preference = processor.preference == "text" and processor.history != "indices"
    if (wanted or avoided) and not reads_preference:
        raise UserError("this model reads no preferences; leave --preference and --avoid out, or take another model")
    if history and not reads_history:
        raise UserError("this model reads no history; leave --history out, or take another model")
    if not wanted and not avoided and not history and (reads_history or reads_preference):
        raise UserError("the request is empty; pass --preference, --avoid or --history")
    items = find_items(processor, history)
    return {"preference": wanted, "avoid": avoided, "history": items, "exclude": items}


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


def _most_similar(name: str, processor: MenderProcessor) -> list[str]:
    """Titles with their ids that share most letter triples with a name; among equals the shorter ones."""
    triples = _triples(name)
    if not triples:
        return []

    def similarity(index: int) -> tuple[float, int]:
        title = processor.titles[index]
        return len(triples & _triples(title)) / len(triples), -len(title)

    best = heapq.nlargest(5, range(len(processor.titles)), key=similarity)
    best = [index for index in best if similarity(index)[0] >= SIMILAR]
    return [f"{processor.titles[index]!r} ({processor.item_ids[index]})" for index in best]


def _triples(text: str) -> set[str]:
    padded = f" {_plain(text)} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}
