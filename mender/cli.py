"""The command `mender`: train, evaluate, recommend, compare and more, over the functions of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mender import __version__
from mender.commands.benchmark import benchmark
from mender.commands.card import card
from mender.commands.compare import compare
from mender.commands.evaluate import evaluate
from mender.commands.recommend import recommend
from mender.commands.train import train
from mender.terminal import new_app, run

__all__ = ["app", "main"]

app = new_app()
app.command()(train)
app.command()(evaluate)
app.command()(recommend)
app.command()(compare)
app.command()(card)
# The benchmark has a command line of its own, help included.
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)(benchmark)


def _print_version(wanted: bool) -> None:
    if wanted:
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

    Exit codes: 0 done, 1 something unexpected, 2 wrong usage or bad input, 130 interrupted.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `mender`; default: those of the process.

    Returns:
        The exit code.
    """
    return run(app, arguments, "mender")
