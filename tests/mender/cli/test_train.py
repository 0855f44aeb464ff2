"""`mender train`: a run leaves a model and figures; mistakes are found before anything is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_a_run_leaves_model_figures_and_provenance(trained):
    run = trained / "mender-tok-seed0"
    assert {path.name for path in run.iterdir()} >= {"model", "five_axes.json", "five_axes.png", "ranks.parquet"}
    settings = json.loads((run / "five_axes.json").read_text())["settings"]
    assert settings["training"]["steps"] > 0 and settings["preset"]["decoder"]["num_layers"] == 1
    assert settings["request_ms"] > 0 and settings["commit"]


def test_histories_of_customers_are_saved_only_on_request(trained, mender, words, tmp_path, monkeypatch):
    shown = json.loads((trained / "mender-tok-seed0" / "model" / "showcase.json").read_text())
    assert shown["sentences"] == shown["shoppers"] == []  # nothing that customers wrote or bought
    monkeypatch.chdir(tmp_path)
    options = [*words, "--eval-limit", "4", "--output", tmp_path / "run", "--showcase-histories"]
    assert mender("train", "--preset", "popularity", *options)[0] == 0
    assert json.loads((tmp_path / "run" / "model" / "showcase.json").read_text())["shoppers"]


def test_adapters_count_among_trained_parameters(mender, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*words, "--validation-limit", "4"]
    options += ["--train", "max_steps=1", "--set", "decoder={num_layers: 1, d_ff: 32}", "--eval-limit", "4", "--json"]
    code, out, err = mender("train", "--preset", "vocabext-lm", *options)
    counted = json.loads(out)["settings"]["trained"]
    assert code == 0 and f" parameters, {counted:,} trained" in err


def test_a_record_names_the_length_of_its_lists(mender, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*words, "--validation-limit", "4"]
    options += ["--train", "num_train_epochs=1", "--train", "top_k=5", "--eval-limit", "4", "--json"]
    code, out, err = mender("train", "--preset", "sasrec", *options)
    found = json.loads(out)
    training = found["settings"]["training"]
    assert code == 0, err
    assert training["best_ndcg@5"] == max(entry.get("eval_ndcg@5", 0) for entry in training["curve"]) > 0
    assert "best validation NDCG@5" in Path(found["output"], "model", "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--min-user", "some"], "see `mender train --help`"),
        (["train", "--preset", "mender-tick"], "no preset 'mender-tick'; pass one of "),
        (["train", "--set", "histroy=codes"], "unknown field 'histroy' of a preset"),
        (
            ["train", "--set", "axes=!!python/name:os.system"],
            "--set 'axes=!!python/name:os.system': the value is not plain",
        ),
        (["train", "--set", "axes={a: 1"], "--set 'axes={a: 1': the value is not plain YAML; write a number, a word"),
        (["train", "--train", "learning_rate"], "--train 'learning_rate' is not an assignment"),
        (
            ["train", "--train", "learning_rat=1"],
            "unknown training argument 'learning_rat', did you mean learning_rate",
        ),
        (["train", "--train", "save_strategy=some"], "some is not a valid SaveStrategy"),
        (["train", "--train", "learning_rate=fast"], "learning_rate='fast' is not a number"),
        (["train", "--train", "output_dir=here"], "pass --output"),
        (["train", "--train", "seed=1"], "pass --seed"),
        (["train", "--train", "save_strategy=steps"], "save_strategy='steps' with eval_strategy='epoch'"),
        (["train", "--train", "label_smoothing_factor=10"], "label_smoothing_factor=10; pass a share"),
        (
            ["train", "--preset", "sasrec", "--train", "label_smoothing_factor=0.1"],
            "whose labels are not codes; leave it out",
        ),
        (["train", "--set", "axes=recommendation"], "axes='recommendation' is not a mapping"),
        (["train", "--conditioning", "some"], "conditioning='some' is unknown; pass one of none, preference"),
        (["train", "--report-to", "paper"], "report_to='paper' is unknown; pass one of azure_ml"),
        (["train", "--source", "steam", "--data", "no/such/folder"], "no/such/folder"),
    ],
)
def test_mistakes_end_in_one_line(mender, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender(*arguments)
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("error: ") and message in line and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_resuming_needs_a_checkpoint(mender, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender("train", "--preset", "sasrec", *words, "--resume")
    assert code == 2 and "no finished checkpoint" in err.splitlines()[-1]


def test_a_missing_tracker_is_named(mender, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    code, _, err = mender("train", "--report-to", "wandb")
    assert code == 2 and "pip install wandb" in err


def test_training_logs_to_tensorboard(mender, words, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    options = [*words, "--train", "num_train_epochs=1"]
    code, _, err = mender("train", "--preset", "sasrec", *options, "--report-to", "tensorboard", "--eval-limit", "4")
    assert code == 0, err
    assert list((tmp_path / "outputs/words/sasrec-seed0/checkpoints/runs").rglob("events.*"))
