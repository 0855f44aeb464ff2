"""The five axes: from tables, preferences and matches to examples, as pure functions.

Construction as in Preference Discerning (Paischer et al. 2025, arXiv:2412.08604). Every function returns a frame
with the columns of `COLUMNS`, one row per example, sorted; where the paper is silent the choice is documented at
the function. Splits are leave-last-two-out: of a user's n items the last is the test target, the one before it
the validation target, those at steps 1 to n-3 are training targets.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from preference_benchmark.embedding import Embedder
from preference_benchmark.matching import cosines
from preference_benchmark.neighbours import nearest, partners
from preference_benchmark.sentiment import NEGATIVE, POSITIVE, inverted, review_polarity
from preference_benchmark.tables import Tables

__all__ = [
    "AXES",
    "COLUMNS",
    "SPLITS",
    "coarse_grained_steering",
    "fine_grained_steering",
    "history_consolidation",
    "recommendation",
    "sentiment_following",
    "targets",
]

AXES = (
    "recommendation",
    "fine_grained_steering",
    "coarse_grained_steering",
    "sentiment_following",
    "history_consolidation",
)
SPLITS = ("train", "validation", "test")
COLUMNS = ("axis", "split", "user_id", "history", "preferences", "sentiment", "target", "pair_id")

_KEYS = ["user_id", "step"]
_ITEM_LIST = pl.List(pl.String)


def targets(tables: Tables) -> pl.DataFrame:
    """Every step that can be asked for: a target and the items before it.

    Returns:
        user_id, step, split, target (item id), history (item ids, oldest first, never empty); sorted by user_id
        and step.
    """
    rows = tables.interactions.sort(_KEYS)
    bought = rows.group_by("user_id", maintain_order=True).agg(bought="item_id")
    return (
        rows.select(*_KEYS, split=_split(), target="item_id")
        .filter(pl.col("step") >= 1)
        .join(bought, on="user_id", how="left", maintain_order="left")
        .with_columns(history=pl.col("bought").list.head(pl.col("step")))
        .drop("bought")
    )


def recommendation(tables: Tables, matches: pl.DataFrame) -> pl.DataFrame:
    """History and the one matched preference, to the next item.

    Args:
        tables: the data set.
        matches: user_id, step (of the target), text; targets without a match are left out.
    """
    rows = targets(tables).join(matches.select(*_KEYS, "text"), on=_KEYS, how="inner", maintain_order="left")
    return _examples("recommendation", rows, preferences=pl.concat_list("text"))


def history_consolidation(tables: Tables, preferences: pl.DataFrame) -> pl.DataFrame:
    """History and all preferences written at the step before, in the order of their ranks, to the next item."""
    written = (
        preferences.sort(*_KEYS, "rank")
        .group_by(_KEYS, maintain_order=True)
        .agg(texts="text")
        .with_columns(pl.col("step") + 1)
    )
    rows = targets(tables).join(written, on=_KEYS, how="inner", maintain_order="left")
    return _examples("history_consolidation", rows, preferences=pl.col("texts"))


def fine_grained_steering(tables: Tables, preferences: pl.DataFrame, embedder: Embedder, seed: int = 0) -> pl.DataFrame:
    """Away from the history's own next item to a very similar one.

    For every distinct target s of a split, each used once: t is the item nearest to s among the split's other
    targets. Two examples: (p(s), history of a user whose target is t) -> s, and (p(t), history of a user whose
    target is s) -> t. In train p(s) is the preference nearest to s, and p(t) the nearest to t that differs from
    p(s); validation and test take the 2nd-nearest for s and the 3rd for t, so that training pairs do not
    reappear. Where several users share a target one of them is drawn at random, among those who do not have the
    item that is asked for in their history; where there is none the example is left out.

    Preferences come from one pool for all splits: the distinct positive ones written in the training period.
    That keeps the texts of evaluated steps, which know the evaluated items, out of the examples.

    Args:
        tables: the data set.
        preferences: as an approximator gives them.
        embedder: embeds preferences and item texts.
        seed: of the draws of users.

    Raises:
        ValueError: if fewer than three distinct positive preferences were written in the training period.
    """
    return _steering("fine_grained_steering", tables, preferences, embedder, seed)


def coarse_grained_steering(
    tables: Tables, preferences: pl.DataFrame, embedder: Embedder, seed: int = 0
) -> pl.DataFrame:
    """Away from the history's own next item to one unlike it: as fine-grained steering, t farthest from s."""
    return _steering("coarse_grained_steering", tables, preferences, embedder, seed)


