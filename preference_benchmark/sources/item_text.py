"""From an item's metadata to the text that is embedded and the aspects that people can ask for."""

from __future__ import annotations

import html.entities
from dataclasses import replace

import polars as pl

from preference_benchmark.tables import Tables

__all__ = ["as_aspects", "clean_text", "labelled", "shared_aspects"]

_ENTITIES = {f"&{name}": character for name, character in html.entities.html5.items() if name.endswith(";")}
_ENTITIES |= {f"&#{code};": chr(code) for code in (*range(32, 383), *range(8192, 8483))}
# An attribute must be shared to be asked for, but not by nearly everything.
_FEWEST_ITEMS, _LARGEST_SHARE = 2, 0.6

_MOST_WORDS = 5  # longer phrases are descriptions

# Prices, delivery and what is left of web pages.
_NOT_OF_THE_ITEM = r"[$£€<>{}=\[\]]|https?:|^\d|shipping|deliver|price|refund|return"


def clean_text(name: str, text: pl.Expr | None = None) -> pl.Expr:
    """A column of text (or the expression) without HTML entities and tags, white space collapsed, nulls empty."""
    text = (pl.col(name) if text is None else text).fill_null("")
    for _ in range(2):  # some releases escaped twice
        text = text.str.replace_many(_ENTITIES, leftmost=True)
    text = text.str.replace_all(r"<[^<>]{1,100}>", " ").str.replace_all(r"\s+", " ").str.strip_chars()
    return text.alias(name) if name else text


def labelled(**fields: str | pl.Expr) -> pl.Expr:
    """The fields as one text, "Label: value. Label: value", without those that are null or empty.

    Args:
        fields: column names or string expressions by label, in order.

    >>> frame = pl.DataFrame({"name": ["Mug", "Tea"], "maker": ["Dovetail", ""]})
    >>> frame.select(text=labelled(Title="name", Brand="maker"))["text"].to_list()
    ['Title: Mug. Brand: Dovetail', 'Title: Tea']
    """
    parts = []
    for label, field in fields.items():
        value = pl.col(field) if isinstance(field, str) else field
        parts.append(pl.when(value != "").then(pl.concat_str(pl.lit(f"{label}: "), value)))
    return pl.concat_str(parts, separator=". ", ignore_nulls=True)


def as_aspects(phrases: pl.DataFrame, brand: str | None = None) -> pl.Series:
    """Lists of phrases as aspects: short, lower case, distinct, in their order.

    Args:
        phrases: a column `phrases` (list of str), and the brand column if any.
        brand: column whose value no aspect may contain.
    """
    rows = phrases.with_row_index("row")
    flat = rows.explode("phrases").drop_nulls("phrases")
    flat = flat.with_columns(phrases=pl.col("phrases").str.to_lowercase().str.strip_chars(" .,;:"))
    fits = (pl.col("phrases").str.count_matches(r"\S+").is_between(1, _MOST_WORDS)) & ~pl.col("phrases").str.contains(
        _NOT_OF_THE_ITEM
    )
    if brand is not None:
        name = pl.col(brand).fill_null("").str.to_lowercase()
        fits &= (name == "") | ~pl.col("phrases").str.contains(name, literal=True)
    flat = flat.filter(fits).unique(["row", "phrases"], maintain_order=True)
    lists = flat.group_by("row", maintain_order=True).agg(aspects="phrases")
    return rows.select("row").join(lists, on="row", how="left", maintain_order="left")["aspects"].fill_null([])


def shared_aspects(tables: Tables) -> Tables:
    """The tables with only those aspects that some, but not most, items of the catalogue have."""
    flat = tables.items.select("item_id", "aspects").explode("aspects").drop_nulls().unique(maintain_order=True)
    most = max(_FEWEST_ITEMS, _LARGEST_SHARE * tables.items.height)
    flat = flat.filter(pl.len().over("aspects").is_between(_FEWEST_ITEMS, most))
    lists = flat.group_by("item_id", maintain_order=True).agg("aspects")
    aspects = tables.items.select("item_id").join(lists, on="item_id", how="left", maintain_order="left")
    return replace(tables, items=tables.items.with_columns(aspects["aspects"].fill_null([])))
