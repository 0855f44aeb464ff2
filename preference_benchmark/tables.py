"""The two tables that every data set becomes: items and interactions.

Sources read raw files and hand them to `prepare`, which checks the columns, orders every user's history by
time, drops repeated purchases, filters to the k-core and keeps the latest items of each user: the preparation
that S3-Rec, P5, TIGER and Mender (Paischer et al. 2025, arXiv:2412.08604) share.

Columns of raw tables, checked and brought to one type.

Each function takes a table as a source made it and gives the expression of one checked column; what cannot be
used is refused with the value that was found and what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

__all__ = [
    "Counts",
    "ReadReport",
    "Tables",
    "UNTITLED",
    "identifier",
    "k_core",
    "labelled",
    "milliseconds",
    "prepare",
    "rating",
    "require_columns",
    "require_overlap",
    "require_rows",
    "strings",
    "unix_seconds",
]


# A Unix time of 1e11 seconds lies in the year 5138: such numbers are milliseconds.
_LATEST_SECOND = 100_000_000_000
_LEAST_OVERLAP = 0.05  # share of the items below which a catalogue is taken for another data set's


def require_columns(columns: list[str], required: tuple[str, ...], table: str) -> None:
    """Raise a ValueError unless a table has these columns."""
    missing = [name for name in required if name not in columns]
    if missing:
        raise ValueError(
            f"the {table} table lacks the columns {missing}; found {columns}. Rename or add them: required are "
            f"{list(required)}."
        )


def require_rows(frame: pl.DataFrame, table: str) -> None:
    """Raise a ValueError if a table is empty."""
    if frame.is_empty():
        raise ValueError(f"the {table} table has no rows (columns {frame.columns}); pass at least one.")


def require_overlap(found: pl.Series, wanted: pl.Series, listed: pl.Series, file: str = "the items table") -> None:
    """Raise a ValueError if nearly none of the items that people met are described: then it is another catalogue.

    Args:
        found: whether each of the wanted ids is listed.
        wanted: distinct item ids of the interactions.
        listed: item ids of the catalogue.
        file: what the catalogue is called in the message.
    """
    if found.sum() < _LEAST_OVERLAP * len(wanted):
        raise ValueError(
            f"{file} describes only {found.sum():,} of the {len(wanted):,} items of the interactions (they are called "
            f"{wanted.head(3).to_list()}, its own {listed.head(3).to_list()}): it seems to be the catalogue of "
            "another category or data set. Pass the one that belongs to the interactions."
        )


def identifier(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column of ids as strings."""
    dtype = frame.schema[name]
    if not (dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer()):
        raise ValueError(f"column {name!r} has type {dtype}; pass strings or integers.")
    if frame[name].null_count():
        nulls = frame[name].null_count()
        raise ValueError(f"column {name!r} is null in {nulls:,} rows; fill or remove them.")
    return pl.col(name).cast(pl.String)


def strings(schema: pl.Schema, name: str) -> pl.Expr:
    """A column of text, empty where it is null or absent."""
    if name not in schema:
        return pl.lit("").alias(name)
    if schema[name] not in (pl.String, pl.Null):
        raise ValueError(f"column {name!r} has type {schema[name]}; pass strings.")
    return pl.col(name).cast(pl.String).fill_null("")


def rating(frame: pl.DataFrame) -> pl.Expr:
    """The rating column as numbers from 1 to 5, null where it is unknown or absent."""
    if "rating" not in frame.columns:
        return pl.lit(None, dtype=pl.Float64).alias("rating")
    dtype = frame.schema["rating"]
    if not (dtype.is_numeric() or dtype == pl.Null):
        raise ValueError(f"column 'rating' has type {dtype}; pass numbers from 1 to 5, null where unknown.")
    value = frame["rating"].cast(pl.Float64).fill_nan(None)
    outside = value.filter((value < 1) | (value > 5))
    if len(outside):
        raise ValueError(
            f"column 'rating' holds {outside[0]:g} and {len(outside) - 1:,} more values outside 1-5; rescale them."
        )
    return pl.lit(value).alias("rating")


