"""Steam files: literal lines, dates with and without a year, games that are not listed."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from preference_benchmark.sources import read_source

USERS, GAMES = 6, 8
MONTHS = ("January", "February", "March", "April", "May", "June", "July")


def write(folder: Path, listed: int = GAMES - 1, undated: int = 0) -> Path:
    """Every user reviews every game, the later games earlier; the first `undated` reviews lack a year."""
    users = []
    for user in range(USERS):
        posted = [f"Posted {MONTHS[6 - n]} 9, 2014." if n < 7 else "Posted December 24, 2013." for n in range(GAMES)]
        posted[:undated] = ["Posted June 3.", ""][:undated]
        reviews = [
            {"item_id": str(n), "posted": posted[n], "recommend": n != user, "helpful": "No ratings yet"}
            for n in range(GAMES)
        ]
        users.append({"user_id": f"u{user}", "reviews": reviews})
    games = [
        {
            "id": str(n),
            "app_name": f"Game &amp; Fun {n}",
            "publisher": "Loudsoft",
            "genres": ["Action", "Indie"] if n % 2 else ["Puzzle"],
            "tags": ["Action", "Loudsoft Classics"],
            "specs": ["Co-op"],
            "price": 4.99 if n else "Free To Play",
        }
        for n in range(listed)
    ] + [{"url": "no id"}]
    for name, rows in (("australian_user_reviews", users), ("steam_games", games)):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress("\n".join(map(repr, rows)).encode()))
    return folder


def histories(tables) -> list[list[str]]:
    return tables.interactions.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()


def test_reviews_become_dated_rated_interactions(tmp_path):
    tables = read_source("steam", write(tmp_path))
    assert histories(tables) == [["6", "5", "4", "3", "2", "1", "0"]] * USERS
    first = tables.interactions.filter(pl.col("user_id") == "u0")
    assert first["rating"].to_list() == [5.0] * 6 + [1.0]
    assert first["timestamp"][0] == 1_389_225_600  # 9 January 2014
    assert tables.report.dropped["interactions with items that the items table lacks"] == USERS


def test_games_are_described_in_the_published_order_without_publishers_among_the_aspects(tmp_path):
    items = read_source("steam", write(tmp_path)).items
    assert items["title"][1] == "Game & Fun 1"
    assert items["text"][1] == (
        "Title: Game & Fun 1. Genres: Action, Indie. Specs: Co-op. Tags: Action, Loudsoft Classics. "
        "Price: $4.99. Publisher: Loudsoft"
    )
    assert "Price: Free To Play" in items["text"][0]
    # "action" and "co-op" belong to all games and tell nothing about one.
    assert items["aspects"][:2].to_list() == [["puzzle"], ["indie"]]


def test_unlisted_games_are_kept_on_request(tmp_path):
    tables = read_source("steam", write(tmp_path), unlisted="keep")
    assert tables.items["title"][7] == "Game 7"
    assert histories(tables) == [["7", "6", "5", "4", "3", "2", "1", "0"]] * USERS


def test_undated_reviews_are_dropped_or_come_last_in_file_order(tmp_path):
    folder = write(tmp_path, undated=2)
    tables = read_source("steam", folder)
    assert histories(tables) == [["6", "5", "4", "3", "2"]] * USERS
    assert tables.report.dropped["interactions without a timestamp"] == 2 * USERS
    assert histories(read_source("steam", folder, undated="last")) == [["6", "5", "4", "3", "2", "0", "1"]] * USERS


def test_choices_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"undated='first' is not known; choose one of \['drop', 'last'\]"):
        read_source("steam", write(tmp_path), undated="first")


def test_a_missing_games_file_is_named(tmp_path):
    (write(tmp_path) / "steam_games.json.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"Steam games in .*steam_games.json.gz or steam_games.json"):
        read_source("steam", tmp_path)
