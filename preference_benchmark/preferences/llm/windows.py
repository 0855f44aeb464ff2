"""What a model gets to read about a user after a step: the latest items with rating and review, as JSON lines.

All users at once. Reviews are other people's text, so they are made harmless first: markup of chat templates and
sentences that speak to a model ("ignore previous instructions") are taken out, and long reviews are cut.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl

from preference_benchmark.preferences.llm.prompts import Prompt
from preference_benchmark.tables import Tables

__all__ = ["ADDRESSING", "Windows", "windows"]

_TITLE_CHARACTERS = 120
_ASPECTS = 6
_REMOVED = "[...]"

# Sentences that speak to a model instead of about an item.
ADDRESSING = (
    r"\b(?:ignor\w*|disregard\w*|forget|overrid\w*|bypass\w*)\b[^.!?\n]{0,40}"
    r"\b(?:instruction|prompt|rule|message|direction|guideline|system)s?\b"
    r"|\b(?:new|updated|following|real) (?:system )?instructions?\b"
    r"|\bsystem ?(?:prompt|message|instruction)s?\b"
    r"|\byou are (?:now|an? (?:ai|assistant|language model|chatbot|helpful))\b"
    r"|\bas an? (?:ai|assistant|language model)\b"
    r"|\b(?:respond|reply|answer|print)\b[^.!?\n]{0,30}\b(?:only|exactly|json|verbatim|the words?)\b"
    r"|\b(?:output|write|return) (?:only|exactly|json|verbatim|the following|the words?)\b"
    r"|(?:^|[.!?\n]) ?(?:assistant|system|user)\s*:"
    r"|\bpreferences?[\"']?\s*:"
)
_SENTENCE = rf"(?i)[^.!?\n]*(?:{ADDRESSING})[^\n]*?(?:[.!?\n]|$)"
_CHAT_MARKUP = r"(?i)<\|?/?[a-z_ ]{1,30}\|?>|\[/?(?:INST|SYS)\]|<<?/?SYS>?>|</?s>|[<>{}`]|\x{fffd}|\p{Cc}"


@dataclass(frozen=True)
class Windows:
    """What is asked about.

    Attributes:
        frame: user_id, step, window (str), digest (str); sorted by user_id and step. Steps that there is nothing
            to ask about are absent.
        unasked: steps that there is nothing to ask about.
        shortened: reviews that were cut.
        cleaned: reviews of which sentences that speak to a model, or markup, were taken out.
    """

    frame: pl.DataFrame
    unasked: int
    shortened: int
    cleaned: int


def windows(tables: Tables, prompt: Prompt) -> Windows:
    """The window of every user and step of a data set."""
    rows = tables.interactions.sort("user_id", "step")
    raw = pl.col("review").str.replace_all(r"[ \t\r]+", " ").str.strip_chars()
    bare = raw.str.replace_all(_CHAT_MARKUP, " ").str.replace_all(_SENTENCE, _REMOVED)
    rows = rows.with_columns(raw=raw, bare=bare.str.replace_all(r"\s+", " ").str.strip_chars())
    long = pl.col("bare").str.len_chars() > prompt.review_characters
    cut = pl.col("bare").str.slice(0, prompt.review_characters) + " ..."
    rows = rows.with_columns(shown=pl.when(long).then(cut).otherwise("bare"), long=long)
    flat = pl.col("raw").str.replace_all(r"\s+", " ")
    counts = rows.select(long=pl.col("long").sum(), cleaned=(pl.col("bare") != flat).sum()).row(0)
    rows = rows.join(_shown_items(tables.items), on="item_id", how="left", maintain_order="left")
    told = pl.col("shown").str.contains(r"\p{L}")
    rows = rows.with_columns(told=told, line=_json_line() if prompt.json_answer else _plain_line())
    lines = [pl.col("line").shift(back).over("user_id", order_by="step") for back in reversed(range(prompt.window))]
    rows = rows.with_columns(window=pl.concat_list(lines).list.drop_nulls().list.join("\n"))
    asked = rows.filter("told") if prompt.needs_review else rows
    digests = pl.Series("digest", [_digest(window) for window in asked["window"]], dtype=pl.String)
    frame = asked.select("user_id", "step", "window").with_columns(digests)
    return Windows(frame, rows.height - asked.height, *counts)


def _shown_items(items: pl.DataFrame) -> pl.DataFrame:
    """item_id, title and aspects as they are shown: no price, no brand."""
    title = pl.col("title").str.replace_all(_CHAT_MARKUP, " ").str.slice(0, _TITLE_CHARACTERS).str.strip_chars()
    aspects = pl.col("aspects").list.head(_ASPECTS).list.join(", ")
    return items.select("item_id", title=title, about=aspects)


def _json_line() -> pl.Expr:
    """One item as a JSON object; what is not known is left out."""
    known = pl.struct(item="title", about="about", rating="rating", review="shown").struct.json_encode()
    return known.str.replace_all(r',"(?:about|review)":""|,"rating":null', "")


def _plain_line() -> pl.Expr:
    """One item's rating and review as two lines."""
    rating = pl.col("rating").round(1).cast(pl.String).str.replace(r"\.0$", "")
    return pl.concat_str(
        pl.concat_str(pl.lit("Rating: "), rating, pl.lit(" of 5\n")).fill_null(""), pl.lit("Review: "), pl.col("shown")
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
