"""Only a recommender of this library is loaded; nothing that a folder carries is run; every refusal is one line."""

from __future__ import annotations

import ast
import json
import pickle
import re
from pathlib import Path

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
    with pytest.raises(UserError, match="dtype='int8' is not a floating-point type"):
        load_saved(saved, "cpu", "int8")


def test_a_config_that_names_code_of_others_is_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    nested = {"decoder": {"_attn_implementation": {"": "org/kernel@v1"}}}
    for changed in ({"attn_implementation": "org/kernel"}, nested):
        (saved / "config.json").write_text(json.dumps(config | changed))
        assert "names code of others" in refusal(saved)


def test_weights_that_are_pickled_are_not_read(saved):
    class Evil:
        def __reduce__(self):
            return pytest.fail, ("a pickle ran",)

    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    assert "cannot be loaded" in refusal(saved) and "safetensors" in refusal(saved)


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        pytest.param("processor_config.json", marks=pytest.mark.slow),
        pytest.param("tokenizer_config.json", marks=pytest.mark.slow),
    ],
)
def test_no_file_makes_a_command_ask_whether_to_run_code(saved, monkeypatch, file, mender):
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked whether to run code"))
    names = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer")
    (saved / "evil.py").write_text("raise SystemExit('code of a stranger ran')")
    content = json.loads((saved / file).read_text())
    for change in ({}, {"tokenizer_class": "Evil"}, {"processor_class": "Evil"}, {"model_type": "evil"}):
        (saved / file).write_text(json.dumps(content | change | {"auto_map": dict.fromkeys(names, "evil.Evil")}))
        assert mender("recommend", saved, "--preference", "tea")[0] in (0, 2)
        assert mender("train", "--encoder", saved, "--preset", "mender-emb", "--source", "corner-shop")[0] in (0, 2)


def test_every_library_is_told_not_to_run_code():
    """Where transformers is not told, it asks on the terminal, and in a pipe waits."""
    root = Path(__file__).parents[2]
    for folder in ("mender", "modeling_mender", "preference_benchmark", "examples"):
        for path in sorted((root / folder).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(call, ast.Call):
                    continue
                name = ast.unparse(call.func)
                loads = re.fullmatch(r"Auto\w+\.from_pretrained|pipeline|SentenceTransformer", name)
                told = any(word.arg == "trust_remote_code" for word in call.keywords)
                places = f"{path.relative_to(root)}:{call.lineno}"
                assert not loads or told or path.name == "recommender.py", f"{places} calls {name}"
