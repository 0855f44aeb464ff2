"""The page's model answers what the recommender answers, and says why; what visitors add is theirs alone."""

from __future__ import annotations

import doctest
import importlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from datasets import Dataset, Features, List, Value
from doubles import shop_examples, shop_items
from page_model import LONGEST_TEXT, MOST_OWN, ModelError, OwnItem, load_model
from saved_models import SHOWCASE, save_model, save_popularity, save_with_experts
from showcase_file import SHOWCASE_FILE, derived_sentences, draw_shoppers, read_showcase

from mender import showcase as writer

HISTORY = ["item-tea", "item-mug"]
ASKED = {"history": HISTORY, "exclude": HISTORY, "top_k": 5}
BROOCH = OwnItem("Brooch", "A silver brooch with an owl")


def ids(items):
    return [item.item_id if hasattr(item, "item_id") else item["item_id"] for item in items]


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """A model with a generator and experts, all with weight 1."""
    return load_model(str(save_with_experts(tmp_path_factory.mktemp("experts"), "mender")))


@pytest.fixture(scope="module", params=["generator alone", "generator and experts", "experts alone"])
def page(request, recommender, experts, tmp_path_factory):
    """The page's model."""
    if request.param == "experts alone":
        return load_model(str(save_with_experts(tmp_path_factory.mktemp("lite"), "mender-lite")))
    return recommender if request.param == "generator alone" else experts


@pytest.mark.parametrize("typed", ["green", "Avoid green", "please don't show me green"])
def test_the_list_is_what_the_recommender_answers(page, typed):
    answer = page.answer(HISTORY, "find rose", typed, k=5)
    wished = page.shop.recommend("find rose", **ASKED)
    assert ids(answer.items) == ids(page.shop.recommend("find rose", avoid=typed, **ASKED))
    assert ids(answer.removed) == [item for item in ids(wished) if item not in ids(answer.items)]
    assert all(wished[item.rank - 1]["item_id"] == item.item_id for item in answer.removed)
    assert answer.wish == "find rose" and answer.avoided == ["green"]


def test_parts_of_two_items_differ_as_their_scores_do(page):
    answer = page.answer(HISTORY, "find rose", "green", k=5)
    scores = {
        item["item_id"]: item["score"]
        for item in page.shop.recommend("find rose", avoid="green", **ASKED | {"top_k": 14})
    }
    shown = [*answer.items, *answer.removed]
    for one, other in zip(shown, shown[1:], strict=False):
        apart = sum(one.parts.values()) - sum(other.parts.values())
        assert apart == pytest.approx(scores[one.item_id] - scores[other.item_id], abs=1e-3)


def test_what_was_kept_out_was_marked_down(experts):
    answer = experts.answer(HISTORY, "find rose", "green", k=5)
    assert all(item.parts["avoid"] < 0 for item in answer.removed)


def test_items_that_name_what_to_avoid_are_marked_or_left_out(page):
    shown = page.answer([], "find rose", "blue glass", k=16).items
    naming = set(page.shop.processor.ids(page.shop.processor.items_naming(["blue glass"])))
    assert {item.item_id for item in shown if item.named} == naming
    left = page.answer([], "find rose", "blue glass", k=16, strict=True)
    assert {*ids(left.items)} == {*ids(shown)} - naming and {*ids(left.removed)} == naming


def test_what_a_wish_excludes_in_its_own_words_is_compared_too(experts):
    answer = experts.answer(HISTORY, "find rose without green", k=5)
    separate = experts.answer(HISTORY, "find rose", "green", k=5)
    assert answer.avoided == ["green"] and answer.wish == "find rose"
    assert ids(answer.items) == ids(separate.items) and ids(answer.removed) == ids(separate.removed)


def test_a_weight_of_zero_takes_a_part_out(experts):
    assert {"words", "meaning", "history", "popularity", "generator"} == set(experts.parts)
    answer = experts.answer(HISTORY, "find rose", k=5, weights={"words": 0})
    factors = dict.fromkeys(experts.parts["words"], 0)
    assert ids(answer.items) == ids(experts.shop.recommend("find rose", weights=factors, **ASKED))
    assert all(item.parts["words"] == pytest.approx(0, abs=1e-6) for item in answer.items)


def test_the_dial_moves_the_list(page):
    answer = page.answer(HISTORY, "find rose", k=5, dial=0.0)
    assert ids(answer.items) == ids(page.shop.recommend("find rose", dial=0.0, **ASKED))


def test_parts_without_weight_have_no_slider(tmp_path):
    folder = save_with_experts(tmp_path, "mender")
    config = json.loads((folder / "config.json").read_text())
    for kind in ("stated", "silent"):
        config["experts"]["weights"][kind]["generator"] = 0.0
    config["experts"]["weights"]["stated"]["popularity"] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    model = load_model(str(folder))
    assert "generator" not in model.parts and "popularity" in model.parts
    assert model.counts("popularity", "silent") and not model.counts("popularity", "stated")


