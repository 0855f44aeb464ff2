"""Steering: partners and preferences agree with sorting everything, one item at a time; users are drawn by seed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from benchmark_doubles import HashEmbedder, all_targets, histories, named, random_preferences, random_tables
from polars.testing import assert_frame_equal

from preference_benchmark.axes import steering
from preference_benchmark.axes.protocol import SPLITS, Protocol
from preference_benchmark.axes.steering import nearest, partners, spread_partners, steering_candidates

AXES = {"fine_grained_steering": max, "coarse_grained_steering": min}


def build(axis, tables, preferences, protocol=None, embedder=None):
    protocol = protocol or Protocol()
    candidates = steering_candidates(tables, preferences, embedder or HashEmbedder(), protocol)
    return getattr(steering, axis)(tables, preferences, candidates, protocol)


@pytest.mark.parametrize("seed", range(3))
def test_nearest_agrees_with_sorting_all_products(seed):
    rng = np.random.default_rng(seed)
    queries, keys = (rng.normal(size=(rows, 5)).astype(np.float32) for rows in (23, 17))
    order = np.argsort(-(queries @ keys.T), axis=1, kind="stable")
    np.testing.assert_array_equal(nearest(queries, keys, 3), order[:, :3])


@pytest.mark.parametrize("count", [2, 6, 13, 21])
def test_partners_are_the_nearest_and_farthest_others(count):
    vectors = np.random.default_rng(1).normal(size=(count, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    products = vectors @ vectors.T
    found = partners(vectors)
    for row in range(count):
        others = np.delete(products[row], row)
        assert row not in (found.nearest[row], found.farthest[row])
        assert products[row, found.nearest[row]] == pytest.approx(others.max())
        assert products[row, found.farthest[row]] == pytest.approx(others.min())


def test_of_equal_vectors_the_first_wins():
    same = np.ones((14, 2), dtype=np.float32)
    found = partners(same)
    np.testing.assert_array_equal(found.nearest, [1] + 13 * [0])
    np.testing.assert_array_equal(found.farthest, [1] + 13 * [0])
    repeated = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    found = partners(repeated)
    np.testing.assert_array_equal(found.nearest, [2, 3, 0, 1, 0])
    np.testing.assert_array_equal(found.farthest, [1, 0, 1, 0, 1])


@pytest.mark.parametrize("count", [2, 3, 40, 150])
def test_far_partners_are_spread(count):
    rng = np.random.default_rng(count)
    vectors = rng.normal(size=(count, 6)).astype(np.float32) + 2  # most are alike
    vectors[0] = -vectors[0]  # and one is an outlier
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    farthest = partners(vectors).farthest
    np.testing.assert_array_equal(spread_partners(vectors, count), farthest)
    for most in (2, 3):
        found = spread_partners(vectors, most)
        assert np.bincount(found).max() <= most and (found != np.arange(count)).all()
        products = vectors @ vectors.T
        rows = np.arange(count)
        # As far as the limit allows: farther than others are on average, and nobody would rather swap.
        if count > 3:
            assert products[rows, found].mean() < (products.sum() - count) / (count * (count - 1))
        free = np.bincount(found, minlength=count) < most
        np.fill_diagonal(products, np.inf)
        if free.any():
            assert (products[:, free].min(axis=1) >= products[rows, found] - 1e-6).all()


def test_equally_far_partners_are_spread_as_well():
    found = spread_partners(np.ones((30, 4), dtype=np.float32), 2)
    assert np.bincount(found).max() == 2 and (found != np.arange(30)).all()


def test_an_outlier_is_the_target_of_few_coarse_examples():
    tables = random_tables(3, users=60, rows=700)
    preferences = random_preferences(tables, 3)
    for most in (2, 3):
        got = build("coarse_grained_steering", tables, preferences, Protocol(partner_of=most, draw="any"))
        times = got.group_by("split", pl.col("targets").list.first()).len()["len"]
        assert times.max() <= most + 1  # once for itself


def test_texts_with_the_same_vector_count_once():
    class Caseless(HashEmbedder):
        def encode(self, texts):
            return super().encode([text.lower() for text in texts])

    tables = random_tables(0)
    preferences = random_preferences(tables, 0, openings=("Find ", "FIND ", "Look for "))
    candidates = steering_candidates(tables, preferences, Caseless(), Protocol())
    assert candidates.pool.str.to_lowercase().n_unique() == len(candidates.pool)
    assert candidates.pool.str.starts_with("FIND").any() and not candidates.pool.str.starts_with("Find").all()


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
            t = AXES[axis](others, key=lambda item: vectors[item] @ vectors[s])  # noqa: B023
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
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("seed", range(3))
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

    got = named(build(axis, tables, preferences, Protocol(draw=draw, partner_of=0)), tables)
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


@pytest.mark.parametrize("axis", AXES)
def test_steering_draws_users_by_seed(axis):
    tables = random_tables(0, users=40, rows=500)
    preferences = random_preferences(tables, 0)
    first, again, other = (build(axis, tables, preferences, Protocol(seed=seed, draw="any")) for seed in (0, 0, 1))
    assert_frame_equal(first, again)
    assert first.select("preferences", "targets").equals(other.select("preferences", "targets"))
    assert not first["user_id"].equals(other["user_id"])


def test_steering_needs_three_preferences():
    tables = random_tables(0)
    preferences = random_preferences(tables, 0, vocabulary=2, openings=("Find ", "Avoid "))
    with pytest.raises(ValueError, match="2 distinct positive preferences"):
        build("fine_grained_steering", tables, preferences)


def test_each_target_opens_one_steering_pair_per_split():
    tables = random_tables(6, users=60, rows=700)
    got = named(build("fine_grained_steering", tables, random_preferences(tables, 6)), tables)
    for split in SPLITS:
        wanted = {target for where, _, _, target in all_targets(tables) if where == split}
        assert got.filter(pl.col("split") == split).height <= 2 * len(wanted)
        assert set(got.filter(pl.col("split") == split)["target"]) <= wanted
