"""From an item's metadata, or its reviews, to the text that is embedded and the aspects that people can ask for.

Some releases have reviews but no metadata. An item is then described by the terms (words and pairs of words) that its
reviewers use and other items' reviewers do not: TF-IDF, where the term frequency counts reviews, so that one long
review does not decide. Words of judgement ("great", "broke") and proper names are left out.
"""

from __future__ import annotations

import math
from dataclasses import replace

import polars as pl

from preference_benchmark.tables import Tables
from preference_benchmark.tables.outside_text import without_entities
from preference_benchmark.tables.stop_words import stop_words

__all__ = [
    "as_aspects",
    "clean_text",
    "item_terms",
    "shared_aspects",
    "term_counts",
]


# An attribute must be shared to be asked for, but not by nearly everything.
_FEWEST_ITEMS, _LARGEST_SHARE = 2, 0.6

_MOST_WORDS = 5  # longer phrases are descriptions

# Prices, delivery and what is left of web pages.
_NOT_OF_THE_ITEM = r"[$£€<>{}=\[\]]|https?:|^\d|shipping|deliver|price|refund|return"


def clean_text(name: str, text: pl.Expr | None = None) -> pl.Expr:
    """A column of text (or the expression) without HTML entities and tags, white space collapsed, nulls empty."""
    text = without_entities((pl.col(name) if text is None else text).fill_null(""))
    text = text.str.replace_all(r"<[^<>]{1,100}>", " ").str.replace_all(r"\s+", " ").str.strip_chars()
    return text.alias(name) if name else text


def as_aspects(phrases: pl.DataFrame, brand: str | None = None) -> pl.Series:
    """Lists of phrases as aspects: short, lower case, distinct, in their order.

    Args:
        phrases: a column `phrases` (list of str), and the brand column if any.
        brand: column whose value no aspect may contain.
    """
    rows = phrases.with_row_index("row")
    flat = rows.explode("phrases").drop_nulls("phrases")
    flat = flat.with_columns(phrases=pl.col("phrases").str.to_lowercase().str.strip_chars(" .,;:"))
    fits = (pl.col("phrases").str.count_matches(r"\S+").is_between(1, _MOST_WORDS)) & ~pl.col("phrases").str.contains(
        _NOT_OF_THE_ITEM
    )
    if brand is not None:
        name = pl.col(brand).fill_null("").str.to_lowercase()
        fits &= (name == "") | ~pl.col("phrases").str.contains(name, literal=True)
    flat = flat.filter(fits).unique(["row", "phrases"], maintain_order=True)
    lists = flat.group_by("row", maintain_order=True).agg(aspects="phrases")
    return rows.select("row").join(lists, on="row", how="left", maintain_order="left")["aspects"].fill_null([])


def shared_aspects(tables: Tables) -> Tables:
    """The tables with only those aspects that some, but not most, items of the catalogue have."""
    flat = tables.items.select("item_id", "aspects").explode("aspects").drop_nulls().unique(maintain_order=True)
    most = max(_FEWEST_ITEMS, _LARGEST_SHARE * tables.items.height)
    flat = flat.filter(pl.len().over("aspects").is_between(_FEWEST_ITEMS, most))
    lists = flat.group_by("item_id", maintain_order=True).agg("aspects")
    aspects = tables.items.select("item_id").join(lists, on="item_id", how="left", maintain_order="left")
    return replace(tables, items=tables.items.with_columns(aspects["aspects"].fill_null([])))


_FEWEST_ITEMS_OF_TERM = 3  # a term of fewer items says nothing about others
_LARGEST_SHARE_OF_TERM = 0.15  # a term of more of the items says nothing about this one
_PAIR_BONUS = 1.3  # a pair of words says more than either
_SINGLE_VOICE = 0.2  # what only one reviewer says comes after what several say
_AT_LEAST = 4  # this many terms are kept even if only one reviewer says them
_CHUNK = 50_000  # texts whose tokens are held as text at a time


def item_terms(counts: pl.DataFrame, most: int = 12, fewest_items: int = _FEWEST_ITEMS_OF_TERM) -> pl.DataFrame:
    """The most distinctive terms of every item, best first.

    Args:
        counts: what `term_counts` gives.
        most: terms per item.
        fewest_items: a term must occur with this many items.

    Returns:
        item_id, terms (list of str: lower-case words and pairs of words). Items without any are absent.
    """
    num_items = max(counts["item_id"].n_unique(), 1)
    ceiling = max(fewest_items, math.ceil(_LARGEST_SHARE_OF_TERM * num_items))
    counts = counts.filter(pl.col("items").is_between(fewest_items, ceiling))
    score = pl.col("pieces").sqrt() * (num_items / pl.col("items")).log()
    score *= pl.when(pl.col("pair")).then(_PAIR_BONUS).otherwise(1.0)
    score *= pl.when(pl.col("pieces") > 1).then(1.0).otherwise(_SINGLE_VOICE)
    counts = counts.with_columns(score=score)
    top = counts.sort("item_id", "score", "term", descending=[False, True, False])
    top = top.group_by("item_id", maintain_order=True).head(2 * most)
    parts = top.filter("pair").select("item_id", term=pl.col("term").str.split(" ")).explode("term")
    top = top.join(parts, on=["item_id", "term"], how="anti", maintain_order="left")
    place = pl.int_range(pl.len()).over("item_id")
    top = top.filter((place < most) & ((place < _AT_LEAST) | (pl.col("pieces") > 1)))
    return top.group_by("item_id", maintain_order=True).agg(terms="term")


