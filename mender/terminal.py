"""How a program of this project meets the terminal: exit codes, errors in one line, results for people or machines.

0: done. 1: something unexpected, with its traceback. 2: wrong usage or bad input, in one line that names the remedy.
130: interrupted.

What a person did wrong, told apart from what the program did wrong.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import typer

__all__ = [
    "UserError",
    "new_app",
    "results",
    "run",
    "run_script",
    "user_errors",
]


class UserError(Exception):
    """Bad input: the message says what came, what was expected and what to do. The command line shows that one line."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns `ValueError` and `OSError` into `UserError`: for steps in which these come from what a person passed."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split()) or type(error).__name__) from error


# typer carries its own click, or in older releases takes the installed one; this class is what both show of it.
UsageError = typer.BadParameter.__mro__[1]


def new_app(**settings: Any) -> typer.Typer:
    """A typer application whose tracebacks and help are plain: they stay readable in logs and narrow windows."""
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, **settings)


def run(app: typer.Typer, arguments: Sequence[str] | None = None, name: str | None = None) -> int:
    """Run an application.

    Args:
        app: a typer application.
        arguments: the words after the program's name; default: those of the process.
        name: of the program, in its help.

    Returns:
        The exit code.
    """
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name=name, standalone_mode=False)
    except UsageError as error:
        command = "" if error.ctx is None else f"; see `{error.ctx.command_path} --help`"
        return _refuse(error.format_message().rstrip(".") + command)
    except UserError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def run_script(function: Callable[..., Any], description: str | None) -> None:
    """Run a script's main function with the options that its signature declares, and end the process.

    Args:
        function: with parameters as typer reads them.
        description: the help; usually the script's docstring.
    """
    app = new_app(add_completion=False)
    app.command(help=f"\b\n{description}".replace("\n\n", "\n\n\b\n"))(function)
    sys.exit(run(app))


@contextmanager
def results(as_json: bool) -> Iterator[Callable[[Any], None]]:
    """Keeps standard output for the results where they are for machines: all else goes to standard error.

    Args:
        as_json: whether results are for machines.

    Yields:
        What writes a result, as one JSON document; it does nothing where results are for people.
    """
    if not as_json:
        yield lambda result: None
        return
    output = sys.stdout
    with redirect_stdout(sys.stderr):
        yield lambda result: print(json.dumps(result, ensure_ascii=False, indent=2), file=output)


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
