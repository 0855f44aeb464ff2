"""Closed-form experts agree with their definitions."""

import numpy as np
import torch

from modeling_mender.purchase_experts import ItemItem
from modeling_mender.training.closed_form import ease, popularity, transitions

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
    matrix, of = ease(HISTORIES, items, penalty)
    np.testing.assert_allclose(matrix.numpy(), expected, atol=1e-5)
    assert of.tolist() == [*range(items)]


def test_rare_items_are_left_out_of_ease_where_there_are_too_many():
    histories = [[{0: 4, 4: 0}.get(item, item) for item in own] for own in HISTORIES]
    matrix, of = ease(histories, 5, 2.0, most_items=4)  # item 0 was bought once
    assert of.tolist() == [1, 2, 3, 4]
    without = [[item - 1 for item in own] for own in histories if own != [0]]
    torch.testing.assert_close(matrix, ease(without, 4, 2.0)[0])
    expert = ItemItem(5, 3)
    expert.set_matrix(matrix, of)
    row = expert(torch.tensor([[4]]))[0]
    kept = matrix[3].abs().topk(3).indices
    torch.testing.assert_close(row[of][kept], matrix[3][kept])
    assert (row != 0).sum() <= 3 and not expert(torch.tensor([[0]])).any()


def test_transitions_count_what_follows_by_distance():
    counts = np.zeros((5, 5))
    for history in HISTORIES:
        for first, item in enumerate(history):
            for distance, after in enumerate(history[first + 1 : first + 3], start=1):
                counts[item, after] += 1 / distance
    np.testing.assert_allclose(transitions(HISTORIES, 5, window=2).to_dense().numpy(), np.log1p(counts), rtol=1e-5)


def test_without_purchases_there_are_no_transitions():
    assert not transitions([], 4).to_dense().any() and not transitions([[1], []], 4).to_dense().any()


def test_a_large_catalogue_takes_no_memory_for_pairs_that_nobody_bought():
    items = 3_000_000  # a dense matrix would take 36 TB
    histories = [[items - 1, 5, 7], [items - 1, 7]]
    expert = ItemItem(items, 4)
    expert.set_matrix(transitions(histories, items))
    assert expert.neighbours[items - 1].tolist() == [7, 5, -1, -1]
    expected = np.log1p([1.5, 1.0])
    np.testing.assert_allclose(expert.strengths[items - 1, :2].numpy(), expected, rtol=1e-6)
    matrix, of = ease(histories, items, 2.0, most_items=3)
    expert.set_matrix(matrix, of)
    assert of.tolist() == [5, 7, items - 1] and {*expert.neighbours[7].tolist()} == {5, items - 1, -1}
    assert popularity(histories, items)[7] == 2
