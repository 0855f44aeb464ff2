"""Bring a ready-made benchmark, such as the paper's own LLM-written preferences, into our columns.

    python -m preference_benchmark adopt xiaoleichu/amazon-beauty-steerable-gr --name beauty-llm --output beauty-llm
    python -m preference_benchmark adopt path/to/its/copy --name beauty-llm --output beauty-llm

The result is read by `load_dataset(OUTPUT, NAME)` and by training and evaluation, like a benchmark built here.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

__all__ = ["add_arguments", "run"]


_LICENCES = {"xiaoleichu/amazon-beauty-steerable-gr": "mit"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", help="a data set of the Hub, or a folder with a copy of it")
    parser.add_argument("--name", required=True, help="what its configs are called here")
    parser.add_argument("--output", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument(
        "--licence", help="of the data, as the Hub names it; default: unknown, but for the paper's (mit)"
    )
    parser.add_argument(
        "--axis",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="what one of its axes is here",
    )


def run(arguments: argparse.Namespace) -> int:
    """Read, check, write."""
    from preference_benchmark.hub.ready_made import load_ready_made, write_ready_made

    wrong = [text for text in arguments.axis if "=" not in text]
    if wrong:
        raise ValueError(f"--axis {wrong[0]!r} names no pair; write THEIRS=OURS.")
    if arguments.output.exists():
        raise FileExistsError(f"{arguments.output} exists; pass another folder as --output, or remove it.")
    if not re.fullmatch(r"[\w.-]+", arguments.name):
        raise ValueError(f"--name {arguments.name!r} cannot name a config; use letters, digits, '-', '_' and '.'.")
    axes = dict(text.split("=", 1) for text in arguments.axis)
    found = load_ready_made(arguments.path, revision=arguments.revision, axes=axes)
    origin = Path(arguments.path).resolve().name if Path(arguments.path).is_dir() else arguments.path
    licence = arguments.licence or _LICENCES.get(arguments.path, "unknown")
    folder = write_ready_made(found, arguments.output, name=arguments.name, origin=origin, licence=licence)
    counts = ", ".join(f"{len(data):,} {split}" for split, data in found.examples.items())
    print(f"{len(found.items):,} items; examples: {counts}")
    for split, count in found.unpaired.items():
        print(f"left out of {split}: {count:,} halves of sentiment pairs without the other half")
    print(f"Written: {folder} (configs {arguments.name}, {arguments.name}-items)")
    return 0
