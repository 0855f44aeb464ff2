"""A frozen encoder is saved by its name and digest, and found again wherever it may be; never another one."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from doubles import encoder_folder, shop_items, small_method
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel

from mender import saved_models
from mender.terminal import UserError
from modeling_mender import encoder_reference
from modeling_mender.configuration_mender import ItemStatesConfig
from modeling_mender.encoder_reference import find_weights, register_encoder
from preference_benchmark.embedding import HUB_NAME, packaged_encoder

NAME, COMMIT = "org/tiny-encoder", "0123456789abcdef" * 2 + "01234567"
PRESETS = ("mender-emb", "mender-fid", "mender", "mender-lite")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub cache with two tiny encoders; gives the folder of snapshots of one, by kind."""
    cache, folders = tmp_path_factory.mktemp("hub"), {}
    for kind in ("bert", "t5"):
        repo = cache / f"models--{NAME.replace('/', '--')}-{kind}"
        folders[kind] = repo / "snapshots" / COMMIT
        folders[kind].mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(COMMIT)
        encoder_folder(folders[kind], kind)
    return cache, folders


@pytest.fixture
def offline(hub, monkeypatch):
    """Without a network and with this cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub[0]))
    return hub[1]


@pytest.fixture
def saved(offline, tmp_path):
    """Saves a small model by reference: the model, the folder."""

    def save(preset="mender-emb", kind="bert"):
        method = small_method(preset, str(offline[kind]))
        method.model.save_pretrained(tmp_path / preset, encoder="reference")
        method.processor.save_pretrained(tmp_path / preset)
        return method.model.eval(), tmp_path / preset

    return save


def same(one, other):
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def encoder_of(model):
    return next(module for module in model.modules() if hasattr(module, "item_states")).text_encoder


def reference_in(folder):
    return json.loads(re.search(r'"reference": (\{[^}]*\}|null)', (folder / "config.json").read_text())[1])


@pytest.mark.parametrize("kind", ["bert", "t5"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_without_the_encoder_in_it_is_the_same_model(saved, tmp_path, preset, kind):
    model, folder = saved(preset, kind)
    model.save_pretrained(tmp_path / "copy", encoder="copy")
    sizes = [(place / "model.safetensors").stat().st_size for place in (folder, tmp_path / "copy")]
    size = sum(tensor.nbytes for tensor in encoder_of(model).parameters())
    assert sizes[1] - sizes[0] > 0.9 * size
    reference = reference_in(folder)
    assert (reference["name"], reference["commit"]) == (f"{NAME}-{kind}", COMMIT)
    assert reference_in(tmp_path / "copy") is None
    loaded = AutoModel.from_pretrained(folder)
    assert same(loaded, model) and same(AutoModel.from_pretrained(tmp_path / "copy"), model)
    assert not any(parameter.requires_grad for parameter in encoder_of(loaded).parameters())


@pytest.mark.parametrize("named", [{"device_map": "cpu"}, {"device_map": "auto"}, {"dtype": torch.float64}])
@pytest.mark.parametrize("preset", ["mender-emb", "mender-lite"])
def test_ways_to_load(saved, preset, named):
    model, folder = saved(preset)
    loaded = AutoModel.from_pretrained(folder, **named)
    assert {parameter.dtype for parameter in loaded.parameters()} == {named.get("dtype", torch.float32)}
    assert same(loaded.float(), model.float())


def test_half_precision(saved):
    _, folder = saved("mender-lite", "t5")
    loaded = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert encoder_of(loaded).dtype == torch.bfloat16
    loaded.save_pretrained(folder)
    assert reference_in(folder) and same(AutoModel.from_pretrained(folder), loaded)


def test_what_was_loaded_by_reference_is_saved_by_it_as_long_as_it_is_unchanged(saved, tmp_path):
    model, folder = saved()
    loaded = AutoModel.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "again")
    for file in ("model.safetensors", "config.json"):
        again = AutoModel.from_pretrained(tmp_path / "again")
        again.save_pretrained(tmp_path / "third")
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "third" / file).read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    next(encoder_of(loaded).parameters()).data += 1
    loaded.save_pretrained(tmp_path / "changed")
    assert reference_in(tmp_path / "changed") is None and loaded.encoder.config.reference
    assert same(AutoModel.from_pretrained(tmp_path / "changed"), loaded)


def test_a_trained_encoder_is_not_saved_by_reference(saved, tmp_path):
    model, _ = saved()
    next(encoder_of(model).parameters()).data += 1
    with pytest.raises(ValueError, match=f"not those of {NAME}-bert, because it was trained") as raised:
        model.save_pretrained(tmp_path / "trained", encoder="reference")
    assert "\n" not in str(raised.value) and not (tmp_path / "trained").exists()
    assert model.encoder.config.reference is None and not model._keys_to_ignore_on_save


def test_an_encoder_without_a_public_name_is_not_saved_by_reference(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_reference, "_registered", {})
    model = small_method("mender-emb", encoder_folder(tmp_path / "encoder")).model
    with pytest.raises(ValueError, match="it has no name on the Hub"):
        model.save_pretrained(tmp_path / "model", encoder="reference")


@pytest.mark.parametrize("preset", ["mender-tok", "tiger", "sasrec", "popularity"])
def test_models_without_a_frozen_encoder_say_so(tmp_path, preset):
    model = small_method(preset, encoder_folder(tmp_path / "encoder")).model
    with pytest.raises(ValueError, match="has no frozen text encoder"):
        model.save_pretrained(tmp_path / "model", encoder="reference")
    with pytest.raises(ValueError, match='pass "copy" or "reference"'):
        model.save_pretrained(tmp_path / "model", encoder="link")


def refusal(folder, error=OSError, **named):
    with pytest.raises(error) as raised:
        AutoModel.from_pretrained(folder, **named)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError):
        saved_models.load_saved(folder, "cpu")
    return str(raised.value)


def test_an_encoder_that_is_nowhere_is_one_sentence(saved, tmp_path, monkeypatch):
    _, folder = saved()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    assert f"refers to the text encoder {NAME}-bert, which is not found" in refusal(folder)


def test_other_weights_under_the_name_are_refused(saved, tmp_path, monkeypatch):
    model, folder = saved()
    other = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}-bert"
    torch.manual_seed(1)
    encoder_of(model).to(torch.float64).save_pretrained(other / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "has sha256" in refusal(folder)
    assert "has sha256" in refusal(folder, encoder_folder=other / "snapshots" / COMMIT)


def test_the_caller_can_name_the_folder(saved, offline, tmp_path, monkeypatch):
    model, folder = saved()
    elsewhere = shutil.copytree(offline["bert"], tmp_path / "elsewhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    assert same(AutoModel.from_pretrained(folder, encoder_folder=elsewhere), model)
    assert "which is not found" in refusal(folder)


def test_a_registered_place_is_asked(saved, offline, tmp_path, monkeypatch):
    model, folder = saved()
    elsewhere = shutil.copytree(offline["bert"], tmp_path / "elsewhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(encoder_reference, "_registered", {})
    register_encoder(f"{NAME}-bert", lambda: elsewhere)
    assert same(AutoModel.from_pretrained(folder), model)
    # A copy of the weights gets its name back by them.
    loaded = AutoModel.from_pretrained(folder)
    encoder_of(loaded).config._name_or_path = ""
    loaded.config.encoder.reference = None
    loaded.save_pretrained(tmp_path / "again", encoder="reference")
    assert reference_in(tmp_path / "again") == {**reference_in(folder), "commit": None}


def test_the_package_of_weights_is_a_place(monkeypatch, tmp_path):
    if packaged_encoder() is None:
        pytest.skip("the package of weights is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    file = find_weights(HUB_NAME, None, None, local=True)
    assert file == packaged_encoder() / "model.safetensors"
    assert "has sha256" in find_weights(HUB_NAME, None, "0" * 64, local=True)


@pytest.mark.parametrize(
    "reference",
    [
        "x",
        [],
        {},
        {"name": NAME},
        {"name": "../x", "sha256": "0" * 64},
        {"name": NAME, "commit": 3, "sha256": "0" * 64},
    ],
)
def test_malformed_references_are_refused(saved, reference):
    with pytest.raises(ValueError, match="needs a name on the Hub"):
        ItemStatesConfig(reference=reference)
    _, folder = saved()
    config = json.loads((folder / "config.json").read_text())
    config["encoder"]["reference"] = reference
    (folder / "config.json").write_text(json.dumps(config))
    refusal(folder, error=(OSError, ValueError))


def test_an_encoder_of_another_size_is_refused(saved):
    _, folder = saved()
    config = json.loads((folder / "config.json").read_text())
    config["encoder"]["text_encoder"]["num_hidden_layers"] = 40
    (folder / "config.json").write_text(json.dumps(config))
    assert "describes" in refusal(folder, error=ValueError)


def test_quantised_loading_says_what_to_do(saved):
    _, folder = saved()
    with pytest.raises(ValueError, match="neither quantised nor kept on disk"):
        AutoModel.from_pretrained(folder, device_map={"": "disk"}, offload_folder=folder / "offload")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_models_share_the_memory_of_the_file_and_not_their_changes(saved, offline):
    model, folder = saved()
    one, two = AutoModel.from_pretrained(folder), AutoModel.from_pretrained(folder)
    file = str((offline["bert"] / "model.safetensors").resolve())
    for loaded in (one, two):
        address = next(encoder_of(loaded).parameters()).data_ptr()
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(file)]
        spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
        assert any(low <= address < high for low, high in spans)
    two.to(torch.bfloat16)
    assert same(one, model)
    next(encoder_of(one).parameters()).data += 1
    assert not same(one, model) and same(AutoModel.from_pretrained(folder), model)
    assert file.encode() and same(AutoModel.from_pretrained(folder, encoder_folder=offline["bert"]), model)


def test_adapters_of_a_model_with_a_reference(saved, tmp_path):
    model, folder = saved()
    base = AutoModel.from_pretrained(folder)
    config = LoraConfig(r=2, target_modules=r"encoder\.text_encoder\..*\.(query|value)", modules_to_save=["lm_head"])
    adapted = get_peft_model(base, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    again = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), tmp_path / "adapter").merge_and_unload()
    assert same(merged, again) and not same(merged, model)
    with pytest.raises(ValueError, match="it was trained"):
        merged.save_pretrained(tmp_path / "merged", encoder="reference")
    merged.save_pretrained(tmp_path / "merged")
    assert reference_in(tmp_path / "merged") is None and same(AutoModel.from_pretrained(tmp_path / "merged"), merged)
    assert same(AutoModel.from_pretrained(folder), model)


def test_items_can_still_be_encoded(saved):
    model, folder = saved("mender-lite")
    loaded, processor = saved_models.load_saved(folder, "cpu")
    inputs = processor("find tea", shop_items()["item_id"][:2])
    found, expected = loaded.recommend(**inputs, top_k=5), model.recommend(**inputs, top_k=5)
    assert torch.equal(found.item_indices, expected.item_indices)
