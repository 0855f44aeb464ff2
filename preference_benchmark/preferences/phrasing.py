"""From groups of aspects to sentences in the paper's style: "Find ...", "Avoid ...".

The wording varies with what is said but is the same whenever the same is said, which keeps the number of distinct
texts small. Negative sentences are worded so that the rules of inversion (avoid -> Find, exclude and no -> Search
for) leave good ones.
"""

from __future__ import annotations

import polars as pl

__all__ = ["sentences"]

_POSITIVE = (
    "Find {what}",
    "Search for {what}",
    "Look for {what}",
    "Find more {what}",
    "Look for other {what}",
    "Search for more {what}",
)
_NEGATIVE = ("Avoid {what}", "Exclude {what}", "No {what}")
# For users of whom less is known than five sentences can say: the same taste again, less strictly.
_CLOSE = (
    "Find something close to {what}",
    "Look for alternatives to {what}",
    "Search for anything in the spirit of {what}",
    "Find what goes well with {what}",
    "Look for something that resembles {what}",
)
# And for those of whom nothing is known: sentences that claim nothing.
_UNKNOWN = (
    "Find {what} in keeping with my recent choices",
    "Search for {what} like the latest one",
    "Look for {what} that suit my habits",
    "Find {what} close to what I usually pick",
    "Search for something new among similar {what}",
)


def sentences(rows: pl.DataFrame, noun: str) -> pl.Series:
    """One sentence per row, no two alike within a group.

    Args:
        rows: row (int: the group), before, after (lists of str, may be empty: aspects that stand before and after
            the noun), noun (str or null: what the items are called), negative (bool), variant (int: chooses the
            wording), repeat (int: -1, or the place among the group's sentences that have no aspects of their own,
            0 to 4).
        noun: what items are called where the row knows nothing better.
    """
    repeats = pl.col("repeat") >= 0
    negative = pl.col("negative") & ~repeats
    frame = rows.with_columns(what=_noun_phrase(noun, negative))
    # Different aspects can make the same words ("hair", "dryer" and "hair dryer"): worded differently, they stay apart.
    same = ["row", "negative", repeats, "what"]
    variant = pl.col("variant").first().over(same) + pl.int_range(pl.len()).over(same)
    template = (
        pl.when(negative)
        .then(_pick(_NEGATIVE, variant))
        .when(~repeats)
        .then(_pick(_POSITIVE, variant))
        .when(pl.col("before").list.len() + pl.col("after").list.len() > 0)
        .then(_pick(_CLOSE, pl.col("repeat")))
        .otherwise(_pick(_UNKNOWN, pl.col("repeat")))
    )
    frame = frame.with_columns(template=template)
    return frame.select(text=pl.col("template").str.replace("{what}", pl.col("what"), literal=True))["text"]


def _noun_phrase(noun: str, negative: pl.Expr) -> pl.Expr:
    """Aspects around a noun: "indie strategy games with open world and great soundtrack"."""
    joint = pl.when(negative).then(pl.lit(" or ")).otherwise(pl.lit(" and "))
    before, after = pl.col("before"), pl.col("after")
    leading = pl.concat_str([before.list.join(" "), pl.lit(" ")])
    following = pl.concat_str([pl.lit(" with "), _listed(after, joint)])
    return pl.concat_str(
        [
            pl.when(before.list.len() > 0).then(leading).otherwise(pl.lit("")),
            pl.col("noun").fill_null(noun),
            pl.when(after.list.len() > 0).then(following).otherwise(pl.lit("")),
        ]
    )


def _listed(words: pl.Expr, joint: pl.Expr) -> pl.Expr:
    """A list in words: "a", "a and b", "a, b and c"."""
    last = words.list.last().fill_null("")
    first = words.list.head(pl.max_horizontal(words.list.len().cast(pl.Int64) - 1, pl.lit(0))).list.join(", ")
    return pl.when(words.list.len() > 1).then(pl.concat_str([first, joint, last])).otherwise(last)


def _pick(templates: tuple[str, ...], number: pl.Expr) -> pl.Expr:
    return pl.lit(pl.Series(templates)).gather(number.clip(lower_bound=0) % len(templates))
