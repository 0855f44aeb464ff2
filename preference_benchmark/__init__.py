"""Tests whether a recommender listens: preferences in plain language, asked along six axes.

Raw public files (or your own) become two tables, the tables become examples of preference-conditioned
recommendation, as in Mender (Paischer et al. 2025, arXiv:2412.08604). Knows nothing of any model under test.
"""

from __future__ import annotations

from preference_benchmark.tables import ReadReport, Tables, prepare

__all__ = ["ReadReport", "Tables", "prepare"]
