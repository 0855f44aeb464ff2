"""The folder of a run holds what was measured and where it comes from."""

from __future__ import annotations

import json

import polars as pl
import pytest

from mender.report import Score
from mender.runs import provenance, read_run, training_of, write_run

FIGURES = {
    "n": 3,
    **{f"{name}@{k}{end}": 0.5 for name in ("recall", "ndcg") for k in (5, 10) for end in ("", "/low", "/high")},
}
SCORES = [Score("recommendation", "last", "Mender", FIGURES)]


def test_what_is_written_is_read(tmp_path, capsys):
    ranks = pl.DataFrame({"axis": ["recommendation"], "rank": [2]})
    record = write_run(tmp_path / "run", SCORES, {"seed": 3}, "a title", ranks)
    assert "a title" in capsys.readouterr().out
    assert read_run(tmp_path / "run") == record
    assert record["settings"] == {"seed": 3} and record["scores"][0]["recall@10"] == 0.5
    assert pl.read_parquet(tmp_path / "run" / "ranks.parquet").equals(ranks)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"five_axes.json", "five_axes.png", "ranks.parquet"}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "five_axes.json is missing"), ("[]", "is not the record of a run"), ("{", "is not JSON")],
)
def test_other_folders_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "five_axes.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path)


def test_a_model_finds_the_run_it_is_in(tmp_path):
    settings = {"method": "mender-tok", "training": {"steps": 3}, "command": "mender train", "request_ms": 4}
    (tmp_path / "five_axes.json").write_text(json.dumps({"settings": settings}))
    expected = {"method": "mender-tok", "training": {"steps": 3}, "trained_by_command": "mender train"}
    assert training_of(tmp_path / "model") == expected
    assert training_of(tmp_path / "elsewhere") == {}


def test_results_name_command_commit_and_seed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/mender", "train", "--name", "a b"])
    found = provenance(5)
    assert found["command"] == "mender train --name 'a b'" and found["seed"] == 5 and found["commit"]
    monkeypatch.setattr("sys.argv", ["examples/02_train.py"])
    assert provenance(5)["command"] == "python examples/02_train.py"
