"""Curves, their extrapolation and the tables beside published numbers."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script as a module that keeps its records elsewhere."""
    spec = importlib.util.spec_from_file_location("published_script", FOLDER / "published.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BEAUTY", tmp_path)
    return module


def curve(slope, epochs=8):
    return [
        {"epoch": float(epoch), "loss": 3.0, "eval_loss": 3.0}
        | {"eval_recall@10": 0.01 + slope * math.log(epoch), "eval_ndcg@10": 0.01}
        for epoch in range(1, epochs + 1)
    ]


def test_a_curve_is_read_from_a_running_and_from_a_finished_run(script, tmp_path):
    history = [
        {"epoch": 1.0, "step": 5, "loss": 4.0, "grad_norm": 1.0},
        {"epoch": 1.0, "step": 5, "eval_recall@10": 0.01, "eval_ndcg@10": 0.005, "eval_loss": 3.9, "eval_n": 20},
        {"epoch": 2.0, "step": 10, "loss": 3.8},
    ]
    running, finished = tmp_path / "running", tmp_path / "finished"
    checkpoint = running / "checkpoints" / "checkpoint-5"
    for folder in (checkpoint, finished):
        folder.mkdir(parents=True)
    (checkpoint / script.STATE_FILE).write_text(json.dumps({"log_history": history}))
    record = {"settings": {"source": "beauty", "method": "tiger-causal", "training": {"curve": history}}, "scores": []}
    (finished / "five_axes.json").write_text(json.dumps(record))
    expected = [
        {"epoch": 1.0, "loss": 4.0, "eval_recall@10": 0.01, "eval_ndcg@10": 0.005, "eval_loss": 3.9, "eval_n": 20}
    ]
    assert script.curve_of(running) == script.curve_of(finished) == expected


def test_the_line_goes_through_a_logarithmic_curve(script):
    points = script.latest_half(curve(0.01))
    assert [point["epoch"] for point in points] == [5, 6, 7, 8]
    assert script.epochs_until(0.01 + 0.01 * math.log(50), points) == pytest.approx(50)
    assert script.spread(0.01 + 0.01 * math.log(50), points) == pytest.approx([50] * 4)
    assert script.epochs_until(0.0634, curve(-0.001)) == math.inf
    assert "never" in script.extrapolation_table(curve(-0.001))
    assert "nothing to extrapolate" in script.extrapolation_table(curve(0.01, 3))


def test_both_ways_to_train_have_the_same_targets(script):
    trained = np.array([1, 2, 2, 3, 3, 5, 5, 5, 5])
    _, examples = next(script.examples_of(trained, 4))
    batch, users = next(script.users_of(trained, 4))
    assert examples == 4 and users == int(batch["real"].sum())
    last = batch["target_positions"].masked_fill(~batch["real"], 0).amax(1)
    assert last.tolist() == batch["attention_mask"].sum(1).tolist()


def test_tables_are_of_what_is_kept(script, tmp_path):
    score = {"axis": "recommendation", **{metric: 0.05 for metric in script.METRICS}}
    for name in ("sasrec", "sasrec-keep-seen"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"scores": [score]}))
    assert script.beauty_table().count("here") == 2
    script.keep("tiger_test", {"n": 3, "figures": {"bought items left out": score}})
    assert "tiger-causal, here, bought items left out | .0500" in script.beauty_table()
    script.draw(curve(0.01), curve(0.02), tmp_path / "tiger_curve.png")
    assert (tmp_path / "tiger_curve.png").read_bytes().startswith(b"\x89PNG")
    table = script.office_table(FOLDER / "results" / "runs" / "office_products")
    assert "MiniOneRec, published" in table and "sasrec, here" in table
