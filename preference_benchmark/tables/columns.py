"""Columns of raw tables, checked and brought to one type: ids, texts, numbers, times, lists of text.

Nothing is guessed. A value that cannot be used, or that has two readings, is refused with what it is, where it stands,
and the option that says which reading is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

__all__ = [
    "DATES",
    "FIRST_SECOND",
    "MISSING",
    "Where",
    "by_row",
    "identifiers",
    "labelled",
    "numbers",
    "ratings",
    "require_columns",
    "require_overlap",
    "require_rows",
    "name_list",
    "shown",
    "text_lists",
    "texts",
    "times",
]

# Where the value at a position of a column stands, for error messages: "row 7", "line 9 of interactions.csv".
Where = Callable[[int], str]

# What programs write for a missing number or time, in lower case.
MISSING = ("", "-", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "nil", "none", "null", "\\n")
DATES = ("auto", "iso", "seconds", "milliseconds", "microseconds", "nanoseconds", "excel")

_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_INTEGER = r"^[+-]?[0-9]{1,18}$"
_LEAST_OVERLAP = 0.05  # share of the items below which a catalogue is taken for another data set's

# Unix seconds of 1e8 and 1e11 are the years 1973 and 5138: numbers between are seconds, larger ones another unit.
FIRST_SECOND, _LAST_SECOND = 100_000_000, 100_000_000_000
_PER_SECOND = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
_LARGEST = 9.2e18  # of a 64-bit integer
# Days since 1899-12-30, as spreadsheets count them, from 1954 to 2118; calendar years; days written as YYYYMMDD.
_EXCEL, _YEARS, _BASIC_DATES = (20_000, 80_000), (1_900, 2_100), (19_000_101, 21_001_231)
_EXCEL_EPOCH, _DAY = 25_569, 86_400

_SHOWN, _NAMES = 60, 20  # characters of a value, and names of columns, that an error shows

_OFFSET = r"([Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?"
_SECOND = r"([0-9]{2})(?:[.,][0-9]+)?"
_EXTENDED = rf"^([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[Tt ]([0-9]{{2}}:[0-9]{{2}})(?::{_SECOND})?\s?{_OFFSET})?$"
_BASIC = rf"^([0-9]{{8}})(?:[Tt]([0-9]{{4}})(?:{_SECOND})?{_OFFSET})?$"
_ISO_EXAMPLES = "2014-07-15, 2014-07-15 12:30 or 2014-07-15T12:30:00+02:00"


def shown(value: object) -> str:
    """A value for an error message, which a long one must not fill."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}...{text[-1]}"


def name_list(names: Iterable[str]) -> str:
    """Names of columns for an error message: the first of them, none of them long."""
    names = list(names)
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return f"[{', '.join(map(shown, names[:_NAMES]))}]{more}"


def by_row(position: int) -> str:
    """Where a value stands in a table that was read from no file."""
    return f"row {position}"


def require_columns(columns: list[str], required: tuple[str, ...], table: str) -> None:
    """Raise a ValueError unless a table has these columns."""
    missing = [name for name in required if name not in columns]
    if missing:
        raise ValueError(
            f"{table} lacks the columns {missing}; found {name_list(columns)}. Rename or add "
            f"them: required are {list(required)}."
        )


def require_rows(frame: pl.DataFrame, table: str) -> None:
    """Raise a ValueError if a table is empty."""
    if frame.is_empty():
        raise ValueError(f"{table} has no rows (columns {frame.columns}); pass at least one.")


def require_overlap(listed: pl.Series, wanted: pl.Series, known: pl.Series, file: str = "the items table") -> None:
    """Raise a ValueError if the catalogue describes nearly none of the items that were bought.

    Args:
        listed: whether each of the wanted ids is in the catalogue.
        wanted: distinct item ids of the interactions.
        known: item ids of the catalogue.
        file: what the catalogue is called in the message.
    """
    if listed.sum() < _LEAST_OVERLAP * len(wanted):
        raise ValueError(
            f"{file} describes only {listed.sum():,} of the {len(wanted):,} items of the interactions (they are called "
            f"{wanted.head(3).to_list()}, its own {known.head(3).to_list()}): it seems to be the catalogue of "
            "another category or data set. Pass the catalogue of these interactions."
        )


