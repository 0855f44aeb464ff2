"""Training as a whole: learns by heart, resumes exactly, evaluates alike on one process and on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import datasets
import pytest
import torch
from doubles import WORDS, encoder_folder, random_catalogue, shop_examples, shop_items
from transformers import TrainerCallback

from modeling_mender import (
    MenderForGenerativeRetrieval,
    MenderTrainingArguments,
    build_method,
    load_preset,
    make_trainer,
)
from modeling_mender.training.data import first_targets, prepare_examples
from modeling_mender.training.encoder_states import EncoderStates
from modeling_mender.training.ranking import rank_examples
from modeling_mender.training.run import fit_without_gradient, training_arguments

DECODER = {"num_layers": 1, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "dropout_rate": 0.0}


def small_run(folder, output, name="mender-fid", examples=None, seed=0, preset=(), **training):
    torch.manual_seed(seed)
    changes = {"decoder": DECODER, "codebook_embeddings": False, "patience": 0, **dict(preset)}
    method = build_method(
        load_preset(name, **changes),
        shop_items(),
        encoder=folder,
        catalogue=random_catalogue(len(WORDS), [3, 3, 3]),
    )
    settings = {
        "disable_tqdm": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "per_device_train_batch_size": 32,
        "num_train_epochs": 3,
    }
    return method, make_trainer(method, examples or shop_examples(8), output, seed=seed, **{**settings, **training})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


def test_a_tiny_set_is_memorised(folder, tmp_path):
    examples = shop_examples(6)
    examples["validation"] = examples["train"]
    method, trainer = small_run(
        folder,
        tmp_path,
        examples=examples,
        num_train_epochs=60,
        learning_rate=1e-2,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        negative_weight=0.0,
        weight_decay=0.0,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] > 1.0 and min(losses[-5:]) < 0.1
    ranked = rank_examples(method.model, method.processor, trainer_axis(examples["train"], "recommendation"))
    targets = method.processor.item_indices(first_targets(trainer_axis(examples["train"], "recommendation")))
    assert (ranked[:, 0] == torch.tensor(targets).numpy()).mean() > 0.9


def only_what_is_needed(examples, target="target"):
    """The recommendation examples with a preference, a history and a target; nothing else."""

    def plain(row):
        item = row["targets"][0]
        return {target: item if target == "target" else [item]}

    chosen = trainer_axis(examples, "recommendation").map(plain)
    return chosen.select_columns(["preferences", "history", target])


@pytest.mark.parametrize(
    "name",
    [
        "mender-emb",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mender-tok", "tiger", "lc-rec")),
        "tiger-causal",
        "sasrec",
    ],
)
def test_preferences_history_and_target_are_enough_to_train(name, folder, tmp_path):
    target = "targets" if name == "tiger" else "target"
    examples = datasets.DatasetDict(
        {split: only_what_is_needed(rows, target) for split, rows in shop_examples(8).items() if split != "test"}
    )
    preset = {"encoder_shape": {"hidden_size": 8}, "decoder": {}} if name == "sasrec" else {}
    method, trainer = small_run(folder, tmp_path, name, examples, preset=preset, max_steps=2)
    trainer.train()
    shown = 2 if name in ("mender-emb", "mender-tok", "lc-rec") else 1  # with their preference and without
    assert trainer.evaluate()["eval_n"] == shown * len(examples["validation"])
    ranked = rank_examples(method.model, method.processor, examples["validation"])
    assert ranked.shape == (len(examples["validation"]), 10)


@pytest.mark.parametrize("name", ["popularity", "item-item", "text-search", "hybrid"])
def test_preferences_history_and_target_are_enough_without_a_gradient(name, folder):
    examples = datasets.DatasetDict({split: only_what_is_needed(rows) for split, rows in shop_examples(8).items()})
    method = build_method(load_preset(name), shop_items(), encoder=folder)
    record = fit_without_gradient(method, examples)
    # Without user ids every training example counts as a user of its own.
    assert record["purchases"] == sum(len(history) + 1 for history in examples["train"]["history"])
    assert rank_examples(method.model, method.processor, examples["validation"]).shape[1] == 10


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_of_a_user_has_the_loss_of_all_its_examples(smoothing, folder, tmp_path):
    """Preset tiger-causal: an epoch of rows has the targets and the loss of an epoch of examples."""
    method, trainer = small_run(folder, tmp_path, "tiger-causal", max_steps=1, label_smoothing_factor=smoothing)
    method.model.eval()
    examples = trainer_axis(shop_examples(8)["train"], "recommendation")
    alone = prepare_examples(examples, method.processor)
    rows = trainer.train_dataset
    assert len(rows) == 8 and sorted(chain(*rows["targets"])) == sorted(alone["item"])
    batches = (trainer.data_collator([features[row] for row in range(len(features))]) for features in (rows, alone))
    losses = [trainer.compute_loss(method.model, batch) for batch in batches]
    torch.testing.assert_close(*losses)


def trainer_axis(examples, axis):
    return examples.filter(lambda row: row["axis"] == axis)


class StopAt(TrainerCallback):
    """Ends training as an interruption would: a checkpoint is there, the rest is not."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize("name", ["mender-fid", pytest.param("mender-tok", marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(name, folder, tmp_path):
    whole = small_run(
        folder, tmp_path / "whole", name, save_strategy="steps", save_steps=4, eval_strategy="steps", eval_steps=4
    )[1]
    whole.train()
    settings = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 4}
    first = small_run(folder, tmp_path / "cut", name, **settings)[1]
    first.add_callback(StopAt(6))  # between two checkpoints, in the middle of an epoch
    first.train()
    assert first.state.global_step == 6
    (tmp_path / "cut" / "checkpoint-6").mkdir()  # as a kill leaves it
    torch.manual_seed(123)
    second = small_run(folder, tmp_path / "cut", name, **settings)[1]
    second.train(resume_from_checkpoint=True)
    losses = [
        {entry["step"]: entry["loss"] for entry in run.state.log_history if "loss" in entry} for run in (whole, second)
    ]
    assert losses[1].keys() == losses[0].keys() and len(losses[0]) > 8
    for step, loss in losses[0].items():
        assert abs(loss - losses[1][step]) < 1e-4, f"step {step}"
    for ours, theirs in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_patience_goes_on_counting(folder, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 4}
    first = small_run(folder, tmp_path, preset={"patience": 5}, max_steps=4, **settings)[1]
    first.train()
    file = tmp_path / "checkpoint-4" / "trainer_state.json"
    state = json.loads(file.read_text())
    state["stateful_callbacks"]["EarlyStoppingCallback"]["attributes"]["early_stopping_patience_counter"] = 4
    file.write_text(json.dumps(state | {"best_metric": 2.0}))
    second = small_run(folder, tmp_path, preset={"patience": 5}, max_steps=40, **settings)[1]
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == 8


