"""Check a built folder and show how good the benchmark in it is.

    python -m preference_benchmark validate benchmark

Looks at every file (is it the one that was built?) and at every example (does it know what it asks for?), and shows
what was measured when it was built: similarity margins, repetitions, and, where it is known, the truth. The exit status
is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("output", type=Path, help="the folder that was built")
    parser.add_argument("--dataset", help="only this data set; default: all")


def run(arguments: argparse.Namespace) -> int:
    """Check and show."""
    from rich.console import Console
    from rich.markdown import Markdown

    from preference_benchmark.checks.published import recheck
    from preference_benchmark.hub.card import validation_section
    from preference_benchmark.hub.folder import contents, problems

    found = [data_set for data_set in contents(arguments.output) if arguments.dataset in (None, data_set.name)]
    if not found:
        raise ValueError(f"{arguments.output} holds no data set {arguments.dataset or ''}; build one into it first.")
    console = Console(width=120)
    wrong = problems(arguments.output)
    if not wrong:
        for data_set in found:
            console.rule(data_set.statistics["title"], align="left")
            console.print(Markdown(validation_section(data_set.statistics)))
            wrong += recheck(arguments.output, data_set)
    for problem in wrong:
        console.print(f"WRONG: {problem}", style="bold red", highlight=False, soft_wrap=True)
    if not wrong:
        console.print("Every file is the one that was built, and every example was checked.")
    return 1 if wrong else 0
