"""Benchmarks for models: built ones as they are, raw files built as the command builds them, mixtures of modes."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from datasets import Dataset, DatasetDict

from mender import Recommender
from mender.data import BenchmarkData, load_benchmark_data, reading_for
from mender.evaluation import score_model
from mender.training import choose_preset, fit, new_method
from preference_benchmark import build, load, read_tables, recipe

SHOP = {"num_users": 60, "num_items": 40}


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """Benchmarks built here are kept under the working folder; their pictures are most of a small build's time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("preference_benchmark.hub.plots.draw", lambda *arguments: None)


@pytest.fixture
def raw(tmp_path):
    """A folder with tables of one's own."""
    folder = tmp_path / "My Shop"
    folder.mkdir()
    tables = read_tables(recipe("corner-shop", options=SHOP))
    tables.items.write_parquet(folder / "items.parquet")
    tables.interactions.drop("step").write_parquet(folder / "interactions.parquet")
    return folder


def rows(examples):
    return {mode: {split: data.to_list() for split, data in splits.items()} for mode, splits in examples.items()}


def test_a_built_folder_is_read(word_shop, tiny_encoder):
    data = load_benchmark_data("words", word_shop, tiny_encoder)
    found = load(word_shop)
    assert data.source == "words" and rows(data.examples) == rows(found.examples)
    assert data.item_columns == {name: found.items[name][:] for name in ("item_id", "title", "text")}
    assert data.texts[0] == data.examples["oracle"]["train"]["preferences"][0][0] and data.cache.is_dir()


def test_a_benchmark_of_another_name_is_recognised(word_shop, tiny_encoder):
    with pytest.raises(ValueError, match="has no benchmark 'table'; found words. Pass --source"):
        load_benchmark_data("table", word_shop, tiny_encoder)


