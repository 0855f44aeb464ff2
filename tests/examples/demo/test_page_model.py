"""The page's model answers what the model itself answers; what cannot be shown is refused in one line."""

from __future__ import annotations

import doctest
import importlib
import json

import pytest
from datasets import Dataset, Features, List, Value
from doubles import shop_examples, shop_items, tiny_encoder
from page_model import ModelError, load_model, words_to_find
from saved_models import SHOWCASE, save_model, save_popularity, save_with_experts
from showcase_file import SHOWCASE_FILE, draw_shoppers, read_showcase
from transformers import BertModel

from mender import Recommender
from mender import showcase as writer

HISTORY = ["item-tea", "item-mug"]
ASKED = {"history": HISTORY, "exclude": HISTORY, "top_k": 14, "num_beams": 30}


def ids(items):
    return [item.item_id for item in items]


def agrees(items, expected):
    """Whether a list of the page is a list of a recommender, scores included."""
    assert ids(items) == [item["item_id"] for item in expected]
    assert [item.score for item in items] == pytest.approx([item["score"] for item in expected], abs=1e-4)


@pytest.fixture(scope="module", params=["generator alone", "generator and experts", "experts alone"])
def both(request, saved, tmp_path_factory):
    """The page's model, and the recommender of the same folder."""
    folder = saved
    if request.param != "generator alone":
        preset = "mender" if "generator" in request.param else "mender-lite"
        folder = save_with_experts(tmp_path_factory.mktemp("experts"), preset)
    return load_model(str(folder)), Recommender.from_pretrained(folder, device="cpu")


def test_every_list_is_what_the_recommender_answers(both):
    page, shop = both
    answer = page.answer(HISTORY, "find rose", "green", k=14)
    agrees(answer.alone, shop.recommend(**ASKED))
    agrees(answer.wished, shop.recommend("find rose", **ASKED))
    agrees(answer.full, shop.recommend("find rose", avoid="green", **ASKED))
    assert not set(ids(answer.full)) & set(HISTORY)
    assert answer.read.startswith("“find rose”; to avoid") and "2 items of the history, as " in answer.read
    assert {item.score for item in answer.full} != {item.score for item in answer.wished}


@pytest.mark.parametrize("typed", ["green", "Avoid green", "please don't show me green"])
def test_what_to_avoid_is_no_part_of_the_wish(both, typed):
    page, shop = both
    answer = page.answer(HISTORY, "find rose", typed, k=14)
    agrees(answer.full, shop.recommend("find rose", avoid=[typed], **ASKED))
    assert "to avoid" in answer.read and "“green”" in answer.read
    if page.processor.experts:
        wished = shop.recommend(["find rose", "green"], **ASKED)
        assert [item.score for item in answer.full] != pytest.approx([item["score"] for item in wished], abs=1e-2)


def test_something_to_avoid_is_enough(both):
    page, shop = both
    agrees(page.answer([], "", "green", k=5).full, shop.recommend(avoid="green", top_k=5, num_beams=30))


def test_lists_that_would_repeat_another_are_left_out(recommender):
    assert recommender.answer(HISTORY, "find rose").wished is None
    assert recommender.answer(HISTORY, "", "rose").wished is None
    assert recommender.answer([], "find rose").alone is None
    alone = recommender.answer(HISTORY)
    assert alone.alone is None and len(alone.full) == 10


@pytest.mark.parametrize("name", ["comparison", "page_model", "title_search"])
def test_examples_in_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted and not outcome.failed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("candles with rose scent or oil-free formula", ["rose scent", "oil free formula"]),
        ("formula", ["formula"]),
        ("everything", []),
        ("the candles", []),
    ],
)
def test_words_that_show_whether_an_item_is_to_be_avoided(text, found):
    counts = {"formula": 5, "candles": 50, "rose": 2}
    assert words_to_find([text], {"rose scent", "oil free formula"}, lambda word: counts.get(word, 0), 100) == found


def test_an_empty_request_says_what_to_do(recommender):
    with pytest.raises(ValueError, match="write what you want"):
        recommender.answer([], "  ", "")


def test_what_is_to_be_avoided_is_marked_by_attribute(recommender):
    answer = recommender.answer(["item-soap"], "", "blue glaze", k=15)
    assert answer.words == ["blue glaze"]
    assert [item.item_id for item in answer.full if item.mentions] == ["item-mug"]


def test_more_items_than_beams_raises_the_beams(recommender):
    answer = recommender.answer(HISTORY, "find rose", k=12, num_beams=3)
    assert answer.num_beams == 12 and len(answer.full) == 12


def test_the_oldest_items_that_do_not_fit_are_said_to_be_left_out(recommender):
    wish, render = "find " + "rose " * 20, recommender.processor.render
    read = recommender.answer(recommender.processor.item_ids[:15], wish, k=1).read
    count = int(read.split("the latest ")[1].split()[0])
    assert 0 < count < 15
    assert render(wish, range(15 - count, 15)) == render(wish, range(15)) != render(wish, range(16 - count, 15))


