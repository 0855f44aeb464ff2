"""The metric against a second, plain implementation; what it accepts, what it refuses, and how `evaluate` uses it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import combinations
from pathlib import Path

import evaluate
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from huggingface_hub import SpaceCard
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from sklearn.metrics import ndcg_score

FOLDER = Path(__file__).parents[2] / "metrics" / "preference_discerning"
PAIR = {"axes": ["sentiment_following"] * 2, "sentiments": ["positive", "negative"], "pair_ids": [0, 0]}
PAIRED = ("sentiment_following", "sentiment_following_with_history")
KS = (1, 3, 10)


@cache
def metric_class() -> type[evaluate.Metric]:
    return type(evaluate.load(str(FOLDER)))


def load(config: str | None = None) -> evaluate.Metric:
    # In memory: metrics on disk wait for one another's file locks.
    return metric_class()(config, keep_in_memory=True)


def score(metric: evaluate.Metric | None = None, **inputs) -> dict:
    """Figures without the warnings about odd lists."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (metric or load()).compute(**inputs)


@pytest.fixture(scope="module")
def module():
    return sys.modules[metric_class().__module__]


def random_examples(seed: int, size: int = 40, items: int = 12) -> dict[str, list]:
    """Ranked lists with repeats, of any length, empty ones included; several relevant and some avoided items each."""
    rng = np.random.default_rng(seed)
    names = [f"i{j}" for j in range(items)]
    examples: dict[str, list] = {"predictions": [], "references": [], "avoided": []}
    for _ in range(size):
        order = rng.permutation(names).tolist()
        relevant, avoided = rng.integers(1, 5), rng.integers(0, 3)
        examples["predictions"].append(rng.choice(names, rng.integers(0, 16)).tolist())
        examples["references"].append(order[:relevant])
        examples["avoided"].append(order[relevant : relevant + avoided])
    return examples


def graded(references: list[list], seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [{item: float(rng.integers(1, 4)) for item in items} for items in references]


def accuracy(ranking: list, relevant: Mapping | list | str, k: int) -> dict[str, float]:
    """Figures of one example, step by step through its list."""
    grades = relevant if isinstance(relevant, Mapping) else dict.fromkeys(np.atleast_1d(relevant).tolist(), 1)
    ranking = list(dict.fromkeys(ranking))
    dcg = ap = mrr = 0.0
    found = 0
    for rank, item in enumerate(ranking[:k], 1):
        if item in grades:
            found += 1
            dcg += grades[item] / math.log2(rank + 1)
            ap += found / rank
            mrr = mrr or 1 / rank
    ideal = sum(grade / math.log2(rank + 1) for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:k], 1))
    depth = min(k, len(grades))
    return {
        "recall": found / len(grades),
        "ndcg": dcg / ideal,
        "mrr": mrr,
        "map": ap / len(grades),
        "hit_rate": float(found > 0),
        "r_precision": sum(item in grades for item in ranking[:depth]) / depth,
    }


def mean_accuracy(predictions: list, references: list, ks: tuple[int, ...] = KS) -> dict[str, float]:
    figures: dict[str, float] = {}
    for k in ks:
        each = [accuracy(ranking, relevant, k) for ranking, relevant in zip(predictions, references, strict=True)]
        figures |= {f"{name}@{k}": sum(one[name] for one in each) / len(each) for name in each[0]}
    return figures


def list_figures(predictions: list, ks: tuple[int, ...] = KS, catalogue: int | None = None) -> dict[str, float]:
    figures: dict[str, float] = {}
    for k in ks:
        lists = [set(list(dict.fromkeys(ranking))[:k]) for ranking in predictions]
        counts = Counter(item for items in lists for item in items)
        figures[f"aggregate_diversity@{k}"] = len(counts)
        figures[f"hubness@{k}"] = max(counts.values(), default=0) / len(lists)
        pairs = list(combinations(lists, 2))
        if pairs:
            possible = sum(min(len(a), len(b)) for a, b in pairs)
            figures[f"overlap@{k}"] = sum(len(a & b) for a, b in pairs) / possible if possible else 0
        if catalogue:
            values = np.array(sorted(counts.values()) + [0] * (catalogue - len(counts)), float)
            difference = np.abs(values[:, None] - values[None, :]).sum()
            total, spread = values.sum(), values.std()
            figures[f"coverage@{k}"] = len(counts) / catalogue
            figures[f"gini@{k}"] = difference / (2 * (catalogue - 1) * total) if total else 0
            figures[f"skewness@{k}"] = ((values - values.mean()) ** 3).mean() / spread**3 if spread else 0
    return figures


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("form", ["one", "several", "graded"])
def test_figures_equal_those_of_a_plain_implementation(form, seed):
    examples = random_examples(seed)
    predictions, references = examples["predictions"], examples["references"]
    if form != "several":
        references = [items[0] for items in references] if form == "one" else graded(references, seed)
    result = score(predictions=predictions, references=references, ks=KS, n_resamples=0, catalogue=20)
    expected = {"n": 40} | mean_accuracy(predictions, references) | list_figures(predictions, catalogue=20)
    assert result == pytest.approx(expected)


