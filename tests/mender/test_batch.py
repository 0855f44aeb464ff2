"""A table of requests: answers are those of the recommender, in any number of shards, stops and starts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_shops import IDS, shop_of

from mender import Recommender
from mender.batch import answer_each, over_ray

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("batch")
    shop_of("mender", tmp_path_factory.mktemp("encoder")).save_pretrained(place / "model")
    return place


@pytest.fixture(scope="module")
def shop(folder):
    return Recommender.from_pretrained(folder / "model", device="cpu")


def table_of(rows: int) -> pl.DataFrame:
    """Requests of several kinds; every seventh is empty, every fifth names an item that is not there."""
    return pl.DataFrame(
        {
            "user_id": [f"u{row}" for row in range(rows)],
            "preference": [None if row % 2 or row % 7 == 0 else f"find {IDS[row % 9][5:]}" for row in range(rows)],
            "history": [
                [] if row % 7 == 0 else ["nobody"] if row % 5 == 1 else IDS[: row % 4 + 1] for row in range(rows)
            ],
            "avoid": [["rose"] if row % 3 == 0 and row % 7 else None for row in range(rows)],
            "top_k": [None if row % 4 else 2 for row in range(rows)],
        }
    )


def answers_in(folder) -> pl.DataFrame:
    return pl.read_parquet(folder / "*.parquet")


def test_answers_are_those_of_the_recommender(shop, tmp_path):
    table = table_of(23)
    table.write_parquet(tmp_path / "requests.parquet")
    report = shop.recommend_parquet(
        tmp_path / "requests.parquet", tmp_path / "out", top_k=3, shard_rows=10, batch_size=4, progress=False
    )
    found = answers_in(tmp_path / "out")
    assert found["user_id"].to_list() == table["user_id"].to_list()
    assert found.columns == ["user_id", "item_ids", "scores", "error"]
    refused = 0
    for row, answer in zip(table.to_dicts(), found.to_dicts(), strict=True):
        request = {name: value for name, value in row.items() if name != "user_id" and value is not None}
        try:
            expected = shop.recommend(**{"top_k": 3, **request})
        except ValueError as error:
            refused += 1
            assert answer["error"] == str(error) and answer["item_ids"] is None
            continue
        assert answer["item_ids"] == [item["item_id"] for item in expected] and answer["error"] is None
        assert answer["scores"] == pytest.approx([item["score"] for item in expected], abs=1e-4)
    assert 0 < refused < 23 and (report.answered, report.refused) == (23 - refused, refused)
    assert report.shards == 3 and report.first_error


@settings(max_examples=10)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 12), st.integers(1, 6))
def test_shards_and_files_make_no_difference(shop, tmp_path_factory, files, shard_rows, group):
    place = tmp_path_factory.mktemp("shards")
    table, start = table_of(sum(files)), 0
    for number, rows in enumerate(files):
        (place / "in").mkdir(exist_ok=True)
        table[start : start + rows].write_parquet(place / "in" / f"{number}.parquet", row_group_size=group)
        start += rows
    report = shop.recommend_parquet(
        place / "in", place / "out", shard_rows=shard_rows, unknown_items="skip", progress=False
    )
    assert report.requests == report.answered + report.refused == sum(files)
    if files and sum(files):
        table.write_parquet(place / "one.parquet")
        shop.recommend_parquet(place / "one.parquet", place / "one", unknown_items="skip", progress=False)
        found, expected = answers_in(place / "out"), answers_in(place / "one")
        assert found.drop("scores").equals(expected.drop("scores"))


def test_a_stopped_run_goes_on(shop, tmp_path, monkeypatch):
    table_of(20).write_parquet(tmp_path / "requests.parquet")
    arguments = (tmp_path / "requests.parquet", tmp_path / "out")
    calls, real = [], Recommender.recommend_batch

    def stopping(self, *given, **options):
        calls.append(given)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(self, *given, **options)

    monkeypatch.setattr(Recommender, "recommend_batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        shop.recommend_parquet(*arguments, shard_rows=4, batch_size=2, progress=False)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    assert 0 < len(done) < 5 and not list((tmp_path / "out").glob(".answers*"))
    report = shop.recommend_parquet(*arguments, shard_rows=4, batch_size=2, progress=False)
    assert report.resumed == 4 * len(done) and report.resumed + report.answered + report.refused == 20
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert answers_in(tmp_path / "out").height == 20
    again = shop.recommend_parquet(*arguments, shard_rows=4, progress=False)
    assert again.resumed == 20 and again.answered == 0


def test_answers_of_something_else_are_not_mixed(folder, shop, tmp_path):
    table_of(6).write_parquet(tmp_path / "requests.parquet")
    arguments = (tmp_path / "requests.parquet", tmp_path / "out")
    shop.recommend_parquet(*arguments, progress=False)
    with pytest.raises(ValueError, match="top_k changed"):
        shop.recommend_parquet(*arguments, top_k=3, progress=False)
    edited = Recommender.from_pretrained(folder / "model", device="cpu")
    edited.remove_items(IDS[:1])
    with pytest.raises(ValueError, match="model changed"):
        edited.recommend_parquet(*arguments, progress=False)
    trained = Recommender.from_pretrained(folder / "model", device="cpu")
    next(trained.model.parameters()).data[0, 0] += 1
    with pytest.raises(ValueError, match="model changed"):
        trained.recommend_parquet(*arguments, progress=False)
    table_of(7).write_parquet(tmp_path / "requests.parquet")
    with pytest.raises(ValueError, match="table changed"):
        shop.recommend_parquet(*arguments, progress=False)
    with pytest.raises(ValueError, match="something else"):
        shop.recommend_parquet(tmp_path / "requests.parquet", tmp_path, progress=False)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"preferance": ["tea"], "history": [["a"]]}, "did you mean 'preference'"),
        ({"user": ["a"]}, "requests need one of preference"),
        ({"preference": ["tea"], "error": ["a"]}, "'error'"),
    ],
)
def test_tables_are_checked_before_anything_is_computed(shop, tmp_path, columns, words):
    pl.DataFrame(columns).write_parquet(tmp_path / "requests.parquet")
    with pytest.raises(ValueError, match=words):
        shop.recommend_parquet(tmp_path / "requests.parquet", tmp_path / "out", progress=False)


def test_other_files_are_refused(shop, tmp_path):
    (tmp_path / "requests.parquet").write_text("preference\ntea\n")
    for wrong in ("requests.parquet", "nothing.parquet"):
        with pytest.raises(ValueError, match="is not a Parquet file"):
            shop.recommend_parquet(tmp_path / wrong, tmp_path / "out", progress=False)


def test_a_defect_is_no_refusal(shop, tmp_path, monkeypatch):
    def broken(self, *given, **options):
        raise RuntimeError("no memory")

    monkeypatch.setattr(Recommender, "recommend_batch", broken)
    assert isinstance(answer_each(shop, ["tea", "rose"])[1], RuntimeError)
    pl.DataFrame({"preference": ["tea"]}).write_parquet(tmp_path / "requests.parquet")
    with pytest.raises(RuntimeError, match="no memory"):
        shop.recommend_parquet(tmp_path / "requests.parquet", tmp_path / "out", progress=False)


@pytest.mark.slow
def test_ray_makes_the_same_shards(folder, shop, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    table_of(23).write_parquet(tmp_path / "requests.parquet")
    shop.recommend_parquet(tmp_path / "requests.parquet", tmp_path / "one", shard_rows=5, progress=False)
    arguments = (str(folder / "model"), tmp_path / "requests.parquet", tmp_path / "two")
    try:
        for resumed in (0, 23):
            report = over_ray(*arguments, address="local", shard_rows=5, workers=2, progress=False)
            assert report.requests == 23 and report.resumed == resumed
    finally:
        ray.shutdown()
    found, expected = answers_in(tmp_path / "two"), answers_in(tmp_path / "one")
    assert found.drop("scores").equals(expected.drop("scores"))


def test_the_command(folder, tmp_path, mender):
    table_of(9).write_parquet(tmp_path / "requests.parquet")
    command = ("batch", folder / "model", tmp_path / "requests.parquet", tmp_path / "out", "--device", "cpu")
    code, out, _ = mender(*command, "--json")
    assert code == 0 and json.loads(out)["requests"] == 9
    code, out, _ = mender(*command)
    assert code == 0 and "9 done before" in out
    code, _, err = mender(*command, "--top-k", "3")
    assert code == 2 and err.splitlines()[-1].startswith("error: ") and "top_k changed" in err
    assert mender(*command, "--workers", "2")[0] == 2
