"""Training and evaluation through the Trainer, on a task that a tiny model can learn by heart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from doubles import WORDS
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments

from modeling_mender import MenderTrainer, MenderTrainingArguments, SasRecForSequentialRecommendation
from modeling_mender.modeling_sasrec import SasRecConfig
from modeling_mender.training.batches import MenderCollator
from modeling_mender.training.ranking import ranking_metrics
from modeling_mender.training.trainer import last_checkpoint

ITEMS = len(WORDS)


def trainer(model, processor, tmp_path, **settings):
    arguments = MenderTrainingArguments(
        output_dir=str(tmp_path),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        per_device_eval_batch_size=5,
        **settings,
    )
    return MenderTrainer(model=model, args=arguments, data_collator=MenderCollator(processor, model))


def test_features_hold_targets_and_lengths(features):
    assert features["item"][:] == list(range(ITEMS))
    assert features["length"][:] == [len(ids) for ids in features["input_ids"]]


@pytest.mark.slow
def test_a_tiny_task_is_memorised(model, processor, features, tmp_path):
    subject = trainer(
        model,
        processor,
        tmp_path,
        max_steps=150,
        learning_rate=5e-3,
        per_device_train_batch_size=16,
        save_strategy="no",
    )
    subject.train_dataset = features
    subject.train()
    ranked = subject.predict(features).predictions
    assert ranked.shape == (ITEMS, 10)
    assert (ranked[:, 0] == np.arange(ITEMS)).mean() > 0.9


def test_plain_training_arguments_are_accepted(model, processor, features, tmp_path):
    arguments = TrainingArguments(
        str(tmp_path), max_steps=3, eval_strategy="steps", eval_steps=3, report_to="none", use_cpu=True
    )
    subject = MenderTrainer(
        model,
        arguments,
        data_collator=MenderCollator(processor, model, exclude_seen=True),
        train_dataset=features,
        eval_dataset=features,
        compute_metrics=ranking_metrics,
    )
    subject.train()
    evaluated = next(entry for entry in subject.state.log_history if "eval_ndcg@10" in entry)
    assert 0 <= evaluated["eval_ndcg@10"] <= evaluated["eval_recall@10"] <= 1 and evaluated["eval_n"] == ITEMS


def test_labels_are_smoothed_in_training_alone(model, processor, features, tmp_path):
    subject = trainer(model, processor, tmp_path, label_smoothing_factor=0.1)
    batch = subject.data_collator([features[row] for row in range(4)])
    logits, labels = model(**batch).logits.flatten(0, 1), batch["labels"].flatten()
    smoothed = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(subject.compute_loss(model, batch), smoothed)
    plain = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(subject.prediction_step(model, batch, True)[0], plain.detach())


def test_masked_text_weighs_the_same_however_an_update_is_cut(model, processor, features, tmp_path):
    subject = trainer(model, processor, tmp_path)
    asks_for_text = {"input_ids": features[0]["input_ids"], "item": -1, "text_labels": features[0]["input_ids"]}
    batch = subject.data_collator([dict(features[1], text_labels=[]), asks_for_text])
    labels = (batch["labels"] != -100).sum()
    whole = subject.compute_loss(model, batch, num_items_in_batch=labels)
    subject.current_gradient_accumulation_steps = 4
    parts = [subject.compute_loss(model, batch, num_items_in_batch=4 * labels) for _ in range(4)]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(subject.compute_loss(model, batch), whole)  # the Trainer divides this one itself


def test_training_on_masked_text_only(model, processor, features, tmp_path):
    subject = trainer(model, processor, tmp_path)
    asks_for_text = {"input_ids": features[0]["input_ids"], "item": -1, "text_labels": features[0]["input_ids"]}
    loss = subject.compute_loss(model, subject.data_collator([asks_for_text]), num_items_in_batch=torch.tensor(0.0))
    loss.backward()
    assert loss > 0 and all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


def test_a_loss_of_ones_own_takes_the_place_of_all(model, processor, features, tmp_path):
    def doubled(outputs, labels, num_items_in_batch=None):
        return 2 * torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())

    plain, own = trainer(model, processor, tmp_path), trainer(model, processor, tmp_path, label_smoothing_factor=0.1)
    own.compute_loss_func = doubled
    batch = own.data_collator([features[row] for row in range(4)])
    loss, outputs = own.compute_loss(model, batch, return_outputs=True)
    torch.testing.assert_close(loss, 2 * plain.compute_loss(model, batch))
    assert outputs.logits.shape[:2] == batch["labels"].shape
    unwanted = batch | {"negative": torch.ones(4, dtype=torch.bool)}
    with pytest.raises(ValueError, match="compute_loss_func only gets outputs and labels"):
        own.compute_loss(model, unwanted)


def test_item_scores_have_no_codes_to_smooth(processor, tmp_path):
    scorer = SasRecForSequentialRecommendation(SasRecConfig(num_items=ITEMS, hidden_size=16))
    adapted = get_peft_model(scorer, LoraConfig(target_modules="all-linear"))
    for subject in (scorer, torch.compile(scorer), adapted):
        with pytest.raises(
            ValueError, match=r"label_smoothing_factor=0\.1 is only supported for labels that are codes; SasRec"
        ):
            trainer(subject, processor, tmp_path, label_smoothing_factor=0.1).train()


@pytest.mark.parametrize("share", [-0.1, 1, 10])
def test_no_more_than_everything_is_smoothed(tmp_path, share):
    with pytest.raises(ValueError, match=f"label_smoothing_factor={share}; pass a share of at least 0 and below 1"):
        MenderTrainingArguments(output_dir=str(tmp_path), label_smoothing_factor=share)


class Recording(MenderTrainer):
    """Keeps the labels of every batch; `sharded` nests its data loader as several processes would have it."""

    sharded = False

    def get_train_dataloader(self):
        self.seen, loader = [], super().get_train_dataloader()
        if not self.sharded:
            return loader
        batches = BatchSamplerShard(loader.batch_sampler, num_processes=1, process_index=0)
        return DataLoaderShard(loader.dataset, batch_sampler=batches, collate_fn=loader.collate_fn)

    def compute_loss(self, model, inputs, *given, **more):
        self.seen.append(inputs["labels"].tolist())
        return super().compute_loss(model, inputs, *given, **more)


@pytest.mark.parametrize("sharded", [False, True], ids=["one", "sharded"])
@pytest.mark.parametrize(
    "done",
    [
        pytest.param(2, marks=pytest.mark.slow),
        pytest.param(4, marks=pytest.mark.slow),
        pytest.param(6, marks=pytest.mark.slow),
        11,
    ],
)
def test_a_resumed_run_sees_the_batches_that_were_left(done, sharded, model, processor, features, tmp_path):
    arguments = MenderTrainingArguments(
        output_dir=str(tmp_path),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        per_device_train_batch_size=4,  # four batches an epoch
        num_train_epochs=4,
        save_strategy="steps",
        save_steps=done,
    )
    runs = []
    for checkpoint in (None, str(tmp_path / f"checkpoint-{done}")):
        run = Recording(model, arguments, data_collator=MenderCollator(processor, model), train_dataset=features)
        run.sharded = sharded
        run.train(checkpoint)
        runs.append(run.seen)
    assert len(runs[0]) == 16 and runs[1] == runs[0][done:]
    assert runs[0][:4] != runs[0][4:8]


def test_ranking_keeps_the_order_of_examples(model, processor, features, tmp_path):
    ranked = trainer(model, processor, tmp_path, top_k=5).predict(features).predictions
    collate = MenderCollator(processor, model)
    for row in (0, 3, ITEMS - 1):
        batch = collate([features[row]])
        batch.pop("labels")
        assert ranked[row].tolist() == model.recommend(**batch, top_k=5).item_indices[0].tolist()


def test_seen_items_are_not_returned_again(model, processor, features, tmp_path):
    subject = trainer(model, processor, tmp_path, top_k=ITEMS)
    subject.data_collator = MenderCollator(processor, model, exclude_seen=True)
    ranked = subject.predict(features).predictions
    for row, example in enumerate(features):
        assert set(ranked[row][ranked[row] >= 0].tolist()) == set(range(ITEMS)) - set(example["seen"])


def test_metrics_see_item_indices(model, processor, features, tmp_path):
    seen = {}

    def compute_metrics(prediction):
        seen["items"], seen["targets"] = prediction.predictions, prediction.label_ids
        return {"hits": float((prediction.predictions == prediction.label_ids[:, None]).any(1).mean())}

    subject = trainer(model, processor, tmp_path, top_k=ITEMS + 4)
    subject.compute_metrics = compute_metrics
    results = subject.evaluate({"one": features, "two": features.select(range(7))})
    assert results["eval_one_hits"] == results["eval_two_hits"] == 1.0
    assert seen["items"].shape == (7, ITEMS + 4) and (seen["items"][:, ITEMS:] == -1).all()
    assert seen["targets"].tolist() == list(range(7))
    assert results["eval_one_loss"] > 0


def test_generation_config_is_left_alone(model, processor, features, tmp_path):
    subject = trainer(model, processor, tmp_path, max_steps=1, save_strategy="no")
    subject.train_dataset = features
    subject.train()
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (None, 0)


def test_a_checkpoint_without_its_end_does_not_count(tmp_path):
    with pytest.raises(ValueError, match="no finished checkpoint"):
        last_checkpoint(tmp_path)
    state = '{"global_step": %d, "epoch": 1.0, "log_history": []}'
    for step, text in ((9, state % 9), (10, state % 10), (20, '{"global_step": 20, "epo'), (30, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
