"""Item details, shoppers and wishes to try of a saved model: read from `showcase.json`, or made from its catalogue.

The examples write that file with every model they save. For a model that came without it, wishes name what several
items have, and shoppers are drawn from the model itself: an item at random, then again and again one that the model
thinks comes next.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from title_search import words_of

__all__ = [
    "SHOWCASE_FILE",
    "Sentence",
    "Shopper",
    "Showcase",
    "derived_sentences",
    "draw_shoppers",
    "read_showcase",
]

SHOWCASE_FILE = "showcase.json"
SEVERAL, SHARE, LOOKED_AT, LETTERS = 3, 0.1, 20_000, 4
"""A derived wish names what at least so many items have, and at most this share; so many items are looked at, and words
of titles of at least so many letters."""


@dataclass(frozen=True)
class Shopper:
    """Somebody with a history.

    Attributes:
        history: item ids, oldest first.
        preference: what this person wants next, as the benchmark has it; empty where unknown.
    """

    history: tuple[str, ...]
    preference: str = ""


@dataclass(frozen=True)
class Sentence:
    """Something to try: a wish, and perhaps what to avoid."""

    preference: str
    avoid: str = ""


@dataclass(frozen=True)
class Showcase:
    """Attributes by item id, shoppers, and sentences to try."""

    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shoppers: tuple[Shopper, ...] = ()
    sentences: tuple[Sentence, ...] = ()


def read_showcase(path: Path | None, known_ids: Sequence[str]) -> Showcase:
    """The content of the file; items that the model does not know are left out.

    Args:
        path: of the file, or `None` where the model has none.
        known_ids: ids of the model's items.

    Raises:
        ValueError: if the file is not what `save_showcase` writes.
    """
    if path is None:
        return Showcase()
    known = set(known_ids)
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
        attributes = {key: tuple(map(str, phrases)) for key, phrases in content["attributes"].items() if key in known}
        shoppers = [
            Shopper(tuple(item for item in entry["history"] if item in known), str(entry["preference"]))
            for entry in content["shoppers"]
        ]
        sentences = [Sentence(str(entry["preference"]), str(entry["avoid"])) for entry in content["sentences"]]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a showcase ({type(error).__name__}: {error}); delete it, or save it again"
        ) from error
    return Showcase(attributes, tuple(shopper for shopper in shoppers if shopper.history), tuple(sentences))


def draw_shoppers(
    next_items: Callable[[list[list[str]]], list[list[str]]], item_ids: Sequence[str], *, count: int, length: int
) -> tuple[Shopper, ...]:
    """Made-up shoppers, the same ones every time.

    Args:
        next_items: for several histories the ids of a few items that may come next, none of them in the history.
        item_ids: ids of all items.
        count: shoppers at most.
        length: items of a history at most.
    """
    generator = random.Random(0)
    histories = [[item] for item in generator.sample(list(item_ids), min(count, len(item_ids)))]
    for _ in range(min(length, len(item_ids)) - 1):
        for history, items in zip(histories, next_items(histories), strict=True):
            if items:
                history.append(generator.choice(items))
    return tuple(Shopper(tuple(history)) for history in histories)


def derived_sentences(phrases: Sequence[Sequence[str]], count: int = 4) -> tuple[Sentence, ...]:
    """Wishes for what several items have, each with something that some of these items have and others do not.

    Args:
        phrases: attributes of each item, or its title.
        count: wishes at most.

    >>> derived_sentences([["red", "tin"], ["red", "jar"], ["red", "jar"], ["blue", "tin"]])
    (Sentence(preference='red', avoid='jar'),)
    >>> derived_sentences([["Assam"], ["Blue mug"]])
    (Sentence(preference='Assam', avoid=''),)
    """
    named = [list(dict.fromkeys(own)) for own in phrases[:LOOKED_AT]]
    having = _shared(named)
    if not having:  # titles have little in common but their words
        words = ([word for word in words_of(" ".join(own)) if len(word) >= LETTERS] for own in named)
        named = [list(dict.fromkeys(own)) for own in words]
        having = _shared(named)
    if not having:
        return tuple(Sentence(own[0]) for own in phrases[:1])
    telling = [phrase for phrase in having if " " in phrase]  # "open world" says more than "strategy"
    chosen = telling if len(telling) >= count else having
    ordered = sorted(chosen, key=lambda phrase: (-len(having[phrase]), phrase))
    sentences = []
    for wish in ordered[:: max(1, len(ordered) // count)][:count]:
        others = Counter(phrase for index in having[wish] for phrase in named[index] if phrase != wish)
        some = [phrase for phrase, both in others.most_common() if both < len(having[wish])]
        sentences.append(Sentence(wish, some[0] if some else ""))
    return tuple(sentences)


def _shared(named: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Phrases that several items have, but not too many, with the indices of these items."""
    having: dict[str, list[int]] = {}
    for index, own in enumerate(named):
        for phrase in own:
            having.setdefault(phrase, []).append(index)
    most = max(2 * SEVERAL, SHARE * len(named))
    return {phrase: items for phrase, items in having.items() if SEVERAL <= len(items) <= most}
