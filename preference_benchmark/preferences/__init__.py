"""Approximators: from a user's reviews to preferences in plain language.

An approximator is called with the tables of a data set and returns up to five preferences per user and step (see
`Approximator`). `ExtractiveApproximator` needs no language model; those that do are in `preferences.llm`.
"""

from __future__ import annotations

from typing import Protocol

import polars as pl

from preference_benchmark.preferences.extractive import ExtractiveApproximator
from preference_benchmark.tables import Tables

__all__ = ["Approximator", "ExtractiveApproximator"]


class Approximator(Protocol):
    """Anything that turns the tables of a data set into preferences: by rules, by a language model, or your own.

    The task is that of Preference Discerning (Paischer et al. 2025, arXiv:2412.08604).
    """

    def __call__(self, tables: Tables) -> pl.DataFrame:
        """Preferences after every step of every user.

        A preference of step s may use the user's interactions up to and including s, and of other users' only those
        of the training period. Steps without a usable preference are absent.

        Returns:
            user_id (str), step (int64), rank (int64, 0 to 4 at most), text (str, distinct within user and step),
            sentiment ("positive" or "negative").
        """
        ...
