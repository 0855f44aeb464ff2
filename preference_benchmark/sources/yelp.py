"""The Yelp Open Dataset: reviews of businesses, JSON lines, unpacked or still in `yelp_dataset.tar`.

`yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json`. A business has categories (one text,
separated by commas) and attributes, whose values are Python literals written as text: "True", "u'free'", or a dict of
flags such as "{'romantic': False, 'casual': True}".
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from preference_benchmark.sources.item_text import as_aspects, clean_text, shared_aspects
from preference_benchmark.sources.raw_files import find_dataset
from preference_benchmark.sources.raw_lines import RATING, RawLines, read_records, read_report
from preference_benchmark.tables import Tables, labelled, prepare

__all__ = ["read_yelp"]

_HOME = "https://business.yelp.com/data/resources/open-dataset/"
_REVIEWS, _BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"
_ARCHIVES = ("yelp_dataset.tar", "yelp_dataset.tgz", "yelp_dataset.tar.gz", "yelp_dataset")
_REVIEW_FIELDS = {
    "user_id": pl.String,
    "business_id": pl.String,
    "stars": RATING,
    "date": pl.String,
    "text": pl.String,
}
_BUSINESS_FIELDS = {
    "business_id": pl.String,
    "name": pl.String,
    "city": pl.String,
    "state": pl.String,
    "categories": pl.String,
    "attributes": pl.String,
}
_DATES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d")  # the older releases have days only
_ID = r'"business_id": ?"([\w-]+)"'
# Attributes that are not preferences: how to pay, and numbers without a unit.
_NOT_ASPECTS = ("BusinessAcceptsCreditCards", "BusinessAcceptsBitcoin", "RestaurantsPriceRange2")
_NO = ("none", "no", "false")


def read_yelp(
    path: str | Path,
    *,
    since: date | str | None = None,
    until: date | str | None = None,
    max_malformed: float = 0.01,
    **options: object,
) -> Tables:
    """Tables from the review and business files.

    Args:
        path: the folder that holds both files (or these names with ".gz"), or `yelp_dataset.tar` as it is given. On
            the way the reviews are put on disk as Parquet (TMPDIR says where), since they need not fit into memory.
        since: first day of the reviews to take, as a date or ISO 8601 text; by default there is no first. S3-Rec and
            its successors take the year 2019.
        until: last day of the reviews to take.
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.

    Raises:
        FileNotFoundError: if the files are missing; says where they are given and that the terms must be accepted.
        ValueError: if the period is empty or a file cannot be used.
    """
    since, until = (date.fromisoformat(day) if isinstance(day, str) else day for day in (since, until))
    if since and until and since > until:
        raise ValueError(f"since={since} lies after until={until}; pass the first and the last day of a period.")
    markers = (_REVIEWS, f"{_REVIEWS}.gz")
    files = find_dataset(path, markers, _ARCHIVES, "Yelp reviews", f"{_HOME} (accept the terms in person)")
    business_file = files.get(_BUSINESSES, files.get(f"{_BUSINESSES}.gz"))
    if business_file is None:
        raise FileNotFoundError(
            f"{path} has reviews but no businesses: expected a file named {_BUSINESSES} beside them; found "
            f"{sorted(files)[:10]}. The public files are described at {_HOME}."
        )
    review_file = next(files[name] for name in markers if name in files)
    required = ("user_id", "business_id", "date")
    with TemporaryDirectory() as spool:
        reviews = read_records(review_file, _REVIEW_FIELDS, required, max_malformed=max_malformed, spool=Path(spool))
        rows, dropped = _interactions(reviews, since, until)
        only = (_ID, rows.select(pl.col("item_id").unique()).collect()["item_id"].drop_nulls())
        listed = read_records(business_file, _BUSINESS_FIELDS, ("business_id",), max_malformed=max_malformed, only=only)
        used = {"interactions": rows.select(pl.len()).collect().item(), "items": listed.frame.height}
        report = read_report("yelp", [reviews.count, listed.count], used=used, dropped=dropped)
        options = {"unknown_items": "drop", **options}
        tables = shared_aspects(prepare(_businesses(listed.frame), rows, report=report, **options))
        return replace(tables, noun="places")


def _interactions(reviews: RawLines, since: date | None, until: date | None) -> tuple[pl.LazyFrame, dict[str, int]]:
    """The reviews of the period, and how many others there are, by reason."""
    dated = reviews.frame.select(
        user_id="user_id",
        item_id="business_id",
        written="date",
        timestamp=pl.coalesce(pl.col("date").str.to_datetime(form, strict=False) for form in _DATES),
        rating="stars",
        review=clean_text("text"),
    )
    unread = pl.col("timestamp").is_null() & (pl.col("written").fill_null("").str.strip_chars() != "")
    inside = pl.lit(True)
    if since:
        inside &= pl.col("timestamp") >= since
    if until:
        inside &= pl.col("timestamp") < until + timedelta(days=1)
    inside = inside.fill_null(True)
    kept = dated.filter(~unread & inside).drop("written")
    counts = dated.select(unread=unread.sum(), outside=(~unread & ~inside).sum(), left=(~unread & inside).sum())
    unread, outside, left = counts.collect().row(0)
    if not left:
        first, last = dated.select(first=pl.col("timestamp").min(), last=pl.col("timestamp").max()).collect().row(0)
        raise ValueError(f"no review lies between since={since} and until={until}; they run from {first} to {last}.")
    return kept, {"reviews whose date cannot be read": unread, "reviews outside the period": outside}


def _businesses(frame: pl.DataFrame) -> pl.DataFrame:
    frame = frame.with_columns(
        clean_text("name"),
        place=pl.concat_str(clean_text("city"), clean_text("state"), separator=", ").str.strip_chars(", "),
        categories=clean_text("categories").str.split(", ").list.eval(pl.element().filter(pl.element() != "")),
        attributes=_attributes(frame["attributes"]),
    )
    return frame.select(
        "categories",
        "attributes",
        "city",
        "state",
        item_id="business_id",
        title="name",
        text=labelled(
            Title="name",
            Categories=pl.col("categories").list.join(", "),
            Attributes=pl.col("attributes").list.join(", "),
            Place="place",
        ),
        aspects=as_aspects(frame.select("name", phrases=pl.concat_list("categories", "attributes")), "name"),
    )


def _attributes(raw: pl.Series) -> pl.Series:
    """What a business has, as phrases: "wifi free", "good for kids", "ambience casual"; what it lacks is left out.

    Args:
        raw: objects as JSON, values being Python literals as text.
    """
    entry = r'"(\w+)": ?"((?:[^"\\]|\\.)*)"'
    rows = raw.rename("raw").to_frame().with_row_index("row")
    entries = rows.with_columns(pl.col("raw").fill_null("").str.extract_all(entry)).explode("raw").drop_nulls("raw")
    entries = entries.select("row", key=pl.col("raw").str.extract(entry, 1), value=pl.col("raw").str.extract(entry, 2))
    entries = entries.filter(~pl.col("key").is_in(_NOT_ASPECTS))
    flag = r"'(\w+)': True"
    is_dict = pl.col("value").str.starts_with("{")
    simple = pl.col("value").str.strip_prefix("u").str.strip_chars("'")
    entries = entries.with_columns(
        value=pl.when(is_dict)
        .then(pl.col("value").str.extract_all(flag).list.eval(pl.element().str.extract(flag)))
        .otherwise(pl.concat_list(simple))
    )
    # "Music: {'dj': False}" has no flag that is true: exploded, it is null and dropped.
    entries = entries.explode("value").drop_nulls("value")
    key = pl.col("key").str.replace_all(r"([a-z])([A-Z0-9])", "$1 $2").str.to_lowercase()
    key = key.str.strip_prefix("restaurants ").replace({"wi fi": "wifi", "has tv": "tv"})
    entries = entries.with_columns(pl.col("value").str.to_lowercase().str.replace_all("_", " "), key=key)
    entries = entries.filter(~pl.col("value").is_in(_NO))
    phrase = pl.when(pl.col("value") == "true").then("key").otherwise(pl.concat_str("key", "value", separator=" "))
    lists = entries.group_by("row", maintain_order=True).agg(attributes=phrase)
    return rows.select("row").join(lists, on="row", how="left", maintain_order="left")["attributes"].fill_null([])
