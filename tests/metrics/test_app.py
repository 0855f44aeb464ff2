"""The metric's page: what it reads, what it shows, what it refuses; and the same asked over the wire."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio")
FOLDER = Path(__file__).parents[2] / "metrics" / "preference_discerning"


@pytest.fixture(scope="module")
def app():
    sys.path.insert(0, str(FOLDER))
    try:
        import app
    finally:
        sys.path.remove(str(FOLDER))
    yield app
    del sys.modules["app"]


def test_the_examples_on_the_page_are_scored(app):
    result, notes = app.score(app.read_examples(app.AXES_EXAMPLE), "1, 3", n_resamples=50)
    assert result["recommendation/recall@3"] == 0.5 and result["sentiment_following/m@3"] == 1
    assert notes == ["1 of 5 ranked lists hold fewer than k=3 items; missing places count as misses."]
    plain, _ = app.score(app.read_examples(app.LISTS_EXAMPLE), "2", n_resamples=0, catalogue=4)
    assert plain["n"] == 3 and plain["recall@2"] == pytest.approx(2 / 3) and plain["coverage@2"] == 1
    wishes, _ = app.score(app.read_examples(app.WISHES_EXAMPLE), "1, 3", n_resamples=0)
    assert [wishes[name] for name in ("n_avoided", "avoided@1", "avoided@3")] == [2, 0, 0.5]


def test_the_table_has_every_figure_with_its_interval(app):
    result, _ = app.score(app.read_examples(app.AXES_EXAMPLE), "1, 3", n_resamples=50)
    headers, rows = app.table(result)
    figures = [name for name in result if "@" in name and not name.endswith(("/low", "/high"))]
    assert headers == ["group", "n", "figure", "@1", "@3"]
    assert 2 * len(rows) == len(figures) and all(len(row) == len(headers) for row in rows)
    ends = [result[f"recommendation/recall@3/{end}"] for end in ("low", "high")]
    expected = ["recommendation", 2, "recall", "0.000 (0.000-0.000)", f"0.500 ({ends[0]:.3f}-{ends[1]:.3f})"]
    assert rows[0] == expected
    plain, _ = app.score(app.read_examples(app.LISTS_EXAMPLE), "2", n_resamples=0)
    assert app.table(plain)[1][0] == ["all", 3, "recall", "0.667"]
    wishes, _ = app.score(app.read_examples(app.WISHES_EXAMPLE), "3", n_resamples=0)
    rows = app.table(wishes)[1]
    assert ["all", 2, "avoided", "0.500"] in rows and ["all", 3, "aggregate diversity", "4"] in rows


def test_every_form_reads_alike(app):
    lines = app.read_examples(app.LISTS_EXAMPLE)
    records = [json.loads(line) for line in app.LISTS_EXAMPLE.splitlines()]
    header = "prediction,reference\n"
    table = header + "\n".join(f"{'|'.join(row['prediction'])},{row['reference']}" for row in records)
    for other in (json.dumps(records), json.dumps(lines), json.dumps(lines, indent=2), table, "\ufeff" + table):
        assert app.read_examples(other) == lines
    text = (
        "prediction,reference,axis,sentiment,pair_id,avoided\na|b,a|c,recommendation,,-1,d|e\n,a,recommendation,,0,\n"
    )
    assert app.read_examples(text) == {
        "predictions": [["a", "b"], []],
        "references": [["a", "c"], "a"],
        "axes": ["recommendation"] * 2,
        "sentiments": [None, None],
        "pair_ids": [None, "0"],
        "avoided": [["d", "e"], None],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "there is nothing to score"),
        ('{"prediction": ["a"]', "line 1 is not JSON"),
        ('{"prediction": ["a"], "reference": "a"}\n{"predictoin": ["a"]}', "example 2 has 'predictoin'"),
        ('{"prediction": ["a"], "reference": "a"}\n{"prediction": ["a"]}', "example 2 has no reference"),
        ('{"predictions": [["a"]], "references": ["a", "b"]}', "the columns differ in length"),
        ("[1, 2]", "example 1 is 1"),
        ("prediction,reference\na|b", "line 2 and the header differ in the number of fields"),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_the_reason(text, message, app):
    with pytest.raises(ValueError, match=message):
        app.read_examples(text)


def test_settings_and_examples_that_the_metric_refuses_are_refused(app):
    columns = app.read_examples(app.LISTS_EXAMPLE)
    with pytest.raises(ValueError, match="k is 'ten'; expected integers separated by commas"):
        app.score(columns, "ten")
    with pytest.raises(ValueError, match=r"ks=\[0\]; expected integers from 1"):
        app.score(columns, "0")
    with pytest.raises(ValueError, match="references is None"):
        app.score({"predictions": [["a"]]})


@pytest.mark.slow
def test_a_client_and_a_file(app, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "lists.jsonl").write_text(app.LISTS_EXAMPLE, "utf-8")
    app.demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        client = Client(app.demo.local_url, verbose=False)
        figures, raw, note = client.predict(
            "", handle_file(str(tmp_path / "lists.jsonl")), "1, 2", 4, 0.9, 0, api_name="/score"
        )
        assert (
            raw["n"] == 3 and figures["headers"] == ["group", "n", "figure", "@1", "@2"] and "3 examples scored" in note
        )
        with pytest.raises(AppError, match="there is nothing to score"):
            client.predict("", None, "1", None, 0.9, 0, api_name="/score")
    finally:
        app.demo.close()