def test_what_is_neither_here_nor_on_the_hub_is_refused(tiny_encoder):
    with pytest.raises(FileNotFoundError, match="org/shop is neither a folder here nor a data set"):
        load_benchmark_data("shop", "org/shop", tiny_encoder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_benchmark_data("steam", "nowhere", tiny_encoder)
    with pytest.raises(ValueError, match="'grocery' is not known"):
        load_benchmark_data("grocery", None, tiny_encoder)


def same(*found):
    """Whether benchmarks have the same items and examples, row for row."""
    return all(
        one.items.to_list() == found[0].items.to_list() and rows(one.examples) == rows(found[0].examples)
        for one in found[1:]
    )


def test_training_the_command_and_python_build_the_same_rows(mender, raw, tiny_encoder, tmp_path):
    trained = load_benchmark_data("table", raw, tiny_encoder)
    given = ["my-shop", "--source", "table", "--data", raw, "--encoder", tiny_encoder]
    code, _, err = mender("benchmark", "build", *given, "--output", tmp_path / "built", "--quiet")
    assert code == 0, err
    own = recipe("my-shop", source="table", data=raw, embedder=tiny_encoder)
    by_command, by_python = load(tmp_path / "built"), load(build(own, tmp_path / "python", progress=False))
    assert trained.source == by_command.name == by_python.name == "my-shop"
    assert same(trained, by_command, by_python)


def test_the_corner_shop_is_the_same_for_training_and_the_command(small_shop, tiny_encoder):
    assert same(load_benchmark_data("corner-shop", None, tiny_encoder, options=SHOP), load(small_shop))


@pytest.mark.slow
def test_a_run_is_measured_on_the_examples_that_the_command_builds(mender, raw, tiny_encoder, tmp_path):
    common = ["--data", raw, "--encoder", tiny_encoder]
    code, _, err = mender("train", "--preset", "popularity", "--source", "table", *common, "--output", tmp_path / "run")
    assert code == 0, err
    output = tmp_path / "built"
    code, _, err = mender("benchmark", "build", "my-shop", "--source", "table", *common, "--output", output, "--quiet")
    assert code == 0, err
    test = load(output).examples["oracle"]["test"].to_polars()
    asked = pl.read_parquet(tmp_path / "run" / "ranks.parquet").filter(condition="")
    asked = asked.filter(pl.col("matching").is_in(["oracle", ""]))
    columns = ["axis", "user_id", "target", "pair_id", "sentiment"]
    assert asked.select(columns).equals(test.with_columns(target=pl.col("targets").list.first()).select(columns))


def test_items_that_are_bought_again_are_recommended_again(mender, raw, tiny_encoder, tmp_path):
    bought = pl.read_parquet(raw / "interactions.parquet")
    again = bought.with_columns(pl.col("timestamp") + 10**8)
    pl.concat([bought, again]).write_parquet(raw / "interactions.parquet")
    data = load_benchmark_data("table", raw, tiny_encoder, repeats="keep")
    assert data.repeats and not load_benchmark_data("table", raw, tiny_encoder).repeats
    test = data.examples["oracle"]["test"].to_polars().filter(axis="recommendation")
    asked_again = test.filter(pl.col("history").list.contains(pl.col("targets").list.first()))["user_id"]
    assert len(asked_again) > test.height / 2
    method = new_method(choose_preset("popularity"), data, tiny_encoder, seed=0)
    fit(method, data, tmp_path / "checkpoints")
    _, ranks = score_model(method.model, method.processor, data, "popularity", None, 0, shuffled=False)
    of_these = ranks.filter(pl.col("user_id").is_in(asked_again.implode()), axis="recommendation", matching="oracle")
    assert (of_these["rank"] > 0).any()
    _, left_out = score_model(
        method.model, method.processor, data, "popularity", None, 0, exclude_seen=True, shuffled=False
    )
    of_these = left_out.filter(pl.col("user_id").is_in(asked_again.implode()), axis="recommendation", matching="oracle")
    assert not (of_these["rank"] > 0).any()


@pytest.mark.slow
@pytest.mark.parametrize(("repeats", "seen"), [("keep", True), ("drop", False)])
def test_a_run_on_things_that_are_bought_again_shows_so_on_its_card(
    repeats, seen, mender, raw, tiny_encoder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    bought = pl.read_parquet(raw / "interactions.parquet")
    again = bought.with_columns(pl.col("timestamp") + 10**8)
    pl.concat([bought, again]).write_parquet(raw / "interactions.parquet")
    options = ["--source", "table", "--data", raw, "--encoder", tiny_encoder, "--repeats", repeats]
    code, _, err = mender("train", "--preset", "popularity", *options, "--output", "run")
    assert code == 0, err
    code, _, err = mender("evaluate", "run/model", *options)
    assert code == 0, err
    for record in ("run", "outputs/evaluation/run"):
        settings = json.loads(Path(record, "five_axes.json").read_text())["settings"]
        assert settings["repeats"] == repeats and settings["exclude_seen"] != seen
    card = Path("run/model/README.md").read_text()
    assert ("those of the history may be recommended" in card) == seen and "| recommendation, silent |" in card


def test_a_benchmark_is_built_once(raw, tiny_encoder, caplog, capsys):
    caplog.set_level("INFO", "preference_benchmark")
    logged = []
    for _ in range(2):
        caplog.clear()
        load_benchmark_data("table", raw, tiny_encoder)
        logged.append([line for line in caplog.messages if line.startswith("benchmark: ")])
    assert logged[0] and not logged[1]
    interactions = pl.read_parquet(raw / "interactions.parquet")
    other = interactions.head(1).with_columns(user_id=pl.lit("\x1b[31mbuys once"))
    pl.concat([interactions.head(-1), other]).write_parquet(raw / "interactions.parquet")
    capsys.readouterr()
    load_benchmark_data("table", raw, tiny_encoder)
    assert "benchmark: tables" in caplog.messages
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("read: ") and "interactions of users with fewer than 3" in second


@pytest.mark.parametrize(
    "readme",
    [
        "# My tables\n",
        "---\nconfigs:\n- config_name: default\n  data_files: '*.parquet'\n- config_name: items\n---\n",
        "---\nconfigs: 5\n---\n",
        "---\nlicense: [\n---\n",
        "---\nmine\n---\n",
    ],
)
def test_raw_tables_may_have_a_readme(readme, raw, tiny_encoder):
    (raw / "README.md").write_text(readme)
    tables = pl.read_parquet(raw / "items.parquet").head(0)
    tables.write_parquet(raw / "items.parquet")
    with pytest.raises(ValueError, match="items table has no rows"):  # it was read as raw tables
        load_benchmark_data("table", raw, tiny_encoder)


def matched_data(tmp_path):
    examples = {}
    for mode in ("oracle", "last"):
        axes = ["recommendation", "fine_grained_steering"] * 2
        split = Dataset.from_dict({"axis": axes, "preferences": [[f"{mode} {row}"] for row in range(4)]})
        examples[mode] = DatasetDict(train=split, validation=split, test=split)
    return BenchmarkData("shop", Dataset.from_dict({"item_id": ["a"]}), examples, tmp_path)


def test_recommendation_examples_of_both_matchings_and_the_other_axes_once(tmp_path):
    data = matched_data(tmp_path)
    assert data.matched({"oracle": 1.0, "last": 0.0}) is data.examples["oracle"]
    assert data.matched({"last": 1.0}) is data.examples["last"]
    both = data.matched({"oracle": 2.0, "last": 0.5}, seed=0)
    texts = [text for (text,) in both["train"]["preferences"]]
    assert texts[:6] == ["oracle 1", "oracle 3", "oracle 0", "oracle 2", "oracle 0", "oracle 2"]
    assert len(texts) == 7 and texts[6] in ("last 0", "last 2")
    assert both["train"].features == data.examples["oracle"]["train"].features
    validation = [text for (text,) in both["validation"]["preferences"]]
    assert validation == ["oracle 1", "oracle 3", "oracle 0", "oracle 2", "last 0", "last 2"]


def test_a_matching_the_benchmark_lacks_is_refused(tmp_path):
    data = matched_data(tmp_path)
    del data.examples["last"]
    with pytest.raises(ValueError, match="matching='last' is not in this benchmark, which has oracle; build"):
        data.matched({"oracle": 1.0, "last": 1.0})


def test_evaluation_reads_the_data_of_training_unless_others_are_named(
    mender, raw, tiny_encoder, tmp_path, monkeypatch
):
    read = {"min_user": 4, "options": {"decimal": "."}}
    given = [
        "--source",
        "table",
        "--data",
        raw.name,
        "--min-user",
        "4",
        "--option",
        "decimal=.",
        "--encoder",
        tiny_encoder,
    ]
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    assert mender("train", "--preset", "popularity", *given, "--output", run)[0] == 0
    recorded = json.loads((run / "five_axes.json").read_text())
    place = {"source": "table", "data": str(raw.resolve()), "encoder": tiny_encoder}
    assert recorded["settings"]["read_from"] == {**place, "changes": read}
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # the folder was named from another one
    code, out, err = mender("evaluate", run / "model", "--json")
    assert code == 0, err
    assert json.loads(out)["scores"] == recorded["scores"]


def test_tables_keep_the_histories_that_a_model_reads(raw, word_shop):
    assert reading_for(50, raw, {"min_user": 4}) == {"max_history": 50, "min_user": 4}
    assert reading_for(50, None, {}) == {"max_history": 50}
    assert reading_for(50, raw, {"max_history": 30}) == {"max_history": 30}
    for most, data in ((20, raw), (5, raw), (50, word_shop), (50, "org/shop")):
        assert reading_for(most, data, {}) == {}


def test_a_model_of_long_histories_is_trained_on_them(mender, raw, tiny_encoder, tmp_path, monkeypatch):
    items = pl.read_parquet(raw / "items.parquet")["item_id"][:30]
    users = [{"user_id": user, "item_id": item, "timestamp": step} for user in "abc" for step, item in enumerate(items)]
    pl.DataFrame(users).write_parquet(raw / "interactions.parquet")
    given = ["--source", "table", "--data", raw, "--encoder", tiny_encoder, "--output", tmp_path / "run"]
    code, _, err = mender("train", "--preset", "popularity", *given, "--set", "max_history=25")
    assert code == 0, err
    read = json.loads((tmp_path / "run" / "five_axes.json").read_text())["settings"]["read_from"]
    assert read["changes"] == {"max_history": 25}
    built = load_benchmark_data("table", raw, tiny_encoder, max_history=25)
    assert max(map(len, built.examples["oracle"]["test"]["history"])) == 24
    # In Python the same, for training and evaluation.
    asked = []
    monkeypatch.setattr("mender.learning.load_benchmark_data", lambda *_, **reading: asked.append(reading) or built)
    given = {"encoder": tiny_encoder, "changes": {"max_history": 25}, "output": tmp_path}
    shop = Recommender.train(raw, preset="popularity", **given)
    shop.evaluate(raw, encoder=tiny_encoder)
    assert asked == [{"max_history": 25}, {"max_history": 25}]
