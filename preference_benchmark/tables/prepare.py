"""From raw items and interactions to `Tables`: checked, ordered, filtered, every row accounted for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from preference_benchmark.tables.columns import (
    FIRST_SECOND,
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

__all__ = ["UNTITLED", "Tables", "check_time_quantiles", "k_core", "prepare"]

UNTITLED = "untitled item"
_REQUIRED_ITEM_COLUMNS = ("item_id", "title")
_REQUIRED_INTERACTION_COLUMNS = ("user_id", "item_id")
_SHOWN = 5  # items of a reason that a report names
# Thresholds worth trying where others leave little: of three purchases one is learned from, two are held out.
_LOWER = ((3, 1), (2, 1))


@dataclass(frozen=True, eq=False)
class Tables:
    """A data set: its items, its interactions, and how they were read. Compared by identity.

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
        points: in a split by time, the Unix seconds after which the validation and the test period begin; None: the
            last two interactions of every user are held out.
        truth: user_id, step, likes, dislikes (lists of aspects), where the users' true tastes are known: in data that
            a program has generated.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    report: ReadReport
    noun: str = "products"
    aspects_from: str = "source"
    points: tuple[int, int] | None = None
    truth: pl.DataFrame | None = None

    def split(self) -> pl.Expr:
        """The split of each interaction: "train", "validation", "test", or "later" for what is in none of them.

        Leave-last-two-out: of every user's interactions the last is the test target, the one before it the validation
        target. By time: what comes before the first point is for training; the first interaction of a user in each of
        the two periods after it is a target, and the others are neither trained on nor predicted.

        Returns:
            An expression over interactions in any order, with user_id, step and timestamp.
        """
        step, user = pl.col("step"), "user_id"
        if self.points is None:
            # Looks at steps, not at neighbouring rows: what is built must not depend on the order of the rows.
            left = pl.len().over(user).cast(pl.Int64) - 1 - step
            return (
                pl.when(left == 0)
                .then(pl.lit("test"))
                .when(left == 1)
                .then(pl.lit("validation"))
                .otherwise(pl.lit("train"))
            )
        first, second = (pl.col("timestamp") > point for point in self.points)
        before = (~first).sum().over(user).cast(pl.Int64)  # steps are in the order of time
        until = (~second).sum().over(user).cast(pl.Int64)
        return (
            pl.when(~first)
            .then(pl.lit("train"))
            .when(~second & (step == before))
            .then(pl.lit("validation"))
            .when(second & (step == until))
            .then(pl.lit("test"))
            .otherwise(pl.lit("later"))
        )

    def training_period(self) -> pl.DataFrame:
        """Interactions that models may learn from: those of the split "train"."""
        return self.interactions.filter(self.split() == "train")

    def write(self, folder: Path) -> None:
        """Write the tables into a folder; `read` gives them back."""
        self.items.write_parquet(folder / "items.parquet")
        self.interactions.write_parquet(folder / "interactions.parquet")
        if self.truth is not None:
            self.truth.write_parquet(folder / "truth.parquet")
        about = {"report": asdict(self.report)}
        about |= {name: getattr(self, name) for name in ("noun", "aspects_from", "points")}
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
        points = about.pop("points")
        return cls(*frames, ReadReport(**record), **about, points=points and tuple(points), truth=truth)


def prepare(
    items: pl.DataFrame | pl.LazyFrame,
    interactions: pl.DataFrame | pl.LazyFrame,
    *,
    min_user: int = 5,
    min_item: int = 5,
    max_history: int = 20,
    repeats: str = "drop",
    split: str = "leave_last_two",
    time_quantiles: tuple[float, float] = (0.8, 0.9),
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
        split: "leave_last_two": the last two interactions of every user are held out; "time": what comes after two
            points in time, the same for all; see `Tables.split`.
        time_quantiles: shares of the interactions that lie before these points.
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
    _check_choices(min_user, min_item, max_history, repeats, unbought, unknown_items, split)
    check_time_quantiles(time_quantiles)
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
    points = None
    if split == "time":
        if "timestamp" not in interactions.lazy().collect_schema().names() or rows["timestamp"].max() < FIRST_SECOND:
            raise ValueError(
                'split="time" needs the times of the interactions, but there are none; add a column "timestamp" '
                'or use split="leave_last_two".'
            )
        # Rows of one second stay together: the points are times that some rows have.
        found = [rows["timestamp"].quantile(share, interpolation="lower") for share in time_quantiles]
        points = (int(found[0]), int(found[1]))
        if points[0] == points[1]:
            raise ValueError(f"no time lies between the quantiles {time_quantiles}; pass others as time_quantiles.")
    return Tables(catalogue, rows, report, points=points)


_NEVER = "items without an interaction"


def _check_choices(
    min_user: int, min_item: int, max_history: int, repeats: str, unbought: str, unknown_items: str, split: str
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
        ("split", split, ("leave_last_two", "time")),
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


def check_time_quantiles(shares: tuple[float, float]) -> None:
    """Raise a ValueError unless these are two shares, the smaller one first."""
    pair = isinstance(shares, list | tuple) and len(shares) == 2
    if not pair or not all(isinstance(share, int | float) for share in shares) or not 0 < shares[0] < shares[1] < 1:
        raise ValueError(f"time_quantiles={shares!r} must be two shares between 0 and 1, such as (0.8, 0.9).")


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
