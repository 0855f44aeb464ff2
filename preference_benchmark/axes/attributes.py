"""What wishes can name: the attributes of items, and spans of their texts in the place of attributes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from preference_benchmark.axes.protocol import Protocol
from preference_benchmark.embedding import describe_items
from preference_benchmark.preferences.grammar import grammatical_forms
from preference_benchmark.preferences.vocabulary import Vocabulary
from preference_benchmark.preferences.words import plain
from preference_benchmark.tables import Tables
from preference_benchmark.tables.stop_words import stop_words

__all__ = ["Attributes", "Lists", "random_of", "spans", "wish_attributes"]

# So many items with an attribute are not many, however small the catalogue is.
_NEVER_MANY = 5
# Words of a span at most; items whose texts spans are taken from; and characters of a span's first and last word at
# least.
_SPAN_WORDS, _SPAN_ITEMS, _SPAN_LETTERS = 3, 20_000, 3


@dataclass(frozen=True)
class Lists:
    """Lists of integers of different lengths, row by row.

    Attributes:
        values: all lists one after another.
        starts: where each list starts in them, and where the last one ends. Shape: (R + 1,).
    """

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, values: np.ndarray, count: int) -> Lists:
        """The values of each of `count` rows, sorted; `rows` says which row each value belongs to."""
        order = np.lexsort([values, rows])
        return cls(values[order], np.searchsorted(rows[order], np.arange(count + 1)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """How long each list is. Shape: (R,)."""
        return np.diff(self.starts)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random value of the list of each of these rows, -1 where it is empty. Shape: that of `rows`."""
        place = self.starts[rows] + (rng.random(len(rows)) * self.lengths[rows]).astype(np.int64)
        return np.where(self.lengths[rows] > 0, np.append(self.values, -1)[place], -1)

    def only(self, kept: np.ndarray) -> Lists:
        """The lists without the values for which `kept` is false."""
        rows, keep = np.repeat(np.arange(len(self)), self.lengths), kept[self.values]
        return Lists.of(rows[keep], self.values[keep], len(self))

    @cached_property
    def series(self) -> pl.Series:
        """The lists as a column."""
        flat = pl.DataFrame({"row": np.repeat(np.arange(len(self)), self.lengths), "value": self.values})
        lists = flat.group_by("row").agg("value")
        every = pl.DataFrame({"row": np.arange(len(self))}).join(lists, on="row", how="left", maintain_order="left")
        return every["value"].fill_null([])


@dataclass(frozen=True)
class Attributes:
    """What wishes can name, and which items have it.

    Attributes:
        phrases: A distinct phrases, sorted.
        forms: the grammatical form of each.
        withheld: whether training wishes must not name it. Shape: (A,), bool.
        items: the item indices of each attribute.
        of_items: the attributes of each item.
    """

    phrases: pl.Series
    forms: pl.Series
    withheld: np.ndarray
    items: Lists
    of_items: Lists

    def __len__(self) -> int:
        return len(self.phrases)

    @cached_property
    def words(self) -> pl.Series:
        """Each phrase as it is looked for in texts, see `plain`."""
        return self.phrases.to_frame("phrase").select(form=plain(pl.col("phrase")))["form"]

    @cached_property
    def known_of_items(self) -> Lists:
        """The attributes of each item that training wishes may name."""
        return self.of_items.only(~self.withheld)

    def overlap(self, left: pl.Series, right: pl.Series) -> pl.Series:
        """Of pairs of attributes, whether the words of one contain those of the other."""
        pair = pl.DataFrame({"left": self.words.gather(left), "right": self.words.gather(right)})
        one, other = pl.col("left"), pl.col("right")
        found = one.str.contains(other, literal=True) | other.str.contains(one, literal=True)
        return pair.select(overlap=found)["overlap"]

    def withheld_in(self, texts: pl.Series) -> pl.Series:
        """Whether each text holds the words of a withheld attribute."""
        words = self.words.filter(pl.Series(self.withheld))
        return texts.to_frame("text").select(named=plain(pl.col("text")).str.contains_any(words.implode()))["named"]

    def only_named_in(self, texts: pl.Series, named: pl.Series) -> pl.Series:
        """Whether each text names no attribute but those of its list, and those inside their words."""
        found = texts.to_frame("text").select(
            pl.int_range(pl.len()).alias("wish"),
            form=plain(pl.col("text")).str.extract_many(self.words.implode(), overlapping=True),
        )
        own = pl.DataFrame({"wish": np.arange(len(named)), "own": named}).explode("own")
        own = own.with_columns(own=self.words.gather(own["own"]))
        pairs = found.explode("form").drop_nulls().join(own, on="wish")
        inside = pairs.select("wish", "form", inside=pl.col("own").str.contains(pl.col("form"), literal=True))
        strange = inside.group_by("wish", "form").agg(pl.col("inside").any()).filter(~pl.col("inside"))["wish"]
        return ~found["wish"].is_in(strange.implode())


