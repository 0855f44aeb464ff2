"""Reads `items.json`, the file beside a model with ids and titles of its items, and refuses what does not fit.

    {"item_id": [ids], "title": [titles], "text": [texts], "aspects": [[phrases of each item]], "codes": [[codes of each
     item]], "states": [rows of each item in the state table], "words": {word: number of texts}}

All but ids and titles are optional. Files come from other people as well, so every value is checked before it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .catalogue import REMOVED

__all__ = ["read_items"]


def read_items(
    path: str | os.PathLike, num_items: int | None = None, codebook_sizes: Sequence[int] | None = None
) -> dict[str, Any]:
    """The content of an items file.

    Args:
        path: of the file.
        num_items: number of items of the model beside it, if there is one.
        codebook_sizes: codes per level, if items have codes.

    Raises:
        ValueError: if the file is not what `MenderProcessor.save_pretrained` writes, or its items are not those of the
            model. The message names the first thing that is wrong.
    """
    try:
        text = Path(path).read_text("utf-8")
        items = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
        _check(items, num_items, codebook_sizes)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply; save the processor again") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a file of items: {error}; save the processor again") from error
    return items


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _check(items: Any, num_items: int | None, codebook_sizes: Sequence[int] | None) -> None:
    if not isinstance(items, dict):
        raise ValueError(f"it holds a {type(items).__name__} instead of an object")
    ids, titles = (_column(items, name, str, "text") for name in ("item_id", "title"))
    if len(ids) != len(titles):
        raise ValueError(f"it has {len(ids)} ids and {len(titles)} titles")
    try:
        "".join((*ids, *titles)).encode()
    except UnicodeEncodeError:
        raise ValueError("an id or a title has half of a character (a lone surrogate)") from None
    if num_items is not None and len(ids) != num_items:
        raise ValueError(f"it has {len(ids)} items, and the model in config.json has {num_items}")
    for name, kind, called in (("text", str, "text"), ("aspects", list, "lists of phrases")):
        values = _column(items, name, kind, called) if name in items else ids
        if len(values) != len(ids):
            raise ValueError(f'it has {len(ids)} ids and {len(values)} entries of "{name}"')
    if not all(isinstance(phrase, str) for phrases in items.get("aspects", ()) for phrase in phrases):
        raise ValueError('"aspects" holds a phrase that is not text')
    if "states" in items:
        states = _column(items, "states", int, "whole numbers")
        if len(states) != len(ids) or min(states, default=0) < 0:
            raise ValueError(f"it has {len(states)} numbers of states for {len(ids)} items, or one below 0")
    if "codes" in items:
        _check_codes(_column(items, "codes", list, "lists of codes"), len(ids), codebook_sizes)
    words = items.get("words", {})
    if not isinstance(words, dict) or not all(type(count) is int and count > 0 for count in words.values()):
        raise ValueError('"words" is not an object with positive whole numbers')


def _column(items: dict[str, Any], name: str, kind: type, called: str) -> list[Any]:
    values = items.get(name)
    if not isinstance(values, list):
        raise ValueError(f'"{name}" is missing or not a list')
    # Not isinstance: `True` is not a number here.
    wrong = next((place for place, value in enumerate(values) if type(value) is not kind), None)
    if wrong is not None:
        raise ValueError(f'"{name}" should have {called}, and entry {wrong} is {str(values[wrong])[:40]!r}')
    return values


def _check_codes(codes: list[list[Any]], num_items: int, codebook_sizes: Sequence[int] | None) -> None:
    if len(codes) != num_items:
        raise ValueError(f'"codes" has {len(codes)} entries for {num_items} items')
    levels = len(codebook_sizes or codes[0]) if codes else 0
    for place, own in enumerate(codes):
        if len(own) != levels or not all(type(code) is int for code in own):
            raise ValueError(f'"codes" should have {levels} whole numbers each, and entry {place} is {str(own)[:40]}')
        # Removed items have this code at every level.
        if own == [REMOVED] * levels:
            continue
        for level, code in enumerate(own):
            if not 0 <= code < (codebook_sizes[level] if codebook_sizes else code + 1):
                raise ValueError(f'"codes" of entry {place} has {code} at level {level}, outside its codebook')