def test_states_are_encoded_once_for_all_runs(folder, tmp_path):
    small_run(folder, tmp_path / "a", cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.states")
    written = file.stat().st_mtime_ns
    small_run(folder, tmp_path / "b", cache=tmp_path / "cache", seed=1)
    small_run(folder, tmp_path / "c", "mender-emb", cache=tmp_path / "cache")  # reads the same preferences
    assert file.stat().st_mtime_ns == written
    small_run(folder, tmp_path / "d", "mender-tok", cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.states"))) == 2
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_one_process_encodes_where_training_will_be(folder, tmp_path, monkeypatch):
    events, build = [], EncoderStates.build

    @contextmanager
    def first(self, local=True, desc=""):
        yield events.append("first")
        events.append("then the others")

    monkeypatch.setattr(MenderTrainingArguments, "main_process_first", first)
    monkeypatch.setattr(MenderForGenerativeRetrieval, "to", lambda self, device: events.append(device) or self)
    monkeypatch.setattr(EncoderStates, "build", lambda *given: events.append("encode") or build(*given))
    _, trainer = small_run(folder, tmp_path)
    assert events[:4] == [trainer.args.device, "first", "encode", "then the others"]


def test_best_weights_are_kept_and_training_stops_early(folder, tmp_path):
    method, trainer = small_run(folder, tmp_path, num_train_epochs=4)
    trainer.train()
    best = trainer.state.best_metric
    assert best == max(entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry)
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(best)


def test_lists_of_another_length_choose_the_weights(folder, tmp_path):
    _, trainer = small_run(folder, tmp_path, num_train_epochs=2, top_k=5, preset={"patience": 1})
    trainer.train()
    found = [entry["eval_ndcg@5"] for entry in trainer.state.log_history if "eval_ndcg@5" in entry]
    assert trainer.state.best_metric == max(found)


def test_without_saving_the_last_weights_stay(folder, tmp_path):
    _, trainer = small_run(folder, tmp_path, num_train_epochs=2, save_strategy="no")
    trainer.train()
    assert trainer.state.best_metric is not None and not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("epoch", "epoch", True)),
        ({"save_strategy": "no"}, ("epoch", "no", False)),
        ({"eval_strategy": "no"}, ("no", "epoch", False)),
        ({"eval_strategy": "steps", "eval_steps": 4}, ("steps", "steps", True, 4)),
        ({"eval_strategy": "steps", "eval_steps": 4, "save_steps": 8}, ("steps", "steps", True, 8)),
        ({"eval_strategy": "steps", "logging_steps": 7}, ("steps", "steps", True, 7)),
        ({"eval_strategy": "steps", "save_strategy": "best"}, ("steps", "best", True)),
        (
            {"save_strategy": "steps", "save_steps": 3, "load_best_model_at_end": False},
            ("epoch", "steps", False, 3),
        ),
    ],
    ids=str,
)
def test_saving_follows_evaluation_by_default(given, expected, tmp_path):
    preset = load_preset("mender-fid", training=given)
    for args in (training_arguments(preset, tmp_path), training_arguments(load_preset("tiger"), tmp_path, **given)):
        found = args.eval_strategy, args.save_strategy, args.load_best_model_at_end, args.save_steps
        assert found[: len(expected)] == expected