def unix_seconds(frame: pl.DataFrame) -> pl.Expr:
    """The timestamp column as Unix seconds, or the row number where there is none."""
    if "timestamp" not in frame.columns:
        return pl.int_range(pl.len(), dtype=pl.Int64).alias("timestamp")
    time = frame["timestamp"]
    if time.dtype == pl.String:
        time = _from_iso(time)
    if time.dtype == pl.Date or isinstance(time.dtype, pl.Datetime):
        time = time.dt.epoch("s")
    if not (time.dtype.is_numeric() or time.dtype == pl.Null):
        raise ValueError(
            f"column 'timestamp' has type {time.dtype}; pass integer Unix seconds, dates or ISO 8601 text."
        )
    time = (time.fill_nan(None) if time.dtype.is_float() else time).cast(pl.Int64)
    late = time >= _LATEST_SECOND
    if late.any():
        example = time.filter(late)[0]
        if not late.all():  # all that are known
            _refuse_mixed(time, late)
        raise ValueError(
            f"column 'timestamp' holds {example}, which lies beyond the year 5000 in seconds; "
            "if these are milliseconds, divide them by 1000."
        )
    return pl.lit(time).alias("timestamp")


def milliseconds(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column of Unix milliseconds as `timestamp` in whole Unix seconds; only what is in the column is checked.

    Raises:
        ValueError: if some of them, or all, can only be seconds.
    """
    time = frame[name]
    late = time >= _LATEST_SECOND
    if not late.all():
        if late.any():
            _refuse_mixed(time, late)
        raise ValueError(
            f"column {name!r} holds {time.drop_nulls()[0]}, which is {_day(time.drop_nulls()[0] // 1000)} in "
            "milliseconds; if these are seconds, multiply them by 1000."
        )
    return (pl.col(name) // 1000).alias("timestamp")


def _refuse_mixed(time: pl.Series, late: pl.Series) -> None:
    """Times of two units order no history; show one of each, and where."""
    late = late.fill_null(False)
    early = ~late & time.is_not_null()
    first, other = early.arg_true()[0], late.arg_true()[0]
    raise ValueError(
        f"column {time.name!r} mixes units: row {first} holds {time[first]} ({_day(time[first])} in seconds), row "
        f"{other} holds {time[other]} ({_day(time[other] // 1000)} in milliseconds); {early.sum():,} rows look like "
        f"seconds and {late.sum():,} like milliseconds. Bring all of them to one unit."
    )


def _day(seconds: int) -> str:
    day = pl.select(pl.from_epoch(pl.lit(seconds), "s").dt.strftime("%Y-%m-%d")).item()
    return day or "no date"


def _from_iso(text: pl.Series) -> pl.Series:
    """Unix seconds of ISO 8601 text (UTC where no zone is given) or of digits; empty text is null."""
    text = text.str.strip_chars().replace("", None)
    frame = text.to_frame("text").select(
        "text",
        digits=pl.col("text").str.to_integer(strict=False, dtype=pl.Int64),
        moment=pl.col("text").str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00").str.replace(" ", "T"),
    )
    with_zone = pl.col("moment").str.replace("Z$", "+00:00").str.replace(r"(T[\d:.]+)$", "${1}+00:00")
    moment = with_zone.str.to_datetime("%+", strict=False, time_unit="us", time_zone="UTC")
    seconds = frame.select(pl.coalesce("digits", moment.dt.epoch("s"))).to_series()
    wrong = text.filter(seconds.is_null() & text.is_not_null())
    if len(wrong):
        raise ValueError(
            f"column 'timestamp' holds {wrong[0]!r} and {len(wrong) - 1:,} more values that are neither Unix "
            "seconds nor ISO 8601 such as 2014-07-15 or 2014-07-15T12:30:00."
        )
    return seconds


UNTITLED = "untitled item"
_REQUIRED_ITEM_COLUMNS = ("item_id", "title")
_REQUIRED_INTERACTION_COLUMNS = ("user_id", "item_id")


@dataclass(frozen=True)
class Counts:
    """How many distinct users and items, and how many interactions, a table of interactions holds."""

    users: int = 0
    items: int = 0
    interactions: int = 0

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


@dataclass(frozen=True)
class ReadReport:
    """What was read and what was dropped on the way; `print` it.

    Attributes:
        source: name of the source.
        files: the files that were read.
        lines: non-empty lines (or rows) in these files.
        malformed: lines that could not be parsed and were left out.
        malformed_lines: where the first of them are, as "file:line".
        dropped: rows left out by reason, before the k-core.
        notes: other things worth knowing, by what was counted.
        before: counts that went into the k-core.
        after: counts that came out of the k-core. The items table holds exactly these items.
        kept: interactions left after each history was cut to its latest `max_history`.
    """

    source: str = "table"
    files: tuple[str, ...] = ()
    lines: int = 0
    malformed: int = 0
    malformed_lines: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    before: Counts = Counts()
    after: Counts = Counts()
    kept: int = 0

    def __str__(self) -> str:
        rows = [f"source: {self.source}"]
        if self.files:
            rows.append(f"read: {self.lines:,} lines of {', '.join(self.files)}")
        if self.malformed:
            first = ", ".join(self.malformed_lines)
            rows.append(f"malformed: {self.malformed:,} lines left out (first: {first})")
        rows += [f"dropped: {count:,} {reason}" for reason, count in self.dropped.items() if count]
        rows += [f"note: {count:,} {what}" for what, count in self.notes.items() if count]
        rows.append(f"before k-core: {self.before}")
        rows.append(f"after k-core: {self.after}")
        rows.append(f"kept: {self.kept:,} interactions in the latest part of each history")
        return "\n".join(rows)


@dataclass(frozen=True)
class Tables:
    """A data set: its items, its interactions, and how they came to be.

    Attributes:
        items: item_id (str), title (str, never empty), text (str), aspects (list of str: short lower-case
            attribute phrases), then whatever the source knows. Sorted by item_id; row number = item index.
        interactions: user_id (str), step (int64, 0-based position in the user's kept history), item_id (str),
            timestamp (int64, Unix seconds, or an order index where the source has no time), rating (float64,
            1 to 5, null where unknown), review (str, may be empty). Sorted by user_id, then step.
        report: what was read and dropped.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    report: ReadReport

    def training_period(self) -> pl.DataFrame:
        """Interactions that no evaluation target hides behind: all but the last two of every user."""
        # Looks at steps, not at neighbouring rows: what is built must not depend on the order of the rows.
        return self.interactions.filter(pl.col("step") + 2 < pl.len().over("user_id"))


def prepare(
    items: pl.DataFrame | pl.LazyFrame,
    interactions: pl.DataFrame | pl.LazyFrame,
    *,
    min_user: int = 5,
    min_item: int = 5,
    max_history: int = 20,
    unknown_items: str = "error",
    report: ReadReport | None = None,
) -> Tables:
    """Checked, ordered and filtered tables from raw ones.

    Histories are ordered by timestamp, ties by their order in the table. Where a user met an item more than
    once only the first meeting counts, so that a history never holds its own target. Then users with fewer
    than `min_user` and items with fewer than `min_item` interactions are removed until nothing changes (the
    k-core), and the latest `max_history` interactions of every user are kept. A user with a single
    interaction falls out with the k-core; the report's counts before and after say how many do.

    Args:
        items: item_id, title; optionally text (default: the title), aspects (default: none), metadata.
        interactions: user_id, item_id; optionally timestamp (integer Unix seconds, date, datetime or ISO 8601
            text; without the column the order of the rows is the order in time; rows where it is null are
            dropped), rating (1-5, null where unknown) and review.
        min_user: fewest interactions of a user.
        min_item: fewest interactions of an item.
        max_history: interactions kept per user.
        unknown_items: "error" or "drop": interactions with items that the items table lacks.
        report: what the source already knows about the reading; completed here.

    Raises:
        ValueError: if columns are missing or of a wrong type, if items are unknown, or if nothing is left.

    >>> items = pl.DataFrame({"item_id": ["tea", "mug"], "title": ["Green tea", "Stoneware mug"]})
    >>> rows = pl.DataFrame({"user_id": list("aabb"), "item_id": ["mug", "tea", "tea", "mug"]})
    >>> prepare(items, rows, min_user=2, min_item=2).interactions["item_id"].to_list()
    ['mug', 'tea', 'tea', 'mug']
    """
    if min_user < 1 or min_item < 1 or max_history < 3:
        raise ValueError(
            f"min_user={min_user}, min_item={min_item}, max_history={max_history}: pass at least 1, 1 and 3 "
            "(a history needs one item to learn from, one to validate and one to test on)."
        )
    if unknown_items not in ("error", "drop"):
        raise ValueError(f'unknown_items={unknown_items!r} is not known; pass "error" or "drop".')
    report = report or ReadReport()
    dropped, notes = dict(report.dropped), dict(report.notes)

    # Ids become numbers at once, and the wide column, the reviews, is fetched at the end for the rows that stay:
    # what lies between costs what integers cost, however long the ids and the texts are.
    rows, users, item_ids = _checked_interactions(interactions)
    lines = rows.height
    catalogue = _checked_items(items, dropped)
    rows = _drop(rows, pl.col("timestamp").is_not_null(), "interactions without a timestamp", dropped)
    rows = _known_items(rows, item_ids, catalogue["item_id"], unknown_items, dropped)
    rows = rows.sort("user", "timestamp", maintain_order=True)
    pair = pl.col("user").cast(pl.UInt64) * len(item_ids) + pl.col("item")
    rows = _drop(rows, pair.is_first_distinct(), "repeated user-item pairs", dropped)

    before = Counts(rows["user"].n_unique(), rows["item"].n_unique(), rows.height)
    rows = rows[_core(rows["user"].to_numpy(), rows["item"].to_numpy(), min_user, min_item)]
    after = Counts(rows["user"].n_unique(), rows["item"].n_unique(), rows.height)
    if rows.is_empty():
        raise ValueError(
            f"no interaction is left after filtering with min_user={min_user}, min_item={min_item}: {before} "
            "came in. Lower min_user and min_item, or pass more data."
        )
    kept_items = item_ids.gather(rows["item"].unique()).to_frame("item_id")
    catalogue = catalogue.join(kept_items, on="item_id", how="semi").sort("item_id")
    notes["items without a title of their own"] = catalogue.filter(pl.col("title") == UNTITLED).height
    length = pl.len().over("user").cast(pl.Int64)
    step = pl.int_range(pl.len(), dtype=pl.Int64).over("user") - (length - max_history).clip(lower_bound=0)
    rows = rows.with_columns(step=step).filter(pl.col("step") >= 0)
    rows = rows.select(
        "step",
        "timestamp",
        "rating",
        user_id=users.gather(rows["user"]),
        item_id=item_ids.gather(rows["item"]),
        review=_reviews(interactions, rows["row"]),
    ).select("user_id", "step", "item_id", "timestamp", "rating", "review")
    report = replace(
        report,
        lines=report.lines or lines,
        dropped=dropped,
        notes=notes,
        before=before,
        after=after,
        kept=rows.height,
    )
    return Tables(catalogue, rows, report)


def k_core(interactions: pl.DataFrame, *, min_user: int, min_item: int) -> pl.DataFrame:
    """The largest part of a table in which every user and every item has enough interactions.

    Args:
        interactions: user_id, item_id and any other columns, in any order, which is kept.
        min_user: fewest interactions of a user.
        min_item: fewest interactions of an item.
    """
    codes = (_coded(interactions[name])[0].to_numpy() for name in ("user_id", "item_id"))
    return interactions[_core(*codes, min_user, min_item)]


def _core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """The rows of the k-core, in order. Users and items are counted from 0. Shapes: (rows,), (rows,)."""
    # Both sides are judged by the same state; each round removes only rows that cannot be in the core, so the fixed
    # point is the same as with one side at a time.
    rows = np.arange(len(users))
    while True:
        enough = (np.bincount(users)[users] >= min_user) & (np.bincount(items)[items] >= min_item)
        if enough.all():
            return rows
        rows, users, items = rows[enough], users[enough], items[enough]


def _coded(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Ids as numbers from 0 in their sorting order, and the id of each number."""
    text = ids.cast(pl.String)
    distinct = text.unique().sort()
    return text.cast(pl.Enum(distinct)).to_physical().cast(pl.UInt32), distinct


def _drop(rows: pl.DataFrame, keep: pl.Expr, reason: str, dropped: dict[str, int]) -> pl.DataFrame:
    """Rows where `keep` holds; the others are counted under `reason`."""
    kept = rows.filter(keep)
    dropped[reason] = dropped.get(reason, 0) + rows.height - kept.height
    return kept


def _checked_interactions(interactions: pl.DataFrame | pl.LazyFrame) -> tuple[pl.DataFrame, pl.Series, pl.Series]:
    """All of the interactions but their reviews, and the ids of users and items.

    Returns:
        row (uint32, place in the table), user and item (uint32, numbers of their ids), timestamp, rating; the user
        ids and the item ids by number.
    """
    lazy = interactions.lazy()
    schema = lazy.collect_schema()
    require_columns(schema.names(), _REQUIRED_INTERACTION_COLUMNS, "interactions")
    strings(schema, "review")  # wide, and checked by its type alone
    wanted = [name for name in ("user_id", "item_id", "timestamp", "rating") if name in schema]
    rows = lazy.select(wanted).collect(engine="streaming")
    require_rows(rows, "interactions")
    ids = rows.select(identifier(rows, "user_id"), identifier(rows, "item_id"))
    (user, users), (item, items) = _coded(ids["user_id"]), _coded(ids["item_id"])
    rows = rows.select(unix_seconds(rows), rating(rows), user=user, item=item).with_row_index("row")
    return rows, users, items


def _reviews(interactions: pl.DataFrame | pl.LazyFrame, rows: pl.Series) -> pl.Series:
    """The reviews of these rows of the table, in their order; of a lazy table no others are held in memory."""
    lazy = interactions.lazy()
    texts = lazy.with_columns(strings(lazy.collect_schema(), "review")).select("review").with_row_index("row")
    order = rows.to_frame("row")
    found = texts.join(order.lazy(), on="row", how="semi").collect(engine="streaming")
    return order.join(found, on="row", how="left", maintain_order="left")["review"]


def _checked_items(items: pl.DataFrame | pl.LazyFrame, dropped: dict[str, int]) -> pl.DataFrame:
    """Items with item_id, title, text and aspects first, each id once."""
    frame = items.lazy().collect()
    require_columns(frame.columns, _REQUIRED_ITEM_COLUMNS, "items")
    require_rows(frame, "items")
    title, text = strings(frame.schema, "title"), strings(frame.schema, "text")
    frame = frame.with_columns(identifier(frame, "item_id"), title, text)
    if "aspects" not in frame.columns:
        frame = frame.with_columns(aspects=pl.lit([], dtype=pl.List(pl.String)))
    elif frame.schema["aspects"] not in (pl.List(pl.String), pl.List(pl.Null)):
        raise ValueError(f"items.aspects has type {frame.schema['aspects']}; pass lists of strings.")
    frame = frame.with_columns(pl.col("aspects").cast(pl.List(pl.String)).fill_null([]))
    frame = _drop(frame, pl.col("item_id").is_first_distinct(), "items listed more than once", dropped)
    title = pl.col("title").str.strip_chars().replace("", UNTITLED)
    frame = frame.with_columns(title=title)
    frame = frame.with_columns(text=pl.when(pl.col("text") == "").then("title").otherwise("text"))
    first = ["item_id", "title", "text", "aspects"]
    return frame.select(*first, pl.exclude(first))


def _known_items(
    rows: pl.DataFrame, item_ids: pl.Series, listed: pl.Series, unknown_items: str, dropped: dict[str, int]
) -> pl.DataFrame:
    """Rows whose item the items table lists; refuses others, or drops them on request unless they are nearly all."""
    is_listed = item_ids.is_in(listed.implode())
    known = rows.filter(is_listed.gather(rows["item"]))
    unknown = rows.height - known.height
    if not unknown:
        return rows
    missing = item_ids.filter(~is_listed)
    if unknown_items == "error":
        raise ValueError(
            f"{missing.len():,} item ids of the interactions are not in the items table, among them "
            f'{missing.head(5).to_list()}. Add these items, or pass unknown_items="drop" to leave out their '
            f"{unknown:,} interactions."
        )
    require_overlap(is_listed, item_ids, listed)
    dropped["interactions with items that the items table lacks"] = unknown
    return known


def labelled(**fields: str | pl.Expr) -> pl.Expr:
    """The fields as one text, "Label: value. Label: value", without those that are null or empty.

    Args:
        fields: column names or string expressions by label, in order.

    >>> frame = pl.DataFrame({"name": ["Mug", "Tea"], "maker": ["Dovetail", ""]})
    >>> frame.select(text=labelled(Title="name", Brand="maker"))["text"].to_list()
    ['Title: Mug. Brand: Dovetail', 'Title: Tea']
    """
    parts = []
    for label, given in fields.items():
        value = pl.col(given) if isinstance(given, str) else given
        parts.append(pl.when(value != "").then(pl.concat_str(pl.lit(f"{label}: "), value)))
    return pl.concat_str(parts, separator=". ", ignore_nulls=True)
