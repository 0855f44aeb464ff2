"""The Amazon review release of 2018 (Ni et al. 2019), per category, 5-core or complete.

`{category}_5.json.gz` (complete: `{category}.json.gz`) and the optional `meta_{category}.json.gz` hold JSON lines;
what is absent from the metadata is an empty string or list.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from preference_benchmark.sources.amazon import ASIN, read_amazon
from preference_benchmark.sources.item_text import as_aspects, clean_text, labelled
from preference_benchmark.sources.raw_lines import RawLines, read_records
from preference_benchmark.tables import Tables

__all__ = ["read_amazon2018"]

# Category names are capitalised, "meta_" is not.
_REVIEWS = ("*_5.json.gz", "*_5.json", "[A-Z]*.json.gz", "[A-Z]*.json")
_METADATA_FIELDS = {
    "asin": pl.String,
    "title": pl.String,
    "price": pl.String,
    "brand": pl.String,
    "category": pl.List(pl.String),
    "feature": pl.List(pl.String),
}


def read_amazon2018(
    path: str | Path, *, metadata: str | Path | None = None, max_malformed: float = 0.01, **options: object
) -> Tables:
    """Tables from the files of one category.

    Args:
        path: the review file, or the folder that holds it as `{category}_5.json.gz` or `{category}.json.gz`.
        metadata: the metadata file; by default `meta_{category}.json.gz` beside the reviews. Without it items
            are described by what reviewers wrote in the training period.
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.
    """
    return read_amazon(
        "amazon2018",
        path,
        reviews=_REVIEWS,
        category=r"(.+?)(?:_5)?\.json",
        home="https://nijianmo.github.io/amazon/",
        metadata=metadata,
        read_metadata=_read_metadata,
        max_malformed=max_malformed,
        **options,
    )


def _read_metadata(file: Path, ids: pl.Series, max_malformed: float) -> tuple[RawLines, pl.DataFrame]:
    raw = read_records(file, _METADATA_FIELDS, ("asin",), max_malformed=max_malformed, only=(ASIN, ids))
    frame = raw.frame.drop_nulls("asin").with_columns(
        clean_text("title"), clean_text("brand"), _cleaned("category"), _cleaned("feature")
    )
    # Some pages left their style sheets in the price field.
    price = pl.col("price").str.extract(r"^(\$[\d.,]+(?: - \$[\d.,]+)?)$")
    frame = frame.with_columns(price=price)
    items = frame.select(
        "title",
        "brand",
        "price",
        item_id="asin",
        categories="category",
        text=labelled(
            Title="title",
            Price="price",
            Brand="brand",
            Categories=pl.col("category").list.join(", "),
            Features=pl.col("feature").list.head(5).list.join("; "),
        ),
        aspects=as_aspects(frame.select("brand", phrases=pl.concat_list("category", "feature")), "brand"),
    )
    return raw, items


def _cleaned(name: str) -> pl.Expr:
    """A list column of text, cleaned."""
    return pl.col(name).fill_null([]).list.eval(clean_text("", pl.element())).alias(name)