def sentiment_following(tables: Tables, preferences: pl.DataFrame, embedder: Embedder) -> pl.DataFrame:
    """Pairs of a negative preference and its inversion, about one item, without a history.

    For every item that its user reviewed negatively: the user's negative preference, written at or after that
    step, that is closest to review and title. The row of the preference says negative, the row of its inversion
    positive; `pair_id` joins them. The position of the item decides the split.

    Each distinct preference text makes one pair, over all splits, so that no evaluated text was trained on: the
    one of highest similarity, ties by user and step. Training pairs take preferences written in the training
    period only, validation pairs those written up to the validation step: later ones know the evaluated items.
    Negative preferences that the rules cannot invert make no pair.
    """
    rows = tables.interactions.sort(_KEYS)
    rows = rows.with_columns(
        polarity=review_polarity(rows),
        split=_split(),
        until=_last_step_of_split(),
        position=pl.int_range(pl.len()),
    )
    disliked = (
        rows.filter(pl.col("polarity") == NEGATIVE)
        .join(tables.items.select("item_id", "title"), on="item_id", how="left", maintain_order="left")
        .with_columns(about=pl.format("{} {}", "review", "title").str.strip_chars())
    )
    written = preferences.filter(pl.col("sentiment") == NEGATIVE)
    written = written.with_columns(inverse=inverted(written["text"])).filter(pl.col("inverse").is_not_null())
    options = disliked.join(
        written.select("user_id", "text", "inverse", written="step"), on="user_id", how="inner"
    ).filter(pl.col("written").is_between(pl.col("step"), pl.col("until")))
    options = options.unique(["position", "text"])
    options = options.with_columns(similarity=cosines(options["text"], options["about"], embedder))
    closest = options.sort(["position", "similarity", "text"], descending=[False, True, False]).unique(
        "position", keep="first", maintain_order=True
    )
    pairs = (
        closest.sort(["similarity", "position"], descending=[True, False])
        .unique("text", keep="first", maintain_order=True)
        .sort("position")
        .with_columns(pair_id=pl.int_range(pl.len(), dtype=pl.Int64))
        .with_columns(target="item_id", history=pl.lit([], dtype=_ITEM_LIST))
    )
    both = pl.concat(
        [
            pairs.with_columns(sentiment=pl.lit(NEGATIVE)),
            pairs.with_columns(sentiment=pl.lit(POSITIVE), text="inverse"),
        ]
    ).sort("pair_id", "sentiment")
    return _examples(
        "sentiment_following",
        both,
        preferences=pl.concat_list("text"),
        sentiment=pl.col("sentiment"),
        pair_id=pl.col("pair_id"),
    )


