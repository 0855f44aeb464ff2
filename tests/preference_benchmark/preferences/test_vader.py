"""Our order of VADER's rules gives VADER's own scores: on generated text, and on real reviews where there are any."""

from __future__ import annotations

import itertools

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from preference_benchmark.preferences.vader import analyzer, compound
from preference_benchmark.preferences.words import clauses
from preference_benchmark.sources import read_source

# Every word that some rule of VADER knows, and some that none does.
WORDS = """
good bad GREAT awful love hate no not never so this without doubt least at very but kind of sort just enough or nor
isn't cannot kinda extremely SLIGHTLY nothing shit the bomb bus stop yeah right mug Mug MUG a :) :( :D ok ok, great!
"terrible" (nice) wow?! ??? ! lol despite rarely too only was more less barely
""".split()


def by_vader(texts: list[str]) -> list[float]:
    return [analyzer().polarity_scores(text)["compound"] for text in texts]


@tries(150)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=12))
def test_scores_are_vaders_own(texts):
    assert compound(pl.Series(texts, dtype=pl.String)).to_list() == by_vader(texts)


@tries(100)
@given(st.lists(st.text(max_size=40) | st.text("good bad!?,.'no NOT but\t", max_size=60), max_size=6))
def test_any_text_has_vaders_own_score(texts):
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    assert compound(pl.Series(texts, dtype=pl.String)).to_list() == by_vader(texts)


def test_texts_do_not_depend_on_each_other():
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
    reviews = read_source("amazon2014", real_data / "amazon2014_musical_instruments").interactions["review"]
    texts = pl.concat(
        [
            reviews.head(600),
            reviews.head(600).to_frame("text").select(clauses(pl.col("text"))).explode("text")["text"].alias("review"),
        ]
    )
    assert compound(texts).to_list() == by_vader(texts.to_list())
