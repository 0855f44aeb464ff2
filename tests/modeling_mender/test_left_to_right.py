"""Encoders that read from left to right: one pass over a history gives what a pass for each target gives."""

from __future__ import annotations

import pytest
import torch
from doubles import brute_force_scores, random_catalogue, random_inputs, tiny_encoder, tiny_model

from modeling_mender import MenderConfig, MenderForGenerativeRetrieval
from modeling_mender.left_to_right import LeftToRightEncoder, last_tokens


@pytest.fixture
def model():
    catalogue = random_catalogue(30, [4, 4, 4])
    encoder = tiny_encoder("t5")
    encoder.left_to_right = True
    shape = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 3}
    torch.manual_seed(0)
    model = MenderForGenerativeRetrieval(MenderConfig(encoder, shape, catalogue.codebook_sizes, num_items=30))
    model.set_catalogue(catalogue)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def several_targets(model):
    """Three users with inputs of 13, 7 and 4 tokens, and 4, 2 and 1 targets."""
    lengths, positions = torch.tensor([13, 7, 4]), torch.tensor([[1, 4, 7, 13], [4, 7, 1, 1], [4, 1, 1, 1]])
    mask = (torch.arange(13) < lengths[:, None]).long()
    items = torch.tensor([[3, 7, 1, 29], [2, 2, 0, 0], [11, 0, 0, 0]])
    real = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    return {
        "input_ids": random_inputs(3, 13)["input_ids"].clamp(min=5) * mask,
        "attention_mask": mask,
        "labels": model.item_tokens(items).masked_fill(~real[..., None], -100),
        "target_positions": positions,
    }


def test_one_pass_gives_what_a_pass_for_each_target_gives(model):
    batch = several_targets(model)
    found = model(**batch)
    assert found.logits.shape == (3, 4, 3, 13)
    losses = []
    for user, target in (batch["labels"][..., 0] != -100).nonzero().tolist():
        before = int(batch["target_positions"][user, target])
        own, labels = batch["input_ids"][user : user + 1, :before], batch["labels"][user : user + 1, target]
        alone = model(own, torch.ones_like(own), labels=labels)
        torch.testing.assert_close(alone.logits[0], found.logits[user, target], rtol=1e-4, atol=1e-5)
        losses.append(alone.loss)
    torch.testing.assert_close(found.loss, torch.stack(losses).mean())


def test_gradients_are_those_of_a_pass_for_each_target(model):
    batch = several_targets(model)
    model(**batch).loss.backward()
    together = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    for user, target in (batch["labels"][..., 0] != -100).nonzero().tolist():
        own = batch["input_ids"][user : user + 1, : int(batch["target_positions"][user, target])]
        labels = batch["labels"][user : user + 1, target]
        (model(own, torch.ones_like(own), labels=labels).loss / 7).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_later_tokens_change_no_state(model):
    assert isinstance(model.encoder, LeftToRightEncoder)
    inputs = random_inputs(4, 9)
    whole = model.encoder(**inputs).last_hidden_state
    part = model.encoder(**{name: value[:, :5] for name, value in inputs.items()}).last_hidden_state
    torch.testing.assert_close(whole[:, :5], part)


def test_search_and_generate_read_the_same(model):
    inputs = random_inputs(5, 9, seed=1)
    ranked = model.recommend(**inputs, top_k=10, num_beams="exact")
    expected = brute_force_scores(model, inputs).topk(10)
    assert torch.equal(ranked.item_indices, expected.indices)
    torch.testing.assert_close(ranked.scores, expected.values)
    written = model.generate(**inputs, num_beams=20, num_return_sequences=5)
    assert torch.equal(model.item_indices(written[:, 1:]).view(5, 5), ranked.item_indices[:, :5])


def test_a_saved_model_still_reads_from_left_to_right(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = MenderForGenerativeRetrieval.from_pretrained(tmp_path).eval()
    assert loaded.config.left_to_right and isinstance(loaded.encoder, LeftToRightEncoder)
    inputs = random_inputs(5, 9)
    assert torch.equal(model.recommend(**inputs).item_indices, loaded.recommend(**inputs).item_indices)


def test_encoders_that_see_what_comes_after_are_refused():
    model = tiny_model(random_catalogue(30, [4, 4, 4]), "t5")
    with pytest.raises(ValueError, match="target_positions needs an encoder that reads from left to right"):
        model(**several_targets(model))


def test_last_tokens_are_found_wherever_padding_is():
    states, mask = torch.zeros(3, 4, 2), torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
    assert last_tokens(mask, states).tolist() == [1, 3, 0]
    assert last_tokens(None, states).tolist() == [3, 3, 3]
