"""What a method trains on: axes by name and weight, negatives or not, one sequence per user for SASRec.

The benchmark's train split holds all axes; the paper's data augmentation (arXiv:2412.08604) is the choice among them.
"""

from __future__ import annotations

from collections.abc import Mapping

import datasets
import numpy as np

from .processing_mender import MenderProcessor

__all__ = ["item_counts", "repeated", "select_axes", "sequence_features", "training_histories"]


def select_axes(
    examples: datasets.Dataset, axes: Mapping[str, float], *, negatives: bool = False, seed: int = 0
) -> datasets.Dataset:
    """Examples of some axes, each as often as its weight says.

    Args:
        examples: with the columns `axis` and `sentiment` (class labels).
        axes: weights by name: 2 shows every example twice, 0.5 a random half, 1.5 all and a random half again.
        negatives: whether examples that say what must not come back are among them.
        seed: of the random part.

    Raises:
        ValueError: if an axis is unknown, or nothing is left.
    """
    names = examples.features["axis"].names
    unknown = [axis for axis in axes if axis not in names]
    if unknown:
        raise ValueError(f"axis {unknown[0]!r} is not among the examples' axes {', '.join(names)}")
    axis, sentiment = np.array(examples["axis"][:]), np.array(examples["sentiment"][:])
    generator = np.random.default_rng(seed)
    rows = [
        repeated(np.flatnonzero((axis == names.index(name)) & (negatives | (sentiment == 0))), weight, generator)
        for name, weight in axes.items()
    ]
    chosen = np.sort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
    if not len(chosen):
        raise ValueError(f"the axes {dict(axes)} leave no example of {len(examples)}; name others or raise weights")
    return examples.select(chosen)


def repeated(rows: np.ndarray, weight: float, generator: np.random.Generator) -> np.ndarray:
    """Rows as often as the weight says, the fraction drawn at random.

    >>> repeated(np.arange(2), 2.0, np.random.default_rng(0)).tolist()
    [0, 1, 0, 1]
    """
    whole = int(weight)
    extra = generator.choice(rows, round((weight - whole) * len(rows)), replace=False)
    return np.concatenate([*[rows] * whole, extra]).astype(np.int64)


def training_histories(examples: datasets.Dataset) -> list[list[str]]:
    """Items of every user in the training period, oldest first: the longest history of each, and its target.

    Args:
        examples: of the train split, axis `recommendation`.
    """
    table = examples.select_columns(["user_id", "history", "target"]).to_polars()
    longest = table.sort(table["history"].list.len(), descending=True, maintain_order=True).unique(
        "user_id", keep="first", maintain_order=True
    )
    return [[*row["history"], row["target"]] for row in longest.sort("user_id").iter_rows(named=True)]


def item_counts(examples: datasets.Dataset, processor: MenderProcessor) -> np.ndarray:
    """How often each item was bought in the training period. Shape: (N,), int64."""
    bought = [row for history in training_histories(examples) for row in processor.rows(history)]
    return np.bincount(bought, minlength=len(processor.item_ids))


def sequence_features(examples: datasets.Dataset, processor: MenderProcessor) -> datasets.Dataset:
    """SASRec's training features: one sequence per user, the next item as label at every position.

    Args:
        examples: of the train split, axis `recommendation`.
        processor: with `history="rows"`.

    Returns:
        `input_ids`, `labels` (item rows, one per position) and `length`.
    """
    longest = processor.max_history + 1
    histories = [processor.rows(history) for history in training_histories(examples)]
    inputs = [processor.render("", rows[-longest:-1]) for rows in histories]
    # The start token predicts the very first item; where earlier ones are cut off there is nothing to predict it from.
    labels = [rows if len(rows) <= longest else [-100, *rows[-longest + 1 :]] for rows in histories]
    return datasets.Dataset.from_dict({"input_ids": inputs, "labels": labels, "length": [*map(len, inputs)]})
