"""Starting the page: which model it takes, and one line where there is none."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "examples" / "demo" / "app.py"


@pytest.fixture
def app(monkeypatch, tmp_path):
    monkeypatch.delenv("MENDER_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(SCRIPT))


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and printed.out == ""
    (line,) = printed.err.strip().splitlines()
    return line


def test_a_bad_path_is_one_line_that_says_what_to_do(monkeypatch, capsys):
    line = run(monkeypatch, capsys, "--model", "no/such/folder")
    assert line.startswith("error: there is no folder 'no/such/folder'; pass a folder")


def test_the_environment_names_a_model_too(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MENDER_MODEL", str(tmp_path))
    assert f"error: {tmp_path} holds no saved model (config.json is missing)" in run(monkeypatch, capsys)


def test_what_is_asked_for_comes_before_the_environment(app, monkeypatch):
    monkeypatch.setenv("MENDER_MODEL", "org/from-environment")
    assert app["model_name"]("org/asked") == "org/asked"
    assert app["model_name"](None) == "org/from-environment"


def test_without_a_name_the_first_model_there_is(app, tmp_path):
    (tmp_path / "outputs" / "quickstart" / "model").mkdir(parents=True)
    assert app["model_name"](None) == str(Path("outputs/quickstart/model"))


def test_without_a_name_and_a_model_the_one_that_is_installed(app, monkeypatch):
    app["model_name"].__globals__["DEFAULTS"] = (Path("nowhere"), Path("outputs/quickstart/model"))
    assert app["model_name"](None) == "corner-shop"