def _steering(axis: str, tables: Tables, preferences: pl.DataFrame, embedder: Embedder, seed: int) -> pl.DataFrame:
    items = tables.items.select("item_id", "text")
    pool = _training_pool(tables, preferences)
    if len(pool) < 3:
        raise ValueError(
            f"{len(pool)} distinct positive preferences were written in the training period; {axis} needs at "
            "least 3. Pass more users, or leave this axis out."
        )
    item_vectors = embedder.encode(items["text"])
    closest = nearest(item_vectors, embedder.encode(pool), k=3, progress=True)
    index = pl.DataFrame({"target": items["item_id"], "item": np.arange(items.height)})
    rows = targets(tables).join(index, on="target", how="left", maintain_order="left")
    seen = pl.col("history").list.eval(pl.element().replace_strict(index["target"], index["item"]))
    rows = rows.with_columns(seen=seen)
    parts = []
    for number, split in enumerate(SPLITS):
        frame = rows.filter(pl.col("split") == split)
        s = np.sort(frame["item"].unique().to_numpy())
        if len(s) < 2:
            continue
        t = s[partners(item_vectors[s], farthest=axis == "coarse_grained_steering", progress=True)]
        if split == "train":
            of_s = closest[s, 0]
            of_t = np.where(closest[t, 0] == of_s, closest[t, 1], closest[t, 0])
        else:
            of_s, of_t = closest[s, 1], closest[t, 2]
        rng = np.random.default_rng([seed, AXES.index(axis), number])
        for place, (history_of, asked, text) in enumerate(((t, s, of_s), (s, t, of_t))):
            user = _one_user_each(frame, history_of, asked, rng)
            found = user >= 0
            part = frame[user[found]].with_columns(
                target=items["item_id"].gather(asked[found]),
                text=pool.gather(text[found]),
                order=pl.Series(2 * np.flatnonzero(found) + place),
            )
            parts.append(part.with_columns(number=pl.lit(number)))
    rows = pl.concat(parts) if parts else rows.head(0).with_columns(text=pl.lit(""), number=0, order=0)
    return _examples(axis, rows.sort("number", "order"), preferences=pl.concat_list("text"))


def _training_pool(tables: Tables, preferences: pl.DataFrame) -> pl.Series:
    """Distinct positive preferences written in the training period, sorted."""
    period = tables.training_period().select(_KEYS)
    return (
        preferences.filter(pl.col("sentiment") == POSITIVE).join(period, on=_KEYS, how="semi")["text"].unique().sort()
    )


def _one_user_each(frame: pl.DataFrame, wanted: np.ndarray, asked: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random row of `frame` whose target is the wanted item and whose history lacks the asked one.

    Args:
        frame: item (index of the target) and seen (indices of the history's items).
        wanted: item indices. Shape: (S,).
        asked: item indices. Shape: (S,).
        rng: one draw per wanted item.

    Returns:
        Rows, -1 where there is none. Shape: (S,).
    """
    draw = rng.random(len(wanted))
    rows = frame.select("item", "seen").with_row_index("row")
    slots = pl.DataFrame({"item": wanted, "asked": asked}).with_row_index("slot")
    seen = rows.select("row", asked="seen").explode("asked")
    eligible = slots.join(rows.select("row", "item"), on="item").join(seen, on=["row", "asked"], how="anti")
    drawn = (
        eligible.sort("slot", "row")
        .group_by("slot", maintain_order=True)
        .agg("row")
        .with_columns(draw=pl.lit(pl.Series(draw)).gather("slot"))
        .select("slot", row=pl.col("row").list.get((pl.col("draw") * pl.col("row").list.len()).cast(pl.Int64)))
    )
    found = np.full(len(wanted), -1, dtype=np.int64)
    found[drawn["slot"].to_numpy()] = drawn["row"].to_numpy()
    return found


def _split() -> pl.Expr:
    """Split of the target at each step, from its distance to the end of the user's history."""
    left = pl.len().over("user_id").cast(pl.Int64) - 1 - pl.col("step")
    return pl.when(left == 0).then(pl.lit("test")).when(left == 1).then(pl.lit("validation")).otherwise(pl.lit("train"))


def _last_step_of_split() -> pl.Expr:
    """The last step of the split that each step belongs to."""
    length = pl.len().over("user_id").cast(pl.Int64)
    return pl.max_horizontal(length - 3, pl.col("step"))


def _examples(
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
