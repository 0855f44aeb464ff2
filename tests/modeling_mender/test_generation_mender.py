"""`generate(custom_generate=catalogue_beam_search)` against plain beam search with the processor."""

from __future__ import annotations

import pytest
import torch
from doubles import random_catalogue, random_inputs, tiny_model
from transformers import GenerationConfig

from modeling_mender import SemanticIdLogitsProcessor
from modeling_mender.generation_mender import catalogue_beam_search


@pytest.mark.parametrize("copied", [True, False])
def test_equals_plain_beam_search(copied):
    model = tiny_model(random_catalogue(150, [6, 6, 6, 3]))
    inputs = random_inputs(4, 7)
    settings = {"return_dict_in_generate": True, "output_scores": True}
    plain = model.generate(**inputs, num_beams=12, num_return_sequences=5, **settings)
    width = {"num_beams": 12, "num_return_sequences": 5}
    if copied:  # beams of a generation config make `generate` copy the inputs
        width = {"generation_config": GenerationConfig(**{**model.generation_config.to_diff_dict(), **width})}
    fast = model.generate(**inputs, custom_generate=catalogue_beam_search, do_sample=False, **width, **settings)
    assert torch.equal(plain.sequences, fast.sequences)
    torch.testing.assert_close(plain.sequences_scores, fast.sequences_scores, rtol=1e-4, atol=1e-4)


def test_filters_reach_the_search():
    model = tiny_model(random_catalogue(20, [4, 6]))
    model.set_catalogue(model.catalogue.remove([0]))
    inputs = random_inputs(2, 4)
    sequences = model.generate(
        **inputs,
        custom_generate=catalogue_beam_search,
        num_return_sequences=10,
        allowed=[3, 5, 8],
        exclude=[[3], [5, 8]],
    )
    rows = model.item_indices(sequences[:, 1:]).view(2, -1)
    assert rows.shape == (2, 2)
    assert set(rows[0].tolist()) == {5, 8} and rows[1].tolist() == [3, -1]
    assert sequences[-1].tolist() == [0, 0, 0]


def test_unsupported_settings_are_refused():
    model = tiny_model(random_catalogue(20, [4, 6]))
    inputs = random_inputs(2, 4)
    with pytest.raises(ValueError, match="does not support do_sample=True"):
        model.generate(**inputs, custom_generate=catalogue_beam_search, do_sample=True)
    with pytest.raises(ValueError, match="does not support RepetitionPenaltyLogitsProcessor"):
        model.generate(**inputs, custom_generate=catalogue_beam_search, repetition_penalty=2.0)
    other = SemanticIdLogitsProcessor(model.catalogue.remove([0]))
    with pytest.raises(ValueError, match="with another catalogue"):
        model.generate(**inputs, custom_generate=catalogue_beam_search, logits_processor=[other])
    with pytest.raises(ValueError, match="have 2 tokens per row"):
        model.generate(**inputs, custom_generate=catalogue_beam_search, decoder_input_ids=torch.tensor([[0, 1]] * 2))
