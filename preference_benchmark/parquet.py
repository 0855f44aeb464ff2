"""Tables as Parquet shards that `datasets` reads with their features.

The features travel in the files' own metadata, so that class labels and lists come back as they were. Row groups are
small enough to stream, files small enough to fetch one by one.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from preference_benchmark.stages import digest_of_file

__all__ = ["write_shards"]

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
