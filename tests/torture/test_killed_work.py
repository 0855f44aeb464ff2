"""Kills at random moments of saves, edits, purchases, builds, trainings and uploads: see `benchmarks/kills.py`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub

FILE = Path(__file__).parents[2] / "benchmarks" / "kills.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def kills():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("killing_script", FILE)
    module = sys.modules["killing_script"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Processes find this checkout."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FILE.parents[1]), os.environ.get("PYTHONPATH", "")]))


def count(tally, found, times: int) -> None:
    """Enter outcomes of so many kills."""
    for outcome in ("as before", "as after", "A", "B"):
        if found[outcome]:
            tally.note({"A": "as before", "B": "as after"}.get(outcome, outcome), found[outcome])
    tally.tried += times
    for outcome in ("lost", "stuck", "refused", "mixture", "leftovers"):
        tally.failed += [outcome] * int(found[outcome])


@pytest.mark.campaign("kills", None)  # its slice is tests/benchmarks/test_kills.py
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_killed_saves(tally, kills, way):
    count(tally, kills.run_way(way, tally.count, tally.seed), tally.count)
    tally.finish()


@pytest.mark.campaign("kills", 2)
def test_killed_edits_and_purchases(tally, kills, tmp_path):
    count(tally, kills.run_edits(tally.count, tally.seed, tmp_path), tally.count)
    tally.finish()


@pytest.mark.campaign("kills", None)
def test_killed_builds(tally, kills, tmp_path):
    count(tally, kills.run_named("build", tally.count, tally.seed, tmp_path), tally.count)
    tally.finish()


@pytest.mark.campaign("kills", None)
def test_killed_trainings(tally, kills, tmp_path):
    tally.count = max(1, tally.count // 5)  # each takes a while
    count(tally, kills.run_named("train", tally.count, tally.seed, tmp_path), tally.count)
    tally.finish()


@pytest.mark.campaign("kills", None)
def test_killed_uploads(tally, kills, tmp_path):
    tally.count = max(1, tally.count // 2)
    kills.save_encoder(tmp_path / "encoder")
    for users in ("60", "61"):
        words = [*kills.build_command(tmp_path, users)[:-1], str(tmp_path / users)]
        assert kills.start(words, tmp_path / "log.txt", {}).wait() == 0
    with LoopbackHub(tmp_path / "hub") as hub:

        def published(root: Path) -> str:
            files = {name: path.read_bytes() for name, path in hub.files("datasets", "org/shop").items()}
            files.pop(".gitattributes", None)
            for users in ("60", "61"):
                whole = {name: (root / users / name).read_bytes() for name in files if (root / users / name).is_file()}
                if whole == files:
                    return users
            raise ValueError(f"a mixture: {sorted(files)}")

        work = kills.Work(
            lambda root, version: ["benchmark", "publish", str(root / version), "org/shop"],
            published,
            ("60", "61"),
            environment=hub.environment(tmp_path / "home"),
        )
        count(tally, kills.run_work(work, tally.count, tally.seed, tmp_path), tally.count)
    tally.finish()