def test_settings_that_do_not_go_together_are_refused_before_anything_is_computed(folder, tmp_path):
    method, _ = small_run(folder, tmp_path)
    for given in ({"save_strategy": "steps"}, {"save_strategy": "no", "load_best_model_at_end": True}):
        message = rf"save_strategy='{given['save_strategy']}' with eval_strategy='epoch'.*; pass the same for both"
        with pytest.raises(ValueError, match=message):
            make_trainer(method, {}, tmp_path, **given)


def test_tables_are_not_sent_at_every_step(tmp_path):
    assert training_arguments(load_preset("mender-fid"), tmp_path).ddp_broadcast_buffers is False
    assert training_arguments(load_preset("tiger"), tmp_path, ddp_broadcast_buffers=True).ddp_broadcast_buffers is True


def test_the_loss_may_choose_the_weights(tmp_path):
    args = training_arguments(load_preset("tiger"), tmp_path, metric_for_best_model="eval_loss")
    assert args.greater_is_better is False
    assert training_arguments(load_preset("tiger"), tmp_path).greater_is_better is True


def test_validation_looks_at_every_trained_axis(folder, tmp_path):
    examples = shop_examples(8)
    axes = [("recommendation", "fine_grained_steering")[row % 2] for row in range(36)]
    validation = examples["validation"].remove_columns("axis").add_column("axis", axes)
    examples["validation"] = validation
    wanted = [axis for axis, sentiment in zip(axes, validation["sentiment"], strict=True) if sentiment == "positive"]
    both = {"axes": {"recommendation": 1.0, "fine_grained_steering": 0.5, "coarse_grained_steering": 0.0}}
    _, trainer = small_run(folder, tmp_path, examples=examples, preset=both)
    # Recommendations with a history are looked at once more as silent requests.
    recommended = [axis == "recommendation" for axis in axes]
    columns = zip(recommended, validation["history"], validation["sentiment"], strict=True)
    silent = sum(own and bool(history) and sentiment == "positive" for own, history, sentiment in columns)
    assert len(trainer.eval_dataset) == len(wanted) + silent and len(wanted) < 36 and 0 < silent < sum(recommended)
    _, trainer = small_run(folder, tmp_path, examples=examples, preset=both, validation_limit=1)
    assert len(trainer.eval_dataset) == 3
    _, trainer = small_run(folder, tmp_path, examples=examples, preset={"axes": {"recommendation": 1.0}})
    recommendations = wanted.count("recommendation")
    assert len(trainer.eval_dataset) == recommendations + silent
    _, trainer = small_run(
        folder, tmp_path, examples=examples, preset={"axes": both["axes"] | {"fine_grained_steering": 0.0}}
    )
    assert len(trainer.eval_dataset) == recommendations + silent
    # What reads no preference cannot be asked for a target that only the preference tells.
    _, trainer = small_run(folder, tmp_path, examples=examples, preset=both | {"preference": "none", "silent": 0.0})
    assert len(trainer.eval_dataset) == recommendations
    with pytest.raises(ValueError, match="validation split has no example"):
        small_run(folder, tmp_path, examples=examples, preset={"axes": {"coarse_grained_steering": 1.0}})


