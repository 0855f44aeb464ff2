"""Errors that name a remedy are one line, others keep their traceback; exit codes say which it was."""

from __future__ import annotations

import json
import logging
import warnings

import pytest
import typer
from hostile_text import hostile_text
from rich.table import Table

from mender.terminal import UserError, new_app, new_console, results, run, say, user_errors
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


def test_text_of_others_is_shown_and_not_obeyed(capsys):
    console = new_console(width=500)
    texts = hostile_text("shown", "markup")
    for text in texts:
        table = Table(text, title=text)
        table.add_row(text)
        console.print(table)
        console.rule(text)
        console.print(text, style="yellow")
        say(text)
        with pytest.raises(UserError), user_errors():
            raise ValueError(text)
        assert run(app_that_raises(ValueError(text)), []) == 2
    shown = "".join(capsys.readouterr())
    assert [one for one in shown if not one.isprintable() and one != "\n"] == []
    assert shown.count("[bold]b[/] [link=http://evil]x[/link] :smile: [/]") == 7
    assert shown.count("<script>alert(1)</script>") == 7


def test_warnings_and_logs_of_libraries_show_and_are_not_obeyed(caplog):
    shown = []

    def complain() -> None:
        for text in hostile_text("shown", "markup"):
            logging.getLogger("library").warning("found %s", text)
            shown.append(warnings.formatwarning(text, UserWarning, "library.py", 1))

    app = new_app()
    app.command()(complain)
    assert run(app, []) == 0
    shown = "".join([*shown, *caplog.messages])
    assert shown.count("gnorts") == 2
    assert [one for one in shown if not one.isprintable() and one != "\n"] == []


def test_json_for_machines_escapes_what_does_not_show(capsys):
    content = {text: [text, "café"] for text in hostile_text()}
    with results(as_json=True) as show:
        show(content)
    written = capsys.readouterr().out
    assert all(one.isprintable() or one == "\n" for one in written) and "café" in written
    assert json.loads(written) == content
