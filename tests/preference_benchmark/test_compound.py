from __future__ import annotations

import itertools

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preference_benchmark.preferences.vader import analyzer, compound

# Every word that some rule of VADER knows, and some that none does.
WORDS = """
good bad GREAT awful love hate no not never so this without doubt least at very but kind of sort just enough or nor
isn't cannot kinda extremely SLIGHTLY nothing shit the bomb bus stop yeah right mug Mug MUG a :) :( :D ok ok, great!
"terrible" (nice) wow?! ??? ! lol despite rarely too only was more less barely
""".split()


def by_vader(texts: list[str]) -> list[float]:
    return [analyzer().polarity_scores(text)["compound"] for text in texts]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=12))
def test_scores_are_vaders_own(texts):
    assert compound(pl.Series(texts, dtype=pl.String)).to_list() == by_vader(texts)


def test_texts_know_nothing_of_each_other():
    texts = list(itertools.chain.from_iterable(itertools.product(WORDS, WORDS)))
    assert compound(pl.Series(texts)).to_list() == by_vader(texts)


def test_all_neighbours_of_a_judging_word():
    before = [
        "",
        "never so",
        "without a doubt",
        "no bad or",
        "not very",
        "least",
        "at least",
        "kind of",
        "just enough",
        "SO",
    ]
    after = ["", "but bad", "!!!!!", "??", "but good but good", "NO good"]
    texts = [
        f"{left} {word} {right}" for left, word, right in itertools.product(before, ("good", "GOOD", "bad"), after)
    ]
    assert compound(pl.Series(texts)).to_list() == by_vader(texts)


@pytest.mark.parametrize(
    "text", ["", "   ", "\x1c", "a\x1fgood", "good\u2028bad", "\U0001f600love\U0001f498", "İ good", "ß"]
)
def test_odd_characters(text):
    assert compound(pl.Series([text])).to_list() == by_vader([text])


def test_real_reviews(real_data):
    from preference_benchmark.sources import read_source

    folder = real_data / "amazon2018_gift_cards"
    texts = read_source("amazon2018", folder).interactions["review"].unique().sort().head(600)
    assert compound(texts).to_list() == by_vader(texts.to_list())
