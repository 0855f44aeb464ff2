"""Aspects for data sets whose items have none: words and word pairs that recur in the items' titles.

A title ends with what the thing is ("argan oil shampoo"), opens with who made it, and says in between what tells
it from others. So recurring terms become the item's aspects, the last of them its kind as well, and words that mostly
open titles are left out as names.
"""

from __future__ import annotations

import polars as pl

from preference_benchmark.preferences.words import no_aspects, plain

__all__ = ["mine_aspects"]

_MOST = 6
_FEWEST_ITEMS, _FEWEST_OF_KIND = 3, 8
_LARGEST_SHARE = 0.4
_NAME_SHARE = 0.5
# A pair must be this many times commoner than its words would be side by side by chance.
_LIFT = 8.0


def mine_aspects(items: pl.DataFrame) -> pl.DataFrame:
    """Aspects and kind of every item, from its title.

    Args:
        items: item_id, title.

    Returns:
        item_id, aspects (list of str, may be empty), noun (str: what the item most likely is, or null), in the
        order of the items.
    """
    words = _words(items)
    terms = _terms(words, items.height)
    ordered = terms.sort(pl.col("form").str.len_chars(), "form", descending=[True, False])
    found = items.select(
        "item_id", form=plain(pl.col("title")).str.extract_many(ordered["form"].implode(), leftmost=True)
    )
    found = found.explode("form").join(terms, on="form", maintain_order="left")
    found = found.with_columns(last=pl.int_range(pl.len()).over("item_id") == pl.len().over("item_id") - 1)
    kind = pl.col("last") & (pl.col("items") >= _FEWEST_OF_KIND)
    described = found.group_by("item_id", maintain_order=True).agg(
        aspects=pl.col("phrase").unique(maintain_order=True).tail(_MOST),
        noun=pl.col("phrase").filter(kind).last(),
    )
    described = items.select("item_id").join(described, on="item_id", how="left", maintain_order="left")
    return described.with_columns(pl.col("aspects").fill_null([]))


def _terms(words: pl.DataFrame, num_items: int) -> pl.DataFrame:
    """Recurring terms: form (plain), phrase (as most often written), items (how many have it)."""
    recurring = pl.col("items").is_between(_FEWEST_ITEMS, max(_FEWEST_ITEMS, _LARGEST_SHARE * num_items))
    single = (
        words.group_by("word")
        .agg(
            count=pl.len(),
            items=pl.col("item_id").n_unique(),
            phrase=pl.col("lower").mode().sort().first(),
            opening=(pl.col("position") == 0).mean(),
        )
        .filter(pl.col("word").str.contains(r"^\p{L}{3,}$") & (pl.col("opening") <= _NAME_SHARE))
        .filter(~plain(pl.col("word")).is_in(no_aspects().implode()))
    )
    pairs = (
        words.with_columns(before=pl.col("word").shift(1), lower_before=pl.col("lower").shift(1))
        .filter(pl.col("position") > 0)
        .join(single.select(before="word", count_before="count"), on="before")
        .join(single.select("word", "count"), on="word")
        .filter(pl.col("before") != pl.col("word"))
        .group_by("before", "word")
        .agg(
            items=pl.col("item_id").n_unique(),
            phrase=pl.concat_str("lower_before", "lower", separator=" ").mode().sort().first(),
            lift=pl.len() * words.height / (pl.col("count_before").first() * pl.col("count").first()),
        )
        .filter(pl.col("lift") >= _LIFT)
    )
    both = pl.concat([pairs.select("phrase", "items"), single.select("phrase", "items")]).filter(recurring)
    both = both.with_columns(form=plain(pl.col("phrase"))).sort("items", "phrase", descending=[True, False])
    return both.unique("form", keep="first", maintain_order=True)


def _words(items: pl.DataFrame) -> pl.DataFrame:
    """Words of titles in order: item_id, position, lower (as written, lower case), word (plain)."""
    lower = pl.col("title").str.to_lowercase().str.extract_all(r"\p{L}[\p{L}\p{N}]*|\d+")
    words = items.select("item_id", lower=lower).explode("lower").drop_nulls("lower")
    return words.with_columns(
        position=pl.int_range(pl.len()).over("item_id"), word=plain(pl.col("lower")).str.strip_chars()
    )
