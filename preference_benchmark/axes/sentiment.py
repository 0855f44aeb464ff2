"""The two sentiment axes: pairs of a negative preference and its inversion about one item.

A model that listens ranks the item for the positive text and keeps it out for the negative one (m@k; Paischer et al.
2025, arXiv:2412.08604). The paper asks without a history; the same pairs after the history that led to the item are
an axis of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from preference_benchmark.axes.examples import KEYS, as_examples, last_step_of_split, split, targets, with_item_index
from preference_benchmark.axes.protocol import Protocol
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
    protocol: Protocol | None = None,
    *,
    judge: Judge = review_polarity,
) -> pl.DataFrame:
    """For items that their users reviewed negatively, the negative preference that speaks of each.

    It is the user's negative preference, written at or after that step, that is closest to review and title; such a
    preference knows the item that it speaks of, which is the axis's purpose. The position of the item decides the
    split. `Protocol.sentiment_window` bounds how much later it may be written, `Protocol.distinct_pairs` within what
    a text makes one pair only: that of highest similarity, ties by user and step. Negative preferences that the rules
    cannot invert make no pair.

    Args:
        tables: the data set.
        preferences: as an approximator gives them.
        embedder: embeds preferences and reviews.
        protocol: the choices; default: `Protocol()`.
        judge: says of interactions whether each is positive or negative.

    Returns:
        pair_id (0, 1, ...), user_id, step (of the item), split, target, text, inverse, written (step), similarity;
        sorted by user_id and step.
    """
    protocol = protocol or Protocol()
    rows = with_item_index(tables).sort(KEYS)
    until = last_step_of_split() if protocol.sentiment_window == "split" else pl.col("step").max().over("user_id")
    rows = rows.with_columns(polarity=judge(rows), split=split(), until=until, position=pl.int_range(pl.len()))
    disliked = (
        rows.filter(pl.col("polarity") == NEGATIVE)
        .join(tables.items.select("item_id", "title"), on="item_id", how="left", maintain_order="left")
        .with_columns(about=pl.format("{} {}", "review", "title").str.strip_chars())
    )
    written = preferences.filter(pl.col("sentiment") == NEGATIVE)
    written = written.with_columns(inverse=inverted(written["text"], protocol.inversion)).filter(
        pl.col("inverse").is_not_null()
    )
    options = disliked.join(
        written.select("user_id", "text", "inverse", written="step"), on="user_id", how="inner"
    ).filter(pl.col("written").is_between(pl.col("step"), pl.col("until")))
    options = options.sort("position", "text", "written").unique(["position", "text"], keep="first")
    options = options.with_columns(similarity=cosines(options["text"], options["about"], embedder))
    closest = options.sort(["position", "similarity", "text"], descending=[False, True, False]).unique(
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


def sentiment_following(
    tables: Tables,
    preferences: pl.DataFrame,
    embedder: Embedder,
    protocol: Protocol | None = None,
    *,
    pairs: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The pairs of `sentiment_pairs`, without a history: two rows each, joined by `pair_id`.

    Args:
        tables: the data set.
        preferences: as an approximator gives them.
        embedder: embeds preferences and reviews.
        protocol: the choices; default: `Protocol()`.
        pairs: the result of `sentiment_pairs`, where it is known already.
    """
    if pairs is None:
        pairs = sentiment_pairs(tables, preferences, embedder, protocol)
    return _rows("sentiment_following", pairs.with_columns(history=pl.lit([], dtype=pl.List(pl.Int32))))


def sentiment_following_with_history(
    tables: Tables,
    preferences: pl.DataFrame,
    embedder: Embedder,
    protocol: Protocol | None = None,
    *,
    pairs: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The same pairs under the same `pair_id`, after the items that the user had met before.

    Pairs about the first item of a history have no history and are left out. Arguments: see `sentiment_following`.
    """
    if pairs is None:
        pairs = sentiment_pairs(tables, preferences, embedder, protocol)
    history = targets(tables).select(*KEYS, "history")
    pairs = pairs.join(history, on=KEYS, how="inner", maintain_order="left")
    return _rows("sentiment_following_with_history", pairs)


def _rows(axis: str, pairs: pl.DataFrame) -> pl.DataFrame:
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
