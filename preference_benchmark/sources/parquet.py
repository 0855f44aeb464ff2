"""Parquet files, or folders of them, as lazy tables of known columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

__all__ = ["scan_parquet"]


def scan_parquet(
    path: Path, fields: Mapping[str, pl.DataType | type[pl.DataType]] | None = None, required: tuple[str, ...] = ()
) -> pl.LazyFrame:
    """A lazy table over a Parquet file, or over all Parquet files of a folder in the order of their names.

    Args:
        path: the file or folder.
        fields: columns to keep and the types to bring them to; one that the file lacks is null. None keeps all.
        required: columns that the file must have.

    Raises:
        ValueError: if it is no Parquet, lacks a required column, or a column cannot have the wanted type.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no Parquet file; expected files named *.parquet.")
    try:
        frame = pl.scan_parquet(files)
        schema = frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({error}); download it again.") from error
    missing = [name for name in required if name not in schema]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {missing}; found {schema.names()}. Is it the right file for this source?"
        )
    if fields is None:
        return frame
    return frame.select(
        pl.col(name).cast(dtype) if name in schema else pl.lit(None, dtype).alias(name)
        for name, dtype in fields.items()
    )
