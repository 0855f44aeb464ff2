"""Check published examples again, from the published files alone.

Without the reviews and the preferences' dates not every search of `leakage` can be repeated, but the ones that
matter to whoever evaluates can: no example shows its own target, every id is in the catalogue, evaluated targets of a
user are not in that user's training examples, pairs are whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol as Shape

import polars as pl

from preference_benchmark.axes.examples import EXAMPLE_FEATURES
from preference_benchmark.axes.protocol import AXES, SPLITS

__all__ = [
    "recheck",
]


class DataSet(Shape):
    """A data set of the repository."""

    name: str
    place: str
    statistics: dict


def recheck(output: Path, data_set: DataSet) -> list[str]:
    """What is wrong with the examples of a data set; an empty list where nothing is."""
    configs = data_set.statistics["configs"]
    folder = Path(output) / data_set.place
    items_config = next(name for name, config in configs.items() if config["part"] == "items")
    items = pl.read_parquet(folder / items_config / "*.parquet")["item_id"]
    wrong = []
    for name, config in configs.items():
        if config["part"] == "items":
            continue
        built = [split for split in SPLITS if split in config["splits"]]
        splits = {split: pl.read_parquet(folder / name / f"{split}-*.parquet") for split in built}
        rows = pl.concat([frame.with_columns(split=pl.lit(split)) for split, frame in splits.items()])
        wrong += [f"{name}: {problem}" for problem in _problems(rows, items)]
        counted = rows.group_by("axis", "split").len()
        for axis, split, count in counted.iter_rows():
            expected = data_set.statistics["examples"].get(AXES[axis], {}).get(split)
            if count != expected:
                wrong.append(f"{name}: {count:,} examples of {AXES[axis]} in {split}; {expected} were built.")
    return wrong


def _problems(rows: pl.DataFrame, items: pl.Series) -> list[str]:
    known = items.implode()
    negative = EXAMPLE_FEATURES["sentiment"].names.index("negative")
    paired = [axis for axis, name in enumerate(AXES) if name.startswith("sentiment")]
    pairs = (
        rows.filter(pl.col("axis").is_in(paired))
        .group_by("axis", "pair_id")
        .agg(examples=pl.len(), negative=(pl.col("sentiment") == negative).sum())
    )
    found = {
        "examples show their own target": rows.filter(pl.col("history").list.contains(pl.col("target"))).height,
        "targets are not in the catalogue": rows.filter(~pl.col("target").is_in(known)).height,
        "histories name items that are not in the catalogue": rows.select(
            (~pl.col("history").explode().is_in(known)).sum()
        ).item(),
        "examples have no preference": rows.filter(pl.col("preferences").list.len() == 0).height,
        "pairs are not one positive and one negative example": pairs.filter(
            (pl.col("examples") != 2) | (pl.col("negative") != 1)
        ).height,
        "examples of unpaired axes have a pair or a negative sentiment": rows.filter(
            ~pl.col("axis").is_in(paired) & ((pl.col("pair_id") != -1) | (pl.col("sentiment") == negative))
        ).height,
        "evaluated next items are targets of the same user in training": _trained_on(rows),
    }
    return [f"{count:,} {what}." for what, count in found.items() if count]


def _trained_on(rows: pl.DataFrame) -> int:
    next_item = rows.filter(pl.col("axis") == AXES.index("recommendation"))
    evaluated = next_item.filter(pl.col("split") != "train").select("user_id", "target").unique()
    trained = rows.filter(pl.col("split") == "train").select("user_id", "target").unique()
    return evaluated.join(trained, on=["user_id", "target"], how="semi").height
