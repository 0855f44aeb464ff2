"""A training run that is killed, at a random moment or while it writes a checkpoint, and goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

SETTINGS = {
    "num_train_epochs": 12,
    "per_device_train_batch_size": 4,
    "logging_strategy": "steps",
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 10,
    "save_strategy": "steps",
    "save_steps": 10,
}


def start(shop: Path, encoder: str, output: Path, *more: str) -> subprocess.Popen:
    """`mender train`, as a process of its own."""
    command = [sys.executable, "-m", "mender", "train", "--preset", "mender-fid", "--source", "words"]
    command += ["--data", str(shop), "--encoder", encoder, "--output", str(output), "--set", "patience=0", *more]
    for name, value in SETTINGS.items():
        command += ["--train", f"{name}={value}"]
    root = Path(__file__).parents[2]
    search = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
    with (output.parent / "log.txt").open("w") as log:
        return subprocess.Popen(command, env=environment, cwd=output.parent, stdout=log, stderr=log)


def finish(process: subprocess.Popen, log: Path) -> None:
    try:
        process.wait(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, log.read_text()[-3000:]


def losses(run: Path) -> dict[int, float]:
    """Training loss of every step, the resumed ones included."""
    curve = json.loads((run / "five_axes.json").read_text())["settings"]["training"]["curve"]
    return {entry["step"]: entry["loss"] for entry in curve if "loss" in entry}


@pytest.mark.slow
def test_a_killed_run_ends_like_one_that_was_left_alone(word_shop, tiny_encoder, tmp_path):
    finish(start(word_shop, tiny_encoder, tmp_path / "whole"), tmp_path / "log.txt")
    chance = random.Random(3)
    run = tmp_path / "killed"
    checkpoints = run / "checkpoints"
    process = start(word_shop, tiny_encoder, run)
    for _ in range(2):
        known = set(checkpoints.glob("checkpoint-*"))
        deadline = time.monotonic() + 300
        while set(checkpoints.glob("checkpoint-*")) <= known and process.poll() is None:
            assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()[-3000:]
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.3))  # in a step, in an evaluation, or in the middle of writing
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
        if not any((path / "trainer_state.json").is_file() for path in checkpoints.iterdir()):
            process = start(word_shop, tiny_encoder, run)
            continue
        process = start(word_shop, tiny_encoder, run, "--resume")
    finish(process, tmp_path / "log.txt")
    expected, found = losses(tmp_path / "whole"), losses(run)
    assert found.keys() == expected.keys() and len(found) > 50
    assert max(abs(found[step] - expected[step]) for step in expected) < 1e-4
    ours, theirs = (load_file(each / "model/model.safetensors") for each in (run, tmp_path / "whole"))
    for name, tensor in theirs.items():
        assert_close(ours[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