def identifiers(values: pl.Series) -> pl.Series:
    """A column of ids as strings; null where there is none."""
    kind = values.dtype
    if not (kind in (pl.String, pl.Null) or isinstance(kind, pl.Categorical | pl.Enum) or kind.is_integer()):
        raise ValueError(f"column {values.name!r} has type {kind}; pass strings or integers.")
    text = values.cast(pl.String)
    return _without(text, text == "")


def texts(schema: pl.Schema, name: str) -> pl.Expr:
    """A column of text, empty where it is null or absent."""
    if name not in schema:
        return pl.lit("").alias(name)
    if schema[name] not in (pl.String, pl.Null):
        raise ValueError(f"column {name!r} has type {schema[name]}; pass strings.")
    return pl.col(name).cast(pl.String).fill_null("")


def numbers(values: pl.Series, *, decimal: str = ".", where: Where = by_row) -> pl.Series:
    """A column of numbers as float64; null where a value is missing (see `MISSING`).

    Args:
        values: numbers, or their text.
        decimal: what stands before the decimals in text, "." or ",".
        where: says where a value stands.

    Raises:
        ValueError: if a value is not a finite number.

    >>> numbers(pl.Series("price", ["4", " 2.5", "N/A", ""])).to_list()
    [4.0, 2.5, None, None]
    """
    if decimal not in (".", ","):
        raise ValueError(f'decimal={decimal!r} is not known; pass "." or ",".')
    if values.dtype.is_numeric() or values.dtype == pl.Null:
        found = values.cast(pl.Float64)
        found = _without(found, found.is_nan())
        _refuse(values, found.is_infinite(), where, "is not a finite number; correct it, or leave it empty.")
        return found
    if values.dtype != pl.String:
        raise ValueError(f"column {values.name!r} has type {values.dtype}; pass numbers.")
    text = _stripped(values)
    written = text if decimal == "." else text.str.replace(",", ".", literal=True)
    fits = written.str.contains(_NUMBER) & (True if decimal == "." else ~text.str.contains(".", literal=True))
    _refuse(
        values,
        text.is_not_null() & ~fits & text.str.contains(r"^[+-]?[0-9]+,[0-9]+$"),
        where,
        'has a decimal comma or a separator of thousands; pass decimal="," if it is a decimal comma.',
    )
    _refuse(values, text.is_not_null() & ~fits, where, "is not a number; correct it, or leave it empty if unknown.")
    found = written.cast(pl.Float64)
    _refuse(values, found.is_infinite(), where, "is not a finite number; correct it, or leave it empty.")
    return found


def ratings(values: pl.Series, *, decimal: str = ".", where: Where = by_row) -> pl.Series:
    """A column of ratings from 1 to 5 as float64; null where unknown. Arguments and errors: see `numbers`."""
    found = numbers(values, decimal=decimal, where=where)
    _refuse(values, (found < 1) | (found > 5), where, "is outside 1-5; rescale the ratings.")
    return found


def text_lists(values: pl.Series) -> pl.Series:
    """A column of lists of text: lower case, without blanks around them, each text once; empty where null.

    >>> text_lists(pl.Series("aspects", [["Black ", "loose", "black"], None])).to_list()
    [['black', 'loose'], []]
    """
    if values.dtype not in (pl.Null, pl.List(pl.Null), pl.List(pl.String)):
        raise ValueError(f"column {values.name!r} has type {values.dtype}; pass lists of strings.")
    text = pl.element().str.strip_chars().str.to_lowercase()
    lists = pl.col(values.name).cast(pl.List(pl.String)).list.eval(text.filter(text != ""))
    return values.to_frame().select(lists.list.unique(maintain_order=True).fill_null([])).to_series()


