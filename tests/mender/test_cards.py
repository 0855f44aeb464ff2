"""Lists for a card: what the model recommends for a history that is not one user's."""

from __future__ import annotations

import re

import pytest
from doubles import (
    encoder_folder,
    random_catalogue,
    shop_examples,
    shop_items,
    small_method,
    tiny_model,
    word_tokenizer,
)

from mender import Recommender
from mender.cards import pick_request, steer
from modeling_mender import MenderProcessor, write_card


@pytest.fixture(scope="module")
def examples():
    return shop_examples(6)["test"]


def test_lists_are_what_the_model_recommends(examples):
    items = shop_items()
    model, processor = (
        tiny_model(random_catalogue(len(items["item_id"]), [5, 5])),
        MenderProcessor(word_tokenizer(), items),
    )
    history, preferences = pick_request(examples, preferences=3)
    assert len(set(history)) == 5 and len(set(preferences)) == 3
    shop = Recommender(model, processor)
    shown = steer(shop, history, preferences, top_k=4)
    assert shown.history == [history_id.removeprefix("item-") for history_id in history]
    for preference, titles in shown.lists.items():
        found = model.recommend(
            **processor(preference, history), top_k=4, exclude=processor.item_indices(history)
        ).item_indices[0]
        assert titles == [item["title"] for item in processor.decode_items(found)]
    with pytest.raises(ValueError, match="no preference to steer by"):
        steer(shop, history, [])


def test_the_history_is_made_of_items_in_most_histories(examples):
    counts: dict[str, int] = {}
    for history in examples["history"]:
        for item in history:
            counts[item] = counts.get(item, 0) + 1
    history, _ = pick_request(examples)
    assert min(counts[item] for item in history) >= max(counts[item] for item in counts if item not in history)


def test_preferences_of_other_axes_are_shown_where_there_is_no_coarse_steering(examples):
    matched = examples.filter(lambda axis: axis == "recommendation", input_columns="axis")
    _, preferences = pick_request(matched, preferences=2)
    assert set(preferences) <= {texts[0] for texts in matched["preferences"]} and len(preferences) == 2
    with pytest.raises(ValueError, match="no example has a preference"):
        pick_request(matched.map(lambda example: {"preferences": []}))


@pytest.mark.parametrize("name", ["mender-tok", "popularity"])
def test_the_code_on_a_card_runs(name, tmp_path, capsys):
    method = small_method(name, encoder_folder(tmp_path / "encoder"))
    Recommender(method.model, method.processor).save_pretrained(tmp_path / "model")
    path = write_card(tmp_path / "model", method.model, repo_id="org/mender")
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    shown = []
    for block in blocks:
        exec(block.replace("org/mender", str(tmp_path / "model")).replace("=True", "=False"), {})
        shown.append([line.split()[1] for line in capsys.readouterr().out.splitlines()])
    assert len(shown) == 2 and shown[0] == shown[1] and len(shown[0]) == 5
