"""The graded wishes: the file is whole, scores are what their definitions say, other catalogues are refused."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from doubles import random_catalogue, tiny_model, word_tokenizer

from mender import Recommender
from modeling_mender import MenderProcessor

FOLDER = Path(__file__).parents[2] / "benchmarks"
FORMS = {"bare", "sentence", "question"}
TAGS = FORMS | {"vague", "composite", "misspelt", "avoid", "rare", "unanswerable"}


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("wishes_script", FOLDER / "wishes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def collection():
    return json.loads((FOLDER / "wishes" / "office_products.json").read_text("utf-8"))


def wish(**changes):
    return {"id": "w", "text": "tea", "avoid": [], "tags": ["bare"], "grades": {}} | changes


def test_every_wish_is_whole(collection):
    wishes = collection["wishes"]
    assert len(wishes) == len({wish["id"] for wish in wishes}) == len({wish["text"] for wish in wishes}) == 60
    for one in wishes:
        tags, grades = set(one["tags"]), one["grades"]
        assert len(tags & FORMS) == 1 and tags <= TAGS and len(tags) == len(one["tags"])
        assert set(grades.values()) <= {0, 1, 2, 3} and all(item_id.isdecimal() for item_id in grades)
        assert any(grade >= 2 for grade in grades.values()) != ("unanswerable" in tags)
        assert bool(one["avoid"]) == ("avoid" in tags) == ("avoided" in one)
        assert all(grades[item_id] == 0 for item_id in one.get("avoided", []))


def test_judgements_are_counted(collection):
    counts = np.zeros(4, int)
    for one in collection["wishes"]:
        counts += np.bincount(list(one["grades"].values()), minlength=4)
    judgements = collection["judgements"]
    assert {str(grade): count for grade, count in enumerate(counts.tolist())} == judgements["by_grade"]
    rounds = ("first_round", "feedback_round", "second_pool")
    assert counts.sum() == sum(judgements[name] for name in rounds)
    second = [len(set(one.get("second_pool", [])) & set(one["grades"])) for one in collection["wishes"]]
    assert sum(second) == judgements["second_pool"]


def test_repeated_judgements_agree_as_the_page_says(script, collection):
    double = collection["double_judgement"]
    assert len(double["wishes"]) == 15 and set(double["wishes"]) <= {one["id"] for one in collection["wishes"]}
    page = (FOLDER / "wishes" / "README.md").read_text("utf-8")
    for confusion in (double["confusion"], collection["second_pool"]["controls"]):
        agreement = script.agreement(confusion)
        assert f"{agreement['exact']:.3f}" in page and f"{agreement['kappa']:.3f}" in page


def test_agreement_is_one_on_the_diagonal_and_zero_by_chance(script):
    assert script.agreement(np.diag([5, 3, 2, 1])) == {"exact": 1, "kappa": 1}
    chance = np.outer([4, 2, 1, 1], [3, 3, 1, 1])
    assert script.agreement(chance)["kappa"] == pytest.approx(0)


def test_figures_of_a_hand_example(script):
    asked = wish(grades={"a": 3, "b": 2, "c": 1, "d": 0, "e": 0}, avoid=["milk"], avoided=["e"])
    row = script.score({"w": ["c", "a", "x", "e"]}, [asked]).row(0, named=True)
    gained = 1 / np.log2(2) + 3 / np.log2(3)
    best = 3 / np.log2(2) + 2 / np.log2(3) + 1 / np.log2(4)
    assert row["ndcg@10"] == pytest.approx(gained / best)
    assert row["precision@5"] == 0.5  # two items satisfy; one of them is among the first two
    assert row["avoided@10"] == 1 and row["unjudged@10"] == 0.25


def test_the_ratio_is_paired(script):
    reference = pl.DataFrame({"ndcg@10": [0.1, 0.4, 0.8, None]})
    half = reference.with_columns(pl.col("ndcg@10") / 2)
    assert list(script.ratio(half, reference).values()) == pytest.approx([0.5, 0.5, 0.5])
    mixed = pl.DataFrame({"ndcg@10": [0.3, 0.4, 0.6, None]})
    value, low, high = script.ratio(mixed, reference).values()
    assert value == pytest.approx(1.3 / 1.3) and low < value < high


def test_examples_are_one_markdown_table(script):
    titles = ["Black | green tea", "Cup", "Pot"]
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "title": titles})
    shown = wish(id=script.EXAMPLES[0], grades={"a": 3}, avoid=["milk"])
    methods = {"first": {shown["id"]: ["b", "a"]}, "second": {shown["id"]: ["a"]}}
    lines = script.examples_markdown(methods, [shown, wish()], items).splitlines()
    assert lines[2] == "| **tea** (without: milk) | -: Cup | 3: Black \\| green tea |"
    assert lines[3] == "|  | 3: Black \\| green tea |  |"
    assert len(lines) == 2 + script.TOP_FEW


def test_the_best_order_scores_one_and_only_the_first_ten_count(script, collection):
    wishes = collection["wishes"]
    best = {one["id"]: sorted(one["grades"], key=lambda item_id: -one["grades"][item_id]) for one in wishes}
    scores = script.score(best, wishes)
    assert scores["ndcg@10"].drop_nulls().unique().to_list() == pytest.approx([1])
    assert scores["precision@5"].drop_nulls().unique().to_list() == pytest.approx([1])
    assert scores["ndcg@10"].null_count() == sum("unanswerable" in one["tags"] for one in wishes)
    cut = {wish_id: [*ranked[:10], "unknown"] for wish_id, ranked in best.items()}
    assert script.score(cut, wishes).equals(scores)


def test_a_missing_list_and_a_repeated_item_are_refused(script):
    with pytest.raises(ValueError, match="no list for wish w"):
        script.score({}, [wish()])
    with pytest.raises(ValueError, match="holds an item twice"):
        script.score({"w": ["a", "a"]}, [wish()])


def test_other_items_are_refused(script, collection, tmp_path):
    with pytest.raises(FileNotFoundError, match="README"):
        script.read_items(tmp_path, collection)
    items = pl.DataFrame({"item_id": ["0"], "title": ["Tea"], "text": ["Tea."]})
    items.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="not the 3,459"):
        script.read_items(tmp_path, collection)
    own = {"data_set": "tea", "catalogue": {"items": 1, "sha256": script.catalogue_digest(items)}}
    assert script.read_items(tmp_path, own).equals(items)


def test_bm25_finds_words_and_ignores_unknown_ones(script):
    scores = script.bm25_scores(["red tea", "green tea leaf", "coffee"], ["tea leaf", "the", "xyz coffee"])
    assert scores[0].argmax() == 1 and scores[2].argmax() == 2
    assert not scores[1].any()


def test_grades_belong_to_the_published_items(script, collection, real_data):
    folder = real_data / "amazon2018_office_products"
    if not folder.is_dir():
        pytest.skip(f"no Office Products at {folder}")
    with gzip.open(next(folder.glob("*.item.json.gz")), "rt", encoding="utf-8") as file:
        published = json.load(file)
    items = pl.DataFrame({"item_id": list(published), "title": [item["title"] for item in published.values()]})
    assert script.catalogue_digest(items) == collection["catalogue"]["sha256"]
    assert all(item_id in published for one in collection["wishes"] for item_id in one["grades"])


def test_a_saved_model_is_asked_with_what_is_to_be_avoided(script, tmp_path):
    items = {"item_id": list("abcd"), "title": ["green tea", "mint tea", "rose soap", "glass lamp"]}
    model, processor = tiny_model(random_catalogue(4, [2, 4])), MenderProcessor(word_tokenizer(), items)
    Recommender(model, processor).save_pretrained(tmp_path / "model")
    asked = [wish(id="w1"), wish(id="w2", text="soap", avoid=["mint"])]
    found = script.model_rankings(tmp_path / "model", asked)
    assert {name: sorted(ids) for name, ids in found.items()} == {"w1": list("abcd"), "w2": list("abcd")}
