"""Public raw formats, one file each, all read into the same two tables."""

from __future__ import annotations
