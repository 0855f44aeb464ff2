"""The games of the Steam releases: `steam_games.json.gz`, one Python literal a line, as the items of both of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from preference_benchmark.sources.files import find_file
from preference_benchmark.sources.item_text import as_aspects, clean_text, labelled
from preference_benchmark.sources.raw_lines import RawLines, read_records

__all__ = ["HOME", "find_games", "read_games"]

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
