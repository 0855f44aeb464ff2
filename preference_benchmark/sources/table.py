"""Your own data: one table of interactions and one of items, as CSV, JSON lines or Parquet.

`interactions.csv` (or .jsonl, .parquet): `user_id, item_id` and, where you have them, `timestamp` (Unix seconds
or ISO 8601), `rating` (1-5), `review`. `items.csv`: `item_id, title` and, where you have them, `text` (what is
embedded), `aspects` (attribute phrases; in CSV parted by "|"), and any columns of your own.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from preference_benchmark.sources.delimited import read_csv, scan_parquet
from preference_benchmark.sources.raw_files import find_file
from preference_benchmark.sources.raw_lines import RawLines, read_records
from preference_benchmark.tables import ReadReport, Tables, prepare

__all__ = ["read_table"]

_ENDINGS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
# Ids with leading zeros and reviews such as "10" must stay text.
_TEXT = ("user_id", "item_id", "title", "text", "aspects", "review")


def read_table(
    path: str | Path,
    *,
    items: str | Path | None = None,
    encoding: str = "utf-8",
    max_malformed: float = 0.01,
    **options: object,
) -> Tables:
    """Tables from your own files.

    Args:
        path: the folder that holds `interactions.*` and `items.*`, or the file of interactions. Of Parquet only the
            reviews of interactions that stay are held in memory, so prefer it for large tables.
        items: the file of items; by default `items.*` in the same folder.
        encoding: of CSV files.
        max_malformed: share of malformed JSON lines above which a file is refused.
        options: passed on to `prepare`.

    Raises:
        FileNotFoundError: if a file is missing; lists the expected names.
        ValueError: if a file cannot be read, or its columns cannot be used.
    """
    interactions = find_file(path, tuple(f"interactions{end}" for end in _ENDINGS), "interactions")
    catalogue = find_file(items or interactions.parent, tuple(f"items{end}" for end in _ENDINGS), "items")
    raw, frames = [], []
    for file in (interactions, catalogue):
        lines, frame = _read(file, encoding, max_malformed)
        raw.append(lines)
        frames.append(frame)
    frames[1] = frames[1].lazy().collect()
    if frames[1].schema.get("aspects") == pl.String:
        parted = pl.col("aspects").str.split("|").list.eval(pl.element().str.strip_chars().str.to_lowercase())
        frames[1] = frames[1].with_columns(parted.list.eval(pl.element().filter(pl.element() != "")))
    report = ReadReport(
        source="table",
        files=(interactions.name, catalogue.name),
        lines=sum(part.lines for part in raw),
        malformed=sum(part.malformed for part in raw),
        malformed_lines=sum((part.malformed_lines for part in raw), ()),
    )
    return prepare(frames[1], frames[0], report=report, **options)


def _read(file: Path, encoding: str, max_malformed: float) -> tuple[RawLines, pl.DataFrame | pl.LazyFrame]:
    name = file.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        raw = read_records(file, None, max_malformed=max_malformed)
        return raw, raw.frame
    if name.endswith(".csv"):
        frame = read_csv(file, dict.fromkeys(_TEXT, pl.String), encoding=encoding)
        return RawLines(frame, frame.height), frame
    if name.endswith(".parquet"):
        frame = scan_parquet(file)
        return RawLines(pl.DataFrame(), frame.select(pl.len()).collect().item()), frame
    raise ValueError(f"{file} has an unknown ending; expected one of {list(_ENDINGS)}.")
