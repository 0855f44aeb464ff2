from __future__ import annotations

import pytest

from preference_benchmark.axes.protocol import AXES, PAPER, Protocol
from preference_benchmark.recipes import RECIPES, recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": ["steering"]}, "axes: 'steering' is not known; pass some of"),
        ({"matching": []}, "matching: .* is not known"),
        ({"matching": "oracle"}, "matching: 'oracle'"),
        ({"pool": "every"}, r"pool='every' is not known; choose one of \['training', 'all'\]"),
        ({"user_stride": 0}, "user_stride=0 is not positive"),
        ({"evaluation_ranks": (0, 3)}, r"evaluation_ranks=\(0, 3\) must be two ranks"),
        ({"described_by": "title"}, "described_by='title' must name columns"),
        ({"seeds": 1}, "no field 'seeds'; its fields are"),
    ],
)
def test_bad_choices_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Protocol().replace(**changes)


def test_assignments_have_the_types_of_their_fields():
    found = Protocol().parsed(
        ["seed=7", "axes=history_consolidation, recommendation", "evaluation_ranks=1,2", "classifier=some/model"]
    )
    assert found == Protocol(
        seed=7, axes=("recommendation", "history_consolidation"), evaluation_ranks=(1, 2), classifier="some/model"
    )
    assert found.parsed(["classifier=none"]).classifier is None
    for wrong in ("seed", "seed=x", "sed=1"):
        with pytest.raises(ValueError, match="seed|sed"):
            Protocol().parsed([wrong])


def test_axes_keep_the_order_of_the_class_label():
    assert Protocol(axes=tuple(reversed(AXES))).axes == AXES
    assert PAPER.leaks == "flag"


def test_recipes_follow_the_paper_where_it_differs():
    assert recipe("steam").protocol.candidates == "earlier_steps"
    assert recipe("beauty").protocol.described_by == ("title",)
    assert recipe("beauty").config_names() == {"beauty": "oracle", "beauty-last": "last", "beauty-items": "items"}
    assert not recipe("movielens").may_publish
    assert {"beauty", "sports", "toys", "steam", "yelp", "movielens", "corner-shop", "custom"} == set(RECIPES)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("amazon", {}, "'amazon' is not known; choose one of .*'steam'.* or pass a source"),
        ("My Shop", {"source": "table"}, "name='My Shop' cannot name a config"),
        ("shop-items", {"source": "table"}, "with none of the endings"),
        ("steam", {"source": "yahoo"}, "source 'yahoo' is not known"),
    ],
)
def test_bad_recipes_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(name, **changes)