def times(values: pl.Series, *, dates: str = "auto", where: Where = by_row) -> pl.Series:
    """A column of times as whole Unix seconds, int64; null where a value is missing (see `MISSING`).

    Args:
        values: dates, date-times, numbers, or text of ISO 8601 or numbers.
        dates: how numbers and text are read. "auto": numbers as Unix seconds or, where all of them are such days, as
            YYYYMMDD; text as ISO 8601, in UTC where no zone is given. "iso": all as ISO 8601. "seconds",
            "milliseconds", "microseconds", "nanoseconds": numbers since 1970. "excel": days as spreadsheets count
            them. Or a format such as "%d.%m.%Y %H:%M".
        where: says where a value stands.

    Raises:
        ValueError: if a value is not a time, or has two readings.

    >>> times(pl.Series("timestamp", ["2023-11-14 23:13:20+01", "2023-11-14T22:13:20Z", None])).to_list()
    [1700000000, 1700000000, None]
    """
    if dates not in DATES and "%" not in dates:
        raise ValueError(f'dates={dates!r} is not known; pass one of {list(DATES)}, or a format such as "%d.%m.%Y".')
    kind = values.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        return values.dt.epoch("s")
    if kind == pl.Null:
        return values.cast(pl.Int64)
    if kind.is_integer() and (dates == "iso" or "%" in dates):
        values, kind = values.cast(pl.String), pl.String
    if kind.is_numeric():
        return _from_numbers(values, values, dates, where)
    if kind != pl.String:
        raise ValueError(f"column {values.name!r} has type {kind}; pass Unix seconds, dates or ISO 8601 text.")
    text = _stripped(values)
    if "%" in dates:
        return _from_format(values, text, dates, where)
    numeric = text.str.contains(_NUMBER).fill_null(False)
    if dates == "iso" or (dates == "auto" and not numeric.any()):
        return _from_iso(values, text, dates, where)
    if dates == "auto" and not (numeric | text.is_null()).all():
        _refuse_mixed_forms(values, text, numeric, where)
    _refuse(values, text.is_not_null() & ~numeric, where, f"is not a number, as dates={dates!r} asks for.")
    whole = text.str.contains(_INTEGER)
    found = text.cast(pl.Int64) if (whole | text.is_null()).all() else text.cast(pl.Float64)
    return _from_numbers(values, found, dates, where)


def _from_numbers(values: pl.Series, found: pl.Series, dates: str, where: Where) -> pl.Series:
    found = _without(found, found.is_nan()) if found.dtype.is_float() else found
    _refuse(values, found.cast(pl.Float64).abs() >= _LARGEST, where, "is not a time; correct it, or leave it empty.")
    if dates == "excel":
        return ((found.cast(pl.Float64) - _EXCEL_EPOCH) * _DAY).round().cast(pl.Int64)
    if dates != "auto":
        return _whole(found) // _PER_SECOND[dates]
    found = _whole(found)
    known = found.drop_nulls()
    if known.is_empty():
        return found
    present = found.is_not_null()
    late, early = found >= _LAST_SECOND, found < FIRST_SECOND
    if late.any():
        if not late.filter(present).all():
            _refuse_mixed_units(found, late, where)
        unit = _unit(known.max())
        _refuse(
            values,
            late,
            where,
            f"is beyond the year 5000 in seconds and {_day(known[0] // _PER_SECOND[unit])} in {unit}; pass "
            f"dates={unit!r} if that is meant.",
        )
    days = found.is_between(*_BASIC_DATES) & _from_basic(found).is_not_null()
    years, excel = found.is_between(*_YEARS), found.is_between(*_EXCEL)
    if days.filter(present).all():
        return _from_basic(found)
    if years.filter(present).all():
        _refuse(values, years, where, 'may be a year or a second of 1970; pass dates="%Y" or dates="seconds".')
    if excel.filter(present).all():
        reason = 'may be a day as spreadsheets count it or a number that orders; pass dates="excel" or dates="seconds".'
        _refuse(values, excel, where, reason)
    unlike = years | excel | days
    if early.filter(present).all():
        # Numbers below the seconds of 1973 are an order. One that long would have numbers that are not days.
        eight = found.is_between(10_000_000, 99_999_999)
        unlike = days if (days == eight).filter(present).all() else days & False
    if unlike.any():
        first, other = (mask.fill_null(False).arg_true()[0] for mask in (unlike, ~unlike & present))
        raise ValueError(
            f"column {values.name!r} mixes forms: {where(first)} holds {shown(values[first])}, {where(other)} holds "
            f'{shown(values[other])}. Write all of them in one form; dates="seconds" reads all as Unix seconds.'
        )
    return found


