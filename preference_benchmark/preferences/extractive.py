"""Preferences without a language model: sentences about the aspects that a history speaks for and against.

Stands in for the LLM of Preference Discerning (Paischer et al. 2025, arXiv:2412.08604) where there is none to
ask: deterministic, fast, and every sentence can be traced to items and reviews. Says what can be known from them:
a user without bad ratings or negative remarks gets no negative preferences.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from preference_benchmark.preferences.evidence import Summary, collect, summarise
from preference_benchmark.preferences.grouping import group, shared_noun
from preference_benchmark.preferences.phrasing import sentences
from preference_benchmark.preferences.vocabulary import Vocabulary
from preference_benchmark.sentiment import NEGATIVE, POSITIVE
from preference_benchmark.tables import Tables

__all__ = ["ExtractiveApproximator"]

_SENTENCES = 5
_MAX_NEGATIVE = 3
_KIND_DISLIKED = 0.2
_POSITIVE_PLACES, _NEGATIVE_PLACES, _NOUN_PLACES = 12, 6, 6


@dataclass(frozen=True)
class ExtractiveApproximator:
    """Five preferences per user and step, from ratings, reviews and item aspects.

    How many of the five are negative follows from the share of evidence that is (none without any, at least one
    with some, at most three). Where a history shows fewer than five aspects the remaining sentences combine them
    or restate them less strictly; where it shows none they claim nothing.

    The vocabulary of aspects belongs to the catalogue: the items' own aspects or, where items have none, words
    mined from their titles. What is said about a user after a step comes from the user's own interactions up to
    that step alone.

    Attributes:
        progress: whether to show progress bars.
    """

    progress: bool = True

    def __call__(self, tables: Tables) -> pl.DataFrame:
        """Preferences after every step of every user.

        Returns:
            user_id, step, rank (0 to 4, positive ones first, each group strongest first), text (distinct within
            user and step), sentiment ("positive" or "negative"); sorted by user_id, step, rank.
        """
        vocabulary = Vocabulary.of(tables)
        rows = _rows(tables)
        first_row = np.flatnonzero(rows["step"].to_numpy() == 0)
        evidence = collect(rows, vocabulary)
        count = rows.height
        liked = summarise(evidence, count, first_row, vocabulary.weight, places=_POSITIVE_PLACES)
        # One bad tuner is no reason to avoid tuners.
        weight = vocabulary.weight * np.where(vocabulary.noun_of_aspect >= 0, _KIND_DISLIKED, 1.0)
        disliked = summarise(evidence, count, first_row, weight, places=_NEGATIVE_PLACES, sign=-1)
        kinds = rows.join(vocabulary.noun_of_items, on="item_id").select(
            "user", "step", "length", aspect="noun", weight=pl.lit(1.0)
        )
        even = np.ones(max(len(vocabulary.nouns), 1))
        nouns = summarise(kinds, count, first_row, even, places=_NOUN_PLACES)
        return _write(rows, vocabulary, liked, disliked, nouns)


def _rows(tables: Tables) -> pl.DataFrame:
    """Interactions with row, user (position) and length (of the history), sorted by user and step."""
    rows = tables.interactions.sort("user_id", "step").with_row_index("row")
    return rows.with_columns(
        user=pl.col("user_id").rank("dense").cast(pl.Int64) - 1,
        length=pl.len().over("user_id").cast(pl.Int64),
    )


def _write(
    rows: pl.DataFrame, vocabulary: Vocabulary, liked: Summary, disliked: Summary, nouns: Summary
) -> pl.DataFrame:
    seed = _checksums(rows["user_id"].unique(maintain_order=True))[rows["user"].to_numpy()]
    place = np.arange(_SENTENCES)
    negatives = _how_many_negative(liked, disliked)
    positives = _SENTENCES - negatives
    likes = group(liked, positives, (seed[:, None] + place) % 3)
    dislikes = group(disliked, negatives, (seed[:, None] + place) % 2)
    named_likes = np.where(likes[:, :, 0] >= 0, shared_noun(liked, likes, nouns), -1)
    named_dislikes = np.where(dislikes[:, :, 0] >= 0, shared_noun(disliked, dislikes, nouns), -1)
    # Positive sentences stand first; those of a row's negative part follow at its own places.
    is_negative = place >= positives[:, None]
    shift = np.maximum(place - positives[:, None], 0)
    shifted = np.take_along_axis(dislikes, shift[:, :, None], axis=1)
    named = np.where(is_negative, np.take_along_axis(named_dislikes, shift, axis=1), named_likes)
    aspects = np.where(is_negative[:, :, None], _positions(disliked, shifted), _positions(liked, likes))
    empty = aspects[:, :, 0] < 0
    repeat = np.where(empty, np.cumsum(empty, axis=1) - 1, -1)
    # A sentence without aspects of its own restates the row's strongest ones.
    aspects = np.where(empty[:, :, None], _strongest(liked, aspects.shape[2]), aspects)
    variant = _checksums(vocabulary.aspects)[aspects[:, :, 0]]
    named, aspects = _named(vocabulary, np.where(empty, -1, named), aspects)
    frame = pl.DataFrame(
        {
            "row": np.repeat(np.arange(rows.height), _SENTENCES),
            "rank": np.tile(place, rows.height),
            "negative": is_negative.ravel(),
            "repeat": repeat.ravel(),
            "variant": variant.ravel(),
            "noun": _in_words(vocabulary.nouns, named.ravel()),
            "before": _listed(vocabulary.aspects, aspects, vocabulary.before_noun),
            "after": _listed(vocabulary.aspects, aspects, ~vocabulary.before_noun),
        }
    )
    frame = frame.with_columns(text=sentences(frame, vocabulary.noun))
    sentiment = pl.when("negative").then(pl.lit(NEGATIVE)).otherwise(pl.lit(POSITIVE))
    keys = rows.select("user_id", "step")[frame["row"]]
    return keys.hstack(frame.select("rank", "text", sentiment=sentiment))


def _how_many_negative(liked: Summary, disliked: Summary) -> np.ndarray:
    """Negative sentences per row, from the share of negative evidence. Shape: (R,)."""
    against, total = disliked.score.sum(axis=1), disliked.score.sum(axis=1) + liked.score.sum(axis=1)
    share = against / np.maximum(total, 1e-9)
    known = (disliked.index >= 0).sum(axis=1)
    return np.minimum(known, np.clip(np.rint(_SENTENCES * share), 1, _MAX_NEGATIVE)).astype(np.int64)


def _strongest(liked: Summary, aspects: int) -> np.ndarray:
    """The strongest liked aspect of each row, then none. Shape: (R, 1, aspects)."""
    found = np.full((len(liked.index), 1, aspects), -1, dtype=np.int64)
    found[:, 0, 0] = liked.index[:, 0]
    return found


def _positions(summary: Summary, places: np.ndarray) -> np.ndarray:
    """Positions in the vocabulary of places in a summary. Shape: that of `places`."""
    flat = places.reshape(len(places), -1)
    found = np.take_along_axis(summary.index, np.maximum(flat, 0), axis=1)
    return np.where(flat >= 0, found, -1).reshape(places.shape)


def _in_words(words: pl.Series, positions: np.ndarray) -> pl.Series:
    """Words at positions, null at -1."""
    index = pl.Series(positions).to_frame("at").select(pl.when(pl.col("at") >= 0).then("at"))["at"]
    return words.gather(index)


def _named(vocabulary: Vocabulary, named: np.ndarray, aspects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kind that each sentence speaks of, and its aspects without those that only name the kind.

    An aspect that is a kind itself ("guitar strap") takes the place of none, and of a wider one ("straps").

    Args:
        vocabulary: of the data set.
        named: positions among the nouns, -1 for none. Shape: (R, S).
        aspects: positions, -1 for none. Shape: (R, S, K).
    """
    of_aspect, head = np.append(vocabulary.noun_of_aspect, -1), np.append(vocabulary.noun_head, -1)
    own = of_aspect[aspects]
    for place in range(aspects.shape[2]):
        kind = own[:, :, place]
        wider = (head[kind] == head[named]) & (np.append(vocabulary.noun_words, 0)[kind] > 1)
        named = np.where((kind >= 0) & ((named < 0) | wider), kind, named)
    says_kind = (own >= 0) & (named >= 0)[:, :, None] & (head[own] == head[named][:, :, None])
    return named, np.where(says_kind, -1, aspects)


def _listed(words: pl.Series, positions: np.ndarray, wanted: np.ndarray) -> pl.Series:
    """Lists of the wanted ones among the words at positions. Length: R x S of positions of shape (R, S, aspects)."""
    flat = positions.reshape(-1, positions.shape[2])
    keep = (flat >= 0) & np.append(wanted, False)[flat]
    columns = [_in_words(words, np.where(keep[:, n], flat[:, n], -1)).alias(str(n)) for n in range(flat.shape[1])]
    return pl.DataFrame(columns).select(pl.concat_list(pl.all()).list.drop_nulls()).to_series()


def _checksums(texts: pl.Series) -> np.ndarray:
    """A number per text that depends on nothing else, and at the end one for none. Shape: (len(texts) + 1,)."""
    return np.array([*(zlib.crc32(text.encode()) for text in texts), 0], dtype=np.int64)
