"""MovieLens in each of its published forms gives the same tables, and tags of the future stay out of the texts."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import polars as pl
import pytest

from preference_benchmark.sources import read_source
from preference_benchmark.sources.movielens import _GENRES_100K

CORE = {"min_user": 3, "min_item": 3}
TITLES = ["Misérables, Les (1995)", "Heat (1995)", 'Movie, "The" (1999)', "M (1931)", "Fargo (1996)", "Ran (1985)"]
GENRES = [["Drama", "Musical"], ["Action"], ["Children's", "Comedy"], [], ["Crime", "Drama"], ["Drama", "War"]]
RATINGS = [(u, (u + n) % 6, 1 + (u + n) % 5, 978_300_000 + 100 * n) for u in range(1, 7) for n in range(5)]
# The second user's tags: the first movies of the history are the training period, the last two are not.
TAGS = [
    (1, 1, "Slow burn", 978_300_010),
    (6, 1, "slow burn", 978_300_110),
    (1, 2, "odd", 978_300_120),
    (1, 2, "witty", 978_999_999),
    (1, 4, "secret", 978_300_310),
    (2, 0, "secret", 978_300_410),
    (5, 3, "secret", 978_300_410),
    (6, 4, "secret", 978_300_410),
    (3, 99, "unrated", 978_300_000),
]


def hundred_k(folder: Path) -> None:
    (folder / "u.data").write_text("".join(f"{u}\t{i + 1}\t{r}\t{t}\n" for u, i, r, t in RATINGS))
    rows = []
    for number, (title, genres) in enumerate(zip(TITLES, GENRES, strict=True)):
        flags = "|".join(str(int(genre in genres or (not genres and genre == "unknown"))) for genre in _GENRES_100K)
        rows.append(f"{number + 1}|{title}|01-Jan-1995||http://us.imdb.com/M/title-exact?x%20({number})|{flags}\n")
    (folder / "u.item").write_bytes("".join(rows).encode("latin-1"))
    (folder / "u.user").write_text("1|24|M|technician|85711\n")


def one_m(folder: Path, encoding: str = "latin-1") -> None:
    (folder / "ratings.dat").write_text("".join(f"{u}::{i + 1}::{r}::{t}\n" for u, i, r, t in RATINGS))
    rows = (
        f"{number + 1}::{title}::{'|'.join(genres) or '(no genres listed)'}\r\n"
        for number, (title, genres) in enumerate(zip(TITLES, GENRES, strict=True))
    )
    (folder / "movies.dat").write_bytes("".join(rows).encode(encoding))


def ten_m(folder: Path) -> None:
    one_m(folder, "utf-8")
    (folder / "tags.dat").write_text("".join(f"{u}::{i + 1}::{tag}::{t}\n" for u, i, tag, t in TAGS))


def latest(folder: Path) -> None:
    rows = [("userId", "movieId", "rating", "timestamp"), *((u, i + 1, float(r), t) for u, i, r, t in RATINGS)]
    pl.DataFrame(rows[1:], schema=list(rows[0]), orient="row").write_csv(folder / "ratings.csv")
    pl.DataFrame(
        {
            "movieId": range(1, 7),
            "title": TITLES,
            "genres": ["|".join(genres) or "(no genres listed)" for genres in GENRES],
        }
    ).write_csv(folder / "movies.csv")
    pl.DataFrame(
        [(u, i + 1, tag, t) for u, i, tag, t in TAGS], schema=["userId", "movieId", "tag", "timestamp"], orient="row"
    ).write_csv(folder / "tags.csv")
    (folder / "links.csv").write_text("movieId,imdbId,tmdbId\n1,2,3\n")


FORMS = {"ml-100k": hundred_k, "ml-1m": one_m, "ml-10m": ten_m, "ml-latest-small": latest}


def release(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    FORMS[name](folder)
    return folder


@pytest.mark.parametrize("name", sorted(FORMS))
def test_every_form_gives_the_same_histories_and_movies(tmp_path, name):
    tables = read_source("movielens", release(tmp_path, name), **CORE)
    rows, items = tables.interactions, tables.items
    assert items["title"].to_list() == TITLES
    assert items["genres"].to_list() == GENRES
    assert items["year"].to_list() == [1995, 1995, 1999, 1931, 1996, 1985]
    assert items["text"][0].startswith("Title: Misérables, Les (1995). Genres: Drama, Musical")
    assert items["text"][3].startswith("Title: M (1931)")
    expected = [(str(u), str(i + 1), float(r), t) for u, i, r, t in sorted(RATINGS, key=lambda row: (row[0], row[3]))]
    assert rows.select("user_id", "item_id", "rating", "timestamp").rows() == expected
    assert not tables.report.malformed
    assert (rows["review"] != "").any() == (name in ("ml-10m", "ml-latest-small"))


@pytest.mark.parametrize("name", ["ml-10m", "ml-latest-small"])
def test_tags_are_reviews_and_describe_movies_in_the_training_period_alone(tmp_path, name):
    tables = read_source("movielens", release(tmp_path, name), **CORE)
    review = {(u, i): text for u, i, text in tables.interactions.select("user_id", "item_id", "review").rows()}
    assert review["1", "3"] == "odd. witty"
    assert review["1", "5"] == review["2", "1"] == "secret"  # the review of a target stays a review
    items = {row["item_id"]: row for row in tables.items.iter_rows(named=True)}
    assert items["2"]["tags"] == ["slow burn"] and items["2"]["text"].endswith("Genres: Action. Tags: slow burn")
    assert items["3"]["tags"] == []  # one user's word
    assert not any("secret" in text for text in tables.items["text"])  # said about movies to be predicted
    report = tables.report
    assert report.dropped["tags of movies that their user did not rate"] == 1
    assert report.notes["ratings whose tags were given more than a day later"] == 1
    assert report.used == {"interactions": 30, "items": 6, "tags": 8} and report.lines == 30 + 6 + 9


@pytest.mark.parametrize("name", sorted(FORMS))
def test_archives_are_read_as_they_are_downloaded(tmp_path, name):
    folder = release(tmp_path, name)
    expected = read_source("movielens", folder, **CORE)
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"{name}/{file.name}")
    shutil.copytree(folder, packed / name)  # unpacked beside the archive: still one release
    marker = next(file for file in folder.iterdir() if file.name in ("u.data", "ratings.dat", "ratings.csv"))
    for path in (packed, packed / f"{name}.zip", marker):
        tables = read_source("movielens", path, **CORE)
        assert tables.items.equals(expected.items) and tables.interactions.equals(expected.interactions)
    other = tmp_path / "both"
    for copy in ("ml-1m", "ml-20m"):
        shutil.copytree(folder, other / copy)
    with pytest.raises(ValueError, match=r"more than once: \['ml-1m', 'ml-20m'\]; pass the path"):
        read_source("movielens", other)


def test_half_stars_become_one_and_are_counted(tmp_path):
    folder = release(tmp_path, "ml-latest-small")
    text = (folder / "ratings.csv").read_text()
    (folder / "ratings.csv").write_text(text.replace(",1.0,", ",0.5,"))
    tables = read_source("movielens", folder, **CORE)
    assert tables.interactions["rating"].min() == 1
    assert tables.report.notes["ratings of half a star, taken as one"] == text.count(",1.0,")


def test_malformed_lines_are_counted_and_too_many_are_refused(tmp_path):
    folder = release(tmp_path, "ml-1m")
    with (folder / "ratings.dat").open("ab") as stream:
        stream.write(b"7::1::3\n\n7::1::three::978300000\n7::\xff\xfe::3::978300000\n")
    with pytest.raises(
        ValueError,
        match=r"2 of 33 lines .*ratings\.dat.*too few fields .*\[31\].*rating is not a number.*\[33\].*4 fields .*'::'",
    ):
        read_source("movielens", folder)
    tables = read_source("movielens", folder, max_malformed=0.2, **CORE)
    assert tables.report.malformed == {
        "rows with too few fields": 1,
        "rows whose rating is not a number that makes sense": 1,
    }
    assert tables.report.examples["rows with too few fields"] == ("ratings.dat:31",)


def test_what_is_missing_is_named(tmp_path):
    folder = release(tmp_path, "ml-1m")
    (folder / "movies.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"ratings\.dat but no movies\.dat.*grouplens"):
        read_source("movielens", folder)
    folder = release(tmp_path, "ml-latest-small")
    (folder / "ratings.csv").write_text("user,movieId,rating\n1,1,3\n")
    with pytest.raises(ValueError, match=r"ratings\.csv lacks the columns \['userId', 'timestamp'\]; found \['user', "):
        read_source("movielens", folder)
    (folder / "ratings.csv").write_bytes(b"userId,movieId,rating,timestamp\n1,1,3,978300000\n1,\xe9,3,978300000\n")
    with pytest.raises(ValueError, match=r"line 3 of .*ratings\.csv is not utf-8 \(byte 0xe9\).*iconv"):
        read_source("movielens", folder)
    cut = tmp_path / "ml-25m.zip"
    cut.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"ml-25m\.zip is a damaged archive.*download it again"):
        read_source("movielens", cut)
