"""What search as you type costs on the demo page: building the index, and every keystroke, up to a million titles.

    python benchmarks/title_search.py
    python benchmarks/title_search.py --titles 100000 --json title_search.json

Titles are made of 3 to 12 words drawn from 50,000 with Zipf's frequencies. A visitor types the first two words of a
title, and every keystroke is one search. `slowest_ms` is the worst of all keystrokes: usually a single letter.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import write_rows
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "demo"))

from title_search import TitleSearch  # noqa: E402

SIZES = (10_000, 100_000, 1_000_000)
WORDS, VISITORS = 50_000, 50
LETTERS = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    rows = [measure(titles(count)) for count in arguments.titles]
    table = Table(title="Search as you type")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else f"{value:.2f}" for value in row.values()))
    Console(width=120).print(table)
    write_rows(rows, arguments.json)


def titles(count: int) -> list[str]:
    """Made-up titles, the same ones every time."""
    generator = np.random.default_rng(0)
    # Letters in the order of their frequency in English, the early ones more often.
    share = 1 / np.arange(2, 28)
    letters = generator.choice(LETTERS, (WORDS, 9), p=share / share.sum())
    words = np.array(
        ["".join(row[:length]) for row, length in zip(letters, generator.integers(2, 10, WORDS), strict=True)]
    )
    frequency = 1 / np.arange(10, WORDS + 10)
    lengths = generator.integers(3, 13, count)
    drawn = generator.choice(words, lengths.sum(), p=frequency / frequency.sum())
    return [" ".join(part) for part in np.split(drawn, lengths.cumsum()[:-1])]


def measure(catalogue: list[str]) -> dict[str, Any]:
    """Seconds to build the index, milliseconds of keystrokes."""
    started = time.perf_counter()
    search = TitleSearch(catalogue)
    built = time.perf_counter() - started
    seconds = []
    for row in np.random.default_rng(1).integers(len(catalogue), size=VISITORS):
        typed = " ".join(catalogue[row].split()[:2])
        for length in range(1, len(typed) + 1):
            started = time.perf_counter()
            search.find(typed[:length])
            seconds.append(time.perf_counter() - started)
    milliseconds = 1000 * np.array(seconds)
    return {
        "titles": len(catalogue),
        "build_s": built,
        "keystrokes": len(seconds),
        "median_ms": float(np.median(milliseconds)),
        "p95_ms": float(np.percentile(milliseconds, 95)),
        "slowest_ms": float(milliseconds.max()),
    }


if __name__ == "__main__":
    main()
