"""The Trainer and `rank_examples` give the same lists, and metrics agree with their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from doubles import WORDS, random_catalogue, shop_examples, shop_items, tiny_model, word_tokenizer
from transformers import EvalPrediction, TrainingArguments

from modeling_mender import MenderProcessor, MenderTrainer
from modeling_mender.training.batches import MenderCollator
from modeling_mender.training.data import prepare_examples
from modeling_mender.training.ranking import rank_batch, rank_examples, ranking_metrics

ITEMS = len(WORDS)


@pytest.fixture
def processor():
    return MenderProcessor(word_tokenizer(), shop_items(), max_length=24)


@pytest.fixture
def model():
    return tiny_model(random_catalogue(ITEMS, [3, 3, 3]))


@pytest.fixture
def examples():
    return shop_examples(3)["train"]


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_trainer_ranks_as_rank_examples_does(model, processor, examples, exclude_seen, tmp_path):
    ranked = rank_examples(model, processor, examples, exclude_seen=exclude_seen, batch_size=7)
    trainer = MenderTrainer(
        model,
        TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", per_device_eval_batch_size=5),
        data_collator=MenderCollator(processor, model, exclude_seen=exclude_seen),
    )
    predicted = trainer.predict(prepare_examples(examples, processor))
    assert np.array_equal(predicted.predictions, ranked)
    targets = [processor.item_indices(targets)[0] for targets in examples["targets"]]
    assert predicted.label_ids.tolist() == targets


def test_examples_are_ranked_one_by_one_as_together(model, processor, examples):
    ranked = rank_examples(model, processor, examples, top_k=5, exclude_seen=False)
    for row in (0, 5, len(examples) - 1):
        inputs = processor([examples[row]["preferences"]], [examples[row]["history"]])
        assert ranked[row].tolist() == model.recommend(**inputs, top_k=5).item_indices[0].tolist()


def test_lists_are_padded_and_training_columns_left_out(model, processor, examples):
    batch = MenderCollator(processor, model, exclude_seen=True)(list(prepare_examples(examples, processor)))
    assert {"labels", "negative", "exclude"} <= set(batch)
    ranked = rank_batch(model, batch, top_k=ITEMS + 4)
    assert ranked.shape == (len(examples), ITEMS + 4)
    left = [ITEMS - len(set(history)) for history in examples["history"]]
    assert (ranked >= 0).sum(1).tolist() == left
    assert torch.equal((ranked >= 0).int().argmin(1), torch.tensor(left))


def test_ranking_metrics_agree_with_their_definition():
    ranked = np.array([[4, 7, 1], [2, 3, 5], [0, 1, -1]])
    found = ranking_metrics(EvalPrediction(ranked, np.array([7, 9, 0])))
    assert found == {"ndcg@3": pytest.approx((1 / np.log2(3) + 1) / 3), "recall@3": pytest.approx(2 / 3), "n": 3}
