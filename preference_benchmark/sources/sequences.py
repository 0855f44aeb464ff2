"""Plain sequence files, as S3-Rec, P5 and their successors publish their splits.

`user_sequence.txt`: one user a line, `user item item ...`, oldest first. An optional second file gives every
item a few words: `item words ...`. There are no times, ratings or reviews.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from preference_benchmark.sources.raw_files import find_beside, find_file
from preference_benchmark.sources.raw_lines import read_report, read_words
from preference_benchmark.tables import Tables, prepare
from preference_benchmark.tables.stop_words import stop_words

__all__ = ["read_sequences"]

_SEQUENCES = ("user_sequence.txt", "user_sequence.txt.gz", "sequential_data.txt", "sequential_data.txt.gz")
_ITEMS = ("item_text.txt", "item_text.txt.gz", "item_generative_indexing_*.txt", "item_generative_indexing_*.txt.gz")
# A word is an aspect if this many titles have it, and fewer than this share of them begin with it.
_FEWEST_ITEMS, _LEADING = 10, 0.3


def read_sequences(
    path: str | Path,
    *,
    item_text: str | Path | None = None,
    max_malformed: float = 0.01,
    **options: object,
) -> Tables:
    """Tables from a sequence file.

    The timestamp of an interaction is its place in the file. An item's title and text are its words, and its
    aspects those of them that many items share; without a file of item texts the title is the id.

    Args:
        path: the sequence file, or the folder that holds it as `user_sequence.txt` (or `.txt.gz`).
        item_text: the file of item words; by default `item_text.txt` or `item_generative_indexing_*.txt`
            (or `.txt.gz`) beside the sequence file, where there is one.
        max_malformed: share of malformed lines (a user without items) above which a file is refused.
        options: passed on to `prepare`.
    """
    sequences = find_file(path, _SEQUENCES, "user sequences")
    words = (
        find_file(item_text, _ITEMS, "item texts") if item_text else find_beside(sequences.parent, _ITEMS, "item texts")
    )
    raw = [read_words(sequences, fewest=2, max_malformed=max_malformed)]
    rows = (
        raw[0]
        .frame.select(user_id=pl.col("words").list.first(), item_id=pl.col("words").list.slice(1))
        .explode("item_id")
    )
    if words is None:
        items = rows.select("item_id", title="item_id").unique(maintain_order=True)
    else:
        raw.append(read_words(words, fewest=1, max_malformed=max_malformed))
        items = raw[1].frame.select(
            item_id=pl.col("words").list.first(), title=pl.col("words").list.slice(1).list.join(" ")
        )
        items = items.with_columns(aspects=_aspects(items["title"]))
    report = read_report(
        "sequences",
        [part.count for part in raw],
        used={"interactions": rows.height, "items": items.height},
        more=rows.height - raw[0].frame.height,
        added=items.height if words is None else 0,
    )
    return replace(prepare(items, rows, report=report, **options), aspects_from="titles")


def _aspects(titles: pl.Series) -> pl.Series:
    """Words of each title that many titles share, other than in the first place, where brands stand."""
    words = titles.rename("word").to_frame().with_row_index("row")
    words = words.with_columns(pl.col("word").str.to_lowercase().str.split(" ")).explode("word")
    words = words.with_columns(first=pl.col("row") != pl.col("row").shift(1).fill_null(titles.len()))
    words = words.unique(["row", "word"], keep="first", maintain_order=True)
    shared = (pl.len().over("word") >= _FEWEST_ITEMS) & (pl.col("first").mean().over("word") < _LEADING)
    describes = pl.col("word").str.contains(r"^\p{L}{3,}$") & ~pl.col("word").is_in(list(stop_words()))
    lists = words.filter(shared & describes).group_by("row", maintain_order=True).agg(aspects="word")
    rows = pl.DataFrame({"row": pl.arange(titles.len(), dtype=pl.UInt32, eager=True)})
    return rows.join(lists, on="row", how="left", maintain_order="left")["aspects"].fill_null([])
