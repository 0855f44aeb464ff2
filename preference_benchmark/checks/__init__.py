"""Checks of a benchmark: leakage, validation, and what was published."""
