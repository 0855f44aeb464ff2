"""The larger Steam review release (Kang & McAuley 2018): `steam_reviews.json.gz`, which unpacks to `steam_new.json`.

One review a line, as Python literals: username, product_id, date, text, hours. Users are told apart by name, as in
all published counts (some lines have an account number as well). There is no recommendation: what a review thinks of
the game has to be read from its text.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from preference_benchmark.sources.files import find_file
from preference_benchmark.sources.item_text import clean_text, shared_aspects
from preference_benchmark.sources.raw_lines import read_records
from preference_benchmark.sources.steam_games import HOME, find_games, read_games
from preference_benchmark.tables import ReadReport, Tables, prepare

__all__ = ["read_steam_reviews"]

_REVIEWS = ("steam_reviews.json.gz", "steam_reviews.json", "steam_new.json.gz", "steam_new.json")
_REVIEW_FIELDS = {
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
    review_file = find_file(path, _REVIEWS, "Steam reviews", HOME)
    game_file = find_games(games or review_file.parent)
    required = ("username", "product_id", "date")
    with TemporaryDirectory() as spool:
        reviews = read_records(review_file, _REVIEW_FIELDS, required, max_malformed=max_malformed, spool=Path(spool))
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
