from __future__ import annotations

import pytest
from benchmark_doubles import HashEmbedder

from preference_benchmark import make as make_module
from preference_benchmark.axes.examples import STORED_FEATURES
from preference_benchmark.dataset import PreferenceDiscerning
from preference_benchmark.make import make
from preference_benchmark.recipes import recipe

SHOP = {"num_users": 60, "num_items": 40}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(make_module, "TextEmbedder", lambda *arguments, **options: HashEmbedder())
    monkeypatch.setattr(make_module, "encoder_identity", lambda name: ("hash", "hash"))
    monkeypatch.setattr(make_module.plots, "draw", lambda *arguments: None)


def prepared(cache, name="corner-shop", **options):
    builder = PreferenceDiscerning(config_name=name, cache_dir=str(cache), options=SHOP, **options)
    builder.download_and_prepare()
    return builder


def test_every_part_of_a_data_set(tmp_path):
    examples = prepared(tmp_path).as_dataset()
    blind = prepared(tmp_path, "corner-shop-last").as_dataset()
    items = prepared(tmp_path, "corner-shop-items").as_dataset("items")
    made = make(recipe("corner-shop", options=SHOP), tmp_path / "work", progress=False)
    for name, found in (("corner-shop", examples), ("corner-shop-last", blind)):
        assert found["test"].features == STORED_FEATURES
        for split, content in made.statistics["configs"][name]["splits"].items():
            assert len(found[split]) == content["rows"]
    assert examples["test"][:]["preferences"] != blind["test"][:]["preferences"]
    assert examples["test"][:]["targets"] == blind["test"][:]["targets"]
    assert max(max(targets) for targets in examples["test"]["targets"]) < len(items)


def test_the_cache_is_keyed_by_settings_and_raw_files(tmp_path):
    first = PreferenceDiscerning(config_name="corner-shop", cache_dir=str(tmp_path), options=SHOP)
    same = PreferenceDiscerning(config_name="corner-shop", cache_dir=str(tmp_path), options=SHOP)
    other = PreferenceDiscerning(config_name="corner-shop", cache_dir=str(tmp_path), options={**SHOP, "seed": 1})
    assert first.cache_dir == same.cache_dir != other.cache_dir
    folder = tmp_path / "raw"
    folder.mkdir()
    places = []
    for content in ("a", "ab"):
        (folder / "interactions.csv").write_text(content)
        builder = PreferenceDiscerning(
            config_name="custom", cache_dir=str(tmp_path), data_dir=str(folder), source="table"
        )
        places.append(builder.cache_dir)
    assert places[0] != places[1]


def test_a_part_that_is_not_built_is_an_error(tmp_path):
    protocol = recipe("corner-shop").protocol.replace(matching=["oracle"])
    with pytest.raises(ValueError, match="needs the matching mode 'last'"):
        prepared(tmp_path, "corner-shop-last", protocol=protocol)
