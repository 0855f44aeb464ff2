"""What is shown of a benchmark: real shoppers without names, sentences people wrote, nothing twice."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset, Features, List, Value

from mender.showcase import MAX_ATTRIBUTES, TYPED, save_showcase, showcase
from preference_benchmark.axes.examples import EXAMPLE_FEATURES
from preference_benchmark.preferences.polarity import POSITIVE

ITEMS = [f"item-{number}" for number in range(30)]


def items(aspects=True):
    table, features = {"item_id": ITEMS}, {"item_id": Value("string")}
    if aspects:
        table["aspects"] = [[f"phrase {place}" for place in range(row % 10)] for row in range(len(ITEMS))]
        features["aspects"] = List(Value("string"))
    return Dataset.from_dict(table, features=Features(features))


def examples(users=40):
    def row(axis, user, texts, history):
        return {
            "axis": axis,
            "kind": "stated",
            "user_id": f"secret-{user}",
            "history": history,
            "preferences": texts,
            "avoid": [],
            "sentiment": POSITIVE,
            "targets": ITEMS[:1],
            "pair_id": -1,
            "stratum": "",
            "avoided": [],
        }

    rows = []
    for user in range(users):
        history = [ITEMS[(user + step) % 30] for step in range(3 + user % 9)]
        rows.append(row("recommendation", user, [f"Find tea with flavour{user % 25:02}"], history))
        rows.append(row("coarse_grained_steering", user, [f"Look for lamps with shade{user % 10}"], history))
        rows.append(row("history_consolidation", user, [f"No lamps of user{user}"], history))
    return Dataset.from_list(rows, features=EXAMPLE_FEATURES)


@pytest.fixture(scope="module")
def shown():
    return showcase(items(), examples(), histories=True)


def test_shoppers_differ_and_go_from_long_histories_to_short(shown):
    shoppers = shown["shoppers"]
    assert 1 < len(shoppers) <= 12
    lengths = [len(shopper["history"]) for shopper in shoppers]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1]
    for values in ([shopper["history"][-1] for shopper in shoppers], [shopper["preference"] for shopper in shoppers]):
        assert len(set(values)) == len(values)
    assert {item for shopper in shoppers for item in shopper["history"]} <= set(ITEMS)


def test_no_user_is_named(shown):
    assert "secret" not in json.dumps(shown)


def test_the_corner_shop_opens_with_what_its_customers_type():
    assert showcase(items(), examples(), source="corner-shop")["sentences"] == list(TYPED["corner-shop"])


def test_attributes_are_few_and_never_empty(shown):
    assert all(1 <= len(phrases) <= MAX_ATTRIBUTES for phrases in shown["attributes"].values())
    assert set(shown["attributes"]) == {item for row, item in enumerate(ITEMS) if row % 10}


def test_what_a_source_does_not_know_is_left_out():
    alone = examples().select([0, 3])
    assert showcase(items(aspects=False), alone)["attributes"] == {}
    assert showcase(items(), alone)["sentences"] == []
    assert len(showcase(items(), alone, histories=True)["shoppers"]) == 2


def test_the_order_of_the_examples_does_not_matter(shown):
    assert showcase(items(), examples().select(range(119, -1, -1)), histories=True) == shown


def test_the_file_is_there_whole(tmp_path, shown):
    path = save_showcase(tmp_path / "new" / "model", items(), examples(), histories=True)
    assert json.loads(path.read_text("utf-8")) == shown
    assert [file.name for file in path.parent.iterdir()] == ["showcase.json"]


def test_histories_are_written_only_where_they_are_asked_for(tmp_path, shown):
    path = save_showcase(tmp_path, items(), examples())
    content = json.loads(path.read_text("utf-8"))
    assert content == shown | {"shoppers": []} and "history" not in path.read_text("utf-8")
