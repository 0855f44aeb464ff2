"""Sentiment pairs agree with their rules, applied to one item at a time."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import HashEmbedder, histories, named, random_preferences, random_tables, split_of
from polars.testing import assert_frame_equal

from preference_benchmark.axes.next_item import match
from preference_benchmark.axes.protocol import Protocol
from preference_benchmark.axes.sentiment import sentiment_following, sentiment_following_with_history, sentiment_pairs
from preference_benchmark.preferences.polarity import invert, review_polarity


@pytest.mark.parametrize("seed", range(3))
def test_sentiment_pairs_agree_with_one_item_at_a_time(seed):
    tables = random_tables(seed)
    preferences = random_preferences(tables, seed)
    embed = HashEmbedder().encode
    title = dict(tables.items.select("item_id", "title").iter_rows())
    best: dict[str, tuple] = {}
    for user, rows in histories(tables).items():
        polarity = review_polarity(pl.DataFrame(rows))
        for row in rows:
            step, length = row["step"], len(rows)
            until = max(step, length - 3)
            texts = sorted(
                {
                    p["text"]
                    for p in preferences.filter(pl.col("user_id") == user).iter_rows(named=True)
                    if step <= p["step"] <= until and p["sentiment"] == "negative"
                }
            )
            if polarity[step] == "positive" or not texts:
                continue
            about = embed([f"{row['review']} {title[row['item_id']]}".strip()])[0]
            score, text = max((float(vector @ about), text) for vector, text in zip(embed(texts), texts, strict=True))
            if text not in best or score > best[text][0]:
                best[text] = (score, user, step, split_of(step, length), row["item_id"])
    expected = sorted((user, step, split, item, text) for text, (_, user, step, split, item) in best.items())
    got = named(sentiment_following(sentiment_pairs(tables, preferences, HashEmbedder(), Protocol())), tables)
    negative, positive = got.filter(pl.col("sentiment") == "negative"), got.filter(pl.col("sentiment") == "positive")
    assert len(expected) > 3
    assert negative.select("user_id", "split", "target", pl.col("preferences").list.first()).rows() == [
        (user, split, item, text) for user, _, split, item, text in expected
    ]
    same = ["pair_id", "user_id", "split", "target"]
    assert_frame_equal(negative.select(same), positive.select(same))
    assert positive["preferences"].to_list() == [[invert(text)] for *_, text in expected]
    assert negative["pair_id"].to_list() == list(range(len(expected)))
    assert (got["history"].list.len() == 0).all()


def test_pairs_with_a_history_are_those_whose_item_was_not_the_first():
    tables = random_tables(4)
    pairs = sentiment_pairs(tables, random_preferences(tables, 4), HashEmbedder(), Protocol())
    alone, after = sentiment_following(pairs), sentiment_following_with_history(tables, pairs)
    later = pairs.filter(pl.col("step") > 0)["pair_id"]
    columns = ["user_id", "preferences", "sentiment", "targets", "pair_id", "split"]
    assert_frame_equal(alone.filter(pl.col("pair_id").is_in(later.implode())).select(columns), after.select(columns))
    steps = after.join(pairs.select("pair_id", "step"), on="pair_id", maintain_order="left")["step"]
    assert after["history"].list.len().cast(pl.Int64).to_list() == steps.to_list()


def test_extended_inversion_makes_pairs_of_other_ways_to_say_no():
    tables = random_tables(3)
    tables = replace(tables, interactions=tables.interactions.with_columns(rating=pl.lit(1.0)))
    steps = tables.interactions.select("user_id", "step")
    preferences = steps.with_columns(
        rank=0, text=pl.format("Stay away from {} toys", pl.int_range(pl.len())), sentiment=pl.lit("negative")
    )
    pairs = {
        rules: sentiment_pairs(tables, preferences, HashEmbedder(), Protocol(inversion=rules))
        for rules in ("paper", "extended")
    }
    assert pairs["paper"].is_empty() and not pairs["extended"].is_empty()
    conditioned = {
        rules: match(preferences, tables, HashEmbedder(), inversion=rules)["text"].str.starts_with("Stay away").any()
        for rules in pairs
    }
    assert conditioned == {"paper": True, "extended": False}