def test_avoided_items_are_counted_over_the_examples_that_name_some():
    examples = random_examples(7)
    result = score(**examples, ks=[3], n_resamples=0)
    counts = [
        len(set(list(dict.fromkeys(ranking))[:3]) & set(avoided))
        for ranking, avoided in zip(examples["predictions"], examples["avoided"], strict=True)
        if avoided
    ]
    assert 0 < len(counts) < 40 and 0 < sum(counts)
    found = [result[name] for name in ("n_avoided", "avoided@3", "avoid@3")]
    assert found == pytest.approx([len(counts), np.mean(counts), np.mean(np.equal(counts, 0))])
    assert result["n"] == 40 and "n_avoided" not in score(**{**examples, "avoided": None}, ks=[3])


def test_ndcg_equals_scikit_learn():
    rng = np.random.default_rng(0)
    predictions, grades = rng.permuted(np.tile(np.arange(20), (50, 1)), axis=1), rng.integers(4, size=(50, 20))
    grades[:, 0] = 1
    scores = np.empty((50, 20))
    np.put_along_axis(scores, predictions, np.arange(20, 0, -1)[None].repeat(50, 0).astype(float), axis=1)
    references = [dict(enumerate(row)) for row in grades]
    result = load().compute(predictions=predictions, references=references, ks=[5, 10])
    for k in (5, 10):
        assert result[f"ndcg@{k}"] == pytest.approx(ndcg_score(grades, scores, k=k))


def test_accuracy_equals_trec_eval():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    examples = random_examples(3, size=60)
    predictions = [list(dict.fromkeys(ranking)) for ranking in examples["predictions"]]
    references = [{item: int(grade) for item, grade in row.items()} for row in graded(examples["references"], 3)]
    run = {str(i): {item: 99.0 - rank for rank, item in enumerate(r)} or {"-": 0.0} for i, r in enumerate(predictions)}
    measures = {"recall.3,10", "ndcg_cut.3,10", "map_cut.3,10", "success.3,10"}
    qrels = {str(i): row for i, row in enumerate(references)}
    evaluated = pytrec_eval.RelevanceEvaluator(qrels, measures | {"recip_rank", "Rprec"}).evaluate(run)
    result = score(predictions=predictions, references=references, ks=[3, 10, 20], n_resamples=0)
    ours = {"recall": "recall", "ndcg": "ndcg_cut", "map": "map_cut", "hit_rate": "success"}
    for name, theirs in ours.items():
        for k in (3, 10):
            assert result[f"{name}@{k}"] == pytest.approx(np.mean([own[f"{theirs}_{k}"] for own in evaluated.values()]))
    for name, theirs in {"mrr@20": "recip_rank", "r_precision@20": "Rprec"}.items():
        assert result[name] == pytest.approx(np.mean([own[theirs] for own in evaluated.values()]))


def test_the_best_list_has_full_marks_and_items_of_grade_zero_are_not_relevant():
    result = load().compute(predictions=[["a", "b", "c"]], references=[{"b": 1, "a": 3, "c": 0}], ks=[3], n_resamples=0)
    figures = ("recall", "ndcg", "mrr", "map", "hit_rate", "r_precision")
    assert [result[f"{name}@3"] for name in figures] == [1] * 6
    swapped = load().compute(predictions=[["b", "a", "c"]], references=[{"b": 1, "a": 3}], ks=[3], n_resamples=0)
    assert 0.7 < swapped["ndcg@3"] < 0.9


def test_lists_that_are_all_alike_and_lists_that_share_nothing():
    alike = load().compute(predictions=[[1, 2]] * 3, references=[1] * 3, ks=[2], catalogue=4, n_resamples=0)
    figures = ("aggregate_diversity", "overlap", "hubness", "coverage")
    assert [alike[f"{name}@2"] for name in figures] == [2, 1, 1, 0.5]
    apart = load().compute(predictions=[[1, 2], [3, 4]], references=[1] * 2, ks=[2], catalogue=[1, 2, 3, 4])
    assert [apart[f"{name}@2"] for name in (*figures, "gini", "skewness")] == [4, 0, 0.5, 1, 0, 0]
    hub = load().compute(predictions=[[1]] * 9, references=[1] * 9, ks=[1], catalogue=50, n_resamples=0)
    assert hub["gini@1"] == pytest.approx(1) and hub["skewness@1"] > 6
    short = score(predictions=[[1, 2]] * 2, references=[1] * 2, ks=[10], n_resamples=0)
    assert short["overlap@10"] == 1, "what lists lack is not a difference between them"
    assert "overlap@10" not in score(predictions=[[1, 2]], references=[1])


