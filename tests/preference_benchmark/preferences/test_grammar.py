"""Grammatical forms of attributes."""

from __future__ import annotations

import polars as pl
import pytest

from preference_benchmark.preferences.grammar import (
    grammatical_forms,
    in_plural,
    is_plural,
    relative_clauses,
    with_article,
)
from preference_benchmark.sources.corner_shop_goods import FACETS


@pytest.mark.parametrize(
    ("form", "phrases"),
    [
        ("count", ["lavender scent", "glass jar", "great soundtrack", "crackling wick"]),
        ("mass", ["organic cotton", "zombies", "oak wood", "beeswax", "crafting"]),
        ("adjective", ["gluten-free", "atmospheric", "turn-based", "story rich", "open world", "funny", "refillable"]),
        ("clause", ["easy to clean", "based on a novel", "safe for children", "made from bamboo"]),
        ("kind", ["rpg", "card game", "walking simulator", "visual novel"]),
    ],
)
def test_common_attributes_have_the_form_that_people_use(form, phrases):
    assert grammatical_forms(pl.Series(phrases)).to_list() == [form] * len(phrases)


def test_known_kinds_are_kinds_in_singular_and_plural():
    assert grammatical_forms(pl.Series(["capo", "guitar straps"]), pl.Series([True, True])).to_list() == [
        "kind",
        "kinds",
    ]


def test_attributes_of_the_corner_shop_are_nouns():
    phrases = pl.Series([phrase for facet in FACETS.values() for phrase in facet.aspects])
    assert set(grammatical_forms(phrases)) == {"count", "mass"}


def test_articles_follow_the_sound():
    words = pl.Series(["umbrella", "unicorn theme", "fps", "mmorpg", "moba", "elastic closure"])
    said = pl.select(with_article(words)).to_series().to_list()
    assert said == ["an umbrella", "a unicorn theme", "an fps", "an mmorpg", "a moba", "an elastic closure"]


def test_what_many_things_do():
    phrases = pl.Series(["easy to clean", "breaks easily", "has a lid", "doesn't fade", "works", "lens cover", "red"])
    said = relative_clauses(phrases, grammatical_forms(phrases)).to_list()
    assert said == ["are easy to clean", "break easily", "have a lid", "don't fade", None, None, None]


def test_plurals_are_plural():
    nouns = pl.Series(["gel pen", "shelf", "box", "brush", "battery", "toy", "brass"])
    many = pl.select(in_plural(nouns)).to_series()
    assert many.to_list() == ["gel pens", "shelves", "boxes", "brushes", "batteries", "toys", "brasses"]
    assert pl.select(is_plural(many)).to_series().all()
    assert pl.select(in_plural(pl.Series(["strings", "scissors"]))).to_series().to_list() == ["strings", "scissors"]
    assert not pl.select(is_plural(pl.Series(["glass jar", "bonus"]))).to_series().any()
