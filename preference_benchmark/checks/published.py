"""Check published examples again, from the published files alone.

Without the reviews and the preferences' dates not every search of `leakage` can be repeated, but those that matter for
evaluation can: no example shows its own target, every item is in the catalogue, evaluated targets of a user are not in
that user's training examples, pairs are complete.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol as Shape

import polars as pl

from preference_benchmark.axes.examples import ITEM_COLUMNS
from preference_benchmark.axes.protocol import AXES, KINDS, SENTIMENT_AXES, SPLITS
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE

__all__ = [
    "recheck",
]

logger = logging.getLogger(__name__)


class Listed(Shape):
    """A benchmark of the repository."""

    name: str
    place: str
    statistics: dict


def recheck(folder: Path, benchmark: Listed) -> list[str]:
    """What is wrong with the examples of a benchmark; an empty list where nothing is."""
    logger.info("checking the examples of %s", benchmark.name)
    configs = benchmark.statistics["configs"]
    folder = Path(folder) / benchmark.place
    items_config = next(name for name, config in configs.items() if config["part"] == "items")
    items = pl.read_parquet(folder / items_config / "*.parquet", columns=["item_id"]).height
    wrong = []
    for name, config in configs.items():
        if config["part"] == "items":
            continue
        built = [split for split in SPLITS if split in config["splits"]]
        splits = {split: pl.read_parquet(folder / name / f"{split}-*.parquet") for split in built}
        rows = pl.concat([frame.with_columns(split=pl.lit(split)) for split, frame in splits.items()])
        again = benchmark.statistics["protocol"]["repeats"] == "keep"
        wrong += [f"{name}: {problem}" for problem in _problems(rows, items, bought_again=again)]
        counted = rows.group_by("axis", "split").len()
        for axis, split, count in counted.iter_rows():
            expected = benchmark.statistics["examples"].get(axis, {}).get(split)
            if count != expected:
                wrong.append(f"{name}: {count:,} examples of {axis} in {split}; {expected} were built.")
    return wrong


def _problems(rows: pl.DataFrame, items: int, *, bought_again: bool) -> list[str]:
    indices = pl.concat([rows[name].explode(empty_as_null=False) for name in ITEM_COLUMNS])
    paired = pl.col("axis").is_in(SENTIMENT_AXES)
    negative = pl.col("sentiment") == NEGATIVE
    pairs = rows.filter(paired).group_by("axis", "pair_id").agg(examples=pl.len(), negative=negative.sum())
    columns = {"axis": AXES, "kind": KINDS, "sentiment": (POSITIVE, NEGATIVE)}
    found = {f"examples have an unknown {name}": ~pl.col(name).is_in(known) for name, known in columns.items()}
    found |= {
        "examples have no target": pl.col("targets").list.len() == 0,
        "examples must avoid one of their targets": pl.col("avoided").list.set_intersection("targets").list.len() > 0,
        "examples have no preference": pl.col("preferences").list.len() == 0,
        "examples of unpaired axes have a pair or a negative sentiment": ~paired
        & ((pl.col("pair_id") != -1) | negative),
    }
    if not bought_again:
        shown = pl.col("history").list.set_intersection("targets").list.len() > 0
        found["examples show a target in their history"] = shown
    counts = {what: rows.filter(wrong).height for what, wrong in found.items()} | {
        "items of the examples are not in the catalogue": indices.filter(~indices.is_between(0, items - 1)).len(),
        "pairs are not one positive and one negative example": pairs.filter(
            (pl.col("examples") != 2) | (pl.col("negative") != 1)
        ).height,
        "evaluated next items are targets of the same user in training": 0 if bought_again else _trained_on(rows),
    }
    return [f"{count:,} {what}." for what, count in counts.items() if count]


def _trained_on(rows: pl.DataFrame) -> int:
    targets = rows.select("axis", "split", "user_id", target="targets").explode("target")
    next_item = targets.filter((pl.col("axis") == "recommendation") & (pl.col("split") != "train"))
    trained = targets.filter(pl.col("split") == "train").select("user_id", "target").unique()
    return next_item.unique(["user_id", "target"]).join(trained, on=["user_id", "target"], how="semi").height
