"""Your own data: one table of interactions and one of items, as CSV, JSON lines or Parquet.

`interactions.csv` (or .tsv, .jsonl, .parquet): `user_id, item_id` and, where you have them, `timestamp`, `rating`
(1-5), `review`. `items.csv`: `item_id, title` and, where you have them, `text` (what is embedded), `aspects` (attribute
phrases), and any columns of your own. Columns of other names are named by `columns`. Nothing is guessed: what has two
readings is refused with file, line, value, and the option that says which reading is meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from preference_benchmark.sources.delimited import parquet_errors, read_csv, scan_parquet
from preference_benchmark.sources.raw_files import find_file
from preference_benchmark.sources.raw_lines import (
    LINE,
    LineCount,
    RawLines,
    as_json,
    field_names,
    first_fields,
    read_records,
    read_report,
)
from preference_benchmark.tables import Tables, prepare
from preference_benchmark.tables.columns import MISSING, Where, name_list, ratings, shown, times

__all__ = ["read_table"]

_CSV, _JSON = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json")
_ENDINGS = (*(f"{end}{gz}" for end in (*_CSV, *_JSON) for gz in ("", ".gz")), ".parquet")
_COLUMNS = {
    "interactions": ("user_id", "item_id", "timestamp", "rating", "review"),
    "items": ("item_id", "title", "text", "aspects"),
}
_REQUIRED = {"interactions": ("user_id", "item_id"), "items": ("item_id", "title")}


def read_table(
    path: str | Path,
    *,
    items: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    dates: str = "auto",
    decimal: str = ".",
    list_separator: str | None = None,
    separator: str | None = None,
    quote: str = '"',
    encoding: str = "utf-8",
    max_malformed: float = 0.0,
    min_user: int = 3,
    min_item: int = 1,
    unbought: str = "keep",
    **options: object,
) -> Tables:
    """Tables from your own files.

    Args:
        path: the folder that holds `interactions.*` and `items.*`, or the file of interactions. Of Parquet only the
            reviews of interactions that stay are held in memory, so prefer it for large tables.
        items: the file of items; by default `items.*` in the same folder.
        columns: what your columns are called, by our names: {"user_id": "customer", "item_id": "sku"}.
        dates: how times are read; see `tables.columns.times`.
        decimal: what stands before the decimals of ratings, "." or ",".
        list_separator: what separates aspects in one field; None: "|" or ";", whichever the column uses.
        separator: what separates fields of CSV; None: comma, semicolon, tab or bar, whichever the header shows.
        quote: what encloses fields of CSV that hold separators or line ends; "" if nothing does.
        encoding: of CSV without a byte order mark.
        max_malformed: share of malformed lines (no JSON, another number of fields than the header) above which a file
            is refused; below it they are left out and counted.
        min_user: fewest interactions of a user: one to learn from, two to be held out.
        min_item: fewest interactions of an item.
        unbought: "keep" every item of the items table in the catalogue, or "drop" those without an interaction.
        options: passed on to `prepare`: max_history, repeats, unknown_items.

    Raises:
        FileNotFoundError: if a file is missing; lists the expected names.
        ValueError: if a file cannot be read, or its columns cannot be used.
    """
    interactions = _find(path, "interactions")
    catalogue = _find(items or interactions.parent, "items")
    files = {"interactions": interactions, "items": catalogue}
    reader = _Reader(dict(columns or {}), separator, quote, encoding, max_malformed)
    with parquet_errors(*files.values()):
        raw = {table: reader.read(file, table) for table, file in files.items()}
        reader.check_columns(raw)
        rows = _converted(raw["interactions"], dates=dates, decimal=decimal)
        goods = _listed(raw["items"], list_separator)
        used = {"interactions": rows.lazy().select(pl.len()).collect().item(), "items": goods.height}
        return prepare(
            goods,
            rows,
            min_user=min_user,
            min_item=min_item,
            unbought=unbought,
            report=read_report("table", [part.count for part in raw.values()], used=used),
            **options,
        )


def _find(path: str | Path, table: str) -> Path:
    file = find_file(path, tuple(f"{table}{end}" for end in _ENDINGS), table)
    if not Path(path).is_file():
        same = [other.name for end in _ENDINGS if (other := file.with_name(f"{table}{end}")).is_file()]
        if len(same) > 1:
            raise ValueError(f"{file.parent} has several files of {table}: {same}; keep one, or pass its path.")
    if not file.name.endswith(_ENDINGS):
        raise ValueError(f"{file} has an unknown ending; expected one of {list(_ENDINGS)}.")
    return file


@dataclass(frozen=True)
class _Reader:
    """Reads both files with the same options; see `read_table`."""

    columns: Mapping[str, str]
    separator: str | None
    quote: str
    encoding: str
    max_malformed: float

    def __post_init__(self) -> None:
        known = sorted({*_COLUMNS["interactions"], *_COLUMNS["items"]})
        for name in self.columns:
            if name not in known:
                raise ValueError(f"columns: {name!r} is not one of our columns, which are {known}.")

    def read(self, file: Path, table: str) -> RawLines:
        """The records of a file under our names; as text where the file is one, with the line of each."""
        name = file.name.removesuffix(".gz")
        if name.endswith(".parquet"):
            frame, count = scan_parquet(file), LineCount(file)
            count.lines = frame.select(pl.len()).collect().item()
            return self._renamed(RawLines(frame, count, tuple(frame.collect_schema().names())), table)
        if name.endswith(_JSON):
            names = field_names(file) if table == "items" else list(self._called(table).values())
            text = dict.fromkeys([*names, "item_id"], pl.String)
            first = first_fields(file)
            ids = tuple(name for name in {"item_id", *map(self._called(table).get, _REQUIRED[table])} if name in first)
            raw = read_records(file, text, ids, max_malformed=self.max_malformed, numbered=True)
            there = [name for name in text if raw.frame[name].null_count() < raw.frame.height]
            return self._renamed(replace(raw, names=tuple(dict.fromkeys([*first, *there]))), table)
        return read_csv(
            file,
            lambda found: self._kept(found, table),
            keys=("user_id", "item_id"),
            separator=self.separator,
            quote=self.quote,
            encoding=self.encoding,
            max_malformed=self.max_malformed,
        )

    def _called(self, table: str) -> dict[str, str]:
        """What the columns of a table are called in the file, by our names."""
        return {name: self.columns.get(name, name) for name in _COLUMNS[table]}

    def _kept(self, found: Sequence[str], table: str) -> dict[str, str]:
        """Which columns of a file are kept: the name that each gets, and its name in the file."""
        called = self._called(table)
        if called["item_id"] not in found:  # the two tables may call it differently
            called["item_id"] = "item_id"
        kept = {name: theirs for name, theirs in called.items() if theirs in found}
        own = {name: name for name in found if name and name not in kept and name not in kept.values()}
        return kept | (own if table == "items" else {})

    def _renamed(self, raw: RawLines, table: str) -> RawLines:
        schema = raw.frame.collect_schema()
        kept = {ours: theirs for ours, theirs in self._kept(raw.names, table).items() if theirs in schema}
        line = [LINE] if LINE in schema else []
        frame = raw.frame.select(*(pl.col(theirs).alias(ours) for ours, theirs in kept.items()), *line)
        return replace(raw, frame=frame)

    def check_columns(self, raw: Mapping[str, RawLines]) -> None:
        """Raise a ValueError if no file has a column that was named, or one lacks a column that it needs."""
        for ours, theirs in self.columns.items():
            tables = [table for table, names in _COLUMNS.items() if ours in names]
            if not any(theirs in raw[table].names for table in tables):
                found = "; ".join(f"{raw[table].count.path.name} has {name_list(raw[table].names)}" for table in tables)
                raise ValueError(f"columns: no column is called {theirs!r} ({ours}); {found}.")
        for table, required in _REQUIRED.items():
            missing = [name for name in required if name not in raw[table].frame.collect_schema()]
            if missing:
                raise ValueError(
                    f"{raw[table].count.path} lacks the columns {missing}; found {name_list(raw[table].names)}. Rename "
                    'or add them, or name yours, such as columns={"user_id": "customer"} (--columns user_id=customer).'
                )


def _converted(raw: RawLines, *, dates: str, decimal: str) -> pl.DataFrame | pl.LazyFrame:
    """Interactions with times and ratings converted here, where errors can name lines."""
    frame = raw.frame
    schema = frame.collect_schema()
    given = [name for name in ("timestamp", "rating") if name in schema]
    if not given:
        return frame
    values = frame.lazy().select(*given, *([LINE] if LINE in schema else [])).collect()
    where = _where(raw, values)
    read = {}
    if "timestamp" in given:
        read["timestamp"] = times(values["timestamp"], dates=dates, where=where)
    if "rating" in given:
        read["rating"] = ratings(values["rating"], decimal=decimal, where=where)
    if isinstance(frame, pl.LazyFrame):
        return pl.concat([frame.drop(given), pl.LazyFrame(read)], how="horizontal")
    return frame.with_columns(**read)


def _where(raw: RawLines, frame: pl.DataFrame) -> Where:
    """Where the value at a position of a column stands."""
    if LINE in frame.columns:
        return lambda position: f"line {frame[LINE][position]:,} of {raw.count.path.name}"
    return lambda position: f"row {position:,} of {raw.count.path.name}"


def _listed(raw: RawLines, separator: str | None) -> pl.DataFrame:
    """Items with aspects as lists, and further columns with the types that their text shows."""
    frame = raw.frame.lazy().collect()
    where = _where(raw, frame)
    if frame.schema.get("aspects") == pl.String:
        frame = frame.with_columns(_lists(frame["aspects"], separator, where))
    own = [name for name in frame.columns if name not in (*_COLUMNS["items"], LINE)]
    text = not raw.count.path.name.endswith(".parquet")
    inferred = [_inferred(frame[name]) for name in own] if text else []
    return frame.with_columns(inferred).drop(LINE, strict=False)


def _lists(values: pl.Series, separator: str | None, where: Where) -> pl.Series:
    """Lists from text: as JSON, Python and numpy write them, or entries with a separator between."""
    text = values.str.strip_chars()
    missing = text.str.to_lowercase().is_in(MISSING).fill_null(True)
    bracketed = text.str.starts_with("[").fill_null(False) & ~missing
    plain = text.filter(~bracketed & ~missing)
    if separator is None:
        used = [mark for mark in ("|", ";", ",") if plain.str.contains(mark, literal=True).any()]
        clear = [mark for mark in used if mark != ","]
        if len(clear) > 1 or used == [","]:
            doubtful = ~bracketed & ~missing & text.str.contains(used[-1], literal=True).fill_null(False)
            position = doubtful.arg_true()[0]
            raise ValueError(
                f"column {values.name!r}: {where(position)} holds {shown(values[position])}, which may be one entry or "
                "several; pass list_separator=',' (or ';' or '|') for what separates entries, or one that does not "
                "occur if nothing does."
            )
        separator = clear[0] if clear else "|"
    entries = {value: _entries(value) for value in text.filter(bracketed).unique()}
    unread = text.is_in([value for value, found in entries.items() if found is None]) & bracketed
    for position in unread.arg_true():
        raise ValueError(
            f"column {values.name!r}: {where(position)} holds {shown(values[position])}, which is not a list of text "
            "as JSON or Python write it; correct it."
        )
    known = {"text": list(entries), "list": list(entries.values())}
    known = pl.DataFrame(known, schema={"text": pl.String, "list": pl.List(pl.String)})
    frame = pl.DataFrame({"text": text, "missing": missing}).join(known, on="text", how="left", maintain_order="left")
    split = pl.when(~pl.col("missing")).then(pl.col("text").str.split(separator))
    return frame.select(pl.coalesce("list", split).alias(values.name)).to_series()


def _entries(text: str) -> list[str] | None:
    """The entries of a list in brackets; None where it is not one of text."""
    spelled = as_json(text.replace("\n", " ").encode()).decode()
    spelled = re.sub(r",\s*\]$", "]", spelled)
    for candidate in (spelled, re.sub(r'"\s+"', '", "', spelled)):  # numpy writes no commas
        try:
            found = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(found, list) and not any(isinstance(entry, list | dict) for entry in found):
            return [str(entry) for entry in found if entry is not None]
    return None


def _inferred(values: pl.Series) -> pl.Series:
    """A further column as numbers, truth values or lists, where all of its text can be read so."""
    known = values.drop_nulls()
    known = known.filter(known != "")
    if values.dtype != pl.String or known.is_empty():
        return values
    if known.str.contains(r"^-?(?:0|[1-9][0-9]{0,17})$").all():
        return values.cast(pl.Int64, strict=False)
    if known.str.contains(r"^-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$").all():
        return values.cast(pl.Float64, strict=False)
    if known.is_in(["true", "false"]).all():
        return (values == "true").alias(values.name)
    if known.str.starts_with("[").all():
        try:
            return values.str.json_decode(pl.List(pl.String))
        except pl.exceptions.PolarsError:
            return values
    return values