@pytest.mark.parametrize(
    ("positive", "negative", "m", "avoid", "recall"),
    [("in", "out", 1, 1, 1), ("in", "in", 0, 0, 1), ("out", "out", 0, 1, 0), ("out", "in", 0, 0, 0)],
)
def test_pairs_succeed_only_when_found_and_avoided(positive, negative, m, avoid, recall):
    lists = {"in": ["x", "t", "y"], "out": ["x", "y", "t"]}
    result = score(predictions=[lists[positive], lists[negative]], references=["t", "t"], ks=2, **PAIR)
    found = {name: result[f"sentiment_following/{name}@2"] for name in ("m", "avoid", "recall")}
    assert found == {"m": m, "avoid": avoid, "recall": recall}
    assert result["sentiment_following/n"] == 1
    plain = {name: column for name, column in PAIR.items() if name != "axes"}
    assert score(predictions=[lists[positive], lists[negative]], references=["t", "t"], ks=2, **plain)["m@2"] == m


def example_table(module, seed: int = 0) -> dict[str, list]:
    """All axes at once, pairs scattered among the other examples; both paired axes number their pairs alike."""
    rng = np.random.default_rng(seed)
    examples = random_examples(seed, size=24 * len(module.AXES))
    axes = [axis for axis in module.AXES for _ in range(24)]
    paired = [axis in PAIRED for axis in axes]
    references = examples["references"]
    table = {
        "predictions": examples["predictions"],
        "references": [references[i - i % 2] if pair else references[i] for i, pair in enumerate(paired)],
        "axes": axes,
        "sentiments": ["negative" if pair and i % 2 else "positive" for i, pair in enumerate(paired)],
        "pair_ids": [i % 24 // 2 if pair else -1 for i, pair in enumerate(paired)],
        "avoided": [None if pair else items for pair, items in zip(paired, examples["avoided"], strict=True)],
    }
    return permuted(table, rng.permutation(len(axes)))


def permuted(table: dict[str, list], order) -> dict[str, list]:
    return {name: [column[i] for i in order] for name, column in table.items()}


def test_axes_equal_example_by_example(module):
    table = example_table(module)
    result = score(**table, ks=[2, 4], n_resamples=0)
    for axis in module.AXES:
        rows = [i for i, name in enumerate(table["axes"]) if name == axis]
        positive = [i for i in rows if table["sentiments"][i] == "positive"]
        expected = mean_accuracy(
            *([table[name][i] for i in positive] for name in ("predictions", "references")), (2, 4)
        )
        expected |= list_figures([table["predictions"][i] for i in rows], (2, 4)) | {"n": len(positive)}
        assert {name: result[f"{axis}/{name}"] for name in expected} == pytest.approx(expected)
    for axis in PAIRED:
        hits: dict[int, dict[str, bool]] = {}
        for i in (i for i, name in enumerate(table["axes"]) if name == axis):
            hit = accuracy(table["predictions"][i], table["references"][i], 4)["hit_rate"] > 0
            hits.setdefault(table["pair_ids"][i], {})[table["sentiments"][i]] = hit
        won = [pair["positive"] and not pair["negative"] for pair in hits.values()]
        assert 0 < sum(won) < len(won)
        assert result[f"{axis}/m@4"] == pytest.approx(sum(won) / len(won))


def test_figures_by_kind_and_by_groups_of_ones_own():
    lists = {"predictions": [["a"], ["b"], ["a"], ["b"]], "references": ["a"] * 4}
    kinds = ["stated", "stated", "silent", "silent"]
    by_kind = score(**lists, kinds=kinds, ks=1, n_resamples=0)
    assert [by_kind[f"{kind}/recall@1"] for kind in ("stated", "silent")] == [0.5, 0.5]
    axes = ["new customers", "recommendation"] * 2
    both = score(**lists, axes=axes, kinds=kinds, ks=1, n_resamples=0)
    assert [both[f"{name}/recall@1"] for name in ("recommendation/stated", "new customers/stated")] == [0, 1]
    assert next(iter(both)) == "recommendation/stated/n", "axes of the benchmark come first"


def test_batches_of_any_size_give_one_result(module):
    table, metric = example_table(module), load()
    for start, stop in ((0, 7), (7, 8), (8, 100)):
        metric.add_batch(**{name: column[start:stop] for name, column in table.items()})
    for i in range(100, len(table["axes"])):
        single = {name: column[i] for name, column in table.items()}
        metric.add(prediction=single.pop("predictions"), reference=single.pop("references"), **single)
    assert score(metric) == score(**table)


FORMS = {
    "lists of integers": lambda rows: rows,
    "tuples": lambda rows: [tuple(row) for row in rows],
    "an array": np.array,
    "an array of the largest integers": lambda rows: np.array(rows, np.uint64),
    "an array of objects": lambda rows: np.array(rows, object),
    "a list of arrays": lambda rows: [np.array(row) for row in rows],
    "scalars of numpy": lambda rows: [list(map(np.int32, row)) for row in rows],
    "a tensor": torch.tensor,
    "scalars of torch": lambda rows: [[torch.tensor(item) for item in row] for row in rows],
    "a series of pandas": pd.Series,
    "a series of polars": pl.Series,
    "an array of Arrow": pa.array,
    "text": lambda rows: [[f"{item:03d}" for item in row] for row in rows],
    "text of numpy": lambda rows: [[np.str_(item) for item in row] for row in rows],
    "an array of text": lambda rows: np.array(rows).astype(str),
    "integers beyond 64 bits": lambda rows: [[item + 2**80 for item in row] for row in rows],
    "some integers beyond 64 bits": lambda rows: [[item + 2**63 - 15 for item in row] for row in rows],
}


@pytest.mark.parametrize("form", FORMS)
def test_ids_may_come_in_any_form(form):
    rng = np.random.default_rng(1)
    rows = rng.integers(30, size=(25, 10)).tolist()
    relevant, avoided = (rng.integers(low, low + 15, size=(25, 3)).tolist() for low in (0, 15))
    plain = score(predictions=rows, references=relevant, avoided=avoided, ks=3)
    convert = FORMS[form]
    assert score(predictions=convert(rows), references=convert(relevant), avoided=convert(avoided), ks=3) == plain
    alone = convert([[row[0]] for row in relevant])
    alone = [row[0] for row in alone] if isinstance(alone, list) else alone
    assert score(predictions=convert(rows), references=alone, ks=3) == score(
        predictions=rows, references=[row[0] for row in relevant], ks=3
    )


def test_padding_and_missing_ids_are_left_out():
    plain = load().compute(predictions=[[4, 6, 7], [3, 5]], references=[[6, 4], [5]], avoided=[[], 3], ks=2)
    for gap in (-1, -100, None):
        lists = [[gap, 4, 6, 7, gap], [3, 5, gap, gap, gap]]
        padded = {"predictions": lists, "references": [[6, 4, gap], [5, gap, gap]], "avoided": [gap, [3, gap]]}
        assert load().compute(**padded, ks=2) == plain
    assert score(predictions=[None, []], references=[1, 2], ks=2)["hubness@2"] == 0
    texts = {"predictions": [["a"], ["b"]], "references": ["a", "c"], "ks": 1, "n_resamples": 0}
    assert score(**texts, avoided=[-3, None]) == score(**texts, avoided=[None, None])


def test_ids_of_two_types_are_refused_even_where_one_does_not_count():
    with pytest.raises(ValueError, match=r"references holds 7 \(an integer\) and predictions holds 'a' \(text\)"):
        score(predictions=[["a"]], references=[{"a": 1, 7: 0}], ks=1)


def test_unlike_ids_are_unlike():
    pairs = [("a\0", "a"), ("", "\0"), ("é", "e\u0301"), ("\ud800", "\udfff"), ("a", "A"), ("7", "07")]
    for one, other in pairs:
        for item, hit in ((one, 1), (other, 0)):
            result = score(predictions=[[item, "x"]], references=[one], ks=2, n_resamples=0)
            assert result["recall@2"] == hit, (one, other)
    for one, other in ((2**63, 2**63 - 1), (2**64, 0), (10**5000, 10**5000 + 1)):
        assert score(predictions=[[one, other]], references=[other], ks=1)["recall@1"] == 0


def test_one_long_id_does_not_cost_its_length_for_every_other():
    ids = [f"i{i}" for i in range(20_000)]
    inputs = {"predictions": [[item, "x" * 20_000] for item in ids], "references": ids}
    metric = load()
    tracemalloc.start()
    try:
        assert score(metric, **inputs, ks=1, n_resamples=10)["recall@1"] == 1
        assert tracemalloc.get_traced_memory()[1] < 100e6  # fixed-width text would take 3.2 GB
    finally:
        tracemalloc.stop()


IDS = st.one_of(st.text(max_size=3), st.integers(0, 2**70))
EXAMPLES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), max_size=8),
        st.lists(st.integers(0, 6), min_size=1, max_size=4, unique=True),
        st.lists(st.integers(7, 9), max_size=2, unique=True),
    ),
    min_size=1,
    max_size=12,
)


