"""`mender recommend`: the best items for people and for machines; a request that cannot be answered says why."""

from __future__ import annotations

import json
import re
from importlib import import_module

import pytest
from doubles import WORDS, encoder_folder, small_method

from mender.terminal import new_console
from modeling_mender.request_fit import fit_names

recommend = import_module("mender.cli.recommend")  # the package has the command under this name


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
    request = ["--preference", "find tea", "-k", "3", "--exclude", "MUG", "--exclude", "item-tea"]
    code, out, err = mender("recommend", trained / "mender-tok-seed0" / "model", *request)
    assert code == 0 and not err and "preference: find tea\nexclude: mug; tea\n" in out
    heading, *rows = out.splitlines()[-4:]
    assert heading.split() == ["title", "item", "score", "generator"]
    for rank, row in enumerate(rows, 1):  # a line an item, though a log has no width
        number, title, item_id, _, moved = row.split()
        assert number == str(rank) and item_id == f"item-{title}" and title not in ("mug", "tea") and moved[0] in "+-"


def test_reasons_for_people_and_for_machines(mender, trained):
    request = [trained / "popularity-seed0" / "model", "--history", "tea", "-k", "12"]
    code, out, _ = mender("recommend", *request)
    assert code == 0 and "behaviour" in out and "language" not in out
    code, out, _ = mender("recommend", *request, "--json")
    items = json.loads(out)["items"]
    mean = sum(item["score"] for item in items) / 12
    assert [item["why"]["popularity"] for item in items] == pytest.approx([item["score"] - mean for item in items])


@pytest.mark.parametrize("heading", ["", "item_id\n"])
def test_only_allowed_items_are_recommended(mender, trained, tmp_path, heading):
    stock = tmp_path / "in stock.txt"
    stock.write_text(f"{heading}item-mug\n\n  item-soap \r\nitem-lamp\n")
    request = [trained / "mender-tok-seed0" / "model", "--preference", "tea", "--allowed", stock, "--json"]
    code, out, _ = mender("recommend", *request, "--exclude", "lamp")
    assert code == 0 and {item["title"] for item in json.loads(out)["items"]} == {"mug", "soap"}
    stock.write_text("item-mug\nitem-sold-out\n")
    code, out, err = mender("recommend", *request)
    assert code == 2 and not out and "item-sold-out" in err
    code, out, _ = mender("recommend", *request, "--unknown-items", "skip", "--history", "nothing known")
    assert code == 0 and [item["title"] for item in json.loads(out)["items"]] == ["mug"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n \n", "names no item"), (b"\xff\xfe\x00", "is not text"), (None, "cannot be read: No such file")],
)
def test_files_without_ids(mender, tmp_path, content, message):
    file = tmp_path / "stock"
    if content is not None:
        file.write_bytes(content)
    code, _, err = mender("recommend", "no/model", "--preference", "tea", "--allowed", file)
    assert code == 2 and err.count("\n") == 1 and f"--allowed {file} {message}" in err


WHY = {"dense": 1.5, "popularity": -0.25, "generator": -12.25}
TITLES = ("A tin of first flush Darjeeling, loose leaves, from a small estate", "Mug")
ITEMS = [
    {"item_id": f"item-{number:04d}", "title": title, "score": -1.0 * number, "why": WHY}
    for number, title in enumerate(TITLES)
]


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [70, 80, 120])
def test_titles_are_whole_at_any_width(width, terminal, monkeypatch, capsys):
    kept = new_console(width)
    kept._force_terminal, kept.no_color = terminal, True
    monkeypatch.setattr(recommend, "new_console", lambda width=None: kept if width is None else new_console(width))
    recommend.print_answer({"preference": ["tea"]}, {}, ITEMS, 0.75)
    shown = capsys.readouterr().out
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)
    words = plain.split("generator", 1)[1].split()
    assert "\u2026" not in plain and (terminal or "\x1b" not in shown)
    assert all(word in words for item in ITEMS for word in [*item["title"].split(), item["item_id"]])
    if terminal:
        assert max(map(len, plain.splitlines())) <= width
    else:  # a line an item
        assert len(plain.splitlines()) == 5


def test_what_a_wish_excludes_is_shown(mender, careful):
    _, out, _ = mender("recommend", careful, "--preference", "gentle soap without rose", "-k", "3")
    assert "preference: gentle soap without rose\nread as: gentle soap, avoiding rose\n" in out
    _, out, _ = mender("recommend", careful, "--preference", "gentle soap without rose", "-k", "3", "--json")
    found = json.loads(out)
    assert found["preference"] == ["gentle soap without rose"] and found["avoid"] == []
    assert found["read"] == {"preference": ["gentle soap"], "avoid": ["rose"]}
    _, out, _ = mender("recommend", careful, "--preference", "gentle soap", "--avoid", "rose", "-k", "3")
    assert "read as" not in out


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
    assert code == 0 and "Probably nothing in this catalogue fits this request (fit .08). The nearest items are:" in out
    code, out, _ = mender("recommend", careful, "--preference", "gentle rose soap mug lamp", "-k", "3")
    assert code == 0 and "nothing" not in out and "\nfit: .67 (the probability" in out
    code, out, _ = mender("recommend", careful, "--preference", "violin", "-k", "3", "--json")
    found = json.loads(out)
    assert code == 0 and 0 < found["fit"] < 0.5 and all("fit" not in item for item in found["items"])
