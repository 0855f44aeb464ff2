"""Kills at random moments of all work that leaves something behind: see `benchmarks/kills.py`.

Saves, edits and purchases, builds, trainings, runs of a language model, uploads. Together they are killed as often as
`kills` says, each as often as its share.
"""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from llm_loopback import LoopbackServer, good_answer
from loopback_hub import LoopbackHub

from mender import Recommender

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
CONCURRENCY = 4


@pytest.fixture(scope="module")
def kills():
    """The script as a module."""
    return script("kills")


@pytest.fixture(scope="module")
def commands():
    """The script of killed commands as a module."""
    return script("killed_commands")


def script(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return import_module(name)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Processes find this checkout."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))


def count(tally, found) -> None:
    """Enter outcomes of kills."""
    for outcome in ("as before", "as after", "A", "B"):
        if found[outcome]:
            tally.note({"A": "as before", "B": "as after"}.get(outcome, outcome), found[outcome])
    if found["again"]:
        tally.note("of work that went on after a kill", found["again"])
    tally.tried += tally.count
    for outcome in ("lost", "stuck", "refused", "mixture", "leftovers"):
        tally.failed += [outcome] * int(found[outcome])
    tally.finish()


@pytest.mark.campaign("kills", None, share=0.2)  # its slice is tests/benchmarks/test_kills.py
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_killed_saves(tally, kills, way):
    count(tally, kills.run_way(way, tally.count, tally.seed))


@pytest.mark.campaign("kills", 2, share=0.2)
def test_killed_edits_and_purchases(tally, kills, tmp_path):
    count(tally, kills.run_edits(tally.count, tally.seed, tmp_path))


@pytest.mark.campaign("kills", None, share=0.1)
def test_killed_builds(tally, kills, tmp_path):
    count(tally, kills.run_named("build", tally.count, tally.seed, tmp_path))


@pytest.mark.campaign("kills", None, share=0.1)
def test_killed_trainings(tally, kills, tmp_path):
    count(tally, kills.run_named("train", tally.count, tally.seed, tmp_path))


@pytest.mark.campaign("kills", None, share=0.1)
def test_killed_runs_of_a_language_model(tally, commands, tmp_path):
    started = 0

    def command(root: Path, version: str) -> list[str]:
        nonlocal started
        started += 1
        words = ["preferences", "write", "--source", "corner-shop", "--limit", "8", "--retries", "1"]
        words += ["--approximator", "openai", "--model", "tiny", "--base-url", server.url, "--prompt", "instruct"]
        words += ["--encoder", "no/encoder", "--concurrency", str(CONCURRENCY)]
        return [*words, "--cache", str(root / "answers"), "--output", str(root / "preferences.parquet")]

    def fresh(root: Path) -> None:
        nonlocal started
        started = 0
        server.asked.clear()
        shutil.rmtree(root / "answers")
        (root / "preferences.parquet").unlink()

    expected = None

    def written(root: Path) -> str:
        nonlocal expected
        if not (root / "preferences.parquet").exists():
            return "none"
        table = pl.read_parquet(root / "preferences.parquet")
        if expected is None:
            expected = table, server.asked.copy()
        repeated = server.asked - expected[1]
        if expected[1] - server.asked or repeated.total() > CONCURRENCY * (started - 1):
            raise ValueError(f"{repeated.total()} requests were repeated after {started - 1} kills")
        if not table.equals(expected[0]):
            raise ValueError("another table than without kills")
        return "table"

    def sometimes_useless(content: str, times: int, seed: int) -> str:
        """A third of all attempts are to no avail."""
        return "Sorry." if seed % 3 == 0 else good_answer(content)

    with LoopbackServer(sometimes_useless, delay=0.03) as server:
        work = commands.Work(command, written, ("none", "table"), fresh)
        count(tally, commands.run_work(work, tally.count, tally.seed, tmp_path))


@pytest.mark.campaign("kills", None, share=0.05)
def test_killed_uploads_of_benchmarks(tally, commands, tmp_path):
    commands.save_encoder(tmp_path / "encoder")
    with script("warm_processes").WarmProcesses(commands.MODULES) as processes:
        for users in ("60", "61"):
            words = [*commands.build_command(tmp_path, users)[:-1], str(tmp_path / users)]
            assert processes.run("killed_commands.command", words, tmp_path / "log.txt") == 0
    with LoopbackHub(tmp_path / "hub") as hub:

        def published(root: Path) -> str:
            files = {name: path.read_bytes() for name, path in hub.files("datasets", "org/shop").items()}
            files.pop(".gitattributes", None)
            for users in ("60", "61"):
                whole = {name: (root / users / name).read_bytes() for name in files if (root / users / name).is_file()}
                if whole == files:
                    return users
            raise ValueError(f"a mixture: {sorted(files)}")

        work = commands.Work(
            lambda root, version: ["benchmark", "publish", str(root / version), "org/shop"],
            published,
            ("60", "61"),
            environment=hub.environment(tmp_path / "home"),
        )
        count(tally, commands.run_work(work, tally.count, tally.seed, tmp_path))


@pytest.mark.campaign("kills", None, share=0.05)
def test_killed_uploads_of_models(tally, kills, commands, tmp_path):
    for seed, name in enumerate("AB"):
        Recommender(*kills.model_and_processor(seed)).save_pretrained(tmp_path / name)
    with LoopbackHub(tmp_path / "hub") as hub:

        def published(root: Path) -> str:
            files = hub.files("models", "org/shop")
            for version in ("A", "B"):
                own = ("model.safetensors", "items.json")
                if all(files[name].read_bytes() == (root / version / name).read_bytes() for name in own):
                    return version
            raise ValueError("a mixture")

        work = commands.Work(
            lambda root, version: [str(root / version), "org/shop"],
            published,
            ("A", "B"),
            environment=hub.environment(tmp_path / "home"),
            function="killed_commands.push",
        )
        count(tally, commands.run_work(work, tally.count, tally.seed, tmp_path))
