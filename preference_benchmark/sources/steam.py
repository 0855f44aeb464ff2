"""The two Steam review releases (Kang & McAuley 2018; Pathak et al. 2017), and the games file that they share.

`australian_user_reviews.json.gz` holds one user a line with all their reviews. A review says whether the user
recommends the game, and on which day it was posted; posts of the year in which the pages were collected carry no year,
or no date at all. `steam_reviews.json.gz`, which unpacks to `steam_new.json`, is larger and holds one review a line.
Users are identified by name there, as in all published counts (some lines have an account number as well), and what a
review thinks of the game has to be read from its text. `steam_games.json.gz` holds one game a line. All are Python
literals.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from preference_benchmark.sources.item_text import as_aspects, clean_text, shared_aspects
from preference_benchmark.sources.raw_files import find_file
from preference_benchmark.sources.raw_lines import RawLines, read_records, read_report
from preference_benchmark.tables import Tables, labelled, prepare

__all__ = ["read_steam", "read_steam_reviews"]

_HOME = "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data"
_GAMES = ("steam_games.json.gz", "steam_games.json")
_GAME_FIELDS = {
    "id": pl.String,
    "title": pl.String,
    "app_name": pl.String,
    "genres": pl.List(pl.String),
    "tags": pl.List(pl.String),
    "specs": pl.List(pl.String),
    "price": pl.String,
    "publisher": pl.String,
    "developer": pl.String,
    "release_date": pl.String,
}
_ID = r"""['"]id['"]: ?u?['"](\d+)['"]"""


def _find_games(path: str | Path) -> Path:
    return find_file(path, _GAMES, "Steam games", _HOME)


def _tables(
    source: str,
    reviews: RawLines,
    rows: pl.DataFrame | pl.LazyFrame,
    game_file: Path,
    unlisted: str,
    max_malformed: float,
    options: dict[str, object],
    *,
    dropped: dict[str, int],
    more: int = 0,
) -> Tables:
    """Tables from the interactions of either release.

    Args:
        source: its name.
        reviews: the lines of the review file.
        rows: user_id, item_id, timestamp, review, and rating where it is known.
        game_file: the games file.
        unlisted: "drop", or "keep": games that the file lacks become items under the title "Game {id}".
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.
        dropped: reviews that were left out, by reason.
        more: reviews beyond the first of lines that hold several.
    """
    ids = rows.lazy().select(pl.col("item_id").drop_nulls().unique().sort()).collect()["item_id"]
    listed = read_records(game_file, _GAME_FIELDS, ("id",), max_malformed=max_malformed, only=(_ID, ids))
    items, added = _items(listed.frame), 0
    if unlisted == "keep":
        others = ids.to_frame("item_id").join(items, on="item_id", how="anti", maintain_order="left")
        items = pl.concat([items, others.with_columns(title=pl.format("Game {}", "item_id"))], how="diagonal")
        added = others.height
    report = read_report(
        source,
        [reviews.count, listed.count],
        used={"interactions": rows.lazy().select(pl.len()).collect().item(), "items": items.height},
        dropped=dropped,
        added=added,
        more=more,
    )
    tables = shared_aspects(prepare(items, rows, report=report, **{"unknown_items": "drop", **options}))
    return replace(tables, noun="games")


def _items(frame: pl.DataFrame) -> pl.DataFrame:
    """The items table; publisher and developer serve as what no aspect may name."""
    frame = frame.with_columns(
        clean_text("app_name"),
        clean_text("publisher"),
        *(pl.col(name).fill_null([]) for name in ("genres", "tags", "specs")),
        title=pl.coalesce("title", "app_name"),
        price=pl.when(pl.col("price").str.contains(r"^[\d.]+$")).then(pl.format("${}", "price")).otherwise("price"),
    )
    frame = frame.with_columns(clean_text("title"))
    return frame.select(
        "title",
        "genres",
        "tags",
        "specs",
        "price",
        "publisher",
        "developer",
        "release_date",
        item_id="id",
        text=labelled(
            Title="title",
            Genres=pl.col("genres").list.join(", "),
            Specs=pl.col("specs").list.join(", "),
            Tags=pl.col("tags").list.join(", "),
            Price="price",
            Publisher="publisher",
        ),
        aspects=as_aspects(frame.select("publisher", phrases=pl.concat_list("genres", "tags", "specs")), "publisher"),
    )


_REVIEWS = ("australian_user_reviews.json.gz", "australian_user_reviews.json")
_REVIEW_FIELDS = {
    "user_id": pl.String,
    "reviews": pl.List(
        pl.Struct({"item_id": pl.String, "posted": pl.String, "recommend": pl.Boolean, "review": pl.String})
    ),
}
_RECOMMENDED, _NOT_RECOMMENDED = 5.0, 1.0
_A_DAY = 86_400


def read_steam(
    path: str | Path,
    *,
    games: str | Path | None = None,
    undated: str = "drop",
    unlisted: str = "drop",
    max_malformed: float = 0.01,
    **options: object,
) -> Tables:
    """Tables from the review and games files.

    Args:
        path: the folder that holds both files, or the review file.
        games: the games file; by default `steam_games.json.gz` in the same folder.
        undated: reviews without a year: "drop" (their place in a history is unknown; the report counts them) or
            "last" (after the user's dated reviews, in file order: Steam leaves out the year of recent posts).
        unlisted: reviews of games that the games file lacks: "drop", or "keep" under the title "Game {id}".
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.
    """
    for name, value, choices in (("undated", undated, ("drop", "last")), ("unlisted", unlisted, ("drop", "keep"))):
        if value not in choices:
            raise ValueError(f"{name}={value!r} is not known; choose one of {list(choices)}.")
    review_file = find_file(path, _REVIEWS, "Steam reviews", _HOME)
    game_file = _find_games(games or review_file.parent)
    reviews = read_records(review_file, _REVIEW_FIELDS, ("user_id", "reviews"), max_malformed=max_malformed)
    silent = reviews.frame["reviews"].list.len().fill_null(0) == 0
    flat = reviews.frame.filter(~silent).explode("reviews")
    written = flat.drop_nulls("reviews").unnest("reviews")
    # "Posted November 5, 2011."; without a year there is no match and no time.
    day = pl.col("posted").str.extract(r"([A-Z][a-z]+ \d{1,2}, \d{4})")
    time = day.str.to_date("%B %d, %Y", strict=False).dt.epoch("s")
    readable = written.filter(day.is_null() | time.is_not_null())
    if undated == "last":
        time = time.fill_null(time.max() + _A_DAY)
    rating = pl.when("recommend").then(_RECOMMENDED).when(~pl.col("recommend")).then(_NOT_RECOMMENDED)
    rows = readable.select("user_id", "item_id", timestamp=time, rating=rating, review=clean_text("review"))
    return _tables(
        "steam",
        reviews,
        rows,
        game_file,
        unlisted,
        max_malformed,
        options,
        dropped={
            "users without reviews": int(silent.sum()),
            "reviews that are null": flat.height - written.height - reviews.count.entries,
            "reviews whose date cannot be read": written.height - readable.height,
        },
        more=flat.height + int(silent.sum()) - reviews.frame.height,
    )


_LARGER_REVIEWS = ("steam_reviews.json.gz", "steam_reviews.json", "steam_new.json.gz", "steam_new.json")
_LARGER_REVIEW_FIELDS = {
    "username": pl.String,
    "product_id": pl.String,
    "date": pl.String,
    "text": pl.String,
}


def read_steam_reviews(
    path: str | Path,
    *,
    games: str | Path | None = None,
    unlisted: str = "drop",
    max_malformed: float = 0.01,
    **options: object,
) -> Tables:
    """Tables from the review and games files.

    Args:
        path: the folder that holds both files, or the review file. On the way the reviews are put on disk as Parquet
            (TMPDIR says where), since they need not fit into memory.
        games: the games file; by default `steam_games.json.gz` in the same folder.
        unlisted: reviews of games that the games file lacks: "drop", or "keep" under the title "Game {id}".
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.
    """
    if unlisted not in ("drop", "keep"):
        raise ValueError(f"unlisted={unlisted!r} is not known; choose one of ['drop', 'keep'].")
    review_file = find_file(path, _LARGER_REVIEWS, "Steam reviews", _HOME)
    game_file = _find_games(games or review_file.parent)
    required = ("username", "product_id", "date")
    with TemporaryDirectory() as spool:
        reviews = read_records(
            review_file, _LARGER_REVIEW_FIELDS, required, max_malformed=max_malformed, spool=Path(spool)
        )
        time = pl.col("date").str.to_date("%Y-%m-%d", strict=False).dt.epoch("s")
        unread = time.is_null() & (pl.col("date").fill_null("").str.strip_chars() != "")
        rows = reviews.frame.filter(~unread).select(
            user_id="username", item_id="product_id", timestamp=time, review=clean_text("text")
        )
        unread = reviews.frame.select(unread.sum()).collect().item()
        dropped = {"reviews whose date cannot be read": unread}
        return _tables("steam-reviews", reviews, rows, game_file, unlisted, max_malformed, options, dropped=dropped)
