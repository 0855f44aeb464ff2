from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from benchmark_doubles import HashEmbedder, random_preferences, random_tables

from preference_benchmark.preferences.quality import compare, polarity_agreement
from preference_benchmark.preferences.retrieval import (
    last_item,
    nearest_preference,
    other_users,
    popularity,
    queries_after,
    uniform,
)
from preference_benchmark.tables import Tables


def next_item_texts(tables: Tables) -> pl.DataFrame:
    """Preferences that are the text of the very next item, and one of no use."""
    text = tables.items.select("item_id", "text")
    ahead = tables.interactions.join(text, on="item_id").with_columns(pl.col("step") - 1).filter(pl.col("step") >= 0)
    rows = pl.concat(
        [ahead.with_columns(rank=pl.lit(0)), ahead.with_columns(rank=pl.lit(1), text=pl.lit("Find stars"))]
    )
    return rows.select("user_id", "step", "rank", "text", sentiment=pl.lit("positive")).sort("user_id", "step", "rank")


def test_ranks_are_those_of_a_loop():
    tables = random_tables(0)
    preferences = random_preferences(tables, 0)
    embedder = HashEmbedder()
    at = queries_after(tables, tables.interactions.select("user_id", "step"))
    ranks = nearest_preference(at, preferences, tables, embedder)
    items = embedder.encode(tables.items["text"])
    ids = tables.items["item_id"].to_list()
    for place, (user, step) in enumerate(at.frame.iter_rows()):
        history = tables.interactions.filter((pl.col("user_id") == user) & (pl.col("step") <= step)).sort("step")[
            "item_id"
        ]
        mine = preferences.filter((pl.col("user_id") == user) & (pl.col("step") == step - 1))
        positive = mine.filter(sentiment="positive")["text"].to_list()
        if not positive:
            continue
        scores = (embedder.encode(positive) @ items.T).max(axis=0)
        target = ids.index(history[-1])
        seen = {ids.index(item) for item in history[:-1]}
        better = sum(scores[row] > scores[target] for row in range(len(ids)) if row not in seen)
        assert ranks.rank[place] == 1 + better
        assert ranks.candidates[place] == len(ids) - len(seen)


def test_knowing_the_next_item_beats_all_controls():
    tables = random_tables(1, users=30, rows=400)
    found = compare({"oracle": next_item_texts(tables)}, tables, HashEmbedder(), targets="all")
    assert found.retrieval["oracle"].median_rank == 1
    assert found.retrieval["oracle"].values["share ranked before"][0] < 0.05
    for control in ("random", "oracle, of another user"):
        mean, low, high = found.retrieval[control].values["share ranked before"]
        assert low < 0.5 < high and low < mean < high
    assert found.lift["oracle"]["MRR"][1] > 0.3


def test_chance_is_chance():
    tables = random_tables(2, users=60, items=40, rows=1_200)
    at = queries_after(tables, tables.interactions.select("user_id", "step"))
    ranks = uniform(at, 0)
    assert ranks.recall(10).mean() == pytest.approx((10 / ranks.candidates).mean(), abs=0.05)
    assert ranks.share_before().mean() == pytest.approx(0.5, abs=0.03)
    assert popularity(at, tables).rank.min() >= 1
    assert len(last_item(at, tables, HashEmbedder()).rank) == len(at.target)


@pytest.mark.parametrize("seed", range(3))
def test_exchange_gives_everybody_somebody_elses(seed):
    tables = random_tables(seed)
    at = queries_after(tables, tables.interactions.select("user_id", "step"))
    source = other_users(at, seed)
    assert (at.user[source] != at.user).all()
    assert len(np.unique(at.user[source])) == len(np.unique(at.user))


def test_agreement_with_ratings():
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "text": ["A", "B"], "aspects": [[], []]})
    rows = {"user_id": ["u"] * 2, "step": [0, 1], "item_id": ["a", "b"], "timestamp": [0, 1], "rating": [5.0, 1.0]}
    tables = Tables(items, pl.DataFrame(rows | {"review": ["soft", "loud"]}), random_tables(0).report)

    class Words:
        def encode(self, texts):
            vectors = np.array(
                [["soft" in text.lower(), "loud" in text.lower(), 0.1] for text in texts], dtype=np.float32
            )
            vectors = vectors.reshape(-1, 3)
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def of(*wishes: tuple[str, str]) -> pl.DataFrame:
        texts, sentiments = zip(*wishes, strict=True)
        return pl.DataFrame(
            {"user_id": "u", "step": 1, "rank": range(len(texts)), "text": texts, "sentiment": sentiments}
        )

    right = of(("Find soft pens", "positive"), ("Avoid loud pens", "negative"))
    wrong = of(("Avoid soft pens", "negative"), ("Find loud pens", "positive"))
    blind = of(("Find soft pens", "positive"), ("Find loud pens", "positive"))
    assert polarity_agreement(right, tables, Words()) == (1.0, 1.0, 2)
    assert polarity_agreement(wrong, tables, Words()) == (0.0, 0.0, 2)
    assert polarity_agreement(blind, tables, Words()) == (0.5, 0.5, 2)


def test_tables_are_compared_where_all_of_them_speak(tmp_path):
    tables = random_tables(3, users=20, rows=260)
    whole = random_preferences(tables, 0)
    part = random_preferences(tables, 1).filter(pl.col("user_id") < "user-08")
    reports = {"part": {"users": 8, "cost": 0.4, "seconds": 16.0}}
    found = compare({"whole": whole, "part": part}, tables, HashEmbedder(), reports=reports)
    users = part["user_id"].n_unique()
    assert (found.users, found.targets) == (users, 2 * users)
    assert found.described["part"]["$ per 1,000 users"] == 50 and "s per 1,000 users" not in found.described["whole"]
    printed = str(found)
    assert "whole, of another user" in printed and "redundancy" in printed and "popularity" in printed
    assert json.loads(json.dumps(found.record(), allow_nan=False))["targets"] == found.targets
    found.draw(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"found.png"}
    again = compare({"whole": whole, "part": part}, tables, HashEmbedder(), reports=reports)
    assert str(again) == printed


def test_what_cannot_be_compared_is_refused():
    tables = random_tables(4)
    preferences = random_preferences(tables, 0)
    with pytest.raises(ValueError, match="step in common"):
        compare({"other": preferences.with_columns(user_id=pl.lit("nobody"))}, tables, HashEmbedder())
    with pytest.raises(ValueError, match="held-out"):
        compare({"x": preferences}, tables, HashEmbedder(), targets="some")
    with pytest.raises(ValueError, match="two or more"):
        compare({"one": preferences.filter(user_id=preferences["user_id"][0])}, tables, HashEmbedder())
