"""Shuffling exchanges what users want, and nothing else; what is measured agrees with a plain count."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from datasets import Dataset

from mender.data import load_benchmark_data
from mender.evaluation import fit_to_history, sample, score_model, shuffle_preferences
from mender.training import choose_preset, fit, new_method
from preference_benchmark.axes.examples import EXAMPLE_FEATURES

AXES = ("recommendation", "fine_grained_steering", "sentiment_following")


def examples(rows: int) -> Dataset:
    """Three axes; on sentiment following, row 2 i and 2 i + 1 are a pair."""
    generator = np.random.default_rng(0)
    found = []
    for row, axis in enumerate(generator.choice(AXES, rows).tolist()):
        paired = axis == "sentiment_following"
        for sentiment in ("positive", "negative") if paired else ("positive",):
            found.append(
                {
                    "axis": axis,
                    "kind": "stated",
                    "user_id": f"u{row}",
                    "history": [f"i{row}"],
                    "preferences": [f"p{row}-{sentiment}"],
                    "avoid": [f"a{row}-{sentiment}"],
                    "sentiment": sentiment,
                    "targets": [f"t{row}"],
                    "pair_id": row if paired else -1,
                    "stratum": "",
                    "avoided": [],
                }
            )
    return Dataset.from_list(found, features=EXAMPLE_FEATURES)


def test_the_sample_of_an_axis_depends_on_no_other_axis():
    every = examples(60)
    some = sample(every, 5, seed=0)
    axis = np.array(some["axis"][:])
    assert {value: int((axis == value).sum()) for value in AXES} == dict(zip(AXES, (5, 5, 10), strict=True))
    pairs = np.array(some["pair_id"][:])[axis == "sentiment_following"]
    assert (np.unique(pairs, return_counts=True)[1] == 2).all()
    alone = every.filter(lambda row: row["axis"] == "fine_grained_steering")
    chosen = [user for user, value in zip(some["user_id"], axis, strict=True) if value == "fine_grained_steering"]
    assert sample(alone, 5, seed=0)["user_id"][:] == chosen != sample(alone, 5, seed=1)["user_id"][:]


def test_everybody_gets_the_preferences_of_another():
    before = examples(60)
    after = shuffle_preferences(before, seed=1)
    assert after.features == before.features and after.column_names == before.column_names
    for name in set(before.column_names) - {"preferences", "avoid"}:
        assert after[name][:] == before[name][:]
    given, own = after["preferences"][:], before["preferences"][:]
    assert all(new != old for new, old in zip(given, own, strict=True))
    for axis in AXES:
        rows = [row for row, value in enumerate(before["axis"]) if value == axis]
        assert sorted(given[row] for row in rows) == sorted(own[row] for row in rows)


def test_both_halves_of_a_pair_come_from_the_same_pair():
    before = examples(60)
    after = shuffle_preferences(before, seed=2)
    received = {}
    for pair, sentiment, texts in zip(after["pair_id"], after["sentiment"], after["preferences"], strict=True):
        if pair >= 0:
            source, own_sentiment = texts[0].removeprefix("p").split("-")
            assert own_sentiment == sentiment
            received.setdefault(pair, set()).add(source)
    assert [texts[0][1:] for texts in after["preferences"]] == [texts[0][1:] for texts in after["avoid"]]
    assert received and all(len(sources) == 1 for sources in received.values())


class Items:
    """Stands for a processor: ids are item indices as text."""

    @staticmethod
    def item_indices(ids):
        return [int(one) for one in ids]


@pytest.mark.parametrize("seed", range(3))
def test_fit_is_the_share_of_items_with_a_taste_of_the_history(seed):
    rng = np.random.default_rng(seed)
    count = 60
    aspects = [sorted({f"a{n}" for n in rng.integers(40, size=3)} | {"everywhere"}) for _ in range(count)]
    items = Dataset.from_dict({"item_id": list(map(str, range(count))), "aspects": aspects})
    histories = [[str(n) for n in rng.integers(count, size=rng.integers(0, 20))] for _ in range(30)]
    sentiments = [("negative", "positive")[n] for n in rng.integers(2, size=30)]
    ranked = np.stack([rng.permutation(count)[:10] for _ in range(30)])
    ranked[:, 9] = -1
    examples = Dataset.from_dict({"history": histories, "sentiment": sentiments})
    holding = {name: sum(name in own for own in aspects) for own in aspects for name in own}
    shares = {5: [], 10: []}
    for history, sentiment, row in zip(histories, sentiments, ranked, strict=True):
        bought = [name for item in history for name in aspects[int(item)]]
        tastes = {name for name in bought if bought.count(name) >= 2 and holding[name] <= count / 10}
        if sentiment == "negative" and tastes:
            for k, found in shares.items():
                found.append(sum(bool(tastes & set(aspects[item])) for item in row[:k] if item >= 0) / k)
    assert shares[5]
    found = fit_to_history(ranked, examples, items, Items())
    assert found == {
        "fit@5": pytest.approx(np.mean(shares[5])),
        "fit@10": pytest.approx(np.mean(shares[10])),
        "n_fit": len(shares[5]),
    }
    assert fit_to_history(ranked, examples, items.rename_columns({"aspects": "tags"}), Items()) == {}


@pytest.fixture(scope="module")
def small(tiny_encoder, tmp_path_factory):
    """A small shop, popularity on it, and the folder where both were made."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("preference_benchmark.hub.plots.draw", lambda *arguments: None)
        options = {"num_users": 80, "num_items": 60}
        data = load_benchmark_data("corner-shop", None, tiny_encoder, options=options, evaluation_wishes=120)
        method = new_method(choose_preset("popularity"), data, tiny_encoder, seed=0)
        fit(method, data, folder / "checkpoints")
    return data, method, folder


