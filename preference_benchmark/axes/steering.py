"""The two steering axes: away from a history's own next item, to one very like it or very unlike it.

For every distinct target item s of a split, each used once: t is the item nearest to s (fine-grained) or farthest
from it (coarse-grained) among the split's other targets. Two examples: (p(s), history of a user whose target is t)
-> s, and (p(t), history of a user whose target is s) -> t, with p(.) a preference near to the item (Paischer et al.
2025, arXiv:2412.08604). `Protocol` says which preference, from which pool, and who may stand for a shared target.

Nearest and farthest vectors by chunked matrix products.

Exact, deterministic (of equally close vectors the first wins) and bounded in memory: one block of the similarity
matrix exists at a time, whatever the number of queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from tqdm.auto import tqdm

from preference_benchmark.axes.examples import KEYS, as_examples, targets, with_item_index
from preference_benchmark.axes.protocol import AXES, SPLITS, Protocol
from preference_benchmark.embedding import Embedder, describe_items
from preference_benchmark.preferences.polarity import POSITIVE
from preference_benchmark.tables import Tables

__all__ = [
    "Closest",
    "Partners",
    "closest_preferences",
    "coarse_grained_steering",
    "fine_grained_steering",
    "nearest",
    "partners",
    "steering_pool",
]


# A block of the similarity matrix is at most 1,024 x 2,048 floats: 8 MB, which a cache holds while it is searched.
_QUERIES, _KEYS = 1_024, 2_048


def nearest(queries: np.ndarray, keys: np.ndarray, k: int, *, progress: bool = False) -> np.ndarray:
    """The k keys of highest dot product with each query, best first.

    Args:
        queries: shape (N, D).
        keys: shape (M, D), M >= k.
        k: how many.
        progress: whether to show a bar.

    Returns:
        Positions among the keys. Shape: (N, k), int64.

    Raises:
        ValueError: if there are fewer than k keys.

    >>> nearest(np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]]), k=2)
    array([[1, 2],
           [0, 2]])
    """
    if k < 1 or k > len(keys):
        raise ValueError(f"k={k} neighbours of {len(keys)} vectors were asked for; pass 1 <= k <= {len(keys)}.")
    found = np.empty((len(queries), k), dtype=np.int64)
    products = _Products(np.result_type(queries, keys))
    for rows in _blocks(len(queries), _QUERIES, progress):
        best = np.full((len(queries[rows]), k), -np.inf, dtype=np.result_type(queries, keys))
        where = np.zeros(best.shape, dtype=np.int64)
        for columns in _blocks(len(keys), _KEYS):
            _merge(best, where, products.of(queries[rows], keys[columns]), columns.start)
        found[rows] = where
    return found


@dataclass(frozen=True)
class Partners:
    """For each of N vectors the nearest and the farthest other one; positions, shape: (N,), int64."""

    nearest: np.ndarray
    farthest: np.ndarray


def partners(vectors: np.ndarray, *, progress: bool = False) -> Partners:
    """For each vector the nearest and the farthest other one, by dot product.

    Products are symmetric: each block above the diagonal serves its rows and, transposed, its columns.

    Args:
        vectors: shape (N, D), N >= 2.
        progress: whether to show a bar.

    >>> partners(np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
    Partners(nearest=array([1, 0, 1]), farthest=array([2, 2, 0]))
    """
    found = Partners(*(np.zeros(len(vectors), dtype=np.int64) for _ in range(2)))
    highest, lowest = (np.full(len(vectors), value, dtype=vectors.dtype) for value in (-np.inf, np.inf))

    def look(block: np.ndarray, of: slice, at: int) -> None:
        # Earlier vectors win ties: every vector meets the others in their order.
        for best, where, choose, better in (
            (highest, found.nearest, np.argmax, np.greater),
            (lowest, found.farthest, np.argmin, np.less),
        ):
            if of.start == at:
                np.fill_diagonal(block, best.dtype.type(-np.inf if choose is np.argmax else np.inf))
            column = choose(block, axis=1)
            value = block[np.arange(len(block)), column]
            wins = np.flatnonzero(better(value, best[of]))
            best[of][wins], where[of][wins] = value[wins], column[wins] + at

    products = _Products(vectors.dtype)
    for rows in _blocks(len(vectors), _QUERIES, progress):
        for columns in _blocks(len(vectors), _QUERIES, start=rows.start):
            block = products.of(vectors[rows], vectors[columns])
            look(block, rows, columns.start)
            if columns != rows:
                look(np.ascontiguousarray(block.T), columns, rows.start)
    return found


class _Products:
    """Products of blocks of vectors, all written to the same memory: fresh memory costs a tenth of the time."""

    def __init__(self, dtype: np.dtype) -> None:
        self._memory = np.empty(_QUERIES * max(_QUERIES, _KEYS), dtype=dtype)

    def of(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Dot products, valid until the next call. Shapes: (n, D), (m, D) -> (n, m)."""
        out = self._memory[: len(queries) * len(keys)].reshape(len(queries), len(keys))
        return np.matmul(queries, keys.T, out=out)


def _merge(best: np.ndarray, where: np.ndarray, products: np.ndarray, offset: int) -> None:
    """Take a block's products into the k best so far, in place.

    Args:
        best: the k highest products of every query, highest first. Shape: (n, k).
        where: their positions. Shape: (n, k).
        products: of the queries with further keys; overwritten. Shape: (n, m).
        offset: position of the first of these keys.
    """
    # Few rows of a block hold anything better than what is known: after the first look only those are looked at.
    live = np.arange(len(products))
    for _ in range(best.shape[1]):
        column = products[live].argmax(axis=1) if len(live) < len(products) else products.argmax(axis=1)
        value = products[live, column]
        # Earlier keys win ties, so an equal value does not displace.
        better = value > best[live, -1]
        live, column, value = live[better], column[better], value[better]
        if not len(live):
            return
        products[live, column] = -np.inf
        place = (best[live] >= value[:, None]).sum(axis=1)
        for target in (best, where):
            # Shift what is worse by one, then put the new one in its place.
            later = np.arange(target.shape[1]) > place[:, None]
            shifted = np.concatenate([target[live, :1], target[live, :-1]], axis=1)
            target[live] = np.where(later, shifted, target[live])
        best[live, place], where[live, place] = value, column + offset


def _blocks(rows: int, size: int, progress: bool = False, start: int = 0) -> Iterator[slice]:
    blocks = [slice(first, min(first + size, rows)) for first in range(start, rows, size)]
    return iter(tqdm(blocks, desc="Comparing vectors", disable=not progress or len(blocks) < 8))


@dataclass(frozen=True)
class Closest:
    """What both steering axes share: the preferences nearest to every item, and the partners of every target.

    Attributes:
        pool: P distinct texts, sorted.
        rows: positions in the pool, nearest first. Shape: (N, k).
        asked: by split the distinct targets, as positions among the items, ascending; splits with fewer than two
            are left out.
        partners: by split the partners of these among themselves, as positions in `asked`.
    """

    pool: pl.Series
    rows: np.ndarray
    asked: dict[str, np.ndarray]
    partners: dict[str, Partners]


def steering_pool(tables: Tables, preferences: pl.DataFrame, protocol: Protocol) -> pl.Series:
    """Distinct texts that may steer, sorted; see `Protocol.pool`."""
    if protocol.pool == "all":
        return preferences["text"].unique().sort()
    period = tables.training_period().select(KEYS)
    positive = preferences.lazy().filter(pl.col("sentiment") == POSITIVE)
    return positive.join(period.lazy(), on=KEYS, how="semi").select("text").unique().collect()["text"].sort()


def closest_preferences(
    tables: Tables, preferences: pl.DataFrame, embedder: Embedder, protocol: Protocol | None = None
) -> Closest:
    """The preferences of the pool nearest to every item, and the targets nearest to and farthest from every target.

    Raises:
        ValueError: if the pool is smaller than the protocol's deepest rank.
    """
    protocol = protocol or Protocol()
    pool = steering_pool(tables, preferences, protocol)
    if len(pool) < protocol.deepest_rank:
        raise ValueError(
            f"{len(pool)} distinct positive preferences were written in the training period; steering needs at "
            f"least {protocol.deepest_rank}. Pass more users, or leave the steering axes out."
        )
    vectors = embedder.encode(describe_items(tables.items, protocol.described_by))
    rows = targets(tables)
    asked = {split: rows.filter(pl.col("split") == split)["target"].unique().sort().to_numpy() for split in SPLITS}
    asked = {split: items for split, items in asked.items() if len(items) >= 2}
    return Closest(
        pool,
        nearest(vectors, embedder.encode(pool), k=protocol.deepest_rank, progress=True),
        asked,
        {split: partners(vectors[items], progress=True) for split, items in asked.items()},
    )


def fine_grained_steering(
    tables: Tables,
    preferences: pl.DataFrame,
    embedder: Embedder,
    protocol: Protocol | None = None,
    *,
    closest: Closest | None = None,
) -> pl.DataFrame:
    """Away from the history's own next item to a very similar one.

    Where several users share a target one of them is drawn at random, among those that `Protocol.draw` allows;
    where there is none the example is left out.

    Args:
        tables: the data set.
        preferences: as an approximator gives them.
        embedder: embeds preferences and item texts.
        protocol: the choices; default: `Protocol()`.
        closest: the result of `closest_preferences`, where it is known already.

    Raises:
        ValueError: if too few distinct preferences may steer.
    """
    return _steering("fine_grained_steering", tables, preferences, embedder, protocol, closest)


def coarse_grained_steering(
    tables: Tables,
    preferences: pl.DataFrame,
    embedder: Embedder,
    protocol: Protocol | None = None,
    *,
    closest: Closest | None = None,
) -> pl.DataFrame:
    """Away from the history's own next item to one unlike it: as fine-grained steering, t farthest from s."""
    return _steering("coarse_grained_steering", tables, preferences, embedder, protocol, closest)


def _steering(
    axis: str,
    tables: Tables,
    preferences: pl.DataFrame,
    embedder: Embedder,
    protocol: Protocol | None,
    closest: Closest | None,
) -> pl.DataFrame:
    protocol = protocol or Protocol()
    closest = closest or closest_preferences(tables, preferences, embedder, protocol)
    rows = targets(tables)
    knowledge = _knowledge(tables, preferences, closest.pool) if protocol.draw == "unknowing" else None
    parts = []
    for number, split in enumerate(SPLITS):
        if split not in closest.asked:
            continue
        frame = rows.filter(pl.col("split") == split)
        s, others = closest.asked[split], closest.partners[split]
        t = s[others.farthest if axis == "coarse_grained_steering" else others.nearest]
        of_s, of_t = _speaking(closest.rows, s, t, protocol, training=split == "train")
        rng = np.random.default_rng([protocol.seed, AXES.index(axis), number])
        people = frame.select("user_id", "step", item="target").with_row_index("row")
        for place, (history_of, asked, text) in enumerate(((t, s, of_s), (s, t, of_t))):
            slots = pl.DataFrame({"item": history_of, "asked": asked, "text": text.astype(np.int64)})
            user = _one_user_each(people, slots.with_row_index("slot"), knowledge, rng)
            found = user >= 0
            part = frame[user[found]].with_columns(
                target=pl.Series(asked[found]),
                text=closest.pool.gather(text[found]),
                order=pl.Series(2 * np.flatnonzero(found) + place),
            )
            parts.append(part.with_columns(number=pl.lit(number)))
    rows = pl.concat(parts) if parts else rows.head(0).with_columns(text=pl.lit(""), number=0, order=0)
    return as_examples(axis, rows.sort("number", "order"), preferences=pl.concat_list("text"))


def _speaking(
    closest: np.ndarray, s: np.ndarray, t: np.ndarray, protocol: Protocol, *, training: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The preferences that speak for s and for t, as positions in the pool. Shapes: (S,), (S,)."""
    rank_s, rank_t = protocol.train_ranks if training else protocol.evaluation_ranks
    of_s, of_t = closest[s, rank_s - 1], closest[t, rank_t - 1]
    if training:
        of_t = np.where(of_t == of_s, closest[t, rank_t], of_t)
    return of_s, of_t


def _knowledge(tables: Tables, preferences: pl.DataFrame, pool: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What would give an example away: the items of each user, and when they first wrote a text of the pool.

    Returns:
        user_id, asked (item), from_step (from which on the user's examples know the item: 0 if it is held out, so
        that nothing teaches a model to answer this user with it); and user_id, text (in the pool), written.
    """
    held_out = pl.col("step") + 2 >= pl.len().over("user_id")
    from_step = pl.when(held_out).then(0).otherwise(pl.col("step") + 1)
    items = with_item_index(tables).select("user_id", asked="item", from_step=from_step)
    items = items.group_by("user_id", "asked").agg(pl.min("from_step"))  # an item may have been bought again
    texts = pl.DataFrame({"text": pool, "place": np.arange(len(pool))}).lazy()
    written = preferences.lazy().join(texts, on="text").group_by("user_id", text="place").agg(written=pl.min("step"))
    return items, written.collect()


def _one_user_each(
    people: pl.DataFrame,
    slots: pl.DataFrame,
    knowledge: tuple[pl.DataFrame, pl.DataFrame] | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """For each slot a random row whose target is the slot's item, among those that do not know the answer.

    Args:
        people: row, user_id, step, item (the target).
        slots: slot, item (whose history is wanted), asked (item), text (position in the pool).
        knowledge: what each user knows, as `_knowledge` says it; None: all are eligible.
        rng: one draw per slot.

    Returns:
        Rows, -1 where there is none. Shape: (S,).
    """
    draw = rng.random(slots.height)
    eligible = slots.lazy().join(people.lazy(), on="item")
    if knowledge is not None:
        items, written = (frame.lazy() for frame in knowledge)
        step = pl.col("step")
        eligible = (
            eligible.join(items, on=["user_id", "asked"], how="left")
            .filter(pl.col("from_step").is_null() | (pl.col("from_step") > step))
            .join(written, on=["user_id", "text"], how="left")
            .filter(pl.col("written").is_null() | (pl.col("written") < step))
        )
    drawn = (
        eligible.select("slot", "row")
        .sort("slot", "row")
        .group_by("slot", maintain_order=True)
        .agg("row")
        .with_columns(draw=pl.lit(pl.Series(draw)).gather("slot"))
        .select("slot", row=pl.col("row").list.get((pl.col("draw") * pl.col("row").list.len()).cast(pl.Int64)))
        .collect()
    )
    found = np.full(slots.height, -1, dtype=np.int64)
    found[drawn["slot"].to_numpy()] = drawn["row"].to_numpy()
    return found
