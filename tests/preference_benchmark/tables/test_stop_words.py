"""One list of words that describe no item, in parts that do not overlap."""

from __future__ import annotations

import itertools

from preference_benchmark.tables.stop_words import ABSTRACT_NOUNS, FUNCTION_WORDS, HEADS, REVIEW_WORDS, stop_words


def test_no_word_is_listed_twice():
    for one, other in itertools.combinations((FUNCTION_WORDS, REVIEW_WORDS, HEADS, ABSTRACT_NOUNS), 2):
        assert not one & other
    assert all(word.islower() for word in FUNCTION_WORDS | REVIEW_WORDS | HEADS | ABSTRACT_NOUNS)


def test_words_that_describe_are_not_listed():
    describing = set(
        "lavender wooden warm soft thick thin front sturdy solid quick vegan adventure story stand life".split()
    )
    assert not describing & stop_words()
    assert {"the", "wouldn't", "bought", "wife", "great", "broken"} <= stop_words()
