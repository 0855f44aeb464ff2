"""How specific preferences are: agreement with a count one example and one item at a time, and known extremes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from benchmark_doubles import HashEmbedder, examples_of, random_tables, split_of

from preference_benchmark.axes.protocol import SENTIMENT_AXES, WISH_AXES, Protocol
from preference_benchmark.checks.specificity import specificity, tells_apart
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.vocabulary import Vocabulary

TOP = 10
EXTRACTIVE = ExtractiveApproximator(progress=False)


def built_and_protocol(seed: int, folder, **changes):
    protocol = Protocol(attribute_share=0.6, attribute_items=2, **changes)
    tables = random_tables(seed, users=30, items=25, rows=500, repeats=protocol.repeats)
    return examples_of(tables, EXTRACTIVE, folder, protocol), protocol


def words(text: str) -> list[str]:
    """Lower-case words without a plural s; these tables have no other forms."""
    return [word.strip("\"'.,!?&").removesuffix("s") for word in text.lower().replace("-", " ").split()]


def contains(text: str, phrase: str) -> bool:
    padded = (f" {' '.join(words(part))} " for part in (phrase, text))
    return next(padded) in next(padded)


def plain_count(built, protocol, rows: pl.DataFrame) -> dict[str, list[float]]:
    """Every measurement of every row, one item at a time."""
    tables = built.tables
    vocabulary = Vocabulary.of(tables)
    ids = tables.items["item_id"].to_list()
    having = {item: set() for item in range(len(ids))}
    for item, aspect in vocabulary.of_items.select("item_id", "aspect").iter_rows():
        having[ids.index(item)].add(vocabulary.aspects[aspect])
    bought = dict.fromkeys(range(len(ids)), 0)
    for user in tables.interactions["user_id"].unique():
        own = tables.interactions.filter(pl.col("user_id") == user).sort("step")["item_id"].to_list()
        for step, item in enumerate(own):
            bought[ids.index(item)] += split_of(step, len(own)) == "train"
    embedder = HashEmbedder()
    about = embedder.encode(tables.items["text"])
    found = {name: [] for name in ("fit_by_cosine", "fit_by_aspects", "by_cosine", "by_aspects", "popularity")}
    for row in rows.iter_rows(named=True):
        seen = set(row["history"]) if protocol.repeats == "drop" else set()
        items = [item for item in range(len(ids)) if item not in seen]
        direction = embedder.encode(row["preferences"]).sum(axis=0)
        near = {item: float(about[item] @ direction) for item in items}
        named = {aspect for aspect in vocabulary.aspects for text in row["preferences"] if contains(text, aspect)}
        fits = {item: len(named & having[item]) for item in items}
        is_wish = row["axis"] in WISH_AXES
        cut = min(TOP, len(row["targets"])) if is_wish else TOP

        def share(ranked, row=row, cut=cut, is_wish=is_wish):
            return len(set(ranked[:cut]) & set(row["targets"])) / (cut if is_wish else 1)

        found["by_cosine"].append(share(sorted(items, key=lambda item: -near[item])))
        popular = share(sorted(items, key=lambda item: (-bought[item], item)))
        found["popularity"].append(0 if row["axis"] in SENTIMENT_AXES else popular)
        if is_wish:
            for name in ("fit_by_cosine", "fit_by_aspects"):
                found[name].append(len(row["targets"]))
            found["by_aspects"].append(1)
            continue
        target = row["targets"][0]
        found["fit_by_cosine"].append(sum(near[item] >= near[target] - 1e-6 for item in items))
        better = sum(fits[item] > fits[target] for item in items)
        equal = sum(fits[item] == fits[target] for item in items)
        found["fit_by_aspects"].append(better + equal)
        found["by_aspects"].append(min(1, max(0, (TOP - better) / equal)))
    return found


@pytest.mark.parametrize(("seed", "repeats"), [(0, "drop"), pytest.param(1, "keep", marks=pytest.mark.slow)])
def test_measurements_equal_a_count_of_one_item_at_a_time(seed, repeats, tmp_path):
    built, protocol = built_and_protocol(seed, tmp_path, repeats=repeats)
    measured = specificity(built, protocol)
    groups = {f"recommendation ({mode})": frames["recommendation"] for mode, frames in built.axes.items()}
    for axis, frame in built.axes["oracle"].items():
        for stratum in frame["stratum"].unique():
            if axis != "recommendation":
                name = f"{axis} ({stratum})" if stratum else axis
                groups[name] = frame.filter(pl.col("stratum") == stratum)
    checked = 0
    for name, frame in groups.items():
        rows = frame.filter((pl.col("split") == "test") & (pl.col("sentiment") == "positive"))
        assert (name in measured) == (rows.height > 0)
        if rows.is_empty():
            continue
        expected = plain_count(built, protocol, rows)
        assert measured[name]["n"] == rows.height
        for figure, values in expected.items():
            middle = np.median if figure.startswith("fit") else np.mean
            assert measured[name][figure] == pytest.approx(middle(values), abs=1e-4), (name, figure)
        checked += 1
    assert checked == len(measured) >= 10


def test_titles_that_name_an_attribute_are_counted(tmp_path):
    built, protocol = built_and_protocol(2, tmp_path)
    measured = specificity(built, protocol)
    titles = built.tables.items["title"].to_list()
    vocabulary = Vocabulary.of(built.tables)
    wishes = built.axes["oracle"]["open_wishes"].filter((pl.col("split") == "test") & (pl.col("stratum") == "known"))
    pairs = {
        (aspect, item)
        for text, items in wishes.select(pl.col("preferences").list.first(), "targets").iter_rows()
        for aspect in vocabulary.aspects
        if contains(text, aspect)
        for item in items
    }
    expected = np.mean([set(words(aspect)) <= set(words(titles[item])) for aspect, item in pairs])
    assert 0 < expected < 1  # colours are in the titles, shapes are not
    assert measured["open_wishes (known)"]["in_titles"] == pytest.approx(expected, abs=1e-4)
    assert measured["recommendation (last)"]["in_titles"] is None
    assert 0 < measured["wish_and_avoid (known)"]["in_titles"] < 1


def test_a_preference_that_is_the_text_of_its_target_fits_nothing_else(tmp_path):
    built, protocol = built_and_protocol(3, tmp_path)
    texts = built.tables.items["text"]
    frame = built.axes["oracle"]["recommendation"]
    frame = frame.with_columns(preferences=texts.gather(frame["targets"].list.first()).reshape((-1, 1)).arr.to_list())
    changed = replace(built, axes={"oracle": {"recommendation": frame}})
    measured = specificity(changed, protocol)["recommendation (oracle)"]
    assert measured["fit_by_cosine"] == 1 and measured["by_cosine"] == 1.0
    assert tells_apart(measured)


def test_an_axis_whose_preferences_say_nothing_is_named(tmp_path):
    built, protocol = built_and_protocol(4, tmp_path)
    frame = built.axes["oracle"]["recommendation"].with_columns(preferences=pl.lit(["hello"]))
    changed = replace(built, axes={"oracle": {"recommendation": frame}})
    measured = specificity(changed, protocol)["recommendation (oracle)"]
    assert measured["fit_by_aspects"] > 10
    assert not tells_apart(measured)


def test_few_examples_cannot_tell_what_many_can():
    measured = {"by_cosine": 0.3, "by_aspects": 0.1, "popularity": 0.1}
    assert [tells_apart(measured | {"n": n}) for n in (10, 50, 1_000)] == [False, False, True]
    close = measured | {"by_cosine": 0.14, "n": 1_000_000}
    assert not tells_apart(close)
