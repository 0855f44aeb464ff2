"""Corrects misspelt requests from the words of the catalogue, as search engines do.

A misspelt word is replaced by the nearest word of the catalogue: the one with the fewest letters inserted, deleted,
replaced or swapped with the next (Damerau-Levenshtein distance, each letter edited at most once). Only words are
compared that become equal when a few letters are deleted from each, the idea of SymSpell
(https://github.com/wolfgarbe/SymSpell), so that a request takes microseconds. Where the catalogue has no such word,
plain slips in long words are corrected to a word of the encoder's vocabulary: "for sleping" has to reach the encoder as
"for sleeping".
"""

from __future__ import annotations

import heapq
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain, combinations
from os.path import commonprefix
from typing import Any

import numpy as np

__all__ = ["Speller", "common_words", "count_words", "is_token", "most_similar", "singular"]

SHORTEST, LONGER, LONGEST = 4, 9, 40
"""Letters from which a word is corrected, from which it may have two errors, and up to which it is corrected."""
COMMON = 7
"""Letters from which a word is corrected to one that the catalogue does not contain. Shorter ones are often rare words:
"caret" and "latte" would become "carpet" and "late"."""
PREFIX = 7
"""Letters of a word that are looked up; the rest is compared afterwards. Keeps the index small."""
MOST_WORDS = 1_000
"""Words of a text that are corrected; inputs of models are shorter."""
MOST_CANDIDATES = 100_000
"""Words of the catalogue that corrections are taken from, the most frequent ones."""
CACHED_WORDS = 200_000