def term_counts(texts: pl.DataFrame) -> pl.DataFrame:
    """How many pieces of writing about an item use a term, and how many items the term occurs with.

    Args:
        texts: item_id and text, one row per piece of writing; a piece counts once for a term.

    Returns:
        item_id, term, pair (whether it is two words), pieces, items. Terms of fewer than three items are absent.
    """
    pieces = texts.select("item_id", "text").with_row_index("piece")
    vocabulary, chunks = _tokens(pieces.select("piece", "text"))
    words = _words(vocabulary, chunks)
    usable = vocabulary["word"].is_in(words["word"].implode())
    items = pieces["item_id"].rank("dense")
    counts = pl.concat([_terms(chunk, vocabulary["word"], usable, items) for chunk in chunks])
    counts = counts.group_by("item", "word", "second").agg(pl.col("pieces").sum())
    item_ids = pieces.select(item=items, item_id="item_id").unique("item")
    counts = counts.join(item_ids, on="item").drop("item")
    counts = counts.with_columns(items=pl.len().over("word", "second")).filter(pl.col("items") >= _FEWEST_ITEMS_OF_TERM)
    counts = counts.join(words, on="word").join(
        words.rename({"word": "second", "text": "following"}), on="second", how="left"
    )
    term = pl.concat_str("text", "following", separator=" ", ignore_nulls=True)
    return counts.select("item_id", "pieces", "items", term=term, pair=pl.col("second").is_not_null())


def _tokens(pieces: pl.DataFrame) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Texts as numbered tokens, a chunk of texts at a time, so that tokens as text never fill the memory.

    Returns:
        The vocabulary, one row per token: word (number of its lower-case form), text (that form), letters and capital
        (whether it begins with a letter, and a capital one); and for every chunk piece and token (its row there).
    """
    spelled, parts = [], []
    for chunk in [*pieces.iter_slices(_CHUNK)] or [pieces]:
        tokens = chunk.select("piece", token=pl.col("text").str.extract_all(r"\p{L}[\p{L}'’-]*|[.!?,;:()]|\d+"))
        tokens = tokens.explode("token").drop_nulls("token")
        distinct = tokens["token"].unique()
        spelled.append(distinct)
        parts.append(tokens.with_columns(pl.col("token").cast(pl.Enum(distinct)).to_physical()))
    # Each distinct token is looked at once; from there on words are numbers.
    every = pl.concat(spelled).unique().sort().to_frame("token")
    vocabulary = every.select(
        text=pl.col("token").str.to_lowercase().str.strip_chars("'’-"),
        letters=pl.col("token").str.contains(r"^\p{L}"),
        capital=pl.col("token").str.contains(r"^\p{Lu}\p{Ll}"),
    ).with_columns(word=pl.col("text").rank("dense"))
    numbers = every.with_row_index("number")
    rows = (distinct.to_frame("token").join(numbers, on="token", maintain_order="left") for distinct in spelled)
    return vocabulary, [
        part.with_columns(row["number"].gather(part["token"]).alias("token"))
        for part, row in zip(parts, rows, strict=True)
    ]


def _words(vocabulary: pl.DataFrame, chunks: list[pl.DataFrame]) -> pl.DataFrame:
    """The words that describe rather than name or judge: word and text."""
    letters, capital = vocabulary["letters"], vocabulary["capital"]
    seen = [pl.DataFrame(schema={"token": pl.UInt32, "inside": pl.UInt32})]
    for chunk in chunks:
        # Tokens of one piece are adjacent, so a token's neighbours are found by shifting the whole column.
        inside = (chunk["piece"] == chunk["piece"].shift(1)) & letters.gather(chunk["token"]).shift(1)
        counted = chunk.select("token", inside=inside.fill_null(False)).group_by("token")
        seen.append(counted.agg(pl.col("inside").sum().cast(pl.UInt32)))
    counted = pl.concat(seen).group_by("token").agg(pl.col("inside").sum())
    counted = counted.with_columns(
        word=vocabulary["word"].gather(counted["token"]), capital=capital.gather(counted["token"])
    )
    names = counted.group_by("word").agg(inside=pl.col("inside").sum(), names=pl.col("inside").filter("capital").sum())
    words = vocabulary.select("word", "text").unique("word").join(names, on="word")
    describes = (
        pl.col("text").str.contains(r"^[\p{L}-]{3,20}$")
        & ~pl.col("text").str.contains(r"(ly|ing)$")
        & ~pl.col("text").is_in(list(stop_words()))
    )
    # A word that is mostly capitalised inside sentences is a name: a brand or a product.
    return words.filter(describes & (pl.col("names") <= 0.5 * pl.col("inside"))).select("word", "text")


def _terms(chunk: pl.DataFrame, words: pl.Series, usable: pl.Series, items: pl.Series) -> pl.DataFrame:
    """How many pieces of the chunk use each term: item, word, second (null for single words), pieces."""
    tokens = chunk.select("piece", word=words.gather(chunk["token"]), usable=usable.gather(chunk["token"]))
    follows = pl.col("usable").shift(-1) & (pl.col("piece") == pl.col("piece").shift(-1))
    follows &= pl.col("word") != pl.col("word").shift(-1)
    tokens = tokens.with_columns(second=pl.when(follows).then(pl.col("word").shift(-1))).filter("usable")
    pairs = tokens.select("piece", "word", "second").drop_nulls("second")
    terms = pl.concat([tokens.select("piece", "word", second=pl.lit(None, pl.UInt32)), pairs]).unique()
    terms = terms.with_columns(item=items.gather(terms["piece"]))
    return terms.group_by("item", "word", "second").agg(pieces=pl.len())
