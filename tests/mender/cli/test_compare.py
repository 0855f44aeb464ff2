"""`mender compare`: several runs as one table and one plot."""

from __future__ import annotations

import json

import pytest


def test_runs_are_compared(mender, trained, tmp_path):
    runs = [trained / "mender-tok-seed0", trained / "popularity-seed0"]
    code, out, err = mender("compare", *runs, "--reference", "popularity", "--output", tmp_path, "--json")
    found = json.loads(out)
    assert code == 0 and found["reference"] == "popularity" and "mender-tok" in err
    assert "recommendation (silent)" in err
    assert found == json.loads((tmp_path / "comparison.json").read_text())
    code, out, err = mender("compare", *runs, "--output", tmp_path)
    assert code == 0 and "mender-tok" in out and (tmp_path / "stars.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "here"], "five_axes.json is missing"),
    ],
)
def test_mistakes_end_in_one_line(mender, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender(*arguments)
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("error: ") and message in line and "Traceback" not in err
    assert not list(tmp_path.iterdir())
