"""Popularity counts only the training period; shuffling exchanges preferences and nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from preference_benchmark.axes.controls import popularity_ranking, shuffle_preferences
from preference_benchmark.axes.examples import EXAMPLE_FEATURES
from preference_benchmark.sources.corner_shop import corner_shop

AXES = ("recommendation", "fine_grained_steering", "sentiment_following")


@pytest.fixture(scope="module")
def tables():
    return corner_shop(num_users=80, num_items=40, seed=3).tables


def test_popularity_equals_counting_by_hand(tables):
    bought = {}
    for row in tables.interactions.iter_rows(named=True):
        bought.setdefault(row["user_id"], []).append(row["item_id"])
    counts = Counter(item for items in bought.values() for item in items[:-2])
    histories = [items[:-1] for items in bought.values()]
    for ranking, history in zip(popularity_ranking(tables, histories, 5), histories, strict=True):
        unseen = [item for item in counts if item not in history]
        assert ranking == sorted(unseen, key=lambda item: (-counts[item], item))[:5]


def examples(rows: int) -> Dataset:
    """Three axes; on sentiment following, row 2 i and 2 i + 1 are a pair."""
    generator = np.random.default_rng(0)
    found = []
    for row, axis in enumerate(generator.choice(AXES, rows).tolist()):
        paired = axis == "sentiment_following"
        for sentiment in ("positive", "negative") if paired else ("positive",):
            found.append(
                {
                    "axis": axis,
                    "kind": "stated",
                    "user_id": f"u{row}",
                    "history": [f"i{row}"],
                    "preferences": [f"p{row}-{sentiment}"],
                    "avoid": [],
                    "sentiment": sentiment,
                    "targets": [f"t{row}"],
                    "pair_id": row if paired else -1,
                }
            )
    return Dataset.from_list(found, features=EXAMPLE_FEATURES)


def test_everybody_gets_the_preferences_of_another():
    before = examples(60)
    after = shuffle_preferences(before, seed=1)
    assert after.features == before.features and after.column_names == before.column_names
    for name in set(before.column_names) - {"preferences"}:
        assert after[name][:] == before[name][:]
    given, own = after["preferences"][:], before["preferences"][:]
    assert all(new != old for new, old in zip(given, own, strict=True))
    for axis in AXES:
        rows = [row for row, value in enumerate(before["axis"]) if value == axis]
        assert sorted(given[row] for row in rows) == sorted(own[row] for row in rows)


def test_both_halves_of_a_pair_come_from_the_same_pair():
    before = examples(60)
    after = shuffle_preferences(before, seed=2)
    received = {}
    for pair, sentiment, texts in zip(after["pair_id"], after["sentiment"], after["preferences"], strict=True):
        if pair >= 0:
            source, own_sentiment = texts[0].removeprefix("p").split("-")
            assert own_sentiment == sentiment
            received.setdefault(pair, set()).add(source)
    assert received and all(len(sources) == 1 for sources in received.values())
