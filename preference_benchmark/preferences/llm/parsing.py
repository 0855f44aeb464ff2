"""From a model's answer to its entries, however untidy the answer.

Models wrap JSON into prose and code fences, quote with the wrong marks, leave commas behind and run out of tokens.
Nothing here is evaluated: strict JSON goes through `json`, all else through a scanner that knows brackets and
quotation marks and nothing more. A string that was cut off is dropped, since half a wish may be its opposite.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

__all__ = ["entries"]

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*\n?|~~~[\w-]*\n?")
_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.):])\s+(?P<text>\S.*)$")
_CLOSING = {'"': '"', "'": "'", "“": "”", "”": "”", "„": "“", "‘": "’", "«": "»"}
# Longer answers are none: five sentences need a fraction of it.
_LONGEST = 20_000
_DEEPEST = 20


def entries(answer: str) -> list[str]:
    r"""The strings that an answer lists, in order, blanks trimmed.

    Args:
        answer: what the model wrote.

    Returns:
        Strings of the first JSON list or object with any, else of what looks like one, else the items of a
        bulleted or numbered list. Keys of objects are no entries. Empty if nothing of the kind is there.

    >>> entries("Sure! Here you go:\n```json\n{'preferences': ['Find a mug', 'Avoid gla")
    ['Find a mug']
    >>> entries("1. Find a mug\n2. Avoid glass")
    ['Find a mug', 'Avoid glass']
    """
    text = _FENCE.sub("\n", _THINKING.sub(" ", answer[:_LONGEST]))
    for found in (_strict(text), _scanned(text), _bulleted(text)):
        tidy = [" ".join(entry.split()) for entry in found]
        tidy = [entry for entry in tidy if entry]
        if tidy:
            return tidy
    return []


def _strict(text: str) -> list[str]:
    """Strings of the first well-formed JSON list or object that holds any."""
    decoder = json.JSONDecoder()
    position = 0
    while (start := _next_opening(text, position)) is not None:
        try:
            value, position = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            # What follows the opening bracket is not JSON; a list inside an unfinished object would lose the
            # object's other lists, so the scanner has to look at it.
            return []
        found = list(_strings(value))
        if found:
            return found
    return []


def _next_opening(text: str, position: int) -> int | None:
    found = re.compile(r"[\[{]").search(text, position)
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
    within, position = "", _next_opening(text, 0)
    while position is not None and position < len(text):
        character = text[position]
        if character in "[{":
            within += character
        elif character in "]}":
            within = within[:-1]
            if not within:
                if found:
                    break
                position = _next_opening(text, position + 1)
                continue
        elif character in _CLOSING and _may_open(text, position):
            named = within[-1:] == "{" and text[:position].rstrip()[-1:] in ("{", ",")
            content, position = _quoted(text, position)
            if content is None:
                break
            # Where the answer was cut behind a name in an object, its colon is missing.
            cut = named and not text[position + 1 :].strip()
            if not cut and not re.match(r"\s*:", text[position + 1 : position + 10]):
                found.append(content)
        position += 1
    return found


def _may_open(text: str, position: int) -> bool:
    """Whether a quotation mark opens a string: after a bracket, a comma, a colon, another string or a new line."""
    before = text[:position].rstrip(" \t")[-1:]
    return before in "" or before in "[{,:\n" or before in _CLOSING.values()


def _quoted(text: str, position: int) -> tuple[str | None, int]:
    """The string that opens at a position and where it closes; None if it is cut off."""
    closing = _CLOSING[text[position]]
    content: list[str] = []
    position += 1
    while position < len(text):
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            content.append(_unescaped(text[position + 1]))
            position += 2
            continue
        # A mark that no bracket, comma, colon or line end follows stands inside: the apostrophe of "don't".
        if character == closing and re.match(r"\s*(?:[,\]}:\n]|[\"'“‘„«]|$)", text[position + 1 :]):
            return "".join(content), position
        content.append(character)
        position += 1
    return None, position


def _unescaped(character: str) -> str:
    return {"n": " ", "t": " ", "r": " "}.get(character, character)


def _bulleted(text: str) -> list[str]:
    """Items of a bulleted or numbered list, without the quotation marks around them."""
    found = (_BULLET.match(line) for line in text.splitlines())
    return [match["text"].strip().strip("\"'“”‘’*`,").strip() for match in found if match]
