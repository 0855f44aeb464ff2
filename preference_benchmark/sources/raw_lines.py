"""Raw files of one record a line: JSON, Python literals, or words.

Polars reads blocks of bounded size, with Python literals respelled as JSON. A block that polars refuses, or that holds
a value out of its bounds, is halved until the lines at fault are found. Those are read one by one; lines that cannot be
used are left out, counted by reason, and the first of them named by number. Nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from preference_benchmark.sources.raw_files import WHITE_SPACE, RawFile, blocks, line_starts, nonblank_lines
from preference_benchmark.tables import ReadReport
from preference_benchmark.tables.columns import MISSING, name_list

__all__ = [
    "LINE",
    "NOT_UTF8",
    "OTHERS",
    "RATING",
    "SECONDS",
    "Field",
    "LineCount",
    "Number",
    "RawLines",
    "as_json",
    "dtypes",
    "field_names",
    "first_fields",
    "read_records",
    "read_report",
    "read_words",
    "text_lines",
]


# Bytes that `repr` never writes stand for a backslash, a quote of either kind, and the seam between two pieces.
_BACKSLASH, _SINGLE, _DOUBLE, _SEAM = b"\x01", b"\x02", b"\x03", b"\x04"
_MARKS = (_BACKSLASH, _SINGLE, _DOUBLE, _SEAM)
# Patterns begin with a fixed byte and look back from there: so the search can skip to that byte.
_STRING = re.compile(rb"""('[^'\n]*'|"[^"\n]*")""")
_BEFORE_STRING = (b" ", b"{", b"[")  # what can stand before the u of a string
_INNER_QUOTE = re.compile(rb'"(?<!\x04")(?!\x04)')
_NAMES = (
    (re.compile(rb"True\b(?<!\wTrue)"), b"true"),
    (re.compile(rb"False\b(?<!\wFalse)"), b"false"),
    (re.compile(rb"None\b(?<!\wNone)"), b"null"),
)
_LONG_ESCAPE = re.compile(rb"\\U(000[0-9a-fA-F]{5}|0010[0-9a-fA-F]{4})")


def as_json(block: bytes) -> bytes:
    """The block with the strings and names of Python literals spelled as in JSON, line by line.

    Some releases were written with `repr`. `ast.literal_eval` takes tens of microseconds for such a line; respelling
    quotes, escapes and names for a whole block at once, and letting polars parse the JSON, takes a fraction of that.
    What this does not cover comes out as something that is not JSON either, and is left to `ast.literal_eval`.

    >>> as_json(b"{u'name': u'Tea', 'new': True, 'old': None}")
    b'{"name": "Tea", "new": true, "old": null}'
    """
    if any(mark in block for mark in _MARKS):
        return block
    # Escaped characters are set aside, so that every quote left over begins or ends a string.
    block = block.replace(b"\\\\", _BACKSLASH).replace(b"\\'", _SINGLE).replace(b'\\"', _DOUBLE)
    pieces = _STRING.split(block)
    between, strings = _SEAM.join(pieces[0::2]), _SEAM + _SEAM.join(pieces[1::2]) + _SEAM
    for before in _BEFORE_STRING:
        between = between.replace(before + b"u" + _SEAM, before + _SEAM)
    for name, spelled in _NAMES:
        between = name.sub(spelled, between)
    strings = _INNER_QUOTE.sub(rb'\\"', strings)
    strings = strings.replace(_SEAM + b"'", _SEAM + b'"').replace(b"'" + _SEAM, b'"' + _SEAM)
    pieces[0::2], pieces[1::2] = between.split(_SEAM), strings.split(_SEAM)[1:-1] if len(pieces) > 1 else []
    block = b"".join(pieces)
    # JSON knows neither \x.. nor \U........, and reads \/ otherwise than Python does.
    block = block.replace(b"\\x", b"\\u00").replace(b"\\/", b"\\!")
    block = _LONG_ESCAPE.sub(lambda found: chr(int(found[1], 16)).encode("utf-8", "replace"), block)
    return block.replace(_DOUBLE, b'\\"').replace(_SINGLE, b"'").replace(_BACKSLASH, b"\\\\")


LINE = "line of the file"  # column of the number of the line on which a row begins
_SHOWN = 5  # lines of a reason that reports and errors name
_FEW = 64  # lines that are read one by one rather than halved further
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
NOT_UTF8, _NO_RECORD = "lines that are not UTF-8", "lines that are not records"
OTHERS = "lines about items without a review"


