"""The two axes whose target is the user's own next item: recommendation and history consolidation.

A recommendation at step j is conditioned on one of the preferences its user had written by step j-1, which a matcher
chooses. The paper takes the one closest to the target itself, in the evaluation splits too (Paischer et al. 2025,
arXiv:2412.08604): "oracle". "last" never looks at the target: it takes the one closest to the last item of the history.
History consolidation gives all preferences of the step before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from preference_benchmark.axes.examples import KEYS, as_examples, targets
from preference_benchmark.embedding import Embedder, describe_items, dot_products
from preference_benchmark.preferences.candidates import Candidates
from preference_benchmark.tables import Tables

__all__ = ["MATCHERS", "Matcher", "Similarity", "history_consolidation", "match", "recommendation"]

Similarity = Callable[[str], pl.Series]
"""Cosine of every candidate with the text of an item: "item" (the target) or "previous" (the one before it)."""

Matcher = Callable[[Candidates, Similarity], pl.Series]
"""Scores every row of `Candidates.rows`: the highest of a target conditions it; a candidate without a score cannot."""


def match(
    preferences: pl.DataFrame,
    tables: Tables,
    embedder: Embedder,
    matcher: str | Matcher = "oracle",
    *,
    all_earlier_steps: bool = False,
    described_by: Sequence[str] = ("text",),
    inversion: str = "paper",
) -> pl.DataFrame:
    """The preference that conditions each target.

    Among candidates (see `Candidates`) of equal scores the latest written wins, then the one of lowest rank.

    Args:
        preferences: user_id, step, rank, text, sentiment, as an approximator gives them.
        tables: the data set.
        embedder: embeds preferences and item texts.
        matcher: "oracle": closest to the target's text. "last": closest to the text of the history's last item. Or a
            matcher of your own.
        all_earlier_steps: whether preferences of all earlier steps are candidates (the paper's choice for
            Steam), not only those written at the step before.
        described_by: columns of the items table that describe an item; see `describe_items`.
        inversion: the rules that turn negative preferences into their opposites; see `polarity.inverted`.

    Returns:
        user_id, step (of the target, 1 and later), text, similarity (the matcher's score; by default the cosine with
        what it was compared with); sorted by user_id and step. A step without candidates, or whose candidates have no
        scores, is absent.

    Raises:
        ValueError: if the matcher is unknown, it does not give one score per candidate, or preferences lack columns.
    """
    if isinstance(matcher, str) and matcher not in MATCHERS:
        raise ValueError(f"matcher {matcher!r} is not known; pass one of {list(MATCHERS)} or a function.")
    choose = MATCHERS[matcher] if isinstance(matcher, str) else matcher
    options = Candidates.of(preferences, tables, all_earlier_steps=all_earlier_steps, inversion=inversion)

    def similarity(to: str) -> pl.Series:
        used, rows = np.unique(options.rows["text"].to_numpy(), return_inverse=True)
        cosines = dot_products(
            embedder.encode(options.texts.gather(used)),
            rows,
            embedder.encode(describe_items(tables.items, described_by)),
            options.rows[to].to_numpy(),
        )
        return pl.Series("similarity", cosines)

    scores = choose(options, similarity)
    if len(scores) != options.rows.height:
        raise ValueError(
            f"the matcher gave {len(scores):,} scores for {options.rows.height:,} candidates; return one score per "
            "row of candidates.rows, in the same order."
        )
    step = ["user", "step"]
    best = (
        options.rows.lazy()
        .with_columns(similarity=scores)
        .filter(pl.col("similarity") == pl.col("similarity").max().over(step))
        .sort([*step, "written", "rank", "text"], descending=[False, False, True, False, False])
        .unique(step, keep="first", maintain_order=True)
        .collect()
    )
    return options.named(best).select("user_id", "step", "text", "similarity")


def _closest_to_target(candidates: Candidates, similarity: Similarity) -> pl.Series:
    return similarity("item")


def _closest_to_last_item(candidates: Candidates, similarity: Similarity) -> pl.Series:
    return similarity("previous")


MATCHERS: dict[str, Matcher] = {"oracle": _closest_to_target, "last": _closest_to_last_item}
"""The matchers of `Protocol.matching`."""


def recommendation(tables: Tables, matches: pl.DataFrame, mode: str = "oracle") -> pl.DataFrame:
    """History and the one matched preference, to the next item.

    Args:
        tables: the data set.
        matches: user_id, step (of the target), text; targets without a match are left out.
        mode: how they were matched. A preference chosen by its target, mode "oracle", stands for one that was stated;
            one chosen without the target is inferred.
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
