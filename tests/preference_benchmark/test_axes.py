from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from benchmark_doubles import (
    HashEmbedder,
    histories,
    random_preferences,
    random_tables,
    shuffled_users,
    split_of,
)
from polars.testing import assert_frame_equal

from preference_benchmark.axes import build as axes
from preference_benchmark.axes.examples import COLUMNS
from preference_benchmark.axes.matching import match
from preference_benchmark.axes.protocol import AXES, SPLITS, Protocol
from preference_benchmark.preferences.polarity import invert, review_polarity

SEEDS = range(3)
SHOWN = ("split", "user_id", "history", "preferences", "sentiment", "target", "pair_id")
STEERING = {"fine_grained_steering": max, "coarse_grained_steering": min}


def named(rows, tables):
    """Item ids in place of item indices, and the one target as `target`."""
    ids = tables.items["item_id"]
    history = pl.col("history").list.eval(pl.lit(ids).gather(pl.element()))
    return rows.with_columns(history, target=pl.Series(ids.gather(rows["targets"].list.first())))


def build(axis, tables, preferences):
    if axis == "recommendation":
        return axes.recommendation(tables, match(preferences, tables, HashEmbedder()))
    if axis == "history_consolidation":
        return axes.history_consolidation(tables, preferences)
    return getattr(axes, axis)(tables, preferences, HashEmbedder())


