"""The main job: bad input is refused before anything is written; a small run saves a model that others load."""

from __future__ import annotations

import gzip
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

ROOT = Path(__file__).parents[2]
SMALL = ["--option", "num_users=80", "--option", "num_items=60"]


SCRIPT = ROOT / "examples" / "01_quickstart.py"


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs the script in this process; gives the exit code and the last line of its error output."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        monkeypatch.syspath_prepend(SCRIPT.parent)
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return stopped.value.code, capsys.readouterr().err.strip().splitlines()[-1]

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "grocery"], "grocery"),
        (["--source", "steam", "--data", "no/such/folder"], "no/such/folder"),
        (["--source", "movielens"], "movielens"),
        (["--preset", "tiger"], "--preset tiger reads no preference; pass mender, mender-emb"),
        (["--train", "num_train_epochs=x"], "num_train_epochs='x' is not a number"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message, refused, tmp_path):
    code, line = refused(*arguments, "--output", str(tmp_path / "out"))
    assert code == 2
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "out").exists()


def test_truncated_gzip_is_refused(refused, tmp_path):
    whole = gzip.compress(b"u1 i1 i2 i3\n" * 1000)
    (tmp_path / "user_sequence.txt.gz").write_bytes(whole[: len(whole) // 2])
    code, line = refused("--source", "sequences", "--data", str(tmp_path), "--output", str(tmp_path / "out"))
    assert code == 2 and "truncated" in line.lower()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_small_run_ends_in_a_model_that_another_process_steers(tmp_path):
    settings = [*SMALL, "--train", "num_train_epochs=1", "--eval-limit", "10"]
    command = [sys.executable, str(SCRIPT), *settings, "--output", str(tmp_path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "recommendation (oracle)" in done.stdout and "The same history, three sentences" in done.stdout
    scores = json.loads((tmp_path / "five_axes.json").read_text())["scores"]
    assert {score["method"] for score in scores} == {"Mender", "Mender, shuffled preferences", "popularity"}
    assert (tmp_path / "five_axes.png").stat().st_size > 10_000
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert {result.metric_args["axis"] for result in card.data.eval_results} == {score["axis"] for score in scores}
    assert "## Steering" in card.text and "## Speed" in card.text and str(tmp_path) not in card.content
    assert json.loads((tmp_path / "model" / "showcase.json").read_text())["shoppers"]
    script = (
        "import modeling_mender; from transformers import AutoModel, AutoProcessor;"
        f"path = {str(tmp_path / 'model')!r};"
        "model, processor = AutoModel.from_pretrained(path), AutoProcessor.from_pretrained(path);"
        "print(model.recommend(**processor('Find a gentle soap'), top_k=3).item_indices.tolist())"
    )
    printed = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout for _ in range(2)]
    assert printed[0] == printed[1] and len(json.loads(printed[0])[0]) == 3
