"""The Amazon review release of 2014 (McAuley et al. 2015), per category, 5-core or complete.

`reviews_{category}_5.json.gz` (complete: `reviews_{category}.json.gz`) holds JSON lines, `meta_{category}.json.gz`,
which is optional, Python literals.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from preference_benchmark.sources.amazon import ASIN, read_amazon
from preference_benchmark.sources.item_text import as_aspects, clean_text, labelled
from preference_benchmark.sources.raw_lines import RawLines, read_records
from preference_benchmark.tables import Tables

__all__ = ["read_amazon2014"]

_REVIEWS = ("reviews_*_5.json.gz", "reviews_*_5.json", "reviews_*.json.gz", "reviews_*.json")
_METADATA_FIELDS = {
    "asin": pl.String,
    "title": pl.String,
    "price": pl.Float64,
    "brand": pl.String,
    "categories": pl.List(pl.List(pl.String)),
    "description": pl.String,
}


def read_amazon2014(
    path: str | Path, *, metadata: str | Path | None = None, max_malformed: float = 0.01, **options: object
) -> Tables:
    """Tables from the files of one category.

    Args:
        path: the review file, or the folder that holds it as `reviews_{category}_5.json.gz`.
        metadata: the metadata file; by default `meta_{category}.json.gz` beside the reviews. Without it items
            are described by what reviewers wrote in the training period.
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.
    """
    return read_amazon(
        "amazon2014",
        path,
        reviews=_REVIEWS,
        category=r"reviews_(.+?)(?:_5)?\.json",
        home="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        metadata=metadata,
        read_metadata=_read_metadata,
        max_malformed=max_malformed,
        **options,
    )


def _read_metadata(file: Path, ids: pl.Series, max_malformed: float) -> tuple[RawLines, pl.DataFrame]:
    raw = read_records(file, _METADATA_FIELDS, ("asin",), max_malformed=max_malformed, only=(ASIN, ids))
    frame = raw.frame.drop_nulls("asin").with_columns(
        clean_text("title"),
        clean_text("brand"),
        clean_text("description"),
        price=pl.format("${}", pl.col("price")),
        categories=pl.col("categories").fill_null([]).list.eval(clean_text("", pl.element().explode())),
    )
    items = frame.select(
        "title",
        "brand",
        "price",
        "categories",
        "description",
        item_id="asin",
        text=labelled(
            Title="title",
            Price="price",
            Brand="brand",
            Categories=pl.col("categories").list.unique(maintain_order=True).list.join(", "),
        ),
        aspects=as_aspects(frame.select("brand", phrases="categories"), "brand"),
    )
    return raw, items
