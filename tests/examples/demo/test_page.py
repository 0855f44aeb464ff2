"""What the page's events do, and what it sends to a browser."""

from __future__ import annotations

import json
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("gradio", reason="the page needs gradio; pip install gradio")

import gradio
from actions import NOBODY, SEARCH_RESULTS, Actions
from page import build_page

ASK = {"wish": "find rose", "avoid": "green", "against": "the history alone", "k": 5, "beams": 30}


@pytest.fixture(scope="module")
def actions(recommender):
    return Actions(recommender)


def items(shown, side):
    """Ids in the order of one list."""
    (part,) = re.findall(rf'<section class="{side}">.*?</section>', shown)
    return re.findall(r'data-item="([^"]+)"', part)


def ticked(update):
    return update.value, [item for _, item in update.choices]


def test_ranks_what_is_ticked_in_the_order_of_the_history(actions, recommender):
    known = ["item-tea", "item-mug", "item-soap"]
    shown, read = actions.rank(known, ["item-soap", "item-tea"], **ASK)
    answer = recommender.answer(["item-tea", "item-soap"], "find rose", "green", k=5)
    assert items(shown, "m-after") == [item.item_id for item in answer.full]
    assert items(shown, "m-before") == [item.item_id for item in answer.alone]
    assert read == answer.read and "all 2 items" in read


def test_nothing_to_rank_is_a_message_not_an_error(actions):
    shown, read = actions.rank([], [], "", " ", "the history alone", 5, 30)
    assert "The request is empty" in shown and read == ""


def test_a_link_leads_back_to_what_it_was_made_from(actions):
    known = ["item-tea", "item-mug"]
    shown, _ = actions.rank(known, known, **ASK | {"wish": 'find "rose" & mint'})
    link = unescape(re.findall(r'href="([^"]+)"', shown)[0])
    shopper, history, boxes, wish, avoid, k, beams = actions.start(urlsplit(link).query)
    assert (shopper, history, wish, avoid, k, beams) == (NOBODY, known, 'find "rose" & mint', "green", 5, 30)
    assert ticked(boxes) == (known, known)


@pytest.mark.parametrize("query", ["k=99&beams=-3&item=nothing", "k=x&beams=9999", "k=²"])
def test_an_address_that_makes_no_sense_does_no_harm(actions, query):
    shopper, history, _, _, _, k, beams = actions.start(query)
    assert history == [] and 1 <= k <= 20 and 1 <= beams <= 200


def test_the_first_look_is_a_shopper_with_a_wish(actions, recommender):
    shopper, history, _, wish, avoid, *_ = actions.start("")
    assert tuple(history) == recommender.shoppers[shopper].history and wish == recommender.shoppers[shopper].preference
    assert avoid == "" and parse_qs("") == {}


def test_choosing_a_shopper_replaces_the_history(actions, recommender):
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
    assert [item["item_id"] for item in found] == [item.item_id for item in answer.full]
    assert found[0].keys() == {"item_id", "title", "score"}
    with pytest.raises(gradio.Error, match="is not among the 16 items"):
        actions.recommend(["item-x"], "find rose")


def test_the_browser_is_not_sent_the_catalogue(recommender):
    page = build_page(recommender)
    # Titles here are single words: of those that no text of the page uses, only the shoppers' latest may be there.
    sent = set(re.findall(r"\w+", json.dumps(page.config["components"], default=str).lower()))
    latest = {recommender.title(shopper.history[-1]) for shopper in recommender.shoppers}
    assert latest <= sent
    assert not sent & ({"lamp", "strong", "gentle", "instructions"} - latest)
    assert [event["api_name"] for event in page.config["dependencies"] if event["api_visibility"] == "public"] == [
        "recommend"
    ]


def test_fields_that_a_model_does_not_read_are_not_shown(tmp_path):
    from page_model import load_model
    from saved_models import save_popularity

    page = build_page(load_model(str(save_popularity(tmp_path / "model"))))
    shown = {part["props"].get("elem_id"): part["props"].get("visible", True) for part in page.config["components"]}
    assert not shown["wish"] and not shown["avoid"] and not shown["against"] and not shown["beams"]
    assert shown["search"] and shown["history"] and shown["k"]
    assert "reads no preference" in json.dumps(page.config["components"], default=str)
