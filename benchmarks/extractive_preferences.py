"""Preferences without a language model: how many user-steps per second?

Runs the extractive approximator on a data set several times, and in the same process, in turn with it, scores the same
texts with VADER text by text, which was once the larger part of the work. Wall time is what a user waits; CPU time is
what the work costs when other programs compete for the cores.

    python benchmarks/extractive_preferences.py --source amazon2014 --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.vader import analyzer, compound
from preference_benchmark.sources import SOURCES, read_source

TEXTS = 4_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=sorted(SOURCES), default="corner-shop")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tables = read_source(arguments.source, arguments.data)
    texts = tables.interactions["review"].unique().sort().head(TEXTS)
    write = ExtractiveApproximator(progress=False)
    write(tables)  # word lists and regular expressions are read once
    runs: dict[str, list[tuple[float, float]]] = {"extractive": [], "scores at once": [], "scores one by one": []}
    for _ in range(arguments.repeats):
        runs["extractive"].append(_timed(lambda: write(tables)))
        runs["scores at once"].append(_timed(lambda: compound(texts)))
        runs["scores one by one"].append(_timed(lambda: [analyzer().polarity_scores(text) for text in texts]))
    steps = tables.interactions.height
    print(f"{steps:,} user-steps of {arguments.source}; {os.cpu_count()} cores; {arguments.repeats} repeats, medians\n")
    for name, units in (("extractive", steps), ("scores at once", len(texts)), ("scores one by one", len(texts))):
        wall, cpu = ([run[place] for run in runs[name]] for place in (0, 1))
        print(
            f"{name:<18} {statistics.median(wall):7.2f} s wall ({min(wall):.2f} to {max(wall):.2f}), "
            f"{statistics.median(cpu):6.2f} s CPU: {units / statistics.median(wall):8,.0f} per second of wall time, "
            f"{units / statistics.median(cpu):8,.0f} per second of CPU time"
        )
    ratio = statistics.median(
        slow[1] / fast[1] for slow, fast in zip(runs["scores one by one"], runs["scores at once"], strict=True)
    )
    print(f"\nscoring all texts at once takes 1/{ratio:.1f} of the CPU time of scoring them one by one")
    if arguments.json:
        content = {"steps": steps, "texts": len(texts), "cores": os.cpu_count(), "wall_and_cpu_seconds": runs}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
