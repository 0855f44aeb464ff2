"""The two steering axes: away from a history's own next item, to one very like it or very unlike it.

For every distinct target item s of a split, each used once: t is the item nearest to s (fine-grained) or farthest
from it (coarse-grained) among the split's other targets. Two examples: (p(s), history of a user whose target is t)
-> s, and (p(t), history of a user whose target is s) -> t, with p(.) a preference near to the item (Paischer et al.
2025, arXiv:2412.08604). `Protocol` says which preference, from which pool, which users may stand for a shared target,
and how often one item may be the partner of others: one outlier is farthest from many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import faiss
import numpy as np
import polars as pl

from preference_benchmark.axes.examples import KEYS, as_examples, targets, with_item_index
from preference_benchmark.axes.protocol import AXES, SPLITS, Protocol
from preference_benchmark.embedding import Embedder, describe_items
from preference_benchmark.preferences.polarity import POSITIVE
from preference_benchmark.tables import Tables

__all__ = [
    "Partners",
    "SteeringCandidates",
    "coarse_grained_steering",
    "fine_grained_steering",
    "nearest",
    "partners",
    "spread_partners",
    "steering_candidates",
    "steering_pool",
]


@dataclass(frozen=True)
class Partners:
    """For each of N vectors the positions of the nearest and the farthest other one. Shape: (N,), int64."""

    nearest: np.ndarray
    farthest: np.ndarray


def partners(vectors: np.ndarray) -> Partners:
    """For each vector the nearest and the farthest other one, by dot product; of equal vectors the first.

    Args:
        vectors: unit vectors, float32. Shape: (N, D), N >= 2.

    >>> partners(np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], dtype=np.float32))
    Partners(nearest=array([1, 0, 1]), farthest=array([2, 2, 0]))
    """
    first, group = _distinct(vectors)
    # Where several items have the same text, another of them is the nearest: the first, or for that one the second.
    repeated = np.setdiff1d(np.arange(len(vectors)), first)
    second = np.full(len(first), -1)
    second[group[repeated[::-1]]] = repeated[::-1]
    twin = np.where(first[group] == np.arange(len(vectors)), second[group], first[group])
    if len(first) == 1:
        return Partners(twin, twin)
    distinct = vectors[first]
    near = nearest(distinct, distinct, 2)
    near = np.where(near[:, 0] == np.arange(len(first)), near[:, 1], near[:, 0])
    far = nearest(-distinct, distinct, 1)[:, 0]
    return Partners(np.where(twin >= 0, twin, first[near][group]), first[far][group])


# Partners are looked for in lists of so many candidates; where all of a list are taken, in another one.
_LISTED = 64


def spread_partners(vectors: np.ndarray, most: int) -> np.ndarray:
    """For each vector another one far from it, none of them taken by more than `most`.

    Every vector asks for the farthest one first, which takes those that are farthest from it; the others ask for the
    next. Without a limit this is `Partners.farthest`.

    Args:
        vectors: unit vectors, float32. Shape: (N, D), N >= 2.
        most: at least 2.

    Returns:
        Positions. Shape: (N,), int64.

    >>> rows = np.array([[1.0, 0.0], [0.96, 0.28], [0.8, 0.6], [-1.0, 0.0]], dtype=np.float32)
    >>> spread_partners(rows, most=2)
    array([3, 3, 0, 0])
    """
    free, partner = np.full(len(vectors), most), np.full(len(vectors), -1)
    while len(asking := np.flatnonzero(partner < 0)):
        available = np.flatnonzero(free)
        width = min(_LISTED, len(available))
        opposite, listed = faiss.knn(-vectors[asking], vectors[available], width, metric=faiss.METRIC_INNER_PRODUCT)
        similarity, listed = -opposite, available[listed]
        # Equally far ones stand in their own order.
        order = np.lexsort([listed, similarity])
        listed, similarity = (np.take_along_axis(values, order, axis=1) for values in (listed, similarity))
        for place in range(listed.shape[1]):
            wanted = listed[:, place]
            asks = np.flatnonzero((partner[asking] < 0) & (free[wanted] > 0) & (wanted != asking))
            asks = asks[np.lexsort([asks, similarity[asks, place], wanted[asks]])]
            among = wanted[asks]
            turn = np.arange(len(asks)) - np.searchsorted(among, among)
            asks = asks[turn < free[among]]
            partner[asking[asks]] = wanted[asks]
            free -= np.bincount(wanted[asks], minlength=len(free))
    return partner


def nearest(queries: np.ndarray, keys: np.ndarray, k: int) -> np.ndarray:
    """The k keys of highest dot product with each query, best first.

    Args:
        queries: float32. Shape: (N, D).
        keys: float32. Shape: (M, D), M >= k.
        k: how many.

    Returns:
        Positions among the keys. Shape: (N, k), int64.
    """
    return faiss.knn(queries, keys, k, metric=faiss.METRIC_INNER_PRODUCT)[1]


def _distinct(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of all equal vectors, in order, and for each vector the number of the one it is equal to.

    faiss returns equally similar vectors in any order, so equal ones are searched once.
    """
    vectors = np.ascontiguousarray(vectors)
    rows = vectors.view(np.dtype((np.void, vectors.itemsize * vectors.shape[1]))).ravel()
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[group]


