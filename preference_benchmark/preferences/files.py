"""Tables of preferences as files: Parquet, and beside it what is known about how they came to be, as JSON.

A step is a position in the kept history, which other settings of the reader or other files move. A file therefore
names the item of every step, and is used only where that item is still the one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE
from preference_benchmark.tables import Tables

__all__ = [
    "check_preferences",
    "check_replaced",
    "read_preferences",
    "restrict_to_tables",
    "write_preferences",
    "written_by",
]

_COLUMNS = ("user_id", "step", "rank", "text", "sentiment")
_KEYS = ["user_id", "step"]


def check_preferences(preferences: pl.DataFrame) -> None:
    """Raise a ValueError unless the table has the columns of an approximator's result and known sentiments."""
    missing = [name for name in _COLUMNS if name not in preferences.columns]
    if missing:
        raise ValueError(
            f"the preferences lack the columns {missing}; found {preferences.columns}. Required are {list(_COLUMNS)}."
        )
    unknown = preferences.filter(~pl.col("sentiment").is_in([POSITIVE, NEGATIVE]))["sentiment"]
    if len(unknown):
        raise ValueError(f'preferences hold the sentiment {unknown[0]!r}; use "{POSITIVE}" or "{NEGATIVE}".')


def check_replaced(path: str | Path, users: Collection[str]) -> None:
    """Refuse to write over a table that has users whom the new one is not about.

    Args:
        path: of the table; need not be there.
        users: whom the new one is about.

    Raises:
        ValueError: if preferences of other users would be lost.
    """
    if not Path(path).is_file():
        return
    try:
        written = pl.read_parquet(path, columns=["user_id"])["user_id"].cast(pl.String).unique()
    except pl.exceptions.PolarsError:
        return  # no table of preferences
    lost = len(written) - written.is_in(list(users)).sum()
    if lost:
        raise ValueError(
            f"{path} holds preferences of {len(written):,} users, {lost:,} of whom are left out now; pass --partial to "
            "write over it, or another --output."
        )


def write_preferences(preferences: pl.DataFrame, path: str | Path, report: dict[str, object], tables: Tables) -> Path:
    """Write a table, with the item of every step, and its report; each appears whole or not at all.

    Args:
        preferences: as an approximator gives them.
        path: ends in .parquet; the report is written beside it, ending in .json.
        report: plain values.
        tables: the data set that they were written about.

    Returns:
        Where the report is.

    Raises:
        ValueError: if the path does not end in .parquet, the table lacks columns, or was written about other tables.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ValueError(f"{str(path)!r} does not end in .parquet; preferences are written as Parquet.")
    check_preferences(preferences)
    named = _with_items(preferences, tables, path)
    if named["here"].null_count():
        user, step = named.filter(pl.col("here").is_null()).sort(_KEYS).select(_KEYS).row(0)
        raise ValueError(
            f"{path}: the tables have no step {step} of user {user!r}, who has preferences after it; pass the tables "
            "that the preferences were written about."
        )
    preferences = named.with_columns(item_id="here").drop("here")
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
    """A table of preferences, with the item of every step, and its report, empty if there is none beside it.

    Raises:
        FileNotFoundError: if the table is not there.
        ValueError: if it is not a table of preferences, or does not name the items.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no preferences at {path}; write some with `preferences write --output {path}`.")
    try:
        preferences = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} is not a Parquet file ({error}); pass what `preferences write` wrote.") from error
    check_preferences(preferences)
    if "item_id" not in preferences.columns:
        raise ValueError(
            f"{path} has no column item_id, the item of each user's step: an earlier version wrote it, or another "
            "program. Without it preferences may be taken for those of another step, which no check would find. Write "
            "it anew with `preferences write` (answers of a language model that are kept are not asked for again), or "
            "add the column."
        )
    beside = path.with_suffix(".json")
    report = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    return preferences, report if isinstance(report, dict) else {}


