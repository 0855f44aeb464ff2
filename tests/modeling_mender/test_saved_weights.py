"""Saved models that were damaged, cut or put together from two are refused in one line, by every way to load them."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch
from doubles import WORDS, encoder_folder, small_method
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor

from mender.saved_models import load_saved
from mender.terminal import UserError
from modeling_mender.saved_weights import is_finite

PRESETS = (
    *("mender-emb", "mender-fid", "mender-tok", "mender", "tiger", "tiger-causal"),
    *("mender-lite", "sasrec", "popularity"),
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Folders of saved models by preset."""
    root, encoder = tmp_path_factory.mktemp("saved"), encoder_folder(tmp_path_factory.mktemp("encoder"))
    for name in PRESETS:
        method = small_method(name, encoder)
        method.plain_model().save_pretrained(root / name)
        method.processor.save_pretrained(root / name)
    return root


@pytest.fixture
def copy(originals, tmp_path):
    """Makes a copy of a saved model."""

    def copied(name="mender-emb"):
        return shutil.copytree(originals / name, tmp_path / name)

    return copied


def refusal(folder, *, loader=AutoModel, error=(ValueError, OSError)):
    """The message of a loader; the command line refuses the folder as well, in one line and without a question."""
    with pytest.raises(error) as raised:
        loader.from_pretrained(folder)
    with pytest.raises(UserError) as shown:
        load_saved(folder, "cpu")
    assert "\n" not in str(shown.value) and str(folder) in str(shown.value)
    return str(raised.value)


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def change_json(path, change):
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_without_any_one_of_its_weights_is_refused(copy, name):
    folder = copy(name)
    original = load_file(folder / "model.safetensors")
    chosen = sorted(original)
    for key in [*chosen[:: max(1, len(chosen) // 3)], *(["lm_head.weight"] if "lm_head.weight" in original else [])]:
        save_file({name: one for name, one in original.items() if name != key}, folder / "model.safetensors")
        message = refusal(folder)
        assert key in message or "describes" in message
        assert "\n" not in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["lm_head.weight", "encoder.item_states", "decoder.final_layer_norm.weight"])
def test_weights_that_are_not_finite_are_refused(copy, bad, key):
    folder = copy()
    change_weights(folder, lambda weights: weights[key].view(-1)[-1:].fill_(bad))
    assert f"{key} in the weights of" in refusal(folder)


def test_large_numbers_whose_sum_overflows_are_finite():
    assert is_finite(torch.full((9,), 3e38)) and is_finite(torch.full((9,), 6e4, dtype=torch.float16))
    assert not is_finite(torch.tensor([3e38, float("inf")]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8, torch.bool])
def test_item_codes_of_another_type_are_refused(copy, dtype):
    folder = copy()
    change_weights(folder, lambda weights: weights.update(item_codes=weights["item_codes"].to(dtype)))
    assert "item_codes in the weights of" in refusal(folder)


def test_a_weight_that_holds_integers_is_refused(copy):
    folder = copy()
    change_weights(folder, lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"].to(torch.int8)}))
    assert "lm_head.weight in the weights of" in refusal(folder)


@pytest.mark.parametrize(("code", "message"), [(3, "outside its codebook"), (-2, "outside its codebook")])
def test_item_codes_out_of_range_are_refused(copy, code, message):
    folder = copy()
    change_weights(folder, lambda weights: weights["item_codes"][4, 1:2].fill_(code))
    assert message in refusal(folder)


def test_two_items_with_one_semantic_id_are_refused(copy):
    folder = copy()
    change_weights(folder, lambda weights: weights["item_codes"][4].copy_(weights["item_codes"][7]))
    assert "item" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("experts.co_purchase.neighbours", len(WORDS)),
        ("experts.transitions.neighbours", -2),
        ("experts.lexical.items", -1),
        ("experts.lexical.items", len(WORDS)),
        ("experts.lexical.starts", 10**9),
    ],
)
def test_experts_that_refer_to_other_items_are_refused(copy, key, value):
    folder = copy("mender")
    change_weights(folder, lambda weights: weights[key].view(-1)[-1:].fill_(value))
    assert "saved weights" in refusal(folder)


def test_a_weight_of_another_shape_is_refused(copy):
    folder = copy()
    change_weights(folder, lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"].T.contiguous()}))
    assert "lm_head.weight in the weights of" in refusal(folder)


def damage(data: bytes, how: str) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if how == "empty":
        return b""
    if how == "half":
        return data[: len(data) // 2]
    if how == "last byte":
        return data[:-1]
    if how == "long header":
        return struct.pack("<Q", 2**62) + data[8:]
    if how == "header":
        return data[:8] + b"{" * length + data[8 + length :]
    if how == "text":
        return b"<html>not found</html>" * 10
    name = "lm_head.weight"
    if how == "shape":
        header[name]["shape"] = [2**40, 2**20]
    if how == "offsets":
        header[name]["data_offsets"] = [0, 2**50]
    if how == "type":
        header[name]["dtype"] = "X99"
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.parametrize(
    "how", ["empty", "half", "last byte", "long header", "header", "text", "shape", "offsets", "type"]
)
def test_damaged_files_are_refused(copy, how):
    folder = copy()
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes(), how))
    assert "cannot be read" in refusal(folder, error=OSError)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../../x"}}'])
def test_damaged_indices_of_shards_are_refused(copy, content):
    folder = copy()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError) as shown:
        load_saved(folder, "cpu")
    assert "\n" not in str(shown.value)


