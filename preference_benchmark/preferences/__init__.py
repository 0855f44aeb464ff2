"""Approximators: from a user's reviews to preferences in plain language.

An approximator is called with the tables of a data set and returns up to five preferences per user and step (see
`Approximator`). `ExtractiveApproximator` needs no language model; those that do are in `preferences.llm`.
"""

from __future__ import annotations

from preference_benchmark.preferences.extractive import ExtractiveApproximator
from preference_benchmark.preferences.protocol import Approximator

__all__ = ["Approximator", "ExtractiveApproximator"]
