from __future__ import annotations

import pytest
from benchmark_doubles import random_preferences, random_tables
from polars.testing import assert_frame_equal

from preference_benchmark.__main__ import main
from preference_benchmark.preferences.files import read_preferences, write_preferences


def test_a_table_and_its_report_come_back(tmp_path):
    table = random_preferences(random_tables(0), 0)
    path = tmp_path / "folder" / "mine.parquet"
    assert write_preferences(table, path, {"users": 3}) == path.with_suffix(".json")
    found, report = read_preferences(path)
    assert_frame_equal(found, table)
    assert report == {"users": 3} and len(list(path.parent.iterdir())) == 2


def test_bad_files_are_refused(tmp_path):
    table = random_preferences(random_tables(0), 0)
    with pytest.raises(ValueError, match=".parquet"):
        write_preferences(table, tmp_path / "mine.csv", {})
    with pytest.raises(ValueError, match="lack"):
        write_preferences(table.drop("rank"), tmp_path / "mine.parquet", {})
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
