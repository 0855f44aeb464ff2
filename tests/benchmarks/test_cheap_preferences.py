"""Cheap preferences: nothing later is looked at, all ways are measured on the same customers, and kept in a table."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import HashEmbedder
from doubles import encoder_folder

from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.files import check_preferences, write_preferences
from preference_benchmark.preferences.llm import first_users
from preference_benchmark.sources import read_source

SCRIPT = "cheap_preferences"
SHAPE = {"num_users": 40, "num_items": 30}
WRITTEN = 12


@pytest.fixture(scope="module")
def tables():
    return read_source("corner-shop", None, **SHAPE)


@pytest.fixture(scope="module")
def source(script):
    """The module of sentences."""
    return sys.modules["review_sentences"]


def reviewed(tables, *reviews, rating=5.0):
    """The first reviews of the first customer replaced, everything else left out."""
    user = tables.interactions["user_id"][0]
    rows = tables.interactions.filter(pl.col("user_id") == user).head(len(reviews))
    return replace(tables, interactions=rows.with_columns(review=pl.Series(reviews), rating=pl.lit(rating, pl.Float64)))


def test_sentences_are_cleaned_and_chosen(source, tables):
    word = tables.items.join(tables.interactions.head(1), on="item_id")["aspects"][0][0]
    review = f"A fine {word}! It has <b>a {word}</b>. Visit www.spam.com now. I hate waiting. Nice. Came on Monday"
    shown = reviewed(tables, review)
    found = {choice: source.sentences(shown, choice)["text"].to_list() for choice in source.CHOICES}
    assert found["any"] == [f"A fine {word}", f"It has a {word}", "I hate waiting", "Came on Monday"]
    assert found["opinions"] == [f"A fine {word}", "I hate waiting"]
    assert found["about the item"] == [f"A fine {word}", f"It has a {word}"]
    with pytest.raises(ValueError, match="choice='best'"):
        source.sentences(shown, "best")


def test_a_sentence_without_a_tone_takes_the_rating(source, tables):
    found = source.sentences(reviewed(tables, "It has a lid. I love it.", rating=1.0), "any")
    assert dict(found.select("text", "sentiment").rows()) == {"It has a lid": "negative", "I love it": "positive"}


@pytest.mark.parametrize("way", ["sentences", "clusters", "central"])
def test_preferences_come_from_earlier_reviews(source, tables, way):
    said = source.sentences(tables)
    write = {
        "sentences": source.ReviewSentences(),
        "clusters": source.ReviewClusters(HashEmbedder(), clusters=8),
        "central": source.ReviewClusters(HashEmbedder(), clusters=8, own=False),
    }[way]
    found = write(tables)
    check_preferences(found)
    steps = found.select("user_id", "step").unique()
    assert steps.height > 0.8 * tables.interactions.height
    assert found.group_by("user_id", "step").len()["len"].max() <= 5
    assert found.select("user_id", "step", "rank").is_unique().all()
    places = found.sort("user_id", "step", "rank")
    assert (places["rank"] == places.select(pl.int_range(pl.len()).over("user_id", "step")).to_series()).all()
    if way == "central":  # sentences of anybody, said in the training period
        learned = said.join(tables.training_period(), on=["user_id", "step"], how="semi")
        shared = found.filter(pl.col("text").is_in(learned["text"].implode()))
        assert shared.height > 0.95 * found.height and found["text"].n_unique() < said["text"].n_unique() / 4
        return
    own = found.join(said.select("user_id", "text", said="step"), on=["user_id", "text"], how="left")
    assert (
        own.filter(pl.col("said") <= pl.col("step")).select("user_id", "step", "rank").unique().height == found.height
    )
    if way == "sentences":
        latest = (
            own.filter(pl.col("said") <= pl.col("step")).group_by("user_id", "step", "rank").agg(pl.col("said").max())
        )
        assert (latest["step"] - latest["said"]).max() <= 4


def test_the_largest_clusters_come_first(source, tables):
    said = ("The mint is fine. The mint is good.", "The lid is nice. The mint is fine.", "Good box.")
    shown = reviewed(tables, *said, "", "")  # the last two are held out

    class Known(HashEmbedder):
        """Vectors by the second word."""

        def encode(self, texts):
            return super().encode([text.split()[1] for text in texts])

    found = source.ReviewClusters(Known(), "any", clusters=3)(shown)
    last = found.filter(pl.col("step") == 2)["text"].to_list()
    assert last[0].startswith("The mint") and {*last[1:]} == {"The lid is nice", "Good box"}
    assert found.filter(pl.col("step") == 0).height == 1


def test_cost_of_the_model_is_that_of_the_answers_it_gave(script, tmp_path):
    costs = [{"answers": 10, "processor_seconds": 30.0}, {"answers": 90, "processor_seconds": 170.0}]
    (tmp_path / "costs.jsonl").write_text("".join(json.dumps(cost) + "\n" for cost in costs))
    assert script.seconds_of_the_model(tmp_path, answers=50, steps=200) == pytest.approx(500.0)


def pretend_to_ask(shape, limit, results, scratch):
    """What the language model would leave: preferences of rules, its answers and costs."""
    tables = read_source("corner-shop", None, **shape)
    about = first_users(tables, limit)
    written = ExtractiveApproximator(progress=False)(about).filter(pl.col("step") % 4 != 0)
    report = {"users": limit, "answers": {"usable": written.height, "unusable": 0}}
    write_preferences(written, results / "language_model.parquet", report, about)
    answers = written.select("user_id", "step", "text", finish=pl.lit("stop"))
    answers.write_parquet(results / "answers.parquet")
    (results / "costs.jsonl").write_text('{"answers": 9, "processor_seconds": 30.0}\n')


@pytest.fixture
def options(script, tmp_path, monkeypatch):
    """Options of a tiny run, whose language model is a double."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("preference_benchmark.hub.plots.draw", lambda *arguments: None)
    monkeypatch.setattr(script, "ask_the_model", pretend_to_ask)
    monkeypatch.setattr(script, "NUMBERS_OF_CLUSTERS", (8,))
    (tmp_path / "results").mkdir()
    encoder = encoder_folder(tmp_path / "encoder")
    sizes = {"users": SHAPE["num_users"], "items": SHAPE["num_items"], "written": WRITTEN, "epochs": 1, "eval_limit": 4}
    kept_at = {"results": tmp_path / "results", "scratch": tmp_path / "scratch", "encoder": encoder, "seed": None}
    flags = dict.fromkeys(("write_only", "quality_only", "tables_only"), False)
    return sizes | kept_at | flags


