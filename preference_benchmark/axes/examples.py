"""Examples: what can be asked for at every step of a history, the schema, and the axes by name.

Splits are leave-last-two-out: of a user's n items the last is the test target, the one before it the validation
target, those at steps 1 to n-3 are training targets. The axes follow Preference Discerning (Paischer et al. 2025,
arXiv:2412.08604); every choice is a field of `Protocol`.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from preference_benchmark.axes.protocol import AXES, SPLITS
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE
from preference_benchmark.stages import digest_of_file
from preference_benchmark.tables import Tables

__all__ = [
    "COLUMNS",
    "EXAMPLE_FEATURES",
    "KEYS",
    "as_examples",
    "coded",
    "examples_dataset",
    "item_features",
    "items_dataset",
    "last_step_of_split",
    "split",
    "targets",
    "write_shards",
]


COLUMNS = ("axis", "split", "user_id", "history", "preferences", "sentiment", "target", "pair_id")
KEYS = ("user_id", "step")


def targets(tables: Tables) -> pl.DataFrame:
    """Every step that can be asked for: a target and the items before it.

    Returns:
        user_id, step, split, target (item id), history (item ids, oldest first, never empty); sorted by user_id
        and step.
    """
    rows = tables.interactions.sort(KEYS)
    bought = rows.group_by("user_id", maintain_order=True).agg(bought="item_id")
    return (
        rows.select(*KEYS, split=split(), target="item_id")
        .filter(pl.col("step") >= 1)
        .join(bought, on="user_id", how="left", maintain_order="left")
        .with_columns(history=pl.col("bought").list.head(pl.col("step")))
        .drop("bought")
    )


def split() -> pl.Expr:
    """Split of the target at each step, from its distance to the end of the user's history."""
    left = pl.len().over("user_id").cast(pl.Int64) - 1 - pl.col("step")
    return pl.when(left == 0).then(pl.lit("test")).when(left == 1).then(pl.lit("validation")).otherwise(pl.lit("train"))


def last_step_of_split() -> pl.Expr:
    """The last step of the split that each step belongs to."""
    length = pl.len().over("user_id").cast(pl.Int64)
    return pl.max_horizontal(length - 3, pl.col("step"))


def as_examples(
    axis: str,
    rows: pl.DataFrame,
    *,
    preferences: pl.Expr,
    sentiment: pl.Expr | None = None,
    pair_id: pl.Expr | None = None,
) -> pl.DataFrame:
    """Rows with user_id, split, history and target as examples of an axis."""
    return rows.select(
        axis=pl.lit(axis),
        split="split",
        user_id="user_id",
        history="history",
        preferences=preferences,
        sentiment=pl.lit(POSITIVE) if sentiment is None else sentiment,
        target="target",
        pair_id=pl.lit(-1, dtype=pl.Int64) if pair_id is None else pair_id,
    )


EXAMPLE_FEATURES = Features(
    {
        "axis": ClassLabel(names=list(AXES)),
        "user_id": Value("string"),
        "history": List(Value("string")),
        "preferences": List(Value("string")),
        "sentiment": ClassLabel(names=[POSITIVE, NEGATIVE]),
        "target": Value("string"),
        "pair_id": Value("int64"),
    }
)


def items_dataset(items: pl.DataFrame) -> Dataset:
    """The items table as a data set; large Arrow types become their plain counterparts."""
    return Dataset.from_polars(items, features=item_features(items))


def item_features(items: pl.DataFrame) -> Features:
    """The schema of an items table."""
    found = Dataset.from_polars(items.head(0)).features
    return Features({name: _plain(kind) for name, kind in found.items()})


def coded(examples: pl.DataFrame, split: str) -> pl.DataFrame:
    """Examples of a split in the columns of `EXAMPLE_FEATURES`, class labels as numbers."""
    axis, sentiment = EXAMPLE_FEATURES["axis"].names, EXAMPLE_FEATURES["sentiment"].names
    return (
        examples.filter(pl.col("split") == split)
        .with_columns(
            pl.col("axis").replace_strict(axis, range(len(axis)), return_dtype=pl.Int64),
            pl.col("sentiment").replace_strict(sentiment, range(len(sentiment)), return_dtype=pl.Int64),
        )
        .select(list(EXAMPLE_FEATURES))
    )


def examples_dataset(examples: pl.DataFrame) -> DatasetDict:
    """Example frames as the splits of a data set with `EXAMPLE_FEATURES`."""
    return DatasetDict(
        {split: Dataset.from_polars(coded(examples, split), features=EXAMPLE_FEATURES) for split in SPLITS}
    )


def _plain(feature: object) -> object:
    if isinstance(feature, Value):
        return Value(feature.dtype.removeprefix("large_"))
    if isinstance(feature, dict):
        return {name: _plain(inner) for name, inner in feature.items()}
    return List(_plain(feature.feature)) if hasattr(feature, "feature") else feature


_SHARD_BYTES = 300 << 20
_ROW_GROUP = 10_000


def write_shards(frame: pl.DataFrame, features: Features, folder: Path, split: str) -> dict:
    """Write a split as `{split}-00000-of-00001.parquet`, ...

    Args:
        frame: the rows, with the columns of the features.
        features: what `datasets` shall make of them.
        folder: where the files go.
        split: their name.

    Returns:
        rows, bytes (of the files), and files: name and SHA-256 of each.
    """
    shards = max(1, -(-frame.estimated_size() // _SHARD_BYTES))
    rows = max(1, -(-frame.height // shards))
    schema = features.arrow_schema.with_metadata(
        {"huggingface": json.dumps({"info": {"features": features.to_dict()}})}
    )
    files, size = {}, 0
    for number in range(shards):
        path = folder / f"{split}-{number:05d}-of-{shards:05d}.parquet"
        table = frame.slice(number * rows, rows).to_arrow().select(schema.names).cast(schema)
        pq.write_table(pa.table(table.columns, schema=schema), path, row_group_size=_ROW_GROUP, compression="zstd")
        files[path.name] = digest_of_file(path)
        size += path.stat().st_size
    return {"rows": frame.height, "bytes": size, "files": files}
