"""What a steerable recommender is measured against: popularity, and itself with somebody else's preferences.

A model that beats popularity recommends; a model that loses when preferences are exchanged between users listens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from datasets import Dataset

from preference_benchmark.tables import Tables

__all__ = [
    "popularity_ranking",
    "shuffle_preferences",
]


def popularity_ranking(tables: Tables, histories: Sequence[Sequence[str]], k: int = 10) -> list[list[str]]:
    """The k items most bought in the training period that each history lacks.

    Args:
        tables: the data set; the last two items of every user are held out and not counted.
        histories: item ids of each user.
        k: items per user.

    Returns:
        Item ids, most popular first; ties by item id. Shape: (N, <= k).
    """
    counts = (
        tables.interactions.filter(pl.col("step") < pl.len().over("user_id") - 2)
        .group_by("item_id")
        .len()
        .sort("len", "item_id", descending=[True, False])
    )
    popular = counts["item_id"].to_list()
    longest = max((len(history) for history in histories), default=0)
    head = popular[: k + longest]
    ranked = []
    for history in histories:
        seen = set(history)
        ranked.append([item for item in head if item not in seen][:k])
    return ranked


def shuffle_preferences(examples: Dataset, seed: int = 0) -> Dataset:
    """The same examples with preferences exchanged between them, within each axis and sentiment.

    Every example gets the preferences of another; the two halves of a sentiment pair keep belonging together, because
    both sentiments are shuffled alike.

    Args:
        examples: examples of any axes.
        seed: of the exchange.
    """
    table = pl.DataFrame(
        {
            "row": range(len(examples)),
            "axis": examples["axis"][:],
            "sentiment": examples["sentiment"][:],
            "pair_id": examples["pair_id"][:],
        }
    )
    source = np.arange(len(examples))
    for group in table.sort("pair_id", "row", maintain_order=True).partition_by(
        "axis", "sentiment", maintain_order=True
    ):
        rows = group["row"].to_numpy()
        # One random cycle through the group: nobody keeps their own, and groups of equal size are shuffled alike.
        cycle = np.random.default_rng(seed).permutation(len(rows))
        source[rows[cycle]] = rows[np.roll(cycle, 1)]
    preferences = examples["preferences"][:]
    shuffled = [preferences[row] for row in source]
    position = examples.column_names.index("preferences")
    feature = examples.features["preferences"]
    exchanged = examples.remove_columns("preferences").add_column("preferences", shuffled, feature=feature)
    names = [name for name in exchanged.column_names if name != "preferences"]
    return exchanged.select_columns([*names[:position], "preferences", *names[position:]])