def wish_attributes(tables: Tables, protocol: Protocol) -> Attributes:
    """The attributes that wishes are made of.

    Those that fewer than `Protocol.attribute_items` items have, or more than `Protocol.attribute_share` of the
    catalogue (and more than five items), are left out. The share `Protocol.withheld` of them is withheld from
    training: the first ones of a random order in which no attribute stands behind one that contains its words
    ("strategy" behind "grand strategy").
    """
    vocabulary = Vocabulary.of(tables)
    index = tables.items.select("item_id", item=pl.int_range(pl.len(), dtype=pl.Int32))
    pairs = vocabulary.of_items.join(index, on="item_id").select("item", "aspect").unique().sort(pl.all())
    item, aspect = pairs["item"].to_numpy(), pairs["aspect"].to_numpy()
    having = np.bincount(aspect, minlength=len(vocabulary.aspects))
    most = max(protocol.attribute_items, _NEVER_MANY, int(protocol.attribute_share * tables.items.height))
    chosen = np.flatnonzero((having >= protocol.attribute_items) & (having <= most))
    number = np.full(len(vocabulary.aspects), -1)
    number[chosen] = np.arange(len(chosen))
    item, attribute = item[number[aspect] >= 0], number[aspect][number[aspect] >= 0]
    phrases = vocabulary.aspects.gather(chosen)
    return Attributes(
        phrases=phrases,
        forms=vocabulary.forms.gather(chosen),
        withheld=_withheld(phrases, protocol),
        items=Lists.of(attribute, item, len(chosen)),
        of_items=Lists.of(item, attribute, tables.items.height),
    )


def _withheld(phrases: pl.Series, protocol: Protocol) -> np.ndarray:
    """Which attributes are withheld; with each, all that contain its words. Shape: (A,), bool."""
    if phrases.is_empty() or not protocol.withheld:
        return np.zeros(len(phrases), dtype=bool)
    order = random_of(protocol, "withheld").permutation(len(phrases))
    frame = phrases.to_frame("phrase").select(form=plain(pl.col("phrase")), order=order)
    inside = frame.select("form", inside=pl.col("form").str.extract_many(frame["form"].implode(), overlapping=True))
    inside = inside.explode("inside").join(frame.rename({"form": "inside"}), on="inside")
    first = inside.group_by("form").agg(pl.min("order"))
    first = frame.select("form").join(first, on="form", how="left", maintain_order="left")["order"].to_numpy()
    return first <= np.sort(first)[max(round(protocol.withheld * len(first)), 1) - 1]


def spans(
    tables: Tables, attributes: Attributes, count: int, protocol: Protocol, rng: np.random.Generator
) -> Attributes:
    """Spans of the items' texts and the items that say them; at most `count`, in the place of attributes.

    A span lies between two punctuation marks, begins and ends with a word that is not a stop word, holds no withheld
    attribute, and is said by at most `Protocol.attribute_share` of the items (or by five).
    """
    texts = pl.DataFrame(
        {"title": tables.items["title"], "text": describe_items(tables.items, protocol.described_by)}
    ).select(text=pl.concat_str("title", pl.lit(". "), "text", ignore_nulls=True))
    shown = texts[np.sort(rng.permutation(texts.height)[:_SPAN_ITEMS])]
    words = shown.select(part=pl.col("text").str.replace_all(r"[^\p{L}\p{N}\s'&-]+", "\n").str.split("\n"))
    words = words.explode("part").with_row_index("part_of")
    words = words.select(
        "part_of",
        word=pl.col("part").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}](?:[\p{L}\p{N}'&-]*[\p{L}\p{N}])?"),
    ).explode("word")
    words = words.drop_nulls("word").with_columns(
        telling=~pl.col("word").is_in(sorted(stop_words()))
        & (pl.col("word").str.len_chars() >= _SPAN_LETTERS)
        & pl.col("word").str.contains(r"\p{L}")
    )
    parts = []
    for length in range(1, _SPAN_WORDS + 1):
        last = length - 1
        inside = pl.col("part_of") == pl.col("part_of").shift(-last)
        span = pl.concat_str([pl.col("word").shift(-place) for place in range(length)], separator=" ")
        parts.append(words.select(phrase=span, kept=inside & pl.col("telling") & pl.col("telling").shift(-last)))
    found = pl.concat(parts).filter("kept").select("phrase", form=plain(pl.col("phrase")))
    found = found.group_by("form").agg(pl.col("phrase").mode().sort().first()).sort("form")
    found = found.filter(~attributes.withheld_in(found["phrase"]))
    # More than are needed: those that too many items say are known only once all texts have been searched.
    found = found[np.sort(rng.permutation(found.height)[: 2 * count])]
    said = texts.select(
        item=pl.int_range(pl.len()),
        form=plain(pl.col("text")).str.extract_many(found["form"].implode(), overlapping=True),
    )
    said = said.explode("form").drop_nulls().unique()
    most = max(_NEVER_MANY, int(protocol.attribute_share * tables.items.height))
    few = said.group_by("form").agg(items=pl.len()).filter(pl.col("items") <= most)
    found = found.join(few, on="form", how="semi", maintain_order="left")
    found = found[np.sort(rng.permutation(found.height)[:count])].with_row_index("span")
    said = said.join(found.select("form", "span"), on="form").sort("span", "item")
    span, item = said["span"].to_numpy().astype(np.int64), said["item"].to_numpy()
    return Attributes(
        phrases=found["phrase"],
        forms=grammatical_forms(found["phrase"], pl.Series(np.zeros(found.height, dtype=bool))),
        withheld=np.zeros(found.height, dtype=bool),
        items=Lists.of(span, item, found.height),
        of_items=Lists.of(item, span, tables.items.height),
    )


def random_of(protocol: Protocol, *names: str) -> np.random.Generator:
    """A generator of its own for what is drawn under these names."""
    return np.random.default_rng([protocol.seed, *(zlib.crc32(name.encode()) for name in names)])
