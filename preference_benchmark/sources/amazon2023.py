"""The Amazon review release of 2023 (Hou et al. 2024), per category: JSON lines or Parquet.

`{category}.jsonl.gz` and the optional `meta_{category}.jsonl.gz` are the published files; on the Hub the same tables
are folders of Parquet, `raw_review_{category}` and `raw_meta_{category}`. Times are milliseconds. Variants of a
product (`asin`) share a `parent_asin`, which is what the metadata describe and what an item is here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from preference_benchmark.sources.amazon import amazon_tables
from preference_benchmark.sources.delimited import parquet_errors, scan_parquet
from preference_benchmark.sources.item_text import as_aspects, clean_text
from preference_benchmark.sources.raw_files import find_beside, find_file
from preference_benchmark.sources.raw_lines import RATING, SECONDS, LineCount, Number, RawLines, read_records
from preference_benchmark.tables import Tables, labelled

__all__ = ["read_amazon2023"]

_HOME = "https://amazon-reviews-2023.github.io/"
_ENDINGS = (".jsonl.gz", ".jsonl", ".parquet")
_REVIEWS = tuple(f"[A-Z]*{ending}" for ending in _ENDINGS)  # category names are capitalised, "meta_" is not
_FIRST_MILLISECOND = 100_000_000_000  # 1973; as seconds it is the year 5138
_FOLDERS = ("raw_review_", "raw_meta_")
_REVIEW_FIELDS = {
    "user_id": pl.String,
    "parent_asin": pl.String,
    "rating": RATING,
    "timestamp": Number(SECONDS.least, 1e18, whole=True),  # below are neither milliseconds nor seconds
    "title": pl.String,
    "text": pl.String,
}
_METADATA_FIELDS = {
    "parent_asin": pl.String,
    "title": pl.String,
    "price": pl.String,
    "store": pl.String,
    "categories": pl.List(pl.String),
    "features": pl.List(pl.String),
    "details": pl.String,
}
_PARENT = r"""["']parent_asin["']: ?["'](\w+)["']"""
# Of the many details of a product page, those that people ask for.
_DETAILS = ("Material", "Color", "Style", "Scent", "Flavor", "Item Form", "Skin Type", "Hair Type", "Theme", "Genre")


def read_amazon2023(
    path: str | Path, *, metadata: str | Path | None = None, max_malformed: float = 0.01, **options: object
) -> Tables:
    """Tables from the files of one category.

    Args:
        path: the review file, or the folder that holds it as `{category}.jsonl.gz` (or `.jsonl`, `.parquet`), or one
            that holds the Parquet folders `raw_review_{category}` and `raw_meta_{category}`. JSON lines are put on
            disk as Parquet on the way (TMPDIR says where), so that of either only what is needed is in memory.
        metadata: the metadata file or folder; by default `meta_{category}` with any of these endings, or
            `raw_meta_{category}`, beside the reviews. Without it items are described by what reviewers wrote in
            the training period.
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.

    Raises:
        ValueError: if times are not all in milliseconds, or the metadata are of another category.
    """
    reviews = _find_reviews(Path(path))
    metadata = _metadata_of(reviews) if metadata is None else Path(metadata)
    with TemporaryDirectory() as spool, parquet_errors(reviews, metadata):
        required = ("user_id", "parent_asin", "timestamp")
        if _is_parquet(reviews):
            raw = _from_parquet(reviews, _REVIEW_FIELDS, required)
        else:
            raw = read_records(reviews, _REVIEW_FIELDS, required, max_malformed=max_malformed, spool=Path(spool))
        _require_milliseconds(raw.frame.select("timestamp").collect()["timestamp"], reviews)
        rows = raw.frame.select(
            "rating",
            "user_id",
            timestamp=pl.col("timestamp") // 1000,
            item_id="parent_asin",
            summary=clean_text("title"),
            text=clean_text("text"),
        )
        read_items = partial(_read_metadata, max_malformed=max_malformed)
        return amazon_tables("amazon2023", replace(raw, frame=rows), metadata, read_items, **options)


def _from_parquet(path: Path, fields: dict, required: tuple[str, ...]) -> RawLines:
    frame, count = scan_parquet(path, fields, required), LineCount(path)
    count.lines = frame.select(pl.len()).collect().item()
    return RawLines(frame, count)


def _require_milliseconds(time: pl.Series, path: Path) -> None:
    """Raise a ValueError unless all times are milliseconds of our days."""
    late = time >= _FIRST_MILLISECOND
    if late.all():
        return
    early = (~late).fill_null(False)
    row = early.arg_true()[0]
    units = "mixes units" if late.any() else "is not in milliseconds"
    raise ValueError(
        f"column 'timestamp' of {path} {units}: row {row} holds {time[row]}, {_day(time[row])} in milliseconds; "
        f"{early.sum():,} rows are like it, {late.sum():,} are not. If they are seconds, multiply them by 1000."
    )


def _day(milliseconds: int) -> str:
    return pl.select(pl.from_epoch(pl.lit(milliseconds), "ms").dt.strftime("%Y-%m-%d")).item()


def _find_reviews(path: Path) -> Path:
    if path.is_dir() and path.name.startswith(_FOLDERS[0]):
        return path
    folders = sorted(path.glob(f"{_FOLDERS[0]}*")) if path.is_dir() else []
    if len(folders) > 1:
        raise ValueError(f"{path} has several categories: {[entry.name for entry in folders]}; pass the folder of one.")
    return folders[0] if folders else find_file(path, _REVIEWS, "amazon2023 reviews", _HOME)


def _metadata_of(reviews: Path) -> Path | None:
    """The metadata beside the reviews, whatever their form."""
    if reviews.is_dir():
        folder = reviews.with_name(reviews.name.replace(*_FOLDERS, 1))
        return folder if folder.is_dir() else None
    ending = next((ending for ending in _ENDINGS if reviews.name.endswith(ending)), "")
    wanted = f"meta_{reviews.name.removesuffix(ending)}"
    return find_beside(reviews.parent, tuple(wanted + ending for ending in _ENDINGS), "metadata")


def _is_parquet(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".parquet"


def _read_metadata(path: Path, ids: pl.Series, max_malformed: float) -> RawLines:
    if _is_parquet(path):
        raw = _from_parquet(path, _METADATA_FIELDS, ("parent_asin",))
        wanted = pl.col("parent_asin").is_in(ids.implode()) | pl.col("parent_asin").is_null()
        raw = replace(raw, frame=raw.frame.filter(wanted).collect())
        raw.count.others = raw.count.lines - raw.frame.height
    else:
        only = (_PARENT, ids)
        raw = read_records(path, _METADATA_FIELDS, ("parent_asin",), max_malformed=max_malformed, only=only)
    frame = raw.frame
    lists = (
        pl.col(name).fill_null([]).list.eval(clean_text("", pl.element())).alias(name)
        for name in ("categories", "features")
    )
    frame = frame.with_columns(
        clean_text("title"),
        clean_text("store"),
        *lists,
        price=pl.format("${}", pl.col("price").str.extract(r"^\$?(\d[\d.,]*)$")),
        details=pl.concat_list(_detail(name) for name in _DETAILS).list.drop_nulls(),
    )
    items = frame.select(
        "title",
        "price",
        "categories",
        item_id="parent_asin",
        brand="store",
        text=labelled(
            Title="title",
            Price="price",
            Brand="store",
            Categories=pl.col("categories").list.join(", "),
            Features=pl.col("features").list.head(5).list.join("; "),
            Details=pl.col("details").list.join(", "),
        ),
        aspects=as_aspects(
            frame.select("store", phrases=pl.concat_list("categories", "details", "features")), brand="store"
        ),
    )
    return replace(raw, frame=items)


def _detail(name: str) -> pl.Expr:
    """One entry of the details, which are JSON; null where there is none."""
    value = pl.col("details").str.extract(rf'"{name}": ?"((?:[^"\\]|\\.)*)"')
    cleaned = clean_text("", value)
    return pl.when(cleaned != "").then(cleaned)
