"""The text that stands for an item when it is compared with a preference."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from preference_benchmark.sources.item_text import labelled

__all__ = ["describe_items"]


def describe_items(items: pl.DataFrame, columns: Sequence[str] = ("text",)) -> pl.Series:
    """One text per item.

    Args:
        items: the items table.
        columns: which columns say it. ("text",) is that column as it is; others are labelled, lists are parted by
            commas, and what is empty is left out. An item for which all of them are empty is described by its text.

    Returns:
        Texts named "text", in the order of the items.

    Raises:
        ValueError: if a column is missing or holds something else than text and lists of it.

    >>> items = pl.DataFrame({"title": ["Tea"], "tags": [["green", "loose"]], "text": ["Tea. Green."]})
    >>> describe_items(items, ("title", "tags")).to_list()
    ['Title: Tea. Tags: green, loose']
    """
    if tuple(columns) == ("text",):
        return items["text"]
    fields = {}
    for name in columns:
        kind = items.schema.get(name)
        if kind == pl.List(pl.String):
            fields[name.capitalize()] = pl.col(name).list.join(", ")
        elif kind == pl.String:
            fields[name.capitalize()] = pl.col(name)
        else:
            found = "no such column" if kind is None else f"type {kind}"
            raise ValueError(
                f"items cannot be described by {name!r} ({found}); name columns of text among {items.columns}."
            )
    text = labelled(**fields)
    return items.select(text=pl.when(text != "").then(text).otherwise("text")).to_series()
