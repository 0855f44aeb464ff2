"""The training scripts: mistakes end in one line; a small run can be evaluated and compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

ROOT = Path(__file__).parents[2]
SMALL = ["--option", "num_users=80", "--option", "num_items=60"]


def run(script, *arguments, folder):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "mender-tick"], "no preset 'mender-tick'; pass one of "),
        (["--train", "learning_rate"], "--train 'learning_rate' is not an assignment"),
        (["--source", "steam", "--data", "no/such/folder"], "no/such/folder"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    import runpy

    script = ROOT / "examples" / "02_train.py"
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2 and line.startswith("error: ") and message in line


def test_adapters_are_trained_on_what_the_model_can_read():
    import runpy

    lora_preset = runpy.run_path(str(ROOT / "examples" / "03_finetune_lora.py"))["lora_preset"]
    reader, other = (lora_preset(SimpleNamespace(preference=kind), {"max_steps": 2}) for kind in ("text", "none"))
    assert reader.axes["fine_grained_steering"] == 1.0 and reader.negatives == "unlikelihood"
    assert other.axes == {"recommendation": 1.0} and other.negatives == other.preference == "none"
    assert reader.encoder_training == other.encoder_training == "lora"
    assert reader.training["max_steps"] == 2 and reader.training["learning_rate"] == 3e-4


@pytest.mark.slow
def test_train_evaluate_fine_tune_compare(tmp_path):
    settings = [*SMALL, "--train", "num_train_epochs=1", "--eval-limit", "10"]
    for preset in ("mender-tok", "sasrec", "popularity"):
        done = run("02_train.py", "--preset", preset, *settings, folder=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
    shop = tmp_path / "outputs" / "corner-shop"
    found = json.loads((shop / "mender-tok-seed0" / "five_axes.json").read_text())["settings"]
    assert found["seed"] == 0 and found["training"]["steps"] > 0 and found["request_ms"] > 0
    before = (shop / "sasrec-seed0" / "ranks.parquet").read_bytes()
    done = run(
        "04_evaluate.py",
        str(shop / "sasrec-seed0" / "model"),
        *SMALL,
        "--eval-limit",
        "10",
        "--output",
        "sasrec",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "sasrec" / "ranks.parquet").read_bytes() == before
    done = run(
        "03_finetune_lora.py",
        str(shop / "mender-tok-seed0" / "model"),
        *SMALL,
        "--eval-limit",
        "10",
        "--train",
        "max_steps=2",
        "--train",
        "per_device_train_batch_size=8",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "The adapter on a fresh base model: 100.0%" in done.stdout and "The merged model: " in done.stdout
    adapter, model = (shop / "mender-tok-seed0-lora" / name for name in ("adapter", "model"))
    assert (adapter / "adapter_model.safetensors").is_file()
    cards = [ModelCard.load(folder / "README.md") for folder in (adapter, model, shop / "mender-tok-seed0" / "model")]
    assert [card.data.library_name for card in cards] == ["peft", "transformers", "transformers"]
    assert all(card.data.eval_results and str(tmp_path) not in card.content for card in cards)
    runs = [str(folder) for folder in sorted(shop.glob("*-seed0*"))]
    done = run("05_compare.py", *runs, "--reference", "popularity", "--output", "comparison", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mender-tok-seed0-lora" in done.stdout and (tmp_path / "comparison" / "stars.png").stat().st_size > 10_000