def _whole(found: pl.Series) -> pl.Series:
    return found.floor().cast(pl.Int64) if found.dtype.is_float() else found.cast(pl.Int64)


def _unit(largest: int) -> str:
    """The unit in which a large number is a time of our days."""
    return next(unit for unit, per in _PER_SECOND.items() if largest < _LAST_SECOND * per or unit == "nanoseconds")


def _from_basic(days: pl.Series) -> pl.Series:
    """Unix seconds of YYYYMMDD; null where there is no such day."""
    return days.cast(pl.String).str.to_date("%Y%m%d", strict=False).dt.epoch("s")


def _from_format(values: pl.Series, text: pl.Series, form: str, where: Where) -> pl.Series:
    # What a format leaves out of the date is the first of the year or month.
    missing = "".join(part for part, names in ((" %m", "mbBj"), (" %d", "dej")) if not _names(form, names))
    moment = (text + missing.replace("%m", "01").replace("%d", "01")).str.to_datetime(
        form + missing, strict=False, time_unit="us", ambiguous="null"
    )
    _refuse(values, text.is_not_null() & moment.is_null(), where, f"does not have the form dates={form!r}.")
    return moment.dt.epoch("s")


def _names(form: str, letters: str) -> bool:
    return any(f"%{letter}" in form for letter in letters) or any(whole in form for whole in ("%F", "%D", "%x", "%c"))


def _from_iso(values: pl.Series, text: pl.Series, dates: str, where: Where) -> pl.Series:
    """Unix seconds of ISO 8601 text, in its extended or basic form."""
    frame = text.to_frame("text")
    extended = frame.select(pl.col("text").str.extract_groups(_EXTENDED)).unnest("text")
    basic = frame.select(pl.col("text").str.extract_groups(_BASIC)).unnest("text")
    extended.columns, basic.columns = (["day", "time", "second", "zone"] for _ in range(2))
    day, time = basic["day"], basic["time"]
    basic = basic.with_columns(
        day=day.str.slice(0, 4) + "-" + day.str.slice(4, 2) + "-" + day.str.slice(6, 2),
        time=time.str.slice(0, 2) + ":" + time.str.slice(2, 2),
    )
    parts = extended.select(pl.coalesce(name, basic[name]).alias(name) for name in extended.columns)
    moment = pl.concat_str(
        "day", pl.lit("T"), pl.col("time").fill_null("00:00"), pl.lit(":"), pl.col("second").fill_null("00")
    ).str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="ms")
    digits = pl.col("zone").str.extract(r"^[+-]([0-9:]+)$").str.replace(":", "").str.pad_end(4, "0")
    hours, minutes = (digits.str.slice(start, 2).cast(pl.Int64) for start in (0, 2))
    offset = pl.when(pl.col("zone").str.starts_with("-")).then(-1).otherwise(1) * (hours * 60 + minutes) * 60
    offset = pl.when((hours <= 15) & (minutes < 60)).then(offset).when(hours.is_null()).then(0)
    parts = parts.with_columns(seconds=moment.dt.epoch("s") - offset)
    _refuse(
        values,
        text.is_not_null() & parts["seconds"].is_null(),
        where,
        f"is neither Unix seconds nor ISO 8601 such as {_ISO_EXAMPLES}; pass dates with the format of the column, such "
        'as dates="%d/%m/%Y".',
    )
    zoned, local = (
        parts.select(expression).to_series()
        for expression in (pl.col("zone").is_not_null(), pl.col("time").is_not_null() & pl.col("zone").is_null())
    )
    if dates == "auto" and zoned.any() and local.any():
        first, other = zoned.arg_true()[0], local.arg_true()[0]
        raise ValueError(
            f"column {values.name!r} mixes times with and without a zone: {where(first)} holds {shown(values[first])}, "
            f'{where(other)} holds {shown(values[other])}. Add the zone, or pass dates="iso" to read the latter as UTC.'
        )
    return parts["seconds"]


