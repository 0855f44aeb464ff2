"""What the command line makes of errors: one line where the message says what to do, a traceback where it is ours."""

from __future__ import annotations

import sys

import pytest

from preference_benchmark import __main__ as program
from preference_benchmark.embedding import Unavailable


@pytest.mark.parametrize("error", [ValueError("x=3"), Unavailable("x=3"), ImportError("x=3"), FileNotFoundError("x=3")])
def test_errors_that_name_a_remedy_are_one_line(error, monkeypatch, capsys):
    assert run_that_raises(error, monkeypatch) == 2
    assert capsys.readouterr().err == "error: x=3\n"


def test_other_errors_keep_their_traceback(monkeypatch):
    for error in (RuntimeError("a bug"), ModuleNotFoundError("No module named 'x'", name="x")):
        with pytest.raises(type(error)):
            run_that_raises(error, monkeypatch)


def test_an_interrupted_command_says_so_by_its_status(monkeypatch):
    assert run_that_raises(KeyboardInterrupt(), monkeypatch) == 130


def run_that_raises(error, monkeypatch):
    class Command:
        """Raise."""

        @staticmethod
        def add_arguments(parser):
            pass

        @staticmethod
        def run(arguments):
            raise error

    monkeypatch.setattr(program, "commands", lambda: {"raise": Command})
    monkeypatch.setattr(sys, "argv", ["program", "raise"])
    return program.main()
