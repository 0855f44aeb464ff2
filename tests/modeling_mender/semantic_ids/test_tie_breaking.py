from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from modeling_mender import SemanticIdCatalogue
from modeling_mender.semantic_ids.tie_breaking import CollapsedCodesError, break_ties, check_not_collapsed, report


def random_codes(seed: int, items: int, levels: int = 2, codes: int = 3) -> torch.Tensor:
    return torch.randint(codes, (items, levels), generator=torch.Generator().manual_seed(seed))


def ties_by_hand(codes: torch.Tensor, taken: torch.Tensor | None = None) -> list[list[int]]:
    used = set() if taken is None else {tuple(row) for row in taken.tolist()}
    full = []
    for row in codes.tolist():
        last = 0
        while (*row, last) in used:
            last += 1
        used.add((*row, last))
        full.append([*row, last])
    return full


@tries(60)
@given(st.integers(0, 2**31), st.integers(0, 40), st.integers(1, 3), st.integers(1, 4))
def test_ties_equal_one_by_one_assignment(seed, items, levels, codes):
    table = random_codes(seed, items, levels, codes)
    assert break_ties(table).tolist() == ties_by_hand(table)


@tries(60)
@given(st.integers(0, 2**31), st.integers(0, 30), st.integers(0, 30), st.floats(0, 1))
def test_new_items_fill_the_smallest_gaps(seed, old, new, kept):
    generator = torch.Generator().manual_seed(seed)
    taken = break_ties(random_codes(seed, old))
    # Items that left the catalogue leave gaps, and what stays is in no particular order.
    taken = taken[torch.randperm(old, generator=generator)][: int(kept * old)]
    arriving = random_codes(seed + 1, new)
    full = break_ties(arriving, taken=taken)
    assert full.tolist() == ties_by_hand(arriving, taken)
    assert len({tuple(row) for row in torch.cat([taken, full]).tolist()}) == len(taken) + new


def test_codes_of_removed_items_are_free_again():
    catalogue = SemanticIdCatalogue(break_ties(random_codes(0, 20)), [3, 3, 20]).remove([2, 5])
    arriving = random_codes(1, 6)
    left = catalogue.codes[[row for row in range(20) if row not in (2, 5)]]
    full = break_ties(arriving, taken=catalogue.codes)
    assert torch.equal(full, break_ties(arriving, taken=left))
    assert len(catalogue.add(full)) == 24


def test_one_large_tie_is_vectorised():
    full = break_ties(torch.zeros(300_000, 3, dtype=torch.int64))
    assert torch.equal(full[:, 3], torch.arange(300_000))


def test_codes_of_huge_codebooks_do_not_overflow():
    codes = torch.full((4, 6), 2**31 - 2)
    codes[1, 0] = codes[3, 5] = 0
    assert break_ties(codes)[:, 6].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("codes", "taken", "message"),
    [
        (torch.zeros(2, 3), None, "integers of shape"),
        (torch.zeros(3, dtype=torch.int64), None, "integers of shape"),
        (torch.tensor([[0, -2]]), None, "negative code -2"),
        (torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), "taken has 2 levels but codes has 2"),
        (torch.tensor([[0]]), torch.tensor([[4, 1], [2, 0], [4, 1]]), "same ID twice"),
        (torch.tensor([[0]]), torch.tensor([[4, 1], [-1, 0]]), "taken holds the negative code -1"),
    ],
)
def test_malformed_codes_are_refused(codes, taken, message):
    with pytest.raises(ValueError, match=message):
        break_ties(codes, taken)


def test_report_equals_counting_by_hand():
    codes = random_codes(3, 50, levels=3, codes=4)
    measured, rows = report(codes, [4, 4, 4]), [tuple(row) for row in codes.tolist()]
    assert measured.collision_rate == sum(rows.count(row) > 1 for row in rows) / 50
    assert measured.largest_tie == max(rows.count(row) for row in rows)
    assert measured.collision_rate_with_ties == 0
    for level in range(3):
        shares = np.bincount(codes[:, level], minlength=4) / 50
        prefixes = [row[: level + 1] for row in rows]
        assert measured.codes_used[level] == (shares > 0).sum()
        assert measured.entropy[level] == pytest.approx(-sum(p * np.log2(p) for p in shares if p))
        assert measured.perplexity[level] == pytest.approx(2 ** measured.entropy[level])
        assert measured.mean_items_per_prefix[level] == pytest.approx(50 / len(set(prefixes)))
        assert measured.max_items_per_prefix[level] == max(prefixes.count(prefix) for prefix in prefixes)


def test_report_measures_a_given_tie_breaking_level():
    codes = random_codes(3, 50)
    assert report(break_ties(codes), [3, 3]) == report(codes, [3, 3])
    careless = torch.cat([codes, torch.zeros(50, 1, dtype=torch.int64)], dim=1)
    assert report(careless, [3, 3]).collision_rate_with_ties == report(codes, [3, 3]).collision_rate > 0


def test_report_is_json_and_a_table():
    measured = report(random_codes(0, 20), [3, 3], reconstruction_error=0.25)
    again = json.loads(json.dumps(measured.to_dict()))
    assert again["codebook_sizes"] == [3, 3] and again["reconstruction_error"] == 0.25
    lines = str(measured).splitlines()
    assert len(lines) == 4 and "25.0%" in lines[0] and f"{measured.perplexity[1]:.1f}" in lines[3]


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        (torch.zeros(4, 2, dtype=torch.int64), [3], None),
        (torch.zeros(4, 3, dtype=torch.int64), [3], "3 levels but codebook_sizes"),
        (torch.zeros(0, 2, dtype=torch.int64), [3, 3], "empty"),
        (torch.tensor([[0, 0], [0, 7]]), [3, 5], "code 7 at level 2 is outside its codebook of 5"),
    ],
)
def test_report_refuses_codes_that_do_not_fit(codes, sizes, message):
    if message is None:
        assert report(codes, sizes).largest_tie == 4
    else:
        with pytest.raises(ValueError, match=message):
            report(codes, sizes)


def test_collapse_is_an_error_with_the_remedy():
    embeddings, sizes = torch.randn(400, 4), [16, 16, 16]
    check_not_collapsed(random_codes(0, 400, 3, 16), sizes, embeddings, "unused")
    few_first = random_codes(0, 400, 3, 16)
    few_first[:, 0] %= 3
    with pytest.raises(CollapsedCodesError, match="3 of 16 first-level codes.*train longer"):
        check_not_collapsed(few_first, sizes, embeddings, "train longer")
    few_tuples = random_codes(0, 400, 1, 16).repeat(1, 3)
    with pytest.raises(CollapsedCodesError, match="16 distinct code tuples for 400 items"):
        check_not_collapsed(few_tuples, sizes, embeddings, "train longer")


def test_equal_embeddings_are_no_collapse():
    codes = random_codes(0, 40, 3, 16)
    copies = torch.arange(40).repeat(10)
    check_not_collapsed(codes[copies], [16, 16, 16], torch.randn(40, 4)[copies], "unused")
