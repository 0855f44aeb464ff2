"""The Yelp release, unpacked and in its archive: businesses become items that people can ask for."""

from __future__ import annotations

import gzip
import json
import tarfile
from datetime import date
from pathlib import Path

import pytest

from preference_benchmark.sources import read_source

CORE = {"min_user": 3, "min_item": 3}
REVIEWS = [
    {
        "review_id": f"r{user}-{step}",
        "user_id": f"u_{user}",
        "business_id": f"b-{(user + step) % 6}_A",
        "stars": 1.0 + (user + step) % 5,
        "useful": 0,
        "funny": 0,
        "cool": 0,
        "text": f"Nice\n\nplace {user} &amp; caf\u00e9.",
        "date": f"2019-0{1 + step}-07 22:09:1{user}",
    }
    for user in range(6)
    for step in range(5)
]
ATTRIBUTES = {
    "WiFi": "u'free'",
    "GoodForKids": "True",
    "HasTV": "False",
    "RestaurantsTakeOut": "True",
    "RestaurantsPriceRange2": "2",
    "NoiseLevel": "'quiet'",
    "Alcohol": "u'none'",
    "Ambience": "{'romantic': False, 'casual': True, u'classy': True}",
    "Music": "{'dj': False}",
    "BusinessAcceptsCreditCards": "True",
    "Smoking": "None",
}
BUSINESSES = [
    {
        "business_id": f"b-{n}_A",
        "name": f"Diner {n}",
        "address": "",
        "city": "Reno",
        "state": "NV",
        "postal_code": "89501",
        "latitude": 1.5,
        "longitude": -2.5,
        "stars": 4.5,
        "review_count": 7,
        "is_open": 1,
        "attributes": ATTRIBUTES if n % 2 else None,
        "categories": "Burgers, Fast Food, Restaurants" if n % 3 else None,
        "hours": {"Monday": "0:0-0:0"},
    }
    for n in range(6)
]


def lines(records: list[dict]) -> bytes:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "yelp"
    folder.mkdir()
    (folder / "yelp_academic_dataset_review.json").write_bytes(lines(REVIEWS))
    (folder / "yelp_academic_dataset_business.json").write_bytes(lines(BUSINESSES))
    return folder


def test_attributes_become_phrases_and_what_is_absent_does_not(folder):
    tables = read_source("yelp", folder, **CORE)
    items = {row["item_id"]: row for row in tables.items.iter_rows(named=True)}
    one = items["b-1_A"]
    assert one["attributes"] == [
        "wifi free",
        "good for kids",
        "take out",
        "noise level quiet",
        "ambience casual",
        "ambience classy",
    ]
    assert one["categories"] == ["Burgers", "Fast Food", "Restaurants"]
    assert one["text"].startswith("Title: Diner 1. Categories: Burgers, Fast Food, Restaurants. Attributes: wifi free,")
    assert one["text"].endswith("Place: Reno, NV")
    assert "4.5" not in one["text"]  # an average over all reviews would tell of those to be predicted
    assert "wifi free" in one["aspects"] and "wifi free" not in items["b-2_A"]["aspects"]
    assert items["b-0_A"]["text"] == "Title: Diner 0. Place: Reno, NV"
    first = tables.interactions.row(0, named=True)
    assert first["review"] == "Nice place 0 & café."
    assert (first["rating"], first["timestamp"]) == (1.0, 1_546_898_950)


def test_the_archive_and_compressed_files_are_read_like_the_unpacked_ones(folder, tmp_path):
    expected = read_source("yelp", folder, **CORE)
    given, packed = tmp_path / "given", tmp_path / "packed"
    given.mkdir()
    packed.mkdir()
    with tarfile.open(given / "yelp_dataset.tar", "w") as archive:
        for file in folder.iterdir():
            archive.add(file, file.name)
            (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        archive.add(folder / "yelp_academic_dataset_review.json", "._yelp_academic_dataset_review.json")
    for path in (given, given / "yelp_dataset.tar", packed, folder / "yelp_academic_dataset_review.json"):
        tables = read_source("yelp", path, **CORE)
        assert tables.items.equals(expected.items) and tables.interactions.equals(expected.interactions)
    (given / "yelp_dataset.tar").write_bytes((given / "yelp_dataset.tar").read_bytes()[:700])
    with pytest.raises(ValueError, match=r"yelp_dataset\.tar.*damaged archive.*download it again"):
        read_source("yelp", given)


def test_a_period_is_taken_with_both_of_its_ends(folder):
    period = {"since": date(2019, 2, 7), "until": "2019-04-07"}
    tables = read_source("yelp", folder, **period, **CORE)
    assert tables.interactions.height == 18
    assert tables.report.dropped["reviews outside the period"] == 12
    with pytest.raises(ValueError, match=r"between since=2020-01-01 and until=None; they run from 2019-01-07"):
        read_source("yelp", folder, since=date(2020, 1, 1))
    with pytest.raises(ValueError, match=r"since=2020-01-01 lies after until=2019"):
        read_source("yelp", folder, since=date(2020, 1, 1), until=date(2019, 1, 1))


def test_missing_businesses_are_asked_for(folder):
    (folder / "yelp_academic_dataset_business.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no businesses: expected .*_business\.json beside them; found"):
        read_source("yelp", folder)
