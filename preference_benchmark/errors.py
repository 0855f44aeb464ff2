"""What a command needs from outside and cannot get."""

from __future__ import annotations

__all__ = ["Unavailable"]


class Unavailable(RuntimeError, OSError):
    """A server, a model or a file of weights cannot be used; the message says why, and what to do.

    Like other failures of the surroundings it is an `OSError`, which command lines show as one line.
    """
