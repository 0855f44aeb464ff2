"""Tiny saved models, as the examples save them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from doubles import encoder_folder, random_catalogue, shop_items, small_method, tiny_model, word_tokenizer

from mender import Recommender
from modeling_mender import ExpertsRecommender, MenderProcessor
from modeling_mender.configuration_mender import KINDS
from modeling_mender.modeling_experts import ExpertsConfig

SHOWCASE = {
    "attributes": {"item-tea": ["green leaf", "loose"], "item-mug": ["blue glaze"], "item-gone": ["nowhere"]},
    "shoppers": [
        {"history": ["item-tea", "item-gone", "item-mug", "item-soap"], "preference": "find rose"},
        {"history": ["item-lamp", "item-rose"], "preference": "find glass"},
    ],
    "sentences": [{"preference": "find cotton", "avoid": ""}, {"preference": "find mint", "avoid": "avoid blue glaze"}],
}


def save_model(
    folder: Path, showcase: dict | None = None, titles: Sequence[str] | None = None, **processor_settings
) -> Path:
    """A random Mender over sixteen items, as the examples save one."""
    catalogue = random_catalogue(16, [4, 4, 2])
    items = shop_items() | {"codes": catalogue.codes.tolist()}
    items["title"] = list(titles or items["title"])
    tiny_model(catalogue).save_pretrained(folder)
    MenderProcessor(word_tokenizer(), items, max_length=40, **processor_settings).save_pretrained(folder)
    if showcase is not None:
        (folder / "showcase.json").write_text(json.dumps(showcase))
    return folder


def save_popularity(folder: Path) -> Path:
    """Popularity over the same items, the first the most popular."""
    model = ExpertsRecommender(ExpertsConfig(16, ["popularity"]))
    model.experts.popularity.counts += 16 - model.experts.popularity.counts.new_tensor(range(16))
    model.save_pretrained(folder)
    MenderProcessor(word_tokenizer(), shop_items(), history="indices", preference="none").save_pretrained(folder)
    return folder


def save_with_experts(folder: Path, preset: str) -> Path:
    """A preset with random weights over the same items, all experts with weight 1."""
    method = small_method(preset, encoder_folder(folder / "encoder"))
    config = method.model.experts.config
    config.set_weights({kind: dict.fromkeys(config.weighted, 1.0) for kind in KINDS})
    Recommender(method.model, method.processor).save_pretrained(folder / "model")
    return folder / "model"
