"""The tree against plain Python over code tuples."""

from __future__ import annotations

import pytest
import torch
from doubles import random_catalogue
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from modeling_mender import SemanticIdCatalogue

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=6).flatmap(
    lambda sizes: st.tuples(
        st.just(sizes),
        st.lists(st.tuples(*[st.integers(0, size - 1) for size in sizes]), min_size=1, max_size=60, unique=True),
    )
)


@tries(100)
@given(shapes)
def test_children_are_those_of_the_code_tuples(shape):
    sizes, codes = shape
    catalogue = SemanticIdCatalogue(torch.tensor(codes), sizes)
    prefixes = {(): 0}
    for level in range(len(sizes)):
        below = {}
        for prefix, node in prefixes.items():
            first, end = (part.item() for part in catalogue.children(level, torch.tensor(node)))
            found = catalogue.codes_of(level + 1, torch.arange(first, end), torch.full((end - first,), node)).tolist()
            assert found == sorted({code[level] for code in codes if code[:level] == prefix})
            below.update({(*prefix, code): first + slot for slot, code in enumerate(found)})
        prefixes = below
        assert catalogue.num_nodes(level + 1) == len(below)
    leaves = torch.tensor([prefixes[code] for code in codes])
    assert catalogue.items_of_leaves(leaves).tolist() == list(range(len(codes)))


@tries(60)
@given(shapes)
def test_lookup_finds_every_item_and_nothing_else(shape):
    sizes, codes = shape
    catalogue = SemanticIdCatalogue(torch.tensor(codes), sizes)
    assert catalogue.item_indices(torch.tensor(codes)).tolist() == list(range(len(codes)))
    generator = torch.Generator().manual_seed(0)
    tries = torch.stack([torch.randint(-1, size + 1, (50,), generator=generator) for size in sizes], dim=1)
    expected = [codes.index(tuple(code)) if tuple(code) in codes else -1 for code in tries.tolist()]
    assert catalogue.item_indices(tries).tolist() == expected
    assert [tuple(code) in catalogue for code in tries.tolist()] == [row >= 0 for row in expected]


def test_python_protocols():
    catalogue = SemanticIdCatalogue(torch.tensor([[1, 0], [0, 1], [0, 0]]), [2, 2])
    assert len(catalogue) == 3
    assert list(catalogue) == [(1, 0), (0, 1), (0, 0)]
    assert (1, 0) in catalogue and (1, 1) not in catalogue and "10" not in catalogue and (1,) not in catalogue
    assert catalogue == SemanticIdCatalogue(torch.tensor([[1, 0], [0, 1], [0, 0]]), [2, 2])
    assert catalogue != SemanticIdCatalogue(torch.tensor([[1, 0], [0, 1]]), [2, 2])
    assert catalogue != "catalogue"
    assert repr(catalogue.remove([1])) == "SemanticIdCatalogue(2 items, 1 removed, codebook_sizes=[2, 2])"


def test_adding_and_removing_items_keeps_item_indices():
    catalogue = random_catalogue(40, [5, 5, 5])
    codes = [tuple(code) for code in catalogue.codes.tolist()]
    fewer = catalogue.remove([0, 39, 7])
    assert len(fewer) == 37 and fewer.num_items == 40
    assert codes[7] not in fewer and codes[8] in fewer
    assert fewer.item_indices(torch.tensor([codes[8], codes[7]])).tolist() == [8, -1]
    mask = torch.zeros(40, dtype=torch.bool)
    mask[[0, 39, 7]] = True
    assert catalogue.remove(mask) == fewer
    again = fewer.add(torch.tensor([codes[7]]))
    assert again.item_indices(torch.tensor([codes[7]])).tolist() == [40]
    assert len(again) == 38
    assert len(catalogue) == 40


def test_keys_too_long_for_one_integer():
    sizes = [2**15] * 6
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2**15, (300, 6), generator=generator)
    codes[150:, :5] = codes[:150, :5]
    catalogue = SemanticIdCatalogue(codes, sizes)
    assert catalogue.item_indices(codes).tolist() == list(range(300))
    assert [catalogue.num_nodes(level) for level in (0, 5, 6)] == [1, 150, 300]


def test_codes_implied_by_position_cost_nothing():
    ties = torch.tensor([[a, b, t] for a in range(4) for b in range(4) for t in range((a + b) % 3 + 1)])
    catalogue = SemanticIdCatalogue(ties, [4, 4, 3])
    assert catalogue._code == [None, None, None]
    assert catalogue.item_indices(ties).tolist() == list(range(len(ties)))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.empty(0, 2, dtype=torch.long), "the catalogue is empty"),
        (torch.tensor([[0, 0, 0]]), r"expected \(items, 2\)"),
        (torch.tensor([[0, 4]]), "item index 0 has code 4 at level 1, outside its codebook of 4 codes"),
        (torch.tensor([[0, 0], [-2, 1]]), "item index 1 has code -2 at level 0"),
        (torch.tensor([[0, 0], [-1, 1]]), "item index 1 has code -1 at level 0"),
        (torch.tensor([[1, 1], [0, 2], [1, 1]]), r"item indices 0 and 2 share the semantic ID \(1, 1\)"),
        (torch.tensor([[0.0, 1.0]]), "expected an integer type"),
        (torch.tensor([[-1, -1]]), "no item left"),
        (torch.tensor([[255, 255]], dtype=torch.uint8), "code 255 at level 0, outside its codebook"),
    ],
)
def test_impossible_catalogues_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        SemanticIdCatalogue(codes, [4, 4])


def test_removing_what_is_not_there_is_refused():
    catalogue = random_catalogue(5, [4, 4]).remove([2])
    with pytest.raises(IndexError, match=r"\[2\]"):
        catalogue.remove([2])
    with pytest.raises(IndexError, match=r"\[5\]"):
        catalogue.remove([5])
    with pytest.raises(ValueError, match="no item left"):
        catalogue.remove([0, 1, 3, 4])
    with pytest.raises(ValueError, match=r"expected \(M, 2\)"):
        catalogue.add(torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="expected an integer type"):
        catalogue.add(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"expected \(5,\)"):
        catalogue.remove(torch.ones(4, dtype=torch.bool))
