"""Raw files of one record a line, gzip-compressed or plain: JSON or Python literals.

Blocks of bounded size go through polars. A block that polars refuses is halved until the lines at fault are found;
those are parsed one by one, and what still cannot be parsed is left out, counted and remembered by number.

Lines of Python dict literals rewritten as JSON, without evaluating anything.

Some releases were written with `repr`. `ast.literal_eval` takes tens of microseconds for such a line. Respelling
quotes, escapes and names for a whole block at once, and letting polars parse the JSON, takes a fraction of that. What
the respelling does not cover comes out as something that is no JSON either, and is left to `ast.literal_eval` by the
caller.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from preference_benchmark.sources.raw_files import RawFile, blocks

__all__ = [
    "RawLines",
    "Rejected",
    "as_json",
    "read_records",
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


_SHOWN = 5  # malformed lines named in reports and errors
_FEW = 64  # lines that are parsed one by one rather than halved further
# Polars takes lines that are valid JSON but no objects; those must be counted.
_NOT_AN_OBJECT = re.compile(rb"^[^{\s]", re.MULTILINE)

Schema = Mapping[str, "pl.DataType | type[pl.DataType]"]


@dataclass(frozen=True)
class RawLines:
    """The records of one file.

    Attributes:
        frame: one row per record; lazy where the records were put on disk.
        lines: non-empty lines in the file.
        malformed: how many of them could not be parsed.
        malformed_lines: the first of these, as "file:line".
    """

    frame: pl.DataFrame | pl.LazyFrame
    lines: int
    malformed: int = 0
    malformed_lines: tuple[str, ...] = ()


@dataclass
class Rejected:
    """The malformed lines of a file, by number, and how many of them are not UTF-8."""

    numbers: list[int] = field(default_factory=list)
    not_utf8: int = 0

    def named(self, path: RawFile) -> tuple[str, ...]:
        """The first of them as "file:line"."""
        return tuple(f"{path.name}:{number}" for number in self.numbers[:_SHOWN])

    def refuse_many(self, path: RawFile, lines: int, max_malformed: float, expected: str) -> None:
        """Raise a ValueError if they are more than this share of the lines."""
        if len(self.numbers) <= max_malformed * lines:
            return
        remedy = ""
        if self.not_utf8:
            remedy = f" {self.not_utf8:,} of them are not UTF-8; convert the file (iconv -f LATIN1 -t UTF-8)."
        raise ValueError(
            f"{len(self.numbers):,} of {lines:,} lines of {path} are malformed (first: {self.numbers[:_SHOWN]}), more "
            f"than the share of max_malformed={max_malformed:g}; expected {expected}.{remedy} "
            "Repair the file or raise max_malformed."
        )


def read_records(
    path: RawFile,
    schema: Schema | None,
    required: tuple[str, ...] = (),
    *,
    max_malformed: float = 0.01,
    only: tuple[str, pl.Series] | None = None,
    spool: Path | None = None,
) -> RawLines:
    """The records of a file with one JSON object, or one Python dict literal, a line.

    Args:
        path: the file; gzip is recognised by its content.
        schema: fields to keep and their types; None keeps all and infers their types. An object where the schema
            says text is kept as its JSON.
        required: fields without which a record is of no use; at least one record must have each of them.
        max_malformed: share of malformed lines above which the file is refused. Lines that are not UTF-8 are malformed.
        only: a regular expression that finds the id in a line, and the ids that matter: lines about others
            are skipped unparsed, which is most of the work in a large catalogue.
        spool: a folder to put the records in as Parquet, block by block, so that a file of any size is read in the
            memory of one block; needs a schema. The result is then lazy and lives as long as the folder.

    Raises:
        ValueError: if the file is empty, truncated, of another format, or has too many malformed lines.
    """
    frames: list[pl.DataFrame] = []
    literal, lines, rejected, found = None, 0, Rejected(), set()
    for first_line, block in blocks(path):
        if literal is None:
            literal = _is_literal(path, block)
        if only is not None:
            block, skipped = _skip_others(block, *only)
            lines += skipped
        parsed = _parse(block, first_line, schema, literal, rejected)
        lines += sum(frame.height for frame in parsed)
        found |= {name for frame in parsed for name in frame.columns if frame[name].null_count() < frame.height}
        frames += parsed if spool is None else []
        if spool is not None and parsed:
            pl.concat(parsed).write_parquet(spool / f"{first_line:015d}.parquet", compression="lz4")
    lines += len(rejected.numbers)
    if not lines:
        raise ValueError(f"{path} is empty; download it again or name another file.")
    rejected.refuse_many(path, lines, max_malformed, expected="records")
    if only is not None and not found:
        raise ValueError(
            f"no record of {path} is about any of the {len(only[1]):,} ids that the interactions name, such as "
            f"{only[1].head(3).to_list()}; it seems to be the catalogue of another category or data set."
        )
    for name in required:
        if name not in found:
            raise ValueError(
                f"no record of {path} has the field {name!r}; it needs {list(required)} and its first record has "
                f"{_first_fields(path)}. Is it the right file for this source?"
            )
    if spool is not None:
        frame = pl.scan_parquet(sorted(spool.glob("*.parquet")))
    else:
        nothing = pl.DataFrame(schema=schema)
        frame = pl.concat([nothing, *frames], how="diagonal_relaxed" if schema is None else "vertical")
    return RawLines(frame, lines, len(rejected.numbers), rejected.named(path))


def read_words(path: Path, *, fewest: int, max_malformed: float = 0.01) -> RawLines:
    """Lines of words parted by white space, as one list column `words`.

    Args:
        path: the file; gzip is recognised by its content.
        fewest: a line with fewer words is malformed, and so is one that is not UTF-8.
        max_malformed: share of malformed lines above which the file is refused.
    """
    frames, lines, rejected = [], 0, Rejected()
    for first_line, block in blocks(path):
        if first_line == 1 and block.lstrip()[:1] in (b"{", b"["):
            raise ValueError(f"{path} holds JSON records; expected lines of words such as `user item item ...`.")
        text = text_lines(block, "utf-8").to_frame().with_row_index("number", offset=first_line)
        text = text.with_columns(words=pl.col("line").str.extract_all(r"\S+"))
        text = text.filter(pl.col("line").is_null() | (pl.col("words").list.len() > 0))
        lines += text.height
        good = (pl.col("words").list.len() >= fewest).fill_null(False)
        rejected.numbers += text.filter(~good)["number"].to_list()
        rejected.not_utf8 += text["line"].null_count()
        frames.append(text.filter(good).select("words"))
    if not lines:
        raise ValueError(f"{path} is empty; download it again or name another file.")
    rejected.refuse_many(path, lines, max_malformed, f"lines of {fewest} or more words")
    return RawLines(pl.concat(frames), lines, len(rejected.numbers), rejected.named(path))


def text_lines(block: bytes, encoding: str) -> pl.Series:
    """The lines of a block as text, without their ends; null where a line is not in the encoding."""
    block = block.removesuffix(b"\n")
    try:
        text = pl.Series("line", [block.decode(encoding)]).str.split("\n").explode()
    except UnicodeDecodeError:  # rare, and only then line by line
        text = pl.Series("line", [_decoded(line, encoding) for line in block.split(b"\n")], dtype=pl.String)
    return text.str.strip_suffix("\r")


def _decoded(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return None


def _is_literal(path: RawFile, block: bytes) -> bool:
    """Whether the file holds Python literals rather than JSON, judged by its first lines."""
    first = [line for line in block[: 1 << 20].split(b"\n") if line.strip()][:50]
    for literal in (False, True):
        if not first or any(_record(line, literal) is not None for line in first):
            return literal
    shown = first[0][:80].decode("utf-8", errors="replace").strip()
    raise ValueError(
        f"{path} is of another format: expected one JSON object or Python dict a line, found {shown!r} first."
    )


def _record(line: bytes, literal: bool) -> dict | None:
    """The record of a line, or None where the line is malformed."""
    try:
        text = line.decode("utf-8").strip()
        record = ast.literal_eval(text) if literal else json.loads(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _parse(
    block: bytes, first_line: int, schema: Schema | None, literal: bool, rejected: Rejected
) -> list[pl.DataFrame]:
    """The block's records, in order; the numbers of its malformed lines go into `rejected`."""
    if not block.strip():
        return []
    if not _NOT_AN_OBJECT.search(block):
        try:
            return [pl.read_ndjson(as_json(block) if literal else block, schema=schema, infer_schema_length=None)]
        except pl.exceptions.PolarsError:
            pass  # some line is malformed, or of another type: find out which
    if block.count(b"\n") <= _FEW:
        return [_one_by_one(block, first_line, schema, literal, rejected)]
    half = len(block) // 2
    middle = block.rfind(b"\n", 0, half) + 1 or block.index(b"\n", half) + 1
    rest = first_line + block.count(b"\n", 0, middle)
    return [
        *_parse(block[:middle], first_line, schema, literal, rejected),
        *_parse(block[middle:], rest, schema, literal, rejected),
    ]


