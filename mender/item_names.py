"""Items as a person names them on a terminal, by id or title."""

from __future__ import annotations

from collections.abc import Sequence

from mender.terminal import UserError
from modeling_mender import MenderProcessor
from modeling_mender.spelling import most_similar

__all__ = ["find_items"]


def find_items(processor: MenderProcessor, names: Sequence[str], unknown: str = "error") -> list[str]:
    """Item ids of ids or titles; of titles, case and spaces do not matter.

    Args:
        processor: knows the items.
        names: ids or titles.
        unknown: "skip" leaves out names that are neither.

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
        if not ids and unknown == "error":
            ids = dict(zip(processor.titles, processor.item_ids, strict=True))
            similar = [f"{title!r} ({ids[title]})" for title in most_similar(name, list(ids), 5)]
            hint = f"did you mean {'; '.join(similar)}?" if similar else "pass ids or titles of its items.json"
            raise UserError(f"no item has the id or title {name!r}; {hint}")
        found += ids
    return found


def _plain(title: str) -> str:
    return " ".join(title.casefold().split())
