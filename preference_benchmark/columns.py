"""Columns of raw tables, checked and brought to one type.

Each function takes a table as a source made it and gives the expression of one checked column; what cannot be
used is refused with the value that was found and what to do about it.
"""

from __future__ import annotations

import polars as pl

__all__ = ["identifier", "rating", "require_columns", "strings", "unix_seconds"]

# A Unix time of 1e11 seconds lies in the year 5138: such numbers are milliseconds.
_LATEST_SECOND = 100_000_000_000


def require_columns(frame: pl.DataFrame, columns: tuple[str, ...], table: str) -> None:
    """Raise a ValueError unless the table has these columns and at least one row."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the {table} table lacks the columns {missing}; found {frame.columns}. Rename or add them: "
            f"required are {list(columns)}."
        )
    if frame.is_empty():
        raise ValueError(f"the {table} table has no rows (columns {frame.columns}); pass at least one.")


def identifier(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column of ids as strings."""
    dtype = frame.schema[name]
    if not (dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer()):
        raise ValueError(f"column {name!r} has type {dtype}; pass strings or integers.")
    if frame[name].null_count():
        nulls = frame[name].null_count()
        raise ValueError(f"column {name!r} is null in {nulls:,} rows; fill or remove them.")
    return pl.col(name).cast(pl.String)


def strings(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column of text, empty where it is null or absent."""
    if name not in frame.columns:
        return pl.lit("").alias(name)
    if frame.schema[name] not in (pl.String, pl.Null):
        raise ValueError(f"column {name!r} has type {frame.schema[name]}; pass strings.")
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
            f"column 'rating' holds {outside[0]:g} and {len(outside) - 1:,} more values outside 1-5; "
            "rescale them."
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
    if (time.max() or 0) >= _LATEST_SECOND:
        raise ValueError(
            f"column 'timestamp' holds {time.max()}, which lies beyond the year 5000 in seconds; "
            "if these are milliseconds, divide them by 1000."
        )
    return pl.lit(time).alias("timestamp")


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
