"""Errors that name a remedy are one line, others keep their traceback; exit codes say which it was."""

from __future__ import annotations

import pytest
import typer

from mender.terminal import UserError, new_app, run, user_errors
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
