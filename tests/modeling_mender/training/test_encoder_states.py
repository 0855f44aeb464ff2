"""States of a frozen encoder from a file: the same loss and ranking as from the encoder itself."""

from __future__ import annotations

import pytest
import torch
from doubles import WORDS
from transformers import TrainingArguments

from modeling_mender import MenderTrainer
from modeling_mender.training.batches import MenderCollator
from modeling_mender.training.encoder_states import EncoderStates

ITEMS = len(WORDS)


def test_cached_states_give_the_same_loss_and_ranking(model, processor, features, tmp_path):
    model.encoder.requires_grad_(False)
    states = EncoderStates.build(model, features["input_ids"], tmp_path / "states", tokens_per_batch=40)
    assert len(states) == ITEMS and features[0]["input_ids"] in states and [1, 2, 3] not in states
    assert not list(tmp_path.glob("*.tmp"))
    batch = [features[row] for row in (1, 2, 3, 7)]
    plain, cached = (MenderCollator(processor, model, source)(batch) for source in (None, states))
    with torch.no_grad():
        assert abs(model(**plain).loss - model(**cached).loss) < 2e-2
    (loss, best, _), (cached_loss, cached_best, _) = (
        MenderTrainer(
            model,
            TrainingArguments(str(tmp_path), use_cpu=True),
            data_collator=MenderCollator(processor, model, source),
        ).prediction_step(model, MenderCollator(processor, model, source)(list(features)), False)
        for source in (None, states)
    )
    assert abs(loss - cached_loss) < 2e-2
    assert (best[:, 0] == cached_best[:, 0]).float().mean() > 0.9


def test_states_of_a_trained_encoder_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="the encoder is being trained"):
        EncoderStates.build(model, [[1, 2]], tmp_path / "states")
    model.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="no inputs"):
        EncoderStates.build(model, [], tmp_path / "states")
    with pytest.raises(KeyError, match="no cached encoder states for an input of 1 tokens"):
        EncoderStates.build(model, [[1, 2]], tmp_path / "states")[[3]]
