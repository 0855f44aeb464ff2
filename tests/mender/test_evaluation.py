"""Shuffling exchanges what users want, and nothing else."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from mender.evaluation import shuffle_preferences
from preference_benchmark.axes.examples import EXAMPLE_FEATURES

AXES = ("recommendation", "fine_grained_steering", "sentiment_following")


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
                    "avoid": [f"a{row}-{sentiment}"],
                    "sentiment": sentiment,
                    "targets": [f"t{row}"],
                    "pair_id": row if paired else -1,
                    "stratum": "",
                    "avoided": [],
                }
            )
    return Dataset.from_list(found, features=EXAMPLE_FEATURES)


def test_everybody_gets_the_preferences_of_another():
    before = examples(60)
    after = shuffle_preferences(before, seed=1)
    assert after.features == before.features and after.column_names == before.column_names
    for name in set(before.column_names) - {"preferences", "avoid"}:
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
    assert [texts[0][1:] for texts in after["preferences"]] == [texts[0][1:] for texts in after["avoid"]]
    assert received and all(len(sources) == 1 for sources in received.values())