_KEYS = {
    letter: (row, column + row / 2)
    for row, letters in enumerate(("qwertyuiop", "asdfghjkl", "zxcvbnm"))
    for column, letter in enumerate(letters)
}
"""Row and column of letters on a QWERTY keyboard, whose rows are shifted by half a key."""
_LETTERS = re.compile(r"\w+")
_ENDING = re.compile(r"(?<=[sxz])es$|(?<=[cs]h)es$|(?<!s)s$")
"""What the plural adds to a word."""
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs in texts, in lower case; what contains digits is a code.

    >>> sorted(count_words(["Tea for two", "Green tea, 100g"]).items())
    [('for', 1), ('green', 1), ('tea', 2), ('two', 1)]
    """
    words = chain.from_iterable(_LETTERS.findall(text.lower()) for text in texts)
    return Counter(word for word in words if word.isalpha())


def singular(word: str) -> str:
    """A word without the ending of the plural.

    >>> [singular(word) for word in ("stories", "glasses", "mugs", "glass", "gas")]
    ['story', 'glass', 'mug', 'glass', 'gas']
    """
    if len(word) <= 3:
        return word
    return word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else _ENDING.sub("", word)


def is_token(tokenizer: Any, word: str) -> bool:
    """Whether a tokenizer has a word as one token, as it has common words in their right spelling."""
    # Some vocabularies hold words with the space before them, or with capitals.
    written = dict.fromkeys((word, f" {word}", word.lower(), f" {word.lower()}"))
    encoded = tokenizer(list(written), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return any(len(ids) == 1 and ids[0] != tokenizer.unk_token_id for ids in encoded)


def common_words(tokenizer: Any) -> dict[str, int]:
    """Words that a tokenizer has as one token, in lower case.

    Frequent ones have larger numbers: vocabularies list them first.
    """
    vocabulary = tokenizer.get_vocab()
    # WordPiece marks what continues a word; others mark what begins one.
    marked = {mark: sum(token.startswith(mark) for token in vocabulary) for mark in "▁Ġ"}
    begins = next((mark for mark, count in marked.items() if count > len(vocabulary) / 10), "")
    found: dict[str, int] = {}
    for token, place in sorted(vocabulary.items(), key=lambda pair: pair[1]):
        word = token.removeprefix(begins).lower()
        if token.startswith(begins) and word.isalpha():
            found.setdefault(word, len(vocabulary) - place)
    return found


def most_similar(name: str, names: Sequence[str], count: int = 3, least: float = 0.4) -> list[str]:
    """The names that share most letter triples with a name, the best first; among equals the shorter ones.

    Args:
        name: for instance a misspelt one.
        names: to choose from.
        count: names to return at most.
        least: share of the triples of `name` that a name must have.

    >>> most_similar("b-17", ["b-07", "b-18", "book-17"], count=2)
    ['b-18', 'book-17']
    """
    triples = _triples(name)

    def similarity(other: str) -> tuple[float, int]:
        return len(triples & _triples(other)) / len(triples), -len(other)

    best = heapq.nlargest(count, names, key=similarity)
    return [other for other in best if similarity(other)[0] >= least]


def _triples(text: str) -> set[str]:
    padded = f"  {' '.join(text.casefold().split())} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}


class Speller:
    """Replaces words that are neither in the catalogue nor known otherwise by the nearest word.

    It is one of the catalogue, or else a common word from which a letter is missing, or has been doubled or swapped
    with the next. Other errors are not corrected to common words, nor is a missing last letter: "trimmer" is not a
    misspelt "trimmed", nor "commute" a "commuter".

    Words with digits, apostrophes or capitals inside stay as they are, and so do words of scripts without capital
    letters: in these, a letter is often a word or a syllable, and a word with another letter is another word.

    Args:
        words: words of the catalogue in lower case, and how often each occurs.
        known: whether a word needs no correction although the catalogue does not contain it.
        common: gives words of the language, in lower case, with a number that is larger for more frequent ones.

    >>> speller = Speller({"vanilla": 3, "candles": 8, "scent": 2})
    >>> speller.correct("Candels with a vanila scent!")
    'Candles with a vanilla scent!'
    """

    def __init__(
        self,
        words: Mapping[str, int],
        known: Callable[[str], bool] = lambda word: False,
        common: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.words = words
        self.known = known
        self.common = common
        self._corrections: dict[str, str] = {}

    def extended(self, words: Mapping[str, int]) -> Speller:
        """A speller with more words, which corrects as one that was made of all of them.

        Only the new words are looked at: an index of all takes longer than many requests.

        Args:
            words: words that came, in lower case, and how often each occurs.
        """
        counts = Counter(self.words)
        counts.update(words)
        other = Speller(counts, self.known, self.common)
        if "_language" in vars(self):
            other._language = self._language
        new = [word for word in words if word not in self.words and SHORTEST <= len(word) <= LONGEST]
        # If there are too many candidates, the frequent ones have to be chosen again.
        if "_index" in vars(self) and len(self._candidates) + len(new) <= MOST_CANDIDATES:
            (hashes, places), (own, place) = self._index, _indexed(new, len(self._candidates))
            where = np.searchsorted(hashes, own)
            other._candidates = [*self._candidates, *new]
            other._index = np.insert(hashes, where, own), np.insert(places, where, place)
        return other

    def correct(self, text: str) -> str:
        """The text with misspelt words replaced; capitals, punctuation and spaces stay."""
        return _WORD.sub(lambda found: self._corrected(found[0]), text, count=MOST_WORDS)

    def _corrected(self, word: str) -> str:
        if not SHORTEST <= len(word) <= LONGEST or not word.isalpha():
            return word
        correction = self._corrections.get(word)
        if correction is None:
            if len(self._corrections) >= CACHED_WORDS:
                self._corrections = {}
            correction = self._corrections[word] = self._correction(word)
        return correction

    def _correction(self, word: str) -> str:
        letters = word.lower()
        # Other mixtures of small and capital letters are names: "LaserJet", "MFCs".
        written = word in (letters, word.upper(), word.capitalize())
        if letters == word.upper() or not written or self._in_catalogue(letters):
            return word
        nearest = self.nearest(letters)
        if (nearest is None and len(letters) < COMMON) or self.known(word):
            return word
        nearest = nearest or self._common_word(letters)
        if nearest is None:
            return word
        cased = nearest.upper() if word.isupper() else nearest.capitalize() if word[0].isupper() else nearest
        return cased if cased.lower() == nearest else nearest

    def _in_catalogue(self, word: str) -> bool:
        """Whether the catalogue contains a word, its singular or its plural."""
        forms = [word, f"{word}s"] if not word.endswith("s") else [word]
        forms += [singular for singular in (_ENDING.sub("", word),) if len(singular) >= SHORTEST]
        return any(form in self.words for form in forms)

    def _common_word(self, word: str) -> str | None:
        """The common word that was meant, if it is plain."""
        meant = self._language.nearest(word)
        if meant is None or meant[0] != word[0] or _distance(word, meant) > 1:
            return None
        missing = len(meant) > len(word) and meant[:-1] != word
        return meant if missing or _is_doubled(word, meant) or _is_swapped(word, meant) else None

    @cached_property
    def _language(self) -> Speller:
        """Made when a request has a word that the catalogue does not explain: a third of a second for 20,000 words."""
        return Speller({word: count for word, count in self.common().items() if len(word) >= COMMON - 1})

    def nearest(self, word: str) -> str | None:
        """The nearest word of the catalogue.

        Of words that are equally near, the first letter decides, then whether a single slip of the finger explains the
        error, then how frequent they are.

        Args:
            word: in lower case. Up to eight letters may have one error, longer words two.

        Returns:
            `None` if no word is near enough.
        """
        errors = _errors(len(word))
        hashes, owners = self._index
        wanted = np.fromiter(map(_hash, _shortened(word[:PREFIX], errors)), np.uint32)
        starts, ends = np.searchsorted(hashes, wanted), np.searchsorted(hashes, wanted, side="right")
        places = {place for start, end in zip(starts, ends, strict=True) if start < end for place in owners[start:end]}
        best = None
        for candidate in (self._candidates[place] for place in places):
            # People rarely miss the first letter; "binder" is not a misspelt "winder".
            if abs(len(candidate) - len(word)) <= errors and candidate[0] in word[:2] and word[0] in candidate[:2]:
                distance = _distance(word, candidate)
                slipped = distance == 1 and _is_slip(word, candidate)
                rank = (distance, candidate[0] != word[0], not slipped, -self.words[candidate], candidate)
                if distance <= errors and (best is None or rank < best):
                    best = rank
        return None if best is None else best[-1]

    @cached_property
    def _candidates(self) -> list[str]:
        words = (word for word in self.words if SHORTEST <= len(word) <= LONGEST)
        return sorted(words, key=lambda word: (-self.words[word], word))[:MOST_CANDIDATES]

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """See `_indexed`."""
        return _indexed(self._candidates)


def _indexed(words: Sequence[str], first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of what is left of words without some of their letters, in order, and the place of each one's word.

    Args:
        words: of a catalogue.
        first: place of the first of them.
    """
    hashes, places = [], []
    for place, word in enumerate(words, first):
        # A word with two errors may have two letters more than the word that was meant.
        found = [_hash(shorter) for shorter in _shortened(word[:PREFIX], _errors(len(word) + 2))]
        hashes += found
        places += [place] * len(found)
    order = np.argsort(np.array(hashes, dtype=np.uint32), kind="stable")
    return np.array(hashes, dtype=np.uint32)[order], np.array(places, dtype=np.int64)[order]


