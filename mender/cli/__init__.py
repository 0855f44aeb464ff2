"""The command `mender`: train, evaluate, recommend, serve, compare, and all that builds and checks benchmarks.

A module here holds one command, or one group of them. It reads options, calls functions of the packages and prints what
they return; what is slow to import is imported inside the commands, so that help and completion stay quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mender import __version__
from mender.cli import benchmark, preferences
from mender.cli.batch import batch
from mender.cli.card import card
from mender.cli.compare import compare
from mender.cli.doctor import doctor
from mender.cli.evaluate import evaluate
from mender.cli.recommend import recommend
from mender.cli.serve import serve
from mender.cli.train import train
from mender.terminal import new_app, run, show_help

__all__ = ["GROUPS", "app", "main"]

GROUPS = {
    "Ask a model": (recommend, batch, serve),
    "Train and measure": (train, evaluate, compare, card),
    "Make data": (benchmark.app, preferences.app),
    "When something does not work": (doctor,),
}
app = new_app([*GROUPS])
for heading, commands in GROUPS.items():
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=command.info.name, rich_help_panel=heading)
        else:
            app.command(rich_help_panel=heading)(command)


def _print_version(chosen: bool) -> None:
    if chosen:
        print(f"mender {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def about(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Sequential recommendation steered by preferences in plain language.

    Exit codes: 0 success, 1 unexpected error or failed check, 2 wrong usage or bad input, 130 interrupted.
    """
    show_help(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `mender`; default: those of the process.

    Returns:
        The exit code.
    """
    return run(app, arguments, "mender")
