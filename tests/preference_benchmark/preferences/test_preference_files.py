from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import HashEmbedder, random_preferences, random_tables
from polars.testing import assert_frame_equal

from preference_benchmark.__main__ import main
from preference_benchmark.axes.examples import KEYS
from preference_benchmark.preferences.files import belonging, read_preferences, write_preferences
from preference_benchmark.sources import read_source


def test_a_table_and_its_report_come_back(tmp_path):
    tables = random_tables(0)
    table = random_preferences(tables, 0)
    path = tmp_path / "folder" / "mine.parquet"
    assert write_preferences(table, path, {"users": 3}, tables) == path.with_suffix(".json")
    found, report = read_preferences(path)
    assert_frame_equal(found.drop("item_id"), table)
    assert set(found.select(*KEYS, "item_id").rows()) == set(tables.interactions.select(*KEYS, "item_id").rows())
    assert_frame_equal(belonging(found, tables, path), table)
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
        lambda: belonging(found, moved, "mine.parquet"),
        lambda: write_preferences(found, tmp_path / "mine.parquet", {}, moved),
    ):
        with pytest.raises(ValueError, match=match):
            refused()
    # Users and steps that the tables lack are no mistake: a benchmark may ask some users only.
    some = replace(tables, interactions=tables.interactions.filter(~own))
    assert_frame_equal(belonging(found, some, "mine.parquet"), found.filter(~own).drop("item_id"))
    with pytest.raises(ValueError, match=f"the tables have no step 0 of user '{user}'"):
        write_preferences(found, tmp_path / "mine.parquet", {}, some)
    with pytest.raises(ValueError, match="belongs to a user and step"):
        belonging(found.filter(own), some, "mine.parquet")


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
    with pytest.raises(ValueError, match="no Parquet"):
        read_preferences(tmp_path / "text.parquet")
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))


def test_the_command_writes_the_default(tmp_path, capsys):
    output = tmp_path / "extractive.parquet"
    words = ["preferences", "write", "--source", "corner-shop", "--limit", "20", "--output", str(output)]
    assert main(words) == 0
    found, report = read_preferences(output)
    assert found["user_id"].n_unique() == report["users"] == 20
    assert str(output) in capsys.readouterr().out


def test_settings_of_the_reader_shape_what_is_written_and_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("preference_benchmark.embedding.TextEmbedder", lambda name: HashEmbedder())
    output = tmp_path / "short.parquet"
    words = ["--source", "corner-shop", "--option", "num_users=60", "--option", "num_items=40"]
    short = [*words, "--set", "max_history=6", "--set", "user_stride=2"]
    assert main(["preferences", "write", *short, "--output", str(output)]) == 0
    found, report = read_preferences(output)
    every = read_source("corner-shop", None, num_users=60, num_items=40).interactions["user_id"].unique().sort()
    assert found["step"].max() == 5 and found["user_id"].unique().sort().equals(every.gather_every(2))
    assert report["options"]["max_history"] == 6 and report["options"]["num_users"] == 60
    assert main(["preferences", "compare", str(output), *short]) == 0
    capsys.readouterr()
    assert main(["preferences", "compare", str(output), *words]) == 2
    assert f"{output}: what user" in capsys.readouterr().err
    assert main(["preferences", "write", *words, "--output", str(output), "--set", "pool=all"]) == 2
    assert "set min_user, min_item, max_history or user_stride" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--output", "x.csv"], "parquet"),
        (["--output", "x.parquet", "--approximator", "openai"], "--model"),
        (["--output", "x.parquet", "--approximator", "openai", "--model", "m", "--prompt", "y"], "few-shot"),
    ],
)
def test_wrong_use_says_what_to_do(words, match, capsys):
    assert main(["preferences", "write", "--source", "corner-shop", *words]) == 2
    assert match in capsys.readouterr().err


def test_a_dry_run_sends_nothing(tmp_path, capsys):
    pytest.importorskip("openai")
    words = ["preferences", "write", "--source", "corner-shop", "--approximator", "openai", "--model", "m", "--dry-run"]
    words += ["--base-url", "http://127.0.0.1:9/v1", "--prompt-price", "1", "--output", str(tmp_path / "x.parquet")]
    assert main([*words, "--limit", "10", "--cache", str(tmp_path / "answers")]) == 0
    printed = capsys.readouterr().out
    assert "of 10 users: 0 answered" in printed and "$0.0" in printed and "by rule of thumb" in printed
    assert not list(tmp_path.iterdir())
