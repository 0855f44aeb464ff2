"""How good preferences are, without asking people: the open question of Preference Discerning on its LLM-made ones.

Tables are compared on the users and steps that all of them cover (Paischer et al. 2025, arXiv:2412.08604, validate
theirs by a study with people). A good preference finds its user's next item better than somebody else's does, agrees
with the ratings, says something else than its neighbours, and names no brand.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from preference_benchmark.embedding import CachedEmbedder, Embedder
from preference_benchmark.matching import check_preferences, cosines
from preference_benchmark.preferences.comparison import METRICS, Comparison, Found
from preference_benchmark.preferences.names import Names
from preference_benchmark.preferences.retrieval import (
    Ranks,
    closest_preference,
    last_item,
    points,
    popularity,
    shuffled_users,
    uniform,
)
from preference_benchmark.sentiment import POSITIVE
from preference_benchmark.tables import Tables

__all__ = ["TARGETS", "compare", "polarity_agreement"]

TARGETS = ("held-out", "all")
_KEYS = ["user_id", "step"]
_WINDOW = 5
# Pairs and steps that similarities are averaged over: enough for three digits.
_SAMPLE = 2_000
# Steps whose preferences are held against ratings: every one brings up to five reviews to embed.
_HELD_STEPS = 500
_THOUSAND = 1_000


def compare(
    tables_of_preferences: Mapping[str, pl.DataFrame],
    tables: Tables,
    embedder: Embedder,
    *,
    reports: Mapping[str, Mapping[str, object]] | None = None,
    targets: str = "held-out",
    seed: int = 0,
) -> Comparison:
    """Quality of tables of preferences, on the users and steps that all of them cover.

    Args:
        tables_of_preferences: by name, as approximators give them.
        tables: the data set.
        embedder: embeds preferences, item texts and reviews.
        reports: by name, with users, cost and seconds where they are known.
        targets: which next items are sought: "held-out", the last two of each user, which no item text knows
            anything of; or "all".
        seed: of random order, exchange between users, samples and bootstrap.

    Raises:
        ValueError: if a table lacks columns, if the tables have no step in common, or `targets` is unknown.
    """
    if targets not in TARGETS:
        raise ValueError(f"targets={targets!r} is not known; pass one of {TARGETS}.")
    embedder = CachedEmbedder(embedder)
    common = _common_steps(tables_of_preferences, tables, targets)
    at = points(tables, common)
    sought = {"random": uniform(at, seed), "popularity": popularity(at, tables)}
    sought["last item"] = last_item(at, tables, embedder)
    exchanged = shuffled_users(at, seed)
    names = Names.of(tables)
    described, lifts = {}, {}
    for name, preferences in tables_of_preferences.items():
        kept = preferences.join(common, on=_KEYS, how="semi").sort(*_KEYS, "rank")
        own = closest_preference(at, kept, tables, embedder)
        others = closest_preference(at, kept, tables, embedder, exchanged)
        sought |= {name: own, f"{name}, of another user": others}
        lifts[name] = {metric: own.interval(value(own) - value(others), seed) for metric, value in METRICS.items()}
        described[name] = _described(kept, tables, embedder, names, seed) | _spent((reports or {}).get(name, {}))
    ks = np.unique(np.rint(np.geomspace(1, at.num_items, 60)).astype(int))
    return Comparison(
        users=int(at.user.max()) + 1,
        targets=len(at.target),
        items=at.num_items,
        seed=seed,
        retrieval={name: _found(ranks, ks, seed) for name, ranks in sought.items()},
        lift=lifts,
        described=described,
        ks=ks.tolist(),
    )


def _common_steps(tables_of_preferences: Mapping[str, pl.DataFrame], tables: Tables, targets: str) -> pl.DataFrame:
    """user_id and step that every table covers and that a sought item follows."""
    length = pl.len().over("user_id").cast(pl.Int64)
    reach = 3 if targets == "held-out" else length
    left = length - 1 - pl.col("step")
    common = tables.interactions.filter((left > 0) & (left < reach)).select(_KEYS)
    for name, preferences in tables_of_preferences.items():
        check_preferences(preferences)
        common = common.join(preferences.select(_KEYS).unique(), on=_KEYS, how="semi")
        if common.is_empty():
            raise ValueError(f"the table {name!r} has no step in common with the others; write all about one data set.")
    return common.sort(_KEYS)


def polarity_agreement(
    preferences: pl.DataFrame, tables: Tables, embedder: Embedder, seed: int = 0
) -> tuple[float, float, int]:
    """Whether preferences like what was rated well and avoid what was rated badly.

    A preference is held against that of the five latest items whose review it is closest to. Ratings of 4 and more
    speak for, of 2 and less against; others say nothing.

    Returns:
        Share that agrees; the same averaged over well and badly rated items, which chance brings to 0.5 (NaN where
        all speak alike); number of preferences held against a rating.
    """
    chosen = _sampled(preferences.select(_KEYS).unique(maintain_order=True), seed, _HELD_STEPS)
    rows = tables.interactions.join(tables.items.select("item_id", "title"), on="item_id", how="left")
    rated = rows.filter((pl.col("rating") >= 4) | (pl.col("rating") <= 2)).filter(pl.col("review") != "")
    about = pl.format("{} {}", "review", "title")
    rated = rated.select("user_id", rated="step", well=pl.col("rating") >= 4, about=about)
    pairs = preferences.join(chosen, on=_KEYS, how="semi").with_row_index("preference").join(rated, on="user_id")
    pairs = pairs.filter(pl.col("rated").is_between(pl.col("step") - (_WINDOW - 1), pl.col("step")))
    pairs = pairs.with_columns(similarity=cosines(pairs["text"], pairs["about"], embedder))
    closest = pairs.sort(["preference", "similarity", "rated"], descending=[False, True, True])
    closest = closest.unique("preference", keep="first", maintain_order=True)
    agrees = (closest["sentiment"] == POSITIVE) == closest["well"]
    shares = [agrees.filter(closest["well"] == well).mean() for well in (True, False)]
    balanced = float("nan") if None in shares else float(np.mean(shares))
    return float(agrees.mean() or 0.0), balanced, len(agrees)


def _described(
    preferences: pl.DataFrame, tables: Tables, embedder: Embedder, names: Names, seed: int
) -> dict[str, float]:
    texts = preferences["text"]
    agreement, balanced, held = polarity_agreement(preferences, tables, embedder, seed)
    return {
        "preferences": preferences.height,
        "per step": preferences.height / preferences.select(_KEYS).n_unique(),
        "negative %": 100 * float((preferences["sentiment"] != POSITIVE).mean()),
        "agree with ratings %": 100 * agreement,
        "the same, balanced %": 100 * balanced,
        "held against ratings": held,
        "distinct %": 100 * texts.n_unique() / len(texts),
        "redundancy (cosine within a step)": _within(preferences, embedder, seed),
        "sameness (cosine between users)": _between(preferences, embedder, seed),
        "name brands or products %": 100 * float(names.named(texts).mean()),
        "words": float(texts.str.count_matches(r"\S+").mean()),
    }


def _within(preferences: pl.DataFrame, embedder: Embedder, seed: int) -> float:
    """Mean cosine of preferences of one step."""
    chosen = _sampled(preferences.select(_KEYS).unique(maintain_order=True), seed)
    kept = preferences.join(chosen, on=_KEYS, how="semi").select(*_KEYS, "rank", "text")
    pairs = kept.join(kept, on=_KEYS, suffix="_other").filter(pl.col("rank") < pl.col("rank_other"))
    return _mean_cosine(pairs["text"], pairs["text_other"], embedder)


def _between(preferences: pl.DataFrame, embedder: Embedder, seed: int) -> float:
    """Mean cosine of preferences of different users."""
    drawn = np.random.default_rng(seed).integers(preferences.height, size=(2, 2 * _SAMPLE))
    left, right = preferences[drawn[0]], preferences[drawn[1]]
    apart = left["user_id"] != right["user_id"]
    return _mean_cosine(left["text"].filter(apart), right["text"].filter(apart).rename("other"), embedder)


def _mean_cosine(left: pl.Series, right: pl.Series, embedder: Embedder) -> float:
    return float(cosines(left, right, embedder).mean()) if len(left) else float("nan")


def _sampled(steps: pl.DataFrame, seed: int, most: int = _SAMPLE) -> pl.DataFrame:
    steps = steps.sort(_KEYS)
    return steps.sample(most, seed=seed) if steps.height > most else steps


def _spent(report: Mapping[str, object]) -> dict[str, float]:
    """Cost and time per thousand users, where they are known."""
    users, cost, seconds = (report.get(name) for name in ("users", "cost", "seconds"))
    if not users or cost is None or seconds is None:
        return {}
    return {"$ per 1,000 users": _THOUSAND * cost / users, "s per 1,000 users": _THOUSAND * seconds / users}


def _found(ranks: Ranks, ks: np.ndarray, seed: int) -> Found:
    values = {metric: ranks.interval(value(ranks), seed) for metric, value in METRICS.items()}
    curve = [float(ranks.recall(int(k)).mean()) for k in ks]
    return Found(values, float(np.median(ranks.rank)), curve)