def _one_by_one(
    block: bytes, first_line: int, schema: Schema | None, literal: bool, rejected: Rejected
) -> pl.DataFrame:
    records = []
    for number, line in enumerate(block.split(b"\n"), first_line):
        if not line.strip():
            continue
        record = _record(line, literal)
        if record is None:
            rejected.numbers.append(number)
            rejected.not_utf8 += _decoded(line, "utf-8") is None
        else:
            names = record if schema is None else schema
            records.append({name: _as_text(record.get(name), schema and schema[name]) for name in names})
    if not records:
        return pl.DataFrame(schema=schema)
    return pl.from_dicts(records, schema=schema, strict=False, infer_schema_length=None)


def _as_text(value: object, dtype: object) -> object:
    """What polars makes of the value where the schema says text: an object or list is kept as its JSON."""
    if dtype == pl.String and isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return value


def _skip_others(block: bytes, pattern: str, ids: pl.Series) -> tuple[bytes, int]:
    """The block with blank lines in place of those that are about other ids, and how many these are."""
    found = text_lines(block, "utf-8").str.extract(pattern)
    others = found.is_not_null() & ~found.is_in(ids.implode())
    lines = block.removesuffix(b"\n").split(b"\n")
    kept = (b"" if other else line for line, other in zip(lines, others.to_list(), strict=True))
    return b"\n".join(kept) + b"\n", int(others.sum())


def _first_fields(path: RawFile) -> list[str]:
    for _, block in blocks(path):
        for line in block.split(b"\n"):
            for literal in (False, True):
                if record := _record(line, literal):
                    return list(record)
    return []