def inputs_of(examples: list[tuple]) -> dict[str, list]:
    return dict(zip(("predictions", "references", "avoided"), map(list, zip(*examples, strict=True)), strict=True))


@given(examples=EXAMPLES, data=st.data())
@tries(25)
def test_neither_order_nor_names_nor_padding_of_items_matter(examples, data):
    inputs = inputs_of(examples)
    plain = score(**inputs, ks=[1, 3], n_resamples=50, catalogue=12)
    order = data.draw(st.permutations(range(len(examples))))
    assert score(**permuted(inputs, order), ks=[1, 3], n_resamples=50, catalogue=12) == pytest.approx(plain, abs=1e-12)
    kind = data.draw(st.sampled_from([st.text(max_size=3), st.integers(0, 2**70)]))
    names = data.draw(st.lists(kind, min_size=10, max_size=10, unique=True))
    renamed = {name: [[names[item] for item in items] for items in column] for name, column in inputs.items()}
    assert score(**renamed, ks=[1, 3], n_resamples=50, catalogue=12) == plain
    padding = data.draw(st.sampled_from([-1, -100, None]))
    padded = {name: [[*items, padding] for items in column] for name, column in inputs.items()}
    assert score(**padded, ks=[1, 3], n_resamples=50, catalogue=12) == plain
    with_grades = {**inputs, "references": [dict.fromkeys(items, 2.5) for items in inputs["references"]]}
    assert score(**with_grades, ks=[1, 3], n_resamples=50, catalogue=12) == pytest.approx(plain)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**66),
    st.floats(),
    st.text(max_size=2),
    st.binary(max_size=2),
    st.just(object()),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.integers(0, 3), st.floats(), max_size=2),
)


