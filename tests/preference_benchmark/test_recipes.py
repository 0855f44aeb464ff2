"""Recipes: what the paper and each source ask for, and what may be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from preference_benchmark.axes.protocol import PAPER, Protocol
from preference_benchmark.recipes import RECIPES, recipe
from preference_benchmark.sources import SOURCES


def test_recipes_follow_the_paper_where_it_differs():
    assert recipe("steam").protocol.candidates == "earlier_steps"
    assert recipe("beauty").protocol.described_by == ("title",)
    assert recipe("beauty").config_names() == {"beauty": "oracle", "beauty-last": "last", "beauty-items": "items"}
    assert not recipe("movielens").may_publish and not recipe("yelp").may_publish


def test_every_source_has_a_recipe_of_its_name():
    assert {*SOURCES} <= {*RECIPES} and {"beauty", "sports", "toys"} <= {*RECIPES}
    assert all(RECIPES[source].source == source for source in SOURCES)


def test_own_tables_keep_users_with_three_purchases_and_all_items():
    assert recipe("my-shop", source="table", data="shop").protocol == Protocol(min_user=3, min_item=1)
    assert all(found.protocol.min_item == 5 for name, found in RECIPES.items() if name != "table")


def test_fields_of_recipe_and_protocol_are_changed_alike():
    found = recipe("steam", data="raw/steam", seed=3, min_user=None, options={"undated": "last"}, title=None)
    assert found.data == Path("raw/steam") and found.options == {"undated": "last"} and found.title == "Steam"
    assert found.protocol == RECIPES["steam"].protocol.replace(seed=3)
    assert recipe("corner-shop", options={"num_users": 9}).options == {"num_users": 9, "num_items": 240}
    mine = recipe("my-steam", source="steam", data="raw")
    assert (mine.name, mine.protocol) == ("my-steam", RECIPES["steam"].protocol)


def test_the_papers_protocol_keeps_what_a_recipe_needs():
    assert recipe("steam", protocol="paper").protocol == PAPER.replace(
        candidates="earlier_steps", described_by=("title", "tags", "genres")
    )
    assert recipe("toys", protocol=Protocol(seed=2)).protocol == Protocol(seed=2)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("amazon", {}, "'amazon' is not known; choose one of .*'steam'.* or pass a source"),
        ("My Shop", {"source": "table"}, "name='My Shop' cannot name a config"),
        ("shop-items", {"source": "table"}, "neither of the endings"),
        ("shop", {"source": "yahoo"}, "source 'yahoo' is not known"),
        ("steam", {"source": "yahoo"}, "source 'yahoo' is not known"),
        ("steam", {"protocol": "mine"}, "protocol='mine' is not known"),
        ("steam", {"seeds": 1}, "a recipe has no field 'seeds'; fields of recipe and protocol are"),
        ("steam", {"options": {"min_user": 3}}, r"options has 'min_user', which is a field of the protocol; set it"),
    ],
)
def test_bad_recipes_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(name, **changes)