@pytest.mark.parametrize("name", ["popularity", "text-search", pytest.param("mender-emb", marks=pytest.mark.slow)])
def test_recommendation_is_asked_once_more_without_a_preference(name, small, tiny_encoder, monkeypatch):
    data, method, folder = small
    monkeypatch.chdir(folder)
    if name != "popularity":
        method = new_method(choose_preset(name), data, tiny_encoder, seed=0)
    scores, ranks = score_model(method.model, method.processor, data, name, 20, 0)
    matched, silent = (ranks.filter(matching=mode, condition="") for mode in ("oracle", "silent"))
    assert silent.select("axis", "user_id", "target").equals(matched.select("axis", "user_id", "target"))
    assert silent.height == 20 and ranks.filter(pl.col("condition") != "", matching="silent").is_empty()
    rows = [score.row for score in scores if score.method == name]
    modes = ["recommendation (oracle)", "recommendation (last)", "recommendation (silent)"]
    assert [row for row in rows if row.startswith("recommendation")] == modes
    if name == "popularity":  # reads no preference
        assert silent["rank"].equals(matched["rank"])


def test_wishes_are_scored_by_stratum_against_all_relevant_items(small):
    data, method, _ = small
    scores, ranks = score_model(method.model, method.processor, data, "popularity", None, 0, shuffled=False)
    by_row = {score.row: score for score in scores}
    wishes = data.examples["oracle"]["test"].to_polars().filter(pl.col("axis") == "open_wishes")
    for stratum in wishes["stratum"].unique():
        own = ranks.filter(axis="open_wishes", stratum=stratum)
        assert own.height == wishes.filter(stratum=stratum).height
        expected = [
            sum(rank <= min(relevant, 10) for rank in ranked) / min(relevant, 10)
            for ranked, relevant in own.select("found", "relevant").iter_rows()
        ]
        assert by_row[f"open wishes ({stratum})"].results["r_precision@10"] == pytest.approx(np.mean(expected))
    avoiding = [score for score in scores if score.axis == "wish_and_avoid"]
    assert avoiding and all("avoided@10" in score.results for score in avoiding)
    assert "fit@10" in by_row["sentiment with history"].results
