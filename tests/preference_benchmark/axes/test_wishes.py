"""Open wishes and wishes with something to avoid: relevance by brute force, strata that keep apart, bounded sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from benchmark_doubles import random_tables

from preference_benchmark.axes.attributes import Lists, wish_attributes
from preference_benchmark.axes.examples import COLUMNS, targets
from preference_benchmark.axes.protocol import Protocol
from preference_benchmark.axes.wishes import open_wishes, wish_and_avoid
from preference_benchmark.axes.wordings import misspellings
from preference_benchmark.preferences.words import plain
from preference_benchmark.sources.corner_shop import corner_shop
from preference_benchmark.tables import prepare

PROTOCOL = Protocol(train_wishes=1_500, evaluation_wishes=200)


@pytest.fixture(scope="module")
def tables():
    return corner_shop(num_users=150, num_items=160).tables


@pytest.fixture(scope="module")
def attributes(tables):
    return wish_attributes(tables, PROTOCOL)


@pytest.fixture(scope="module")
def wishes(tables, attributes):
    return open_wishes(tables, attributes, PROTOCOL)


@pytest.fixture(scope="module")
def avoiding(tables, attributes):
    return wish_and_avoid(tables, attributes, PROTOCOL)


def named(texts: list[str], phrases: pl.Series) -> list[set[str]]:
    """The attributes whose words stand in each text."""
    forms = dict(zip(phrases, pl.select(plain(pl.lit(phrases))).to_series(), strict=True))
    said = pl.select(plain(pl.lit(pl.Series(texts)))).to_series()
    return [{phrase for phrase, form in forms.items() if form in text} for text in said]


def having(tables, phrase: str) -> set[int]:
    """The items with an attribute, looked up one by one."""
    return {index for index, aspects in enumerate(tables.items["aspects"].to_list()) if phrase in aspects}


def test_attributes_are_neither_rare_nor_everywhere(tables, attributes):
    sizes = {phrase: having(tables, phrase) for phrase in attributes.phrases}
    assert all(3 <= len(items) <= 0.1 * tables.items.height for items in sizes.values())
    assert sizes == dict(zip(attributes.phrases, map(set, attributes.items.series.to_list()), strict=True))
    everything = {aspect for aspects in tables.items["aspects"].to_list() for aspect in aspects}
    left_out = everything - set(attributes.phrases)
    assert all(not 3 <= len(having(tables, phrase)) <= 0.1 * tables.items.height for phrase in left_out)


def test_relevant_is_every_item_with_all_attributes_that_the_history_lacks(tables, attributes, wishes):
    straight = wishes.filter((pl.col("stratum") != "misspelt") & (pl.col("split") != "train"))
    said = named(straight["preferences"].list.first().to_list(), attributes.phrases)
    for row, phrases in zip(straight.iter_rows(named=True), said, strict=True):
        joined = set.union if row["stratum"] == "contradictory" else set.intersection
        relevant = joined(*(having(tables, phrase) for phrase in phrases))
        assert set(row["targets"]) == relevant - set(row["history"])
        assert len(row["targets"]) == len(set(row["targets"])) > 0


def test_strata_name_what_they_promise(tables, attributes, wishes):
    withheld = set(attributes.phrases.filter(pl.Series(attributes.withheld)))
    for row, phrases in zip(
        wishes.iter_rows(named=True),
        named(wishes["preferences"].list.first().to_list(), attributes.phrases),
        strict=True,
    ):
        if row["stratum"] == "withheld":
            assert len(phrases) == 1 and phrases <= withheld and row["split"] != "train"
        elif row["stratum"] == "composite":
            assert len(phrases) in (2, 3) and not phrases & withheld
        elif row["stratum"] == "contradictory":
            first, second = (having(tables, phrase) for phrase in phrases)
            assert not first & second and row["split"] != "train"
        elif row["stratum"] == "known":
            assert len(phrases) == 1 and not phrases & withheld
        elif row["stratum"] == "span":
            assert row["split"] == "train" and not phrases & withheld
        else:
            assert row["stratum"] == "misspelt" and not phrases & withheld


def test_spans_are_words_in_a_row_of_the_texts_of_their_targets_and_of_no_others(tables, wishes):
    spans = wishes.filter(pl.col("stratum") == "span")
    assert spans.height > 100
    texts = tables.items.select(text=plain(pl.concat_str("title", pl.lit(". "), "text")))["text"].to_list()
    checked = 0
    for row in spans.iter_rows(named=True):
        text = row["preferences"][0]
        said = pl.select(plain(pl.lit(text)).str.strip_chars().str.split("  ")).item().to_list()
        shared = [
            f" {'  '.join(said[start:end])} "
            for start in range(len(said))
            for end in range(start + 1, min(start + 3, len(said)) + 1)
        ]
        saying = [{index for index, whole in enumerate(texts) if words in whole} for words in shared]
        # Some run of words of the wish is said by exactly the targets, items of the history aside.
        if not row["history"]:
            checked += 1
            assert set(row["targets"]) in saying
    assert checked > 30


def test_no_training_wish_names_a_withheld_attribute_or_an_evaluated_combination(attributes, wishes, avoiding):
    withheld = set(attributes.phrases.filter(pl.Series(attributes.withheld)))
    texts = [
        text
        for frame in (wishes, avoiding)
        for column in ("preferences", "avoid")
        for text in frame.filter(pl.col("split") == "train")[column].explode().drop_nulls()
    ]
    assert not set().union(*named(texts, attributes.phrases)) & withheld
    composites = wishes.filter(pl.col("stratum") == "composite")
    said = named(composites["preferences"].list.first().to_list(), attributes.phrases)
    by_split = {True: set(), False: set()}
    for split, phrases in zip(composites["split"], said, strict=True):
        by_split[split == "train"].add(frozenset(phrases))
    assert by_split[True] and by_split[False]
    assert not any(evaluated <= trained for evaluated in by_split[False] for trained in by_split[True])


def test_training_targets_are_neither_seen_nor_held_out(tables, wishes, avoiding):
    held_out = targets(tables).filter(pl.col("split") != "train").group_by("user_id").agg("target")
    held_out = dict(held_out.iter_rows())
    for frame in (wishes, avoiding):
        for row in frame.filter(pl.col("split") == "train").iter_rows(named=True):
            assert not set(row["targets"]) & {*row["history"], *held_out.get(row["user_id"], ())}


def test_histories_are_those_of_the_split(tables, wishes, avoiding):
    steps = targets(tables)
    known = {
        split: set(zip(part["user_id"], map(tuple, part["history"].to_list()), strict=True))
        for (split,), part in steps.partition_by("split", as_dict=True).items()
    }
    for frame in (wishes, avoiding):
        assert 0.2 < (frame["user_id"] == "").mean() < 0.6
        for user, split, history in frame.select("user_id", "split", "history").iter_rows():
            assert (user, tuple(history)) in known[split] if user else history == []


def test_some_training_wishes_ask_for_the_users_own_next_item(tables, wishes):
    following = {
        (user, tuple(history)): target
        for user, history, target in targets(tables).select("user_id", "history", "target").iter_rows()
    }
    trained = wishes.filter((pl.col("split") == "train") & (pl.col("user_id") != ""))
    own = [
        following[user, tuple(history)] == found[0]
        for user, history, found in trained.select("user_id", "history", "targets").iter_rows()
    ]
    assert 0.2 < np.mean(own) < 0.6


def test_what_must_stay_out_is_every_item_with_the_unwanted_attribute(tables, attributes, avoiding):
    wanted = named(avoiding["preferences"].list.first().to_list(), attributes.phrases)
    unwanted = named(avoiding["avoid"].list.first().to_list(), attributes.phrases)
    together = 0
    for row, (one,), (other,) in zip(avoiding.iter_rows(named=True), wanted, unwanted, strict=True):
        with_one, with_other = having(tables, one), having(tables, other)
        assert set(row["avoided"]) == with_other
        assert set(row["targets"]) <= with_one - with_other - set(row["history"])
        together += len(with_one & with_other) > 0
    assert together == avoiding.height > 0


def test_evaluated_targets_of_a_wish_with_something_to_avoid_are_complete(tables, attributes, avoiding):
    rows = avoiding.filter(pl.col("split") != "train")
    wanted = named(rows["preferences"].list.first().to_list(), attributes.phrases)
    unwanted = named(rows["avoid"].list.first().to_list(), attributes.phrases)
    for row, (one,), (other,) in zip(rows.iter_rows(named=True), wanted, unwanted, strict=True):
        assert set(row["targets"]) == having(tables, one) - having(tables, other) - set(row["history"])


def test_sizes_are_bounded(tables, wishes, avoiding):
    for frame, part in ((wishes, 1), (avoiding, 2)):
        sizes = dict(frame.group_by("split").len().iter_rows())
        assert 0 < sizes["train"] <= PROTOCOL.train_wishes / part
        for split in ("validation", "test"):
            assert 0 < sizes[split] <= PROTOCOL.evaluation_wishes / part
        assert frame.columns == list(COLUMNS)
    few = replace(PROTOCOL, train_wishes=40, evaluation_wishes=20)
    small = open_wishes(tables, wish_attributes(tables, few), few)
    assert small.filter(pl.col("split") == "train").height <= 40


def test_the_same_seed_gives_the_same_wishes_and_another_gives_others(tables, wishes, avoiding):
    attributes = wish_attributes(tables, PROTOCOL)
    assert open_wishes(tables, attributes, PROTOCOL).equals(wishes)
    assert wish_and_avoid(tables, attributes, PROTOCOL).equals(avoiding)
    other = replace(PROTOCOL, seed=7)
    assert not open_wishes(tables, wish_attributes(tables, other), other).equals(wishes)


def test_an_attribute_is_withheld_with_all_that_contain_its_words():
    phrases = ["strategy", "turn-based strategy", "grand strategy", "tactics", "turn-based tactics", "naval", "heist"]
    items = pl.DataFrame(
        {
            "item_id": [f"i{n:02d}" for n in range(70)],
            "title": [f"Game {n}" for n in range(70)],
            "aspects": [[phrases[n % 7]] for n in range(70)],
        }
    )
    interactions = pl.DataFrame(
        {"user_id": [f"u{n // 70}" for n in range(140)], "item_id": [f"i{n % 70:02d}" for n in range(140)]}
    )
    interactions = interactions.with_columns(timestamp=pl.int_range(pl.len()))
    tables = prepare(items, interactions, min_user=1, min_item=1)
    for seed in range(12):
        protocol = Protocol(seed=seed, attribute_share=0.5)
        attributes = wish_attributes(tables, protocol)
        withheld = set(attributes.phrases.filter(pl.Series(attributes.withheld)))
        assert len(withheld) >= 2
        if "strategy" in withheld:
            assert {"turn-based strategy", "grand strategy"} <= withheld


def test_without_attributes_there_are_no_wishes():
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "title": ["A", "B", "C", "D"]})
    interactions = pl.DataFrame({"user_id": ["u"] * 4, "item_id": ["a", "b", "c", "d"], "timestamp": [1, 2, 3, 4]})
    tables = prepare(items, interactions, min_user=1, min_item=1)
    attributes = wish_attributes(tables, PROTOCOL)
    for axis in (open_wishes, wish_and_avoid):
        found = axis(tables, attributes, PROTOCOL)
        assert found.is_empty() and found.columns == list(COLUMNS)


@pytest.mark.parametrize("purchases", [1, 2, 3])
def test_a_split_without_a_step_has_wishes_without_histories(purchases):
    items = corner_shop(num_users=20, num_items=40).tables.items
    users = [f"user-{place}" for place in range(20) for _ in range(purchases)]
    bought = [items["item_id"][place % items.height] for place in range(len(users))]
    times = [step for _ in range(20) for step in range(purchases)]
    interactions = pl.DataFrame({"user_id": users, "item_id": bought, "timestamp": times})
    tables = prepare(items, interactions, min_user=1, min_item=1)
    attributes = wish_attributes(tables, PROTOCOL)
    for axis in (open_wishes, wish_and_avoid):
        found = axis(tables, attributes, PROTOCOL)
        assert {*found["split"]} <= {"train", "validation", "test"} and not found["split"].null_count()


def test_templates_that_name_an_attribute_are_not_used(tables):
    """In a shop that sells presents, "it is for a colleague, ..." would ask for two attributes."""
    aspects = pl.col("aspects").list.concat(
        pl.when(pl.int_range(pl.len()) < 8)
        .then(pl.lit(["colleague", "something"]))
        .otherwise(pl.lit([], dtype=pl.List(pl.String)))
    )
    changed = replace(tables, items=tables.items.with_columns(aspects))
    attributes = wish_attributes(changed, PROTOCOL)
    assert "colleague" in attributes.phrases.to_list()
    trained = open_wishes(changed, attributes, PROTOCOL).filter(pl.col("split") == "train")
    texts = trained["preferences"].list.first()
    asked = texts.str.contains("colleague").sum()
    assert asked < trained.height / 10
    assert not texts.str.contains("for a colleague").any()


def test_wishes_name_no_attribute_that_is_not_theirs(tables):
    """ "Red" and "cotton shirts" make a "red cotton shirt", and a slip may make another word of one."""
    slips = misspellings("lavender", "test")
    own = (["red", "cotton shirts"], ["red cotton"], ["lavender"], slips)
    place = pl.int_range(pl.len()) % len(own)
    aspects = pl.coalesce(pl.when(place == index).then(pl.lit(list(names))) for index, names in enumerate(own))
    items = tables.items.with_columns(aspects=aspects, kind=pl.when(place == 0).then(pl.lit("cotton shirts")))
    changed = replace(tables, items=items)
    protocol = PROTOCOL.replace(attribute_share=0.5, withheld=0.0, evaluation_wishes=400)
    wishes = open_wishes(changed, wish_attributes(changed, protocol), protocol)
    asked = wishes.select("stratum", text=pl.col("preferences").list.first(), target=pl.col("targets").list.first())
    asked = asked.with_columns(names=changed.items["aspects"].gather(asked["target"]).list.first())
    assert asked["text"].str.contains("cotton shirt").any() and asked["text"].str.contains("(?i)red cotton").any()
    assert not asked.filter(pl.col("names") != "red cotton")["text"].str.contains("(?i)red cotton").any()
    misspelt = asked.filter((pl.col("names") == "lavender") & (pl.col("stratum") == "misspelt"))
    assert misspelt.height and not misspelt["text"].str.contains_any(list(slips)).any()


def test_lists_draw_what_they_hold():
    lists = Lists.of(np.array([2, 0, 2]), np.array([7, 5, 6]), 3)
    rng = np.random.default_rng(0)
    assert lists.series.to_list() == [[5], [], [6, 7]]
    drawn = lists.draw(np.array([0, 1, 2] * 50), rng).reshape(50, 3)
    assert set(drawn[:, 0]) == {5} and set(drawn[:, 1]) == {-1} and set(drawn[:, 2]) == {6, 7}


def test_where_things_are_bought_again_a_wish_may_be_for_what_the_history_holds():
    tables = random_tables(3, users=30, rows=500, repeats="keep")
    protocol = Protocol(repeats="keep", train_wishes=300, evaluation_wishes=200)
    attributes = wish_attributes(tables, protocol)
    wishes = open_wishes(tables, attributes, protocol)
    again = wishes.filter(pl.col("history").list.set_intersection("targets").list.len() > 0)
    assert {"train", "validation", "test"} == set(again["split"])
    evaluated = wishes.filter((pl.col("split") == "test") & (pl.col("stratum") == "known"))
    said = named(evaluated["preferences"].list.first().to_list(), attributes.phrases)
    for row, (phrase,) in zip(evaluated.iter_rows(named=True), said, strict=True):
        assert set(row["targets"]) == having(tables, phrase)