def _errors(letters: int) -> int:
    """Errors that a word of so many letters may have."""
    return 1 + (letters >= LONGER)


def _shortened(word: str, errors: int) -> set[str]:
    """A word without up to so many of its letters."""
    return {"".join(left) for count in range(errors + 1) for left in combinations(word, max(len(word) - count, 0))}


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


def _is_slip(typed: str, meant: str) -> bool:
    """Whether a letter is missing, doubled, swapped with the next or the key beside it, in words of distance 1."""
    if len(typed) != len(meant):
        return len(typed) < len(meant) or _is_doubled(typed, meant)
    if _is_swapped(typed, meant):
        return True
    place = len(commonprefix([typed, meant]))
    wrong, right = typed[place], meant[place]
    if wrong not in _KEYS or right not in _KEYS:
        return False
    return all(abs(one - other) <= 1 for one, other in zip(_KEYS[wrong], _KEYS[right], strict=True))


def _is_doubled(typed: str, meant: str) -> bool:
    """Whether a letter is twice in a row that should be there once, in words of distance 1."""
    place = len(commonprefix([typed, meant]))
    return len(typed) > len(meant) and typed[place] == typed[place - 1]


def _is_swapped(typed: str, meant: str) -> bool:
    """Whether a letter changed places with the next, in words of distance 1."""
    place = len(commonprefix([typed, meant]))
    return len(typed) == len(meant) and typed[place : place + 2] == meant[place : place + 2][::-1]


def _distance(first: str, second: str) -> int:
    """Damerau-Levenshtein distance in which no letter is edited twice ("optimal string alignment").

    >>> _distance("candels", "candles"), _distance("vanila", "vanilla"), _distance("ca", "abc")
    (1, 1, 3)
    """
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(second, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
