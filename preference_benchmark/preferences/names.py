"""Names that a preference may not contain: brands, products, model numbers.

Brands come from the items' own brand columns and, since many releases have none, from writing habits: a word that
people write with a capital letter in the middle of sentences is a name. Only the training period is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from preference_benchmark.preferences.words import plain
from preference_benchmark.tables import Tables

__all__ = ["Names"]

_BRAND_COLUMNS = ("brand", "manufacturer", "developer", "publisher", "store")
# A word that has a capital inside sentences this often, and in this share of its uses, is a name.
_FEWEST, _CAPITAL_SHARE = 5, 0.75
# Names that are not brands: preferences may contain them.
_NO_BRAND = frozenset(
    """
    i english french german spanish italian japanese chinese american european british african christmas easter
    halloween monday tuesday wednesday thursday friday saturday sunday january february march april may june july
    august september october november december usb midi led lcd dvd cd tv pc mac hd vr rpg fps xlr aux eq ac dc diy
    bluetooth wifi internet phillips wi fi blu hdmi i'm i've i'd i'll victorian celtic latin asian indian mexican greek
    turkish russian scandinavian nordic mediterranean gothic english-style
    """.split()
)
_MODEL_NUMBER = (
    r"(?:^|[^\p{L}\p{N}-])"
    r"(?:\p{Lu}{1,5}[- ]?\d{2,5}\p{Lu}{0,3}|\p{Lu}{2,5}-\d\p{Lu}{0,3}|\d{2,5}\p{Lu}{2,4}|\p{L}+\d{3,}\w*)"
    r"(?:$|[^\p{L}\p{N}-])"
)
# Measurements such as "12mm" are not model numbers.
_MEASURE = (
    r"(?i)\b\d+(?:[.,/]\d+)?[ -]?"
    r"(?:mm|cm|in|inch|inches|ft|feet|oz|ml|kg|lb|lbs|hz|khz|w|v|mah|gb|mb|tb|k|d|p)\b"
)
_SHORTEST_TITLE = 3
# Inside a sentence, a word with a capital letter is a name, unless people write it in lower case as well.
_OPENING = r"^\P{L}*[\p{L}\p{N}'’-]+"
_CAPITALISED = r"\p{Lu}[\p{L}'’]*\p{Ll}[\p{L}'’]*"
_FEWEST_IN_LOWER_CASE = 2


@dataclass(frozen=True)
class Names:
    """The names of a data set, in plain form (see `words.plain`).

    Attributes:
        brands: sorted.
        products: titles of three words and more, sorted.
        ordinary: words that reviews also write in lower case, in lower case.
    """

    brands: pl.Series
    products: pl.Series
    ordinary: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.String))

    @classmethod
    def of(cls, tables: Tables) -> Names:
        """Names from item columns, titles and reviews."""
        items = tables.items
        reviews = tables.training_period()["review"].rename("text")
        # Titles capitalise every word and say nothing about habits.
        habits = _habits(reviews)
        mined = habits.filter((pl.col("capital") >= _FEWEST) & (pl.col("share") >= _CAPITAL_SHARE))["word"]
        ordinary = habits.filter((pl.col("count") >= _FEWEST) & (pl.col("share") < _CAPITAL_SHARE))["word"]
        columns = [name for name in _BRAND_COLUMNS if items.schema.get(name) == pl.String]
        known = pl.concat([items[name].rename("word") for name in columns]) if columns else mined.head(0)
        known = known.drop_nulls().str.strip_chars().str.to_lowercase().unique()
        known = known.filter((known.str.len_chars() > 2) & ~known.is_in(ordinary.implode()))
        brands = pl.concat([known, mined]).unique()
        brands = brands.filter(~brands.is_in(list(_NO_BRAND)))
        own = ~items["title"].str.contains(",")  # a list of words is not a name
        titles = items["title"].filter(own & (items["title"].str.count_matches(r"\S+") >= _SHORTEST_TITLE))
        in_lower_case = habits.filter(pl.col("count") - pl.col("capital") >= _FEWEST_IN_LOWER_CASE)["word"]
        return cls(_plain(brands), _plain(titles), in_lower_case)

    def named(self, texts: pl.Series) -> pl.Series:
        """Which texts name a brand, a product or a model number: bool per text.

        >>> names = Names(pl.Series([" acme "]), pl.Series([" deep  red  lamp "]))
        >>> names.named(pl.Series(["Find Acme pens", "Find pens like the A-100", "Find red lamps", None])).to_list()
        [True, True, False, False]
        """
        text = texts.to_frame("text").with_columns(plain=plain(pl.col("text").fill_null("")))
        number = pl.col("text").fill_null("").str.replace_all(_MEASURE, "").str.contains(_MODEL_NUMBER)
        found = number
        for known in (self.brands, self.products):
            if len(known):
                found |= pl.col("plain").str.contains_any(known.implode())
        return text.select(found).to_series().rename(texts.name)

    def capitalised(self, texts: pl.Series) -> pl.Series:
        """Which texts have a name in them, by its capital letter: of people and places too. Bool per text.

        >>> names = Names(pl.Series([" acme "]), pl.Series([" deep  red  lamp "]), pl.Series(["warm"]))
        >>> names.capitalised(pl.Series(["Find D'Addario strings", "Find Warm USB lamps"])).to_list()
        [True, False]
        """
        inside = pl.col("text").fill_null("").str.replace(_OPENING, "").str.extract_all(_CAPITALISED)
        word = pl.element().str.to_lowercase().str.replace(r"['’]s$", "")
        known = pl.concat([self.ordinary, pl.Series(sorted(_NO_BRAND))])
        known = pl.concat([known, known + "s"]).unique()
        unknown = inside.list.eval(~word.is_in(known.implode())).list.any()
        return texts.to_frame("text").select(unknown).to_series().rename(texts.name)


def _plain(texts: pl.Series) -> pl.Series:
    forms = texts.to_frame("text").select(form=plain(pl.col("text")))["form"]
    return forms.filter(forms.str.strip_chars() != "").unique().sort()


def _habits(texts: pl.Series) -> pl.DataFrame:
    """How words are written inside sentences: word (lower case), count, capital, share (of capitals)."""
    tokens = texts.to_frame("text").select(token=pl.col("text").str.extract_all(r"\p{L}[\p{L}'’]*|[.!?:;()\"\n-]"))
    tokens = tokens.with_row_index("text").explode("token").drop_nulls("token")
    inside = (pl.col("text") == pl.col("text").shift(1)) & pl.col("token").shift(1).str.contains(r"^\p{Ll}")
    words = tokens.filter(inside & pl.col("token").str.contains(r"^\p{L}{2,}"))
    words = words.with_columns(
        word=pl.col("token").str.to_lowercase().str.replace(r"['’]s$", ""),
        capital=pl.col("token").str.contains(r"^\p{Lu}\p{Ll}"),
    )
    counts = words.group_by("word").agg(count=pl.len(), capital=pl.col("capital").sum())
    return counts.with_columns(share=pl.col("capital") / pl.col("count")).sort("word")
