"""Build a data set into a folder that is ready for the Hub.

    python -m preference_benchmark build steam --data-dir raw/steam --output benchmark
    python -m preference_benchmark build corner-shop --option num_users=300 --output benchmark
    python -m preference_benchmark build my-shop --source table --data-dir mine --output benchmark

Without --data-dir the public files are downloaded. A build that was stopped goes on where it stood when the same
command is given again; its stages lie in OUTPUT/.stages and may be deleted. Several data sets may share a folder.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

__all__ = ["add_arguments", "assigned", "recipe_from", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="beauty, sports, toys, steam, yelp, movielens, corner-shop, or a name of your own")
    parser.add_argument("--output", type=Path, required=True, help="the folder to build into")
    parser.add_argument("--data-dir", type=Path, help="the folder of the raw files, or the file itself")
    parser.add_argument("--source", help="the reader, where it is not the data set's own: sequences, table, ...")
    parser.add_argument("--title", help="what people call the data set")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the reader")
    parser.add_argument("--preferences", type=Path, help="a Parquet file of preferences; default: written by rules")
    parser.add_argument("--embedder", help="a sentence-transformers model or folder; default: all-MiniLM-L6-v2")
    parser.add_argument("--device", help="where models run, as torch names it; default: the accelerator if any")
    parser.add_argument("--batch-size", type=int, help="texts per forward pass; default: 64")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "auto"), help="of the embedder; default: float32")
    parser.add_argument("--seed", type=int, help="of every draw; default: 101")
    parser.add_argument(
        "--protocol",
        choices=("default", "paper"),
        default="default",
        help="paper: its published scripts to the letter; the leaks this brings are counted on the card",
    )
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the protocol")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def recipe_from(arguments: argparse.Namespace):
    """The recipe that the arguments describe."""
    from dataclasses import replace

    from preference_benchmark.axes.protocol import PAPER, Protocol
    from preference_benchmark.recipes import recipe

    found = recipe(
        arguments.name,
        source=arguments.source,
        title=arguments.title,
        data_dir=arguments.data_dir,
        options=dict(assigned(text) for text in arguments.option) or None,
        preferences=arguments.preferences,
        embedder=arguments.embedder,
        device=arguments.device,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
    )
    protocol = found.protocol
    if arguments.protocol == "paper":
        plain = Protocol()
        special = {name: value for name, value in vars(protocol).items() if value != getattr(plain, name)}
        protocol = PAPER.replace(**special)
    if arguments.seed is not None:
        protocol = protocol.replace(seed=arguments.seed)
    return replace(found, protocol=protocol.parsed(arguments.set))


def run(arguments: argparse.Namespace) -> int:
    """Build."""
    from preference_benchmark.hub import folder as hub_folder
    from preference_benchmark.make import make

    started = time.perf_counter()
    found = recipe_from(arguments)
    hub_folder.refuse_raw_files_inside(arguments.output, found.name, found.data_dir)
    hub_folder.contents(arguments.output, without=found.name)  # somebody else's folder is refused now, not at the end

    def announce(stage: str, finished: bool) -> None:
        note = " (finished before)" if finished else ""
        print(f"[{time.perf_counter() - started:7.1f} s] {stage}{note}", flush=True)

    work = arguments.output / hub_folder.STAGES / found.name
    made = make(found, work, announce=announce, progress=not arguments.quiet)
    folder = hub_folder.add(made, arguments.output)
    from preference_benchmark.commands.stats import show

    show(made.statistics)
    print(f"\nBuilt {', '.join(made.statistics['configs'])} in {time.perf_counter() - started:.0f} s: {folder}")
    return 0


def assigned(text: str) -> tuple[str, object]:
    """Name and value of an --option; numbers become numbers."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option {text!r} sets nothing; write NAME=VALUE, such as num_users=300.")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
