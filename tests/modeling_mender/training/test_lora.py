"""LoRA: what is trained, and that a merged model is a plain one with the same scores."""

from __future__ import annotations

import pytest
import torch
from doubles import brute_force_scores, random_catalogue, random_inputs, tiny_model
from transformers import AutoModel

from modeling_mender import MenderForGenerativeRetrieval
from modeling_mender.training.lora import add_lora, lora_config


@pytest.mark.parametrize("encoder", ["bert", "llama", "t5"])
def test_adapters_in_the_encoder_and_all_new_modules_are_trained(encoder):
    model = tiny_model(random_catalogue(20, [4, 6]), encoder)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    adapted = add_lora(model, rank=2)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    in_encoder = {name for name in trained if ".encoder." in name}
    assert in_encoder and all("lora_" in name for name in in_encoder)
    for module in ("decoder", "lm_head"):
        names = {name for name, _ in adapted.named_parameters() if f".{module}.modules_to_save." in name}
        assert names and names <= trained
    after = {name.replace("base_layer.", ""): value for name, value in model.encoder.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("encoder", ["bert", "llama", "t5"])
def test_lora_trains_merges_and_saves(encoder, tmp_path):
    model = tiny_model(random_catalogue(20, [4, 6]), encoder)
    inputs = random_inputs(4, 6)
    labels = model.item_tokens(torch.arange(4))
    adapted = add_lora(model, rank=2).train()
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        adapted(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval()
    found = adapted.get_base_model().recommend(**inputs, top_k=20, num_beams="exact")
    expected = brute_force_scores(adapted.get_base_model(), inputs).sort(dim=1, descending=True)
    torch.testing.assert_close(found.scores, expected.values, rtol=1e-4, atol=1e-4)
    merged = adapted.merge_and_unload()
    assert isinstance(merged, MenderForGenerativeRetrieval)
    merged.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.recommend(**inputs, top_k=20, num_beams="exact").scores, found.scores)


def test_an_encoder_without_known_attention_needs_names():
    model = tiny_model(random_catalogue(20, [4, 6]))
    model.encoder = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no known attention projections in Sequential.*Pass target_modules="):
        lora_config(model)
    assert lora_config(model, target_modules=["0"]).target_modules == {"0"}