FIELDS = [
    ("mender-emb", ("decoder", "num_layers"), 10**9),
    ("mender-emb", ("decoder", "num_layers"), -1),
    ("mender-emb", ("decoder", "num_layers"), 1.5),
    ("mender-emb", ("decoder", "num_heads"), 0),
    ("mender-emb", ("decoder", "d_model"), "16"),
    ("mender-emb", ("decoder", "d_model"), None),
    ("mender-emb", ("decoder", "dropout_rate"), "much"),
    ("mender-emb", ("num_items",), 10**12),
    ("mender-emb", ("num_items",), "12"),
    ("mender-emb", ("num_items",), None),
    ("mender-emb", ("num_items",), [1]),
    ("mender-emb", ("num_items",), True),
    ("mender-emb", ("codebook_sizes",), []),
    ("mender-emb", ("codebook_sizes",), "abc"),
    ("mender-emb", ("codebook_sizes",), [3, 3]),
    ("mender-emb", ("codebook_sizes",), [3, 3, 10**12]),
    ("mender-emb", ("codebook_sizes",), {"a": 1}),
    ("mender-emb", ("encoder",), None),
    ("mender-emb", ("encoder",), 3),
    ("mender-emb", ("encoder", "model_type"), "unheard-of"),
    ("mender-emb", ("encoder", "num_states"), 10**10),
    ("mender-emb", ("encoder", "num_states"), 0),
    ("mender-emb", ("encoder", "text_encoder"), []),
    ("mender-emb", ("encoder", "text_encoder", "model_type"), "t5"),
    ("mender-emb", ("encoder", "text_encoder", "num_hidden_layers"), 10**9),
    ("mender-emb", ("encoder", "text_encoder", "hidden_size"), float("inf")),
    ("mender-emb", ("encoder", "text_encoder", "hidden_size"), 1),
    ("mender", ("experts", "experts"), ["telepathy"]),
    ("mender", ("experts", "experts"), 3),
    ("mender", ("experts", "num_items"), 10**12),
    ("mender", ("experts", "weights"), {"stated": {"dense": float("nan")}}),
    ("mender", ("experts", "weights"), 3),
    ("mender-lite", ("num_postings",), 10**11),
    ("mender-lite", ("num_postings",), "many"),
    ("sasrec", ("num_layers",), 10**9),
    ("sasrec", ("hidden_size",), "wide"),
    ("sasrec", ("num_items",), 10**12),
]


@pytest.mark.parametrize(("name", "path", "value"), FIELDS)
def test_configurations_that_cannot_be_are_refused(copy, name, path, value):
    folder = copy(name)

    def change(config):
        part = config
        for parent in path[:-1]:
            part = part[parent]
        part[path[-1]] = value

    change_json(folder / "config.json", change)
    refusal(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "[" * 10**5, '{"model_type": []}', '{"a": 1}'])
def test_configurations_that_are_no_configurations_are_refused(copy, content, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked whether to run code"))
    folder = copy()
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError) as shown:
        load_saved(folder, "cpu")
    assert "\n" not in str(shown.value)