class TestOwnItems:
    def test_they_are_found_at_once_and_by_nobody_else(self, experts):
        before = experts.answer([], "silver brooch", k=16)
        mine = experts.with_items((BROOCH,))
        (own,) = [item for item in mine.answer([], "silver brooch", k=17).items if item.own]
        assert own.title == "Brooch" and own.attributes == ("A silver brooch with an owl",)
        after = experts.answer([], "silver brooch", k=17)
        assert ids(after.items) == ids(before.items) and experts.num_items == 16
        assert mine.num_items == 17 and mine.with_items(()) is not mine

    def test_two_visitors_with_the_same_items_share_them(self, experts):
        assert experts.with_items((BROOCH,)) is experts.with_items((OwnItem(BROOCH.title, BROOCH.text),))

    def test_visitors_at_the_same_time_see_their_own(self, experts):
        def visit(number):
            items = tuple(OwnItem(f"Brooch of {number}, {place}") for place in range(1 + number % 3))
            answer = experts.with_items(items).answer(HISTORY, "silver brooch", k=20)
            return {item.title for item in answer.items if item.own} == {item.title for item in items}

        with ThreadPoolExecutor(4) as visitors:
            assert all(visitors.map(visit, range(12)))
        assert experts.num_items == 16

    @pytest.mark.parametrize(
        ("items", "words"),
        [
            ((OwnItem("  "),), "no title"),
            ((OwnItem("x", "y" * (LONGEST_TEXT + 1)),), "Write at most"),
            ((BROOCH,) * (MOST_OWN + 1), "as many as this page takes"),
        ],
    )
    def test_what_cannot_be_added(self, experts, items, words):
        with pytest.raises(ValueError, match=words):
            experts.with_items(items)

    def test_a_model_that_cannot_add_items_says_so(self, tmp_path):
        popularity = load_model(str(save_popularity(tmp_path / "model")))
        assert not popularity.takes_items
        with pytest.raises(ValueError, match="Nothing can be added"):
            popularity.with_items((BROOCH,))


def test_something_to_avoid_is_enough(page):
    answer = page.answer([], "", "green", k=5)
    assert ids(answer.items) == ids(page.shop.recommend(avoid="green", top_k=5)) and answer.removed == []


@pytest.mark.parametrize("name", ["page_model", "showcase_file", "title_search"])
def test_examples_in_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted and not outcome.failed


def test_an_empty_request_says_what_to_do(recommender):
    with pytest.raises(ValueError, match="Write what you want"):
        recommender.answer([], "  ", "")


def test_items_that_the_model_lacks_fall_out_of_the_showcase(recommender):
    assert recommender.shoppers[0].history == ("item-tea", "item-mug", "item-soap")
    assert recommender.attributes(recommender.shop.processor.item_indices(["item-tea"])[0]) == ("green leaf", "loose")


def test_a_model_that_reads_no_history(tmp_path):
    shown = load_model(str(save_model(tmp_path / "model", history="none")))
    assert shown.reads_preference and not shown.reads_history and shown.shoppers == () and not shown.has_dial
    assert len(shown.answer([], "find rose", k=3).items) == 3


def test_popularity_ranks_without_a_preference(tmp_path):
    shown = load_model(str(save_popularity(tmp_path / "model")))
    assert not shown.reads_preference and shown.sentences == () and shown.parts == {}
    answer = shown.answer(HISTORY, "find rose", "green", k=3)
    assert ids(answer.items) == [item for item in shown.shop.processor.item_ids if item not in HISTORY][:3]
    assert answer.wish == "" and answer.removed == []
    with pytest.raises(ValueError, match="Choose a shopper"):
        shown.answer([], "find rose")


def test_wishes_are_made_where_none_were_saved():
    phrases = [["red", f"tin {number}"] if number % 3 else ["blue", "jar"] for number in range(12)]
    assert derived_sentences(phrases)[0].preference == "blue"
    titles = [[f"A blue mug of {number}"] for number in range(4)] + [["Red bowl"], ["Red plate"]]
    assert derived_sentences(titles)[0].preference in ("blue", "mug")
    assert derived_sentences([]) == ()


def test_shoppers_are_drawn_where_none_were_saved(recommender):
    known = recommender.shop.processor.item_ids
    drawn = draw_shoppers(recommender._next_items, known, count=3, length=4)
    assert drawn == draw_shoppers(recommender._next_items, known, count=3, length=4) and len(drawn) == 3
    assert all(len(set(shopper.history)) == len(shopper.history) == 4 for shopper in drawn)


def test_drawing_ends_with_the_catalogue(recommender):
    known = recommender.shop.processor.item_ids
    (shopper,) = draw_shoppers(recommender._next_items, known, count=1, length=99)
    assert sorted(shopper.history) == sorted(known)


class TestRefusals:
    def refusal(self, name):
        with pytest.raises(ModelError) as error:
            load_model(str(name))
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_no_such_folder(self, tmp_path):
        assert "there is no folder" in self.refusal(tmp_path / "nowhere") and "mender train" in self.refusal("nowhere")

    def test_an_empty_folder(self, tmp_path):
        assert "config.json is missing" in self.refusal(tmp_path)

    @pytest.mark.parametrize("content", ["[]", "{", '{"attributes": {}, "shoppers": [1], "sentences": []}'])
    def test_a_broken_showcase(self, saved, tmp_path, content):
        for file in saved.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "showcase.json").write_text(content)
        assert "showcase.json is not a showcase" in self.refusal(tmp_path)


def test_what_the_examples_write_is_what_the_page_reads(tmp_path):
    items = shop_items()["item_id"]
    features = Features({"item_id": Value("string"), "aspects": List(Value("string"))})
    table = Dataset.from_dict({"item_id": items, "aspects": [["one", "two"]] * len(items)}, features=features)
    given = {"source": "corner-shop", "histories": True}
    path = writer.save_showcase(tmp_path, table, shop_examples()["test"], **given)
    shown = read_showcase(path, items)
    assert path.name == SHOWCASE_FILE == writer.SHOWCASE_FILE and list(tmp_path.iterdir()) == [path]
    assert shown.shoppers and shown.sentences and shown.attributes["item-tea"] == ("one", "two")
    assert json.loads(path.read_text()).keys() == SHOWCASE.keys()