def test_ways_are_measured_on_the_same_customers(script, options, monkeypatch):
    trained = {}
    monkeypatch.setattr(
        script,
        "train_and_keep",
        lambda preset, shop, matches, folder, scratch, about, **more: trained.update(
            {about["method"]: (matches, more["asked"])}
        ),
    )
    script.main(only=None, **options)
    found = json.loads((options["results"] / "quality.json").read_text())
    assert list(found["ways"]) == list(script.WAYS)
    model = found["ways"][script.MODEL]
    assert len({row["steps"] for row in found["ways"].values()}) == 1 and model["with preferences"] < 0.8
    assert found["ways"][script.RULES]["truth"]["false"] < 0.1
    table = (options["results"] / "table.md").read_text()
    assert all(f"\n| {way} | " in table for way in script.WAYS)
    assert (options["results"] / "costs.png").stat().st_size > 10_000
    assert list(trained) == list(script.RUNS)
    matches = {name: rows for name, (rows, _) in trained.items()}
    users = {name: {*rows["user_id"]} for name, rows in matches.items()}
    assert not users[script.SILENT] and len(users[script.MODEL]) == WRITTEN
    assert users[script.RULES] == users[script.MODEL] < users["rules, all customers"]
    steps = ["user_id", "step"]
    assert matches[script.SAME_STEPS].select(steps).equals(matches[script.MODEL].select(steps))
    asked = trained[script.RULES][1]
    assert [len(rows) for rows in asked.values()] == [WRITTEN] * len(script.WAYS)
    assert len({tuple(rows["user_id"][:]) for rows in asked.values()}) == 1
    silent = [kind for kind in asked[f"by {script.MODEL}"]["kind"][:] if kind == "silent"]
    assert 0 < len(silent) < WRITTEN


@pytest.mark.slow
def test_trainings_are_kept_and_compared(script, options, monkeypatch):
    small = {"decoder": {"num_layers": 1, "d_ff": 16}}
    monkeypatch.setattr(script, "ALONE", script.ALONE | small)
    script.main(only=[script.RULES, script.SILENT], **options)
    table = (options["results"] / "table.md").read_text()
    assert "recommendation (by clusters)" in table and "open wishes" in table
    made = []
    monkeypatch.setattr(script, "make", lambda run, *arguments: made.append(run.method))
    script.main(only=[script.RULES, script.CLUSTERS], **options)
    assert made == [script.CLUSTERS]
