"""What a person types, as the sentences that models were trained on.

The benchmark says no in a sentence of its own that starts with "Avoid", "Exclude" or "No", and several preferences of
one person are joined: "Find tea. Avoid vanilla". So what is typed under "avoid" becomes such a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container

from title_search import words_of

__all__ = ["avoid_sentence", "telling_words", "wish_sentences"]

SAYS_NO = re.compile(
    r"""(?ix) ^\s* (?:(?:please|i|i\ really)\s+)?
    (?:avoid|exclude|no|not|without|never|nothing|skip|hate|dislike|do\ not|don['’]?t) \b"""
)
FUNCTION_WORDS = frozenset(
    "a about an and any anything are at avoid by do don exclude for from hate dislike i in is it me more my never no"
    " not nothing of on or other please really skip some something t that the things this to too very want with"
    " without".split()
)
COMMON = 0.1
"""A word that more than this share of the items mention tells nothing about the few that are ranked."""


def wish_sentences(text: str) -> list[str]:
    r"""One preference per line.

    >>> wish_sentences("Find tea\n\n in tins ")
    ['Find tea', 'in tins']
    """
    return [line.strip() for line in text.splitlines() if line.strip()]


def avoid_sentence(text: str) -> str:
    """The sentence that says no; empty where nothing is to be avoided.

    >>> avoid_sentence("vanilla scent"), avoid_sentence("Exclude candles"), avoid_sentence(" ")
    ('Avoid vanilla scent', 'Exclude candles', '')
    """
    text = " ".join(text.split())
    return text if not text or SAYS_NO.match(text) else f"Avoid {text}"


def telling_words(
    text: str, phrases: Container[str], mentioned_by: Callable[[str], int], items: int, longest: int = 6
) -> list[str]:
    """What to look for in ranked items, to see whether what is to be avoided comes back. The model never sees it.

    Attribute phrases that stand in the text; where there are none, words that some items mention, but not every tenth.

    Args:
        text: what is to be avoided.
        phrases: attributes of the catalogue, as `words_of` joined by spaces.
        mentioned_by: how many items mention a word.
        items: number of items.
        longest: words of a phrase at most.

    >>> telling_words("Avoid tea with an oil-free formula", {"oil free formula"}, lambda word: 1, 100)
    ['oil free formula']
    >>> telling_words("Avoid tea", (), lambda word: 3, 100)
    ['tea']
    """
    words = words_of(text)
    runs = [" ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, start + 1 + longest)]
    found = [run for run in dict.fromkeys(runs) if run in phrases]
    if found:
        return [
            phrase for phrase in found if not any(f" {phrase} " in f" {other} " for other in found if other != phrase)
        ]
    words = [word for word in dict.fromkeys(words) if word not in FUNCTION_WORDS and len(word) > 2]
    return [word for word in words if 0 < mentioned_by(word) <= max(1, COMMON * items)]
