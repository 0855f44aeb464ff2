"""What a person did wrong, told apart from what the program did wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["UserError", "user_errors"]


class UserError(Exception):
    """Bad input: the message says what came, what was expected and what to do. The command line shows that one line."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns `ValueError` and `OSError` into `UserError`: for steps in which these come from what a person passed."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split()) or type(error).__name__) from error
