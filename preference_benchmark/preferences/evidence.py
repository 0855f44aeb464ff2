"""What a user's history says about aspects: how much each is liked and disliked, step by step.

There are two sources of evidence: the aspects of an item share the verdict of its rating, and an aspect that the review
mentions has the tone of the clause that mentions it. After each step the latest items of the history are summed
up, the newest with the highest weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from preference_benchmark.preferences.polarity import POSITIVE, compound_scores, review_polarity
from preference_benchmark.preferences.vocabulary import Vocabulary
from preference_benchmark.preferences.words import clauses, plain

__all__ = ["WINDOW", "Summary", "collect", "summarise"]

# The paper's prompt holds five items at a time, out of the last twenty.
WINDOW = 20
_FULL_WEIGHT = 5
_DECAY = 0.85

# A mention says more about an aspect than its mere presence in a rated item does; and where the review says what
# mattered, the item's other aspects matter less.
_MENTION = 2.0
_UNMENTIONED = 0.3
# A mention of a single word that is not an aspect of the item is weak evidence.
_PASSING = 0.5
_POLAR = 0.05
_FAINT = 0.2

# Phrases about products that VADER's lexicon does not know, replaced by words that it does.
_IDIOMS = {
    r"\bcan'?t go wrong\b|\bwon me over\b|\bis exactly\b|\breason i bought\b": "love",
    r"\bnothing wrong\b|\bno (issue|problem)s?\b": "good",
    r"\bnever (disappoint|let)\w*( me)?( down)?\b|\bnot? disappoint\w*\b": "good",
    r"\bnot for me\b|\bno more\b|\bdo without\b|\bdeal[- ]?breaker\b|\bget past\b|\bunhappy about\b": "hate",
    r"\bavoid\w*\b|\bannoy\w*\b|\bruin\w*\b|\b(fell|fall|falls) apart\b|\bbroke\b|\bbreaks\b|\bflimsy\b": "awful",
    r"\bstopped working\b|\bnever (work|like|enjoy)\w*\b|\breturned (it|this|them)\b|\bsent (it )?back\b": "awful",
}


@dataclass(frozen=True)
class Summary:
    """The strongest aspects of every user after every step, best first; R rows = all (user, step), K places.

    Attributes:
        index: position in the vocabulary, -1 beyond the last. Shape: (R, K).
        score: how strong the evidence is, 0 beyond the last. Shape: (R, K).
        steps: bit set of the steps (modulo WINDOW) whose items speak for it. Shape: (R, K), int64.
    """

    index: np.ndarray
    score: np.ndarray
    steps: np.ndarray


def collect(interactions: pl.DataFrame, vocabulary: Vocabulary) -> pl.DataFrame:
    """Evidence of every single interaction.

    Args:
        interactions: row (position of the user and step in the result), user (position), step, length (of the
            user's history), item_id, rating, review.
        vocabulary: of the data set.

    Returns:
        user, step, length, aspect, weight: above 0 for, below 0 against; one row per user, step and aspect.
    """
    strength = (pl.col("rating") - 3).abs() / 2
    sign = pl.when(pl.col("polarity") == POSITIVE).then(1.0).otherwise(-1.0)
    rows = interactions.with_columns(polarity=review_polarity(interactions))
    rows = rows.with_columns(verdict=sign * strength.fill_null(0.5).clip(lower_bound=_FAINT))
    mentioned = _mentions(rows, vocabulary)
    explained = mentioned.select("row").unique().with_columns(explained=True)
    owned = rows.join(vocabulary.of_items, on="item_id").join(explained, on="row", how="left")
    share = pl.when(pl.col("explained")).then(_UNMENTIONED).otherwise(1.0)
    owned = owned.select("row", "aspect", weight=pl.col("verdict") * share)
    # A mentioned aspect of the item counts once, as mentioned.
    owned = owned.join(mentioned, on=["row", "aspect"], how="anti")
    both = pl.concat([owned, mentioned.select("row", "aspect", "weight")])
    return both.join(rows.select("row", "user", "step", "length"), on="row").drop("row")


def summarise(
    evidence: pl.DataFrame, rows: int, first_row: np.ndarray, weight: np.ndarray, *, places: int, sign: int = 1
) -> Summary:
    """The strongest aspects after every step, of the user's history up to it.

    Args:
        evidence: user, step, length, aspect, weight.
        rows: number R of (user, step) pairs.
        first_row: row of each user's step 0. Shape: (users,).
        weight: how informative each aspect is. Shape: (A,).
        places: how many aspects to keep.
        sign: 1 for liked aspects, -1 for disliked ones.
    """
    index = np.full((rows, places), -1, dtype=np.int64)
    score = np.zeros((rows, places))
    steps = np.zeros((rows, places), dtype=np.int64)
    reach = pl.min_horizontal(pl.lit(WINDOW), pl.col("length") - pl.col("step"))
    decay = pl.lit(_DECAY) ** (pl.col("age") - _FULL_WEIGHT + 1).clip(lower_bound=0)
    for part in _user_groups(evidence):
        seen = part.with_columns(age=pl.int_ranges(0, reach)).explode("age")
        weighted = pl.col("weight") * decay * sign
        bit = pl.lit(1, dtype=pl.Int64) * 2 ** (pl.col("step") % WINDOW)
        found = (
            seen.with_columns(value=weighted, bit=bit.cast(pl.Int64), step=pl.col("step") + pl.col("age"))
            .group_by("user", "step", "aspect")
            .agg(
                net=pl.col("value").sum(),
                steps=pl.col("bit").filter(pl.col("value") > 0).sum(),
            )
            .filter(pl.col("net") > _FAINT / 2)
        )
        telling = pl.lit(pl.Series(weight)).gather(pl.col("aspect"))
        # Rounded, because sums over groups are added up in no fixed order.
        found = found.with_columns(score=(pl.col("net") * telling).round(6))
        found = found.sort(["user", "step", "score", "aspect"], descending=[False, False, True, False])
        found = found.with_columns(place=pl.int_range(pl.len()).over("user", "step"))
        found = found.filter(pl.col("place") < places)
        at = (first_row[found["user"].to_numpy()] + found["step"].to_numpy(), found["place"].to_numpy())
        index[at], score[at], steps[at] = (found[name].to_numpy() for name in ("aspect", "score", "steps"))
    return Summary(index, score, steps)


def _mentions(rows: pl.DataFrame, vocabulary: Vocabulary) -> pl.DataFrame:
    """Aspects that reviews mention, with the tone in which they do: row, aspect, weight."""
    patterns = vocabulary.patterns()
    none = pl.DataFrame(schema={"row": rows.schema["row"], "aspect": pl.UInt32, "weight": pl.Float64})
    if patterns.is_empty():
        return none
    found = rows.filter(pl.col("review") != "").select("row", "verdict", clause=clauses(pl.col("review")))
    found = found.explode("clause").with_columns(words=plain(pl.col("clause")))
    found = found.with_columns(
        pattern=pl.col("words").str.extract_many(patterns["pattern"].implode(), leftmost=True)
    ).filter(pl.col("pattern").list.len() > 0)
    if found.is_empty():
        return none
    # The aspect's own words must not colour the tone: a rich texture is not praise.
    bare = pl.col("words").str.replace_many(patterns["pattern"].to_list(), [" it "], leftmost=True)
    for idiom, replacement in _IDIOMS.items():
        bare = bare.str.replace_all(idiom.replace(" ", " +"), replacement)
    found = found.with_columns(bare=bare.str.replace_all(r"\s+", " ").str.strip_chars())
    found = found.with_columns(tone=compound_scores(found["bare"]))
    polar = pl.col("tone").abs() >= _POLAR
    found = found.with_columns(tone=pl.when(polar).then("tone").otherwise(pl.col("verdict") * _FAINT))
    found = found.explode("pattern").join(patterns, on="pattern")
    found = found.group_by("row", "aspect").agg(pl.col("tone").mean().round(6), pattern=pl.col("pattern").first())
    owned = rows.select("row", "item_id").join(vocabulary.of_items, on="item_id").select("row", "aspect", own=True)
    found = found.join(owned, on=["row", "aspect"], how="left")
    passing = pl.col("own").is_null() & ~pl.col("pattern").str.strip_chars().str.contains(" ")
    return found.select(
        "row", "aspect", weight=_MENTION * pl.col("tone") * pl.when(passing).then(_PASSING).otherwise(1.0)
    )


def _user_groups(evidence: pl.DataFrame, rows: int = 400_000) -> list[pl.DataFrame]:
    """Evidence in chunks of about this many rows, each user in one chunk."""
    ordered = evidence.sort("user", "step", "aspect")
    if ordered.is_empty():
        return []
    first_of_user = ordered["user"].to_numpy()
    cuts = np.searchsorted(first_of_user, first_of_user[rows::rows], side="left")
    edges = np.unique(np.concatenate([[0], cuts, [ordered.height]]))
    return [ordered.slice(start, end - start) for start, end in zip(edges[:-1], edges[1:], strict=True)]
