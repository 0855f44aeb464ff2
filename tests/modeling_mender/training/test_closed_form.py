"""Closed-form experts agree with their definitions; the weight search finds what helps."""

import numpy as np
import torch

from modeling_mender.training.closed_form import ease, fit_weights, mean_log_ndcg, transitions

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


def test_seen_items_are_not_ranked_and_groups_count_equally():
    scores = torch.tensor([[9.0, 5.0, 7.0, 0.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    targets, seen = torch.tensor([1, 3, 3]), torch.tensor([[0, 2, 0], [-1, -1, -1], [-1, -1, -1]])
    assert np.isclose(mean_log_ndcg(scores, targets, seen, ["a", "b", "b"]), np.log(1.01))
    with_one_ahead = mean_log_ndcg(scores, targets, torch.tensor([[0], [-1], [-1]]), ["a", "b", "b"])
    assert np.isclose(with_one_ahead, (np.log(1 / np.log2(3) + 0.01) + np.log(1.01)) / 2)


def test_the_search_trusts_what_helps():
    generator = torch.Generator().manual_seed(0)
    users, items = 300, 50
    targets = torch.randint(items, (users,), generator=generator)
    noise = torch.randn(3, users, items, generator=generator)
    truth = torch.nn.functional.one_hot(targets, items).float()
    scores = {"good": 100 * (noise[0] + 2 * truth), "also": noise[1] + 2 * truth, "useless": 10 * noise[2]}
    scores["silent"] = torch.zeros(users, items)
    none = torch.full((users, 1), -1)
    weights = fit_weights(scores, targets, none, ["axis"] * users)
    assert weights["silent"] == 0 and max(weights.values()) == 1
    # The two that know something are brought to one scale, the third is hardly heard.
    assert 0.3 < 100 * weights["good"] / weights["also"] < 3
    assert 10 * weights["useless"] < 0.3 * weights["also"]
    total = sum(weights[name] * scores[name] for name in scores)
    best_alone = max(mean_log_ndcg(scores[name], targets, none, ["axis"] * users) for name in scores)
    assert mean_log_ndcg(total, targets, none, ["axis"] * users) > best_alone