def written_by(name: str, report: Mapping[str, Any]) -> str:
    """Who wrote a table of preferences, when, about whom, and how it agrees with ratings: for a data card.

    Args:
        name: of the file.
        report: as `read_preferences` gives it; from another program it may hold anything.

    >>> report = {"approximator": "llm", "model": "m-8B", "prompt": "instruct-1", "written_on": "2026-01-31"}
    >>> written_by("x.parquet", report | {"users": 15, "population": 1500, "steps": {"written": 90, "failed": 10}})
    'm-8B (prompt instruct-1), 2026-01-31: 15 of 1,500 users, 90 of 100 steps'
    >>> written_by("x.parquet", {})
    'the file x.parquet'
    """
    model = report.get("model")
    if not isinstance(model, str) or not model:
        return f"the file {name}"
    text = f"{model} (prompt {report.get('prompt')}), {report.get('written_on', 'date unknown')}"
    users, population, steps = report.get("users"), report.get("population"), report.get("steps")
    counts = [users, population, *steps.values()] if isinstance(steps, dict) else [None]
    if all(isinstance(count, int) for count in counts):
        text += f": {users:,} of {population:,} users, {steps.get('written', 0):,} of {sum(steps.values()):,} steps"
    agreement = report.get("agreement")
    if isinstance(agreement, dict) and isinstance(agreement.get("agrees"), float):
        text += f"; {agreement_in_words(agreement)}"
    return text


def agreement_in_words(agreement: Mapping[str, float | None]) -> str:
    """How preferences agree with ratings, in one line.

    >>> agreement_in_words({"agrees": 0.8, "balanced": None, "compared": 20})
    'agreement with ratings: 80.0 % of 20 preferences'
    """
    balanced = agreement.get("balanced")
    known = isinstance(balanced, float)
    also = f" ({100 * balanced:.1f} % averaged over well and badly rated items)" if known else ""
    return f"agreement with ratings: {100 * agreement['agrees']:.1f} % of {agreement.get('compared')} preferences{also}"


def restrict_to_tables(preferences: pl.DataFrame, tables: Tables, path: str | Path) -> pl.DataFrame:
    """The preferences of those users and steps that the tables have, as an approximator gives them.

    Args:
        preferences: as `read_preferences` gives them.
        tables: the data set that they are used with.
        path: of the file, for the error.

    Raises:
        ValueError: if a step was about another item, or no preference is about the tables.
    """
    known = _with_items(preferences, tables, path).filter(pl.col("here").is_not_null())
    if known.is_empty():
        raise ValueError(f"no preference of {path} is about a user and step of this data set.")
    return known.drop("item_id", "here")


def _with_items(preferences: pl.DataFrame, tables: Tables, path: str | Path) -> pl.DataFrame:
    """The table with a column `here`, the item of its step; refuses one that names another item itself."""
    steps = tables.interactions.select(*_KEYS, here="item_id")
    typed = preferences.with_columns(pl.col("user_id").cast(pl.String), pl.col("step").cast(pl.Int64))
    named = typed.join(steps, on=_KEYS, how="left", maintain_order="left")
    if "item_id" not in named.columns:
        return named
    known = named.filter(pl.col("here").is_not_null())
    moved = known.filter(pl.col("item_id").cast(pl.String).ne_missing(pl.col("here")))
    if moved.is_empty():
        return named
    first = moved.sort(_KEYS).row(0, named=True)
    counts = [frame.select(_KEYS).n_unique() for frame in (moved, known)]
    raise ValueError(
        f"{path}: what user {first['user_id']!r} wants after step {first['step']} was written when that step was item "
        f"{first['item_id']!r}; here it is item {first['here']!r}, and {counts[0]:,} of {counts[1]:,} steps have "
        "moved like this. The preferences were written with other settings, such as max_history or min_item, or about "
        "other files; write them anew with the same --option and --set."
    )
