"""The schema of examples and items, and frames as data sets of that schema."""

from __future__ import annotations

import polars as pl
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from preference_benchmark.protocol import AXES, SPLITS
from preference_benchmark.sentiment import NEGATIVE, POSITIVE

__all__ = ["EXAMPLE_FEATURES", "coded", "examples_dataset", "item_features", "items_dataset"]

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
