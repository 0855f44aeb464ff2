"""The 2023 release: every published form gives the same tables; milliseconds and parents are what they are."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from preference_benchmark.sources import read_source

NAMES = "drum bow reed mute case string pick stand".split()
CORE = {"min_user": 3, "min_item": 3}


def review(user: int, item: int, day: int) -> dict:
    return {
        "rating": 1.0 + (user + item) % 5,
        "title": f"A {NAMES[item]} &amp; more",
        "text": f"The {NAMES[item]} is<br />velvet number {user}.",
        "images": [],
        "asin": f"V{item}{user % 2}",
        "parent_asin": f"B{item:03d}",
        "user_id": f"U{user}",
        "timestamp": 1_588_687_728_923 + day * 86_400_000,
        "helpful_vote": 0,
        "verified_purchase": True,
    }


REVIEWS = [review(user, (user + step) % 8, step) for user in range(8) for step in range(6)]
METADATA = [
    {
        "main_category": "Musical Instruments",
        "title": f"Brand{n % 2} {name.title()}",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": ["Hand made", "x" * 200],
        "description": [],
        "price": [9.99, None, "from 3"][n % 3],
        "images": [{"thumb": "t", "large": "l", "variant": "MAIN", "hi_res": None}],
        "videos": [],
        "store": f"Brand{n % 2}",
        "categories": ["Musical Instruments", ["Brass", "Strings"][n % 2]],
        "details": {"Material": ["Maple", "Ebony"][n % 2], "UPC": f"{n}", "Color": ""},
        "parent_asin": f"B{n:03d}",
        "bought_together": None,
    }
    for n, name in enumerate(NAMES)
]


def write(path: Path, records: list[dict]) -> None:
    data = "\n".join(json.dumps(record) for record in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def as_parquet(folder: Path, records: list[dict], parts: int = 2) -> None:
    """As on the Hub: in parts, details and price as text."""
    folder.mkdir(parents=True)
    as_text = {"details": json.dumps, "price": str}
    rows = [record | {name: as_text[name](record[name]) for name in as_text if name in record} for record in records]
    size = -(-len(rows) // parts)
    for part in range(parts):
        frame = pl.from_dicts(rows[part * size : (part + 1) * size], infer_schema_length=None)
        frame.write_parquet(folder / f"full-{part:05d}-of-{parts:05d}.parquet")


@pytest.fixture
def jsonl(tmp_path) -> Path:
    folder = tmp_path / "jsonl"
    folder.mkdir()
    write(folder / "Musical_Instruments.jsonl.gz", REVIEWS)
    write(folder / "meta_Musical_Instruments.jsonl.gz", METADATA)
    return folder


def test_items_are_parents_and_times_are_seconds(jsonl):
    tables = read_source("amazon2023", jsonl, **CORE)
    rows, items = tables.interactions, tables.items
    assert items["item_id"].to_list() == [f"B{n:03d}" for n in range(8)]
    assert (rows.height, rows["timestamp"].min()) == (48, 1_588_687_728)
    assert rows["review"][0] == "A drum & more. The drum is velvet number 0."
    first = items.row(0, named=True)
    assert first["text"].startswith("Title: Brand0 Drum. Price: $9.99. Brand: Brand0. Categories: Musical")
    assert first["text"].endswith("Details: Maple")
    assert items["price"].to_list()[:3] == ["$9.99", None, None]
    assert first["aspects"] == ["brass", "maple"]  # shared by some items, not by all
    assert "4.8" not in first["text"]  # an average over all reviews would tell of those to be predicted
    assert tables.report.files == ("Musical_Instruments.jsonl.gz", "meta_Musical_Instruments.jsonl.gz")
    assert tables.report.lines == 56


def test_every_published_form_gives_the_same_tables(jsonl, tmp_path):
    expected = read_source("amazon2023", jsonl, **CORE)
    hub = tmp_path / "hub"
    as_parquet(hub / "raw_review_Musical_Instruments", REVIEWS)
    as_parquet(hub / "raw_meta_Musical_Instruments", METADATA)
    single = tmp_path / "single"
    single.mkdir()
    pl.read_parquet(hub / "raw_review_Musical_Instruments").write_parquet(single / "Musical_Instruments.parquet")
    shutil.copy(jsonl / "meta_Musical_Instruments.jsonl.gz", single)
    for path in (hub, hub / "raw_review_Musical_Instruments", single):
        tables = read_source("amazon2023", path, **CORE)
        assert tables.items.equals(expected.items)
        assert tables.interactions.equals(expected.interactions)
        assert tables.report.lines == 56


def test_without_metadata_items_are_described_by_the_training_period(jsonl, tmp_path):
    (jsonl / "meta_Musical_Instruments.jsonl.gz").unlink()
    as_parquet(tmp_path / "raw_review_Musical_Instruments", REVIEWS)
    tables = read_source("amazon2023", jsonl, **CORE)
    assert tables.report.notes["items titled in their reviewers' words"] == 8
    same = read_source("amazon2023", tmp_path, **CORE)
    assert same.items.equals(tables.items) and same.interactions.equals(tables.interactions)


@pytest.mark.parametrize(
    ("divide", "message"),
    [
        (
            lambda n: n % 4 == 0,
            r"'timestamp' of .* mixes units: row 0 holds 1588687728, 1970-01-19 .*; 12 rows are like",
        ),
        (
            lambda n: True,
            r"is not in milliseconds: row 0 holds 1588687728, 1970-01-19 in milliseconds; .*multiply",
        ),
    ],
)
def test_times_of_another_unit_are_refused(tmp_path, divide, message):
    rows = [r | {"timestamp": r["timestamp"] // 1000 if divide(n) else r["timestamp"]} for n, r in enumerate(REVIEWS)]
    write(tmp_path / "Musical_Instruments.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        read_source("amazon2023", tmp_path)


@pytest.mark.parametrize("parquet", [False, True])
def test_metadata_of_another_category_are_refused(tmp_path, parquet):
    other = [record | {"parent_asin": f"X{n}"} for n, record in enumerate(METADATA)]
    if parquet:
        as_parquet(tmp_path / "raw_review_Toys", REVIEWS)
        as_parquet(tmp_path / "raw_meta_Toys", other)
    else:
        write(tmp_path / "Toys.jsonl", REVIEWS)
        write(tmp_path / "meta_Toys.jsonl", other)
    with pytest.raises(ValueError, match=r"meta_Toys.*another category"):
        read_source("amazon2023", tmp_path, **CORE)


def test_parquet_of_something_else_names_its_columns(tmp_path):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "Toys.parquet")
    with pytest.raises(ValueError, match=r"Toys.parquet lacks the columns \['user_id', .*found \['a'\]"):
        read_source("amazon2023", tmp_path)
    (tmp_path / "Toys.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=r"Toys.parquet cannot be read as Parquet"):
        read_source("amazon2023", tmp_path)


def test_several_categories_must_be_told_apart(tmp_path):
    for category in ("Toys", "Beauty"):
        as_parquet(tmp_path / f"raw_review_{category}", REVIEWS)
    with pytest.raises(ValueError, match=r"several categories: \['raw_review_Beauty', 'raw_review_Toys'\]"):
        read_source("amazon2023", tmp_path)
