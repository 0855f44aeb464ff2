"""What can be asked for: every step of every history, its split, and the shape that examples have.

Splits are leave-last-two-out: of a user's n items the last is the test target, the one before it the validation
target, those at steps 1 to n-3 are training targets.
"""

from __future__ import annotations

import polars as pl

from preference_benchmark.sentiment import POSITIVE
from preference_benchmark.tables import Tables

__all__ = ["COLUMNS", "KEYS", "as_examples", "last_step_of_split", "split", "targets"]

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
