"""What a well-formed entry has to mean before it counts as a preference.

A small model writes sentences of the right form that say nothing, that belong to the prompt's examples, that want what
the customer rated badly, or that are about things which neither the review nor the item mentions. Each of these is
rejected under its own name. Words are compared by their first five letters, which joins "dries" with "dry" badly and
"durable" with "durability" well; an entry has to share a third of its words with what was asked about, so that a model
may put a review into words of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from preference_benchmark.preferences.llm.prompts import UNWANTED, WISHED
from preference_benchmark.preferences.polarity import POSITIVE, preference_polarity
from preference_benchmark.preferences.words import plain
from preference_benchmark.tables.stop_words import FUNCTION_WORDS, stop_words

__all__ = ["MEANING_RULES", "judged_entries"]

MEANING_RULES = (
    "no answer",
    "unfinished",
    "contradicts the rating",
    "says nothing",
    "close to an example",
    "not in review or item",
    "nothing of the review",
)

# Sentences about the task: the reviews, the customer, what is known of them.
_NO_ANSWER = (
    r"(?i)^(?:no|not|none|without|there (?:is|are|were) no|i (?:need|want) more|cannot|can't|unable)\b.{0,60}"
    r"\b(?:reviews?|preferences?|information|(?:dis)?likes|data|context|mentioned|inferred|determined|provided|specified"
    r"|stated|expressed)\b"
    r"|\b(?:the|this|these|that|my|your|customers?'?s?|users?'?s?) (?:customers?'?s? |users?'?s? |product )?"
    r"(?:reviews?|reviewers?|ratings?|customers?|preferences?|instructions?)\b"
    r"|\b(?:i am|i'm) (?:sorry|unable|not sure)\b|\bi (?:cannot|can't|could not)\b"
    r"|^(?:find|search for|look for|avoid) (?:out|the answer|more information|an? (?:answer|instruction|review))\b"
    r"|\b(?:search|short) instructions?\b"
)
_UNFINISHED = (
    "a an the and or but with without of for to that which in on at by from is are be was has have will would can not "
    "as than very too so its their"
).split()
_STEM = 5
_GROUNDED, _BORROWED = 1 / 3, 0.5
_KEYS = ["user_id", "step"]


def judged_entries(entries: pl.DataFrame, windows: pl.DataFrame, examples: Sequence[str] = ()) -> pl.DataFrame:
    """Entries that kept all rules of form, with the rule of meaning that each breaks, if any.

    Args:
        entries: user_id, step, text, rejected, cut (whether the line had to end before it was finished) and any other
            columns, as `checked_entries` gives them.
        windows: user_id, step, window, opening, review: what was asked. An opening that is not empty says which way
            the rating points; a review that is not empty is what the entry has to be about.
        examples: answers that the prompt showed.

    Returns:
        The same rows; `rejected` names one of `MEANING_RULES` where it was null before and a rule is broken.
    """
    frame = entries.with_row_index("entry")
    open_rows = frame.filter(pl.col("rejected").is_null())
    if open_rows.is_empty():
        return entries
    asked = windows.join(open_rows.select(_KEYS).unique(), on=_KEYS, how="semi")
    about = open_rows.join(asked.select(*_KEYS, "opening", "review"), on=_KEYS, how="left", maintain_order="left")
    opening = about["opening"]
    liked = preference_polarity(open_rows["text"], rules="extended") == POSITIVE
    form = plain(pl.col("text"))
    open_rows = open_rows.with_columns(
        contradicts=(opening == WISHED) & ~liked | (opening == UNWANTED) & liked,
        one=about["review"] != "",
        last=form.str.strip_chars().str.split("  ").list.last(),
    )
    words = _stems(open_rows.select("entry", *_KEYS, "text"), "text")
    for column, mark in (("window", "known"), ("review", "reviewed")):
        shown = _stems(asked.select(*_KEYS, column), column, content=False).with_columns(pl.lit(True).alias(mark))
        words = words.join(shown, on=[*_KEYS, "stem"], how="left").with_columns(pl.col(mark).fill_null(False))
    counts = words.group_by("entry").agg(pl.len().alias("words"), pl.col("known").mean(), pl.col("reviewed").any())
    counts = counts.join(_from_examples(words, examples), on="entry", how="left")
    rows = open_rows.join(counts, on="entry", how="left")
    broken = {
        "no answer": pl.col("text").str.contains(_NO_ANSWER),
        "unfinished": pl.col("cut") | pl.col("last").is_in(_UNFINISHED),
        "contradicts the rating": pl.col("contradicts"),
        "says nothing": pl.col("words").is_null(),
        "close to an example": (pl.col("borrowed") > 1) | (pl.col("borrowed") / pl.col("words") >= _BORROWED),
        "not in review or item": pl.col("known") < _GROUNDED,
        "nothing of the review": pl.col("one") & ~pl.col("reviewed"),
    }
    first = pl.coalesce(*(pl.when(breaks).then(pl.lit(rule)) for rule, breaks in broken.items()))
    rules = rows.select("entry", meaning=first)
    frame = frame.join(rules, on="entry", how="left", maintain_order="left")
    return frame.with_columns(pl.coalesce("rejected", "meaning").alias("rejected")).drop("entry", "meaning")


def _stems(frame: pl.DataFrame, column: str, *, content: bool = True) -> pl.DataFrame:
    """The frame once for every distinct stem of a column's words, in a column `stem`.

    Args:
        frame: rows with text.
        column: of the text.
        content: whether words that describe no item are left out.
    """
    left_out = stop_words() if content else FUNCTION_WORDS
    found = (
        frame.with_columns(word=plain(pl.col(column)).str.strip_chars().str.split("  ")).drop(column).explode("word")
    )
    bare = pl.Series(sorted(left_out)).to_frame("word").select(bare=plain(pl.col("word")).str.strip_chars())["bare"]
    found = found.filter((pl.col("word").str.len_chars() > 1) & ~pl.col("word").is_in(bare.implode()))
    return found.with_columns(stem=pl.col("word").str.slice(0, _STEM)).drop("word").unique(maintain_order=True)


def _from_examples(words: pl.DataFrame, examples: Sequence[str]) -> pl.DataFrame:
    """Per entry, how many of its words one example has and the window lacks, at most: entry, borrowed."""
    shown = pl.DataFrame(list(enumerate(examples)), schema={"example": pl.Int64, "text": pl.String}, orient="row")
    both = words.join(_stems(shown, "text"), on="stem").filter(~pl.col("known"))
    return both.group_by("entry", "example").len("borrowed").group_by("entry").agg(pl.col("borrowed").max())
