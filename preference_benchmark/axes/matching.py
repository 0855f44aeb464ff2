"""Which preference conditions which step.

A target at step j is conditioned on one of the preferences its user had written by step j-1. The paper takes the
one closest to the target itself, in the evaluation splits too (Paischer et al. 2025, arXiv:2412.08604): mode
"oracle". Mode "last" never looks at the target: it takes the one closest to the last item of the history.

Inside, users, texts and items are numbers in the order of their names: joins, sorts and look-ups of millions of rows
then cost a fraction of what they cost on strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from preference_benchmark.axes.protocol import MODES
from preference_benchmark.embedding import Embedder, describe_items, positions
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE, inverted
from preference_benchmark.tables import Tables

__all__ = [
    "MODES",
    "candidates",
    "check_preferences",
    "cosines",
    "match",
]


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
    described_by: Sequence[str] = ("text",),
    inversion: str = "paper",
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
        described_by: columns of the items table that say what an item is; see `describe_items`.
        inversion: which rules turn negative preferences into their opposites; see `sentiment.inverted`.

    Returns:
        user_id, step (of the target, 1 and later), text, similarity (cosine with what it was compared with);
        sorted by user_id and step. A step without candidates is absent.

    Raises:
        ValueError: if the mode is unknown or preferences lack columns.
    """
    if mode not in MODES:
        raise ValueError(f"matching mode {mode!r} is not known; pass one of {list(MODES)}.")
    options = _options(preferences, tables, all_earlier_steps=all_earlier_steps, inversion=inversion)
    compared = "item" if mode == "oracle" else "previous"
    used, rows = np.unique(options.rows["text"].to_numpy(), return_inverse=True)
    similarity = _dots(
        embedder.encode(options.texts.gather(used)),
        rows,
        embedder.encode(describe_items(tables.items, described_by)),
        options.rows[compared].to_numpy(),
    )
    step = ["user", "step"]
    best = (
        options.rows.lazy()
        .with_columns(similarity=pl.Series(similarity))
        .filter(pl.col("similarity") == pl.col("similarity").max().over(step))
        .sort([*step, "written", "rank", "text"], descending=[False, False, True, False, False])
        .unique(step, keep="first", maintain_order=True)
        .collect()
    )
    return options.named(best).select("user_id", "step", "text", "similarity")


def candidates(
    preferences: pl.DataFrame, tables: Tables, *, all_earlier_steps: bool = False, inversion: str = "paper"
) -> pl.DataFrame:
    """The preferences that may condition each target, all of them written before it.

    They are the positive ones; where a step has none, the rule inversions of its negative ones; where none can
    be inverted, all as they are.

    Returns:
        user_id, step (of the target), text, written (the latest step at which it was), rank; each text once per
        user and step.
    """
    options = _options(preferences, tables, all_earlier_steps=all_earlier_steps, inversion=inversion)
    once = options.rows.sort(
        ["user", "step", "text", "written", "rank"], descending=[False, False, False, True, False]
    ).unique(["user", "step", "text"], keep="first", maintain_order=True)
    return options.named(once).select("user_id", "step", "text", "written", "rank")


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
    dots = _dots(
        embedder.encode(left_texts),
        positions(left, left_texts),
        embedder.encode(right_texts),
        positions(right, right_texts),
    )
    return pl.Series("similarity", dots)


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


@dataclass(frozen=True)
class _Options:
    """Candidates as numbers.

    Attributes:
        rows: user, step (of the target), text, written, rank, item (the target), previous (the item before it).
        users: user ids, sorted.
        texts: preferences and inversions, sorted.
    """

    rows: pl.DataFrame
    users: pl.Series
    texts: pl.Series

    def named(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with ids and texts in place of numbers."""
        return rows.with_columns(user_id=self.users.gather(rows["user"]), text=self.texts.gather(rows["text"]))


def _options(preferences: pl.DataFrame, tables: Tables, *, all_earlier_steps: bool, inversion: str) -> _Options:
    check_preferences(preferences)
    users = tables.interactions["user_id"].unique().sort()
    written_texts = preferences["text"].unique()
    opposites = inverted(written_texts, inversion)
    texts = pl.concat([written_texts, opposites.drop_nulls()]).unique().sort()
    numbers = texts.to_frame("text").with_row_index("number")
    inverses = pl.DataFrame({"text": written_texts, "inverse": opposites})
    coded = inverses.join(numbers.rename({"number": "own"}), on="text")
    coded = coded.join(numbers.rename({"text": "inverse", "number": "opposite"}), on="inverse", how="left")
    people = users.to_frame("user_id").with_row_index("user").lazy()
    items = tables.items.select("item_id").with_row_index("item").lazy()
    steps = (
        tables.interactions.lazy()
        .select("user_id", "item_id", "step")
        .join(people, on="user_id")
        .join(items, on="item_id")
        .select("user", pl.col("step").cast(pl.Int32), "item")
        .sort("user", "step")
        .with_columns(previous=pl.col("item").shift(1))
        .filter(pl.col("step") >= 1)
    )
    written = (
        preferences.lazy()
        .select("user_id", "text", "rank", "sentiment", written="step")
        .join(people, on="user_id")
        .join(coded.lazy().select("text", "own", "opposite"), on="text")
        .select(
            "user",
            "own",
            "opposite",
            pl.col("written", "rank").cast(pl.Int32),
            negative=pl.col("sentiment") == NEGATIVE,
        )
    )
    if all_earlier_steps:
        options = steps.join(written, on="user").filter(pl.col("written") < pl.col("step"))
    else:
        options = steps.with_columns(written=pl.col("step") - 1).join(written, on=["user", "written"])
    # 2: a positive one; 1: one that can be turned round; 0: neither. The best kind that a step has is kept.
    kind = pl.when(~pl.col("negative")).then(2).when(pl.col("opposite").is_not_null()).then(1).otherwise(0)
    options = (
        options.with_columns(kind=kind.cast(pl.Int8))
        .filter(pl.col("kind") == pl.col("kind").max().over("user", "step"))
        .with_columns(text=pl.when(pl.col("kind") == 1).then("opposite").otherwise("own"))
        .select("user", "step", "text", "written", "rank", "item", "previous")
    )
    return _Options(options.collect(), users, texts)


def _dots(left: np.ndarray, left_rows: np.ndarray, right: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
    """Dot product of each pair of rows, a chunk at a time. Shape: (N,), float32."""
    result = np.empty(len(left_rows), dtype=np.float32)
    for rows in _chunks(len(result)):
        result[rows] = np.einsum("nd,nd->n", left[left_rows[rows]], right[right_rows[rows]])
    return result


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK_ROWS) for start in range(0, rows, _CHUNK_ROWS))
