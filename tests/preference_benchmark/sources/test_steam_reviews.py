"""The larger Steam release: one review a line, as Python 2 wrote them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from preference_benchmark.sources import read_source

CORE = {"min_user": 3, "min_item": 3}


def line(user: int, game: int, day: int, text: str = r"u'So \xe9pic\u2026 it\'s \"fun\"'") -> str:
    return (
        f"{{u'username': u'Chaos \\xdcser {user}', u'hours': 0.1, u'products': 41, u'product_id': u'{725_280 + game}', "
        f"u'page_order': 0, u'date': u'2017-12-{day + 1:02d}', u'text': {text}, u'early_access': False, u'page': 1"
        + (", u'user_id': u'76561198'" if user % 2 else "")
        + "}"
    )


def game(number: int) -> str:
    genre = ["Indie", "Action"][number % 2]
    return (
        f"{{u'publisher': u'Kotoshiro', u'genres': [u'{genre}'], u'app_name': u'Lost {number}', u'title': u'Lost "
        f"{number}', u'tags': [u'{genre}', u'Simulation'], u'specs': [u'Single-player'], "
        f"u'price': 4.99, u'early_access': False, u'id': u'{725_280 + number}', u'developer': u'K'}}"
    )


def write(folder: Path, lines: list[str], name: str = "steam_reviews.json.gz") -> Path:
    data = "\n".join(lines).encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    games = "\n".join(game(number) for number in range(6)).encode()
    (folder / "steam_games.json.gz").write_bytes(gzip.compress(games))
    return folder


LINES = [line(user, (user + step) % 6, step) for user in range(12) for step in range(5)]


@pytest.mark.parametrize("name", ["steam_reviews.json.gz", "steam_new.json"])
def test_names_dates_and_texts_are_read_as_python_means_them(tmp_path, name):
    tables = read_source("steam-reviews", write(tmp_path, LINES, name), **CORE)
    rows = tables.interactions
    assert (rows.height, rows["user_id"].n_unique(), rows["rating"].null_count()) == (60, 12, 60)
    assert rows["user_id"][0] == "Chaos Üser 0"
    assert rows["review"][0] == 'So épic… it\'s "fun"'
    assert rows["timestamp"][0] == 1_512_086_400
    assert tables.items["title"][0] == "Lost 0"
    assert tables.items["text"][0].startswith("Title: Lost 0. Genres: Indie. Specs: Single-player. Tags: Indie, Sim")
    assert tables.items["price"][0] == "$4.99"


def test_what_lacks_a_user_a_date_or_a_game_is_counted(tmp_path):
    odd = [
        LINES[0].replace("u'username'", "u'nickname'"),
        line(1, 0, 0).replace("2017-12-01", "yesterday"),
        line(2, 77, 0),
        "{u'username': broken}",
    ]
    folder = write(tmp_path, LINES + odd)
    tables = read_source("steam-reviews", folder, max_malformed=0.1, **CORE)
    assert tables.report.dropped["interactions without a user id"] == 1
    assert tables.report.dropped["reviews whose date cannot be read"] == 1
    assert tables.report.dropped["interactions with items that the items table lacks"] == 1
    assert tables.report.examples["lines that are not records"] == ("steam_reviews.json.gz:64",)
    kept = read_source("steam-reviews", folder, max_malformed=0.1, unlisted="keep", min_user=1, min_item=1)
    assert kept.items.filter(item_id="725357")["title"].item() == "Game 725357"


def test_choices_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unlisted='ask' is not known; choose one of \['drop', 'keep'\]"):
        read_source("steam-reviews", write(tmp_path, LINES), unlisted="ask")