@dataclass(frozen=True)
class Number:
    """A field of numbers.

    Attributes:
        least: smallest number that makes sense.
        most: largest number that makes sense.
        whole: whether they are whole numbers.
    """

    least: float
    most: float
    whole: bool = False

    @property
    def dtype(self) -> type[pl.DataType]:
        """The type of its column."""
        return pl.Int64 if self.whole else pl.Float64


RATING = Number(1, 5)
SECONDS = Number(100_000_000, 99_999_999_999, whole=True)  # Unix time from 1973 to 5138

Field = pl.DataType | type[pl.DataType] | Number


class LineCount:
    """The lines of a file: how many, and which of them are malformed for which reason.

    Attributes:
        path: the file.
        lines: those that are not blank.
        others: those about ids that do not matter.
        malformed: how many lines, or entries of lists in them, are malformed, by reason.
        entries: how many of these are entries.
        notes: how many lines are worth a look, by what they are.
    """

    def __init__(self, path: RawFile) -> None:
        self.path = path
        self.lines = self.others = self.entries = 0
        self.malformed: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self._first: dict[str, list[int]] = {}

    def reject(self, numbers: Iterable[int], reason: str) -> None:
        """Count lines as malformed, and remember the first of them."""
        self._remember(list(numbers), reason, self.malformed)

    def note(self, numbers: Iterable[int], what: str) -> None:
        """Count lines that are used and worth a look, and remember the first of them."""
        self._remember(list(numbers), what, self.notes)

    def _remember(self, numbers: list[int], what: str, counted: Counter[str]) -> None:
        if numbers:
            counted[what] += len(numbers)
            first = self._first.setdefault(what, [])
            first += numbers[: _SHOWN - len(first)]

    @property
    def examples(self) -> dict[str, tuple[str, ...]]:
        """The first malformed or noted lines as "file:line", by reason."""
        return {
            reason: tuple(f"{self.path.name}:{number}" for number in numbers) for reason, numbers in self._first.items()
        }

    def refuse_many(self, max_malformed: float, expected: str) -> None:
        """Raise a ValueError if the file is empty, or malformed lines are more than this share of it."""
        if not self.lines:
            raise ValueError(f"{self.path} is empty; download it again or name another file.")
        total = self.malformed.total()
        if total <= max_malformed * self.lines:
            return
        reasons = "; ".join(
            f"{count:,} {reason} (first: {self._first[reason]})" for reason, count in self.malformed.most_common()
        )
        remedy = " Convert the file to UTF-8 (iconv -f LATIN1 -t UTF-8)." if self.malformed[NOT_UTF8] else ""
        raise ValueError(
            f"{total:,} of {self.lines:,} lines of {self.path} are malformed, more than the share of "
            f"max_malformed={max_malformed:g}: {reasons}; expected {expected}.{remedy} Repair the file, or raise "
            "max_malformed to leave such lines out."
        )


@dataclass(frozen=True)
class RawLines:
    """The records of one file.

    Attributes:
        frame: one row per record; lazy where the records were put on disk.
        count: the lines of the file.
        names: of all columns or fields that the file has, where all are known.
    """

    frame: pl.DataFrame | pl.LazyFrame
    count: LineCount
    names: tuple[str, ...] = ()


def read_report(
    source: str,
    counts: Iterable[LineCount],
    *,
    used: Mapping[str, int],
    dropped: Mapping[str, int] | None = None,
    notes: Mapping[str, int] | None = None,
    added: int = 0,
    more: int = 0,
) -> ReadReport:
    """What a source knows about the lines of its files when it hands its tables to `prepare`.

    Args:
        source: its name.
        counts: the lines of each file.
        used: rows that are handed over, by table.
        dropped: lines that the source has left out itself, by reason.
        notes: other things worth knowing.
        added: items that no line describes.
        more: interactions beyond the first of lines that hold several.

    Raises:
        RuntimeError: if lines are not accounted for.
    """
    counts = list(counts)
    malformed: Counter[str] = Counter()
    noted = Counter(notes or {})
    examples: dict[str, tuple[str, ...]] = {}
    for count in counts:
        malformed.update(count.malformed)
        noted.update(count.notes)
        for reason, first in count.examples.items():
            examples[reason] = (examples.get(reason, ()) + first)[:_SHOWN]
    left_out = Counter(dropped or {})
    left_out[OTHERS] += sum(count.others for count in counts)
    return ReadReport(
        source=source,
        files=tuple(count.path.name for count in counts),
        lines=sum(count.lines for count in counts) + more,
        added=added,
        used=dict(used),
        dropped={reason: count for reason, count in left_out.items() if count},
        malformed=dict(malformed),
        examples=examples,
        notes=dict(noted),
    )


