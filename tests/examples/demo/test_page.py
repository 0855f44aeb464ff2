"""What the page's events do, and what it sends to a browser."""

from __future__ import annotations

import json
import re
from html import unescape
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio", reason="the page needs gradio; pip install gradio")

import gradio
from actions import NOBODY, SEARCH_RESULTS, Actions
from page import build_page
from page_model import OwnItem, load_model
from saved_models import save_popularity, save_with_experts

ASK = ("find rose", "green", False, 5, 1.0)


@pytest.fixture(scope="module")
def actions(recommender):
    return Actions(recommender)


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Actions of a model whose experts have weights."""
    return Actions(load_model(str(save_with_experts(tmp_path_factory.mktemp("experts"), "mender-lite"))))


def items(shown):
    """Ids in the order of the list."""
    return re.findall(r'data-item="([^"]+)"', shown)


def ticked(update):
    return update.value, [item for _, item in update.choices]


def test_ranks_what_is_ticked_in_the_order_of_the_history(actions, recommender):
    shown = actions.rank((), ["item-tea", "item-mug", "item-soap"], ["item-soap", "item-tea"], *ASK)
    answer = recommender.answer(["item-tea", "item-soap"], "find rose", "green", k=5)
    assert items(shown) == [item.item_id for item in answer.items]


def test_nothing_to_rank_is_a_message_not_an_error(actions):
    assert "There is nothing to go by" in actions.rank((), [], [], "", " ", False, 5, 1.0)


def test_weights_come_in_the_order_of_the_sliders(experts):
    weights = [0.0 if part == "meaning" else 2.0 for part in experts.model.parts]
    shown = experts.rank((), [], [], *ASK, *weights)
    asked = {"weights": dict(zip(experts.model.parts, weights, strict=True)), "k": 5}
    assert items(shown) == [item.item_id for item in experts.model.answer([], "find rose", "green", **asked).items]


@pytest.mark.parametrize("weights", [(), (2.0, 0.5, 1.0, 0.0)])
def test_a_link_leads_back_to_what_it_was_made_from(actions, experts, weights):
    on = experts if weights else actions
    known = ["item-tea", "item-mug"]
    asked = ('find "rose" & mint', "green", True, 4, 1.5 if weights else 1.0)
    link = unescape(re.findall(r'href="([^"]+)"', on.rank((), known, known, *asked, *weights))[0])
    shopper, history, boxes, *fields = on.start(urlsplit(link).query)
    assert (shopper, history, tuple(fields)) == (NOBODY, known, (*asked, *weights))
    assert ticked(boxes) == (known, known)


@pytest.mark.parametrize("query", ["k=99&dial=-3&item=nothing", "k=x&dial=9999", "k=²&dial=nan&strict=x"])
def test_an_address_that_makes_no_sense_does_no_harm(actions, query):
    _, history, _, _, _, strict, k, dial = actions.start(query)
    assert history == [] and 1 <= k <= 20 and 0 <= dial <= 3 and strict is False


def test_the_first_look_is_a_wish_and_its_answer(actions, recommender):
    shopper, history, _, wish, avoid, strict, k, dial = actions.start("")
    assert (shopper, history, wish, avoid) == (NOBODY, [], "find cotton", "") and dial == 1.0 and not strict
    assert actions.start("__theme=dark&__sign=x")[3] == wish
    sent = {part["props"].get("elem_id"): part["props"] for part in build_page(recommender).config["components"]}
    assert sent["wish"]["value"] == wish
    assert items(sent["answer"]["value"]) == [item.item_id for item in recommender.answer([], wish, k=k).items]


class TestAddingItems:
    def test_an_item_is_found_at_once_by_who_added_it(self, experts):
        own, said = experts.add_item((), "Brooch ", "find rose")
        assert own == (OwnItem("Brooch", "find rose"),) and "“Brooch” is in the catalogue that you see" in said
        shown = experts.rank(own, [], [], "find rose", "", False, 16, 1.0, 1.0, 1.0, 1.0, 1.0)
        assert "Yours is number" in shown and "Brooch" in shown
        assert "Brooch" not in experts.rank((), [], [], "find rose", "", False, 16, 1.0, 1.0, 1.0, 1.0, 1.0)

    def test_what_cannot_be_added_changes_nothing(self, experts):
        own = (OwnItem("Brooch"),)
        same, said = experts.add_item(own, " ", "x")
        assert same == own and "The new item has no title" in said


def test_choosing_a_shopper_replaces_the_history(actions):
    known, boxes = actions.choose(1)
    assert known == ["item-lamp", "item-rose"] and ticked(boxes) == (known, known)
    assert actions.choose(NOBODY)[0] == [] and actions.wish_of(NOBODY) == ""
    assert actions.wish_of(1) == "find glass"


def test_found_titles_are_added_once(actions):
    found, nothing, *buttons = actions.find("gl", [])
    assert found == ["item-glass"] and not nothing.visible
    assert [button.visible for button in buttons] == [True] + [False] * (SEARCH_RESULTS - 1)
    known, boxes, query = actions.add(0, found, ["item-tea"], [])
    assert known == ["item-tea", "item-glass"] and query == "" and ticked(boxes) == (["item-glass"], known)
    assert actions.find("gl", known)[0] == [] and actions.find("gl", known)[1].visible
    assert actions.add(0, found, known, [])[0] == known and actions.add(3, found, known, [])[0] == known


def test_enter_adds_what_the_field_holds_now(actions):
    known, boxes, query = actions.add_first("co", ["item-tea"], ["item-tea"])
    assert known == ["item-tea", "item-cotton"] and ticked(boxes) == (known, known) and query == ""
    assert actions.add_first("zzz", known, known)[0] == known


def test_programs_are_answered_too(actions, recommender):
    found = actions.recommend(["item-tea"], "find rose", k=3)
    answer = recommender.answer(["item-tea"], "find rose", k=3)
    assert [item["item_id"] for item in found] == [item.item_id for item in answer.items]
    assert found[0].keys() == {"item_id", "title", "score"} and len(actions.recommend([], "find rose", k=10**9)) == 16
    with pytest.raises(gradio.Error, match="is not among the 16 items"):
        actions.recommend(["item-x"], "find rose")


def test_the_browser_is_not_sent_the_catalogue(recommender):
    page = build_page(recommender)
    # Titles here are single words: of those that no text of the page uses, only the shoppers' latest and the first
    # list may be there.
    (answer,) = [part for part in page.config["components"] if part["props"].get("elem_id") == "answer"]
    first = set(re.findall(r"\w+", answer["props"].pop("value").lower()))
    sent = set(re.findall(r"\w+", json.dumps(page.config["components"], default=str).lower()))
    latest = {recommender.title(shopper.history[-1]) for shopper in recommender.shoppers}
    assert latest <= sent and len(set(recommender.shop.processor.titles) & first) < 10
    assert not sent & ({"lamp", "strong", "gentle", "instructions"} - latest)
    assert [event["api_name"] for event in page.config["dependencies"] if event["api_visibility"] == "public"] == [
        "recommend"
    ]


def test_fields_that_a_model_does_not_read_are_not_shown(tmp_path):
    page = build_page(load_model(str(save_popularity(tmp_path / "model"))))
    parts = page.config["components"]
    columns = [part["props"] for part in parts if part["type"] == "column"]
    columns = {props["elem_classes"][0]: props["visible"] for props in columns}
    assert columns == {"m-say": False, "m-see": True, "m-set": True, "m-add": False, "m-who": True}
    shown = {part["props"].get("elem_id"): part["props"] for part in parts}
    assert not shown["dial"]["visible"] and shown["k"]["visible"] and items(shown["answer"]["value"])
    assert "reads no preference" in json.dumps(parts, default=str)
