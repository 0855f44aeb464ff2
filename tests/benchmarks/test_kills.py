"""Killed saves leave one model or the other, by both ways of replacing a folder."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("kills_script", FOLDER / "kills.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcomes(script, way, kills):
    found = script.run_way(way, kills, seed=1)
    assert found["A"] + found["B"] == kills and found["leftovers"] == 0
    return script.table({way: (kills, 1.0, found)}, {"command": "x", "commit": "y", "seed": 1})


@pytest.mark.slow
def test_what_killed_saves_leave_loads(script):
    assert "| 2 |" in outcomes(script, "exchange", 2)
