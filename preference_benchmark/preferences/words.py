"""Words as the extractive approximator compares them: plain forms, clauses, and the words that are not aspects."""

from __future__ import annotations

from functools import cache

import polars as pl

from preference_benchmark.tables.stop_words import HEADS, stop_words

__all__ = ["clauses", "no_aspects", "plain"]

_NOT_A_WORD = r"[^\p{L}\p{N}']+"
_POSSESSIVE = r"'s\b|\B'|'\B"
# A plural s; words such as glass, bonus and basis keep theirs.
_PLURAL = r"\b(\w{2,}[^\Wsui])s\b"
_CLAUSE_END = r"(?i)[.!?;:\n]+|,?\s\b(?:but|however|although|though|except that|whereas|while)\b|,\s+(?:and|so|yet)\b"


def plain(text: pl.Expr) -> pl.Expr:
    """Text in plain form: lower-case words without plural s, two blanks between, one at either end.

    >>> pl.select(plain(pl.lit("Oil-free Creams!"))).item()
    ' oil  free  cream '
    """
    words = text.str.to_lowercase().str.replace_all(_POSSESSIVE, "").str.replace_all(_NOT_A_WORD, " ")
    words = words.str.strip_chars().str.replace_all(_PLURAL, "${1}").str.replace_all(" ", "  ")
    return pl.concat_str([pl.lit(" "), words, pl.lit(" ")])


def clauses(text: pl.Expr) -> pl.Expr:
    """Text cut into clauses: at the ends of sentences and where a turn such as "but" begins.

    >>> pl.select(clauses(pl.lit("Lovely scent, but the jar leaks. Sad!"))).item().to_list()
    ['Lovely scent', ' the jar leaks', ' Sad', '']
    """
    return text.str.replace_all(_CLAUSE_END, "\n").str.split("\n")


@cache
def no_aspects() -> pl.Series:
    """Single words, in plain form, that are not aspects: see `stop_words` and `HEADS`.

    >>> no_aspects().is_in([" cheap ", " lavender ", " terrible "]).sum()
    2
    """
    words = pl.DataFrame({"word": sorted(stop_words() | HEADS)})
    return words.select(form=plain(pl.col("word")))["form"].unique().sort()
