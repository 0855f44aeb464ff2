"""The two tables that every data set becomes: items and interactions.

Sources read raw files and hand two frames to `prepare`, which checks the columns (`columns`), orders every user's
history by time, drops repeated purchases, filters to the k-core and keeps the latest interactions of each user: the
preparation that S3-Rec, P5, TIGER and Mender (Paischer et al. 2025, arXiv:2412.08604) share. A `ReadReport` says what
became of every line.
"""

from __future__ import annotations

from preference_benchmark.tables.columns import labelled, require_overlap
from preference_benchmark.tables.prepare import UNTITLED, Tables, prepare
from preference_benchmark.tables.report import Counts, ReadReport

__all__ = ["UNTITLED", "Counts", "ReadReport", "Tables", "labelled", "prepare", "require_overlap"]