SETTINGS = [
    ("max_length", "long"),
    ("max_length", 0),
    ("max_history", None),
    ("title_length", [3]),
    ("history", "sideways"),
    ("history", []),
    ("preference", 3),
    ("codebook_sizes", "abc"),
    ("codebook_sizes", ["a"]),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_settings_of_the_processor_that_cannot_be_are_refused(copy, name, value):
    folder = copy()
    change_json(folder / "processor_config.json", lambda content: content.update({name: value}))
    refusal(folder, loader=AutoProcessor)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_damaged_files_of_the_processor_bring_no_traceback(copy, file, content):
    folder = copy()
    (folder / file).write_text(content)
    try:
        load_saved(folder, "cpu")
    except UserError as error:
        assert "\n" not in str(error)


def test_parts_of_two_models_are_refused(copy):
    folder, other = copy("mender-tok"), copy("mender-emb")
    shutil.copy(other / "processor_config.json", folder)
    change_json(other / "items.json", lambda items: items.update(item_id=items["item_id"][:-1], title=WORDS[:-1]))
    assert "15 items, and the model in config.json has 16" in refusal(other, loader=AutoProcessor)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
    file=st.sampled_from(["config.json", "items.json", "processor_config.json"]),
)
def test_one_wrong_byte_brings_no_traceback(originals, tmp_path_factory, place, byte, file):
    folder = tmp_path_factory.mktemp("bytes") / "model"
    shutil.copytree(originals / "popularity", folder)
    data = bytearray((folder / file).read_bytes())
    data[int(place * len(data))] = byte
    (folder / file).write_bytes(bytes(data))
    try:
        load_saved(folder, "cpu")
    except UserError as error:
        assert "\n" not in str(error)
    shutil.rmtree(folder)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_one_wrong_byte_in_the_header_of_weights_brings_no_traceback(originals, tmp_path_factory, place, byte):
    folder = tmp_path_factory.mktemp("bytes") / "model"
    shutil.copytree(originals / "sasrec", folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    data[int(place * (length + 8))] = byte
    (folder / "model.safetensors").write_bytes(bytes(data))
    try:
        load_saved(folder, "cpu")
    except UserError as error:
        assert "\n" not in str(error)
    shutil.rmtree(folder)


# What has to keep working


@pytest.mark.parametrize("name", PRESETS)
def test_a_loaded_model_is_saved_byte_for_byte(originals, tmp_path, name):
    for round_trip in ("one", "two"):
        source = originals / name if round_trip == "one" else tmp_path / "one"
        AutoModel.from_pretrained(source).save_pretrained(tmp_path / round_trip)
        AutoProcessor.from_pretrained(source).save_pretrained(tmp_path / round_trip)
    for file in ("model.safetensors", "items.json", "processor_config.json", "tokenizer.json"):
        before = (originals / name / file).read_bytes()
        assert (tmp_path / "one" / file).read_bytes() == before, file
    # transformers writes the type of all parts into the configuration of what it has loaded.
    for file in {entry.name for entry in (tmp_path / "one").iterdir()}:
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tables_keep_their_type_in_models_of_another(originals, tmp_path, dtype):
    model = AutoModel.from_pretrained(originals / "mender", dtype=dtype)
    assert model.lm_head.weight.dtype == dtype and model.item_codes.dtype == torch.int32
    assert model.encoder.item_states.dtype == torch.float16
    assert model.experts.popularity.counts.dtype == torch.float32
    model.save_pretrained(tmp_path / "cast")
    saved = load_file(tmp_path / "cast" / "model.safetensors")
    again = AutoModel.from_pretrained(tmp_path / "cast")
    assert {key: value.dtype for key, value in again.state_dict().items() if key in saved} == {
        key: value.dtype for key, value in saved.items()
    }


@pytest.mark.parametrize(
    "named", [{"device_map": "cpu"}, {"device_map": "auto"}, {"low_cpu_mem_usage": True}, {"torch_dtype": "auto"}]
)
def test_ways_to_load(originals, named):
    expected = AutoModel.from_pretrained(originals / "mender").state_dict()
    found = AutoModel.from_pretrained(originals / "mender", **named).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_mismatched_sizes_can_be_ignored_and_missing_weights_cannot(copy):
    folder = copy()
    change_weights(folder, lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"][:-1]}))
    assert AutoModel.from_pretrained(folder, ignore_mismatched_sizes=True).lm_head.weight.isfinite().all()
    change_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(ValueError, match="lack lm_head.weight"):
        AutoModel.from_pretrained(folder, ignore_mismatched_sizes=True)
