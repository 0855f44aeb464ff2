"""Words that tell an item from others, taken from what people wrote about it.

Some releases have reviews but no metadata. An item is then described by the terms (words and pairs of words)
that its reviewers use and other items' reviewers do not: TF-IDF, where the term frequency counts reviews, so
that one talkative reviewer does not decide. Words of judgement ("great", "broke") and proper names are left out.
"""

from __future__ import annotations

import math

import polars as pl
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

__all__ = ["item_terms"]

# What reviews of anything are full of.
_BOILERPLATE = frozenset(
    "able actually amazing amazon anyone anything arrived away bad best better big bit bought brand buck bucks "
    "buy buying came can cheap cheaper come comes company complaint complaints cost customer day days deal deals "
    "definitely delivery different does doesn doing don dont easily easy else ended especially exact exactly "
    "expected expensive expect experience far feel fine five fast found four free gave gets getting gift give "
    "gives giving going gone good got great guy guys happy hard having haven high highly hope ill isn issue issues "
    "item items job just kind know later left let like liked little long look looking looks lot lots love loved "
    "made make makes making maybe mine minor money month months need needed needs new nice nothing notch ok okay "
    "old one ones online order ordered ordering outstanding paid pay perfect perfectly pieces place plan plus "
    "pretty price priced prices problem problems product products purchase purchased purchasing put quality quick "
    "quickly quite read real really reason reasonable reasonably recommend recommended regular required review "
    "reviewer reviewers reviews right said say says second seem seems seen seller set shipped shipping short simple "
    "simply size small sort star stars start store stuff sturdy super sure surprised take takes thank thanks thing "
    "things think thought three time times told took tried tries true try trying turn twice two use used useful "
    "user users uses using usually value ve want wanted wants wasn way week weeks well went wife won wonderful "
    "word work worked working works worry worth wouldn wrong year years yes didn couldn aren shouldn hasn "
    "absolutely add adding almost already always amount ask bucks case cause check choice close couple decent "
    "decided difference end extra fact favorite fit fits followed friend friends fully general goes half hand "
    "happen happened help helped helps huge idea ideal immediately important impressed inexpensive instead job "
    "keep kids large late leave line live major matter mean mention moment multiple nearly number opinion original "
    "overall particular people person personally piece point possible previous probably quote received recently "
    "replace replaced return returned run save send sent service side similar single solid son started stop "
    "test tested today total totally type types unless unit version wait watch whatever wish".split()
)
# VADER rates words from -4 to 4; milder ones ("warm", "clean") often describe rather than judge.
_JUDGEMENT = frozenset(
    word for word, valence in SentimentIntensityAnalyzer().lexicon.items() if abs(float(valence)) >= 1.2
)
_IGNORED = ENGLISH_STOP_WORDS | _BOILERPLATE | _JUDGEMENT
_FEWEST_ITEMS = 3  # a term of fewer items says nothing about others
_LARGEST_SHARE = 0.15  # a term of more of the items says nothing about this one


def item_terms(texts: pl.DataFrame, most: int = 12, fewest_items: int = _FEWEST_ITEMS) -> pl.DataFrame:
    """The most distinctive terms of every item, best first.

    Args:
        texts: item_id and text, one row per piece of writing; each piece counts once for a term.
        most: terms per item.
        fewest_items: a term must occur with this many items.

    Returns:
        item_id, terms (list of str: lower-case words and pairs of words). Items without any are absent.
    """
    words = _terms(texts)
    counts = words.group_by("item_id", "term").agg(pieces=pl.len(), pair=pl.first("pair"))
    counts = counts.with_columns(items=pl.len().over("term"))
    num_items = max(texts["item_id"].n_unique(), 1)
    ceiling = max(fewest_items, math.ceil(_LARGEST_SHARE * num_items))
    counts = counts.filter(pl.col("items").is_between(fewest_items, ceiling))
    # A pair says more than its words; the factor lets it win where both occur about equally often.
    score = (1 + pl.col("pieces").log()) * (num_items / pl.col("items")).log() * (1 + 0.3 * pl.col("pair"))
    # Said by one reviewer only, a term is weak evidence: it comes after all others.
    counts = counts.with_columns(score=score * pl.when(pl.col("pieces") > 1).then(1.0).otherwise(0.2))
    top = counts.sort("item_id", "score", "term", descending=[False, True, False])
    top = top.group_by("item_id", maintain_order=True).head(2 * most)
    parts = top.filter("pair").select("item_id", term=pl.col("term").str.split(" ")).explode("term")
    top = top.join(parts, on=["item_id", "term"], how="anti", maintain_order="left")
    return top.group_by("item_id", maintain_order=True).agg(terms=pl.col("term").head(most))


def _terms(texts: pl.DataFrame) -> pl.DataFrame:
    """Every term of every piece once: item_id, term, pair (whether it is two words)."""
    pieces = texts.with_row_index("piece").with_columns(
        token=pl.col("text").str.extract_all(r"[\p{L}][\p{L}'’-]*|[.!?,;:()]|\d+")
    )
    tokens = pieces.select("item_id", "piece", "token").explode("token").drop_nulls("token")
    tokens = tokens.with_columns(word=pl.col("token").str.to_lowercase().str.strip_chars("'’-"))
    known = tokens.select(pl.col("word").unique()).with_columns(
        usable=pl.col("word").str.contains(r"^[\p{L}-]{3,20}$")
        & ~pl.col("word").is_in(list(_IGNORED))
        & ~pl.col("word").str.contains(r"(ly|ing)$")
    )
    tokens = tokens.join(known, on="word", maintain_order="left")
    inside = pl.col("token").shift(1).over("piece").str.contains(r"^[\p{L}]").fill_null(False)
    capital = pl.col("token").str.contains(r"^\p{Lu}\p{Ll}") & inside
    # A word that is mostly capitalised inside sentences is a name: a brand or a product.
    proper = capital.sum().over("word") > 0.5 * inside.sum().over("word")
    tokens = tokens.with_columns(usable=pl.col("usable") & ~proper)
    tokens = tokens.with_columns(
        following=pl.when(pl.col("usable").shift(-1).over("piece")).then(pl.col("word").shift(-1).over("piece"))
    ).filter("usable")
    single = tokens.select("item_id", "piece", term="word", pair=pl.lit(False))
    pairs = tokens.filter(pl.col("following").is_not_null() & (pl.col("following") != pl.col("word"))).select(
        "item_id", "piece", term=pl.format("{} {}", "word", "following"), pair=pl.lit(True)
    )
    return pl.concat([single, pairs]).unique(["piece", "term"], maintain_order=True)
