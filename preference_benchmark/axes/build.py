"""The axes: from tables, preferences and matches to examples, as pure functions.

Construction as in Preference Discerning (Paischer et al. 2025, arXiv:2412.08604); every choice is a field of
`Protocol`. Every function returns a frame with the columns of `COLUMNS`, one row per example, sorted.
"""

from __future__ import annotations

import polars as pl

from preference_benchmark.axes.examples import COLUMNS, KEYS, as_examples, targets
from preference_benchmark.axes.protocol import AXES, SENTIMENT_AXES, SPLITS, STEERING_AXES, Protocol
from preference_benchmark.axes.sentiment import sentiment_following, sentiment_following_with_history
from preference_benchmark.axes.steering import Closest, coarse_grained_steering, fine_grained_steering
from preference_benchmark.embedding import Embedder
from preference_benchmark.tables import Tables

__all__ = [
    "AXES",
    "COLUMNS",
    "SENTIMENT_AXES",
    "SPLITS",
    "STEERING_AXES",
    "build_axis",
    "coarse_grained_steering",
    "fine_grained_steering",
    "history_consolidation",
    "recommendation",
    "sentiment_following",
    "sentiment_following_with_history",
    "targets",
]


_STEERING = {
    "fine_grained_steering": fine_grained_steering,
    "coarse_grained_steering": coarse_grained_steering,
}
_SENTIMENT = {
    "sentiment_following": sentiment_following,
    "sentiment_following_with_history": sentiment_following_with_history,
}


def recommendation(tables: Tables, matches: pl.DataFrame, mode: str = "oracle") -> pl.DataFrame:
    """History and the one matched preference, to the next item.

    Args:
        tables: the data set.
        matches: user_id, step (of the target), text; targets without a match are left out.
        mode: how they were matched. A preference chosen by its target, mode "oracle", stands for one that was stated;
            one that never looked at the target is inferred.
    """
    rows = targets(tables).join(matches.select(*KEYS, "text"), on=KEYS, how="inner", maintain_order="left")
    kind = "stated" if mode == "oracle" else "inferred"
    return as_examples("recommendation", rows, preferences=pl.concat_list("text"), kind=kind)


def history_consolidation(tables: Tables, preferences: pl.DataFrame) -> pl.DataFrame:
    """History and all preferences written at the step before, in the order of their ranks, to the next item."""
    written = (
        preferences.sort(*KEYS, "rank")
        .group_by(KEYS, maintain_order=True)
        .agg(texts="text")
        .with_columns(pl.col("step") + 1)
    )
    rows = targets(tables).join(written, on=KEYS, how="inner", maintain_order="left")
    return as_examples("history_consolidation", rows, preferences=pl.col("texts"), kind="inferred")


def build_axis(
    axis: str,
    tables: Tables,
    preferences: pl.DataFrame,
    embedder: Embedder,
    protocol: Protocol,
    *,
    mode: str = "oracle",
    matches: pl.DataFrame | None = None,
    closest: Closest | None = None,
    pairs: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The examples of an axis by its name.

    Args:
        axis: one of `AXES`.
        tables: the data set.
        preferences: as an approximator gives them.
        embedder: embeds preferences, items and reviews.
        protocol: the choices.
        mode: how preferences were matched, for the recommendation axis.
        matches: the matched preferences, for the recommendation axis.
        closest: what the steering axes share, where it is known already.
        pairs: what the sentiment axes share, where it is known already.
    """
    if axis == "recommendation":
        return recommendation(tables, matches, mode)
    if axis == "history_consolidation":
        return history_consolidation(tables, preferences)
    if axis in _STEERING:
        return _STEERING[axis](tables, preferences, embedder, protocol, closest=closest)
    return _SENTIMENT[axis](tables, preferences, embedder, protocol, pairs=pairs)
