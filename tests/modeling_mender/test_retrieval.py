"""`recommend()` for several decoders and changing weights; its properties are in test_retrieval_properties.py."""

from __future__ import annotations

import pytest
import torch
from doubles import brute_force_scores, random_catalogue, random_inputs, tiny_model

from modeling_mender import SemanticIdCatalogue

SHAPES = [
    (40, [4, 4, 4]),
    (7, [2, 3, 2, 2]),
    (60, [64]),
    (90, [3, 5, 2, 6]),
    (50, [2, 2, 2, 2, 2, 2, 2]),
]


@pytest.mark.parametrize("encoder", ["bert", "t5"])
@pytest.mark.parametrize(("items", "sizes"), SHAPES)
@pytest.mark.parametrize(("gated", "d_kv"), [(False, 8), (True, 8), (False, 4)])
def test_exact_equals_brute_force(items, sizes, encoder, gated, d_kv):
    # Heads of width 4 are so narrow that their products are taken in two.
    catalogue = random_catalogue(items, sizes, seed=items)
    model = tiny_model(catalogue, encoder, feed_forward_proj="gated-gelu" if gated else "relu", d_kv=d_kv)
    inputs = random_inputs(3, 9, seed=items)
    found = model.recommend(**inputs, top_k=items, num_beams="exact")
    expected, rows = brute_force_scores(model, inputs).sort(dim=1, descending=True)
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.item_indices.sort(1).values, rows.sort(1).values)


def test_exact_in_chunks_equals_one_chunk(monkeypatch):
    model = tiny_model(random_catalogue(120, [8, 5, 4]))
    inputs = random_inputs(3, 6)
    whole = model.recommend(**inputs, top_k=25, num_beams="exact")
    monkeypatch.setattr("modeling_mender.retrieval.EXACT_CHUNK", 17)
    chunked = model.recommend(**inputs, top_k=25, num_beams="exact")
    assert torch.equal(whole.item_indices, chunked.item_indices)
    torch.testing.assert_close(whole.scores, chunked.scores)


@pytest.mark.parametrize(("skewed", "d_kv"), [(False, 8), (True, 8), (False, 4)])
def test_beams_equal_generate_with_the_processor(skewed, d_kv):
    width = 12
    model = tiny_model(random_catalogue(150, [6, 6, 6, 3], skewed=skewed), d_kv=d_kv)
    inputs = random_inputs(4, 7)
    found = model.recommend(**inputs, top_k=width, num_beams=width)
    generated = model.generate(
        **inputs,
        num_beams=width,
        num_return_sequences=width,
        return_dict_in_generate=True,
        output_scores=True,
    )
    offsets = torch.tensor([1, *model.config.codebook_sizes[:-1]]).cumsum(0)
    rows = model.catalogue.item_indices(generated.sequences[:, 1:] - offsets).view(4, width)
    assert torch.equal(found.item_indices, rows)
    torch.testing.assert_close(found.scores, generated.sequences_scores.view(4, width), rtol=1e-4, atol=1e-4)


def test_a_wide_node_outside_the_beams_adds_no_items():
    # 100 prefixes and 200 items, one prefix with 66 of them: where no beam holds that one, two children are the most.
    widths = [2, 1] * 35 + [1] * 29 + [66]
    model = tiny_model(random_catalogue(200, [100, 66]))
    inputs = random_inputs(1, 5)
    start = torch.zeros(1, 1, dtype=torch.long)
    likely = model(**inputs, decoder_input_ids=start).logits[0, -1, 1:101].argsort(descending=True).tolist()
    codes = [(code, child) for code, width in zip(likely, widths, strict=True) for child in range(width)]
    model.set_catalogue(SemanticIdCatalogue(torch.tensor(codes), [100, 66]))
    found = model.recommend(**inputs, top_k=20, num_beams=20)
    # The 20 likeliest prefixes have the first 30 items.
    expected, rows = brute_force_scores(model, inputs)[:, :30].topk(20, dim=1)
    assert torch.equal(found.item_indices, rows)
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)


def test_autocast_leaves_the_search_alone():
    model = tiny_model(random_catalogue(30, [4, 4, 4]))
    inputs = random_inputs(2, 5)
    full = model.recommend(**inputs, top_k=30, num_beams="exact")
    with torch.autocast("cpu", torch.bfloat16):
        half = model.recommend(**inputs, top_k=30, num_beams="exact")
    assert half.scores.dtype == torch.float32
    torch.testing.assert_close(full.scores, half.scores, rtol=0.1, atol=0.1)


