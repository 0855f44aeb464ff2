"""Raw files of one record a line, gzip-compressed or plain: JSON or Python literals.

Strict JSON goes through polars in blocks of bounded size. A block that polars refuses, and files of Python
literals, are parsed line by line; lines that cannot be parsed are left out, counted and remembered by number.
"""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import polars as pl

__all__ = ["RawLines", "read_bytes", "read_records", "read_words"]

_BLOCK = 1 << 26  # bytes read at a time
_SHOWN = 5  # malformed lines named in reports and errors
_BINARY = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"ARROW1": "an Arrow file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
}
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class RawLines:
    """The records of one file.

    Attributes:
        frame: one row per record.
        lines: non-empty lines in the file.
        malformed: how many of them could not be parsed.
        malformed_lines: the first of these, as "file:line".
    """

    frame: pl.DataFrame
    lines: int
    malformed: int = 0
    malformed_lines: tuple[str, ...] = ()


def read_records(
    path: Path,
    schema: Mapping[str, pl.DataType | type[pl.DataType]] | None,
    required: tuple[str, ...] = (),
    *,
    max_malformed: float = 0.01,
    only: tuple[str, pl.Series] | None = None,
) -> RawLines:
    """The records of a file with one JSON object, or one Python dict literal, a line.

    Args:
        path: the file; gzip is recognised by its content.
        schema: fields to keep and their types; None keeps all and infers their types.
        required: fields without which a record is of no use; at least one record must have them.
        max_malformed: share of malformed lines above which the file is refused.
        only: a regular expression that finds the id in a line, and the ids that matter: lines about others
            are skipped unparsed, which is most of the work in a large catalogue.

    Raises:
        ValueError: if the file is empty, truncated, of another format, or has too many malformed lines.
    """
    frames: list[pl.DataFrame] = []
    syntax, lines, malformed = None, 0, []
    for first_line, block in _blocks(path):
        if syntax is None:
            syntax = _syntax(path, block)
        lines += sum(1 for line in block if not line.isspace())
        if only is not None:
            block = _skip_others(block, *only)
        frame, wrong = _parse(block, schema, syntax)
        malformed += [first_line + position for position in wrong]
        frames.append(frame)
    if not lines:
        raise ValueError(f"{path} is empty; download it again or name another file.")
    _refuse_malformed(path, lines, malformed, max_malformed, expected="records")
    frame = pl.concat(frames, how="diagonal_relaxed" if schema is None else "vertical")
    if only is not None and frame.is_empty():
        raise ValueError(
            f"no record of {path} is about any of the {len(only[1]):,} ids that the interactions name, such as "
            f"{only[1].head(3).to_list()}; is it a file of the same data set?"
        )
    for name in required:
        if name not in frame.columns or frame[name].null_count() == frame.height:
            raise ValueError(
                f"no record of {path} has the field {name!r}; it needs {list(required)} and its first record has "
                f"{_first_fields(path)}. Is it the right file for this source?"
            )
    return RawLines(frame, lines, len(malformed), _named(path, malformed))


def read_words(path: Path, *, fewest: int, max_malformed: float = 0.01) -> RawLines:
    """Lines of words parted by white space, as one list column `words`.

    Args:
        path: the file; gzip is recognised by its content.
        fewest: a line with fewer words is malformed.
        max_malformed: share of malformed lines above which the file is refused.
    """
    data = read_bytes(path)
    if data.lstrip()[:1] in (b"{", b"["):
        raise ValueError(f"{path} holds JSON records; expected lines of words such as `user item item ...`.")
    text = pl.Series("line", data.decode("utf-8", errors="replace").splitlines(), dtype=pl.String)
    frame = text.to_frame().with_row_index("number", offset=1)
    frame = frame.with_columns(words=pl.col("line").str.extract_all(r"\S+"))
    frame = frame.filter(pl.col("words").list.len() > 0)
    if frame.is_empty():
        raise ValueError(f"{path} is empty; download it again or name another file.")
    short = pl.col("words").list.len() < fewest
    malformed = frame.filter(short)["number"].to_list()
    _refuse_malformed(path, frame.height, malformed, max_malformed, f"lines of {fewest} or more words")
    return RawLines(frame.filter(~short).select("words"), frame.height, len(malformed), _named(path, malformed))


