"""What reviewers call things and how they describe them: nouns, adjectives and pairs, found by the words around them.

Some releases have reviews and nothing else. Which words of a review name something shows in the words beside them,
without a tagger: a noun closes a phrase that an article opens ("the bridge pickup ."), an adjective follows a degree
word or a form of "to be" and closes it ("very bright ,"). Verbs and pronouns do neither, however often they occur.
"""

from __future__ import annotations

import polars as pl

from preference_benchmark.preferences.grammar import in_plural
from preference_benchmark.preferences.words import no_aspects, plain
from preference_benchmark.tables.stop_words import ABSTRACT_NOUNS, HEADS

__all__ = ["describe_by_reviews"]

# Words are counted in this many reviews at most; more change nothing.
_REVIEWS = 100_000
_DETERMINERS = "a an the this that these those my your his her its our their some any another each every".split()
_POINTING = "this these".split()
_DEGREES = "very so too quite really pretty extremely super more as is are was were be feels looks sounds".split()
# What may follow a phrase that has ended: words that begin another.
_AFTER = frozenset(
    """
    is was are were be been has had have having will would can could should may might must do does did and or but if
    of for with without in on at to from by as that which who whose when while where so because than then it i you we
    they he she not into onto over under about after before until since also just only too very really seems makes
    made fits works sounds looks feels came comes goes arrived broke holds keeps lets helps gives
    """.split()
)
_MORE_HEADS = "bag board box clip light rack".split()  # alone they distinguish no item
_NO_NOUN, _NO_ADJECTIVE = r"(?:ed|ly|est)$", r"ly$|(?:^|[^l])ed$|[^r]er$"
_FEWEST_SEEN = 12
_NOUN_SHARE, _ADJECTIVE_SHARE = 0.13, 0.15
_FEWEST_ITEMS, _FEWEST_REVIEWS = 3, 5
_LARGEST_SHARE = 0.4
_LIFT = 4.0
_MOST = 6
# A pair says more than a word; what only one of many reviewers says is often accidental.
_PAIR_BONUS, _SINGLE_VOICE = 1.3, 0.3
# A kind ("this capo") has this many items, and follows "this" or "these" in this share of its mentions.
_FEWEST_OF_KIND, _POINTED_SHARE = 3, 0.05
# Share of "a" among the articles before a noun from which on it is countable.
_COUNTED_SHARE = 0.15
# Share of plural uses from which on a word is countable, and shown in the plural that people write.
_PLURAL_SHARE = 0.1


