from __future__ import annotations

import numpy as np
import pytest

from preference_benchmark.axes import steering as neighbours
from preference_benchmark.axes.steering import nearest, partners


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "_QUERIES", 6)
    monkeypatch.setattr(neighbours, "_KEYS", 5)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_sorting_all_products(seed):
    rng = np.random.default_rng(seed)
    queries, keys = rng.normal(size=(23, 5)), rng.normal(size=(17, 5))
    order = np.argsort(-(queries @ keys.T), axis=1, kind="stable")
    np.testing.assert_array_equal(nearest(queries, keys, 3), order[:, :3])


@pytest.mark.parametrize("count", [2, 6, 13, 21])
def test_partners_are_the_nearest_and_farthest_others(count):
    vectors = np.random.default_rng(1).normal(size=(count, 4))
    products = vectors @ vectors.T
    found = partners(vectors)
    for row in range(count):
        others = np.delete(products[row], row)
        assert row not in (found.nearest[row], found.farthest[row])
        assert products[row, found.nearest[row]] == pytest.approx(others.max())
        assert products[row, found.farthest[row]] == pytest.approx(others.min())


def test_of_equal_vectors_the_first_wins():
    same = np.ones((14, 2))
    np.testing.assert_array_equal(nearest(same[:1], same, 3), [[0, 1, 2]])
    found = partners(same)
    np.testing.assert_array_equal(found.nearest, [1] + 13 * [0])
    np.testing.assert_array_equal(found.farthest, [1] + 13 * [0])


def test_more_neighbours_than_vectors_are_refused():
    with pytest.raises(ValueError, match="k=3 neighbours of 2"):
        nearest(np.eye(2), np.eye(2), 3)