def _refuse_mixed_forms(values: pl.Series, text: pl.Series, numeric: pl.Series, where: Where) -> None:
    """Numbers among ISO dates have several readings."""
    first, other = numeric.arg_true()[0], (~numeric & text.is_not_null()).arg_true()[0]
    basic = (text.filter(numeric).str.contains(_BASIC)).all()
    advice = ' dates="iso" reads such numbers as YYYYMMDD.' if basic else ""
    raise ValueError(
        f"column {values.name!r} mixes forms: {where(first)} holds {shown(values[first])}, a number, and "
        f"{where(other)} holds {shown(values[other])}. Write all of them in one form.{advice}"
    )


def _refuse_mixed_units(found: pl.Series, late: pl.Series, where: Where) -> None:
    """Times of two units order no history; show one of each, and where."""
    late = late.fill_null(False)
    early = ~late & found.is_not_null()
    first, other = early.arg_true()[0], late.arg_true()[0]
    unit = _unit(found[other])
    raise ValueError(
        f"column {found.name!r} mixes units: {where(first)} holds {found[first]} ({_day(found[first])} in seconds), "
        f"{where(other)} holds {found[other]} ({_day(found[other] // _PER_SECOND[unit])} in {unit}); {early.sum():,} "
        f"values look like seconds and {late.sum():,} like {unit}. Bring all of them to one unit."
    )


def _day(seconds: int) -> str:
    """The date of a Unix time, for people."""
    day = pl.select(pl.from_epoch(pl.lit(seconds), "s").dt.strftime("%Y-%m-%d")).item()
    return day or "no date"


def _stripped(values: pl.Series) -> pl.Series:
    """Text without blanks around it; null where it stands for a missing value."""
    text = values.str.strip_chars()
    return _without(text, text.str.to_lowercase().is_in(MISSING))


def _without(values: pl.Series, wrong: pl.Series) -> pl.Series:
    """The values with null in place of some."""
    return pl.select(pl.when(~wrong.fill_null(False)).then(values).alias(values.name)).to_series()


def _refuse(values: pl.Series, wrong: pl.Series, where: Where, reason: str) -> None:
    """Raise a ValueError that shows the first of the wrong values and counts them."""
    wrong = wrong.fill_null(False)
    if wrong.any():
        first = wrong.arg_true()[0]
        others = f" (and {wrong.sum() - 1:,} more)" if wrong.sum() > 1 else ""
        raise ValueError(f"column {values.name!r}: {where(first)} holds {shown(values[first])}{others}, which {reason}")


def labelled(**fields: str | pl.Expr) -> pl.Expr:
    """The fields as one text, "Label: value. Label: value", without those that are null or empty.

    Args:
        fields: column names or string expressions by label, in order.

    >>> frame = pl.DataFrame({"name": ["Mug", "Tea"], "maker": ["Dovetail", ""]})
    >>> frame.select(text=labelled(Title="name", Brand="maker"))["text"].to_list()
    ['Title: Mug. Brand: Dovetail', 'Title: Tea']
    """
    parts = []
    for label, given in fields.items():
        value = pl.col(given) if isinstance(given, str) else given
        parts.append(pl.when(value != "").then(pl.concat_str(pl.lit(f"{label}: "), value)))
    return pl.concat_str(parts, separator=". ", ignore_nulls=True)
