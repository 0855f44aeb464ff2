"""What every program of this project does at the terminal: exit codes, one-line errors, results as text or JSON.

Exit codes: 0 success; 1 unexpected error, with its traceback, or a failed check; 2 wrong usage or bad input, with one
line that names the remedy; 3 part of the work is missing, and the same command goes on with it; 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperGroup

from mender.progress import progress_shown

__all__ = [
    "UserError",
    "new_app",
    "new_console",
    "printable",
    "results",
    "run",
    "run_script",
    "say",
    "show_help",
    "user_errors",
]


class UserError(ValueError):
    """Bad input. The message says what was passed, what was expected and what to do; the command line prints it."""


def printable(text: str) -> str:
    r"""Text without what a terminal would act on: control characters, escape sequences, direction marks.

    >>> printable("a\x1b[31mb\u202e")
    'a�[31mb�'
    """
    return "".join(one if one.isprintable() or one == "\n" else "�" for one in text)


def say(text: Any, **options: Any) -> None:
    """Print text that may be of others; see `printable`. Options are those of `print`."""
    print(printable(str(text)), **options)


class _PrintableRecord(logging.LogRecord):
    """What a library logs about the files of others; its colours are left out."""

    def getMessage(self) -> str:
        return printable(re.sub(r"\x1b\[[\d;]*m|\t", " ", super().getMessage()))


_FORMAT_WARNING = warnings.formatwarning


def _printable_warning(*given: Any, **named: Any) -> str:
    return printable(_FORMAT_WARNING(*given, **named))


def new_console(width: int | None = None) -> Any:
    """A rich console for text of others: none of it is markup, and nothing in it reaches the terminal but what shows.

    Args:
        width: in characters; default: that of the terminal.
    """
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        """Shows text as it is."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options | {"markup": False, "emoji": False})

    return PlainConsole(width=width, highlight=False, markup=False, emoji=False)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns errors that the user can mend into `UserError`: for steps where they come from what was passed.

    These are `ValueError`, `OSError`, and `ImportError` without a module name, which only this project raises.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, RecursionError) as error:
        if isinstance(error, ImportError) and error.name is not None:
            raise
        # A file of brackets alone, which Python's reader of JSON refuses in this way.
        if isinstance(error, RecursionError) and "JSON" not in str(error):
            raise
        raise UserError(" ".join(str(error).split()) or type(error).__name__) from error


# typer carries its own click, or in older releases takes the installed one; this class is what both show of it.
UsageError = typer.BadParameter.__mro__[1]


class _Commands(TyperGroup):
    """Lists commands below the headings that their `rich_help_panel` names, each with its whole first sentence."""

    headings: Sequence[str] = ()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        listed: dict[str, list[tuple[str, str]]] = {heading: [] for heading in self.headings}
        for name, command in self.commands.items():
            listed.setdefault(command.rich_help_panel or "Commands", []).append((name, command.get_short_help_str(999)))
        for heading, rows in listed.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def new_app(headings: Sequence[str] = (), **settings: Any) -> typer.Typer:
    """A typer application with plain tracebacks and help, which stay readable in logs and narrow windows.

    Args:
        headings: of the help, in order; a command's `rich_help_panel` says below which it is listed.
        **settings: of the application.
    """
    commands = type("Commands", (_Commands,), {"headings": headings})
    return typer.Typer(cls=commands, pretty_exceptions_enable=False, rich_markup_mode=None, **settings)


def show_help(context: typer.Context) -> None:
    """For a group of commands: prints its help and ends with wrong usage where no command was named."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def run(app: typer.Typer, arguments: Sequence[str] | None = None, name: str | None = None) -> int:
    """Run an application.

    Args:
        app: a typer application.
        arguments: the words after the program's name; default: those of the process.
        name: of the program, in its help.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = _printable_warning
    try:
        code = app(args=words, prog_name=name, standalone_mode=False)
    except UsageError as error:
        command = "" if error.ctx is None else f"; see `{error.ctx.command_path} --help`"
        return _refuse(error.format_message().rstrip(".") + _value_given(error, words) + command)
    except UserError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
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
    with progress_shown():
        code = run(app)
    sys.exit(code)


@contextmanager
def results(as_json: bool, quiet: bool = False) -> Iterator[Callable[[Any], None]]:
    """Shows progress, and keeps standard output for one JSON document where results are for machines.

    Args:
        as_json: whether results are for machines; all else that is printed then goes to standard error.
        quiet: see `progress_shown`.

    Yields:
        A function that prints a result as JSON; it does nothing where results are for people.
    """
    with progress_shown(quiet):
        if not as_json:
            yield lambda result: None
            return
        output = sys.stdout
        with redirect_stdout(sys.stderr):
            yield lambda result: print(_as_json(result), file=output)


def _as_json(result: Any) -> str:
    """JSON in which whatever does not show is escaped."""
    text = json.dumps(result, ensure_ascii=False, indent=2)
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)


def _value_given(error: Any, words: Sequence[str]) -> str:
    """The refused value of an option, where the message does not show it (that of a number out of range does not)."""
    names = getattr(getattr(error, "param", None), "opts", [])
    pairs = [*pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]
    values = [value for name, value in pairs if name in names]
    return f", not {values[-1]!r}" if values and values[-1] not in error.format_message() else ""


def _refuse(message: str) -> int:
    say(f"error: {message}", file=sys.stderr)
    return 2
