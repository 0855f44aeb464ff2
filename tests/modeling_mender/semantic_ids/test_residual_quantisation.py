from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from scipy.optimize import linear_sum_assignment

from modeling_mender.semantic_ids.residual_kmeans import ResidualKMeans
from modeling_mender.semantic_ids.residual_quantisation import assign, reconstruct, spread_last_level
from modeling_mender.semantic_ids.tie_breaking import report


def problem(seed: int, items: int, codes: int, levels: int = 2, width: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(items, width, generator=generator)
    return x, torch.randn(levels, codes, width, generator=generator)


def most_per_tuple(codes: torch.Tensor) -> int:
    return int(codes.unique(dim=0, return_counts=True)[1].max())


@tries(40)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 6), st.integers(1, 3))
def test_codes_of_a_prefix_are_shared_out_evenly(seed, items, codes, levels):
    x, books = problem(seed, items, codes, levels)
    before = assign(x, books)
    after = spread_last_level(x, before, books)
    assert torch.equal(after[:, :-1], before[:, :-1])
    assert 0 <= after.min() and after.max() < codes
    prefixes, group = before[:, :-1].unique(dim=0, return_inverse=True) if levels > 1 else (None, before[:, 0] * 0)
    for prefix in group.unique():
        rows = group == prefix
        if most_per_tuple(before[rows]) == 1:
            assert torch.equal(after[rows], before[rows])
        else:
            assert most_per_tuple(after[rows]) <= -(-int(rows.sum()) // codes)


@tries(40)
@given(st.integers(0, 2**31), st.integers(0, 20), st.integers(1, 20))
def test_taken_codes_are_left_alone(seed, old, new):
    x, books = problem(seed, old + new, 8)
    taken = spread_last_level(x[:old], assign(x[:old], books), books) if old else assign(x[:0], books)
    taken = torch.cat([taken, torch.zeros(old, 1, dtype=torch.int64)], dim=1)
    arriving = spread_last_level(x[old:], assign(x[old:], books), books, taken=taken)
    everything = torch.cat([taken[:, :2], arriving])
    for prefix in everything[:, 0].unique():
        rows = everything[:, 0] == prefix
        assert most_per_tuple(everything[rows]) <= max(1, -(-int(rows.sum()) // 8))


def test_cost_is_near_the_best_possible():
    ratios = []
    for seed in range(30):
        x, books = problem(seed, 12, 16, levels=1)
        cost = torch.cdist(x, books[0]).square()
        rows, columns = linear_sum_assignment(cost.numpy())
        found = cost.gather(1, spread_last_level(x, assign(x, books), books)).sum()
        ratios.append(float(found / cost[rows, columns].sum()))
    assert min(ratios) >= 1 - 1e-6 and sorted(ratios)[15] < 1.01 and max(ratios) < 1.2


def test_result_follows_the_items_not_their_order():
    x, books = problem(1, 50, 8)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
    straight = spread_last_level(x, assign(x, books), books)
    assert torch.equal(straight[order], spread_last_level(x[order], assign(x[order], books), books))


def test_equal_items_get_different_codes_and_chunks_do_not_matter(monkeypatch):
    x, books = problem(3, 40, 16)
    x = torch.cat([x, x[:20], x[:20]])
    whole = spread_last_level(x, assign(x, books), books)
    assert most_per_tuple(whole) == 1
    monkeypatch.setattr("modeling_mender.semantic_ids.residual_quantisation.ITEMS_PER_CHUNK", 5)
    assert torch.equal(whole, spread_last_level(x, assign(x, books), books))


def test_quantizer_spreads_on_request():
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    quantizer = ResidualKMeans(levels=2, codes=32).fit(x)
    plain, spread = quantizer.encode(x), quantizer.encode(x, spread=True)
    sizes = quantizer.codebook_sizes
    assert report(spread, sizes).collision_rate == 0 < report(plain, sizes).collision_rate
    lost = [(x - quantizer.decode(codes)).square().sum() for codes in (plain, spread)]
    assert lost[1] < 1.5 * lost[0]
    arriving = quantizer.encode(x[:20] + 0.01, spread=True, taken=spread)
    together = torch.cat([spread, arriving])
    assert report(together, sizes).collision_rate == 0


@pytest.mark.parametrize("levels", [1, 2])
def test_removed_items_take_no_codes(levels):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    quantizer = ResidualKMeans(levels=levels, codes=6).fit(x)
    taken = quantizer.encode(x[:10], spread=True)
    removed = torch.cat([taken, torch.full((50, levels), -1)])
    expected = quantizer.encode(x[10:], spread=True, taken=taken)
    assert torch.equal(quantizer.encode(x[10:], spread=True, taken=removed), expected)


def test_taken_with_too_few_levels_is_refused():
    x, books = problem(0, 10, 4)
    with pytest.raises(ValueError, match=r"taken must have the shape \(items, 2\)"):
        spread_last_level(x, assign(x, books), books, taken=torch.zeros(3, 1, dtype=torch.int64))
    assert reconstruct(assign(x, books), books).shape == x.shape
