"""Which preference conditions which step.

A target at step j is conditioned on one of the preferences its user had written by step j-1. The paper takes the
one closest to the target itself, in the evaluation splits too (Paischer et al. 2025, arXiv:2412.08604): mode
"oracle". Mode "last" never looks at the target: it takes the one closest to the last item of the history.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from preference_benchmark.embedding import Embedder, positions
from preference_benchmark.sentiment import NEGATIVE, POSITIVE, inverted
from preference_benchmark.tables import Tables

__all__ = ["MODES", "candidates", "check_preferences", "cosines", "match"]

MODES = ("oracle", "last")

_COLUMNS = ("user_id", "step", "rank", "text", "sentiment")
# Rows of both operands of a batch of dot products: 2 x 65,536 x 768 floats are 400 MB.
_CHUNK_ROWS = 65_536


def match(
    preferences: pl.DataFrame,
    tables: Tables,
    embedder: Embedder,
    mode: str = "oracle",
    *,
    all_earlier_steps: bool = False,
) -> pl.DataFrame:
    """The preference that conditions each target.

    Candidates are described at `candidates`. Among equally close ones the latest written wins, then the one of
    lowest rank.

    Args:
        preferences: user_id, step, rank, text, sentiment, as an approximator gives them.
        tables: the data set.
        embedder: embeds preferences and item texts.
        mode: "oracle": closest to the target's text. "last": closest to the text of the history's last item.
        all_earlier_steps: whether preferences of all earlier steps are candidates (the paper's choice for
            Steam), not only those written at the step before.

    Returns:
        user_id, step (of the target, 1 and later), text, similarity (cosine with what it was compared with);
        sorted by user_id and step. A step without candidates is absent.

    Raises:
        ValueError: if the mode is unknown or preferences lack columns.
    """
    if mode not in MODES:
        raise ValueError(f"matching mode {mode!r} is not known; pass one of {list(MODES)}.")
    options = candidates(preferences, tables, all_earlier_steps=all_earlier_steps)
    item = pl.col("item_id").shift(0 if mode == "oracle" else 1).over("user_id", order_by="step")
    compared_with = tables.interactions.select("user_id", "step", compared_id=item)
    options = options.join(compared_with, on=["user_id", "step"], how="inner")
    options = options.with_columns(
        similarity=cosines(options["text"], _item_texts(options["compared_id"], tables.items), embedder)
    )
    return (
        options.sort(
            ["user_id", "step", "similarity", "written", "rank", "text"],
            descending=[False, False, True, True, False, False],
        )
        .unique(["user_id", "step"], keep="first", maintain_order=True)
        .select("user_id", "step", "text", "similarity")
    )


def candidates(preferences: pl.DataFrame, tables: Tables, *, all_earlier_steps: bool = False) -> pl.DataFrame:
    """The preferences that may condition each target, all of them written before it.

    They are the positive ones; where a step has none, the rule inversions of its negative ones; where none can
    be inverted, all as they are.

    Returns:
        user_id, step (of the target), text, written (the latest step at which it was), rank; each text once per
        user and step.
    """
    check_preferences(preferences)
    targets = tables.interactions.filter(pl.col("step") >= 1).select("user_id", "step")
    written = preferences.select("user_id", "rank", "text", "sentiment", written="step")
    if all_earlier_steps:
        options = targets.join(written, on="user_id").filter(pl.col("written") < pl.col("step"))
    else:
        options = targets.with_columns(written=pl.col("step") - 1).join(written, on=["user_id", "written"])
    options = options.with_columns(inverse=inverted(options["text"]))
    positive = pl.col("sentiment") == POSITIVE
    negative = pl.col("sentiment") == NEGATIVE
    invertible = negative & pl.col("inverse").is_not_null()
    step = ["user_id", "step"]
    options = options.with_columns(any_positive=positive.any().over(step), any_invertible=invertible.any().over(step))
    kept = pl.when("any_positive").then(positive).when("any_invertible").then(invertible).otherwise(True)
    invert_them = ~pl.col("any_positive") & pl.col("any_invertible")
    options = options.filter(kept).with_columns(text=pl.when(invert_them).then("inverse").otherwise("text"))
    return (
        options.sort(["user_id", "step", "text", "written", "rank"], descending=[False, False, False, True, False])
        .unique(["user_id", "step", "text"], keep="first", maintain_order=True)
        .select("user_id", "step", "text", "written", "rank")
    )


def cosines(left: pl.Series, right: pl.Series, embedder: Embedder) -> pl.Series:
    """Cosine of each pair of texts; every distinct text is embedded once.

    Args:
        left: N texts.
        right: N texts.
        embedder: gives unit vectors.

    Returns:
        N numbers in [-1, 1], float32.
    """
    left_texts, right_texts = left.unique().sort(), right.unique().sort()
    left_rows, right_rows = positions(left, left_texts), positions(right, right_texts)
    left_vectors, right_vectors = embedder.encode(left_texts), embedder.encode(right_texts)
    result = np.empty(len(left), dtype=np.float32)
    for rows in _chunks(len(left)):
        result[rows] = np.einsum("nd,nd->n", left_vectors[left_rows[rows]], right_vectors[right_rows[rows]])
    return pl.Series("similarity", result)


def check_preferences(preferences: pl.DataFrame) -> None:
    """Raise a ValueError unless the table has the columns of an approximator's result and known sentiments."""
    missing = [name for name in _COLUMNS if name not in preferences.columns]
    if missing:
        raise ValueError(
            f"the preferences lack the columns {missing}; found {preferences.columns}. Required are {list(_COLUMNS)}."
        )
    unknown = preferences.filter(~pl.col("sentiment").is_in([POSITIVE, NEGATIVE]))["sentiment"]
    if len(unknown):
        raise ValueError(f'preferences hold the sentiment {unknown[0]!r}; use "{POSITIVE}" or "{NEGATIVE}".')


def _item_texts(item_ids: pl.Series, items: pl.DataFrame) -> pl.Series:
    frame = item_ids.to_frame("item_id")
    return frame.join(items.select("item_id", "text"), on="item_id", how="left", maintain_order="left")["text"]


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK_ROWS) for start in range(0, rows, _CHUNK_ROWS))
