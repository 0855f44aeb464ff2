"""The aspects of a data set: which items have them, and how text mentions them.

Text and aspects are compared word by word in a plain form: lower case, no punctuation, no plural s. Words are
set apart by two blanks, so that a phrase with one blank at either end matches whole words only, and phrases
that stand side by side do not share a blank.

Where items have no aspects, they are words and pairs of words that recur in titles. The first part of a title, up to
the first punctuation mark, starts with the brand, ends with the kind of thing ("argan oil shampoo"), and describes it
in between. So recurring terms become the item's aspects, the last term of the first part also its kind, and words that
mostly start titles are left out as names.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl

from preference_benchmark.preferences.grammar import MASS_NOUNS, grammatical_forms, in_plural, is_plural
from preference_benchmark.preferences.names import Names
from preference_benchmark.preferences.noun_phrases import describe_by_reviews
from preference_benchmark.preferences.words import no_aspects, plain
from preference_benchmark.tables import Tables
from preference_benchmark.tables.outside_text import broken_rule, cleaned

__all__ = [
    "Vocabulary",
    "mine_aspects",
]


_MOST = 12
_FEWEST_ITEMS, _FEWEST_OF_KIND = 3, 8
_LARGEST_SHARE = 0.4
# Share of the titles with a word in which it stands where the kind does: few things are "metal", many are of metal.
_KIND_SHARE = 0.2
_NAME_SHARE = 0.5
# Where the part of a title ends that says what the thing is.
_PART_END = r"(?i),|;|:|\(| [-–—|/] | (?:with|for|in|of|from|by|and|set|pack)\b"
# Share of plural uses from which on a word is a countable noun.
_PLURAL_SHARE = 0.1
_MEASURES = "count counts inch inches pack packs piece pieces set sets size dozen per box ream case".split()
# A pair must be this many times commoner than its words would be side by side by chance.
_LIFT = 8.0


def mine_aspects(items: pl.DataFrame) -> pl.DataFrame:
    """Aspects and kind of every item, from its title.

    Args:
        items: item_id, title.

    Returns:
        item_id, aspects and counted (lists of str, may be empty: all, and the countable nouns among them),
        noun (str: what the item most likely is, in the plural, or null), in the order of the items.
    """
    words = _words(items)
    terms = _terms(words, items.height)
    ordered = terms.sort(pl.col("form").str.len_chars(), "form", descending=[True, False])
    found = _found(items, pl.col("title"), ordered)
    opening = pl.col("title").str.replace_all(_PART_END, "\n").str.split("\n").list.first()
    form = grammatical_forms(terms["phrase"])
    kinds = terms.filter((terms["items"] >= _FEWEST_OF_KIND) & (form != "adjective"))
    last = _found(items, opening, ordered).group_by("item_id").agg(pl.col("form", "phrase").last())
    last = last.join(kinds.select("form", "items"), on="form")
    last = last.filter(pl.len().over("form") >= _KIND_SHARE * pl.col("items"))
    last = last.select("item_id", noun=in_plural(pl.col("phrase")))
    described = found.group_by("item_id", maintain_order=True).agg(
        aspects=pl.col("phrase").unique(maintain_order=True).tail(_MOST),
        counted=pl.col("phrase").filter("counted").unique(maintain_order=True),
    )
    described = described.join(last, on="item_id", how="left", maintain_order="left")
    described = items.select("item_id").join(described, on="item_id", how="left", maintain_order="left")
    return described.with_columns(pl.col("aspects", "counted").fill_null([]))


def _found(items: pl.DataFrame, text: pl.Expr, terms: pl.DataFrame) -> pl.DataFrame:
    """Terms in a text of each item, in their order, the longest where several match: item_id, form, phrase, counted."""
    found = items.select("item_id", form=plain(text).str.extract_many(terms["form"].implode(), leftmost=True))
    return found.explode("form").join(terms.select("form", "phrase", "counted"), on="form", maintain_order="left")


def _terms(words: pl.DataFrame, num_items: int) -> pl.DataFrame:
    """Recurring terms: form (plain), phrase (as most often written), items (how many have it), counted."""
    recurring = pl.col("items").is_between(_FEWEST_ITEMS, max(_FEWEST_ITEMS, _LARGEST_SHARE * num_items))
    single = (
        words.group_by("word")
        .agg(
            count=pl.len(),
            items=pl.col("item_id").n_unique(),
            phrase=pl.col("lower").mode().sort().first(),
            opening=(pl.col("position") == 0).mean(),
            counted=(pl.col("lower") != pl.col("word")).mean() >= _PLURAL_SHARE,
        )
        .filter(pl.col("word").str.contains(r"^\p{L}{3,}$") & (pl.col("opening") <= _NAME_SHARE))
        .filter(~plain(pl.col("word")).is_in(no_aspects().implode()) & ~pl.col("phrase").is_in(_MEASURES))
    )
    pairs = (
        words.with_columns(before=pl.col("word").shift(1), lower_before=pl.col("lower").shift(1))
        .filter((pl.col("position") > 0) & pl.col("joined"))
        .join(single.select(before="word", count_before="count"), on="before")
        .join(single.select("word", "count", "counted"), on="word")
        .filter(pl.col("before") != pl.col("word"))
        .group_by("before", "word")
        .agg(
            items=pl.col("item_id").n_unique(),
            counted=pl.col("counted").first(),
            phrase=pl.concat_str("lower_before", "lower", separator=" ").mode().sort().first(),
            lift=pl.len() * words.height / (pl.col("count_before").first() * pl.col("count").first()),
        )
        .filter(pl.col("lift") >= _LIFT)
    )
    columns = ("phrase", "items", "counted")
    both = pl.concat([pairs.select(columns), single.select(columns)]).filter(recurring)
    both = both.with_columns(form=plain(pl.col("phrase"))).sort("items", "phrase", descending=[True, False])
    return both.unique("form", keep="first", maintain_order=True)


def _words(items: pl.DataFrame) -> pl.DataFrame:
    """Words of titles in order.

    Returns:
        item_id, position, lower (as written, lower case), word (plain), joined (whether no punctuation mark
        precedes it).
    """
    text = pl.col("title").str.to_lowercase().str.replace_all(r"&#?\w+;", " ")
    lower = text.str.extract_all(r"\p{L}[\p{L}\p{N}]*|\d+|[^\s\p{L}\p{N}'’&-]")
    words = items.select("item_id", lower=lower).explode("lower").drop_nulls("lower")
    letters = pl.col("lower").str.contains(r"^[\p{L}\p{N}]")
    words = words.with_columns(joined=letters.shift(1, fill_value=False)).filter(letters)
    return words.with_columns(
        position=pl.int_range(pl.len()).over("item_id"), word=plain(pl.col("lower")).str.strip_chars()
    )


# What one item is called, by source column; the first that a source has is used.
_NOUN_COLUMNS = ("department", "kind")
# Below this share of items with aspects they are mined from text instead.
_ENOUGH = 0.5
# An aspect of this many items gets half the weight that its rarity gives.
_ACCIDENTAL = 3.0
_SINGLE_WORD = r"^[^\s]*([^s\s]|ss|us)$"
# Shops phrase aspects as facts ("Includes level editor", "Captions available") and put their own name before them.
_TRIMMED = r"^(?:includes|steam|valve)\s+|\s+(?:available|enabled)$"
_ABOUT_PRICE = ("free to play", "in-app purchases")


@dataclass(frozen=True)
class Vocabulary:
    """Aspects and nouns of a data set, as positions in sorted lists.

    Attributes:
        aspects: A distinct phrases, sorted.
        weight: how informative each aspect is; higher for those that fewer items have. Shape: (A,).
        forms: the grammatical form of each aspect, one of `grammar.FORMS`. Length: A.
        before_noun: whether an aspect that is a noun may stand before what it describes ("beeswax candles") rather
            than behind it ("straps with a button"). Shape: (A,), bool.
        of_items: item_id, aspect (position); one row per item and aspect.
        nouns: M words for kinds of items, sorted.
        noun_of_items: item_id, noun (position); at most one row per item.
        noun: what items of this data set are called in general.
        noun_of_aspect: the noun that an aspect is ("guitar strap" is "guitar straps"), -1 where it is none. Shape:
            (A,).
        noun_head: number of each noun's last word; nouns that share it are kinds of one thing. Shape: (M,).
        noun_words: how many words each noun has. Shape: (M,).
    """

    aspects: pl.Series
    weight: np.ndarray
    forms: pl.Series
    before_noun: np.ndarray
    of_items: pl.DataFrame
    nouns: pl.Series
    noun_of_items: pl.DataFrame
    noun: str
    noun_of_aspect: np.ndarray
    noun_head: np.ndarray
    noun_words: np.ndarray

    @classmethod
    def of(cls, tables: Tables) -> Vocabulary:
        """The vocabulary of a data set.

        Aspects are the items' own. Where these were only words of reviewers, they are phrases that reviews of the
        training period call things by; where items have hardly any, they are mined from titles. It is found once and
        kept as long as the tables are.
        """
        if tables not in _FOUND:
            _FOUND[tables] = cls._of(tables)
        return _FOUND[tables]

    @classmethod
    def _of(cls, tables: Tables) -> Vocabulary:
        items = tables.items
        having = items.filter(pl.col("aspects").list.len() > 0).height
        adjectives = pl.Series(dtype=pl.String)
        before = _SINGLE_WORD
        if tables.aspects_from == "reviews":
            reviews = tables.training_period().select("item_id", "review")
            described = describe_by_reviews(items, reviews, Names.of(tables).brands)
            adjectives = described["adjectives"].explode().drop_nulls()
            before = "^$"
        elif tables.aspects_from == "titles" or having < _ENOUGH * items.height:
            described = mine_aspects(items)
        else:
            columns = [name for name in _NOUN_COLUMNS if items.schema.get(name) == pl.String]
            noun = _in_the_plural(pl.col(columns[0])) if columns else pl.lit(None, dtype=pl.String)
            described = items.select("item_id", "aspects", noun=noun)
            described = described.with_columns(_fit_for_sentences(described["noun"]))
        of_items, phrases = _numbered(described)
        having = np.bincount(of_items["aspect"].to_numpy(), minlength=len(phrases))
        noun_of_items, nouns = _places(described.filter(pl.col("noun") != ""), "noun")
        noun_of_aspect = _same(phrases, nouns)
        forms = grammatical_forms(phrases, pl.Series(noun_of_aspect >= 0))
        counted = described["counted"].explode().drop_nulls() if "counted" in described.columns else adjectives
        by_lists = pl.col("form").is_in(["mass", "count"])  # what people write shows better which of these it is
        mass = pl.col("phrase").str.extract(r"(\S+)$").is_in(list(MASS_NOUNS))
        countable = pl.col("phrase").is_in(counted.implode()) & ~is_plural(pl.col("phrase")) & ~mass
        form = pl.when(pl.col("phrase").is_in(adjectives.implode()) & by_lists).then(pl.lit("adjective"))
        form = form.when(countable & by_lists).then(pl.lit("count"))
        form = form.when(mass & (pl.col("form") == "kind")).then(pl.lit("mass")).otherwise("form")
        forms = pl.DataFrame({"phrase": phrases, "form": forms}).select(form=form)["form"]
        return cls(
            aspects=phrases,
            weight=_informative(having, items.height),
            forms=forms,
            before_noun=phrases.str.contains(before).to_numpy(),
            of_items=of_items,
            nouns=nouns,
            noun_of_items=noun_of_items.select("item_id", "noun"),
            noun=tables.noun,
            noun_of_aspect=noun_of_aspect,
            noun_head=_plain_words(nouns).list.last().rank("dense").fill_null(0).to_numpy().astype(np.int64),
            noun_words=_plain_words(nouns).list.len().to_numpy().astype(np.int64),
        )

    def patterns(self) -> pl.DataFrame:
        """Aspects in plain form, longest first, each form once: pattern, aspect (position)."""
        frame = self.aspects.to_frame("text").with_row_index("aspect").with_columns(pattern=plain(pl.col("text")))
        length = pl.col("pattern").str.len_chars()
        return frame.sort(length, "text", descending=[True, False]).select("pattern", "aspect")


# What is written, checked and measured of one data set starts from the same vocabulary.
_FOUND: WeakKeyDictionary[Tables, Vocabulary] = WeakKeyDictionary()


def _numbered(described: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """Item and aspect pairs with the aspects numbered: item_id, aspect; and the aspects, sorted.

    Aspects that differ in number or punctuation only are one, written as most items write it.
    """
    pairs = described.select("item_id", phrase="aspects").explode("phrase")
    phrase = pl.col("phrase").str.strip_chars().str.to_lowercase().str.replace_all(_TRIMMED, "")
    pairs = pairs.with_columns(_fit_for_sentences(pairs.select(phrase)["phrase"])).drop_nulls("phrase")
    pairs = pairs.filter(~pl.col("phrase").is_in(["", *_ABOUT_PRICE]))
    pairs = pairs.with_columns(form=plain(pl.col("phrase"))).filter(~pl.col("form").is_in(no_aspects().implode()))
    written = pairs.group_by("form", "phrase").len().sort("len", "phrase", descending=[True, False])
    written = written.unique("form", keep="first", maintain_order=True).select("form", "phrase")
    pairs = pairs.select("item_id", "form").unique().join(written, on="form")
    numbered, phrases = _places(pairs, "phrase")
    return numbered.select("item_id", aspect="phrase").sort("item_id", "aspect"), phrases


def _fit_for_sentences(phrases: pl.Series) -> pl.Series:
    """Phrases of other people as a sentence may hold them, null where it may not; any script will do."""
    name = phrases.name
    distinct = phrases.drop_nulls().unique().to_frame(name).with_columns(shown=cleaned(pl.col(name)))
    distinct, broken = distinct.with_columns(broken=broken_rule(pl.col("shown"))), pl.col("broken")
    kept = distinct.filter((broken.is_null() | (broken == "unusual characters")) & (pl.col("shown") != ""))
    return phrases.to_frame().join(kept, on=name, how="left", maintain_order="left")["shown"].rename(name)


def _places(frame: pl.DataFrame, column: str) -> tuple[pl.DataFrame, pl.Series]:
    """The frame with a column of strings replaced by positions, and the distinct strings, sorted."""
    distinct = frame[column].drop_nulls().unique().sort()
    places = distinct.to_frame(column).with_row_index("place")
    return frame.join(places, on=column).with_columns(pl.col("place").alias(column)).drop("place"), distinct


def _plain_words(texts: pl.Series) -> pl.Series:
    """Words of each text in plain form."""
    form = plain(pl.col("text")).str.strip_chars().str.split("  ")
    return texts.rename("text").to_frame().select(form.alias("words"))["words"]


def _same(words: pl.Series, others: pl.Series) -> np.ndarray:
    """Position of each word among the others, -1 where it is not there; "cable" and "cables" are the same word."""
    places = pl.DataFrame({"word": others, "place": np.arange(len(others))})
    places = places.with_columns(word=plain(pl.col("word"))).unique("word", keep="first", maintain_order=True)
    asked = words.rename("word").to_frame().with_columns(word=plain(pl.col("word")))
    found = asked.join(places, on="word", how="left", maintain_order="left")["place"]
    return found.fill_null(-1).to_numpy().astype(np.int64)


def _informative(having: np.ndarray, num_items: int) -> np.ndarray:
    """Log of the inverse share of items with an aspect, less where hardly any have it, which is often accidental."""
    return np.log((num_items + 1) / (having + 0.5)) * having / (having + _ACCIDENTAL)


def _in_the_plural(noun: pl.Expr) -> pl.Expr:
    """A noun in the plural; departments in the singular become "kitchen products"."""
    noun = noun.str.to_lowercase()
    return pl.when(noun.str.ends_with("s")).then(noun).otherwise(pl.concat_str([noun, pl.lit(" products")]))
