"""Examples: the schema, the steps that can be targets, and their splits.

`Tables.split` says which steps are targets of which split: by default leave-last-two-out. The axes follow
Preference Discerning (Paischer et al. 2025, arXiv:2412.08604); every choice is a field of `Protocol`.

Histories and targets are item indices (rows of the items table) in every frame and file: a history of 20 items costs
80 bytes, whatever the item ids are. `with_item_ids` gives examples with the ids themselves, as training and evaluation
take them.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, List, Value

from preference_benchmark.axes.protocol import SPLITS
from preference_benchmark.preferences.polarity import POSITIVE
from preference_benchmark.stages import digest_of_file
from preference_benchmark.tables import Tables

__all__ = [
    "COLUMNS",
    "EXAMPLE_FEATURES",
    "ITEM_COLUMNS",
    "KEYS",
    "STORED_FEATURES",
    "as_examples",
    "examples_dataset",
    "item_features",
    "items_dataset",
    "last_step_of_split",
    "of_split",
    "targets",
    "with_item_ids",
    "with_item_index",
    "write_shards",
]

_TEXTS = List(Value("string"))
EXAMPLE_FEATURES = Features(
    {
        "axis": Value("string"),
        "kind": Value("string"),
        "user_id": Value("string"),
        "history": _TEXTS,
        "preferences": _TEXTS,
        "avoid": _TEXTS,
        "sentiment": Value("string"),
        "targets": _TEXTS,
        "pair_id": Value("int64"),
        "stratum": Value("string"),
        "avoided": _TEXTS,
    }
)
"""Columns of examples in memory."""

ITEM_COLUMNS = ("history", "targets", "avoided")
STORED_FEATURES = Features(
    {name: List(Value("int32")) if name in ITEM_COLUMNS else feature for name, feature in EXAMPLE_FEATURES.items()}
)
"""Columns of examples in files: item indices in place of item ids."""

COLUMNS = (*EXAMPLE_FEATURES, "split")
"""Columns of the frames that the axes give; types as in `STORED_FEATURES`."""

KEYS = ("user_id", "step")

_BATCH = 65_536


def targets(tables: Tables) -> pl.DataFrame:
    """Every step that is a target of some split, and the items before it.

    Returns:
        user_id, step, split, target (item index, int32), history (item indices, oldest first, never empty); sorted by
        user_id and step.
    """
    rows = with_item_index(tables).sort(KEYS)
    bought = rows.group_by("user_id", maintain_order=True).agg(bought="item")
    return (
        rows.select(*KEYS, split=tables.split(), target="item")
        .filter((pl.col("step") >= 1) & pl.col("split").is_in(SPLITS))
        .join(bought, on="user_id", how="left", maintain_order="left")
        .with_columns(history=pl.col("bought").list.head(pl.col("step")))
        .drop("bought")
    )


def with_item_index(tables: Tables) -> pl.DataFrame:
    """The interactions, with `item`: the index of their item."""
    index = tables.items.select("item_id", item=pl.int_range(pl.len(), dtype=pl.Int32))
    return tables.interactions.join(index, on="item_id", how="left", maintain_order="left")


def last_step_of_split() -> pl.Expr:
    """The last of the user's steps in the same split as each step, where `split` is a column."""
    return pl.col("step").max().over("user_id", "split")


def as_examples(
    axis: str,
    rows: pl.DataFrame,
    *,
    preferences: pl.Expr,
    kind: str = "stated",
    avoid: pl.Expr | None = None,
    sentiment: pl.Expr | None = None,
    targets: pl.Expr | None = None,
    pair_id: pl.Expr | None = None,
    stratum: pl.Expr | None = None,
    avoided: pl.Expr | None = None,
) -> pl.DataFrame:
    """Rows as examples of an axis, in the columns of `COLUMNS`.

    Args:
        axis: its name.
        rows: with user_id, split, history and, unless `targets` are given, target.
        preferences: lists of texts.
        kind: of all examples, see `protocol.KINDS`.
        avoid: lists of texts; default: none.
        sentiment: default: "positive".
        targets: lists of item indices; default: the one target.
        pair_id: default: -1.
        stratum: default: "".
        avoided: lists of item indices; default: none.
    """
    no_items = pl.lit([], dtype=pl.List(pl.Int32))
    return rows.select(
        axis=pl.lit(axis),
        kind=pl.lit(kind),
        user_id="user_id",
        history="history",
        preferences=preferences,
        avoid=pl.lit([], dtype=pl.List(pl.String)) if avoid is None else avoid,
        sentiment=pl.lit(POSITIVE) if sentiment is None else sentiment,
        targets=pl.concat_list("target") if targets is None else targets,
        pair_id=pl.lit(-1, dtype=pl.Int64) if pair_id is None else pair_id,
        stratum=pl.lit("") if stratum is None else stratum,
        avoided=no_items if avoided is None else avoided.cast(pl.List(pl.Int32)),
        split="split",
    )


def of_split(examples: pl.DataFrame, split: str) -> pl.DataFrame:
    """The examples of a split, in the columns of `STORED_FEATURES`."""
    return examples.filter(pl.col("split") == split).select(list(STORED_FEATURES))


def examples_dataset(examples: pl.DataFrame, item_ids: pl.Series) -> DatasetDict:
    """Example frames as the splits of a data set with `EXAMPLE_FEATURES`."""
    splits = {split: of_split(examples, split) for split in SPLITS}
    return DatasetDict(
        {
            split: with_item_ids(frame.to_arrow().cast(STORED_FEATURES.arrow_schema), item_ids)
            for split, frame in splits.items()
        }
    )


def with_item_ids(examples: pa.Table, item_ids: pl.Series) -> Dataset:
    """Stored examples with item ids in place of item indices.

    Args:
        examples: with the columns of `STORED_FEATURES`.
        item_ids: the id of each item, in the order of the items table.

    Raises:
        ValueError: if an example refers to an item that is not there.
    """
    ids = pa.array(item_ids.to_list(), pa.string())

    def named(lists: pa.ListArray) -> pa.ListArray:
        indices = lists.flatten()
        ends = pa_compute.cumulative_sum(pa_compute.list_value_length(lists))
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
        return pa.ListArray.from_arrays(offsets, ids.take(indices))

    # One batch of rows at a time: an Arrow array of strings holds two gigabytes at most.
    batches = examples.to_batches(max_chunksize=_BATCH)
    try:
        columns = [
            [named(batch[name]) if name in ITEM_COLUMNS else batch[name] for name in EXAMPLE_FEATURES]
            for batch in batches
        ]
    except pa.ArrowIndexError as error:
        raise ValueError(
            f"an example refers to an item beyond the {len(ids):,} items of the items table; the two are of different "
            "builds."
        ) from error
    schema = EXAMPLE_FEATURES.arrow_schema
    tables = [pa.table(batch, names=schema.names).cast(schema) for batch in columns]
    return Dataset(pa.concat_tables(tables) if tables else schema.empty_table())


def items_dataset(items: pl.DataFrame) -> Dataset:
    """The items table as a data set; large Arrow types become their plain counterparts."""
    return Dataset.from_polars(items, features=item_features(items))


def item_features(items: pl.DataFrame) -> Features:
    """The schema of an items table."""
    found = Dataset.from_polars(items.head(0)).features
    return Features({name: _plain(feature) for name, feature in found.items()})


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
        features: the schema that `datasets` will read.
        folder: where the files go.
        split: the beginning of their names.

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