def test_filters_need_no_wider_beam_than_k():
    items = 200
    model = tiny_model(random_catalogue(items, [6, 6, 8]))
    inputs = random_inputs(3, 6)
    allowed = torch.arange(items) % 9 == 0
    found = model.recommend(**inputs, top_k=10, num_beams=10, allowed=allowed, exclude=[0, 9])
    assert found.item_indices.shape == (3, 10)
    assert bool(allowed[found.item_indices].all())
    assert not {0, 9} & set(found.item_indices.flatten().tolist())


def test_bad_requests_are_refused():
    model = tiny_model(random_catalogue(20, [4, 6]))
    inputs = random_inputs(2, 4)
    with pytest.raises(ValueError, match="num_beams=5 cannot return top_k=10 items; pass num_beams >= top_k"):
        model.recommend(**inputs, top_k=10, num_beams=5)
    with pytest.raises(ValueError, match="top_k=0; pass top_k >= 1"):
        model.recommend(**inputs, top_k=0)
    with pytest.raises(ValueError, match="num_beams='wide'"):
        model.recommend(**inputs, num_beams="wide")
    with pytest.raises(ValueError, match="no item is left for user 1"):
        model.recommend(**inputs, exclude=[[], list(range(20))])
    with pytest.raises(ValueError, match="no item is left for user 0"):
        model.recommend(**inputs, allowed=torch.zeros(20, dtype=torch.bool))
    with pytest.raises(IndexError, match="item index 20; the catalogue has items 0..19"):
        model.recommend(**inputs, exclude=[20])
    with pytest.raises(ValueError, match="covers 19 items; the catalogue has 20"):
        model.recommend(**inputs, allowed=torch.ones(19, dtype=torch.bool))
    with pytest.raises(ValueError, match="pass input_ids"):
        model.recommend()
    with pytest.raises(TypeError, match="temperature"):
        model.recommend(**inputs, temperature=2.0)


def test_scores_follow_the_weights_as_they_change():
    model = tiny_model(random_catalogue(30, [4, 4, 4]))
    inputs = random_inputs(2, 5)
    model.recommend(**inputs)
    with torch.no_grad():
        model.decoder.block[0].layer[1].EncDecAttention.v.weight.mul_(1.5)
        model.lm_head.weight.add_(0.1 * torch.randn_like(model.lm_head.weight))
    found = model.recommend(**inputs, top_k=30, num_beams="exact")
    expected = brute_force_scores(model, inputs).sort(dim=1, descending=True).values
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inference", [False, True])
def test_scores_follow_weights_that_change_unnoticed_after_eval(inference):
    model = tiny_model(random_catalogue(30, [4, 4, 4]))
    inputs = random_inputs(2, 5)
    with torch.inference_mode(inference):
        model.to(torch.float64).to(torch.float32)
        model.recommend(**inputs)
        model.lm_head.weight.data.mul_(1.5)
        model.eval()
    found = model.recommend(**inputs, top_k=30, num_beams="exact")
    expected = brute_force_scores(model, inputs).sort(dim=1, descending=True).values
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)


def test_scores_follow_an_optimizer_that_does_not_increase_version_counters():
    model = tiny_model(random_catalogue(30, [4, 4, 4]))
    inputs = random_inputs(2, 5)
    model.recommend(**inputs)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    for _ in range(2):
        model(**inputs, labels=model.item_tokens(torch.tensor([3, 8]))).loss.backward()
        optimizer.step()
        found = model.recommend(**inputs, top_k=30, num_beams="exact")
        model.eval()
        expected = brute_force_scores(model, inputs).sort(dim=1, descending=True).values
        model.train()
        torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_agrees_within_its_precision():
    model = tiny_model(random_catalogue(30, [4, 4, 4]))
    inputs = random_inputs(3, 5)
    full = model.recommend(**inputs, top_k=30, num_beams="exact")
    half = model.to(torch.bfloat16).recommend(**inputs, top_k=30, num_beams="exact")
    by_row = torch.argsort(full.item_indices, 1), torch.argsort(half.item_indices, 1)
    difference = full.scores.gather(1, by_row[0]) - half.scores.gather(1, by_row[1])
    assert difference.abs().max() < 0.15 * full.scores.abs().max()
