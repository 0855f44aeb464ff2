"""What an approximator is: anything that turns the tables of a data set into preferences.

`build_benchmark(approximate=...)` takes any of them, and so does whoever wants to compare them: by rules
(`ExtractiveApproximator`), by a language model (`LlmApproximator`), or your own.
"""

from __future__ import annotations

from typing import Protocol

import polars as pl

from preference_benchmark.tables import Tables

__all__ = ["Approximator"]


class Approximator(Protocol):
    """Writes preferences in the manner of Preference Discerning (Paischer et al. 2025, arXiv:2412.08604)."""

    def __call__(self, tables: Tables) -> pl.DataFrame:
        """Preferences after every step of every user.

        A preference of step s may know the user's interactions up to and including s, and of other users' nothing
        beyond the training period. Steps for which nothing usable could be written are absent.

        Returns:
            user_id (str), step (int64), rank (int64, 0 to 4 at most), text (str, distinct within user and step),
            sentiment ("positive" or "negative").
        """
        ...
