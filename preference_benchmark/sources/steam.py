"""The Steam review release (Kang & McAuley 2018; Pathak et al. 2017): Australian users and the games they rate.

`australian_user_reviews.json.gz` holds one user a line with all their reviews, `steam_games.json.gz` one game a
line, both as Python literals. A review says whether the user recommends the game, and on which day it was
posted; posts of the year in which the pages were collected carry no year, or no date at all. The larger review file
of the same release is read by `steam_reviews`.

The games of the Steam releases: `steam_games.json.gz`, one Python literal a line, as the items of both of them.

The larger Steam review release (Kang & McAuley 2018): `steam_reviews.json.gz`, which unpacks to `steam_new.json`.

One review a line, as Python literals: username, product_id, date, text, hours. Users are told apart by name, as in
all published counts (some lines have an account number as well). There is no recommendation: what a review thinks of
the game has to be read from its text.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from preference_benchmark.sources.item_text import as_aspects, clean_text, shared_aspects
from preference_benchmark.sources.raw_files import find_file
from preference_benchmark.sources.raw_lines import RawLines, read_records
from preference_benchmark.tables import ReadReport, Tables, labelled, prepare

__all__ = [
    "HOME",
    "find_games",
    "read_games",
    "read_steam",
    "read_steam_reviews",
]


HOME = "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data"
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


def find_games(path: str | Path) -> Path:
    """The games file itself, or in this folder."""
    return find_file(path, _GAMES, "Steam games", HOME)


def read_games(file: Path, ids: pl.Series, unlisted: str, max_malformed: float) -> tuple[RawLines, pl.DataFrame]:
    """The games file and the items it describes.

    Args:
        file: the games file.
        ids: ids of the games that were reviewed; others are skipped.
        unlisted: "drop", or "keep": games that the file lacks become items under the title "Game {id}".
        max_malformed: share of malformed lines above which the file is refused.
    """
    raw = read_records(file, _GAME_FIELDS, ("id",), max_malformed=max_malformed, only=(_ID, ids))
    items = _items(raw.frame)
    if unlisted == "keep":
        others = ids.unique(maintain_order=True).to_frame("item_id").join(items, on="item_id", how="anti")
        items = pl.concat([items, others.with_columns(title=pl.format("Game {}", "item_id"))], how="diagonal")
    return raw, items


def _items(frame: pl.DataFrame) -> pl.DataFrame:
    """The items table; publisher and developer serve as what no aspect may name."""
    frame = frame.drop_nulls("id").with_columns(
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
    review_file = find_file(path, _REVIEWS, "Steam reviews", HOME)
    game_file = find_games(games or review_file.parent)
    reviews = read_records(review_file, _REVIEW_FIELDS, ("user_id", "reviews"), max_malformed=max_malformed)
    rows = _interactions(reviews.frame)
    if undated == "last":
        after_all = pl.col("timestamp").max() + 86_400
        rows = rows.with_columns(pl.col("timestamp").fill_null(after_all))
    ids = rows["item_id"].unique()
    listed, items = read_games(game_file, ids, unlisted, max_malformed)
    report = ReadReport(
        source="steam",
        files=(review_file.name, game_file.name),
        lines=reviews.lines + listed.lines,
        malformed=reviews.malformed + listed.malformed,
        malformed_lines=reviews.malformed_lines + listed.malformed_lines,
    )
    return shared_aspects(prepare(items, rows, report=report, **{"unknown_items": "drop", **options}))


def _interactions(users: pl.DataFrame) -> pl.DataFrame:
    """One row per review, in file order."""
    flat = users.drop_nulls("user_id").explode("reviews").unnest("reviews").drop_nulls("item_id")
    # "Posted November 5, 2011."; without a year there is no match and no time.
    day = pl.col("posted").str.extract(r"([A-Z][a-z]+ \d{1,2}, \d{4})").str.to_date("%B %d, %Y", strict=False)
    rating = pl.when("recommend").then(_RECOMMENDED).when(~pl.col("recommend")).then(_NOT_RECOMMENDED)
    return flat.select("user_id", "item_id", timestamp=day.dt.epoch("s"), rating=rating, review=clean_text("review"))


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
    review_file = find_file(path, _LARGER_REVIEWS, "Steam reviews", HOME)
    game_file = find_games(games or review_file.parent)
    required = ("username", "product_id", "date")
    with TemporaryDirectory() as spool:
        reviews = read_records(
            review_file, _LARGER_REVIEW_FIELDS, required, max_malformed=max_malformed, spool=Path(spool)
        )
        rows = reviews.frame.drop_nulls(["username", "product_id"]).select(
            user_id="username",
            item_id="product_id",
            timestamp=pl.col("date").str.to_date("%Y-%m-%d", strict=False).dt.epoch("s"),
            review=clean_text("text"),
        )
        total, with_ids = (part.select(pl.len()).collect().item() for part in (reviews.frame, rows))
        ids = rows.select(pl.col("item_id").unique().sort()).collect()["item_id"]
        listed, items = read_games(game_file, ids, unlisted, max_malformed)
        report = ReadReport(
            source="steam-reviews",
            files=(review_file.name, game_file.name),
            lines=reviews.lines + listed.lines,
            malformed=reviews.malformed + listed.malformed,
            malformed_lines=reviews.malformed_lines + listed.malformed_lines,
            dropped={"reviews without a user or game": total - with_ids},
        )
        return shared_aspects(prepare(items, rows, report=report, **{"unknown_items": "drop", **options}))
