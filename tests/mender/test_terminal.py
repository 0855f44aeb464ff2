"""Errors that name a remedy are one line, others keep their traceback; exit codes say which it was."""

from __future__ import annotations

import json

import pytest
import typer
from rich.table import Table

from mender.terminal import UserError, new_app, new_console, results, run, user_errors
from preference_benchmark.embedding import Unavailable


def app_that_raises(error):
    app = new_app()

    @app.command()
    def fail() -> None:
        with user_errors():
            raise error

    return app


@pytest.mark.parametrize(
    "error",
    [ValueError("x=3"), Unavailable("x=3"), ImportError("x=3"), FileNotFoundError("x=3"), UserError("x=3")],
    ids=lambda error: type(error).__name__,
)
def test_errors_that_name_a_remedy_are_one_line(error, capsys):
    assert run(app_that_raises(error), []) == 2
    assert capsys.readouterr().err == "error: x=3\n"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ModuleNotFoundError("No module named 'x'", name="x")])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run(app_that_raises(error), [])


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (typer.Exit(1), 1), (typer.Abort(), 130)])
def test_exit_codes(error, code):
    assert run(app_that_raises(error), []) == code


def test_json_that_is_nested_too_deeply_is_bad_input(capsys):
    with pytest.raises(RecursionError) as nested:
        json.loads("[" * 100_000)
    assert run(app_that_raises(nested.value), []) == 2
    assert "recursion" in capsys.readouterr().err
    with pytest.raises(RecursionError):
        run(app_that_raises(RecursionError("maximum recursion depth exceeded")), [])


HOSTILE = "\x1b[31mred\x9b2J [bold]b[/] [link=http://evil]x[/link] :smile: \u202egnorts"


def test_text_of_others_is_shown_and_not_obeyed(capsys):
    console = new_console(width=150)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.rule(HOSTILE)
    console.print(HOSTILE, style="yellow")
    with pytest.raises(UserError), user_errors():
        raise ValueError(HOSTILE)
    assert run(app_that_raises(ValueError(HOSTILE)), []) == 2
    shown = "".join(capsys.readouterr())
    assert not set(shown) & {"\x1b", "\x9b", "\u202e"}
    assert shown.count("[bold]b[/] [link=http://evil]x[/link] :smile:") == 6


def test_json_for_machines_escapes_what_does_not_show(capsys):
    with results(as_json=True) as show:
        show({HOSTILE: [HOSTILE, "café"]})
    written = capsys.readouterr().out
    assert not set(written) & {"\x1b", "\x9b", "\u202e"} and "café" in written
    assert json.loads(written) == {HOSTILE: [HOSTILE, "café"]}
