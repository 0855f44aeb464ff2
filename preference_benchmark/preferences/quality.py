"""How good preferences are, measured without asking people.

Preference Discerning (Paischer et al. 2025, arXiv:2412.08604) validates its preferences by a study with people. Here
tables of preferences are compared on the users and steps that all of them cover: a good preference finds its user's
next item better than another user's does, agrees with the ratings, differs from the others of its step, and names no
brand. The result is a table to print, numbers to keep, and a figure.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from preference_benchmark.embedding import CachedEmbedder, Embedder, cosines
from preference_benchmark.preferences.files import check_preferences
from preference_benchmark.preferences.names import Names
from preference_benchmark.preferences.polarity import POSITIVE
from preference_benchmark.preferences.retrieval import (
    Ranks,
    last_item,
    nearest_preference,
    other_users,
    popularity,
    queries_after,
    uniform,
)
from preference_benchmark.tables import Tables

__all__ = [
    "Comparison",
    "METRICS",
    "RetrievalResult",
    "TARGETS",
    "compare",
    "polarity_agreement",
]

logger = logging.getLogger(__name__)


Interval = tuple[float, float, float]

METRICS = {
    "recall@10": lambda ranks: ranks.recall(10),
    "recall@50": lambda ranks: ranks.recall(50),
    "MRR": Ranks.reciprocal,
    "share ranked before": Ranks.share_before,
}


@dataclass(frozen=True)
class RetrievalResult:
    """How well one way to order the catalogue finds the next items.

    Attributes:
        values: mean and 95% interval (low, high) by metric; "share ranked before" is 0 at best and 0.5 by chance.
        median_rank: of the next item.
        curve: recall at each of the comparison's k.
    """

    values: dict[str, Interval]
    median_rank: float
    curve: list[float]


@dataclass(frozen=True)
class Comparison:
    """Quality of tables of preferences on the same users; `print` it.

    Attributes:
        users: users compared on.
        targets: how many next items are to be found.
        items: size of the catalogue.
        seed: of everything drawn.
        retrieval: what was found, by method: controls, tables, and tables exchanged between users.
        lift: own preferences minus another user's, by table and metric, with 95% interval of the paired difference.
        described: other measures by table.
        ks: where the curves are measured.
    """

    users: int
    targets: int
    items: int
    seed: int
    retrieval: dict[str, RetrievalResult]
    lift: dict[str, dict[str, Interval]]
    described: dict[str, dict[str, float]]
    ks: list[int]

    def __str__(self) -> str:
        head = f"{self.targets:,} next items of {self.users:,} users among {self.items:,} items (95% over users)"
        rows = [["the next item, found by", *METRICS, "median rank"]]
        rows += [
            [name, *(_shown(found.values[metric]) for metric in METRICS), f"{found.median_rank:,.0f}"]
            for name, found in self.retrieval.items()
        ]
        lifts = [["own minus another user's", *METRICS]]
        for name, values in self.lift.items():
            lifts.append([name, *(_shown(values[metric], sign=True) for metric in METRICS)])
        measures = list(dict.fromkeys(measure for values in self.described.values() for measure in values))
        others = [["", *self.described]]
        others += [
            [measure, *(_number(values.get(measure)) for values in self.described.values())] for measure in measures
        ]
        return "\n\n".join([head, _table(rows), _table(lifts), _table(others)])

    def record(self) -> dict[str, object]:
        """All numbers as plain values; those that are not defined are None."""
        return _plain(asdict(self))

    def draw(self, path: str | Path) -> None:
        """Recall against k for every method, as a picture (the suffix says in which format)."""
        from matplotlib import pyplot

        path = Path(path)
        figure, axes = pyplot.subplots(figsize=(7.5, 5), layout="constrained")
        tables = list(self.described)
        for name, found in self.retrieval.items():
            own = next((number for number, table in enumerate(tables) if name.startswith(table)), None)
            style = {"color": f"C{own}", "linewidth": 2} if own is not None else {"color": "0.5", "linewidth": 1.2}
            if own is None:
                style["linestyle"] = {"random": ":", "popularity": "--"}.get(name, "-.")
            elif name not in tables:
                style |= {"linestyle": "--", "linewidth": 1.2}
            axes.plot(self.ks, found.curve, label=name, **style)
        axes.set(xscale="log", xlabel="k", ylabel="share of next items among the first k", ylim=(0, 1))
        axes.set_xlim(1, self.items)
        axes.set_title(f"{self.targets:,} next items of {self.users:,} users among {self.items:,} items", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=9)
        kind = path.suffix.removeprefix(".") or "png"
        _replace(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=150))
        pyplot.close(figure)


def _shown(interval: Interval, *, sign: bool = False) -> str:
    mean, low, high = interval
    plus = "+" if sign else ""
    return f"{mean:{plus}.3f} ({low:{plus}.3f} to {high:{plus}.3f})"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1_000 else f"{value:.2f}"


def _table(rows: list[list[str]]) -> str:
    """Rows as a Markdown table, aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _replace(path: Path, write) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


