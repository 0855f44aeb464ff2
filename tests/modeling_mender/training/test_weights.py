"""The weight search finds what helps."""

import numpy as np
import torch

from modeling_mender.training.weights import fit_weights, mean_log_ndcg


def test_seen_items_are_not_ranked_and_groups_count_alike():
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
