"""The schema of examples, on disk and in memory."""

from __future__ import annotations

import polars as pl
import pytest
from benchmark_doubles import all_targets, named, random_tables
from datasets import List, Value

from preference_benchmark.axes.examples import (
    COLUMNS,
    EXAMPLE_FEATURES,
    STORED_FEATURES,
    as_examples,
    examples_dataset,
    items_dataset,
    targets,
    with_item_ids,
)
from preference_benchmark.axes.protocol import SPLITS


@pytest.fixture(scope="module")
def tables():
    return random_tables(2)


@pytest.fixture(scope="module")
def examples(tables):
    return as_examples("recommendation", targets(tables), preferences=pl.concat_list(pl.lit("Find cups")))


def test_the_schema_is_the_documented_one(examples, tables):
    texts = List(Value("string"))
    documented = {
        "axis": Value("string"),
        "kind": Value("string"),
        "user_id": Value("string"),
        "history": texts,
        "preferences": texts,
        "avoid": texts,
        "sentiment": Value("string"),
        "targets": texts,
        "pair_id": Value("int64"),
        "stratum": Value("string"),
        "avoided": texts,
    }
    assert dict(EXAMPLE_FEATURES) == documented
    assert dict(STORED_FEATURES) == documented | dict.fromkeys(("history", "targets", "avoided"), List(Value("int32")))
    assert tuple(examples.columns) == COLUMNS == (*documented, "split")
    for split, data in examples_dataset(examples, tables.items["item_id"]).items():
        assert split in SPLITS and dict(data.features) == documented


def test_indices_become_the_ids_of_their_items(examples, tables):
    expected = named(examples, tables)
    for split, data in examples_dataset(examples, tables.items["item_id"]).items():
        rows = expected.filter(pl.col("split") == split)
        assert data["history"][:] == rows["history"].to_list()
        assert [target for (target,) in data["targets"]] == rows["target"].to_list()


def test_every_step_but_the_first_is_a_target(examples, tables):
    got = named(examples, tables).select("split", "user_id", "history", "target").rows()
    assert got == all_targets(tables)


def test_examples_of_another_catalogue_are_refused(examples, tables):
    stored = examples.select(list(STORED_FEATURES)).to_arrow().cast(STORED_FEATURES.arrow_schema)
    with pytest.raises(ValueError, match="beyond the 3 items of the items table"):
        with_item_ids(stored, tables.items["item_id"].head(3))
    assert len(with_item_ids(stored.slice(0, 0), tables.items["item_id"])) == 0


def test_items_keep_their_order_and_columns(tables):
    items = items_dataset(tables.items)
    assert items.column_names == tables.items.columns
    assert items["item_id"][:] == tables.items["item_id"].to_list()
    assert items.features["title"] == Value("string") and items.features["aspects"] == List(Value("string"))
    assert items["aspects"][:] == tables.items["aspects"].to_list()
