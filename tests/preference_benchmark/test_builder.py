from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import HashEmbedder, random_preferences, random_tables, shuffled_users
from datasets import List, Value, load_dataset

from preference_benchmark.axes.matching import match
from preference_benchmark.axes.protocol import AXES, SPLITS
from preference_benchmark.builder import EXAMPLE_FEATURES, build_benchmark

SEED = 2


def write(tables):
    # The same texts whatever the order of the rows.
    ordered = replace(tables, interactions=tables.interactions.sort("user_id", "step"))
    return random_preferences(ordered, SEED)


def build(tables, embedder=None, **options):
    options = {"approximate": write, "progress": False} | options
    return build_benchmark(tables, embedder or HashEmbedder(), **options)


@pytest.fixture(scope="module")
def tables():
    return random_tables(SEED)


@pytest.fixture(scope="module")
def benchmark(tables):
    return build(tables)


def rows(dataset):
    return list(dataset)


def of_axis(dataset, axis):
    return [row for row in dataset if row["axis"] == axis]


def test_the_schema_is_the_documented_one(benchmark):
    expected = {
        "axis": Value("string"),
        "kind": Value("string"),
        "user_id": Value("string"),
        "history": List(Value("string")),
        "preferences": List(Value("string")),
        "avoid": List(Value("string")),
        "sentiment": Value("string"),
        "targets": List(Value("string")),
        "pair_id": Value("int64"),
    }
    assert dict(EXAMPLE_FEATURES) == expected
    for examples in benchmark.examples.values():
        assert tuple(examples) == SPLITS
        assert all(dict(examples[split].features) == expected for split in SPLITS)


def test_items_keep_their_order_and_columns(benchmark, tables):
    assert benchmark.items.column_names == tables.items.columns
    assert benchmark.items["item_id"][:] == tables.items["item_id"].to_list()
    assert benchmark.items.features["title"] == Value("string")
    assert benchmark.items.features["aspects"] == List(Value("string"))
    assert benchmark.items["aspects"][:] == tables.items["aspects"].to_list()


def test_every_example_speaks_of_known_items(benchmark):
    known = set(benchmark.items["item_id"])
    for split in SPLITS:
        for row in benchmark.examples["oracle"][split]:
            (target,) = row["targets"]
            assert target in known and known.issuperset(row["history"])
            assert target not in row["history"] and row["avoid"] == []
            assert len(row["preferences"]) == (5 if row["axis"] == "history_consolidation" else 1)
            assert (row["pair_id"] >= 0) == row["axis"].startswith("sentiment_following")


def test_report_counts_what_is_there(benchmark):
    for split in SPLITS:
        for axis in AXES:
            assert benchmark.report.examples[axis][split] == len(of_axis(benchmark.examples["oracle"][split], axis))
    assert "sentiment_following" in str(benchmark.report)
    similarity = benchmark.report.similarity
    assert similarity["oracle"] > similarity["last"] and similarity["oracle"] > similarity["random"] + 0.1


def test_modes_differ_in_the_recommendation_axis_only(benchmark, tables):
    for split in SPLITS:
        oracle, last = (benchmark.examples[mode][split] for mode in ("oracle", "last"))
        for axis in AXES:
            assert (of_axis(oracle, axis) == of_axis(last, axis)) == (axis != "recommendation")
    matches = match(write(tables), tables, HashEmbedder(), "last")
    text = {(row["user_id"], row["step"]): row["text"] for row in matches.iter_rows(named=True)}
    for row in of_axis(benchmark.examples["last"]["test"], "recommendation"):
        assert row["preferences"] == [text[row["user_id"], len(row["history"])]]


def test_every_distinct_text_is_embedded_once(tables):
    embedder = HashEmbedder()
    build(tables, embedder)
    assert len(embedder.asked) == len(set(embedder.asked))


def test_same_input_same_benchmark_in_any_order(benchmark, tables):
    again = build(shuffled_users(tables, 5))
    for mode, examples in benchmark.examples.items():
        for split in SPLITS:
            assert rows(again.examples[mode][split]) == rows(examples[split])
    assert again.report == benchmark.report


def test_steam_matches_against_all_earlier_steps(tables):
    steam = replace(tables, report=replace(tables.report, source="steam"))
    default, earlier = build(steam, matching=["oracle"]), build(tables, matching=["oracle"], candidates="earlier_steps")
    one_step = build(tables, matching=["oracle"])
    assert rows(default.examples["oracle"]["test"]) == rows(earlier.examples["oracle"]["test"])
    assert rows(default.examples["oracle"]["test"]) != rows(one_step.examples["oracle"]["test"])


def test_parts_can_be_built_alone(tables):
    part = build(tables, matching=["last"], axes=["history_consolidation"])
    assert list(part.examples) == ["last"] and list(part.report.examples) == ["history_consolidation"]
    assert set(part.examples["last"]["train"]["axis"]) == {"history_consolidation"}


@pytest.mark.parametrize("options", [{"matching": ["best"]}, {"axes": ["steering"]}, {"matching": []}, {"axes": []}])
def test_unknown_parts_are_refused(tables, options):
    with pytest.raises(ValueError, match="is not known; pass some of"):
        build(tables, **options)


def test_survives_parquet(benchmark, tmp_path):
    benchmark.examples["oracle"]["test"].to_parquet(tmp_path / "test.parquet")
    again = load_dataset("parquet", data_files=str(tmp_path / "test.parquet"), cache_dir=tmp_path, split="train")
    assert again.features == EXAMPLE_FEATURES
    assert rows(again) == rows(benchmark.examples["oracle"]["test"])


def test_extractive_preferences_are_the_default():
    tables = random_tables(3, users=30, rows=400)
    built = build_benchmark(tables, HashEmbedder(), progress=False)
    assert built.report.preferences["written"] == 5 * tables.interactions.height
    assert built.report.preferences["negative"] > 0
    assert all(sum(built.report.examples[axis].values()) > 0 for axis in AXES)


def test_a_table_without_ratings_has_no_sentiment_axis_but_all_others():
    tables = random_tables(4)
    silent = replace(
        tables,
        interactions=tables.interactions.with_columns(rating=pl.lit(None, pl.Float64), review=pl.lit("")),
    )
    built = build_benchmark(silent, HashEmbedder(), progress=False)
    assert built.report.examples["sentiment_following"] == dict.fromkeys(SPLITS, 0)
    assert built.report.examples["coarse_grained_steering"]["test"] > 0
