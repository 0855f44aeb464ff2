"""The promises of `recommend()` over many random shapes of catalogues, batches, beams and filters."""

from __future__ import annotations

import pytest
import torch
from doubles import brute_force_scores, random_catalogue, random_inputs, tiny_model
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from properties import tries

from modeling_mender import SemanticIdCatalogue
from modeling_mender.item_states import encode_in_groups

many = tries(40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def cases(draw):
    """Codebook sizes, number of items, crowded or even codes, users, k, beam width, seed."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    room = int(torch.tensor(sizes).prod())
    items = draw(st.integers(1, min(room, 60)))
    k = draw(st.integers(1, items + 3))
    width = draw(st.integers(min(k, items), items + 5))
    return sizes, items, draw(st.booleans()), draw(st.integers(1, 4)), k, width, draw(st.integers(0, 99))


def make(case):
    sizes, items, skewed, users, k, width, seed = case
    catalogue = random_catalogue(items, sizes, seed=seed, skewed=skewed)
    return tiny_model(catalogue, seed=seed, num_layers=1), random_inputs(users, 6, seed=seed), len(catalogue), k, width


@pytest.fixture(params=["padded", "ragged"])
def layout(request, monkeypatch):
    """Both layouts of children, and both ways to find the best of them, must give the same answers."""
    ragged = request.param == "ragged"
    monkeypatch.setattr(SemanticIdCatalogue, "is_ragged", lambda self, level: ragged)
    monkeypatch.setattr("modeling_mender.candidates.RAGGED_COST", 0 if ragged else 3)
    monkeypatch.setattr("modeling_mender.candidates.MANY_CANDIDATES", 0 if ragged else 1024)
    monkeypatch.setattr("modeling_mender.candidates.BLOCK", 3)


@many
@given(cases())
def test_exact_equals_brute_force(layout, case):
    model, inputs, items, k, _ = make(case)
    found = model.recommend(**inputs, top_k=k, num_beams="exact")
    expected = brute_force_scores(model, inputs)
    best = expected.sort(dim=1, descending=True).values[:, :k]
    assert found.item_indices.shape == best.shape == (len(expected), min(k, items))
    torch.testing.assert_close(found.scores, best, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(expected.gather(1, found.item_indices), best, rtol=1e-4, atol=1e-4)
    assert all(len(set(user)) == len(user) for user in found.item_indices.tolist())


@many
@given(cases())
def test_beams_equal_generate_and_a_covering_beam_is_exact(layout, case):
    model, inputs, items, k, width = make(case)
    found = model.recommend(**inputs, top_k=k, num_beams=width)
    # Plain beam search needs as many beams as items, or it fills up with padding.
    beams, wanted = min(width, items), min(k, items)
    generated = model.generate(
        **inputs,
        num_beams=beams,
        num_return_sequences=wanted,
        return_dict_in_generate=True,
        output_scores=True,
        do_sample=False,
    )
    if beams > 1:
        torch.testing.assert_close(found.scores.flatten(), generated.sequences_scores, rtol=1e-4, atol=1e-4)
    rows = model.item_indices(generated.sequences[:, 1:]).view(found.item_indices.shape)
    distinct = (found.scores.diff(dim=1).abs() > 1e-4).all(dim=1)
    assert torch.equal(rows[distinct], found.item_indices[distinct])
    covering = model.recommend(**inputs, top_k=k, num_beams=items)
    exact = model.recommend(**inputs, top_k=k, num_beams="exact")
    torch.testing.assert_close(covering.scores, exact.scores, rtol=1e-4, atol=1e-4)


@many
@given(cases(), st.data())
def test_filters_equal_brute_force_over_what_is_left(layout, case, data):
    model, inputs, items, k, width = make(case)
    users = len(inputs["input_ids"])
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    per_user = data.draw(st.booleans())
    allowed = torch.rand((users, items) if per_user else (items,), generator=generator) < 0.6
    shared_exclude = data.draw(st.booleans())
    exclude = torch.randint(-1, items, (users, data.draw(st.integers(0, 8))), generator=generator)
    exclude = exclude[0] if shared_exclude else exclude
    keep = allowed.expand(users, -1).clone()
    for user, rows in enumerate(exclude.expand(users, -1).tolist()):
        keep[user, [row for row in rows if row >= 0]] = False
    if not bool(keep.any(dim=1).all()):
        with pytest.raises(ValueError, match="no item is left"):
            model.recommend(**inputs, top_k=k, allowed=allowed, exclude=exclude)
        return
    expected = brute_force_scores(model, inputs).masked_fill(~keep, -torch.inf).sort(dim=1, descending=True).values
    expected = expected[:, : min(k, int(keep.sum(1).max()))]
    found = model.recommend(**inputs, top_k=k, num_beams="exact", allowed=allowed, exclude=exclude)
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)
    narrow = model.recommend(**inputs, top_k=k, num_beams=width, allowed=allowed, exclude=exclude)
    assert narrow.item_indices.shape == found.item_indices.shape
    real = narrow.item_indices >= 0
    assert bool(keep.gather(1, narrow.item_indices.clamp(min=0))[real].all())
    # Filtered beams never die: as many items come back as may be returned.
    assert torch.equal(real.sum(1), keep.sum(1).clamp(max=found.item_indices.shape[1]))


@many
@given(cases(), st.booleans())
def test_neither_padding_nor_the_batch_matters(case, left):
    model, inputs, _, k, width = make(case)
    together = model.recommend(**inputs, top_k=k, num_beams=width)
    order = torch.randperm(len(inputs["input_ids"]))
    padded = {name: torch.nn.functional.pad(value, (0, 3))[order] for name, value in inputs.items()}
    found = model.recommend(**padded, top_k=k, num_beams=width)
    torch.testing.assert_close(found.scores, together.scores[order], rtol=1e-4, atol=1e-4)
    alone = {name: value[:1, : int(inputs["attention_mask"][0].sum())] for name, value in inputs.items()}
    found = model.recommend(**alone, top_k=k, num_beams=width)
    torch.testing.assert_close(found.scores[0], together.scores[0], rtol=1e-4, atol=1e-4)


@many
@given(cases(), st.integers(0, 99))
def test_items_can_be_added_and_removed(case, seed):
    model, inputs, items, k, _ = make(case)
    before = model.recommend(**inputs, top_k=items, num_beams="exact")
    generator = torch.Generator().manual_seed(seed)
    gone = torch.randperm(items, generator=generator)[: items // 2]
    codes = model.catalogue.codes[gone]
    catalogue = model.catalogue
    if len(gone):
        model.set_catalogue(catalogue.remove(gone))
        fewer = model.recommend(**inputs, top_k=items, num_beams="exact")
        assert not set(fewer.item_indices.flatten().tolist()) & set(gone.tolist())
        model.set_catalogue(model.catalogue.add(codes))
    after = model.recommend(**inputs, top_k=items, num_beams="exact")
    torch.testing.assert_close(after.scores, before.scores)
    # The items that came back are new rows.
    back = torch.arange(items)
    back[gone] = torch.arange(items, items + len(gone))
    distinct = (before.scores.diff(dim=1).abs() > 1e-4).all(dim=1)
    assert torch.equal(after.item_indices[distinct], back[before.item_indices][distinct])


@many
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(1, 40), st.booleans())
def test_groups_of_any_size_encode_like_the_whole_batch(lengths, tokens_at_once, left):
    longest = max(lengths)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    mask = mask.flip(1) if left else mask
    ids = torch.arange(1, len(lengths) * longest + 1).view(len(lengths), longest) * mask
    sizes = []

    def encode(ids, mask):
        sizes.append(ids.numel())
        assert len(ids) == 1 or ids.numel() <= tokens_at_once
        return torch.stack([ids.float(), mask.float()], dim=-1)

    found = encode_in_groups(encode, ids, mask, tokens_at_once)
    assert torch.equal(found, torch.stack([ids.float(), mask.float()], dim=-1))
    assert sum(sizes) <= len(lengths) * longest