@given(
    name=st.sampled_from(["predictions", "references", "axes", "kinds", "sentiments", "pair_ids", "avoided"]),
    column=st.one_of(JUNK, st.lists(JUNK, min_size=1, max_size=3), st.lists(st.lists(JUNK, max_size=2), max_size=3)),
)
@tries(150)
def test_columns_are_scored_or_refused_by_name(name, column):
    inputs = {"predictions": [[1, 2], [2, 3]], "references": [1, 1], name: column}
    try:
        result = score(**inputs, n_resamples=5)
    except ValueError as error:
        assert name in str(error), error
    else:
        assert all(math.isfinite(value) for value in result.values())


@given(
    name=st.sampled_from(["ks", "confidence", "n_resamples", "seed", "catalogue"]),
    value=st.one_of(JUNK, st.lists(JUNK, max_size=2)),
)
@tries(100)
def test_settings_are_used_or_refused_by_name(name, value):
    try:
        score(predictions=[[1, 2], [2, 3]], references=[1, 1], **{"n_resamples": 5, name: value})
    except ValueError as error:
        assert name in str(error), error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": [3, 3]}, r"axes\[0\] is 3; expected a name such as 'recommendation'"),
        ({"axes": [["a"], ["b"]]}, r"axes\[0\] is \['a'\]"),
        ({"axes": ["a", None], "pair_ids": None, "sentiments": None}, "axes is missing for example 1"),
        ({"axes": ["a", "\ud800"]}, "axes holds '.*, which is not valid Unicode"),
        ({"kinds": ["stated", "typed"]}, r"kinds\[1\] is 'typed'; expected 'stated' or 'inferred' or 'silent'"),
        ({"sentiments": ["positive", "neutral"]}, r"sentiments\[1\] is 'neutral'; expected 'positive' or 'negative'"),
        ({"pair_ids": [0, 1]}, "pair_ids: pair 0 does not have two examples"),
        ({"pair_ids": [-1, -1]}, "sentiments is 'negative' for example 1, which has no pair"),
        ({"pair_ids": None}, "sentiments is 'negative' for example 1, which has no pair"),
        ({"pair_ids": [0, None], "sentiments": None}, "pair_ids is missing for example 1"),
        ({"sentiments": ["negative", "negative"]}, "pair_ids: pair 0 has two examples of one sentiment"),
        ({"references": ["a", "b"]}, "pair_ids: pair 0 has different references"),
        ({"references": ["a"]}, "differ in length.*'references': 1"),
        ({"pair_ids": [0]}, "differ in length.*'pair_ids': 1"),
        ({"axes": ["recommendation", "fine_grained_steering"]}, "pair_ids: pair 0 does not have two examples"),
        ({"avoided": ["b", None]}, "avoided names items for example 0, which has a pair"),
        ({"predictions": [["a", "b"], ["b", float("nan")]]}, r"predictions\[1\] holds nan, a float"),
        ({"predictions": [[1.0, 2.5], [1.0, 2.0]]}, r"predictions\[0\] holds 1.0, a float"),
        ({"predictions": [["x"], [True]]}, r"predictions\[1\] holds True, a bool"),
        ({"predictions": [[b"x"], ["y"]]}, r"predictions\[0\] holds b'x', a bytes"),
        ({"predictions": [[["x"]], ["y"]]}, r"predictions\[0\] holds \['x'\], a list"),
        (
            {"predictions": [["1", 2], ["1", 2]]},
            r"predictions holds 2 \(an integer\) and predictions holds '1' \(text\)",
        ),
        ({"predictions": [[1, 2]] * 2}, r"predictions holds 1 \(an integer\) and references holds 'a' \(text\)"),
        ({"predictions": [[-1, 2, -2]] * 2}, "predictions holds the negative integers -1 and -2"),
        ({"predictions": ["a", "b"]}, r"predictions\[0\] is 'a'; expected a ranked list"),
        ({"predictions": [1, 2]}, r"predictions\[0\] is 1; expected a ranked list"),
        ({"predictions": [["a"], {"a": 1}]}, r"predictions\[1\] is {'a': 1}; expected a ranked list"),
        ({"predictions": [{"a"}, {"b"}]}, r"predictions\[0\] is {'a'}; expected a ranked list"),
        ({"predictions": {"a": ["b"]}}, "predictions is {'a': .*; expected a list with one value per example"),
        ({"references": "aa"}, "references is 'aa'; expected a list with one value per example"),
        ({"references": ["a", []]}, r"references\[1\] is \[\], without a relevant item"),
        ({"references": ["a", None]}, r"references\[1\] is None, without a relevant item"),
        ({"references": [{"a": 1}, {"a": 0}]}, r"references\[1\] is {'a': 0}, without a relevant item"),
        ({"references": [{"a": 1}, "a"]}, r"references\[1\] is 'a'; expected a mapping from id to grade"),
        ({"references": [{"a": 1}, {"a": -1}]}, r"references\[1\] has the grade -1"),
        ({"references": [{"a": "high"}, {"a": 1}]}, r"references\[0\] has the grade 'high'"),
        ({"references": [float("nan"), "a"]}, r"references\[0\] holds nan"),
        ({"avoided": [{"b": 1}, None]}, r"avoided\[0\] is {'b': 1}; expected an id or a list of ids"),
        ({"avoided": ["a", None]}, "references and avoided name the same item for example 0"),
        ({"ks": 0}, "ks=0; expected integers from 1"),
        ({"ks": [5, -1]}, r"ks=\[5, -1\]"),
        ({"ks": [2.5]}, r"ks=\[2.5\]"),
        ({"ks": []}, r"ks=\[\]"),
        ({"ks": "10"}, "ks='10'"),
        ({"k": 5}, r"unknown argument k=5; cut-offs are ks=\[5, 10\]"),
        ({"labels": [1]}, r"unknown argument labels=\[1\]; known are predictions, references"),
        ({"confidence": 95}, "confidence=95; expected a number between 0 and 1"),
        ({"confidence": "high"}, "confidence='high'"),
        ({"n_resamples": -1}, "n_resamples=-1"),
        ({"n_resamples": 10**12}, "n_resamples=1000000000000; expected an integer from 0 to 1,000,000"),
        ({"seed": None}, "seed=None"),
        ({"seed": -1}, "seed=-1"),
        ({"catalogue": 0}, "catalogue=0; expected the number of items"),
        ({"catalogue": ["a", None]}, r"catalogue=\['a', None\]"),
        ({"catalogue": ["a"]}, "predictions holds 'b', which catalogue does not list"),
        ({"catalogue": 2}, "catalogue=2, but predictions holds 3 different items"),
    ],
)
def test_malformed_input_is_refused_with_the_reason(change, message):
    inputs = {"predictions": [["a", "b"], ["b", "c"]], "references": ["a", "a"], **PAIR} | change
    with pytest.raises(ValueError, match=message):
        score(**inputs)


