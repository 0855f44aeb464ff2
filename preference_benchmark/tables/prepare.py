"""From raw items and interactions to `Tables`: checked, ordered, filtered, every row accounted for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from preference_benchmark.tables.columns import (
    identifiers,
    ratings,
    require_columns,
    require_overlap,
    require_rows,
    text_lists,
    texts,
    times,
)
from preference_benchmark.tables.report import Counts, ReadReport

__all__ = ["UNTITLED", "Tables", "k_core", "prepare"]

UNTITLED = "untitled item"
_REQUIRED_ITEM_COLUMNS = ("item_id", "title")
_REQUIRED_INTERACTION_COLUMNS = ("user_id", "item_id")
_SHOWN = 5  # items of a reason that a report names
# Thresholds worth trying where others leave little: of three purchases one is learned from, two are held out.
_LOWER = ((3, 1), (2, 1))


@dataclass(frozen=True)
class Tables:
    """A data set: its items, its interactions, and how they came to be.

    Attributes:
        items: item_id (str), title (str, never empty), text (str), aspects (list of str: short lower-case
            attribute phrases), then whatever the source knows. Sorted by item_id; row number = item index.
        interactions: user_id (str), step (int64, 0-based position in the user's kept history), item_id (str),
            timestamp (int64, Unix seconds, or an order index where the source has no time), rating (float64,
            1 to 5, null where unknown), review (str, may be empty). Sorted by user_id, then step.
        report: what became of every line.
        noun: what items of this data set are called in general, in the plural.
        aspects_from: where the items' aspects come from: the "source" states them, or they are words of "reviews" or
            "titles", among which preferences look for phrases themselves.
        truth: user_id, step, likes, dislikes (lists of aspects), where the users' true tastes are known: in data that
            a program has generated.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    report: ReadReport
    noun: str = "products"
    aspects_from: str = "source"
    truth: pl.DataFrame | None = None

    def training_period(self) -> pl.DataFrame:
        """Interactions that no evaluation target hides behind: all but the last two of every user."""
        # Looks at steps, not at neighbouring rows: what is built must not depend on the order of the rows.
        return self.interactions.filter(pl.col("step") + 2 < pl.len().over("user_id"))

    def write(self, folder: Path) -> None:
        """Write the tables into a folder; `read` gives them back."""
        self.items.write_parquet(folder / "items.parquet")
        self.interactions.write_parquet(folder / "interactions.parquet")
        if self.truth is not None:
            self.truth.write_parquet(folder / "truth.parquet")
        about = {"report": asdict(self.report), "noun": self.noun, "aspects_from": self.aspects_from}
        (folder / "tables.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Tables:
        """The tables that `write` has put into a folder."""
        about = json.loads((folder / "tables.json").read_text("utf-8"))
        record = about.pop("report")
        record |= {name: Counts(**record[name]) for name in ("before", "after")}
        record["files"] = tuple(record["files"])
        record["examples"] = {reason: tuple(first) for reason, first in record["examples"].items()}
        frames = (pl.read_parquet(folder / f"{name}.parquet") for name in ("items", "interactions"))
        truth = folder / "truth.parquet"
        truth = pl.read_parquet(truth) if truth.is_file() else None
        return cls(*frames, ReadReport(**record), **about, truth=truth)


def prepare(
    items: pl.DataFrame | pl.LazyFrame,
    interactions: pl.DataFrame | pl.LazyFrame,
    *,
    min_user: int = 5,
    min_item: int = 5,
    max_history: int = 20,
    repeats: str = "drop",
    unbought: str = "drop",
    unknown_items: str = "error",
    dates: str = "auto",
    report: ReadReport | None = None,
) -> Tables:
    """Checked, ordered and filtered tables from raw ones.

    Histories are ordered by timestamp, ties by their order in the table. Then users with fewer than `min_user` and
    items with fewer than `min_item` interactions are removed until nothing changes (the k-core), and the latest
    `max_history` interactions of every user are kept.

    Args:
        items: item_id, title; optionally text (default: the title), aspects (default: none), metadata.
        interactions: user_id, item_id; optionally timestamp (dates, date-times, Unix seconds or ISO 8601 text, see
            `columns.times`; without the column the order of the rows is the order in time), rating (1-5, null where
            unknown) and review. Rows without an id or a time are dropped and counted.
        min_user: fewest interactions of a user.
        min_item: fewest interactions of an item.
        max_history: interactions kept per user.
        repeats: "drop": where a user bought an item more than once only the first purchase counts, so that a history
            never holds its own target; or "keep" all of them, where things are bought again.
        unbought: "drop" items without an interaction, or "keep" every item in the catalogue, where what nobody has
            bought yet is to be recommended.
        unknown_items: "error" or "drop": interactions with items that the items table lacks.
        dates: how times are read; see `columns.times`.
        report: what the source already knows about the reading; completed here.

    Raises:
        ValueError: if columns are missing or of a wrong type, if items are unknown, or if nothing is left.

    >>> items = pl.DataFrame({"item_id": ["tea", "mug"], "title": ["Green tea", "Stoneware mug"]})
    >>> rows = pl.DataFrame({"user_id": list("aabb"), "item_id": ["mug", "tea", "tea", "mug"]})
    >>> prepare(items, rows, min_user=2, min_item=2).interactions["item_id"].to_list()
    ['mug', 'tea', 'tea', 'mug']
    """
    _check_choices(min_user, min_item, max_history, repeats, unbought, unknown_items)
    # Ids become numbers at once, and the wide column, the reviews, is fetched at the end for the rows that stay:
    # what lies between costs what integers cost, however long the ids and the texts are.
    rows = _checked_interactions(interactions, dates)
    catalogue = _checked_items(items)
    report = _with_handed_over(report or ReadReport(), interactions=rows.height, items=catalogue.height)
    dropped, examples, notes = dict(report.dropped), dict(report.examples), dict(report.notes)

    for column, what in (("user_id", "a user id"), ("item_id", "an item id"), ("timestamp", "a timestamp")):
        rows = _drop(rows, pl.col(column).is_not_null(), f"interactions without {what}", dropped)
    catalogue = _drop(catalogue, pl.col("item_id").is_not_null(), "items without an id", dropped)
    catalogue = _drop(catalogue, pl.col("item_id").is_first_distinct(), "items listed more than once", dropped)
    (user, users), (item, item_ids) = _coded(rows["user_id"]), _coded(rows["item_id"])
    rows = rows.select("row", "timestamp", "rating", user=user, item=item)
    rows = _known_items(rows, item_ids, catalogue["item_id"], unknown_items, dropped)
    rows = rows.sort("user", "timestamp", maintain_order=True)
    if repeats == "drop":
        pair = pl.col("user").cast(pl.UInt64) * max(len(item_ids), 1) + pl.col("item")
        rows = _drop(rows, pair.is_first_distinct(), "repeated purchases of an item by the same user", dropped)

    bought, before = item_ids.gather(rows["item"].unique()), _counts(rows)
    kept = rows[_core(rows["user"].to_numpy(), rows["item"].to_numpy(), min_user, min_item)]
    after = _counts(kept)
    advice = _advice(rows, before, after, min_user, min_item)
    if kept.is_empty():
        reasons = "".join(f"; {count:,} {reason}" for reason, count in dropped.items() if count)
        raise ValueError(
            f"no interaction is left after filtering with min_user={min_user}, min_item={min_item}: {before} came in"
            f"{reasons}. {advice or 'Lower min_user and min_item, or pass more data.'}"
        )
    few = f"users with fewer than {min_user} or items with fewer than {min_item} interactions"
    dropped[f"interactions of {few}"] = rows.height - kept.height
    left = item_ids.gather(kept["item"].unique())
    if unbought == "drop":
        for reason, wanted in ((_NEVER, bought), (f"items left with fewer than {max(min_item, 1)} interactions", left)):
            missing = catalogue.filter(~pl.col("item_id").is_in(wanted.implode()))
            catalogue = _drop(catalogue, pl.col("item_id").is_in(wanted.implode()), reason, dropped)
            if missing.height:
                examples[reason] = _named(missing)
    catalogue = catalogue.sort("item_id")
    notes["items without a title of their own"] = catalogue.filter(pl.col("title") == UNTITLED).height
    notes["items without an interaction, kept in the catalogue"] = catalogue.height - len(left)
    length = pl.len().over("user").cast(pl.Int64)
    step = pl.int_range(pl.len(), dtype=pl.Int64).over("user") - (length - max_history).clip(lower_bound=0)
    latest = f"interactions older than the latest {max_history} of their user"
    rows = _drop(kept.with_columns(step=step), pl.col("step") >= 0, latest, dropped)
    rows = rows.select(
        "step",
        "timestamp",
        "rating",
        user_id=users.gather(rows["user"]),
        item_id=item_ids.gather(rows["item"]),
        review=_reviews(interactions, rows["row"]),
    ).select("user_id", "step", "item_id", "timestamp", "rating", "review")
    used = report.used | {"interactions": rows.height, "items": catalogue.height}
    report = replace(
        report,
        used=used,
        dropped=dropped,
        examples=examples,
        notes=notes,
        before=before,
        after=after,
        advice=advice,
    )
    return Tables(catalogue, rows, report)


_NEVER = "items without an interaction"


def _check_choices(
    min_user: int, min_item: int, max_history: int, repeats: str, unbought: str, unknown_items: str
) -> None:
    if min_user < 1 or min_item < 1 or max_history < 3:
        raise ValueError(
            f"min_user={min_user}, min_item={min_item}, max_history={max_history}: pass at least 1, 1 and 3 "
            "(a history needs one item to learn from, one to validate and one to test on)."
        )
    for name, value, choices in (
        ("repeats", repeats, ("drop", "keep")),
        ("unbought", unbought, ("drop", "keep")),
        ("unknown_items", unknown_items, ("error", "drop")),
    ):
        if value not in choices:
            raise ValueError(f'{name}={value!r} is not known; pass "{choices[0]}" or "{choices[1]}".')


def _with_handed_over(report: ReadReport, **rows: int) -> ReadReport:
    """The report with the rows that a source hands over; one that has counted them itself must agree."""
    if not report.used:
        return replace(report, lines=report.lines + sum(rows.values()), used=rows)
    if report.used | rows != report.used:
        raise RuntimeError(
            f"source {report.source!r} reports {report.used} and hands over {rows}. This is a defect of the reader; "
            "please report it."
        )
    return report


def _advice(rows: pl.DataFrame, before: Counts, after: Counts, min_user: int, min_item: int) -> str:
    """How to keep more users, where most of them are dropped."""
    if 2 * after.users >= before.users:
        return ""
    few = f"only {after.users:,} of {before.users:,} users have min_user={min_user} interactions or more"
    for lower in _LOWER:
        less_user, less_item = min(lower[0], min_user), min(lower[1], min_item)
        kept = rows[_core(rows["user"].to_numpy(), rows["item"].to_numpy(), less_user, less_item)]
        if kept["user"].n_unique() > after.users:
            return (
                f"{few} with items of min_item={min_item} or more; min_user={less_user}, min_item={less_item} "
                f"(--min-user {less_user} --min-item {less_item}) would keep {kept['user'].n_unique():,}."
            )
    return f"{few}, and lower thresholds keep no more."


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
    # Both sides are filtered by the same state; each round removes only rows that cannot be in the core, so the fixed
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


def _counts(rows: pl.DataFrame) -> Counts:
    return Counts(rows["user"].n_unique(), rows["item"].n_unique(), rows.height)


def _named(items: pl.DataFrame) -> tuple[str, ...]:
    """The first items by title and id."""
    return tuple(f"{title} ({item_id})" for title, item_id in items.select("title", "item_id").head(_SHOWN).iter_rows())


def _drop(rows: pl.DataFrame, keep: pl.Expr, reason: str, dropped: dict[str, int]) -> pl.DataFrame:
    """Rows where `keep` holds; the others are counted under `reason`."""
    kept = rows.filter(keep)
    if rows.height > kept.height:
        dropped[reason] = dropped.get(reason, 0) + rows.height - kept.height
    return kept


def _checked_interactions(interactions: pl.DataFrame | pl.LazyFrame, dates: str) -> pl.DataFrame:
    """All but the reviews: row (uint32, place in the table), user_id, item_id, timestamp, rating."""
    lazy = interactions.lazy()
    schema = lazy.collect_schema()
    require_columns(schema.names(), _REQUIRED_INTERACTION_COLUMNS, "the interactions table")
    texts(schema, "review")  # wide, and checked by its type alone
    wanted = [name for name in ("user_id", "item_id", "timestamp", "rating") if name in schema]
    rows = lazy.select(wanted).collect(engine="streaming")
    require_rows(rows, "the interactions table")
    unknown = pl.repeat(None, rows.height, dtype=pl.Float64, eager=True)
    order = pl.int_range(rows.height, dtype=pl.Int64, eager=True)
    return pl.DataFrame(
        {
            "user_id": identifiers(rows["user_id"]),
            "item_id": identifiers(rows["item_id"]),
            "timestamp": times(rows["timestamp"], dates=dates) if "timestamp" in schema else order,
            "rating": ratings(rows["rating"]) if "rating" in schema else unknown,
        }
    ).with_row_index("row")


def _reviews(interactions: pl.DataFrame | pl.LazyFrame, rows: pl.Series) -> pl.Series:
    """The reviews of these rows of the table, in their order; of a lazy table no others are held in memory."""
    lazy = interactions.lazy()
    words = lazy.with_columns(texts(lazy.collect_schema(), "review")).select("review").with_row_index("row")
    order = rows.to_frame("row")
    found = words.join(order.lazy(), on="row", how="semi").collect(engine="streaming")
    return order.join(found, on="row", how="left", maintain_order="left")["review"]


def _checked_items(items: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Items with item_id, title, text and aspects first."""
    frame = items.lazy().collect()
    require_columns(frame.columns, _REQUIRED_ITEM_COLUMNS, "the items table")
    require_rows(frame, "the items table")
    none = pl.repeat(None, frame.height, dtype=pl.Null, eager=True).alias("aspects")
    frame = frame.with_columns(
        identifiers(frame["item_id"]),
        texts(frame.schema, "title").str.strip_chars().replace("", UNTITLED),
        texts(frame.schema, "text"),
        text_lists(frame["aspects"] if "aspects" in frame.columns else none),
    )
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
