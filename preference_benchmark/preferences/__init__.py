"""Approximators: from a user's reviews to preferences in plain language.

An approximator is called with the tables of a data set and returns five preferences per user and step, with the
columns user_id, step, rank, text and sentiment. A preference of step s knows reviews up to and including s.
"""

from __future__ import annotations

from preference_benchmark.preferences.extractive import ExtractiveApproximator

__all__ = ["ExtractiveApproximator"]
