"""The decoder's cross-attention in its cheaper order: T5's own is the second implementation."""

from __future__ import annotations

import copy

import accelerate
import pytest
import torch
import torch.nn.utils.prune
from doubles import random_catalogue
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

from modeling_mender import MenderConfig, MenderForGenerativeRetrieval
from modeling_mender.decoder import AbsorbedCrossAttention, absorb_cross_attention

IMPLEMENTATIONS = ["eager", "sdpa"] if T5Stack._supports_sdpa else ["eager"]


def shape(heads=2, per_head=8, width=12, implementation="eager", **more):
    config = T5Config(
        vocab_size=20, d_model=width, d_kv=per_head, d_ff=16, num_heads=heads, num_layers=2, is_decoder=True, **more
    )
    config._attn_implementation = implementation
    return config


def attention(**fields):
    config = shape(**fields)
    return AbsorbedCrossAttention.of(T5Attention(config, layer_idx=0), config)


def projections(attention):
    return [getattr(attention, name).weight for name in "qkvo"]


@tries(40)
@given(st.data())
def test_answers_and_gradients_are_those_of_t5(data):
    heads, per_head, width = (data.draw(st.integers(1, 9)) for _ in range(3))
    users, steps, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40))
    implementation = data.draw(st.sampled_from(IMPLEMENTATIONS))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    config = shape(heads, per_head, width, implementation)
    own = T5Attention(config, layer_idx=0).double().eval()
    absorbed = AbsorbedCrossAttention.of(copy.deepcopy(own), config)
    hidden = torch.randn(users, steps, width).double()
    states = torch.randn(users, length, width).double()
    real = torch.rand(users, 1, 1, length) < 0.7
    real[..., 0] = True
    mask = None if data.draw(st.booleans()) else real
    if mask is not None and implementation == "eager":
        mask = torch.zeros(real.shape).double().masked_fill(~real, torch.finfo(torch.double).min)
    answers = []
    for attention in (own, absorbed):
        inputs = [hidden.clone().requires_grad_(), states.clone().requires_grad_()]
        found = attention(inputs[0], key_value_states=inputs[1], mask=mask)[0]
        (found**2).sum().backward()
        answers.append([found.detach(), *(part.grad for part in (*inputs, *projections(attention)))])
    for ours, theirs in zip(answers[1], answers[0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_weights_that_attend_are_returned_whatever_the_order():
    torch.manual_seed(0)
    absorbed = attention().eval()
    few, many = torch.randn(2, 2, 12), torch.randn(2, 30, 12)
    assert absorbed._worthwhile(few, many, None) and not absorbed._worthwhile(many, few, None)
    for hidden, states in ((few, many), (many, few)):
        weights = absorbed(hidden, key_value_states=states, output_attentions=True)[2]
        assert weights.shape == (2, 2, hidden.shape[1], states.shape[1])
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_dropout_falls_on_the_weights_while_training():
    torch.manual_seed(0)
    absorbed = attention(dropout_rate=0.5).train()
    weights = absorbed(torch.randn(1, 2, 12), key_value_states=torch.randn(1, 50, 12))[2]
    assert 0.2 < (weights == 0).float().mean() < 0.8
    assert (absorbed.eval()(torch.randn(1, 2, 12), key_value_states=torch.randn(1, 50, 12))[2] > 0).all()


def test_a_decoder_starts_from_the_weights_it_would_have_started_from():
    torch.manual_seed(3)
    plain = T5Stack(shape())
    after = torch.rand(3)
    torch.manual_seed(3)
    stack = T5Stack(shape())
    absorb_cross_attention(stack)
    assert torch.equal(torch.rand(3), after)
    assert [name for name, _ in stack.named_parameters()] == [name for name, _ in plain.named_parameters()]
    for name, value in plain.state_dict().items():
        assert torch.equal(value, stack.state_dict()[name])


@pytest.fixture
def model():
    torch.manual_seed(0)
    decoder = {"num_layers": 2, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "dropout_rate": 0.0}
    text = {"model_type": "t5", "vocab_size": 30, "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 16, "num_layers": 1}
    config = MenderConfig(text, decoder, codebook_sizes=[4, 4], num_items=12)
    built = MenderForGenerativeRetrieval(config).eval()
    built.set_catalogue(random_catalogue(12, [4, 4]))
    return built


def loss_of(model):
    torch.manual_seed(1)
    inputs = torch.randint(1, 30, (3, 25))
    mask = (torch.arange(25) < torch.tensor([[25], [10], [4]])).long()
    return model(input_ids=inputs, attention_mask=mask, labels=model.item_tokens(torch.arange(3))).loss


def test_wrapped_projections_keep_their_adapters(model):
    peft = pytest.importorskip("peft")
    plain = loss_of(model).item()
    names = ["EncDecAttention.k", "EncDecAttention.v"]
    config = peft.LoraConfig(target_modules=names, r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    with_adapters = loss_of(adapted.base_model.model)
    assert abs(with_adapters.item() - plain) > 1e-4
    with_adapters.backward()
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert len(trained) == 8 and all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(loss_of(merged), with_adapters.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_whole_model_agrees_with_t5s_order(model, implementation, monkeypatch):
    model.set_attn_implementation(implementation)
    losses = [loss_of(model)]
    monkeypatch.setattr(AbsorbedCrossAttention, "_worthwhile", lambda *_: False)
    losses.append(loss_of(model))
    torch.testing.assert_close(losses[0], losses[1], atol=1e-6, rtol=1e-6)


def test_gradient_checkpointing_gives_the_same_gradients(model):
    grads = []
    for checkpointing in (False, True):
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        loss_of(model).backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4)


def test_pruned_and_offloaded_projections_are_called_not_read(model, monkeypatch):
    for block in model.decoder.block:
        torch.nn.utils.prune.random_unstructured(block.layer[1].EncDecAttention.k, "weight", amount=0.5)
        block.layer[1].EncDecAttention.k.weight_orig.data.mul_(2)  # a training step; the weight is made anew in a hook
    pruned = loss_of(model)
    monkeypatch.setattr(AbsorbedCrossAttention, "_worthwhile", lambda *_: False)
    torch.testing.assert_close(loss_of(model), pruned)
    monkeypatch.undo()
    for block in model.decoder.block:
        torch.nn.utils.prune.remove(block.layer[1].EncDecAttention.k, "weight")
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    torch.testing.assert_close(loss_of(model), pruned)
