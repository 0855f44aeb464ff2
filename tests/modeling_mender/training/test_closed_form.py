"""Closed-form experts agree with their definitions."""

import numpy as np
import torch

from modeling_mender.training.closed_form import ease, transitions

HISTORIES = [[0, 1, 2], [1, 2], [2, 0, 3, 3], [4], [3, 1, 0]]


def test_ease_is_the_ridge_regression_of_each_item_on_the_others():
    penalty, items = 2.0, 5
    bought = np.zeros((len(HISTORIES), items))
    for user, history in enumerate(HISTORIES):
        bought[user, history] = 1
    expected = np.zeros((items, items))
    for item in range(items):
        others = [other for other in range(items) if other != item]
        own = bought[:, others]
        expected[others, item] = np.linalg.solve(own.T @ own + penalty * np.eye(items - 1), own.T @ bought[:, item])
    np.testing.assert_allclose(ease(HISTORIES, items, penalty).numpy(), expected, atol=1e-5)


def test_rare_items_are_left_out_of_ease_where_there_are_too_many():
    matrix = ease(HISTORIES, 5, 2.0, most_items=4)  # item 4 was bought once
    assert not matrix[4].any() and not matrix[:, 4].any()
    torch.testing.assert_close(matrix[:4, :4], ease([own for own in HISTORIES if own != [4]], 4, 2.0))


def test_transitions_count_what_follows_by_distance():
    counts = np.zeros((5, 5))
    for history in HISTORIES:
        for first, item in enumerate(history):
            for distance, after in enumerate(history[first + 1 : first + 3], start=1):
                counts[item, after] += 1 / distance
    np.testing.assert_allclose(transitions(HISTORIES, 5, window=2).numpy(), np.log1p(counts), rtol=1e-5)
