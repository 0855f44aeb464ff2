"""A run that is killed and started again, against a server that counts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from llm_loopback import LoopbackServer, good_answer
from polars.testing import assert_frame_equal

from mender.cli import main

pytest.importorskip("openai")
CONCURRENCY = 4
INTERRUPTED = 130


def command(server: LoopbackServer, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "mender", "preferences", "write", "--source", "corner-shop"),
        *("--approximator", "openai", "--model", "tiny", "--base-url", server.url, "--limit", "8", "--retries", "1"),
        *("--prompt", "instruct", "--encoder", "no/encoder"),
        *("--concurrency", str(CONCURRENCY), "--cache", str(folder / "answers")),
        *("--output", str(folder / "preferences.parquet")),
    ]


def start(server: LoopbackServer, folder: Path) -> subprocess.Popen:
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(server, folder), env=environment, **quiet)


def finish(process: subprocess.Popen) -> int:
    _, errors = process.communicate(timeout=600)
    assert process.returncode in (0, INTERRUPTED, -signal.SIGKILL), errors.decode()[-2000:]
    return process.returncode


def sometimes_useless(content: str, times: int, seed: int) -> str:
    """A third of all attempts are to no avail."""
    return "Sorry." if seed % 3 == 0 else good_answer(content)


def killed(number: int, folder: Path, total: int, times: int) -> tuple[Path, LoopbackServer, int]:
    """A run to its end with so many kills, each after a random number of requests; returns how many kills hit it."""
    chance = random.Random(7)
    hits = 0
    with LoopbackServer(sometimes_useless, delay=0.03) as server:
        for _ in range(times):
            point = server.asked.total() + chance.randint(1, total // (times + 1) - CONCURRENCY)
            process = start(server, folder)
            while server.asked.total() < point and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(number)
            hits += finish(process) != 0
        assert finish(start(server, folder)) == 0
    return folder / "preferences.parquet", server, hits


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with LoopbackServer(sometimes_useless) as server:
        assert main(command(server, folder)[3:]) == 0  # without "python -m mender"
    return pl.read_parquet(folder / "preferences.parquet"), server


@pytest.mark.slow  # stops within one process are in test_llm_faults.py
@pytest.mark.parametrize("kills", [1, 5])
def test_stopped_runs_give_the_same_table_and_repeat_no_request(uninterrupted, tmp_path, kills):
    table, once = uninterrupted
    path, server, hits = killed(signal.SIGTERM, tmp_path, once.asked.total(), kills)
    assert hits == kills
    assert_frame_equal(pl.read_parquet(path), table)
    assert server.asked == once.asked


@pytest.mark.slow
def test_killed_runs_repeat_at_most_what_was_under_way(uninterrupted, tmp_path):
    table, once = uninterrupted
    path, server, hits = killed(signal.SIGKILL, tmp_path, once.asked.total(), 5)
    assert hits == 5
    assert_frame_equal(pl.read_parquet(path), table)
    repeated = server.asked - once.asked
    assert repeated.total() <= 5 * CONCURRENCY and not once.asked - server.asked