def read_records(
    path: RawFile,
    schema: Mapping[str, Field],
    required: tuple[str, ...] = (),
    *,
    max_malformed: float = 0.01,
    only: tuple[str, pl.Series] | None = None,
    spool: Path | None = None,
    numbered: bool = False,
) -> RawLines:
    """The records of a file with one JSON object, or one Python dict literal, a line.

    A line is malformed if it is not a record, or a field is not of its type or out of its bounds. Text may be given as
    a number, and an object or list where the schema says text is kept as its JSON, unless it is a required field.

    Args:
        path: the file; gzip is recognised by its content.
        schema: fields to keep and their types.
        required: fields without which a record is of no use; at least one record must have each of them.
        max_malformed: share of malformed lines above which the file is refused.
        only: a regular expression that finds the id in a line, and the ids that matter: lines about others
            are skipped unparsed, which is most of the work in a large catalogue.
        spool: a folder to put the records in as Parquet, block by block, so that a file of any size is read in the
            memory of one block. The result is then lazy and lives as long as the folder.
        numbered: whether to add a column `LINE` with the number of each record's line.

    Raises:
        ValueError: if the file is empty, truncated, of another format, or has too many malformed lines.
    """
    count, reader = LineCount(path), None
    frames: list[pl.DataFrame] = []
    found: set[str] = set()
    for first_line, block in blocks(path):
        if not block.strip():
            continue
        count.lines += len(nonblank_lines(block))
        reader = reader or _Reader(schema, required, _is_literal(path, block), count, numbered)
        if only is not None:
            block, skipped = _skip_others(block, *only)
            count.others += skipped
        parsed = reader.parse(block, first_line)
        found |= {name for frame in parsed for name in frame.columns if frame[name].null_count() < frame.height}
        frames += parsed if spool is None else []
        if spool is not None and parsed:
            pl.concat(parsed).write_parquet(spool / f"{first_line:015d}.parquet", compression="lz4")
    count.refuse_many(max_malformed, expected="records")
    if only is not None and not found:
        raise ValueError(
            f"no record of {path} is about any of the {len(only[1]):,} ids that the interactions name, such as "
            f"{only[1].head(3).to_list()}; it seems to be the catalogue of another category or data set."
        )
    for name in required:
        if name not in found:
            raise ValueError(
                f"no record of {path} has the field {name!r}; it needs {list(required)} and its first record has "
                f"{name_list(first_fields(path))}. Is it the right file for this source?"
            )
    if spool is not None:
        return RawLines(pl.scan_parquet(sorted(spool.glob("*.parquet"))), count)
    line = {LINE: pl.Int64} if numbered else {}
    return RawLines(pl.concat([pl.DataFrame(schema=dtypes(schema) | line), *frames]), count)


def read_words(path: Path, *, fewest: int, max_malformed: float = 0.01) -> RawLines:
    """Lines of words separated by white space, as one list column `words`.

    Args:
        path: the file; gzip is recognised by its content.
        fewest: a line with fewer words is malformed, and so is one that is not UTF-8.
        max_malformed: share of malformed lines above which the file is refused.
    """
    frames, count = [], LineCount(path)
    for first_line, block in blocks(path):
        if first_line == 1 and block.lstrip()[:1] in (b"{", b"["):
            raise ValueError(f"{path} holds JSON records; expected lines of words such as `user item item ...`.")
        count.lines += len(nonblank_lines(block))
        text = text_lines(block, "utf-8").to_frame().with_row_index("number", offset=first_line)
        text = text.with_columns(words=pl.col("line").str.extract_all(r"[^ \t\x0b\x0c\r]+"))
        foreign, short = pl.col("line").is_null(), pl.col("words").list.len() < fewest
        count.reject(text.filter(foreign)["number"], NOT_UTF8)
        written = text.filter(~foreign & (pl.col("words").list.len() > 0))
        count.reject(written.filter(short)["number"], f"lines with fewer than {fewest} words")
        frames.append(written.filter(~short).select("words"))
    count.refuse_many(max_malformed, f"lines of {fewest} or more words")
    return RawLines(pl.concat(frames), count)