def test_ids_of_two_types_in_two_batches_are_refused():
    metric = load()
    metric.add_batch(predictions=[["7"]], references=["7"])
    metric.add_batch(predictions=[[7]], references=[7])
    with pytest.raises(ValueError, match="predictions holds 7 .an integer. and predictions holds '7' .text."):
        score(metric)


def test_no_examples_and_unknown_configuration_are_refused():
    with pytest.raises(ValueError, match="predictions is empty"):
        load().compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="references is None"):
        load().compute(predictions=[["a"]])
    with pytest.raises(ValueError, match="no examples.*or call add_batch before"):
        load().compute()
    with pytest.raises(ValueError, match="unknown configuration 'beauty'"):
        evaluate.load(str(FOLDER), "beauty")


def test_a_metric_can_be_used_again_after_it_refused_examples(tmp_path):
    metric = evaluate.load(str(FOLDER), cache_dir=str(tmp_path))
    good = {"predictions": [["a", "b"]], "references": ["a"]}
    for wrong in ({"references": [[]]}, {"sentiments": ["negative"]}, {"ks": 0}):
        with pytest.raises(ValueError):
            score(metric, **good | wrong)
        assert score(metric, **good)["recall@5"] == 1
    assert len(list(tmp_path.rglob("*.arrow"))) <= 1, "a file that stays locked makes the next one take another"


