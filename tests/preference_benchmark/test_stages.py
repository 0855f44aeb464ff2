"""Stages are there as a whole or not at all, and what they depend on counts: files, options and code."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import polars as pl
import pytest

import preference_benchmark
from preference_benchmark import stages
from preference_benchmark.building import CODE
from preference_benchmark.sources import SOURCES
from preference_benchmark.stages import (
    READING_CODE,
    Stages,
    digest_of_code,
    digest_of_contents,
    digest_of_inputs,
    input_files,
    write_atomically,
)

FRAME = pl.DataFrame({"a": [1, 2]})


def test_a_stage_is_made_once_and_read_from_then_on(tmp_path):
    seen, made = [], []

    def build():
        made.append(1)
        return FRAME

    for _ in range(2):
        store = Stages(tmp_path, lambda name, found: seen.append(found))
        assert store.frame("numbers", "key", build).equals(FRAME)
    assert (seen, len(made)) == ([False, True], 1)
    assert Stages(tmp_path).frame("numbers", "other", build).equals(FRAME) and len(made) == 2


def test_an_error_leaves_no_stage(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        Stages(tmp_path).path("numbers", "key", fail)
    assert list(tmp_path.iterdir()) == []


def test_pruning_keeps_what_was_used(tmp_path):
    old = Stages(tmp_path)
    old.frame("numbers", "old", lambda: FRAME)
    (tmp_path / ".unfinished-killed").mkdir()
    new = Stages(tmp_path)
    new.frame("numbers", "new", lambda: FRAME)
    new.prune()
    assert [path.name for path in tmp_path.iterdir()] == ["numbers-new"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["README.md"] and path.read_bytes() == b"old"


def test_code_digests_tell_modules_apart():
    assert digest_of_code("axes") != digest_of_code("axes/steering")
    assert digest_of_code("sources") == digest_of_code("sources")


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


LAYOUTS = [
    # reader, what it is given, options, files that it may look at, and other files
    (
        "amazon2014",
        "raw/reviews_Beauty_5.json.gz",
        {"metadata": "other/meta.json"},
        ["raw/reviews_Beauty_5.json.gz", "raw/meta_Beauty.json.gz", "other/meta.json"],
        ["raw/sub/reviews_Toys_5.json.gz", "other/more.json", "raw/README.md"],
    ),
    ("amazon2018", "raw", {}, ["raw/Books_5.json.gz", "raw/meta_Books.json.gz"], ["raw/old/Books_5.json.gz"]),
    (
        "amazon2023",
        "raw",
        {},
        ["raw/raw_review_Books/0.parquet", "raw/raw_review_Books/a/1.parquet", "raw/raw_meta_Books/0.parquet"],
        ["raw/5core/Books.parquet"],
    ),
    (
        "amazon2023",
        "raw/raw_review_Books",
        {},
        ["raw/raw_review_Books/full-0.parquet", "raw/raw_meta_Books/a/0.parquet"],
        ["raw/raw_meta_Toys/0.parquet", "raw/raw_review_Toys/0.parquet"],
    ),
    (
        "amazon2023",
        "raw/Books.jsonl.gz",
        {"metadata": "about"},
        ["raw/Books.jsonl.gz", "raw/meta_Books.jsonl.gz", "about/a/0.parquet"],
        ["raw/raw_meta_Books/0.parquet"],
    ),
    (
        "movielens",
        "raw",
        {},
        ["raw/ml-1m/ratings.dat", "raw/ml-1m/movies.dat", "raw/ml-100k.zip"],
        ["raw/ml-1m/runs/ratings.dat", "raw/videos/ratings.dat"],
    ),
    ("movielens", "raw/ml-100k/u.data", {}, ["raw/ml-100k/u.data", "raw/ml-100k/u.item"], ["raw/ml-1m/ratings.dat"]),
    ("sequences", "raw/user_sequence.txt", {}, ["raw/user_sequence.txt", "raw/item_text.txt"], ["raw/a/item_text.txt"]),
    ("steam", "raw", {"games": "games"}, ["raw/australian_user_reviews.json", "games/steam_games.json.gz"], ["a.json"]),
    ("steam-reviews", "raw", {}, ["raw/steam_new.json.gz", "raw/steam_games.json.gz"], ["raw/old/steam_games.json.gz"]),
    (
        "table",
        "raw/clicks.parquet",
        {"items": "goods.CSV", "encoding": "latin-1"},
        ["raw/clicks.parquet", "raw/items.csv", "goods.CSV"],
        ["raw/table/0123456789abcdef/table/train.parquet", "raw/.stages/items.parquet"],
    ),
    ("yelp", "raw", {}, ["raw/yelp_dataset.tar", "raw/yelp_dataset.tgz", "raw/yelp_dataset/a.json"], ["raw/a/a.json"]),
    ("of your own", "raw", {}, ["raw/loans.tsv", "raw/b/c/d.parquet"], ["raw/.stages/a/b.parquet"]),
]


@pytest.mark.parametrize(("source", "given", "options", "seen", "unseen"), LAYOUTS)
def test_files_that_a_reader_may_look_at_count_and_no_others(
    source, given, options, seen, unseen, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, *seen, *unseen)
    assert input_files(source, given, options) == sorted(tmp_path / name for name in seen)
    digest = digest_of_inputs(source, given, options)
    if source in SOURCES:  # another reader may look at any file
        put(tmp_path, "raw/elsewhere.log", *(f"{name}.log" for name in seen))
    os.utime(tmp_path / unseen[0], ns=(1, 1))
    assert digest_of_inputs(source, given, options) == digest
    for name in seen:
        digests = [digest_of_inputs(source, given, options)]
        (tmp_path / name).write_text("longer than it was: " + name)
        digests.append(digest_of_inputs(source, given, options))
        if name != given:
            (tmp_path / name).unlink()
            digests.append(digest_of_inputs(source, given, options))
        assert len(set(digests)) == len(digests), name


@pytest.mark.parametrize("source", SOURCES)
def test_no_reader_depends_on_files_it_cannot_read(source, tmp_path):
    put(tmp_path, "ratings.csv")
    before = digest_of_inputs(source, tmp_path, {})
    put(tmp_path, "notes.log", "backup/of/ratings.csv")
    assert digest_of_inputs(source, tmp_path, {}) == before


def test_reader_options_and_code_count(tmp_path, monkeypatch):
    put(tmp_path, "interactions.csv", "items.csv")
    digests = [
        digest_of_inputs("table", tmp_path, {}),
        digest_of_inputs("sequences", tmp_path, {}),
        digest_of_inputs("table", tmp_path, {"min_item": 3}),
        digest_of_inputs("table", tmp_path / "interactions.csv", {}),
        digest_of_inputs("table", tmp_path / "nowhere", {}),
        digest_of_inputs("table", None, {}),
    ]
    monkeypatch.setattr(stages, "digest_of_code", lambda *modules: "of tomorrow")
    digests.append(digest_of_inputs("table", tmp_path, {}))
    assert len(set(digests)) == len(digests)


def test_contents_are_the_same_wherever_they_lie(tmp_path):
    for folder in ("here", "there"):
        put(tmp_path / folder, "interactions.csv", "items.csv")
    os.utime(tmp_path / "there" / "items.csv", ns=(1, 1))
    here, there = tmp_path / "here", tmp_path / "there"
    assert digest_of_inputs("table", here, {}) != digest_of_inputs("table", there, {})
    assert digest_of_contents("table", here, {}) == digest_of_contents("table", there, {})
    (there / "items.csv").write_text("other")
    assert digest_of_contents("table", here, {}) != digest_of_contents("table", there, {})


def test_digests_of_code_cover_what_a_build_imports():
    package = Path(preference_benchmark.__file__).parent

    def imported(name: str, known: set[str]) -> set[str]:
        known.add(name)
        files = sorted((package / name).rglob("*.py")) if (package / name).is_dir() else [package / f"{name}.py"]
        for file in files:
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preference_benchmark."):
                    other = node.module.split(".")[1]
                    if other not in known:
                        imported(other, known)
        return known

    # Where finished stages are kept and which machine embeds change nothing, and a recipe is part of every digest.
    assert imported("building", set()) - {*READING_CODE, *CODE} == {
        "availability",
        "embedding_over_ray",
        "recipes",
        "stages",
    }
