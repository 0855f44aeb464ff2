"""`mender recommend`: the best items for people and for machines; a request that cannot be answered says why."""

from __future__ import annotations

import json

import pytest
from doubles import WORDS, encoder_folder, small_method

from modeling_mender.request_fit import fit_names


def test_recommendations_for_machines(mender, trained):
    model = trained / "mender-tok-seed0" / "model"
    request = ["--history", "item-tea", "--history", " MUG", "--preference", "find soap", "--avoid", "blue glass"]
    code, out, _ = mender("recommend", model, *request, "-k", "5", "--json")
    found = json.loads(out)
    assert code == 0 and found["preference"] == ["find soap"] and found["avoid"] == ["blue glass"]
    assert found["history"] == [{"item_id": "item-tea", "title": "tea"}, {"item_id": "item-mug", "title": "mug"}]
    titles = [item["title"] for item in found["items"]]
    assert len(set(titles)) == 5 and set(titles) <= set(WORDS) - {"tea", "mug"}
    scores = [item["score"] for item in found["items"]]
    assert scores == sorted(scores, reverse=True)
    code, out, _ = mender("recommend", model, *request, "-k", "5", "--beams", "exact", "--json")
    assert code == 0 and len(json.loads(out)["items"]) == 5


def test_recommendations_for_people(mender, trained):
    code, out, err = mender("recommend", trained / "mender-tok-seed0" / "model", "--preference", "find tea", "-k", "3")
    assert code == 0 and not err
    assert "preference: find tea" in out and "item-" in out and out.count("│") == 3 * 5


def test_reasons_for_people_and_for_machines(mender, trained):
    request = [trained / "popularity-seed0" / "model", "--history", "tea", "-k", "3", "--why"]
    code, out, _ = mender("recommend", *request)
    assert code == 0 and "behaviour" in out and "language" not in out and "mean score" in out
    code, out, _ = mender("recommend", *request, "--json")
    items = json.loads(out)["items"]
    mean = sum(item["score"] for item in items) / 3
    assert [item["why"]["popularity"] for item in items] == pytest.approx([item["score"] - mean for item in items])


def test_corrections_are_shown(mender, trained):
    request = [trained / "mender-tok-seed0" / "model", "--preference", "find galss", "--avoid", "blue"]
    _, out, _ = mender("recommend", *request)
    assert 'Read "find galss" as "find glass"' in out and out.count("Read") == 1
    _, out, _ = mender("recommend", *request, "--json")
    assert json.loads(out)["corrected"] == {"find galss": "find glass"}


@pytest.mark.parametrize(
    ("preset", "request_", "message"),
    [
        ("mender-tok", ["--history", "teal"], "no item has the id or title 'teal'; did you mean 'tea' (item-tea)"),
        ("mender-tok", ["--history", "xyz"], "no item has the id or title 'xyz'; pass ids or titles"),
        ("mender-tok", [], "the request is empty"),
        ("mender-tok", ["--preference", "tea", "-k", "5", "--beams", "2"], "num_beams=2 cannot return top_k=5"),
        ("popularity", ["--preference", "tea"], "this model reads no preferences"),
    ],
)
def test_requests_that_cannot_be_answered(mender, trained, preset, request_, message):
    code, out, err = mender("recommend", trained / f"{preset}-seed0" / "model", *request_)
    assert code == 2 and not out and err.count("\n") == 1 and message in err


def test_a_run_is_not_a_model(mender, trained):
    run = trained / "mender-tok-seed0"
    code, _, err = mender("recommend", run, "--preference", "tea")
    assert code == 2 and f"is a run; pass its model, {run / 'model'}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "."], "holds no saved model"),
        (["recommend", "here/there", "--beams", "many"], "--beams 'many'; pass a whole number or exact"),
    ],
)
def test_mistakes_end_in_one_line(mender, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender(*arguments)
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("error: ") and message in line and "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def careful(tmp_path_factory):
    """A saved model that only says that something fits where an item has the words."""
    method = small_method("text-search", encoder_folder(tmp_path_factory.mktemp("encoder")))
    names = fit_names(method.model.config.experts)
    method.model.config.fit = {"constant": 2.0, **dict.fromkeys(names, 0.0), "unknown words": -4.5}
    folder = tmp_path_factory.mktemp("careful")
    method.model.save_pretrained(folder)
    method.processor.save_pretrained(folder)
    return folder


def test_a_request_that_nothing_fits_is_answered_with_a_warning(mender, careful):
    code, out, _ = mender("recommend", careful, "--preference", "violin xylophone", "-k", "3")
    assert code == 0 and "Nothing in this catalogue may fit this request (fit .08); the closest are:" in out
    code, out, _ = mender("recommend", careful, "--preference", "gentle rose soap mug lamp", "-k", "3")
    assert code == 0 and "Nothing" not in out
    code, out, _ = mender("recommend", careful, "--preference", "violin", "-k", "3", "--json")
    found = json.loads(out)
    assert code == 0 and 0 < found["fit"] < 0.5 and all("fit" not in item for item in found["items"])