def test_short_lists_and_repeated_items_are_scored_with_a_warning():
    with pytest.warns(UserWarning, match="1 of 2 ranked lists hold fewer than k=2"):
        result = load().compute(predictions=[["a"], ["b", "a"]], references=["a", "a"], ks=[2])
    assert result["recall@2"] == 1
    with pytest.warns(UserWarning, match="1 of 2 ranked lists name an item more than once"):
        result = load().compute(predictions=[[4, 4, 7], [5, 7, 6]], references=[7, 7], ks=[2], n_resamples=0)
    assert result["recall@2"] == 1


def test_bootstrap_equals_resampling_of_examples(module):
    rng = np.random.default_rng(0)
    values = rng.choice([0, 0.5, 1, 1 / 3], size=(200, 1))
    low, high = module.bootstrap_interval(values, n_resamples=20_000)
    means = values[rng.integers(200, size=(20_000, 200)), 0].mean(axis=1)
    assert [low[0], high[0]] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says(module):
    rng, covered = np.random.default_rng(0), 0
    for seed in range(300):
        sample = (rng.random((150, 1)) < 0.3).astype(float)
        low, high = module.bootstrap_interval(sample, confidence=0.9, n_resamples=400, seed=seed)
        covered += low[0] <= 0.3 <= high[0]
    assert 0.84 <= covered / 300 <= 0.96


