"""The axes of the user's own next item agree with their rules, applied to one target at a time."""

from __future__ import annotations

import polars as pl
import pytest
from benchmark_doubles import (
    HashEmbedder,
    all_targets,
    histories,
    named,
    random_preferences,
    random_tables,
    shuffled_users,
)
from polars.testing import assert_frame_equal

from preference_benchmark.axes.next_item import MATCHERS, history_consolidation, match, recommendation
from preference_benchmark.axes.protocol import MODES
from preference_benchmark.preferences.candidates import Candidates
from preference_benchmark.preferences.polarity import invert

ONLY_NEGATIVE = ("Avoid ", "No ")
SHOWN = ("split", "user_id", "history", "preferences", "sentiment", "target", "pair_id")


def brute_force(preferences, tables, mode, all_earlier_steps):
    """The rules of matching, one target at a time."""
    embedder = HashEmbedder()
    text_of = dict(tables.items.select("item_id", "text").iter_rows())
    found = []
    for user, rows in histories(tables).items():
        own = [row for row in preferences.iter_rows(named=True) if row["user_id"] == user]
        for target in rows[1:]:
            step = target["step"]
            earlier = [p for p in own if (p["step"] < step if all_earlier_steps else p["step"] == step - 1)]
            texts = [p["text"] for p in earlier if p["sentiment"] == "positive"]
            if not texts:
                texts = [t for t in (invert(p["text"]) for p in earlier) if t] or [p["text"] for p in earlier]
            if not texts:
                continue
            other = target if mode == "oracle" else rows[step - 1]
            vectors, against = embedder.encode(texts), embedder.encode([text_of[other["item_id"]]])[0]
            best = max(range(len(texts)), key=lambda n: vectors[n] @ against)
            found.append((user, step, texts[best], float(vectors[best] @ against)))
    return pl.DataFrame(found, schema=["user_id", "step", "text", "similarity"], orient="row")


@pytest.mark.parametrize("mode", ["oracle", "last"])
@pytest.mark.parametrize("all_earlier_steps", [False, True])
@pytest.mark.parametrize("openings", [("Find ", "Avoid ", "no ", "Search for "), ONLY_NEGATIVE])
def test_agrees_with_one_target_at_a_time(mode, all_earlier_steps, openings):
    tables = random_tables(1)
    preferences = random_preferences(tables, 2, openings=openings)
    got = match(preferences, tables, HashEmbedder(), mode, all_earlier_steps=all_earlier_steps)
    expected = brute_force(preferences, tables, mode, all_earlier_steps)
    assert got.height == tables.interactions.filter(pl.col("step") >= 1).height
    assert_frame_equal(got, expected, check_dtypes=False, abs_tol=1e-6)


@pytest.mark.parametrize("all_earlier_steps", [False, True])
def test_a_matcher_of_ones_own_chooses(all_earlier_steps):
    tables = random_tables(1)
    preferences = random_preferences(tables, 2)

    def longest_but_none_of_even_steps(candidates, similarity):
        rows = candidates.named(candidates.rows)
        assert len(similarity("item")) == len(similarity("previous")) == rows.height
        return rows.select(pl.when(pl.col("step") % 2 == 1).then(pl.col("text").str.len_chars())).to_series()

    options = {"all_earlier_steps": all_earlier_steps}
    got = match(preferences, tables, HashEmbedder(), longest_but_none_of_even_steps, **options)
    offered = Candidates.of(preferences, tables, **options).distinct().filter(pl.col("step") % 2 == 1)
    longest = offered.group_by("user_id", "step").agg(longest=pl.col("text").str.len_chars().max())
    assert got.height == longest.height
    assert got.join(longest, on=["user_id", "step"]).filter(pl.col("similarity") != pl.col("longest")).is_empty()
    assert got.join(offered, on=["user_id", "step", "text"], how="anti").is_empty()


def test_matching_modes_are_matchers():
    assert tuple(MATCHERS) == MODES


