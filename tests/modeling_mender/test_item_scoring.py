"""Top items of a score table against brute force, with every form of filter."""

from __future__ import annotations

import pytest
import torch

from modeling_mender.item_scoring import top_items


@pytest.fixture
def scores():
    return torch.randn(3, 9, generator=torch.Generator().manual_seed(0))


def brute_force(scores, k, allowed, exclude):
    ranked = []
    for user in range(len(scores)):
        live = [row for row in range(scores.shape[1]) if row in allowed[user] and row not in exclude[user]]
        ranked.append(sorted(live, key=lambda row: -float(scores[user, row]))[:k])
    return ranked


@pytest.mark.parametrize("as_mask", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_filters_agree_with_brute_force(scores, as_mask, shared):
    allowed = [{0, 1, 2, 3, 5, 8}] * 3 if shared else [{0, 1, 2}, {3, 4, 5, 6}, {8}]
    exclude = [{1, 2}] * 3 if shared else [{1}, {4, 8}, set()]

    def given(selection):
        if as_mask:
            mask = torch.zeros(3, 9, dtype=torch.bool)
            for user, rows in enumerate(selection):
                mask[user, list(rows)] = True
            return mask[0] if shared else mask
        return sorted(selection[0]) if shared else [sorted(rows) for rows in selection]

    found = top_items(scores, 4, given(allowed), given(exclude))
    expected = brute_force(scores, 4, allowed, exclude)
    assert [[row for row in rows if row >= 0] for rows in found.item_indices.tolist()] == expected
    for rows, values, own in zip(found.item_indices, found.scores, scores, strict=True):
        torch.testing.assert_close(values[rows >= 0], own[rows[rows >= 0]])
        assert (values[rows < 0] == -torch.inf).all()


def test_padding_rows_exclude_nothing_and_k_may_exceed_the_items(scores):
    padded = torch.tensor([[0, -1], [-1, -1], [2, 3]])
    found = top_items(scores, 20, exclude=padded)
    assert found.item_indices.shape == (3, 9)
    assert (found.item_indices[0] == 0).sum() == 0 and sorted(found.item_indices[1].tolist()) == list(range(9))


def test_bad_requests_are_refused(scores):
    with pytest.raises(ValueError, match="top_k=0"):
        top_items(scores, 0)
    with pytest.raises(ValueError, match="no item is left for user 1"):
        top_items(scores, 2, allowed=[[0], [], [1]])
    with pytest.raises(IndexError, match="contains item index 9; the catalogue has items 0..8"):
        top_items(scores, 2, exclude=[9])
