"""Cost against quality of encoders: truncated ones are the first layers, cells end in a table and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from doubles import encoder_folder
from transformers import AutoModel

SCRIPT = "encoders"


def test_a_truncated_encoder_is_the_first_layers(script, tmp_path):
    source = Path(encoder_folder(tmp_path / "whole"))
    whole = AutoModel.from_pretrained(source).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    states = whole(ids, output_hidden_states=True).hidden_states
    for layers in (1, 2):
        folder = script.truncated(source, tmp_path / str(layers), layers)
        assert (folder / "tokenizer.json").is_file()
        found = AutoModel.from_pretrained(folder).eval()
        assert len(found.encoder.layer) == layers
        torch.testing.assert_close(found(ids).last_hidden_state, states[layers])


@pytest.mark.slow
def test_cells_are_kept_and_compared(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("preference_benchmark.hub.plots.draw", lambda *arguments: None)
    one = {"MiniLM, 2 layers": lambda own, folder: script.truncated(own, folder / "short", 1)}
    monkeypatch.setattr(script, "ENCODERS", script.ENCODERS | one)
    results = tmp_path / "results"
    options = {"epochs": 1, "text_epochs": 1, "users": 30, "items": 20, "eval_limit": 4, "results": results}
    options |= {"encoder": encoder_folder(tmp_path / "encoder"), "scratch": tmp_path / "new", "tables_only": False}
    names = ["MiniLM, 2 layers", "MiniLM, 6 layers"]
    script.main(only=names, way=["vectors"], **options)
    script.main(only=names[:1], way=["lora"], **options)
    kept = {path.parent.name: json.loads(path.read_text()) for path in results.glob("*/run.json")}
    assert set(kept) == {
        "minilm-2-layers-vectors-seed0",
        "minilm-6-layers-vectors-seed0",
        "minilm-2-layers-lora-seed0",
    }
    short, long, adapted = (kept[name] for name in sorted(kept, key=lambda name: ("lora" in name, name)))
    assert short["encoder_parameters"] < long["encoder_parameters"]
    assert adapted["trained"] > 0 and adapted["plan"]["preset"]["history"] == "none"
    table = (results / "table.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        "MiniLM, 2 layers: vectors",
        "MiniLM, 6 layers: vectors",
        "MiniLM, 2 layers: lora",
    ]
    assert (results / "costs.png").stat().st_size > 10_000
    made = []
    monkeypatch.setattr(script, "make", lambda cell, *arguments: made.append(cell.method))
    script.main(only=names, way=["vectors"], **options)
    assert not made
    script.main(only=names, way=["vectors"], **options | {"epochs": 2})
    assert made == ["MiniLM, 2 layers: vectors", "MiniLM, 6 layers: vectors"]