def test_what_cannot_be_inverted_stands_as_it_is():
    tables = random_tables(3)
    preferences = random_preferences(tables, 4).with_columns(
        text=pl.format("Nothing like {}", "text"), sentiment=pl.lit("negative")
    )
    assert match(preferences, tables, HashEmbedder(), "oracle")["text"].str.starts_with("Nothing like").all()


@pytest.mark.parametrize("mode", ["oracle", "last"])
def test_the_order_of_rows_changes_nothing(mode):
    tables = random_tables(5)
    preferences = random_preferences(tables, 6)
    expected = match(preferences, tables, HashEmbedder(), mode)
    shuffled = preferences.sample(fraction=1.0, shuffle=True, seed=1)
    assert_frame_equal(match(shuffled, shuffled_users(tables, 7), HashEmbedder(), mode), expected)


def test_last_does_not_look_at_the_target_and_oracle_does():
    tables = random_tables(8)
    preferences = random_preferences(tables, 9)
    last = pl.col("step") == pl.col("step").max().over("user_id")
    other = tables.interactions["item_id"].shuffle(seed=1)
    changed = tables.interactions.with_columns(item_id=pl.when(last).then(other).otherwise("item_id"))
    changed = type(tables)(tables.items, changed, tables.report)
    before, after = (match(preferences, t, HashEmbedder(), "last") for t in (tables, changed))
    assert_frame_equal(before, after)
    before, after = (match(preferences, t, HashEmbedder(), "oracle") for t in (tables, changed))
    assert not before.equals(after)


def test_embeds_only_distinct_texts():
    tables = random_tables(10)
    embedder = HashEmbedder()
    match(random_preferences(tables, 11, vocabulary=4), tables, embedder, "oracle")
    assert len(embedder.asked) == len(set(embedder.asked))


def test_bad_input_is_named():
    tables = random_tables(12)
    preferences = random_preferences(tables, 13)
    with pytest.raises(ValueError, match="nearest"):
        match(preferences, tables, HashEmbedder(), "nearest")
    with pytest.raises(ValueError, match="gave 1 scores"):
        match(preferences, tables, HashEmbedder(), lambda candidates, similarity: similarity("item").head(1))
    with pytest.raises(ValueError, match="sentiment"):
        match(preferences.drop("sentiment"), tables, HashEmbedder(), "oracle")
    with pytest.raises(ValueError, match="neutral"):
        match(preferences.with_columns(sentiment=pl.lit("neutral")), tables, HashEmbedder(), "oracle")


@pytest.mark.parametrize("seed", range(3))
def test_recommendation_agrees_with_one_target_at_a_time(seed):
    tables = random_tables(seed)
    matches = match(random_preferences(tables, seed), tables, HashEmbedder())
    text = {(row["user_id"], row["step"]): row["text"] for row in matches.iter_rows(named=True)}
    expected = [
        (split, user, history, [text[user, len(history)]], "positive", target, -1)
        for split, user, history, target in all_targets(tables)
    ]
    got = named(recommendation(tables, matches), tables)
    assert got.select(SHOWN).rows() == expected
    assert set(got["kind"]) == {"stated"} and got["avoid"].list.len().sum() == 0


def test_a_preference_chosen_without_its_target_is_inferred():
    tables = random_tables(0)
    matches = match(random_preferences(tables, 0), tables, HashEmbedder(), "last")
    assert set(recommendation(tables, matches, "last")["kind"]) == {"inferred"}


@pytest.mark.parametrize("seed", range(3))
def test_consolidation_has_all_five_preferences_of_the_step_before(seed):
    tables = random_tables(seed)
    preferences = random_preferences(tables, seed).sample(fraction=1.0, shuffle=True, seed=seed)
    written = {}
    for row in preferences.iter_rows(named=True):
        written.setdefault((row["user_id"], row["step"]), {})[row["rank"]] = row["text"]
    expected = [
        (split, user, history, [written[user, len(history) - 1][rank] for rank in range(5)], "positive", target, -1)
        for split, user, history, target in all_targets(tables)
    ]
    got = named(history_consolidation(tables, preferences), tables)
    assert got.select(SHOWN).rows() == expected and set(got["kind"]) == {"inferred"}