TARGETS = ("held-out", "all")
_KEYS = ["user_id", "step"]
_WINDOW = 5
# Pairs and steps that similarities are averaged over: enough for three digits.
_SAMPLE = 2_000
# Steps whose preferences are compared with ratings: every one brings up to five reviews to embed.
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
        targets: which next items are to be found: "held-out", the last two of each user, which no item text knows
            anything of; or "all".
        seed: of random order, exchange between users, samples and bootstrap.

    Raises:
        ValueError: if a table lacks columns, if the tables have no step in common, or `targets` is unknown.
    """
    if targets not in TARGETS:
        raise ValueError(f"targets={targets!r} is not known; pass one of {TARGETS}.")
    embedder = CachedEmbedder(embedder)
    common = _common_steps(tables_of_preferences, tables, targets)
    at = queries_after(tables, common)
    rankings = {"random": uniform(at, seed), "popularity": popularity(at, tables)}
    logger.info("ranking next items by the last item")
    rankings["last item"] = last_item(at, tables, embedder)
    exchanged = other_users(at, seed)
    names = Names.of(tables)
    described, lifts = {}, {}
    for name, preferences in tables_of_preferences.items():
        logger.info("ranking next items by the preferences of %s", name)
        kept = preferences.join(common, on=_KEYS, how="semi").sort(*_KEYS, "rank")
        own = nearest_preference(at, kept, tables, embedder)
        others = nearest_preference(at, kept, tables, embedder, exchanged)
        rankings |= {name: own, f"{name}, of another user": others}
        lifts[name] = {metric: own.interval(value(own) - value(others), seed) for metric, value in METRICS.items()}
        described[name] = _described(kept, tables, embedder, names, seed) | _spent((reports or {}).get(name, {}))
    ks = np.unique(np.rint(np.geomspace(1, at.num_items, 60)).astype(int))
    logger.info("computing intervals")
    return Comparison(
        users=int(at.user.max()) + 1,
        targets=len(at.target),
        items=at.num_items,
        seed=seed,
        retrieval={name: _result(ranks, ks, seed) for name, ranks in rankings.items()},
        lift=lifts,
        described=described,
        ks=ks.tolist(),
    )


def _common_steps(tables_of_preferences: Mapping[str, pl.DataFrame], tables: Tables, targets: str) -> pl.DataFrame:
    """user_id and step that every table covers and that an item to be found follows."""
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
    """How many preferences ask for what was rated well and avoid what was rated badly.

    A preference is compared with the rating of the item, among the five latest, whose review is nearest to it. Ratings
    of 4 and more speak for the item, of 2 and less against it; others are left out.

    Returns:
        Share that agrees; the same averaged over well and badly rated items, which chance brings to 0.5 (NaN where
        all speak alike); number of preferences compared with a rating.
    """
    chosen = _sampled(preferences.select(_KEYS).unique(maintain_order=True), seed, _HELD_STEPS)
    rows = tables.interactions.join(tables.items.select("item_id", "title"), on="item_id", how="left")
    rated = rows.filter((pl.col("rating") >= 4) | (pl.col("rating") <= 2)).filter(pl.col("review") != "")
    about = pl.format("{} {}", "review", "title")
    rated = rated.select("user_id", rated="step", well=pl.col("rating") >= 4, about=about)
    pairs = preferences.join(chosen, on=_KEYS, how="semi").with_row_index("preference").join(rated, on="user_id")
    pairs = pairs.filter(pl.col("rated").is_between(pl.col("step") - (_WINDOW - 1), pl.col("step")))
    pairs = pairs.with_columns(similarity=cosines(pairs["text"], pairs["about"], embedder))
    nearest = pairs.sort(["preference", "similarity", "rated"], descending=[False, True, True])
    nearest = nearest.unique("preference", keep="first", maintain_order=True)
    agrees = (nearest["sentiment"] == POSITIVE) == nearest["well"]
    shares = [agrees.filter(nearest["well"] == well).mean() for well in (True, False)]
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
        "compared with ratings": held,
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


def _result(ranks: Ranks, ks: np.ndarray, seed: int) -> RetrievalResult:
    values = {metric: ranks.interval(value(ranks), seed) for metric, value in METRICS.items()}
    curve = [float(ranks.recall(int(k)).mean()) for k in ks]
    return RetrievalResult(values, float(np.median(ranks.rank)), curve)
