"""The benchmark of items added after training: what is held out is gone, and ranks are counted right."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from doubles import WORDS, encoder_folder, shop_items, small_method

from modeling_mender.configuration_mender import KINDS

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("added_items_script", FOLDER / "added_items.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_held_out_items_are_in_no_history(script, tmp_path):
    kept, added = script.split_shop(100, 0, tmp_path)
    interactions = pl.read_parquet(tmp_path / "interactions.parquet")
    assert len(added) == 100 and not {*kept["item_id"]} & {*added["item_id"]}
    assert {*interactions["item_id"]} <= {*kept["item_id"]}


def test_an_item_with_both_aspects_answers_a_wish(script):
    aspects = [{"red", "big"}, {"red", "small"}, {"red", "big", "old"}, {"blue"}]
    lists = [np.array([3, 1, 0, 2]), np.array([2, 0, 1, 3])]
    script.FIRST = 1
    found = script.figures(lists, [("red", "big"), ("big", "red")], [2, 0], aspects)
    assert found["answered in the first 1"] == 0.5 and found["the item in the first 1"] == 0.0
    assert found["mean rank"] == 3.0 and found["wishes"] == 2


def test_a_model_that_reads_words_finds_what_is_added(script, tmp_path):
    method = small_method("mender-lite", encoder_folder(tmp_path))
    model = method.model.eval()
    config = model.experts.config
    config.set_weights({kind: {**dict.fromkeys(config.weighted, 0.0), "terms": 1.0} for kind in KINDS})
    items = shop_items()
    # "avoid" in a wish says what is not wanted.
    kept = pl.DataFrame(items | {"aspects": [text.replace("avoid", "items").split() for text in items["text"]]})
    pairs = [(first, second) for first, second in zip(WORDS[:6], WORDS[8:14], strict=True)]
    texts = [" ".join(pair) for pair in pairs]
    ids = [f"new-{place}" for place in range(6)]
    added = pl.DataFrame({"item_id": ids, "title": texts, "text": texts, "aspects": [[*pair] for pair in pairs]})
    new, before, after, alone = script.measure(model, method.processor, kept, added, seed=0)
    assert new["answered in the first 5"] == new["the item in the first 5"] == 1.0
    assert before["median rank"] == alone["median rank"] == 1.0 and alone["moved"] == 0.0
    assert after["wishes"] == len(WORDS)
