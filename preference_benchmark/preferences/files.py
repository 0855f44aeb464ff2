"""Tables of preferences as files: Parquet, and beside it what is known about how they came to be, as JSON."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import polars as pl

from preference_benchmark.matching import check_preferences

__all__ = ["read_preferences", "write_preferences"]


def write_preferences(preferences: pl.DataFrame, path: str | Path, report: dict[str, object]) -> Path:
    """Write a table and its report; each appears whole or not at all.

    Args:
        preferences: as an approximator gives them.
        path: ends in .parquet; the report is written beside it, ending in .json.
        report: plain values.

    Returns:
        Where the report is.

    Raises:
        ValueError: if the path does not end in .parquet or the table lacks columns.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ValueError(f"{str(path)!r} does not end in .parquet; preferences are written as Parquet.")
    check_preferences(preferences)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        preferences.write_parquet(temporary)
        temporary.replace(path)
        beside = path.with_suffix(".json")
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        temporary.replace(beside)
    finally:
        temporary.unlink(missing_ok=True)
    return beside


def read_preferences(path: str | Path) -> tuple[pl.DataFrame, dict[str, object]]:
    """A table of preferences and its report, empty if there is none beside it.

    Raises:
        FileNotFoundError: if the table is not there.
        ValueError: if it is no table of preferences.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no preferences at {path}; write some with `preferences write --output {path}`.")
    try:
        preferences = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} is no Parquet file ({error}); pass what `preferences write` wrote.") from error
    check_preferences(preferences)
    beside = path.with_suffix(".json")
    report = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    return preferences, report if isinstance(report, dict) else {}