def all_targets(tables):
    """(split, user, history, target) of every step, one at a time."""
    return [
        (split_of(step, len(rows)), user, [row["item_id"] for row in rows[:step]], rows[step]["item_id"])
        for user, rows in histories(tables).items()
        for step in range(1, len(rows))
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_recommendation_agrees_with_one_target_at_a_time(seed):
    tables = random_tables(seed)
    preferences = random_preferences(tables, seed)
    matches = match(preferences, tables, HashEmbedder())
    text = {(row["user_id"], row["step"]): row["text"] for row in matches.iter_rows(named=True)}
    expected = [
        (split, user, history, [text[user, len(history)]], "positive", target, -1)
        for split, user, history, target in all_targets(tables)
    ]
    got = named(axes.recommendation(tables, matches), tables)
    assert got.select(SHOWN).rows() == expected
    assert set(got["kind"]) == {"stated"} and got["avoid"].list.len().sum() == 0
    assert set(axes.recommendation(tables, matches, "last")["kind"]) == {"inferred"}


@pytest.mark.parametrize("seed", SEEDS)
def test_consolidation_has_all_five_preferences_of_the_step_before(seed):
    tables = random_tables(seed)
    preferences = random_preferences(tables, seed).sample(fraction=1.0, shuffle=True, seed=seed)
    written = {}
    for row in preferences.iter_rows(named=True):
        written.setdefault((row["user_id"], row["step"]), {})[row["rank"]] = row["text"]
    expected = [
        (split, user, history, [written[user, len(history) - 1][rank] for rank in range(5)], "positive", target, -1)
        for split, user, history, target in all_targets(tables)
    ]
    got = named(axes.history_consolidation(tables, preferences), tables)
    assert got.select(SHOWN).rows() == expected and set(got["kind"]) == {"inferred"}


def steering_by_hand(axis, tables, preferences):
    """For every split the multiset of (preference, target, item whose history is shown), one target at a time."""
    embed = HashEmbedder().encode
    text_of = dict(tables.items.select("item_id", "text").iter_rows())
    length = {user: len(rows) for user, rows in histories(tables).items()}
    pool = sorted(
        {
            row["text"]
            for row in preferences.iter_rows(named=True)
            if row["sentiment"] == "positive" and row["step"] <= length[row["user_id"]] - 3
        }
    )
    pool_vectors = embed(pool)

    def ranked(item):
        return [pool[n] for n in np.argsort(-(pool_vectors @ embed([text_of[item]])[0]), kind="stable")]

    for split in SPLITS:
        items = sorted({target for where, _, _, target in all_targets(tables) if where == split})
        vectors = dict(zip(items, embed([text_of[item] for item in items]), strict=True))
        for s in items:
            others = [item for item in items if item != s]
            t = STEERING[axis](others, key=lambda item: vectors[item] @ vectors[s])  # noqa: B023
            if split == "train":
                of_s = ranked(s)[0]
                of_t = next(text for text in ranked(t) if text != of_s)
            else:
                of_s, of_t = ranked(s)[1], ranked(t)[2]
            yield split, of_s, s, t
            yield split, of_t, t, s


def first_written(preferences):
    found = {}
    for row in preferences.iter_rows(named=True):
        key = row["user_id"], row["text"]
        found[key] = min(row["step"], found.get(key, row["step"]))
    return found


@pytest.mark.parametrize("draw", ["unknowing", "any"])
@pytest.mark.parametrize("axis", STEERING)
@pytest.mark.parametrize("seed", SEEDS)
def test_steering_agrees_with_one_item_at_a_time(axis, seed, draw):
    tables = random_tables(seed)
    preferences = random_preferences(tables, seed)
    written = first_written(preferences)
    held_out = {user: [row["item_id"] for row in rows[-2:]] for user, rows in histories(tables).items()}
    users_of = {}
    for split, user, history, target in all_targets(tables):
        users_of.setdefault((split, target), []).append((user, history))

    def unknowing(user, history, text, asked):
        return asked not in history and asked not in held_out[user] and written.get((user, text), -1) < len(history)

    got = named(getattr(axes, axis)(tables, preferences, HashEmbedder(), Protocol(draw=draw)), tables)
    rows = iter(got.iter_rows(named=True))
    left_out = 0
    for split, text, asked, shown in steering_by_hand(axis, tables, preferences):
        allowed = users_of[split, shown]
        if draw == "unknowing":
            allowed = [(user, history) for user, history in allowed if unknowing(user, history, text, asked)]
        if not allowed:
            left_out += 1
            continue
        row = next(rows)
        assert (row["split"], row["preferences"], row["target"]) == (split, [text], asked)
        assert (row["user_id"], row["history"]) in allowed
        assert (row["sentiment"], row["pair_id"], row["kind"]) == ("positive", -1, "stated")
    assert next(rows, None) is None
    assert left_out < got.height


@pytest.mark.parametrize("axis", STEERING)
def test_steering_draws_users_by_seed(axis):
    tables = random_tables(0, users=40, rows=500)
    preferences = random_preferences(tables, 0)
    first, again, other = (
        getattr(axes, axis)(tables, preferences, HashEmbedder(), Protocol(seed=seed, draw="any")) for seed in (0, 0, 1)
    )
    assert_frame_equal(first, again)
    assert first.select("preferences", "targets").equals(other.select("preferences", "targets"))
    assert not first["user_id"].equals(other["user_id"])


def test_steering_needs_three_preferences():
    tables = random_tables(0)
    preferences = random_preferences(tables, 0, vocabulary=2, openings=("Find ", "Avoid "))
    with pytest.raises(ValueError, match="2 distinct positive preferences"):
        axes.fine_grained_steering(tables, preferences, HashEmbedder())


@pytest.mark.parametrize("seed", SEEDS)
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
    got = named(axes.sentiment_following(tables, preferences, HashEmbedder()), tables)
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


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_has_the_same_columns_and_does_not_show_its_target(axis):
    tables = random_tables(4)
    rows = build(axis, tables, random_preferences(tables, 4))
    assert tuple(rows.columns) == COLUMNS and rows["axis"].unique().to_list() == [axis]
    assert rows.schema == build("recommendation", tables, random_preferences(tables, 4)).schema
    assert set(rows["split"]) == set(SPLITS)
    assert not rows.select(pl.col("history").list.contains(pl.col("targets").list.first()).any()).item()
    assert rows["history"].list.len().max() < 20


@pytest.mark.parametrize("axis", AXES)
def test_the_order_of_rows_changes_nothing(axis):
    tables = random_tables(5)
    preferences = random_preferences(tables, 5)
    shuffled = preferences.sample(fraction=1.0, shuffle=True, seed=2)
    expected = build(axis, tables, preferences)
    assert_frame_equal(build(axis, shuffled_users(tables, 3), shuffled), expected)


def test_each_target_opens_one_steering_pair_per_split():
    tables = random_tables(6, users=60, rows=700)
    got = named(axes.fine_grained_steering(tables, random_preferences(tables, 6), HashEmbedder()), tables)
    for split in SPLITS:
        wanted = {target for where, _, _, target in all_targets(tables) if where == split}
        assert got.filter(pl.col("split") == split).height <= 2 * len(wanted)
        assert set(got.filter(pl.col("split") == split)["target"]) <= wanted


def test_evaluated_preferences_do_not_reach_the_training_examples():
    tables = random_tables(7)
    preferences = random_preferences(tables, 7)
    length = pl.col("step").max().over("user_id") + 1
    late = pl.col("step") > length - 3
    marked = preferences.with_columns(text=pl.when(late).then(pl.format("{} (late)", "text")).otherwise("text"))
    for axis in AXES:
        rows = build(axis, tables, marked)
        train = rows.filter(pl.col("split") == "train").explode("preferences")
        assert not train["preferences"].str.contains("late", literal=True).any()


def test_extended_inversion_makes_pairs_of_other_ways_to_say_no():
    tables = random_tables(3)
    tables = replace(tables, interactions=tables.interactions.with_columns(rating=pl.lit(1.0)))
    steps = tables.interactions.select("user_id", "step")
    preferences = steps.with_columns(
        rank=0, text=pl.format("Stay away from {} toys", pl.int_range(pl.len())), sentiment=pl.lit("negative")
    )
    pairs = {
        rules: axes.sentiment_following(tables, preferences, HashEmbedder(), Protocol(inversion=rules))
        for rules in ("paper", "extended")
    }
    assert pairs["paper"].is_empty() and not pairs["extended"].is_empty()
    conditioned = {
        rules: match(preferences, tables, HashEmbedder(), inversion=rules)["text"].str.starts_with("Stay away").any()
        for rules in pairs
    }
    assert conditioned == {"paper": True, "extended": False}