def describe_by_reviews(items: pl.DataFrame, reviews: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """Aspects and kind of every item, from what reviewers wrote about it.

    Args:
        items: item_id.
        reviews: item_id, review; of the training period.
        names: words in plain form that are names, see `Names`.

    Returns:
        item_id, aspects (list of str, most telling first, may be empty), adjectives and counted (lists of str: those
        of the aspects that describe, and the countable nouns), noun (str: what the item most likely is, in
        the plural, or null); in the order of the items.
    """
    tokens = _tokens(reviews.head(_REVIEWS))
    words = _words(tokens, names)
    phrases = _phrases(tokens, words, items.height)
    found = _of_items(phrases, reviews["item_id"].n_unique())
    best = found.filter(~pl.col("phrase").is_in(words.filter("head")["word"].implode()))
    best = best.sort("item_id", "score", "phrase", descending=[False, True, False])
    # What a pair says need not be said again by its words.
    parts = best.filter(pl.col("phrase").str.contains(" ")).select("item_id", phrase=pl.col("phrase").str.split(" "))
    best = best.join(parts.explode("phrase"), on=["item_id", "phrase"], how="anti", maintain_order="left")
    best = best.group_by("item_id", maintain_order=True).head(_MOST)
    best = best.join(_shown(best["phrase"].unique(), words), on="phrase", how="left", maintain_order="left")
    adjective = pl.col("phrase").is_in(words.filter(~pl.col("noun"))["word"].implode())
    counted = pl.col("phrase").str.extract(r"(\S+)$").is_in(words.filter("counted")["word"].implode())
    lists = best.group_by("item_id", maintain_order=True).agg(
        aspects="shown", adjectives=pl.col("shown").filter(adjective), counted=pl.col("shown").filter(counted)
    )
    described = items.select("item_id").join(lists, on="item_id", how="left", maintain_order="left")
    described = described.join(_kinds(found, words), on="item_id", how="left", maintain_order="left")
    return described.with_columns(pl.col("aspects", "adjectives", "counted").fill_null([]))


def _tokens(reviews: pl.DataFrame) -> pl.DataFrame:
    """Words of reviews in order, and what stands around them.

    Returns:
        review (number), item_id, word (plain), written (lower case), previous (the word before, plain), closes
        (whether a phrase ends with the word), opened and opened_before (whether an article or its like stands one or
        two words before), counted ("a" or "an" does), graded (whether a degree word stands before), pointed ("this" or
        "these" does).
    """
    text = pl.col("review").str.to_lowercase()
    rows = reviews.select("item_id", token=text.str.extract_all(r"\p{L}[\p{L}'’]*|[^\s\p{L}]"))
    rows = rows.with_row_index("review").explode("token").drop_nulls("token")
    distinct = rows.select(pl.col("token").unique(maintain_order=True))
    letters = pl.col("token").str.contains(r"^\p{L}{3,}$")
    distinct = distinct.with_columns(
        word=pl.when(letters).then(plain(pl.col("token")).str.strip_chars()),
        ends=pl.col("token").is_in(list(_AFTER)) | ~pl.col("token").str.contains(r"^\p{L}"),
        opens=pl.col("token").is_in(_DETERMINERS),
        one=pl.col("token").is_in(["a", "an"]),
        degree=pl.col("token").is_in(_DEGREES),
        pointing=pl.col("token").is_in(_POINTING),
    )
    rows = rows.join(distinct, on="token", how="left", maintain_order="left")
    same = (pl.col("review") == pl.col("review").shift(-1)).fill_null(False)
    one = (pl.col("review") == pl.col("review").shift(1)).fill_null(False)
    two = (pl.col("review") == pl.col("review").shift(2)).fill_null(False)
    return rows.select(
        "review",
        "item_id",
        "word",
        written="token",
        previous=pl.when(one).then(pl.col("word").shift(1)),
        closes=pl.when(same).then(pl.col("ends").shift(-1)).otherwise(True),
        opened=one & pl.col("opens").shift(1),
        opened_before=two & pl.col("opens").shift(2) & pl.col("word").shift(1).is_not_null(),
        counted=(one & pl.col("one").shift(1)) | (two & pl.col("one").shift(2) & pl.col("word").shift(1).is_not_null()),
        graded=one & pl.col("degree").shift(1),
        pointed=(one & pl.col("pointing").shift(1)) | (two & pl.col("pointing").shift(2)),
    ).drop_nulls("word")


def _words(tokens: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """Nouns and adjectives.

    Returns:
        word, noun (bool), counted (bool: whether it is a countable noun), head (bool: names something as the
        second of a pair only), pointed (share of mentions that "this" points at), written (as most often written),
        plural (as most often written with an s, or null).
    """
    closed = pl.col("closes") & (pl.col("opened") | pl.col("opened_before"))
    words = tokens.group_by("word").agg(
        count=pl.len(),
        names=closed.mean(),
        describes=(pl.col("closes") & pl.col("graded")).mean(),
        pointed=(pl.col("closes") & pl.col("pointed")).mean(),
        counted=(pl.col("closes") & pl.col("counted")).mean() / closed.mean(),
        written=pl.col("written").mode().sort().first(),
        plurals=(pl.col("written") != pl.col("word")).mean(),
        plural=pl.col("written").filter(pl.col("written") != pl.col("word")).mode().sort().first(),
    )
    form = plain(pl.col("word"))
    words = words.with_columns(
        head=pl.col("word").is_in([*HEADS, *_MORE_HEADS]),
        noun=(pl.col("names") >= _NOUN_SHARE)
        & (pl.col("names") >= pl.col("describes"))
        & ~pl.col("word").str.contains(_NO_NOUN),
        counted=(pl.col("counted") >= _COUNTED_SHARE) | (pl.col("plurals") >= _PLURAL_SHARE),
        adjective=(pl.col("describes") >= _ADJECTIVE_SHARE) & ~pl.col("word").str.contains(_NO_ADJECTIVE),
    )
    empty = (
        pl.col("word").is_in(list(ABSTRACT_NOUNS)) | form.is_in(no_aspects().implode()) | form.is_in(names.implode())
    )
    words = words.filter((pl.col("count") >= _FEWEST_SEEN) & (pl.col("noun") | pl.col("adjective")))
    words = words.filter(pl.col("head") | ~empty)
    plural = pl.when(pl.col("plurals") >= _PLURAL_SHARE).then("plural").otherwise(in_plural(pl.col("written")))
    return words.select("word", "noun", "counted", "head", "pointed", "written", plural=plural).sort("word")


def _phrases(tokens: pl.DataFrame, words: pl.DataFrame, num_items: int) -> pl.DataFrame:
    """Mentions of phrases: review, item_id, phrase; each phrase once per review."""
    known = tokens.join(words.select("word", "noun"), on="word", maintain_order="left")
    known = known.join(
        words.select(previous="word", previous_noun="noun"), on="previous", how="left", maintain_order="left"
    )
    paired = pl.col("previous_noun").is_not_null() & pl.col("noun") & (pl.col("previous") != pl.col("word"))
    single = known.select("review", "item_id", phrase="word")
    pairs = known.filter(paired).select("review", "item_id", "previous", "word")
    counts = single.group_by("phrase").len()
    lift = pairs.group_by("previous", "word").len("together")
    lift = lift.join(counts.rename({"phrase": "previous", "len": "first"}), on="previous")
    lift = lift.join(counts.rename({"phrase": "word", "len": "second"}), on="word")
    lift = lift.filter(pl.col("together") * tokens.height >= _LIFT * pl.col("first") * pl.col("second"))
    pairs = pairs.join(lift.select("previous", "word"), on=["previous", "word"], how="semi")
    pairs = pairs.select("review", "item_id", phrase=pl.concat_str("previous", "word", separator=" "))
    mentions = pl.concat([single, pairs]).unique()
    usable = mentions.group_by("phrase").agg(items=pl.col("item_id").n_unique(), reviews=pl.len())
    largest = max(_FEWEST_ITEMS, _LARGEST_SHARE * num_items)
    usable = usable.filter(pl.col("items").is_between(_FEWEST_ITEMS, largest) & (pl.col("reviews") >= _FEWEST_REVIEWS))
    return mentions.join(usable.select("phrase", "items"), on="phrase")


def _of_items(phrases: pl.DataFrame, num_items: int) -> pl.DataFrame:
    """How well phrases distinguish items: item_id, phrase, items, score."""
    scored = phrases.group_by("item_id", "phrase", "items").agg(reviews=pl.len())
    scored = scored.with_columns(most=pl.col("reviews").max().over("item_id"))
    alone = (pl.col("reviews") == 1) & (pl.col("most") > 1)
    bonus = pl.when(pl.col("phrase").str.contains(" ")).then(_PAIR_BONUS).otherwise(1.0)
    bonus *= pl.when(alone).then(_SINGLE_VOICE).otherwise(1.0)
    score = pl.col("reviews").sqrt() * (num_items / pl.col("items")).log() * bonus
    return scored.select("item_id", "phrase", "items", score=score.round(6))


def _shown(phrases: pl.Series, words: pl.DataFrame) -> pl.DataFrame:
    """Phrases as people write them, only the last word in the plural: phrase, shown."""
    parts = phrases.rename("phrase").to_frame().with_columns(word=pl.col("phrase").str.split(" ")).explode("word")
    parts = parts.join(words.select("word", "written"), on="word", how="left", maintain_order="left")
    last = pl.int_range(pl.len()).over("phrase") == pl.len().over("phrase") - 1
    # The plain form of "batteries" is not a word.
    shown = pl.when(last | pl.col("word").str.ends_with("ie")).then("written").otherwise("word")
    return parts.with_columns(shown=shown).group_by("phrase", maintain_order=True).agg(pl.col("shown").str.join(" "))


def _kinds(found: pl.DataFrame, words: pl.DataFrame) -> pl.DataFrame:
    """What items are: item_id, noun (plural)."""
    pointed = words.filter(pl.col("noun") & (pl.col("pointed") >= _POINTED_SHARE)).select("plural", head="word")
    kinds = found.with_columns(head=pl.col("phrase").str.split(" ").list.last())
    kinds = kinds.join(pointed, on="head").filter(pl.col("items") >= _FEWEST_OF_KIND)
    kinds = kinds.sort("item_id", "score", "phrase", descending=[False, True, False])
    kinds = kinds.unique("item_id", keep="first", maintain_order=True)
    before = pl.col("phrase").str.extract(r"^(.* )").fill_null("")
    return kinds.select("item_id", noun=pl.concat_str(before, "plural"))
