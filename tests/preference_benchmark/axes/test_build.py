"""Examples of all axes: what they share, what differs between modes, and what depends on the order of rows."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import HashEmbedder, examples_of, random_preferences, random_tables, shuffled_users
from polars.testing import assert_frame_equal

from preference_benchmark.axes.examples import COLUMNS
from preference_benchmark.axes.next_item import match
from preference_benchmark.axes.protocol import AXES, SPLITS, WISH_AXES, Protocol
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.sources.corner_shop import corner_shop

SEED = 2
EXTRACTIVE = ExtractiveApproximator(progress=False)


def write(tables):
    # The same texts whatever the order of the rows.
    ordered = replace(tables, interactions=tables.interactions.sort("user_id", "step"))
    return random_preferences(ordered, SEED)


@pytest.fixture(scope="module")
def tables():
    return random_tables(SEED)


@pytest.fixture(scope="module")
def built(tables, tmp_path_factory):
    return examples_of(tables, write, tmp_path_factory.mktemp("stages"))


def test_every_axis_has_the_same_columns_and_does_not_show_its_target(built):
    schemas = {axis: frame.schema for axis, frame in built.axes["oracle"].items()}
    assert list(schemas) == list(AXES) and len({tuple(schema.items()) for schema in schemas.values()}) == 1
    for axis, frame in built.axes["oracle"].items():
        assert tuple(frame.columns) == COLUMNS and frame["axis"].unique().to_list() == [axis]
        assert set(frame["split"]) == set(SPLITS)
        assert (frame["targets"].list.len() == 1).all() or axis in WISH_AXES
        assert not frame.select(pl.col("history").list.contains(pl.col("targets").list.first()).any()).item()
        assert frame["history"].list.len().max() < 20
        assert set(frame["preferences"].list.len()) == {5 if axis == "history_consolidation" else 1}
        assert ((frame["pair_id"] >= 0) == axis.startswith("sentiment_following")).all()
        assert set(frame["kind"]) == {"inferred" if axis == "history_consolidation" else "stated"}


def test_modes_differ_in_the_recommendation_axis_only(built, tables):
    for axis in AXES:
        oracle, last = (built.axes[mode][axis] for mode in ("oracle", "last"))
        assert oracle.equals(last) == (axis != "recommendation")
    matches = match(write(tables), tables, HashEmbedder(), "last")
    text = {(row["user_id"], row["step"]): row["text"] for row in matches.iter_rows(named=True)}
    for row in built.axes["last"]["recommendation"].iter_rows(named=True):
        assert row["preferences"] == [text[row["user_id"], len(row["history"])]] and row["kind"] == "inferred"


def test_every_distinct_text_is_embedded_once(tables, tmp_path):
    embedder = HashEmbedder()
    examples_of(tables, write, tmp_path, embedder=embedder)
    assert len(embedder.asked) == len(set(embedder.asked))


def test_the_order_of_rows_changes_nothing(built, tables, tmp_path):
    def shuffled(given):
        return write(given).sample(fraction=1.0, shuffle=True, seed=2)

    again = examples_of(shuffled_users(tables, 5), shuffled, tmp_path)
    for mode, frames in built.axes.items():
        for axis, frame in frames.items():
            assert_frame_equal(again.axes[mode][axis], frame)


def test_earlier_steps_may_give_candidates(built, tables, tmp_path):
    protocol = Protocol(matching=("oracle",), axes=("recommendation",), candidates="earlier_steps")
    earlier = examples_of(tables, write, tmp_path, protocol)
    assert not earlier.axes["oracle"]["recommendation"].equals(built.axes["oracle"]["recommendation"])


def test_axes_can_be_built_alone(tables, tmp_path):
    part = examples_of(tables, write, tmp_path, Protocol(matching=("last",), axes=("history_consolidation",)))
    assert {mode: list(frames) for mode, frames in part.axes.items()} == {"last": ["history_consolidation"]}


def test_evaluated_preferences_do_not_reach_the_training_examples(tables, tmp_path):
    def marked(given):
        preferences = write(given)
        late = pl.col("step") > pl.col("step").max().over("user_id") - 2
        return preferences.with_columns(text=pl.when(late).then(pl.format("{} (late)", "text")).otherwise("text"))

    for frame in examples_of(tables, marked, tmp_path).axes["oracle"].values():
        train = frame.filter(pl.col("split") == "train").explode("preferences")
        assert not train["preferences"].str.contains("late", literal=True).any()


def test_extractive_preferences_make_all_axes(tmp_path):
    tables = random_tables(3, users=30, rows=400)
    built = examples_of(tables, EXTRACTIVE, tmp_path)
    assert built.preferences.height == 5 * tables.interactions.height
    assert all(frame.height > 0 for frame in built.axes["oracle"].values())


def test_a_table_without_ratings_has_no_sentiment_axis_but_all_others(tmp_path):
    tables = random_tables(4)
    silent = tables.interactions.with_columns(rating=pl.lit(None, pl.Float64), review=pl.lit(""))
    built = examples_of(replace(tables, interactions=silent), EXTRACTIVE, tmp_path)
    assert built.axes["oracle"]["sentiment_following"].is_empty()
    assert set(built.axes["oracle"]["coarse_grained_steering"]["split"]) == set(SPLITS)


def test_what_is_no_table_of_preferences_is_refused(tables, tmp_path):
    with pytest.raises(ValueError, match="lack the columns"):
        examples_of(tables, lambda given: write(given).drop("sentiment"), tmp_path)


def test_items_that_are_described_by_something_else_make_other_training_wishes(tmp_path):
    shop = corner_shop(num_users=60, num_items=40).tables  # its texts say more than its titles
    texts, titles = (Protocol(axes=("open_wishes",), described_by=(column,)) for column in ("text", "title"))
    before = examples_of(shop, EXTRACTIVE, tmp_path / "kept", texts)
    again, fresh = (examples_of(shop, EXTRACTIVE, tmp_path / folder, titles) for folder in ("kept", "fresh"))
    frames = [built.axes["oracle"]["open_wishes"] for built in (again, fresh, before)]
    assert_frame_equal(*frames[:2])
    assert not frames[0].equals(frames[2])