@dataclass(frozen=True)
class SteeringCandidates:
    """What both steering axes share: the preferences nearest to every item, and the partners of every target.

    Attributes:
        pool: P distinct texts, sorted.
        nearest: positions in the pool of the texts nearest to each item, best first. Shape: (N, k).
        targets: by split the distinct targets (item indices), ascending; splits with fewer than two are left out.
        partners: by split the partners of these among themselves, as positions in `targets`.
    """

    pool: pl.Series
    nearest: np.ndarray
    targets: dict[str, np.ndarray]
    partners: dict[str, Partners]


def steering_pool(tables: Tables, preferences: pl.DataFrame, protocol: Protocol) -> pl.Series:
    """Distinct texts that may steer, sorted; see `Protocol.pool`."""
    if protocol.pool == "all":
        return preferences["text"].unique().sort()
    period = tables.training_period().select(KEYS)
    positive = preferences.lazy().filter(pl.col("sentiment") == POSITIVE)
    return positive.join(period.lazy(), on=KEYS, how="semi").select("text").unique().collect()["text"].sort()


def steering_candidates(
    tables: Tables, preferences: pl.DataFrame, embedder: Embedder, protocol: Protocol
) -> SteeringCandidates:
    """The preferences of the pool nearest to every item, and the partners of every target.

    Args:
        tables: the data set.
        preferences: as an approximator gives them.
        embedder: embeds preferences and item texts.
        protocol: the choices.

    Raises:
        ValueError: if too few distinct preferences may steer.
    """
    pool = steering_pool(tables, preferences, protocol)
    pool_vectors = embedder.encode(pool)
    # Texts that differ in case alone, say, may have the same vector: they count once.
    first, _ = _distinct(pool_vectors)
    pool, pool_vectors = pool.gather(first), pool_vectors[first]
    if len(pool) < protocol.deepest_rank:
        raise ValueError(
            f"{len(pool)} distinct positive preferences were written in the training period; steering needs at "
            f"least {protocol.deepest_rank}. Pass more users, or leave the steering axes out."
        )
    vectors = embedder.encode(describe_items(tables.items, protocol.described_by))
    steps = targets(tables)
    by_split = {split: steps.filter(pl.col("split") == split)["target"].unique().sort().to_numpy() for split in SPLITS}
    by_split = {split: items for split, items in by_split.items() if len(items) >= 2}
    return SteeringCandidates(
        pool,
        nearest(vectors, pool_vectors, protocol.deepest_rank),
        by_split,
        {split: _partners(vectors[items], protocol.partner_of) for split, items in by_split.items()},
    )


def _partners(vectors: np.ndarray, most: int) -> Partners:
    found = partners(vectors)
    return replace(found, farthest=spread_partners(vectors, most)) if most else found


def fine_grained_steering(
    tables: Tables, preferences: pl.DataFrame, candidates: SteeringCandidates, protocol: Protocol
) -> pl.DataFrame:
    """Away from the history's own next item to a very similar one.

    Where several users share a target one of them is drawn at random, among those that `Protocol.draw` allows;
    where there is none the example is left out.

    Args:
        tables: the data set.
        preferences: as an approximator gives them.
        candidates: of these tables and preferences, see `steering_candidates`.
        protocol: the choices.
    """
    return _steering("fine_grained_steering", tables, preferences, candidates, protocol)


