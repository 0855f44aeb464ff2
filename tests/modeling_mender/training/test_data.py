"""Axes by name and weight; whole histories for SASRec and popularity."""

from __future__ import annotations

from collections import Counter

import pytest
from doubles import shop_examples, shop_items, small_method

from modeling_mender import MenderProcessor
from modeling_mender.training.data import (
    first_targets,
    select_axes,
    sequence_features,
    training_histories,
    user_features,
)
from modeling_mender.training.methods import code_only_tokenizer


@pytest.fixture
def train():
    return shop_examples(5)["train"]


@pytest.fixture
def processor():
    return MenderProcessor(code_only_tokenizer(), shop_items(), history="indices", preference="none", max_history=2)


def count(examples):
    return Counter(examples["axis"])


def test_weights_repeat_and_subsample(train):
    chosen = select_axes(train, {"recommendation": 2.0, "fine_grained_steering": 0.4, "sentiment_following": 1.5})
    assert count(chosen) == {"recommendation": 30, "fine_grained_steering": 6, "sentiment_following": 15}
    assert set(chosen["sentiment"]) == {"positive"}
    with_negatives = select_axes(train, {"sentiment_following": 1.0}, negatives=True)
    assert sorted(with_negatives["sentiment"]) == ["negative"] * 10 + ["positive"] * 10


def test_the_draw_is_repeatable(train):
    draws = [select_axes(train, {"recommendation": 0.5}, seed=seed)["user_id"][:] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_bad_choices_are_refused(train):
    with pytest.raises(ValueError, match="axis 'taste' is not known; pass some of coarse"):
        select_axes(train, {"taste": 1.0})
    with pytest.raises(ValueError, match="leave no example"):
        select_axes(train, {"recommendation": 0.0})


def test_an_axis_that_the_examples_lack_adds_none(train):
    without = train.filter(lambda axis: axis == "recommendation", input_columns="axis")
    chosen = select_axes(without, {"recommendation": 1.0, "sentiment_following_with_history": 1.0})
    assert len(chosen) == len(without)


def test_preferences_history_and_target_are_enough(train):
    recommendation = select_axes(train, {"recommendation": 1.0})
    plain = recommendation.select_columns(["preferences", "history"])
    plain = plain.add_column("target", first_targets(recommendation))
    assert first_targets(plain) == first_targets(recommendation)
    assert len(select_axes(plain, {"recommendation": 1.0})) == len(plain)
    # Without user ids, histories cannot be attributed to users.
    assert training_histories(plain) == [[*row["history"], row["target"]] for row in plain]
    with pytest.raises(ValueError, match="lack the column 'targets', they have preferences, history; required"):
        first_targets(plain.remove_columns("target"))


def test_examples_without_a_target_are_refused(train):
    empty = train.select(range(3)).map(lambda targets, row: {"targets": targets[: 1 - row]}, input_columns="targets",
                                       with_indices=True)  # fmt: skip
    with pytest.raises(ValueError, match="example 1 has no target"):
        first_targets(empty)


def test_histories_are_the_longest_with_their_target(train):
    recommendation = select_axes(train, {"recommendation": 1.0})
    histories = training_histories(recommendation)
    assert len(histories) == 5 and all(len(history) == 4 for history in histories)
    longest = max(recommendation, key=lambda row: (row["user_id"] == "user-2", len(row["history"])))
    assert [*longest["history"], *longest["targets"]] in histories


def test_items_bought_in_training_are_those_before_the_last_two_of_every_user():
    examples = shop_examples(5)
    bought = Counter(map(tuple, training_histories(examples["train"], examples["validation"])))
    history = select_axes(examples["test"], {"recommendation": 1.0})["history"][:]
    assert bought == Counter(tuple(items[:-1]) for items in history)


def test_every_position_predicts_the_next_item(train, processor):
    features = sequence_features(select_axes(train, {"recommendation": 1.0}), processor)
    start = len(processor.item_ids) + 1
    for feature in features:
        # Four items, of which the first is cut off by max_history: the start token predicts nothing then.
        assert feature["input_ids"][0] == start and feature["labels"][0] == -100
        assert [token - 1 for token in feature["input_ids"][2:]] == feature["labels"][1:-1]
        assert feature["length"] == 3
    processor.max_history = 10
    features = sequence_features(select_axes(train, {"recommendation": 1.0}), processor)
    assert all(feature["labels"][0] >= 0 and len(feature["labels"]) == 4 for feature in features)


def test_rows_of_users_have_all_their_targets(train):
    processor = small_method("tiger-causal", "", max_history=2).processor
    examples = select_axes(train, {"recommendation": 1.0})
    for feature in user_features(examples, processor):  # four items, of which the first is cut off by max_history
        assert len(feature["targets"]) == 2 and feature["target_positions"] == [4, 7] and feature["length"] == 7
        assert items_of(feature, processor)[1:] == feature["targets"][:-1]
    processor.max_history = 20
    assert all(len(feature["targets"]) == 3 for feature in user_features(examples, processor))
    alone = user_features(examples.remove_columns("user_id"), processor)
    assert [*alone["targets"]] == [[item] for item in processor.item_indices(first_targets(examples))]


def items_of(feature, processor):
    """The items that a row of a user reads."""
    known = {tuple(piece): index for index, piece in enumerate(processor.code_pieces(range(len(processor.item_ids))))}
    codes = feature["input_ids"][1:]
    return [known[tuple(codes[place : place + 3])] for place in range(0, len(codes), 3)]
