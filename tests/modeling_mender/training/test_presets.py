"""Presets: all readable, all documented, nothing misspelt gets through."""

from __future__ import annotations

from dataclasses import fields

import pytest
import yaml

from modeling_mender import load_preset
from modeling_mender.training.presets import CONDITIONING, FOLDER, Preset, preset_names
from modeling_mender.training.trainer import MenderTrainingArguments

NAMES = [
    "hybrid",
    "item-item",
    "lc-rec",
    "mender",
    "mender-emb",
    "mender-fid",
    "mender-lite",
    "mender-tok",
    "popularity",
    "sasrec",
    "text-search",
    "tiger",
    "tiger-causal",
    "vocabext-lm",
    "vocabext-rnd",
]


def test_every_method_has_a_preset():
    assert preset_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_presets_name_themselves_their_cost_and_real_training_arguments(name):
    preset = load_preset(name)
    assert preset.name == name and preset.summary and preset.cost
    assert set(preset.training) <= {item.name for item in fields(MenderTrainingArguments)}
    assert not any(isinstance(value, str) and value[0].isdigit() for value in preset.training.values())
    assert preset.trained == bool(preset.training)
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")


def test_every_field_is_documented():
    assert all(f"{item.name}: " in Preset.__doc__ for item in fields(Preset))


@pytest.mark.parametrize("mode", CONDITIONING)
def test_conditioning_changes_real_fields(mode):
    changed = load_preset("mender-fid", **CONDITIONING[mode])
    assert changed.history in ("states", "none") and changed.preference in ("text", "none")
    if mode == "all":
        assert changed.axes == {"history_consolidation": 1.0}
    if changed.preference == "none":  # nothing in the input tells other axes' targets
        assert changed.axes == {"recommendation": 1.0} and changed.negatives == "none"


def test_changes_are_merged_into_mappings_but_replace_axes():
    preset = load_preset("mender-tok", training={"learning_rate": 0.5}, axes={"recommendation": 2.0}, max_history=3)
    assert preset.training["learning_rate"] == 0.5 and preset.training["weight_decay"] == 0.035
    assert preset.axes == {"recommendation": 2.0} and preset.max_history == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"histroy": "codes"}, "unknown field 'histroy' of a preset"),
        ({"history": "pictures"}, "history='pictures' in preset mender-tok"),
        ({"negatives": "maybe"}, "negatives='maybe'"),
        ({"history": "states", "encoder_training": "lora"}, "cached item states belong to a frozen encoder"),
        ({"axes": {"recommendation": -1}}, "axes of preset mender-tok has the weights"),
        (
            {"matching": {"first": 1.0}},
            "matching={'first': 1.0} in preset mender-tok; give weight to one of oracle, last",
        ),
        ({"matching": {"oracle": None}}, "matching of preset mender-tok has the weights"),
        ({"axes": {"recommendation": float("inf")}}, "axes of preset mender-tok has the weights"),
        ({"preference": "none", "matching": {"last": 1.0}}, "which reads no preference; leave it out"),
        ({"matching": {"oracle": 0}}, "give weight to one of oracle, last"),
        ({"encoder_shape": {"left_to_right": True}}, "all next items of a user are trained in one pass"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        load_preset("mender-tok", **changes)


def test_files_of_ones_own_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "summary": "a test", "history": "none"}))
    assert load_preset(path).history == "none"
    path.write_text("name: mine\n")
    with pytest.raises(ValueError, match="lacks 'summary'"):
        load_preset(path)
    path.write_text("- a\n")
    with pytest.raises(ValueError, match="holds no settings"):
        load_preset(path)
    with pytest.raises(ValueError, match="no preset 'nothing'; pass one of hybrid, item-item, lc-rec"):
        load_preset("nothing")


@pytest.mark.parametrize("content", ["a: !!python/object/apply:os.system [id]", "{", "[" * 20_000, "a: 2026-13-45"])
def test_a_file_that_is_no_plain_yaml_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ValueError, match="is not plain YAML") as refused:
        load_preset(tmp_path / "mine.yaml")
    assert "\n" not in str(refused.value)