def read_bytes(path: Path) -> bytes:
    """The whole file, decompressed if it is gzip; refuses empty, truncated and other binary files."""
    data = b"".join(line for _, block in _blocks(path) for line in block)
    if not data.strip():
        raise ValueError(f"{path} is empty; download it again or name another file.")
    return data


def _blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Blocks of whole lines, each with the number of its first line."""
    number = 1
    with _open(path) as stream:
        while True:
            try:
                block = stream.readlines(_BLOCK)
            except EOFError as error:
                raise ValueError(
                    f"{path} is a truncated gzip file: it ends in the middle of the data; download it again."
                ) from error
            except (zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(f"{path} is a damaged gzip file ({error}); download it again.") from error
            if not block:
                return
            if number == 1:
                _refuse_binary(path, block[0])
            yield number, block
            number += len(block)


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        start = stream.read(8)
    return gzip.open(path) if start.startswith(_GZIP) else path.open("rb")


def _refuse_binary(path: Path, start: bytes) -> None:
    for magic, kind in _BINARY.items():
        if start.startswith(magic):
            raise ValueError(f"{path} is {kind}; expected plain text or gzip with one record a line.")
    if b"\x00" in start[:1024]:
        raise ValueError(f"{path} is a binary file; expected plain text or gzip with one record a line.")


def _syntax(path: Path, block: list[bytes]) -> str:
    """Whether the file holds JSON or Python literals, judged by its first lines."""
    first = [line for line in block if not line.isspace()][:50]
    for syntax in ("json", "literal"):
        if any(_record(line, syntax) is not None for line in first):
            return syntax
    shown = first[0][:80].decode("utf-8", errors="replace").strip() if first else ""
    if not first:
        return "json"
    raise ValueError(
        f"{path} is of another format: expected one JSON object or Python dict a line, found {shown!r} first."
    )


def _record(line: bytes, syntax: str) -> dict | None:
    """The record of a line, or None where the line is malformed."""
    try:
        record = json.loads(line) if syntax == "json" else ast.literal_eval(line.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _parse(block: list[bytes], schema: Mapping | None, syntax: str) -> tuple[pl.DataFrame, list[int]]:
    """The block's records and the positions of its malformed lines."""
    if syntax == "json":
        # Polars takes lines that are valid JSON but no objects; those must be counted.
        if all(line[:1] in b"{ \n\r\t" for line in block):
            try:
                return pl.read_ndjson(b"".join(block), schema=schema, infer_schema_length=None), []
            except pl.exceptions.PolarsError:
                pass  # some line is malformed or of another type: find out which, line by line
    records, wrong = [], []
    for position, line in enumerate(block):
        if line.isspace():
            continue
        record = _record(line, syntax)
        if record is None:
            wrong.append(position)
        else:
            records.append(record if schema is None else {name: record.get(name) for name in schema})
    if not records:
        return pl.DataFrame(schema=schema), wrong
    return pl.from_dicts(records, schema=schema, strict=False, infer_schema_length=None), wrong


def _skip_others(block: list[bytes], pattern: str, ids: pl.Series) -> list[bytes]:
    """The block with blank lines in place of those that are about other ids."""
    found = pl.Series(block, dtype=pl.Binary).cast(pl.String, strict=False).str.extract(pattern)
    matters = (found.is_null() | found.is_in(ids.implode())).to_list()
    return [line if keep else b"\n" for line, keep in zip(block, matters, strict=True)]


def _first_fields(path: Path) -> list[str]:
    for _, block in _blocks(path):
        for line in block:
            for syntax in ("json", "literal"):
                if record := _record(line, syntax):
                    return list(record)
    return []


def _named(path: Path, malformed: list[int]) -> tuple[str, ...]:
    return tuple(f"{path.name}:{number}" for number in malformed[:_SHOWN])


def _refuse_malformed(path: Path, lines: int, malformed: list[int], max_malformed: float, expected: str) -> None:
    if len(malformed) > max_malformed * lines:
        raise ValueError(
            f"{len(malformed):,} of {lines:,} lines of {path} are malformed (first: {malformed[:_SHOWN]}), more "
            f"than the share of max_malformed={max_malformed:g}; expected {expected}. "
            "Repair the file or raise max_malformed."
        )
