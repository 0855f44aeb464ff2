"""What is built from tables survives items that nobody bought, and items that are bought again."""

from __future__ import annotations

import polars as pl
import pytest
from benchmark_doubles import HashEmbedder, examples_of, random_tables

from preference_benchmark.axes.protocol import AXES, WISH_AXES, Protocol
from preference_benchmark.checks.leakage import check_leakage
from preference_benchmark.checks.validation import margins, similarities, validate
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.quality import compare
from preference_benchmark.tables import prepare

EXTRACTIVE = ExtractiveApproximator(progress=False)


def with_new_items(**options):
    """Tables with five items that nobody bought, and purchases again."""
    tables = random_tables(3)
    new = [{"item_id": f"item-0{n}-new", "title": f"Cyan cup {n}", "aspects": ["cyan", "flat lid"]} for n in range(5)]
    items = pl.concat([tables.items.select("item_id", "title", "aspects"), pl.DataFrame(new)])
    again = tables.interactions.filter(pl.col("step") == 0).with_columns(timestamp=pl.col("timestamp") + 2_000)
    return prepare(items, pl.concat([tables.interactions, again]), min_user=3, min_item=1, unbought="keep", **options)


@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_axes_and_checks(tmp_path, repeats):
    tables, protocol = with_new_items(repeats=repeats), Protocol(repeats=repeats)
    assert tables.items.height == 20 and tables.interactions["item_id"].n_unique() == 15
    built = examples_of(tables, EXTRACTIVE, tmp_path, protocol)
    assert set(built.axes["oracle"]) == set(AXES)
    bought = tables.items["item_id"].is_in(tables.interactions["item_id"].unique().implode()).arg_true()
    only_bought = {
        axis: frame["targets"].explode().is_in(bought.implode()).all() for axis, frame in built.axes["oracle"].items()
    }
    assert all(only_bought[axis] for axis in AXES if axis not in WISH_AXES)
    assert not only_bought["open_wishes"]  # a wish may be for something new
    again = frame_of_next_items(built).select(again=pl.col("history").list.contains(pl.col("targets").list.first()))
    assert again["again"].any() == (repeats == "keep")
    leakage = check_leakage(tables, built.preferences, built.axes, protocol)
    assert not leakage.leaks, leakage
    assert validate(built, protocol) and margins(built, protocol) and similarities(built, protocol)


def frame_of_next_items(built) -> pl.DataFrame:
    return built.axes["oracle"]["recommendation"]


def test_preferences_and_their_comparison():
    tables = with_new_items()
    preferences = EXTRACTIVE(tables)
    assert preferences.height == 5 * tables.interactions.height
    found = compare({"extractive": preferences}, tables, HashEmbedder())
    assert found.items == 20 and found.retrieval["popularity"].values["recall@10"][0] > 0
