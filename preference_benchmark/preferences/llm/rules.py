"""What an entry must be to count as a preference; whatever breaks a rule is rejected under that rule's name.

The paper rejects single words and asks for no brands, products, prices or delivery. The other rules keep out what
only looks like a preference: sentences that do not tell a search what to do, text copied from a review, and
anything that a review has talked the model into. All entries at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from preference_benchmark.preferences.llm.windows import ADDRESSING
from preference_benchmark.preferences.names import Names
from preference_benchmark.preferences.words import plain

__all__ = ["RULES", "judged", "tidy"]

RULES = (
    "link or markup",
    "speaks to a model",
    "single word",
    "too long",
    "several sentences",
    "no instruction",
    "repeats itself",
    "price or delivery",
    "copied from a review",
    "copied from an example",
    "brand or product",
    "duplicate",
)

_MOST_WORDS, _MOST_CHARACTERS = 25, 200
_SEVERAL = r"[\p{L}\d)][.!?]+\s*\p{L}{2,}|\p{Ll}\p{Lu}\p{Ll}|\n"
_OPENING = (
    r"(?i)^(?:find|search for|look for|seek|choose|prefer|show|get|try|pick|explore|consider|avoid|exclude|no|never"
    r"|don'?t|do not|stay away from|steer clear of|skip|nothing|without|keep away from|leave out"
    r"|i (?:really |also )?(?:don'?t (?:like|want|need|enjoy)|like|love|want|need|prefer|enjoy|dislike|hate|avoid))"
    r"\s+(?:.*\s)?[\p{L}\p{N}-]{3,}"
)
_LINK = (
    r"(?i)https?:|www\.|\b[\w.-]+@[\w-]+\.\w|\b[\w-]+\.(?:com|net|org|io|ru|cn|info|biz|example)\b"
    r"|[<>{}\[\]|\\`*#]|\d{6,}"
)
_COMMERCE = (
    r"(?i)[$£€¥]|\b(?:price\w*|cheap\w*|expensive|afford\w*|budget|discount\w*|bargain\w*|dollars?|coupons?|refund\w*"
    r"|deliver\w*|shipping|shipped|shipment|warrant\w*|sellers?|vendors?|amazon|customer (?:service|support)"
    r"|free to play|in-app purchases?)\b|\bmoney\b"
)
_OPENING_WORDS = r"(?i)^(?:find|search for|look for|avoid|exclude|no|i (?:like|love|want|prefer))\s+"
# A small model that is stuck says the same words again and again.
_STUCK_WORDS, _LEAST_DISTINCT = 5, 0.65
# Shorter runs of words occur in any review by chance.
_COPIED_WORDS = 6


def tidy(texts: pl.Expr) -> pl.Expr:
    """Entries without bullets, quotation marks and full stops around them.

    >>> pl.select(tidy(pl.lit('1. "Find a mug."'))).item()
    'Find a mug'
    """
    inner = texts.str.replace_all(r"\s+", " ").str.strip_chars(" \"'“”‘’`*_")
    inner = inner.str.replace(r"^(?:[-*•–]|\(?\d{1,2}[.):])\s+", "").str.strip_chars(" \"'“”‘’`*_.;,!")
    return inner.str.slice(0, 1).str.to_uppercase() + inner.str.slice(1)


def judged(entries: pl.DataFrame, windows: pl.DataFrame, names: Names, examples: Sequence[str] = ()) -> pl.DataFrame:
    """Entries with the rule that each breaks.

    Args:
        entries: user_id, step, text and any other columns, in order of preference; a text counts once per user and
            step.
        windows: user_id, step, window: what was asked.
        names: of the data set.
        examples: answers that the prompt showed.

    Returns:
        The same rows with tidy texts and the column `rejected`: one of `RULES`, or null.
    """
    frame = entries.with_columns(tidy(pl.col("text")))
    frame = frame.with_columns(form=plain(pl.col("text")), named=names.named(frame["text"]))
    words = pl.col("text").str.count_matches(r"\S+")
    spoken = pl.col("form").str.strip_chars().str.split("  ")
    frame = frame.join(_copied(frame, windows), on=["user_id", "step", "form"], how="left", maintain_order="left")
    shown = pl.Series(examples, dtype=pl.String).to_frame("text").select(form=plain(tidy(pl.col("text"))))["form"]
    broken = {
        "link or markup": pl.col("text").str.contains(_LINK),
        "speaks to a model": pl.col("text").str.contains(f"(?i){ADDRESSING}"),
        "single word": words <= 1,
        "too long": (words > _MOST_WORDS) | (pl.col("text").str.len_chars() > _MOST_CHARACTERS),
        "several sentences": pl.col("text").str.contains(_SEVERAL),
        "no instruction": ~pl.col("text").str.contains(_OPENING),
        "repeats itself": (spoken.list.len() >= _STUCK_WORDS)
        & (spoken.list.n_unique() < _LEAST_DISTINCT * spoken.list.len()),
        "price or delivery": pl.col("text").str.contains(_COMMERCE),
        "copied from a review": pl.col("copied").fill_null(False),
        "copied from an example": pl.col("form").is_in(shown.implode()),
        "brand or product": pl.col("named"),
    }
    first = pl.coalesce(*(pl.when(breaks).then(pl.lit(rule)) for rule, breaks in broken.items()))
    frame = frame.with_columns(rejected=first)
    again = pl.int_range(pl.len()).over("user_id", "step", "form", "rejected") > 0
    repeated = pl.col("rejected").is_null() & again
    frame = frame.with_columns(rejected=pl.when(repeated).then(pl.lit("duplicate")).otherwise("rejected"))
    return frame.drop("form", "named", "copied")


def _copied(entries: pl.DataFrame, windows: pl.DataFrame) -> pl.DataFrame:
    """Entries that stand in the window word for word: user_id, step, form, copied (true)."""
    told = plain(pl.col("text").str.replace(_OPENING_WORDS, ""))
    long = entries.select("user_id", "step", "form", told=told).unique()
    long = long.filter(pl.col("told").str.count_matches(r"\S+") >= _COPIED_WORDS)
    keys = ["user_id", "step"]
    asked = windows.join(long.select(keys).unique(), on=keys, how="semi").select(*keys, shown=plain(pl.col("window")))
    both = long.join(asked, on=keys).filter(pl.col("shown").str.contains(pl.col("told"), literal=True))
    return both.select(*keys, "form", copied=True).unique([*keys, "form"])
