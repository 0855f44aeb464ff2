"""From an item's metadata to the text that is embedded and the aspects that people can ask for."""

from __future__ import annotations

import polars as pl

__all__ = ["as_aspects", "labelled"]

_MOST_WORDS = 5  # longer phrases are descriptions


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
        r"[$£€<>{}=\[\]]|https?:|^\d"
    )
    if brand is not None:
        name = pl.col(brand).fill_null("").str.to_lowercase()
        fits &= (name == "") | ~pl.col("phrases").str.contains(name, literal=True)
    flat = flat.filter(fits).unique(["row", "phrases"], maintain_order=True)
    lists = flat.group_by("row", maintain_order=True).agg(aspects="phrases")
    return rows.select("row").join(lists, on="row", how="left", maintain_order="left")["aspects"].fill_null([])
