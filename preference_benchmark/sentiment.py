"""Polarity of reviews and preferences, and the inversion of a preference.

The paper asks a classifier about reviews and the first word of a preference about its polarity, and turns
"avoid" into "Find", "exclude" and "no" into "Search for" (Paischer et al. 2025, arXiv:2412.08604). Here the
rating speaks for a review where it is clear, and VADER (Hutto & Gilbert 2014) where it is not.
"""

from __future__ import annotations

from functools import lru_cache

import polars as pl
from tqdm.auto import tqdm
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

__all__ = [
    "NEGATIVE",
    "POSITIVE",
    "compound_scores",
    "invert",
    "inverted",
    "preference_polarity",
    "review_polarity",
]

POSITIVE, NEGATIVE = "positive", "negative"

# VADER's own threshold between neutral and polar text.
_POLAR = 0.05
_INVERSIONS = {"avoid": "Find", "exclude": "Search for", "no": "Search for"}
_NEGATIVE_OPENING = r"(?i)^\s*(avoid|exclude|no)\s+"


def compound_scores(texts: pl.Series) -> pl.Series:
    """VADER's compound score of every text, each distinct text scored once.

    Args:
        texts: any strings; null and empty text scores 0.

    Returns:
        float64 in [-1, 1]: below -0.05 negative, above 0.05 positive.

    >>> compound_scores(pl.Series(["I love it!", "It is a cup.", "Awful smell."])).round(1).to_list()
    [0.7, 0.0, -0.5]
    """
    distinct = texts.drop_nulls().unique(maintain_order=True).rename("text")
    scores = distinct.to_frame().with_columns(score=compound(distinct))
    joined = texts.to_frame("text").join(scores, on="text", how="left", maintain_order="left")
    return joined["score"].fill_null(0.0).rename(texts.name)


def review_polarity(interactions: pl.DataFrame, *, progress: bool = True) -> pl.Series:
    """Whether each interaction speaks well or ill of its item.

    Ratings of 4 and above are positive, of 2 and below negative. Between them, and where the rating is unknown,
    the review's text decides: negative if VADER finds it negative, else positive. No evidence counts as
    positive: the user chose the item.

    Args:
        interactions: the columns rating (1-5 or null) and review.
        progress: whether to show a bar while scoring text.

    Returns:
        "positive" or "negative" per row.
    """
    unclear = pl.col("rating").is_null() | pl.col("rating").is_between(2, 4, closed="none")
    text = interactions.select(pl.when(unclear).then("review").otherwise(pl.lit("")))["review"]
    score = compound_scores(text, progress=progress)
    ill = pl.when(unclear).then(pl.lit(score) < -_POLAR).otherwise(pl.col("rating") <= 2)
    return interactions.select(polarity=pl.when(ill).then(pl.lit(NEGATIVE)).otherwise(pl.lit(POSITIVE))).to_series()


def preference_polarity(texts: pl.Series) -> pl.Series:
    """Polarity of preferences: negative where the first word is avoid, exclude or no, in any case.

    >>> preference_polarity(pl.Series(["Find a mug", "avoid glass", "Notebooks with lines"])).to_list()
    ['positive', 'negative', 'positive']
    """
    negative = texts.str.contains(_NEGATIVE_OPENING)
    return pl.select(
        pl.when(negative).then(pl.lit(NEGATIVE)).otherwise(pl.lit(POSITIVE)).alias("sentiment")
    ).to_series()


def inverted(texts: pl.Series) -> pl.Series:
    """The positive opposite of every negative preference; null where there is none.

    >>> inverted(pl.Series(["Avoid strong smells", "NO horror games", "Find tea"])).to_list()
    ['Find strong smells', 'Search for horror games', None]
    """
    opening = texts.str.extract(_NEGATIVE_OPENING).str.to_lowercase()
    opposite = opening.replace_strict(_INVERSIONS, default=None, return_dtype=pl.String)
    rest = texts.str.replace(_NEGATIVE_OPENING, "").str.strip_chars()
    usable = opposite.is_not_null() & (rest != "")
    return pl.select(pl.when(usable).then(pl.concat_str([opposite, rest], separator=" ")).alias(texts.name)).to_series()


def invert(preference: str) -> str | None:
    """The positive opposite of a negative preference, or None where the rules know none.

    >>> invert("Exclude products with alcohol")
    'Search for products with alcohol'
    """
    return inverted(pl.Series([preference], dtype=pl.String))[0]


@lru_cache(maxsize=1)
def _analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()
