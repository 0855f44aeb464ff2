"""Show what a built folder holds: counts, examples per axis, preferences, files.

python -m preference_benchmark stats benchmark
python -m preference_benchmark stats benchmark --json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("output", type=Path, help="the folder that was built")
    parser.add_argument("--json", action="store_true", help="the statistics as they are")


def run(arguments: argparse.Namespace) -> int:
    """Show."""
    from preference_benchmark.hub.folder import contents

    found = contents(arguments.output)
    if not found:
        raise ValueError(f"{arguments.output} holds no data set; build one into it first.")
    if arguments.json:
        print(json.dumps({data_set.name: data_set.statistics for data_set in found}, indent=1, ensure_ascii=False))
        return 0
    for data_set in found:
        show(data_set.statistics)
    return 0


def show(statistics: dict) -> None:
    """Tables of one data set's statistics."""
    from rich.console import Console
    from rich.table import Table

    from preference_benchmark.axes.protocol import SPLITS

    console = Console(width=120)
    read, written = statistics["read"], statistics["preferences"]
    console.rule(f"{statistics['title']} ({statistics['name']})", align="left")
    for when in ("before", "after"):
        counts = read[when]
        core = f"{when} k-core"
        console.print(
            f"{core:<14} {counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions",
            highlight=False,
        )
    kept = f"{statistics['users']:,} users, {statistics['items']:,} items, {statistics['interactions']:,} interactions"
    console.print(f"{'kept':<14} {kept}", highlight=False)
    console.print(
        f"{'preferences':<14} {written['written']:,} written, {written['distinct']:,} distinct, "
        f"{written['negative']:,} negative; by {statistics['preferences_by']}",
        highlight=False,
    )
    means = ", ".join(f"{name} {value:.3f}" for name, value in statistics["similarity"].items())
    console.print(f"{'cosines':<14} {means} ({statistics['embedder']})", highlight=False)
    table = Table("axis", *SPLITS)
    for axis, counts in statistics["examples"].items():
        table.add_row(axis, *(f"{counts[split]:,}" for split in SPLITS))
    console.print(table)
    size = sum(split["bytes"] for config in statistics["configs"].values() for split in config["splits"].values())
    console.print(f"{'configs':<14} {', '.join(statistics['configs'])}: {size / 1e6:,.1f} MB", highlight=False)
