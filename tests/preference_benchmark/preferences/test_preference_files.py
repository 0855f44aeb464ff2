from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import random_preferences, random_tables
from polars.testing import assert_frame_equal

from preference_benchmark.axes.examples import KEYS
from preference_benchmark.preferences.files import (
    check_replaced,
    read_preferences,
    restrict_to_tables,
    write_preferences,
    written_by,
)


def test_a_table_and_its_report_come_back(tmp_path):
    tables = random_tables(0)
    table = random_preferences(tables, 0)
    path = tmp_path / "folder" / "mine.parquet"
    assert write_preferences(table, path, {"users": 3}, tables) == path.with_suffix(".json")
    found, report = read_preferences(path)
    assert_frame_equal(found.drop("item_id"), table)
    assert set(found.select(*KEYS, "item_id").rows()) == set(tables.interactions.select(*KEYS, "item_id").rows())
    assert_frame_equal(restrict_to_tables(found, tables, path), table)
    assert report == {"users": 3} and len(list(path.parent.iterdir())) == 2


def test_steps_that_have_moved_are_refused(tmp_path):
    tables = random_tables(0)
    write_preferences(random_preferences(tables, 0), tmp_path / "mine.parquet", {}, tables)
    found, _ = read_preferences(tmp_path / "mine.parquet")
    # One user's first interaction falls out, as with a shorter history.
    user = tables.interactions["user_id"][0]
    own = pl.col("user_id") == user
    left = tables.interactions.filter(~own | (pl.col("step") > 0))
    moved = replace(tables, interactions=left.with_columns(step=pl.col("step") - own.cast(pl.Int64)))
    was, now = tables.interactions["item_id"][0], tables.interactions["item_id"][1]
    match = f"mine.parquet: what user '{user}' wants after step 0 was written .* item '{was}'; here it is item '{now}'"
    for refused in (
        lambda: restrict_to_tables(found, moved, "mine.parquet"),
        lambda: write_preferences(found, tmp_path / "mine.parquet", {}, moved),
    ):
        with pytest.raises(ValueError, match=match):
            refused()
    # Users and steps that the tables lack are not mistakes: a benchmark may ask some users only.
    some = replace(tables, interactions=tables.interactions.filter(~own))
    assert_frame_equal(restrict_to_tables(found, some, "mine.parquet"), found.filter(~own).drop("item_id"))
    with pytest.raises(ValueError, match=f"the tables have no step 0 of user '{user}'"):
        write_preferences(found, tmp_path / "mine.parquet", {}, some)
    with pytest.raises(ValueError, match="is about a user and step"):
        restrict_to_tables(found.filter(own), some, "mine.parquet")


def test_bad_files_are_refused(tmp_path):
    tables = random_tables(0)
    table = random_preferences(tables, 0)
    with pytest.raises(ValueError, match=".parquet"):
        write_preferences(table, tmp_path / "mine.csv", {}, tables)
    with pytest.raises(ValueError, match="lack"):
        write_preferences(table.drop("rank"), tmp_path / "mine.parquet", {}, tables)
    with pytest.raises(FileNotFoundError, match="preferences write"):
        read_preferences(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match="not a Parquet file"):
        read_preferences(tmp_path / "text.parquet")
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "odd",
    [
        {"steps": {"written": "many"}},
        {"steps": [1]},
        {"users": None, "population": 3, "steps": {"written": 1}},
        {"agreement": {"agrees": 0.5}},
        {"agreement": {"agrees": "x", "balanced": []}},
        {"agreement": {"agrees": 0.5, "balanced": "x", "compared": None}},
    ],
)
def test_reports_of_others_may_hold_anything(odd):
    assert written_by("x.parquet", {"model": "m"} | odd).startswith("m (prompt None), date unknown")
    assert written_by("x.parquet", odd) == "the file x.parquet"


def test_only_a_table_of_the_same_users_or_more_replaces_another(tmp_path):
    path = tmp_path / "x.parquet"
    check_replaced(path, [])
    path.write_text("no table")
    check_replaced(path, [])
    pl.DataFrame({"user_id": ["a", "a", "b"]}).write_parquet(path)
    check_replaced(path, ["c", "b", "a"])
    with pytest.raises(ValueError, match="preferences of 2 users, 1 of whom are left out now; pass --partial"):
        check_replaced(path, ["a", "c"])
