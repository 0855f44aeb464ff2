"""Batches: every example once an epoch, little padding, and the labels that the model gives, in workers as well."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from doubles import WORDS, random_catalogue, tiny_model, word_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from modeling_mender import (
    MenderForGenerativeRetrieval,
    MenderProcessor,
    MenderTrainer,
    MenderTrainingArguments,
    SasRecForSequentialRecommendation,
)
from modeling_mender.modeling_sasrec import SasRecConfig
from modeling_mender.training.batches import (
    ItemLabels,
    LengthSampler,
    MenderCollator,
    SequenceCollator,
    length_grouped_order,
)

ITEMS = len(WORDS)
FEATURES = [{"input_ids": [2, 5, 3], "item": row, "seen": []} for row in range(ITEMS)]


@pytest.fixture
def processor():
    return MenderProcessor(word_tokenizer(), {"item_id": WORDS, "title": WORDS}, max_length=24)


@pytest.fixture
def model():
    return tiny_model(random_catalogue(ITEMS, [3, 3, 3]))


def labels_by_workers(collator):
    return torch.cat([batch["labels"] for batch in DataLoader(FEATURES, 5, num_workers=2, collate_fn=collator)])


def test_labels_are_those_of_the_model(model):
    rows = [4, -1, 0, ITEMS - 1]
    expected = model.item_tokens(torch.tensor(rows).clamp(min=0))
    expected[1] = -100
    assert torch.equal(ItemLabels(model).of(rows, model), expected)


def test_the_model_is_not_asked_again(model, processor, monkeypatch):
    expected = model.item_tokens(torch.arange(ITEMS))
    collator = MenderCollator(processor, model)
    monkeypatch.setattr(MenderForGenerativeRetrieval, "item_tokens", None)
    monkeypatch.setattr(MenderForGenerativeRetrieval, "device", None)
    assert torch.equal(collator(FEATURES)["labels"], expected)
    assert torch.equal(labels_by_workers(collator), expected)


def test_copies_give_the_same_labels(model, processor):
    collator = MenderCollator(processor, model)
    again = copy.deepcopy(collator)
    assert again.item_labels._source is again.model.item_codes
    before = again.item_labels._codes
    assert torch.equal(again(FEATURES)["labels"], collator(FEATURES)["labels"])
    assert again.item_labels._codes is before


def test_a_table_that_another_process_gets_is_not_copied_again(model, processor):
    model.item_codes += 0  # tables count how often they were written to
    labels = MenderCollator(processor, model).item_labels
    model.item_codes = model.item_codes.clone()  # what a worker process receives counts anew
    received = ItemLabels.__new__(ItemLabels)
    received.__setstate__({**vars(labels), "_source": model.item_codes})
    received.refresh(model)
    assert received._codes is labels._codes


def test_labels_follow_the_catalogue(model, processor):
    collator = MenderCollator(processor, model)
    for seed in range(1, 4):
        model.set_catalogue(random_catalogue(ITEMS, [3, 3, 3], seed))
        expected = model.item_tokens(torch.arange(ITEMS))
        assert torch.equal(labels_by_workers(collator), expected)
        assert torch.equal(collator(FEATURES)["labels"], expected)
    model.item_codes.copy_(random_catalogue(ITEMS, [3, 3, 3], 4).codes)
    assert torch.equal(collator(FEATURES)["labels"], model.item_tokens(torch.arange(ITEMS)))


def test_rows_that_are_not_there_are_named_as_the_model_does(model):
    model.set_catalogue(model.catalogue.remove([3]))
    labels = ItemLabels(model)
    for row in (3, ITEMS):
        with pytest.raises(IndexError, match=f"item index {row} is not in the catalogue of {ITEMS} items"):
            labels.of([0, row], model)
        with pytest.raises(IndexError, match=f"item index {row} is not in the catalogue of {ITEMS} items"):
            model.item_tokens(torch.tensor([0, row]))


@pytest.mark.slow
def test_workers_never_read_a_table_on_another_device(model, processor):
    expected = model.item_tokens(torch.arange(ITEMS))
    collator = MenderCollator(processor, model)
    model.item_codes = model.item_codes.to("meta")  # like an accelerator's: nothing can be read from it here
    with pytest.raises(RuntimeError, match="item table on meta is not the one that labels were copied from"):
        labels_by_workers(collator)
    collator.item_labels._source = model.item_codes  # as if it had been copied while it could be read
    collator.item_labels._version = model.item_codes._version
    assert torch.equal(labels_by_workers(collator), expected)


def test_the_trainer_copies_the_table_before_workers_start(model, processor, tmp_path):
    collator = MenderCollator(processor, model)
    arguments = MenderTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    trainer = MenderTrainer(model=model, args=arguments, data_collator=collator, train_dataset=FEATURES)
    for load in (trainer.get_train_dataloader, lambda: trainer.get_eval_dataloader(FEATURES)):
        model.set_catalogue(model.catalogue)
        load()
        assert collator.item_labels._source is model.item_codes


def test_models_that_score_items_have_their_rows_for_labels(monkeypatch):
    scorer = SasRecForSequentialRecommendation(SasRecConfig(num_items=ITEMS, hidden_size=16))
    monkeypatch.setattr(SasRecForSequentialRecommendation, "device", torch.device("meta"))
    items = {"item_id": WORDS, "title": WORDS}
    collator = SequenceCollator(MenderProcessor(word_tokenizer(), items, history="indices", preference="none"), scorer)
    assert collator(FEATURES)["labels"].tolist() == [[row] for row in range(ITEMS)]


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=200),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_every_example_occurs_once(lengths, batch_size, seed, epoch):
    order = length_grouped_order(lengths, batch_size, seed, epoch)
    assert sorted(order.tolist()) == list(range(len(lengths)))


def test_batches_hold_similar_lengths():
    lengths = np.random.default_rng(0).lognormal(4.8, 0.6, 6400).astype(int).clip(1, 512)
    order = length_grouped_order(lengths, 64, seed=0, epoch=0)
    slots = lengths[order].reshape(-1, 64).max(1).sum() * 64
    assert slots / lengths.sum() < 1.05
    assert (lengths.reshape(-1, 64).max(1).sum() * 64) / lengths.sum() > 2


def test_order_depends_on_seed_and_epoch_alone():
    sampler = LengthSampler([3, 1, 2] * 50, batch_size=8, seed=1)
    first = list(sampler)
    torch.manual_seed(5)
    np.random.seed(5)
    assert list(sampler) == first and len(sampler) == 150
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(LengthSampler([3, 1, 2] * 50, batch_size=8, seed=2)) != first


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_short_batch_is_the_last(epoch):
    order = length_grouped_order([1] * 10 + [9], 4, seed=0, epoch=epoch)
    assert len(order) == 11
