"""The two sentiment axes: pairs of a negative preference and its inversion about one item.

A model that follows preferences ranks the item high for the positive text and leaves it out for the negative one
(m@k; Paischer et al. 2025, arXiv:2412.08604). The paper shows no history; the same pairs after the history that led to
the item are an axis of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from preference_benchmark.axes.examples import KEYS, as_examples, last_step_of_split, targets, with_item_index
from preference_benchmark.axes.protocol import SPLITS, Protocol
from preference_benchmark.embedding import Embedder, cosines
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE, inverted, review_polarity
from preference_benchmark.tables import Tables

__all__ = [
    "sentiment_following",
    "sentiment_following_with_history",
    "sentiment_pairs",
]


Judge = Callable[[pl.DataFrame], pl.Series]


def sentiment_pairs(
    tables: Tables,
    preferences: pl.DataFrame,
    embedder: Embedder,
    protocol: Protocol,
    *,
    judge: Judge = review_polarity,
) -> pl.DataFrame:
    """For items that their users reviewed negatively, the negative preference that describes each.

    It is the user's negative preference, written at or after that step, that is closest to review and title; such a
    preference knows its item, which is the purpose of the axis. The position of the item decides the split.
    `Protocol.sentiment_window` bounds how much later the preference may be written. Each text makes one pair, or one
    per split (`Protocol.distinct_pairs`): that of highest similarity, ties by user and step. Negative preferences that
    the rules cannot invert make no pair.

    Args:
        tables: the data set.
        preferences: as an approximator gives them.
        embedder: embeds preferences and reviews.
        protocol: the choices.
        judge: the sentiment of each interaction, "positive" or "negative".

    Returns:
        pair_id (0, 1, ...), user_id, step (of the item), split, target, text, inverse, written (step), similarity;
        sorted by user_id and step.
    """
    rows = with_item_index(tables).sort(KEYS).with_columns(split=tables.split())
    until = last_step_of_split() if protocol.sentiment_window == "split" else pl.col("step").max().over("user_id")
    rows = rows.with_columns(polarity=judge(rows), until=until, position=pl.int_range(pl.len()))
    disliked = (
        rows.filter((pl.col("polarity") == NEGATIVE) & pl.col("split").is_in(SPLITS))
        .join(tables.items.select("item_id", "title"), on="item_id", how="left", maintain_order="left")
        .with_columns(about=pl.format("{} {}", "review", "title").str.strip_chars())
    )
    written = preferences.filter(pl.col("sentiment") == NEGATIVE)
    written = written.with_columns(inverse=inverted(written["text"], protocol.inversion)).filter(
        pl.col("inverse").is_not_null()
    )
    candidates = disliked.join(
        written.select("user_id", "text", "inverse", written="step"), on="user_id", how="inner"
    ).filter(pl.col("written").is_between(pl.col("step"), pl.col("until")))
    candidates = candidates.sort("position", "text", "written").unique(["position", "text"], keep="first")
    candidates = candidates.with_columns(similarity=cosines(candidates["text"], candidates["about"], embedder))
    closest = candidates.sort(["position", "similarity", "text"], descending=[False, True, False]).unique(
        "position", keep="first", maintain_order=True
    )
    once = ["text"] if protocol.distinct_pairs == "overall" else ["split", "text"]
    return (
        closest.sort(["similarity", "position"], descending=[True, False])
        .unique(once, keep="first", maintain_order=True)
        .sort("position")
        .with_row_index("pair_id")
        .select(
            pl.col("pair_id").cast(pl.Int64),
            *("user_id", "step", "split", "text", "inverse", "written", "similarity"),
            target="item",
        )
    )


def sentiment_following(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs of `sentiment_pairs` without a history: two examples each, joined by `pair_id`."""
    return _examples("sentiment_following", pairs.with_columns(history=pl.lit([], dtype=pl.List(pl.Int32))))


def sentiment_following_with_history(tables: Tables, pairs: pl.DataFrame) -> pl.DataFrame:
    """The same pairs under the same `pair_id`, after the items that the user had bought before.

    Pairs about the first item of a history have no history and are left out.
    """
    history = targets(tables).select(*KEYS, "history")
    pairs = pairs.join(history, on=KEYS, how="inner", maintain_order="left")
    return _examples("sentiment_following_with_history", pairs)


def _examples(axis: str, pairs: pl.DataFrame) -> pl.DataFrame:
    """Two examples of every pair, the negative text first."""
    both = pl.concat(
        [
            pairs.with_columns(sentiment=pl.lit(NEGATIVE)),
            pairs.with_columns(sentiment=pl.lit(POSITIVE), text="inverse"),
        ]
    ).sort("pair_id", "sentiment")
    return as_examples(
        axis,
        both,
        preferences=pl.concat_list("text"),
        sentiment=pl.col("sentiment"),
        pair_id=pl.col("pair_id"),
    )