def test_items_that_the_model_lacks_fall_out_of_the_showcase(recommender):
    assert recommender.shoppers[0].history == ("item-tea", "item-mug", "item-soap")
    assert recommender.attributes(recommender.processor.item_indices(["item-tea"])[0]) == ("green leaf", "loose")


def test_a_model_that_reads_no_history(tmp_path):
    shown = load_model(str(save_model(tmp_path / "model", history="none")))
    assert shown.reads_preference and not shown.reads_history and shown.shoppers == ()
    answer = shown.answer([], "find rose", k=3)
    assert answer.alone is None and len(answer.full) == 3 and answer.read == "“find rose”"


def test_popularity_ranks_without_a_preference(tmp_path):
    shown = load_model(str(save_popularity(tmp_path / "model")))
    assert not shown.reads_preference and not shown.uses_beams
    answer = shown.answer(HISTORY, "find rose", "green", k=3)
    assert ids(answer.full) == [item for item in shown.processor.item_ids if item not in HISTORY][:3]
    assert answer.alone is None and answer.num_beams is None and "find rose" not in answer.read
    with pytest.raises(ValueError, match="choose a shopper"):
        shown.answer([], "find rose")


def test_shoppers_are_drawn_where_none_were_saved(recommender):
    known = recommender.processor.item_ids
    drawn = draw_shoppers(recommender._next_items, known, count=3, length=4)
    assert drawn == draw_shoppers(recommender._next_items, known, count=3, length=4) and len(drawn) == 3
    assert all(len(set(shopper.history)) == len(shopper.history) == 4 for shopper in drawn)


def test_drawing_ends_with_the_catalogue(recommender):
    (shopper,) = draw_shoppers(recommender._next_items, recommender.processor.item_ids, count=1, length=99)
    assert sorted(shopper.history) == sorted(recommender.processor.item_ids)


class TestRefusals:
    def refusal(self, name, **settings):
        with pytest.raises(ModelError) as error:
            load_model(str(name), **settings)
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_no_such_folder(self, tmp_path):
        assert "there is no folder" in self.refusal(tmp_path / "nowhere") and "make demo" in self.refusal("nowhere")

    def test_neither_here_nor_on_the_hub(self):
        assert "neither a folder here nor loadable from the Hub" in self.refusal("org/mender-that-is-not-there")

    def test_an_empty_folder(self, tmp_path):
        assert "config.json is missing" in self.refusal(tmp_path)

    def test_an_adapter_alone(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text("{}")
        assert "merge_and_unload" in self.refusal(tmp_path)

    def test_a_model_without_its_items(self, saved, tmp_path):
        for file in saved.iterdir():
            if file.name != "items.json":
                (tmp_path / file.name).symlink_to(file)
        assert "items.json is missing" in self.refusal(tmp_path)

    def test_a_model_that_recommends_nothing(self, saved, tmp_path):
        BertModel(tiny_encoder()).save_pretrained(tmp_path)
        for file in ("items.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"):
            (tmp_path / file).write_bytes((saved / file).read_bytes())
        assert "BertModel" in self.refusal(tmp_path)

    def test_a_config_without_a_model_type_asks_nothing(self, saved, tmp_path, monkeypatch):
        monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked whether to run code"))
        for file in saved.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = json.loads((saved / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "model_type"}))
        assert "cannot load" in self.refusal(tmp_path)

    def test_items_of_another_model(self, saved, tmp_path):
        for file in saved.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "items.json").write_text(json.dumps({"item_id": ["a"], "title": ["A"]}))
        (tmp_path / "showcase.json").unlink()
        assert "it has 1 items, and the model in config.json has 16" in self.refusal(tmp_path)

    @pytest.mark.parametrize("content", ["[]", "{", '{"attributes": {}, "shoppers": [1], "sentences": []}'])
    def test_a_broken_showcase(self, saved, tmp_path, content):
        for file in saved.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "showcase.json").write_text(content)
        assert "showcase.json is not a showcase" in self.refusal(tmp_path)

    def test_code_that_nobody_trusts(self, saved, monkeypatch):
        monkeypatch.setattr("page_model.installed", None)
        assert "MENDER_TRUST_REMOTE_CODE=1" in self.refusal(saved)


def test_what_the_examples_write_is_what_the_page_reads(tmp_path):
    items = shop_items()["item_id"]
    features = Features({"item_id": Value("string"), "aspects": List(Value("string"))})
    table = Dataset.from_dict({"item_id": items, "aspects": [["one", "two"]] * len(items)}, features=features)
    path = writer.save_showcase(tmp_path, table, shop_examples()["test"], histories=True)
    shown = read_showcase(path, items)
    assert path.name == SHOWCASE_FILE == writer.SHOWCASE_FILE and list(tmp_path.iterdir()) == [path]
    assert shown.shoppers and shown.sentences and shown.attributes["item-tea"] == ("one", "two")
    assert json.loads(path.read_text()).keys() == SHOWCASE.keys()