def coarse_grained_steering(
    tables: Tables, preferences: pl.DataFrame, candidates: SteeringCandidates, protocol: Protocol
) -> pl.DataFrame:
    """Away from the history's own next item to one unlike it: as fine-grained steering, t far from s.

    `Protocol.partner_of` limits how many items have the same t.
    """
    return _steering("coarse_grained_steering", tables, preferences, candidates, protocol)


def _steering(
    axis: str, tables: Tables, preferences: pl.DataFrame, candidates: SteeringCandidates, protocol: Protocol
) -> pl.DataFrame:
    steps = targets(tables)
    known = _known(tables, preferences, candidates.pool) if protocol.draw == "unknowing" else None
    parts = []
    for number, split in enumerate(SPLITS):
        if split not in candidates.targets:
            continue
        frame = steps.filter(pl.col("split") == split)
        s, others = candidates.targets[split], candidates.partners[split]
        t = s[others.farthest if axis == "coarse_grained_steering" else others.nearest]
        of_s, of_t = _texts_for(candidates.nearest, s, t, protocol, training=split == "train")
        rng = np.random.default_rng([protocol.seed, AXES.index(axis), number])
        users = frame.select("user_id", "step", item="target").with_row_index("row")
        for place, (history_of, asked, text) in enumerate(((t, s, of_s), (s, t, of_t))):
            slots = pl.DataFrame({"item": history_of, "asked": asked, "text": text})
            row = _draw_users(users, slots.with_row_index("slot"), known, rng)
            drawn = row >= 0
            part = frame[row[drawn]].with_columns(
                target=pl.Series(asked[drawn]),
                text=candidates.pool.gather(text[drawn]),
                order=pl.Series(2 * np.flatnonzero(drawn) + place),
            )
            parts.append(part.with_columns(number=pl.lit(number)))
    rows = pl.concat(parts) if parts else steps.head(0).with_columns(text=pl.lit(""), number=0, order=0)
    return as_examples(axis, rows.sort("number", "order"), preferences=pl.concat_list("text"))


def _texts_for(
    nearest: np.ndarray, s: np.ndarray, t: np.ndarray, protocol: Protocol, *, training: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The preferences that ask for s and for t, as positions in the pool. Shapes: (S,), (S,)."""
    rank_s, rank_t = protocol.train_ranks if training else protocol.evaluation_ranks
    of_s, of_t = nearest[s, rank_s - 1], nearest[t, rank_t - 1]
    if training:
        of_t = np.where(of_t == of_s, nearest[t, rank_t], of_t)
    return of_s, of_t


def _known(tables: Tables, preferences: pl.DataFrame, pool: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What would give an example away: the items of each user, and when they first wrote a text of the pool.

    Returns:
        user_id, asked (item), from_step (the first step at which the user's examples know the item: 0 if it is held
        out, so that no example teaches a model to recommend it to this user); and user_id, text (in the pool), written.
    """
    held_out = tables.split() != "train"
    from_step = pl.when(held_out).then(0).otherwise(pl.col("step") + 1)
    items = with_item_index(tables).select("user_id", asked="item", from_step=from_step)
    items = items.group_by("user_id", "asked").agg(pl.min("from_step"))  # an item may have been bought again
    texts = pl.DataFrame({"text": pool, "place": np.arange(len(pool))}).lazy()
    written = preferences.lazy().join(texts, on="text").group_by("user_id", text="place").agg(written=pl.min("step"))
    return items, written.collect()


def _draw_users(
    users: pl.DataFrame,
    slots: pl.DataFrame,
    known: tuple[pl.DataFrame, pl.DataFrame] | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """For each slot a random row whose target is the slot's item, among those that do not know the answer.

    Args:
        users: row, user_id, step, item (the target).
        slots: slot, item (whose history is shown), asked (the item that is asked for), text (position in the pool).
        known: the result of `_known`; None: all are eligible.
        rng: one draw per slot.

    Returns:
        Rows, -1 where there is none. Shape: (S,).
    """
    draw = rng.random(slots.height)
    eligible = slots.lazy().join(users.lazy(), on="item")
    if known is not None:
        items, written = (frame.lazy() for frame in known)
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
