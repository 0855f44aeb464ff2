"""The two steering axes: away from a history's own next item, to one very like it or very unlike it.

For every distinct target item s of a split, each used once: t is the item nearest to s (fine-grained) or farthest
from it (coarse-grained) among the split's other targets. Two examples: (p(s), history of a user whose target is t)
-> s, and (p(t), history of a user whose target is s) -> t, with p(.) a preference near to the item (Paischer et al.
2025, arXiv:2412.08604). `Protocol` says which preference, from which pool, and who may stand for a shared target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from preference_benchmark.descriptions import describe_items
from preference_benchmark.embedding import Embedder
from preference_benchmark.neighbours import Partners, nearest, partners
from preference_benchmark.protocol import AXES, SPLITS, Protocol
from preference_benchmark.sentiment import POSITIVE
from preference_benchmark.tables import Tables
from preference_benchmark.targets import KEYS, as_examples, targets

__all__ = ["Closest", "closest_preferences", "coarse_grained_steering", "fine_grained_steering", "steering_pool"]


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
    rows = _positions(tables)
    asked = {split: np.sort(rows.filter(pl.col("split") == split)["item"].unique().to_numpy()) for split in SPLITS}
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
    ids = tables.items["item_id"]
    rows = _positions(tables)
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
        people = frame.select("user_id", "step", "item").with_row_index("row")
        for place, (history_of, asked, text) in enumerate(((t, s, of_s), (s, t, of_t))):
            slots = pl.DataFrame({"item": history_of, "asked": asked, "text": text.astype(np.int64)})
            user = _one_user_each(people, slots.with_row_index("slot"), knowledge, rng)
            found = user >= 0
            part = frame[user[found]].with_columns(
                target=ids.gather(asked[found]),
                text=closest.pool.gather(text[found]),
                order=pl.Series(2 * np.flatnonzero(found) + place),
            )
            parts.append(part.with_columns(number=pl.lit(number)))
    rows = pl.concat(parts) if parts else rows.head(0).with_columns(text=pl.lit(""), number=0, order=0)
    return as_examples(axis, rows.sort("number", "order"), preferences=pl.concat_list("text"))


def _index(tables: Tables) -> pl.DataFrame:
    """Columns target (item id), item (its position among the items)."""
    return pl.DataFrame({"target": tables.items["item_id"], "item": np.arange(tables.items.height)})


def _positions(tables: Tables) -> pl.DataFrame:
    """`targets`, with item: the target's position among the items."""
    return targets(tables).join(_index(tables), on="target", how="left", maintain_order="left")


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
    items = tables.interactions.select(
        "user_id", target="item_id", from_step=pl.when(held_out).then(0).otherwise(pl.col("step") + 1)
    )
    items = items.join(_index(tables), on="target").select("user_id", "from_step", asked="item")
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
