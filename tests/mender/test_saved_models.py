"""Only a recommender of this library is loaded; nothing that a folder carries is run; every refusal is one line."""

from __future__ import annotations

import json

import pytest
import torch
from doubles import random_catalogue, tiny_model, word_tokenizer

from mender.saved_models import load_saved
from mender.terminal import UserError
from modeling_mender import MenderProcessor


@pytest.fixture
def saved(tmp_path):
    items = {"item_id": [f"i{index}" for index in range(12)], "title": [f"tea {index}" for index in range(12)]}
    tiny_model(random_catalogue(12, [4, 4])).save_pretrained(tmp_path / "model")
    MenderProcessor(word_tokenizer(), items).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refusal(name):
    with pytest.raises(UserError) as error:
        load_saved(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_model_and_processor_come_from_one_folder(saved):
    model, processor = load_saved(saved, "cpu")
    assert not model.training and len(processor.item_ids) == len(model.catalogue) == 12


def test_a_config_without_a_model_type_is_refused_without_a_question(saved, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked whether to run code"))
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "model_type"}))
    assert "its config.json has model_type=None" in refusal(saved)
    (saved / "config.json").write_text(json.dumps(config | {"model_type": "other"}))
    assert "its config.json has model_type='other'" in refusal(saved)


@pytest.mark.parametrize("content", ["[]", "{", "", "\x00"])
def test_a_broken_config_is_refused(saved, content):
    (saved / "config.json").write_text(content)
    assert str(saved) in refusal(saved)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "holds no saved model (config.json is missing)"),
        (("model/config.json",), "is a run; pass its model"),
        (("adapter_config.json",), "holds an adapter alone"),
    ],
)
def test_other_folders_are_refused(tmp_path, files, message):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    assert message in refusal(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "~/models/nowhere", "a/b/c"])
def test_names_that_cannot_be_on_the_hub_are_folders(name):
    assert f"there is no folder {name!r}" in refusal(name)


@pytest.mark.parametrize("file", ["items.json", "model.safetensors"])
def test_incomplete_folders_are_refused(saved, file):
    (saved / file).unlink()
    assert "cannot be loaded" in refusal(saved)


def test_models_that_do_not_recommend_are_refused(tiny_encoder):
    assert "cannot recommend" in refusal(tiny_encoder) or "cannot be loaded" in refusal(tiny_encoder)


def test_weights_are_loaded_in_another_type(saved):
    model, _ = load_saved(saved, "cpu", "bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    items = model.recommend(torch.tensor([[2, 7, 3]]), top_k=12, num_beams="exact").item_indices
    assert sorted(items[0].tolist()) == list(range(12))
    with pytest.raises(UserError, match="dtype='int8' is no type of weights"):
        load_saved(saved, "cpu", "int8")
