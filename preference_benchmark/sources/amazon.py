"""The Amazon review releases of 2014 (McAuley et al. 2015) and 2018 (Ni et al. 2019), per category, 5-core or complete.

2014: `reviews_{category}_5.json.gz` (complete: `reviews_{category}.json.gz`) holds JSON lines, the optional
`meta_{category}.json.gz` Python literals. 2018: `{category}_5.json.gz` (complete: `{category}.json.gz`) and the
optional `meta_{category}.json.gz` hold JSON lines; what is absent from the metadata is an empty string or list.

An item without metadata is titled and described by what its reviewers wrote, and only by reviews of the training
period, so that nothing of the reviews to be predicted leaks into its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from preference_benchmark.sources.item_text import (
    as_aspects,
    clean_text,
    item_terms,
    shared_aspects,
    term_counts,
)
from preference_benchmark.sources.raw_files import find_beside, find_file
from preference_benchmark.sources.raw_lines import OTHERS, RATING, SECONDS, RawLines, read_records, read_report
from preference_benchmark.tables import UNTITLED, Tables, labelled, prepare, require_overlap

__all__ = [
    "ASIN",
    "ReadMetadata",
    "amazon_tables",
    "read_amazon",
    "read_amazon2014",
    "read_amazon2018",
]


# From a metadata file, the ids that matter and `max_malformed` to the file's lines, whose frame is the items that it
# describes: item_id, title, text, aspects, ...
ReadMetadata = Callable[..., RawLines]

ASIN = r"""['"]asin['"]: ?u?['"](\w+)['"]"""  # an item's id in a line of metadata

_REVIEW_FIELDS = {
    "reviewerID": pl.String,
    "asin": pl.String,
    "overall": RATING,
    "unixReviewTime": SECONDS,
    "summary": pl.String,
    "reviewText": pl.String,
}
_UNREVIEWED = "Item without reviews"
_TITLE_TERMS, _TITLE_WORDS, _SUMMARIES, _ASPECTS = 4, 8, 30, 8
_MOSTLY = 0.5  # share of items whose aspects come from reviews above which all are said to


def read_amazon(
    source: str,
    path: str | Path,
    *,
    reviews: tuple[str, ...],
    category: str,
    home: str,
    metadata: str | Path | None,
    read_metadata: ReadMetadata,
    max_malformed: float,
    **options: object,
) -> Tables:
    """Tables from a review file of 2014 or 2018 and, where there is one, its metadata file.

    Args:
        source: name of the source, for the report.
        path: the review file or its folder.
        reviews: names of review files, as glob patterns.
        category: regular expression whose first group is the category in a review file's name.
        home: address of the page that leads to the public files.
        metadata: the metadata file; None looks for meta_{category}.json beside the reviews.
        read_metadata: reads a metadata file.
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.
    """
    review_file = find_file(path, reviews, f"{source} reviews", home)
    found = re.match(category, review_file.name)
    wanted = [f"meta_{found.group(1)}.json{end}" for end in (".gz", "")] if found else ["meta_*.json", "meta_*.json.gz"]
    if metadata is not None:
        metadata = find_file(metadata, tuple(wanted), "metadata", home)
    else:
        metadata = find_beside(review_file.parent, tuple(wanted), "metadata")
    raw = read_records(review_file, _REVIEW_FIELDS, ("reviewerID", "asin"), max_malformed=max_malformed)
    rows = raw.frame.select(
        user_id="reviewerID",
        item_id="asin",
        timestamp="unixReviewTime",
        rating="overall",
        summary=clean_text("summary"),
        text=clean_text("reviewText"),
    )
    read_items = partial(read_metadata, max_malformed=max_malformed)
    return amazon_tables(source, replace(raw, frame=rows), metadata, read_items, **options)


def amazon_tables(
    source: str, reviews: RawLines, metadata: Path | None, read_metadata: ReadMetadata, **options: object
) -> Tables:
    """Tables from the reviews of any release, and its metadata file where there is one.

    Args:
        source: name of the source, for the report.
        reviews: user_id, item_id, timestamp, rating, summary, text, cleaned. Of a lazy table the texts are read only
            where they are needed.
        metadata: the metadata file, or None.
        read_metadata: reads it.
        options: passed on to `prepare`.
    """
    rows, counts = reviews.frame, [reviews.count]
    met = rows.lazy().select("item_id").drop_nulls().unique(maintain_order=True).collect()
    items, dropped, notes = met.with_columns(title=pl.lit("")), {}, {}
    described = 0
    if metadata is not None:
        raw = read_metadata(metadata, met["item_id"])
        counts.append(raw.count)
        with_id = raw.frame.drop_nulls("item_id")
        distinct = with_id.unique("item_id", keep="first", maintain_order=True)
        listed = met["item_id"].is_in(distinct["item_id"].implode())
        require_overlap(listed, met["item_id"], distinct["item_id"], str(metadata))
        items = met.join(distinct, on="item_id", how="left", maintain_order="left")
        described = int(listed.sum())
        dropped = {
            "items without an id": raw.frame.height - with_id.height,
            "items listed more than once": with_id.height - distinct.height,
            OTHERS: distinct.height - described,
        }
        notes["items without metadata"] = met.height - described
    used = {"interactions": rows.lazy().select(pl.len()).collect().item(), "items": met.height}
    report = read_report(source, counts, used=used, dropped=dropped, notes=notes, added=met.height - described)
    tables = prepare(items, rows.with_columns(review=_joined()).drop("summary", "text"), report=report, **options)
    return _described(shared_aspects(tables), rows)


def _joined() -> pl.Expr:
    """Summary and text of a review as one text."""
    summary = pl.col("summary").str.replace(r"([^.!?])$", "${1}.")
    both = pl.concat_str(summary, "text", separator=" ")
    rest = pl.col("text").str.slice(pl.col("summary").str.len_chars())
    repeated = pl.col("text").str.starts_with(pl.col("summary")) & ~rest.str.contains(r"^\w")
    repeated |= pl.col("summary") == ""
    return pl.when(repeated).then("text").otherwise(both).str.strip_chars()


def _described(tables: Tables, reviews: pl.DataFrame | pl.LazyFrame) -> Tables:
    """Items without title or aspects get them from training-period reviews; the untitled a text as well."""
    lacking = tables.items.filter((pl.col("title") == UNTITLED) | (pl.col("aspects").list.len() == 0))
    if lacking.is_empty():
        return tables
    pairs = tables.training_period().select("user_id", "item_id", "step", "timestamp")
    # `prepare` keeps the first of reviews of one item by one user at one time; so must the look-up of its texts.
    same = ["user_id", "item_id", "timestamp"]
    first = reviews.lazy().select(*same, "summary", "text").with_row_index("row")
    first = first.join(pairs.lazy(), on=same, how="semi").collect(engine="streaming")
    first = first.sort("row").unique(same, keep="first", maintain_order=True)
    training = pairs.join(first.drop("row"), on=same, maintain_order="left")
    training = training.sort("timestamp", "user_id", "step")
    # The summary is a piece of its own: what it names counts twice.
    pieces = pl.concat([training.select("item_id", text=name) for name in ("summary", "text")])
    counts = term_counts(pieces.filter(pl.col("text") != ""))
    terms = item_terms(counts)
    # A title may be singular; an aspect must be shared, or asking for it would be naming the item.
    fewest = max(3, tables.items.height // 100)
    aspects = item_terms(counts, most=2 * _ASPECTS, fewest_items=fewest).rename({"terms": "shared"})
    aspects = aspects.explode("shared").filter(pl.len().over("shared") >= 3)
    aspects = aspects.group_by("item_id", maintain_order=True).agg(pl.col("shared").head(_ASPECTS))
    summaries = (
        training.with_columns(pl.col("summary").str.strip_chars_end(" ."))
        .filter(pl.col("summary") != "")
        .unique(["item_id", "summary"], keep="first", maintain_order=True)
    )
    summaries = summaries.group_by("item_id", maintain_order=True).agg(pl.col("summary").head(_SUMMARIES))
    described = lacking.select(
        "item_id", named=pl.col("title") != UNTITLED, bare=pl.col("aspects").list.len() == 0
    ).join(terms, on="item_id", how="left", maintain_order="left")
    described = described.join(aspects, on="item_id", how="left", maintain_order="left")
    described = described.join(summaries, on="item_id", how="left", maintain_order="left")
    short = pl.element().head(_TITLE_TERMS)
    words = (pl.element().str.count_matches(" ") + 1).cum_sum()
    title = pl.col("terms").list.eval(short.filter(words.head(_TITLE_TERMS) <= _TITLE_WORDS)).list.join(", ")
    title = (title.str.slice(0, 1).str.to_uppercase() + title.str.slice(1)).fill_null("")
    first_summary = pl.col("summary").list.first().str.split(" ").list.head(_TITLE_WORDS).list.join(" ").fill_null("")
    described = described.with_columns(
        title=pl.when(title != "")
        .then(title)
        .when(first_summary != "")
        .then(first_summary)
        .otherwise(pl.lit(_UNREVIEWED))
    )
    text = pl.concat_str("title", pl.col("summary").list.join(". "), separator=". ", ignore_nulls=True)
    described = described.select(
        "item_id",
        title=pl.when(~pl.col("named")).then("title"),
        text=pl.when(~pl.col("named")).then(text),
        aspects=pl.when("bare").then(pl.col("shared").fill_null([])),
    )
    items = tables.items.update(described, on="item_id", how="left")
    notes = dict(tables.report.notes)
    notes["items titled in their reviewers' words"] = described["title"].count()
    notes["of these without a review in the training period"] = described.filter(pl.col("title") == _UNREVIEWED).height
    worded = described.filter(pl.col("aspects").list.len() > 0).height
    notes["items with aspects in their reviewers' words"] = worded
    report = replace(tables.report, notes=notes)
    aspects_from = "reviews" if worded > _MOSTLY * items.height else tables.aspects_from
    return replace(tables, items=items, report=report, aspects_from=aspects_from)


_REVIEWS_2014 = ("reviews_*_5.json.gz", "reviews_*_5.json", "reviews_*.json.gz", "reviews_*.json")
_METADATA_FIELDS_2014 = {
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
        reviews=_REVIEWS_2014,
        category=r"reviews_(.+?)(?:_5)?\.json",
        home="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        metadata=metadata,
        read_metadata=_read_metadata_2014,
        max_malformed=max_malformed,
        **options,
    )


def _read_metadata_2014(file: Path, ids: pl.Series, max_malformed: float) -> RawLines:
    raw = read_records(file, _METADATA_FIELDS_2014, ("asin",), max_malformed=max_malformed, only=(ASIN, ids))
    frame = raw.frame.with_columns(
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
    return replace(raw, frame=items)


# Category names are capitalised, "meta_" is not.
_REVIEWS_2018 = ("*_5.json.gz", "*_5.json", "[A-Z]*.json.gz", "[A-Z]*.json")
_METADATA_FIELDS_2018 = {
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
        reviews=_REVIEWS_2018,
        category=r"(.+?)(?:_5)?\.json",
        home="https://nijianmo.github.io/amazon/",
        metadata=metadata,
        read_metadata=_read_metadata_2018,
        max_malformed=max_malformed,
        **options,
    )


def _read_metadata_2018(file: Path, ids: pl.Series, max_malformed: float) -> RawLines:
    raw = read_records(file, _METADATA_FIELDS_2018, ("asin",), max_malformed=max_malformed, only=(ASIN, ids))
    frame = raw.frame.with_columns(clean_text("title"), clean_text("brand"), _cleaned("category"), _cleaned("feature"))
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
    return replace(raw, frame=items)


def _cleaned(name: str) -> pl.Expr:
    """A list column of text, cleaned."""
    return pl.col(name).fill_null([]).list.eval(clean_text("", pl.element())).alias(name)