def text_lines(block: bytes, encoding: str) -> pl.Series:
    """The lines of a block as text, without their ends; null where a line is not in the encoding."""
    block = block.removesuffix(b"\n")
    try:
        return pl.Series("line", [block.decode(encoding)]).str.split("\n").explode()
    except UnicodeDecodeError:  # rare, and only then line by line
        return pl.Series("line", [_decoded(line, encoding) for line in block.split(b"\n")], dtype=pl.String)


def field_names(path: RawFile) -> list[str]:
    """The names of all fields that any record of a file has."""
    names: dict[str, None] = {}
    literal = None
    for _, raw in blocks(path):
        literal = _is_literal(path, raw) if literal is None else literal
        try:
            block = as_json(raw) if literal else raw
            names |= dict.fromkeys(pl.read_ndjson(block, infer_schema_length=None).columns)
        except pl.exceptions.PolarsError:  # some line is malformed
            for line in raw.split(b"\n"):
                names |= dict.fromkeys(_record(line, literal)[0] or ())
    return list(names)


def _decoded(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return None


def _is_literal(path: RawFile, block: bytes) -> bool:
    """Whether the file holds Python literals rather than JSON, by its first lines."""
    first = [line for line in block[: 1 << 20].split(b"\n") if line.strip()][:50]
    for literal in (False, True):
        if not first or any(_record(line, literal)[0] is not None for line in first):
            return literal
    shown = first[0][:80].decode("utf-8", errors="replace").strip()
    array = " (pandas writes that with to_json(orient='records', lines=True))" if shown.startswith("[") else ""
    raise ValueError(
        f"{path} is of another format: expected one JSON object or Python dict a line{array}, found {shown!r} first."
    )


def _record(line: bytes, literal: bool) -> tuple[dict | None, str]:
    """The record of a line, or None and the reason why it is malformed."""
    text = _decoded(line, "utf-8")
    if text is None:
        return None, NOT_UTF8
    try:
        record = ast.literal_eval(text.strip()) if literal else json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, _NO_RECORD
    return (record, "") if isinstance(record, dict) else (None, _NO_RECORD)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of these pairs; refuses one that holds a name twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def dtypes(schema: Mapping[str, Field]) -> dict[str, pl.DataType | type[pl.DataType]]:
    """The types of the columns that fields become."""
    return {name: field.dtype if isinstance(field, Number) else field for name, field in schema.items()}


class _Wrong(Exception):
    """A value is not of its field's type."""


@dataclass(frozen=True)
class _Reader:
    """Reads blocks of records.

    Attributes:
        schema: fields and their types.
        required: fields that must be plain text or numbers.
        literal: whether records are Python literals.
        count: where malformed lines are counted.
        numbered: whether records get the number of their line.
    """

    schema: Mapping[str, Field]
    required: tuple[str, ...]
    literal: bool
    count: LineCount
    numbered: bool = False

    def parse(self, block: bytes, first_line: int) -> list[pl.DataFrame]:
        """The block's records, in order; its malformed lines are counted."""
        if not block.strip():
            return []
        data, starts = line_starts(block)
        # Some versions of polars take lines that are valid JSON but no objects; those must be counted.
        if np.isin(data[starts], [ord("{"), *WHITE_SPACE]).all():
            spelled = as_json(block) if self.literal else block
            try:
                frame = pl.read_ndjson(spelled, schema=dtypes(self.schema))
                if self._is_plain(frame, spelled):
                    return [self._with_lines(frame, first_line + nonblank_lines(block))]
            except pl.exceptions.PolarsError:
                pass  # some line is malformed, or a value of another type: find out which
        if block.count(b"\n") <= _FEW:
            return [self._one_by_one(block, first_line)]
        half = len(block) // 2
        middle = block.rfind(b"\n", 0, half) + 1 or block.index(b"\n", half) + 1
        rest = first_line + block.count(b"\n", 0, middle)
        return [*self.parse(block[:middle], first_line), *self.parse(block[middle:], rest)]

    def _is_plain(self, frame: pl.DataFrame, block: bytes) -> bool:
        """Whether nothing in the block needs a closer look than polars gives it."""
        for name in self.required:
            # Polars takes the first of two values under one name, Python the last.
            if block.count(f'"{name}":'.encode()) > frame.height:
                return False
            if frame.schema[name] == pl.String and frame[name].str.contains(r"^[\[{]").any():
                return False
        return all(
            frame[name].drop_nulls().is_between(field.least, field.most).all()
            for name, field in self.schema.items()
            if isinstance(field, Number)
        )

    def _with_lines(self, frame: pl.DataFrame, lines: Sequence[int]) -> pl.DataFrame:
        return frame.with_columns(pl.Series(LINE, lines, dtype=pl.Int64)) if self.numbered else frame

    def _one_by_one(self, block: bytes, first_line: int) -> pl.DataFrame:
        rows, lines = [], []
        for number, line in enumerate(block.split(b"\n"), first_line):
            if not line.strip():
                continue
            record, reason = _record(line, self.literal)
            if record is not None:
                try:
                    rows.append([self._value(record.get(name), name, number) for name in self.schema])
                    lines.append(number)
                    continue
                except _Wrong as wrong:
                    reason = str(wrong)
            self.count.reject([number], reason)
        return self._with_lines(pl.DataFrame(rows, schema=dtypes(self.schema), orient="row", strict=True), lines)

    def _value(self, value: object, name: str, number: int) -> object:
        """The value as polars would read it, or converted where there is one reading only."""
        field = self.schema[name]
        if value is None or value != value:  # programs write NaN where there is nothing
            return None
        if field in (pl.Float64, pl.Int64):
            field = Number(-math.inf, math.inf) if field == pl.Float64 else Number(-(2**63), 2**63 - 1, whole=True)
        if isinstance(field, Number):
            return _number(value, name, field)
        if field == pl.String:
            if isinstance(value, dict | list | tuple) and name in self.required:
                raise _Wrong(f"lines whose {name} is neither text nor a number")
            return _text(value, name)
        if field == pl.Boolean:
            if not isinstance(value, bool):
                raise _Wrong(f"lines whose {name} is neither true nor false")
            return value
        if isinstance(value, str) and field.inner == pl.String:  # a list of one
            return [_text(value, name)] if value else []
        if not isinstance(value, list | tuple):
            raise _Wrong(f"lines whose {name} is not a list")
        if isinstance(field.inner, pl.Struct):
            return [self._entry(entry, field.inner, name, number) for entry in value]
        return [_nested(entry, field.inner, name) for entry in value]

    def _entry(self, entry: object, kind: pl.Struct, name: str, number: int) -> dict | None:
        """One object of a list of objects; None for a malformed one, which is counted."""
        if entry is None:
            return None
        inner = _Reader({field.name: field.dtype for field in kind.fields}, (), self.literal, self.count)
        if isinstance(entry, dict):
            try:
                return {key: inner._value(entry.get(key), key, number) for key in inner.schema}
            except _Wrong as wrong:
                reason = str(wrong).replace("lines whose", f"{name} whose")
        else:
            reason = f"{name} that are not records"
        self.count.reject([number], reason)
        self.count.entries += 1
        return None


def _number(value: object, name: str, field: Number) -> float | int | None:
    if isinstance(value, str):
        if value.strip().lower() in MISSING:
            return None
        value = float(value) if _NUMBER.fullmatch(value.strip()) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"lines whose {name} is not a number")
    if not field.least <= value <= field.most:
        raise _Wrong(f"lines whose {name} is outside {field.least:g}-{field.most:g}")
    if field.whole and value != int(value):
        raise _Wrong(f"lines whose {name} is not a whole number")
    return int(value) if field.whole else float(value)