def test_bootstrap_of_units_equals_resampling_of_units(module):
    rng = np.random.default_rng(1)
    unit = rng.integers(0, 40, size=300) ** 2 % 61  # some come up more often
    values = (rng.random(unit.max() + 1)[unit] < 0.4).astype(float)  # and agree within themselves
    low, high = module.bootstrap_interval(values[:, None], units=unit.astype(str), n_resamples=20_000)
    groups = [values[unit == name] for name in np.unique(unit)]
    drawn = [
        np.concatenate([groups[row] for row in rng.integers(len(groups), size=len(groups))]).mean() for _ in range(5000)
    ]
    assert [low[0], high[0]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
    alone, least = module.bootstrap_interval(values[:, None], n_resamples=20_000)
    assert high[0] - low[0] > 1.5 * (least[0] - alone[0])
    each = module.bootstrap_interval(values[:, None], units=np.arange(300), n_resamples=500)
    assert np.array_equal(each, module.bootstrap_interval(values[:, None], n_resamples=500))


def test_differences_are_paired(module):
    one = np.random.default_rng(0).random(100)
    low, high = module.bootstrap_interval(np.column_stack([one, one + 0.01, one + 0.01 - one]), n_resamples=500)
    assert low[2] == pytest.approx(0.01) == high[2] and high[0] - low[0] > 0.05


def test_examples_of_a_chosen_target_are_drawn_together(module):
    def width(axis, targets):
        paired = axis in PAIRED
        columns: dict[str, list] = {
            name: [] for name in ("predictions", "references", "axes", "sentiments", "pair_ids")
        }
        for row, target in enumerate(targets):
            for sentiment in ("positive", "negative") if paired else ("positive",):
                found = sentiment == "positive" and target < "t5"
                columns["predictions"].append([target if found else "x"])
                columns["references"].append([target, f"{target}, too"])
                columns["axes"].append(axis)
                columns["sentiments"].append(sentiment)
                columns["pair_ids"].append(row if paired else -1)
        found = load().compute(**columns, ks=[1])
        figure = f"{axis}/{'m' if paired else 'hit_rate'}@1"
        return found[f"{figure}/high"] - found[f"{figure}/low"]

    many = [f"t{row % 10}" for row in range(100)]
    for axis in module.CHOSEN_AXES:
        assert width(axis, many) > 2.5 * width("recommendation", many)


def test_interval_encloses_the_mean_and_shrinks_with_confidence():
    examples = random_examples(3, size=60)
    wide, narrow = (score(**examples, ks=5, confidence=confidence) for confidence in (0.99, 0.5))
    for name in ("recall@5", "ndcg@5", "mrr@5", "map@5", "r_precision@5", "avoided@5", "avoid@5"):
        assert wide[f"{name}/low"] < narrow[f"{name}/low"] < wide[name]
        assert wide[name] < narrow[f"{name}/high"] < wide[f"{name}/high"]


def test_seed_decides_the_interval():
    examples = random_examples(3, size=60)
    runs = [score(**examples, ks=5, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_combine_merges_under_prefixes():
    both = evaluate.combine({"a": load(), "b": load()}, force_prefix=True)
    both.add_batch(predictions=[["x", "y"], ["y", "z"]], references=["x", "z"])
    result = both.compute(ks=[1], n_resamples=0)
    assert result["a_recall@1"] == result["b_recall@1"] == 0.5


def test_combine_scores_the_axes_of_two_metrics_at_once(module):
    table = {name: column for name, column in example_table(module).items() if name != "avoided"}
    alone = score(**table)
    both = evaluate.combine({"first": load("axes"), "second": load("axes")}, force_prefix=True)
    both.add_batch(**table)
    assert score(both) == {f"{name}_{figure}": value for name in ("first", "second") for figure, value in alone.items()}
    at_once = evaluate.combine({"first": load(), "second": load()}, force_prefix=True)
    assert score(at_once, **table).items() >= {f"second_{name}": value for name, value in alone.items()}.items()


def shard(rank: int, processes: int, experiment: str, table: dict[str, list], folder: str) -> dict | None:
    """What one of several processes does: its share of the examples, in batches."""
    metric = evaluate.load(
        str(FOLDER), num_process=processes, process_id=rank, experiment_id=experiment, cache_dir=folder
    )
    own = {name: column[rank::processes] for name, column in table.items()}
    for start in range(0, len(own["axes"]), 10):
        metric.add_batch(**{name: column[start : start + 10] for name, column in own.items()})
    return metric.compute()


@pytest.mark.parametrize("alone", [False, True])  # with one example, two of the three processes have none
def test_several_writers_give_the_first_one_the_result_of_all(alone, module, tmp_path):
    table = example_table(module)
    if alone:
        table = permuted(table, range(1)) | {"sentiments": ["positive"], "pair_ids": [None]}
    with ThreadPoolExecutor(3) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jobs = [pool.submit(shard, rank, 3, "threads", table, str(tmp_path)) for rank in range(3)]
        first, *others = [job.result(timeout=120) for job in jobs]
    assert first == pytest.approx(score(**table))
    assert others == [None, None]


PROCESS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_preference_discerning import shard
print(json.dumps(shard(int(sys.argv[2]), 2, "processes", json.load(open(sys.argv[3])), sys.argv[4])))
"""


@pytest.mark.slow
def test_several_processes_give_the_first_one_the_result_of_all(module, tmp_path):
    table = example_table(module)
    (tmp_path / "table.json").write_text(json.dumps(table))
    words = [Path(__file__).parent, "", tmp_path / "table.json", tmp_path / "cache"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, [words[0], rank, *words[2:]])], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    first, other = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in running]
    assert first == pytest.approx(score(**table)) and other is None


def test_results_are_saved_as_they_are(tmp_path):
    result = load().compute(predictions=[["a", "b"]], references=["b"], ks=[2])
    path = evaluate.save(tmp_path / "result.json", **result)
    assert result.items() <= json.loads(Path(path).read_text()).items()


def test_examples_of_the_card_run_and_print_what_they_say(monkeypatch, capsys):
    monkeypatch.chdir(FOLDER.parents[1])
    snippets = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    scope: dict = {}
    for snippet in snippets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(snippet, "README.md", "exec"), scope)
        expected = [line.split("  # ")[1] for line in snippet.splitlines() if line.startswith("print(")]
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) == len(expected)
        assert all(said == shown or said.startswith(f"{shown}:") for said, shown in zip(expected, printed, strict=True))
    assert len(snippets) == 6


def test_the_card_names_every_figure(module):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    result = score(**example_table(module), catalogue=20)
    names = {name.split("/")[1] for name in result}
    assert {name.replace("@5", "@k") for name in names if "@10" not in name} <= set(re.findall(r"`([\w@]+)`", card))


def test_the_card_is_that_of_a_gradio_space():
    card = SpaceCard.load(FOLDER / "README.md")
    assert card.data.sdk == "gradio" and (FOLDER / card.data.app_file).is_file()
    needed = (FOLDER / "requirements.txt").read_text().split()
    assert {re.split("[<>=]", line)[0] for line in needed} >= {"evaluate", "datasets", "gradio", "numpy", "pyarrow"}
    headings = re.findall(r"^##+ (.*)$", card.text, flags=re.MULTILINE)
    assert headings == [
        "Metric description",
        "How to use",
        "Inputs",
        "Output values",
        "Axes of the benchmark",
        "Examples",
        "What counts, and what is refused",
        "Limitations and bias",
        "Citation",
        "Further references",
    ]
