"""Every leak is planted, one at a time, in a benchmark that has none; each must be found."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import examples_of, random_preferences, random_tables

from preference_benchmark.axes.examples import KEYS, with_item_index
from preference_benchmark.axes.protocol import AXES, PAPER, WISH_AXES, Protocol
from preference_benchmark.checks.leakage import LeakageError, check_leakage

STEERING = ("fine_grained_steering", "coarse_grained_steering")
SENTIMENT = ("sentiment_following", "sentiment_following_with_history")


def build(folder, protocol=None, seed=2):
    tables = random_tables(seed, users=20, rows=240)
    return examples_of(tables, lambda given: random_preferences(given, seed), folder, protocol)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return build(tmp_path_factory.mktemp("stages"))


def leaks(found, tables=None, preferences=None, **planted):
    """Rules broken, with some axes replaced."""
    axes = {mode: {**frames, **planted} for mode, frames in found.axes.items()}
    report = check_leakage(
        found.tables if tables is None else tables,
        found.preferences if preferences is None else preferences,
        axes,
        Protocol(),
    )
    return {(leak.axis, leak.rule) for leak in report.leaks}


def axis(found, name):
    return found.axes["oracle"][name]


def rules(broken, name):
    return {rule for where, rule in broken if where == name}


@pytest.mark.parametrize("seed", range(4))
def test_benchmarks_have_no_leaks(seed, tmp_path):
    assert leaks(build(tmp_path, seed=seed)) == set()


def test_few_items_are_not_most_of_the_targets_of_coarse_steering(clean):
    frame = axis(clean, "coarse_grained_steering")
    often = pl.concat([frame, *[frame[[0]]] * 4])
    rule = "a target is asked for more than 4 times in its split"
    assert rule in rules(leaks(clean, coarse_grained_steering=often), "coarse_grained_steering")
    # Without a limit on partners, as in the paper, they are counted, and nothing is refused.
    axes = {mode: frames | {"coarse_grained_steering": often} for mode, frames in clean.axes.items()}
    report = check_leakage(clean.tables, clean.preferences, axes, Protocol(partner_of=0))
    (found,) = [finding for finding in report.findings if finding.rule == rule]
    counts = often.group_by("split", "targets").len()["len"]
    assert found.by_design and found.found == counts.filter(counts > 4).sum() >= 5


def test_what_is_bought_again_may_be_asked_for_again(tmp_path):
    tables = random_tables(3, users=20, rows=300, repeats="keep")
    protocol = Protocol(repeats="keep")
    found = examples_of(tables, lambda given: random_preferences(given, 3), tmp_path, protocol)
    again = pl.col("history").list.contains(pl.col("targets").list.first())
    assert axis(found, "recommendation").filter(again).height > 0
    assert not any(axis(found, name).filter(again).height for name in STEERING)
    assert check_leakage(found.tables, found.preferences, found.axes, protocol).leaks == []
    # Where nothing is bought again, a target in its own history is a leak.
    assert "a target is in its own history" in {rule for _, rule in leaks(found)}


BY_TIME = Protocol(split="time", time_quantiles=(0.6, 0.8))


@pytest.fixture(scope="module")
def by_time(tmp_path_factory):
    tables = random_tables(1, users=60, rows=600, **BY_TIME.reading)
    folder = tmp_path_factory.mktemp("stages")
    return examples_of(tables, lambda given: random_preferences(given, 1), folder, BY_TIME)


def test_a_split_by_time_has_no_leaks_and_all_axes(by_time):
    report = check_leakage(by_time.tables, by_time.preferences, by_time.axes, BY_TIME)
    assert report.leaks == []
    for name in AXES:
        assert set(axis(by_time, name)["split"]) == {"train", "validation", "test"}, name
    known = with_item_index(by_time.tables).select("user_id", "step", "timestamp")
    last = axis(by_time, "open_wishes").filter(pl.col("split") == "train", pl.col("user_id") != "")
    shown = last.with_columns(step=pl.col("history").list.len().cast(pl.Int64) - 1).join(known, on=["user_id", "step"])
    assert shown.height == last.height and shown["timestamp"].max() <= by_time.tables.points[0]


@pytest.mark.parametrize("name", AXES)
def test_training_on_what_came_after_the_first_point_is_found(by_time, name):
    after = with_item_index(by_time.tables).filter(pl.col("timestamp") > by_time.tables.points[0])
    after = after.group_by("user_id").agg(bought="item")
    rows = axis(by_time, name).join(after, on="user_id", how="left", maintain_order="left")
    planted = rows.with_columns(targets=pl.coalesce("bought", "targets"), split=pl.lit("train")).drop("bought")
    frames = {mode: {**found, name: planted} for mode, found in by_time.axes.items()}
    report = check_leakage(by_time.tables, by_time.preferences, frames, BY_TIME)
    rule = "a training example knows what was bought after the first point in time"
    assert rule in {leak.rule for leak in report.leaks if leak.axis == name}


def test_every_axis_is_searched(clean):
    report = check_leakage(clean.tables, clean.preferences, clean.axes, Protocol())
    assert {finding.axis for finding in report.findings} == {*AXES, "items"}
    assert all(finding.searched > 0 for finding in report.findings)
    by_design = [finding for finding in report.findings if finding.by_design and finding.found]
    named = "a training example names an attribute that is withheld from training wishes"
    assert {finding.axis for finding in by_design if finding.rule != named} <= {*SENTIMENT, *STEERING}
    assert not {finding.axis for finding in by_design if finding.rule == named} & {*WISH_AXES}
    assert "by design sentiment_following: the negative preference knows its item" in str(report)


@pytest.mark.parametrize("name", ["recommendation", "fine_grained_steering", "history_consolidation"])
def test_a_target_in_its_history_is_found(clean, name):
    planted = axis(clean, name).with_columns(targets=pl.col("history").list.head(1))
    assert "a target is in its own history" in rules(leaks(clean, **{name: planted}), name)


def test_a_history_that_is_not_the_users_is_found(clean):
    planted = axis(clean, "recommendation").with_columns(history=pl.col("history").list.reverse())
    broken = rules(leaks(clean, recommendation=planted), "recommendation")
    assert "the history is not the beginning of what its user bought" in broken


def test_a_history_that_shows_what_is_held_out_is_found(clean):
    bought = with_item_index(clean.tables).sort(KEYS).group_by("user_id", maintain_order=True).agg(history="item")
    planted = axis(clean, "coarse_grained_steering").drop("history").join(bought, on="user_id")
    planted = planted.select(axis(clean, "coarse_grained_steering").columns)
    broken = rules(leaks(clean, coarse_grained_steering=planted), "coarse_grained_steering")
    assert "the history reaches beyond its split" in broken


@pytest.mark.parametrize("name", AXES)
def test_evaluated_examples_among_the_training_examples_are_found(clean, name):
    planted = axis(clean, name).with_columns(split=pl.lit("train"))
    broken = rules(leaks(clean, **{name: planted}), name)
    assert broken & {
        "a training target is held out of the same user",
        "a target is the user's in another split",
        "the history reaches beyond its split",
        "a training example names an attribute that is withheld from training wishes",
    }


@pytest.mark.parametrize("name", WISH_AXES)
def test_an_evaluated_wish_among_the_training_wishes_is_found(clean, name):
    wishes = axis(clean, name)
    evaluated = wishes.filter((pl.col("split") == "test") & (pl.col("user_id") == "")).head(1)
    planted = pl.concat([wishes, evaluated.with_columns(split=pl.lit("train"), user_id=pl.lit(""))])
    assert "an evaluated wish was trained on" in rules(leaks(clean, **{name: planted}), name)


@pytest.mark.parametrize("name", WISH_AXES)
def test_a_withheld_attribute_in_a_training_wish_is_found(clean, name):
    withheld = axis(clean, "open_wishes").filter(pl.col("stratum") == "withheld")
    text = withheld.sort(pl.col("preferences").list.first().str.len_chars())["preferences"][0][0]
    said = pl.when(pl.col("split") == "train").then(pl.lit([f"{text} and much more"])).otherwise("preferences")
    broken = rules(leaks(clean, **{name: axis(clean, name).with_columns(preferences=said)}), name)
    assert "a training example names an attribute that is withheld from training wishes" in broken


def test_a_target_that_must_stay_out_is_found(clean):
    planted = axis(clean, "wish_and_avoid").with_columns(avoided="targets")
    assert "a target must stay out" in rules(leaks(clean, wish_and_avoid=planted), "wish_and_avoid")


@pytest.mark.parametrize("name", STEERING)
def test_a_held_out_target_in_training_steering_is_found(clean, name):
    held_out = with_item_index(clean.tables).sort(KEYS).group_by("user_id").agg(held=pl.col("item").tail(1))
    rows = axis(clean, name).join(held_out, on="user_id", maintain_order="left")
    planted = rows.with_columns(targets=pl.when(pl.col("split") == "train").then("held").otherwise("targets"))
    planted = planted.drop("held")
    assert "a training target is held out of the same user" in rules(leaks(clean, **{name: planted}), name)


@pytest.mark.parametrize("name", ["recommendation", "history_consolidation"])
def test_a_preference_from_the_future_is_found(clean, name):
    later = clean.preferences.with_columns(pl.col("step") + 1)
    broken = rules(leaks(clean, preferences=later), name)
    assert "the preference was not written before its step" in broken


@pytest.mark.parametrize("name", STEERING)
def test_a_steering_preference_of_an_evaluated_step_is_found(clean, name):
    period = clean.tables.training_period().select(KEYS)
    late = clean.preferences.join(period, on=KEYS, how="anti")
    fresh = late.join(clean.preferences.join(period, on=KEYS, how="semi"), on="text", how="anti")["text"][0]
    planted = axis(clean, name).with_columns(preferences=pl.concat_list(pl.lit(fresh)))
    assert "the preference was not written in the training period" in rules(leaks(clean, **{name: planted}), name)


def test_a_trained_sentiment_text_is_found(clean):
    rows = axis(clean, "sentiment_following")
    text = rows.filter((pl.col("split") == "train") & (pl.col("sentiment") == "negative"))["preferences"][0]
    evaluated = (pl.col("split") != "train") & (pl.col("sentiment") == "negative")
    planted = rows.with_columns(
        preferences=pl.when(evaluated).then(pl.lit(text.to_list())).otherwise(pl.col("preferences"))
    )
    broken = rules(leaks(clean, sentiment_following=planted), "sentiment_following")
    assert "an evaluated text was trained on" in broken


def test_item_text_made_of_held_out_reviews_is_found(clean):
    said = "This is a sentence that only one reviewer of this very cup would write"
    length = pl.len().over("user_id")
    rows = clean.tables.interactions.with_columns(
        review=pl.when(pl.col("step") + 1 == length).then(pl.format(said + " {}!", "user_id")).otherwise("review")
    )
    quoted = rows.filter(pl.col("step") + 1 == length).group_by("item_id").agg(pl.col("review").str.join(" "))
    items = clean.tables.items.join(quoted, on="item_id", how="left")
    items = items.with_columns(text=pl.concat_str("text", pl.lit(". "), pl.col("review").fill_null(""))).drop("review")
    planted = replace(clean.tables, items=items, interactions=rows)
    assert leaks(clean, tables=planted) == {("items", "the item's text quotes a held-out review")}
    honest = replace(clean.tables, interactions=rows)
    assert leaks(clean, tables=honest) == set()


def test_the_papers_protocol_leaks_and_says_so(tmp_path):
    protocol = PAPER.replace(classifier=None)
    found = build(tmp_path, protocol)
    report = check_leakage(found.tables, found.preferences, found.axes, protocol)
    assert {leak.axis for leak in report.leaks} == {*STEERING, *SENTIMENT}
    report.enforce("flag")
    with pytest.raises(LeakageError, match='(?s)LEAK .*a target is in its own history.*leaks="flag"'):
        report.enforce("error")
