"""`mender evaluate`: what training measured is measured again, and the run stays as it is."""

from __future__ import annotations

import json

import polars as pl
import pytest


def test_evaluation_repeats_what_training_measured(mender, trained, words, tmp_path):
    run, output = trained / "mender-tok-seed0", tmp_path / "again"
    arguments = [*words, "--output", output, "--json"]
    code, out, err = mender("evaluate", run / "model", *arguments)
    assert code == 0 and "recommendation (oracle)" in err
    before, after = json.loads((run / "five_axes.json").read_text()), json.loads(out)
    figures = [[score["recall@10"] for score in record["scores"]] for record in (before, after)]
    assert figures[0] == figures[1] and after["settings"]["command"].startswith("mender")
    assert (output / "ranks.parquet").read_bytes() == (run / "ranks.parquet").read_bytes()


def test_evaluation_leaves_the_run_as_it_is_and_keeps_what_it_knows(mender, trained, words, tmp_path, monkeypatch):
    run = trained / "mender-tok-seed0"
    monkeypatch.chdir(tmp_path)
    before = {name: (run / name).read_bytes() for name in ("five_axes.json", "ranks.parquet")}
    arguments = [*words, "--eval-limit", "2", "--json"]
    code, out, _ = mender("evaluate", run / "model", *arguments)
    found = json.loads(out)
    assert code == 0 and found["output"] == "outputs/evaluation/mender-tok-seed0"
    assert found["settings"]["method"] == "mender-tok" and found["settings"]["training"]["steps"] > 0
    training = json.loads(before["five_axes.json"])["settings"]
    assert found["settings"]["trained_by_command"] == training["command"] != found["settings"]["command"]
    assert before == {name: (run / name).read_bytes() for name in before}


def test_seen_items_are_ranked_where_that_is_asked_for(mender, trained, words, tmp_path, monkeypatch):
    run = trained / "popularity-seed0"
    monkeypatch.chdir(tmp_path)
    arguments = [*words, "--json"]
    found, cards = [], []
    for more in ((), ("--keep-seen",)):
        found.append(json.loads(mender("evaluate", run / "model", *arguments, *more)[1]))
        cards.append((run / "model" / "README.md").read_bytes())
    assert [each["settings"]["exclude_seen"] for each in found] == [True, False]
    assert found[1]["output"] == "outputs/evaluation/popularity-seed0-keep-seen"
    without, with_seen = ([score["ndcg@10"] for score in each["scores"]] for each in found)
    assert without != with_seen and sum(without) > sum(with_seen)  # no user buys an item twice here
    assert cards[0] == cards[1]


def test_validation_examples_are_asked_to_choose_between_models(
    mender, trained, word_shop, words, tmp_path, monkeypatch
):
    run = trained / "popularity-seed0"
    monkeypatch.chdir(tmp_path)
    card = (run / "model" / "README.md").read_bytes()
    arguments = [*words, "--validation", "--json"]
    found = json.loads(mender("evaluate", run / "model", *arguments)[1])
    assert found["settings"]["split"] == "validation"
    asked = pl.read_parquet(f"{found['output']}/ranks.parquet").filter(condition="", matching="oracle")
    expected = pl.read_parquet(word_shop / "words" / "validation.parquet").filter(axis="recommendation")
    item_ids = pl.read_parquet(word_shop / "words-items" / "items.parquet")["item_id"]
    expected = expected.with_columns(target=item_ids.gather(expected["targets"].list.first()))
    columns = ["user_id", "target"]
    assert found["output"] == "outputs/evaluation/popularity-seed0-validation"
    assert asked.select(columns).sort(columns).equals(expected.select(columns).sort(columns))
    assert (run / "model" / "README.md").read_bytes() == card


def test_a_benchmark_with_other_items_is_refused(mender, trained, small_shop, tiny_encoder):
    model = trained / "mender-tok-seed0" / "model"
    code, _, err = mender("evaluate", model, "--data", small_shop, "--encoder", tiny_encoder)
    assert code == 2 and "was trained on other items" in err


def test_what_is_built_cannot_be_read_differently(mender, trained, words):
    code, _, err = mender("evaluate", trained / "popularity-seed0" / "model", *words, "--min-user", "2")
    assert code == 2 and "has built benchmarks, which 'min_user' cannot change" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "no/such/model"], "no folder 'no/such/model'"),
    ],
)
def test_mistakes_end_in_one_line(mender, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender(*arguments)
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("error: ") and message in line and "Traceback" not in err
    assert not list(tmp_path.iterdir())
