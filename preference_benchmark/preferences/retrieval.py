"""How well preferences find their user's next item among all items.

The rank of the next item when the catalogue is ordered by its closest preference, compared with chance, popularity,
the last item as the query, and preferences of somebody else. Items that the user already had are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from preference_benchmark.embedding import Embedder, positions
from preference_benchmark.preferences.candidates import Candidates
from preference_benchmark.tables import Tables

__all__ = [
    "Queries",
    "Ranks",
    "nearest_preference",
    "last_item",
    "popularity",
    "queries_after",
    "other_users",
    "uniform",
]

# Entries of a block of scores: 2^23 float32 are 32 MB.
_BLOCK_ENTRIES = 1 << 23
_RESAMPLES = 1_000


@dataclass(frozen=True)
class Queries:
    """Which next items are to be found: P queries, one for each, sorted by user and step.

    Attributes:
        frame: user_id, step (of the target).
        target: row of the next item. Shape: (P,).
        last: row of the item before it. Shape: (P,).
        user: number of the user. Shape: (P,).
        seen: pairs of query and row of an item that the user already had. Shape: (S, 2).
        num_items: N.
    """

    frame: pl.DataFrame
    target: np.ndarray
    last: np.ndarray
    user: np.ndarray
    seen: np.ndarray
    num_items: int


@dataclass(frozen=True)
class Ranks:
    """Ranks of the next items, 1 for the best; ties count half.

    Attributes:
        rank: shape (P,).
        candidates: how many items were ranked at each query. Shape: (P,).
        user: number of the user, the unit that intervals are drawn over. Shape: (P,).
    """

    rank: np.ndarray
    candidates: np.ndarray
    user: np.ndarray

    def recall(self, k: int) -> np.ndarray:
        """Whether the next item is among the first k. Shape: (P,)."""
        return (self.rank <= k).astype(np.float64)

    def reciprocal(self) -> np.ndarray:
        """1 / rank. Shape: (P,)."""
        return 1.0 / self.rank

    def share_before(self) -> np.ndarray:
        """Share of the other items that come first: 0 is best, 0.5 chance. Shape: (P,)."""
        return (self.rank - 1) / np.maximum(self.candidates - 1, 1)

    def interval(self, values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
        """Mean of a value per query, with its 95% interval by bootstrap over users."""
        sums = np.bincount(self.user, weights=values)
        counts = np.bincount(self.user)
        sums, counts = sums[counts > 0], counts[counts > 0]
        drawn = np.random.default_rng(seed).integers(len(sums), size=(_RESAMPLES, len(sums)))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(values.mean()), float(low), float(high)


def queries_after(tables: Tables, steps: pl.DataFrame) -> Queries:
    """A query for the item after each of the given steps.

    Args:
        tables: the data set.
        steps: user_id, step: the steps whose next item is to be found; those without one are left out.
    """
    items = tables.items.select("item_id").with_row_index("item")
    rows = tables.interactions.select("user_id", "step", "item_id").join(items, on="item_id")
    wanted = steps.select("user_id", pl.col("step") + 1).unique()
    found = rows.join(wanted, on=["user_id", "step"], how="semi").sort("user_id", "step").with_row_index("query")
    had = found.select("query", "user_id", until="step").join(rows, on="user_id")
    had = had.filter(pl.col("step") < pl.col("until"))
    last = had.sort("query", "step").group_by("query", maintain_order=True).agg(pl.col("item").last())
    return Queries(
        found.select("user_id", "step"),
        found["item"].to_numpy().astype(np.int64),
        last["item"].to_numpy().astype(np.int64),
        (found["user_id"].rank("dense") - 1).to_numpy().astype(np.int64),
        had.select("query", "item").to_numpy().astype(np.int64),
        tables.items.height,
    )


def nearest_preference(
    at: Queries, preferences: pl.DataFrame, tables: Tables, embedder: Embedder, source: np.ndarray | None = None
) -> Ranks:
    """Items by the cosine with the nearest of the preferences that may condition the query (see `Candidates`).

    Args:
        at: the queries.
        preferences: as an approximator gives them.
        tables: the data set.
        embedder: embeds preferences and item texts.
        source: whose preferences each query takes; default: its own. Shape: (P,).
    """
    options = (
        Candidates.of(preferences, tables)
        .distinct()
        .join(at.frame.with_row_index("query"), on=["user_id", "step"], how="inner", maintain_order="left")
    )
    options = options.sort("query", "text")
    texts = options["text"].unique().sort()
    vectors, items = embedder.encode(texts), embedder.encode(tables.items["text"])
    rows, owner = positions(options["text"], texts), options["query"].to_numpy()
    first = np.searchsorted(owner, np.arange(len(at.target)))
    count = np.bincount(owner, minlength=len(at.target))
    if (count == 0).any():
        raise ValueError(f"{(count == 0).sum():,} queries have no preference; pass queries of the table's own steps.")
    source = np.arange(len(at.target)) if source is None else source

    def scores(block: np.ndarray) -> np.ndarray:
        each = count[source[block]]
        inside = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        products = vectors[rows[np.repeat(first[source[block]], each) + inside]] @ items.T
        return np.maximum.reduceat(products, np.cumsum(each) - each, axis=0)

    return _ranks(at, scores, 8)


def last_item(at: Queries, tables: Tables, embedder: Embedder) -> Ranks:
    """Items by the cosine with the last item."""
    items = embedder.encode(tables.items["text"])
    return _ranks(at, lambda block: items[at.last[block]] @ items.T, 2)


def popularity(at: Queries, tables: Tables) -> Ranks:
    """Items by how many users bought them in the training period."""
    counts = tables.items.select("item_id").join(
        tables.training_period().group_by("item_id").len(), on="item_id", how="left", maintain_order="left"
    )
    popular = counts["len"].fill_null(0).to_numpy().astype(np.float32)
    return _ranks(at, lambda block: np.tile(popular, (len(block), 1)), 2)


def uniform(at: Queries, seed: int) -> Ranks:
    """Items in random order."""
    rng = np.random.default_rng(seed)
    return _ranks(at, lambda block: rng.random((len(block), at.num_items), dtype=np.float32), 2)


def other_users(at: Queries, seed: int) -> np.ndarray:
    """For each query a random query of another user. Shape: (P,).

    Raises:
        ValueError: if there is one user only.
    """
    users = at.user.max(initial=-1) + 1
    if users < 2:
        raise ValueError(f"{users} user cannot exchange preferences with another; compare tables with two or more.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(users)
    other = np.empty(users, dtype=np.int64)
    other[order] = np.roll(order, 1)
    first = np.searchsorted(at.user, np.arange(users))
    count = np.bincount(at.user, minlength=users)
    giver = other[at.user]
    return first[giver] + (rng.random(len(giver)) * count[giver]).astype(np.int64)


def _ranks(at: Queries, scores, width: int) -> Ranks:
    """Ranks of targets by scores of blocks of queries, with about `width` rows of scores in memory per query."""
    total = len(at.target)
    rank, candidates_left = np.empty(total), np.empty(total)
    size = max(1, _BLOCK_ENTRIES // (at.num_items * width))
    edges = np.searchsorted(at.seen[:, 0], np.arange(0, total + size, size))
    for number, start in enumerate(range(0, total, size)):
        block = np.arange(start, min(start + size, total))
        values = np.asarray(scores(block), dtype=np.float32)
        own = values[np.arange(len(block)), at.target[block]]
        hidden = at.seen[edges[number] : edges[number + 1]]
        values[hidden[:, 0] - start, hidden[:, 1]] = -np.inf
        # A target that the user already had keeps its own score.
        values[np.arange(len(block)), at.target[block]] = own
        better, same = (values > own[:, None]).sum(axis=1), (values == own[:, None]).sum(axis=1)
        rank[block] = 1 + better + (same - 1) / 2
        candidates_left[block] = np.isfinite(values).sum(axis=1)
    return Ranks(rank, candidates_left, at.user)
