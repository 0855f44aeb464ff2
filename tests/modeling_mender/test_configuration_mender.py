"""Configurations with sizes that no saved weights have are refused with one sentence, and allocate nothing."""

from __future__ import annotations

import json
import resource

import pytest
import torch
from doubles import random_catalogue, shop_items, tiny_encoder, tiny_model
from transformers import AutoModel

from modeling_mender import ExpertsRecommender, MenderConfig, SasRecForSequentialRecommendation
from modeling_mender.configuration_mender import ItemStatesConfig, check_sizes
from modeling_mender.item_states import ItemStatesEncoder
from modeling_mender.modeling_experts import ExpertsConfig
from modeling_mender.modeling_sasrec import SasRecConfig

NUM_ITEMS = len(shop_items()["item_id"])


def item_states():
    return ItemStatesEncoder(ItemStatesConfig(tiny_encoder(), text_vocabulary=64, num_states=9))


MODELS = {
    "mender": lambda: tiny_model(random_catalogue(NUM_ITEMS, [5, 5])),
    "mender on T5": lambda: tiny_model(random_catalogue(NUM_ITEMS, [5, 5]), "t5"),
    "item states": item_states,
    "sasrec": lambda: SasRecForSequentialRecommendation(SasRecConfig(NUM_ITEMS, hidden_size=8, num_layers=1)),
    "experts": lambda: ExpertsRecommender(ExpertsConfig(NUM_ITEMS, ["popularity", "co_purchase"], num_neighbours=4)),
}
ABSURD = [
    ("mender", "decoder.num_layers", 10**9),
    ("mender", "decoder.num_layers", 900),
    ("mender", "decoder.d_model", 10**9),
    ("mender", "decoder.d_ff", 10**6),
    ("mender", "decoder.num_heads", 10**6),
    ("mender", "num_items", 10**15),
    ("mender", "num_items", 10**9),
    ("mender", "num_items", NUM_ITEMS + 1),
    ("mender", "codebook_sizes", [10**9, 5]),
    ("mender", "codebook_sizes", [10**12, 5]),
    ("mender", "encoder.num_hidden_layers", 10**9),
    ("mender", "encoder.hidden_size", 10**9),
    ("mender", "encoder.vocab_size", 10**9),
    ("mender on T5", "encoder.num_layers", 10**9),
    ("mender on T5", "encoder.d_kv", 10**6),
    ("item states", "num_states", 10**9),
    ("item states", "max_history", 10**9),
    ("item states", "text_encoder.num_hidden_layers", 10**9),
    ("item states", "text_encoder.intermediate_size", 10**6),
    ("sasrec", "num_layers", 10**9),
    ("sasrec", "num_layers", 2),
    ("sasrec", "hidden_size", 10**6),
    ("sasrec", "num_items", 10**9),
    ("sasrec", "max_history", 10**9),
    ("experts", "num_items", 10**9),
    ("experts", "num_neighbours", 10**9),
    ("experts", "num_items", 10**12),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folders = {}
    for name, make in MODELS.items():
        folders[name] = tmp_path_factory.mktemp("saved")
        make().save_pretrained(folders[name])
    return folders


@pytest.mark.parametrize(("name", "field", "value"), ABSURD)
def test_sizes_that_the_weights_do_not_have_are_refused(saved, name, field, value):
    path = saved[name] / "config.json"
    text = path.read_text("utf-8")
    config = json.loads(text)
    *parents, last = field.split(".")
    part = config
    for parent in parents:
        part = part[parent]
    assert last in part
    part[last] = value
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        path.write_text(json.dumps(config), "utf-8")
        message = "is too large; the limit is|describes .* weights, but the saved files contain"
        with pytest.raises(ValueError, match=message) as error:
            AutoModel.from_pretrained(saved[name])
    finally:
        path.write_text(text, "utf-8")
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("name", MODELS)
def test_saved_sizes_are_accepted(saved, name):
    assert sum(map(torch.numel, AutoModel.from_pretrained(saved[name]).parameters())) > 0


def test_sizes_of_real_encoders_are_accepted():
    check_sizes({"num_hidden_layers": 96, "hidden_size": 16_384, "vocab_size": 262_144, "max_length": 10**30})
    check_sizes(MenderConfig().to_dict())


@pytest.mark.parametrize("name", ["num_items", "hidden_size", "num_layers", "num_heads", "max_history"])
def test_sizes_are_positive(name):
    with pytest.raises(ValueError, match=f"{name}=0; pass a whole number of at least 1"):
        SasRecConfig(**{name: 0})
