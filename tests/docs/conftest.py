"""A place in which every page's snippets run: a saved model, small encoders, a folder for the Hub."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from snippets import ROOT, blocks

# ruff: noqa: E402
for folder in ("modeling_mender", "preference_benchmark"):
    sys.path.insert(0, str(ROOT / "tests" / folder))

from benchmark_doubles import HashEmbedder
from doubles import encoder_folder, random_catalogue, tiny_model, word_tokenizer

MODEL = "outputs/quickstart/model"


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory) -> str:
    """Folder of a tiny encoder."""
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """A folder like that of the run of `make demo`, as far as snippets can tell."""
    from mender import Recommender
    from modeling_mender import MenderProcessor

    folder = tmp_path_factory.mktemp("run")
    items = {"item_id": [f"i{row}" for row in range(60)], "title": [f"tea {row}" for row in range(60)]}
    model, processor = tiny_model(random_catalogue(60, [8, 8])), MenderProcessor(word_tokenizer(), items)
    vectors = torch.from_numpy(HashEmbedder().encode(items["title"])).half()
    Recommender(model, processor, vectors=vectors).save_pretrained(folder / "model")
    score = {"axis": "recommendation", "matching": "last", "method": "Mender", "n": 9, "recall@10": 0.5}
    (folder / "five_axes.json").write_text(json.dumps({"settings": {}, "scores": [score]}))
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, saved, small_encoder):
    """The working folder, with a model. What is trained in it need not be good."""
    from preference_benchmark import embedding

    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, Path(MODEL).parent)
    monkeypatch.setattr("modeling_mender.training.reading.LEAST_STEPS", 10)
    monkeypatch.setattr("modeling_mender.training.weights.LIKELIHOOD_STEPS", 10)
    for module in ("preference_benchmark.embedding", "preference_benchmark.building", "mender.data", "mender.learning"):
        __import__(module)
        monkeypatch.setattr(sys.modules[module], "TextEmbedder", lambda *arguments, **options: HashEmbedder())
    monkeypatch.setattr(sys.modules["preference_benchmark.building"], "encoder_identity", lambda name: ("hash", "hash"))
    choice = embedding.default_encoder()
    monkeypatch.setattr("mender.data.default_encoder", lambda: type(choice)(small_encoder, "a tiny one"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("preference_benchmark.hub.plots.draw", lambda *arguments: None)
    monkeypatch.setattr(
        "preference_benchmark.sources.SOURCES", dict(sys.modules["preference_benchmark.sources"].SOURCES)
    )
    return tmp_path


@pytest.fixture
def run_page(place, capsys) -> Callable[[str], tuple[dict[str, Any], list[str]]]:
    """Runs the Python snippets of a page one after the other: the names they leave, and what each printed."""

    def run(page: str) -> tuple[dict[str, Any], list[str]]:
        names: dict[str, Any] = {"__name__": page}
        printed = []
        for number, snippet in enumerate(blocks(page, "python"), 1):
            local = snippet.replace("push_to_hub", "save_pretrained")
            exec(compile(local, f"{page}, snippet {number}", "exec"), names)
            printed.append(capsys.readouterr().out)
        return names, printed

    return run