def _text(value: object, name: str) -> str | None:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair is not a character
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            raise _Wrong(f"lines whose {name} is not text")
        return np.format_float_positional(value, trim="-")  # as polars writes it
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict | list):
        try:
            return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
        except (TypeError, ValueError, RecursionError):
            pass
    raise _Wrong(f"lines whose {name} is not text")


def _nested(value: object, kind: pl.DataType, name: str) -> object:
    """An entry of a list of text, or of lists of text."""
    if value is None:
        return None
    if kind == pl.String:
        return _text(value, name)
    return [_nested(inner, kind.inner, name) for inner in (value if isinstance(value, list) else [value])]


def _skip_others(block: bytes, pattern: str, ids: pl.Series) -> tuple[bytes, int]:
    """The block with blank lines in place of those that are about other ids, and how many these are."""
    found = text_lines(block, "utf-8").str.extract(pattern)
    others = found.is_not_null() & ~found.is_in(ids.implode())
    lines = block.removesuffix(b"\n").split(b"\n")
    kept = (b"" if other else line for line, other in zip(lines, others.to_list(), strict=True))
    return b"\n".join(kept) + b"\n", int(others.sum())


def first_fields(path: RawFile) -> list[str]:
    """The names of the fields of a file's first record."""
    for _, block in blocks(path):
        for line in block.split(b"\n"):
            for literal in (False, True):
                if record := _record(line, literal)[0]:
                    return list(record)
    return []
