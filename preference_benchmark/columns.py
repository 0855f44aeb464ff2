"""Columns of raw tables, checked and brought to one type.

Each function takes a table as a source made it and gives the expression of one checked column; what cannot be
used is refused with the value that was found and what to do about it.
"""

from __future__ import annotations

import polars as pl

__all__ = [
    "identifier",
    "milliseconds",
    "rating",
    "require_columns",
    "require_overlap",
    "require_rows",
    "strings",
    "unix_seconds",
]

# A Unix time of 1e11 seconds lies in the year 5138: such numbers are milliseconds.
_LATEST_SECOND = 100_000_000_000
_LEAST_OVERLAP = 0.05  # share of the items below which a catalogue is taken for another data set's


def require_columns(columns: list[str], required: tuple[str, ...], table: str) -> None:
    """Raise a ValueError unless a table has these columns."""
    missing = [name for name in required if name not in columns]
    if missing:
        raise ValueError(
            f"the {table} table lacks the columns {missing}; found {columns}. Rename or add them: required are "
            f"{list(required)}."
        )


def require_rows(frame: pl.DataFrame, table: str) -> None:
    """Raise a ValueError if a table is empty."""
    if frame.is_empty():
        raise ValueError(f"the {table} table has no rows (columns {frame.columns}); pass at least one.")


def require_overlap(found: pl.Series, wanted: pl.Series, listed: pl.Series, file: str = "the items table") -> None:
    """Raise a ValueError if nearly none of the items that people met are described: then it is another catalogue.

    Args:
        found: whether each of the wanted ids is listed.
        wanted: distinct item ids of the interactions.
        listed: item ids of the catalogue.
        file: what the catalogue is called in the message.
    """
    if found.sum() < _LEAST_OVERLAP * len(wanted):
        raise ValueError(
            f"{file} describes only {found.sum():,} of the {len(wanted):,} items of the interactions (they are called "
            f"{wanted.head(3).to_list()}, its own {listed.head(3).to_list()}): it seems to be the catalogue of "
            "another category or data set. Pass the one that belongs to the interactions."
        )


def identifier(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column of ids as strings."""
    dtype = frame.schema[name]
    if not (dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer()):
        raise ValueError(f"column {name!r} has type {dtype}; pass strings or integers.")
    if frame[name].null_count():
        nulls = frame[name].null_count()
        raise ValueError(f"column {name!r} is null in {nulls:,} rows; fill or remove them.")
    return pl.col(name).cast(pl.String)


def strings(schema: pl.Schema, name: str) -> pl.Expr:
    """A column of text, empty where it is null or absent."""
    if name not in schema:
        return pl.lit("").alias(name)
    if schema[name] not in (pl.String, pl.Null):
        raise ValueError(f"column {name!r} has type {schema[name]}; pass strings.")
    return pl.col(name).cast(pl.String).fill_null("")


def rating(frame: pl.DataFrame) -> pl.Expr:
    """The rating column as numbers from 1 to 5, null where it is unknown or absent."""
    if "rating" not in frame.columns:
        return pl.lit(None, dtype=pl.Float64).alias("rating")
    dtype = frame.schema["rating"]
    if not (dtype.is_numeric() or dtype == pl.Null):
        raise ValueError(f"column 'rating' has type {dtype}; pass numbers from 1 to 5, null where unknown.")
    value = frame["rating"].cast(pl.Float64).fill_nan(None)
    outside = value.filter((value < 1) | (value > 5))
    if len(outside):
        raise ValueError(
            f"column 'rating' holds {outside[0]:g} and {len(outside) - 1:,} more values outside 1-5; rescale them."
        )
    return pl.lit(value).alias("rating")


def unix_seconds(frame: pl.DataFrame) -> pl.Expr:
    """The timestamp column as Unix seconds, or the row number where there is none."""
    if "timestamp" not in frame.columns:
        return pl.int_range(pl.len(), dtype=pl.Int64).alias("timestamp")
    time = frame["timestamp"]
    if time.dtype == pl.String:
        time = _from_iso(time)
    if time.dtype == pl.Date or isinstance(time.dtype, pl.Datetime):
        time = time.dt.epoch("s")
    if not (time.dtype.is_numeric() or time.dtype == pl.Null):
        raise ValueError(
            f"column 'timestamp' has type {time.dtype}; pass integer Unix seconds, dates or ISO 8601 text."
        )
    time = (time.fill_nan(None) if time.dtype.is_float() else time).cast(pl.Int64)
    late = time >= _LATEST_SECOND
    if late.any():
        example = time.filter(late)[0]
        if not late.all():  # all that are known
            _refuse_mixed(time, late)
        raise ValueError(
            f"column 'timestamp' holds {example}, which lies beyond the year 5000 in seconds; "
            "if these are milliseconds, divide them by 1000."
        )
    return pl.lit(time).alias("timestamp")


def milliseconds(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column of Unix milliseconds as `timestamp` in whole Unix seconds; only what is in the column is checked.

    Raises:
        ValueError: if some of them, or all, can only be seconds.
    """
    time = frame[name]
    late = time >= _LATEST_SECOND
    if not late.all():
        if late.any():
            _refuse_mixed(time, late)
        raise ValueError(
            f"column {name!r} holds {time.drop_nulls()[0]}, which is {_day(time.drop_nulls()[0] // 1000)} in "
            "milliseconds; if these are seconds, multiply them by 1000."
        )
    return (pl.col(name) // 1000).alias("timestamp")


def _refuse_mixed(time: pl.Series, late: pl.Series) -> None:
    """Times of two units order no history; show one of each, and where."""
    late = late.fill_null(False)
    early = ~late & time.is_not_null()
    first, other = early.arg_true()[0], late.arg_true()[0]
    raise ValueError(
        f"column {time.name!r} mixes units: row {first} holds {time[first]} ({_day(time[first])} in seconds), row "
        f"{other} holds {time[other]} ({_day(time[other] // 1000)} in milliseconds); {early.sum():,} rows look like "
        f"seconds and {late.sum():,} like milliseconds. Bring all of them to one unit."
    )


def _day(seconds: int) -> str:
    day = pl.select(pl.from_epoch(pl.lit(seconds), "s").dt.strftime("%Y-%m-%d")).item()
    return day or "no date"


def _from_iso(text: pl.Series) -> pl.Series:
    """Unix seconds of ISO 8601 text (UTC where no zone is given) or of digits; empty text is null."""
    text = text.str.strip_chars().replace("", None)
    frame = text.to_frame("text").select(
        "text",
        digits=pl.col("text").str.to_integer(strict=False, dtype=pl.Int64),
        moment=pl.col("text").str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00").str.replace(" ", "T"),
    )
    with_zone = pl.col("moment").str.replace("Z$", "+00:00").str.replace(r"(T[\d:.]+)$", "${1}+00:00")
    moment = with_zone.str.to_datetime("%+", strict=False, time_unit="us", time_zone="UTC")
    seconds = frame.select(pl.coalesce("digits", moment.dt.epoch("s"))).to_series()
    wrong = text.filter(seconds.is_null() & text.is_not_null())
    if len(wrong):
        raise ValueError(
            f"column 'timestamp' holds {wrong[0]!r} and {len(wrong) - 1:,} more values that are neither Unix "
            "seconds nor ISO 8601 such as 2014-07-15 or 2014-07-15T12:30:00."
        )
    return seconds