def test_training_without_validation_needs_no_examples_for_it(folder, tmp_path):
    examples = shop_examples(8)
    examples.pop("validation")
    _, trainer = small_run(
        folder, tmp_path, examples=examples, preset={"patience": 2}, eval_strategy="no", max_steps=3, save_strategy="no"
    )
    before = [parameter.clone() for parameter in trainer.model.decoder.parameters()]
    trainer.train()
    assert trainer.state.global_step == 3
    assert not any(map(torch.equal, before, trainer.model.decoder.parameters()))


@pytest.mark.parametrize(
    "setting",
    [
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"gradient_accumulation_steps": 2},
        pytest.param({"torch_compile": True}, marks=pytest.mark.slow),
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_options_of_the_trainer_work(setting, folder, tmp_path):
    if "gradient_checkpointing" in setting:
        setting = {**setting, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    _, trainer = small_run(
        folder,
        tmp_path,
        "mender-tok",
        max_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="no",
        load_best_model_at_end=False,
        **setting,
    )
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert 0 < logged["loss"] < 10 and 0 <= logged["eval_ndcg@10"] <= 1


@pytest.mark.slow
def test_two_processes_train_and_measure_like_one(folder, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import json, os\n"
        "from pathlib import Path\n"
        "import test_run\n"
        "from test_run import random_catalogue, small_run\n"
        "from doubles import shop_examples\n"
        "test_run.random_catalogue = lambda *given: random_catalogue(*given, seed=int(os.environ['RANK']))\n"
        "from modeling_mender.training import encoder_states\n"
        "def encode(*given, plain=encoder_states._encode_to_file):\n"
        "    Path(sys.argv[1], f\"encoded-{os.environ['RANK']}\").touch()\n"
        "    plain(*given)\n"
        "encoder_states._encode_to_file = encode\n"
        f"_, trainer = small_run({folder!r}, {str(tmp_path)!r} + '/out', examples=shop_examples(11),\n"
        "    per_device_eval_batch_size=3, per_device_train_batch_size=32 // int(os.environ['WORLD_SIZE']),\n"
        "    max_steps=2, eval_strategy='epoch', save_strategy='no', load_best_model_at_end=False,\n"
        "    cache=Path(sys.argv[1]))\n"
        "found = trainer.evaluate()\n"
        "trainer.train()\n"
        "found['losses'] = [entry['loss'] for entry in trainer.state.log_history if 'loss' in entry]\n"
        "if trainer.is_world_process_zero():\n"
        "    found |= {'world': trainer.args.world_size, 'examples': len(trainer.eval_dataset)}\n"
        "    Path(sys.argv[1], 'found.json').write_text(json.dumps(found))\n"
    )
    results = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    for processes in (1, 2):
        target = tmp_path / str(processes)
        target.mkdir()
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            str(processes),
            "--master_port",
            str(29511 + processes),
            str(script),
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(json.loads((target / "found.json").read_text()))
        assert [path.name for path in target.glob("encoded-*")] == ["encoded-0"]  # the others read what it wrote
    assert [found["world"] for found in results] == [1, 2]
    for name in ("eval_n", "eval_ndcg@10", "eval_recall@10"):
        assert results[0][name] == results[1][name]
    assert results[1]["losses"] == pytest.approx(results[0]["losses"], abs=1e-4) and len(results[0]["losses"]) == 2
    assert results[0]["eval_n"] == results[0]["examples"] == 35  # odd: two processes cannot share them evenly
