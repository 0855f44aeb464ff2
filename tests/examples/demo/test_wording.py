"""What is to be avoided reaches the model in the benchmark's own words."""

from __future__ import annotations

import doctest
import importlib

import polars as pl
import pytest
from wording import avoid_sentence, telling_words

from preference_benchmark.preferences.extractive import sentences
from preference_benchmark.preferences.polarity import NEGATIVE, preference_polarity


@pytest.mark.parametrize("name", ["comparison", "title_search", "wording"])
def test_examples_in_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted and not outcome.failed


@pytest.mark.parametrize("typed", ["vanilla scent", "Vanilla", "candles with amber glass", "notebooks", "nothingness"])
def test_a_plain_phrase_becomes_a_sentence_that_the_benchmark_calls_negative(typed):
    assert avoid_sentence(typed) == f"Avoid {typed}"
    assert preference_polarity(pl.Series([avoid_sentence(typed)])).to_list() == [NEGATIVE]


def test_negative_sentences_of_the_benchmark_stay_as_they_are():
    rows = pl.DataFrame(
        {"row": range(3), "before": [["soy"]] * 3, "after": [["rose scent"]] * 3, "noun": ["candles"] * 3}
    )
    rows = rows.with_columns(negative=True, variant=pl.int_range(3), repeat=-1)
    written = sentences(rows, "products").to_list()
    assert len(set(written)) == 3
    assert [avoid_sentence(text) for text in written] == written


@pytest.mark.parametrize("typed", ["no perfume", "I don't want wool", "please skip wool", "without sugar"])
def test_whoever_says_no_need_not_say_it_twice(typed):
    assert avoid_sentence(typed) == typed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Avoid candles with rose scent or oil-free formula", ["rose scent", "oil free formula"]),
        ("Avoid formula", ["formula"]),
        ("Avoid everything", []),
        ("Avoid the candles", []),
    ],
)
def test_telling_words(text, found):
    counts = {"formula": 5, "candles": 50, "rose": 2}
    assert telling_words(text, {"rose scent", "oil free formula"}, lambda word: counts.get(word, 0), 100) == found
