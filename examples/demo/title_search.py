"""Search as you type over the titles of a catalogue, on the server: the browser only gets a few of them.

Titles become sorted words with the items that have them. What was typed is a list of word beginnings, all of which a
title must have; a sorted vocabulary turns each into one range of words.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["TitleSearch", "words_of"]

LAST_CHARACTER = "\U0010ffff"


def words_of(text: str) -> list[str]:
    """Words in lower case, without accents.

    >>> words_of("Crème brûlée (500 g)")
    ['creme', 'brulee', '500', 'g']
    """
    if not text.isascii():
        text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return re.findall(r"\w+", text.casefold())


class TitleSearch:
    """Finds titles by the beginnings of their words.

    Args:
        titles: one per item.

    >>> TitleSearch(["Green Tea", "Teapot, green", "Mug"]).find("gre te")
    [0, 1]
    """

    def __init__(self, titles: Sequence[str]) -> None:
        items_of: dict[str, list[int]] = {}
        first: list[str] = []
        for index, title in enumerate(titles):
            words = words_of(title)
            first.append(words[0] if words else "")
            for word in dict.fromkeys(words):
                items_of.setdefault(word, []).append(index)
        self._words = sorted(items_of)
        sizes = [len(items_of[word]) for word in self._words]
        self._ends = np.cumsum([0, *sizes])
        self._items = np.fromiter((index for word in self._words for index in items_of[word]), np.int64, sum(sizes))
        place = {word: index for index, word in enumerate(self._words)}
        self._first = np.array([place.get(word, -1) for word in first], np.int64)
        shortest = np.argsort([len(title) for title in titles], kind="stable")
        self._rank = np.empty(len(titles), np.int64)
        self._rank[shortest] = np.arange(len(titles))

    def find(self, query: str, limit: int = 8, exclude: Iterable[int] = ()) -> list[int]:
        """Item indices of the best matches: titles that begin with the first word typed, then the shortest.

        Args:
            query: beginnings of words, in any order. Text without a letter or digit finds nothing.
            limit: items at most.
            exclude: indices of items to leave out.
        """
        beginnings = words_of(query)
        if not beginnings:
            return []
        ranges = [self._range(word) for word in beginnings]
        # Masks rather than sorted indices: a single letter may match most of a large catalogue.
        matches = np.ones(len(self._rank), bool)
        for low, high in ranges:
            one = np.zeros(len(self._rank), bool)
            one[self._items[self._ends[low] : self._ends[high]]] = True
            matches &= one
        matches[np.fromiter(exclude, np.int64)] = False
        low, high = ranges[0]
        opens = matches & (self._first >= low) & (self._first < high)
        best = self._shortest(opens, limit)
        if len(best) < limit:
            best += self._shortest(matches & ~opens, limit - len(best))
        return best

    def _range(self, beginning: str) -> tuple[int, int]:
        return bisect_left(self._words, beginning), bisect_left(self._words, beginning + LAST_CHARACTER)

    def _shortest(self, matches: np.ndarray, limit: int) -> list[int]:
        """Items with the shortest titles among some, ties by index."""
        items = np.flatnonzero(matches)
        if len(items) > limit:
            items = items[np.argpartition(self._rank[items], limit)[:limit]]
        return items[np.argsort(self._rank[items])].tolist()
