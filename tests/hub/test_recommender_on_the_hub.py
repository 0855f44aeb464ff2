"""A recommender is pushed with its card, figures and licence, and answers elsewhere as it did here."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub
from test_cards_on_the_hub import run

START = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from doubles import encoder_folder, measured, small_method
from mender import Recommender
from modeling_mender import write_card
work = Path(sys.argv[2])
ask = lambda shop: [item["item_id"] for item in shop.recommend("strong tea", history=["new-1", "item-mug"], top_k=6)]
"""
PUSH = (
    START
    + """
method = small_method("mender", encoder_folder(work / "encoder"))
shop = Recommender(method.model, method.processor, settings={"preset": "mender"}, purchases={"user-1": [0, 1]})
shop.add_items([{"item_id": "new-1", "title": "strong lamp", "text": "strong lamp", "aspects": ["strong"]}])
shop.save_pretrained(work / "shop", purchases=True)
write_card(work / "shop", shop.model, results=measured(0.75), license="mit")
(work / "shop" / "LICENSE").write_text("MIT")
shop.push_to_hub("org/shop")
print(json.dumps(ask(shop)))
"""
)
AGAIN = (
    START
    + """
import torch
shop = Recommender.from_pretrained(work / "shop", device="cpu")
for parameter in shop.model.parameters():
    parameter.data += 0.5 * torch.randn_like(parameter)
shop.push_to_hub("org/shop", **json.loads(sys.argv[3]))
print(json.dumps([item["score"] for item in shop.recommend("strong tea", top_k=6)]))
"""
)
SCORES = (
    START
    + """
shop = Recommender.from_pretrained("org/shop", device="cpu")
print(json.dumps([item["score"] for item in shop.recommend("strong tea", top_k=6)]))
"""
)
PULL = (
    START
    + """
shop = Recommender.from_pretrained("org/shop", device="cpu")
assert "new-1" in shop and shop.settings["preset"] == "mender" and not shop._version.purchases
print(json.dumps(ask(shop)))
"""
)


@pytest.mark.slow
def test_a_pushed_recommender_is_whole(tmp_path):
    with LoopbackHub(tmp_path / "hub") as hub:
        answer = run(PUSH, tmp_path, **hub.environment(tmp_path / "publisher"))
        files = hub.files("models", "org/shop")
        card = ModelCard.load(files["README.md"])
        environment = hub.environment(tmp_path / "stranger")
        assert run(PULL, tmp_path, **environment) == answer
    assert run(PULL, tmp_path, **{**environment, "HF_HUB_OFFLINE": "1"}) == answer
    assert card.data.license == "mit" and "**0.750**" in card.text and 'model="org/shop"' in card.text
    assert "LICENSE" in files and "recommender.json" in files and not [name for name in files if "purchases" in name]


@pytest.mark.slow
def test_a_second_push_replaces_the_first_as_a_whole(tmp_path):
    with LoopbackHub(tmp_path / "hub") as hub:
        environment = hub.environment(tmp_path / "publisher")
        run(PUSH, tmp_path, **environment)
        for options in ({"max_shard_size": "50KB"}, {}):
            before = hub.commit_of("models", "org/shop", "main")
            hub.requests.clear()
            expected = run(AGAIN.replace("sys.argv[3]", repr(json.dumps(options))), tmp_path, **environment)
            assert sum("/commit/" in request for request in hub.requests) == 1
            weights = [name for name in hub.files("models", "org/shop") if "model" in name and "safetensors" in name]
            assert ("model.safetensors" in weights) == (not options) and (len(weights) > 2) == bool(options)
            assert hub.commit_of("models", "org/shop", "main") != before
            found = run(SCORES, tmp_path, **hub.environment(tmp_path / f"stranger{len(options)}"))
            assert found == pytest.approx(expected)
