"""From a model's answer to its entries, and the rules that an entry must keep to count as a preference.

Models wrap JSON into prose and code fences, quote with the wrong marks, leave commas behind and run out of tokens.
Nothing here is evaluated: strict JSON goes through `json`, all else through a scanner that knows brackets and
quotation marks and nothing more. A string that was cut off is dropped, since half a preference may be its opposite.

An entry that breaks a rule is rejected under the name of the rule. The paper rejects single words and asks for no
brands, products, prices or delivery. The other rules keep out what only looks like a preference: sentences that are no
instruction to a search, text copied from a review, and what `outside_text.broken_rule` names, such as links and
instructions that a review has smuggled in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import polars as pl

from preference_benchmark.preferences.names import Names
from preference_benchmark.preferences.words import plain
from preference_benchmark.tables.outside_text import SAFETY_RULES, broken_rule, folded

__all__ = [
    "RULES",
    "entries",
    "checked_entries",
    "tidy",
]


_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
# A line of its own: within one, it may be part of an entry.
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$\n?", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.):])\s+(?P<text>\S.*)$")
_ESCAPE = re.compile(r"\\(?:u(?P<code>[0-9a-fA-F]{4})|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_CLOSING = {'"': '"', "'": "'", "“": "”", "”": "”", "„": "“", "‘": "’", "«": "»"}
# A scan skips from one of these to the next: a character at a time is slow in answers that run on.
_BRACKET, _BRACKETS = re.compile(r"[\[{]"), re.compile(r"[\[{]+")
_MARK = re.compile(rf"[\[\]{{}}{''.join(_CLOSING)}]")
# A mark that no bracket, comma, colon or line end follows stands inside: the apostrophe of "don't".
_ENDS = {closing: re.compile(rf"\\|{closing}(?=\s*(?:[,\]}}:\n]|[\"'“‘„«]|$))") for closing in {*_CLOSING.values()}}
_COLON, _REST_IS_BLANK = re.compile(r"\s{0,8}:"), re.compile(r"\s*\Z")
# The rest of a longer answer is not read: five sentences need a fraction of this.
_LONGEST = 20_000
_DEEPEST = 20


def entries(answer: str) -> list[str]:
    r"""The strings that an answer lists, in order, blanks trimmed.

    Args:
        answer: what the model wrote.

    Returns:
        Strings of the first JSON list or object with any, else of what looks like one, else the items of a
        bulleted or numbered list. Keys of objects are not entries. Empty if nothing of the kind is there.

    >>> entries("Sure! Here you go:\n```json\n{'preferences': ['Find a mug', 'Avoid gla")
    ['Find a mug']
    >>> entries("1. Find a mug\n2. Avoid glass")
    ['Find a mug', 'Avoid glass']
    """
    text = _FENCE.sub("\n", _THINKING.sub(" ", answer[:_LONGEST]))
    for found in (_strict(text), _scanned(text), _bulleted(text)):
        tidy = [" ".join(_joined(entry).split()) for entry in found]
        tidy = [entry for entry in tidy if entry]
        if tidy:
            return tidy
    return []


def _joined(entry: str) -> str:
    """Text without halves of characters, of which JSON can write one alone."""
    return entry.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _strict(text: str) -> list[str]:
    """Strings of the first well-formed JSON list or object that holds any."""
    decoder = json.JSONDecoder()
    position = 0
    while (start := _next_opening(text, position)) is not None:
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError
            # What follows the opening bracket is not JSON; a list inside an unfinished object would lose the
            # object's other lists, so the scanner has to look at it.
            return []
        found = list(_strings(value))
        if found:
            return found
    return []


def _next_opening(text: str, position: int) -> int | None:
    found = _BRACKET.search(text, position)
    return found.start() if found else None


def _strings(value: object, depth: int = 0) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner, depth + 1)


def _scanned(text: str) -> list[str]:
    """Quoted strings between brackets, of the first outermost pair that holds any; no keys, nothing cut off."""
    found: list[str] = []
    within: list[str] = []
    position = _next_opening(text, 0)
    while position is not None:
        character = text[position]
        if character in "[{":
            opened = _BRACKETS.match(text, position)[0]
            within.extend(opened)
            position += len(opened) - 1
        elif character in "]}":
            del within[-1:]
            if not within:
                if found:
                    break
                position = _next_opening(text, position + 1)
                continue
        elif character in _CLOSING and _may_open(text, position):
            named = within[-1:] == ["{"] and _before(text, position) in ("{", ",")
            content, position = _quoted(text, position)
            if content is None:
                break
            # Where the answer was cut behind a name in an object, its colon is missing.
            cut = named and _REST_IS_BLANK.match(text, position + 1)
            if not cut and not _COLON.match(text, position + 1):
                found.append(content)
        following = _MARK.search(text, position + 1)
        position = following.start() if following else None
    return found


def _before(text: str, position: int, blanks: str | None = None) -> str:
    """The last character before a position that is not blank; empty if there is none."""
    while position and (text[position - 1].isspace() if blanks is None else text[position - 1] in blanks):
        position -= 1
    return text[position - 1 : position]


def _may_open(text: str, position: int) -> bool:
    """Whether a quotation mark opens a string: after a bracket, a comma, a colon, another string or a new line."""
    before = _before(text, position, " \t")
    return before in "" or before in "[{,:\n" or before in _CLOSING.values()


def _quoted(text: str, position: int) -> tuple[str | None, int]:
    """The string that opens at a position and where it closes; None if it is cut off."""
    ends = _ENDS[_CLOSING[text[position]]]
    content: list[str] = []
    position += 1
    while found := ends.search(text, position):
        content.append(text[position : found.start()])
        position = found.start()
        if escape := _ESCAPE.match(text, position):
            content.append(_unescaped(escape))
            position = escape.end()
        elif found[0] == "\\":  # the last character
            content.append(found[0])
            position += 1
        else:
            return "".join(content), position
    return None, position


def _unescaped(escape: re.Match) -> str:
    if escape["code"]:
        return chr(int(escape["code"], 16))
    return _ESCAPED.get(escape[0][1], escape[0][1])


def _bulleted(text: str) -> list[str]:
    """Items of a bulleted or numbered list, without the quotation marks around them."""
    found = (_BULLET.match(line) for line in text.splitlines())
    return [match["text"].strip().strip("\"'“”‘’*`,").strip() for match in found if match]


RULES = (
    *SAFETY_RULES,
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


def checked_entries(
    entries: pl.DataFrame, windows: pl.DataFrame, names: Names, examples: Sequence[str] = ()
) -> pl.DataFrame:
    """Entries with the rule that each breaks, if any.

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
    read = frame.select(folded(pl.col("text"), digits=True)).to_series()
    named = names.named(frame["text"]) | names.named(read) | names.capitalised(frame["text"])
    frame = frame.with_columns(form=plain(pl.col("text")), named=named)
    words = pl.col("text").str.count_matches(r"\S+")
    spoken = pl.col("form").str.strip_chars().str.split("  ")
    frame = frame.join(_copied(frame, windows), on=["user_id", "step", "form"], how="left", maintain_order="left")
    shown = pl.Series(examples, dtype=pl.String).to_frame("text").select(form=plain(tidy(pl.col("text"))))["form"]
    broken = {
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
    others = (pl.when(breaks).then(pl.lit(rule)) for rule, breaks in broken.items())
    first = pl.coalesce(broken_rule(pl.col("text")), *others)
    frame = frame.with_columns(rejected=first)
    again = pl.int_range(pl.len()).over("user_id", "step", "form", "rejected") > 0
    repeated = pl.col("rejected").is_null() & again
    frame = frame.with_columns(rejected=pl.when(repeated).then(pl.lit("duplicate")).otherwise("rejected"))
    return frame.drop("form", "named", "copied")


def _copied(entries: pl.DataFrame, windows: pl.DataFrame) -> pl.DataFrame:
    """Entries whose words are in the window, in a row: user_id, step, form, copied (true)."""
    content = plain(pl.col("text").str.replace(_OPENING_WORDS, ""))
    long = entries.select("user_id", "step", "form", content=content).unique()
    long = long.filter(pl.col("content").str.count_matches(r"\S+") >= _COPIED_WORDS)
    keys = ["user_id", "step"]
    asked = windows.join(long.select(keys).unique(), on=keys, how="semi").select(*keys, shown=plain(pl.col("window")))
    both = long.join(asked, on=keys).filter(pl.col("shown").str.contains(pl.col("content"), literal=True))
    return both.select(*keys, "form", copied=True).unique([*keys, "form"])
