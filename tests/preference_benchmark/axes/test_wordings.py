"""The grammar of wishes: nothing shared between splits, forms respected, misspellings that keep apart."""

from __future__ import annotations

import itertools
import re

import numpy as np
import polars as pl
import pytest

from preference_benchmark.axes.wordings import WORDINGS, misspellings
from preference_benchmark.preferences.grammar import FORMS, NOUN_FORMS

ATTRIBUTE = "qqq"  # one word, which no template has
SPLITS = tuple(WORDINGS)


def every_text(split: str) -> list[str]:
    """All that the grammar of a split can say: every template with one to three attributes of every form."""
    grammar = WORDINGS[split]
    templates = np.arange(grammar.templates.height)
    texts = []
    for number in (1, 2, 3):
        for forms in itertools.combinations_with_replacement(FORMS, number):
            attributes = pl.Series([[ATTRIBUTE] * number] * len(templates))
            texts += grammar.wishes(attributes, pl.Series([list(forms)] * len(templates)), templates).to_list()
    return texts + [template.replace("{x}", ATTRIBUTE) for found in grammar.avoid.values() for template in found]


def trigrams(texts: list[str]) -> set[tuple[str, ...]]:
    words = [re.findall(r"[a-z0-9']+", text.lower()) for text in texts]
    return {tuple(found[n : n + 3]) for found in words for n in range(len(found) - 2)}


TEXTS = {split: every_text(split) for split in SPLITS}


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(SPLITS, 2)))
def test_splits_share_neither_three_words_in_a_row_nor_a_text(one, other):
    assert not trigrams(TEXTS[one]) & trigrams(TEXTS[other])
    assert not set(TEXTS[one]) & set(TEXTS[other])


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_dozens_of_templates_and_each_names_the_attribute(split):
    assert WORDINGS[split].templates.height >= 48
    assert all(ATTRIBUTE in text and "{" not in text for text in TEXTS[split])


@pytest.mark.parametrize("split", SPLITS)
def test_articles_stand_before_countable_nouns_alone(split):
    framed = WORDINGS[split].templates.with_row_index("row").filter(pl.col("style").is_not_null())
    for form, phrase, with_article in (("count", "lid", "a lid"), ("count", "airtight lid", "an airtight lid")):
        rows = framed["row"].to_numpy()
        said = WORDINGS[split].wishes(pl.Series([[phrase]] * len(rows)), pl.Series([[form]] * len(rows)), rows)
        assert said.str.contains(rf"\b{with_article}\b").all()
    mass = WORDINGS[split].wishes(pl.Series([["oak"]]), pl.Series([["mass"]]), [int(framed["row"][0])]).item()
    assert not re.search(r"\ban? oak\b", mass)


def test_verbs_agree_with_what_is_asked_for():
    forms = pl.Series([["kinds", "mass"], ["kind", "mass"]])
    attributes = pl.Series([["straps", "leather"], ["strap", "leather"]])
    frame = (
        WORDINGS["train"]
        .templates.with_row_index("row")
        .filter((pl.col("frame") == "{thing}") & (pl.col("style") == 1))
    )
    several, one = WORDINGS["train"].wishes(attributes, forms, [frame["row"][0]] * 2)
    assert several == "other straps that have leather" and one == "another strap that has leather"


def test_templates_around_nouns_are_marked():
    templates = WORDINGS["test"].templates
    assert templates.filter(pl.col("about"))["style"].is_null().all()
    assert {"mass", "count", "kind", "kinds"} == set(NOUN_FORMS)


@pytest.mark.parametrize("phrase", ["lavender scent", "oak wood", "gluten-free"])
def test_a_misspelling_is_one_slip_in_a_long_word_and_belongs_to_one_split(phrase):
    found = {split: set(misspellings(phrase, split)) for split in SPLITS}
    every = set().union(*found.values())
    assert sum(map(len, found.values())) == len(every) >= 15 and phrase not in every
    for text in every:
        assert abs(len(text) - len(phrase)) <= 1 and text[0] == phrase[0]
        changed = [n for n, (one, other) in enumerate(zip(text, phrase, strict=False)) if one != other]
        same_length = len(text) == len(phrase)
        assert len(changed) <= 2 if same_length else True
        assert sorted(text) != sorted(phrase) or (same_length and len(changed) == 2)  # a swap, else other letters


def test_short_words_are_not_misspelt():
    assert misspellings("rpg", "test") == [] and misspellings("fps", "train") == []


def test_a_phrase_to_avoid_names_its_attribute_in_the_words_of_the_split():
    forms = pl.Series(list(FORMS))
    for split in SPLITS:
        said = WORDINGS[split].avoided(pl.Series([ATTRIBUTE] * len(FORMS)), forms, np.linspace(0, 0.99, len(FORMS)))
        assert said.str.contains(ATTRIBUTE, literal=True).all() and not said.str.contains("{", literal=True).any()
