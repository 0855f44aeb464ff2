"""The Steam review release (Kang & McAuley 2018; Pathak et al. 2017): Australian users and the games they rate.

`australian_user_reviews.json.gz` holds one user a line with all their reviews, `steam_games.json.gz` one game a
line, both as Python literals. A review says whether the user recommends the game, and on which day it was
posted; posts of the year in which the pages were collected carry no year, or no date at all. The larger review file
of the same release is read by `steam_reviews`.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from preference_benchmark.sources.files import find_file
from preference_benchmark.sources.item_text import clean_text, shared_aspects
from preference_benchmark.sources.raw_lines import read_records
from preference_benchmark.sources.steam_games import HOME, find_games, read_games
from preference_benchmark.tables import ReadReport, Tables, prepare

__all__ = ["read_steam"]

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
