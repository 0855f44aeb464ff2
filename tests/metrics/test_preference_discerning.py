from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evaluate
import numpy as np
import pytest
from huggingface_hub import SpaceCard
from sklearn.metrics import ndcg_score

FOLDER = Path(__file__).parents[2] / "metrics" / "preference_discerning"
PAIR = {"axes": ["sentiment_following"] * 2, "sentiments": ["positive", "negative"], "pair_ids": [0, 0]}


def load(config: str = "default") -> evaluate.Metric:
    # In memory: modules on disk wait for one another's file locks, and a refused one keeps its own.
    return evaluate.load(str(FOLDER), config, keep_in_memory=True)


@pytest.fixture(scope="module")
def module():
    return sys.modules[type(load()).__module__]


def random_lists(rng: np.random.Generator, n: int, items: int = 12, longest: int = 15) -> tuple[list, list]:
    """Ranked lists with repeats and of any length, empty ones included."""
    lists = [[f"i{j}" for j in rng.integers(items, size=rng.integers(longest + 1))] for _ in range(n)]
    return lists, [f"i{j}" for j in rng.integers(items, size=n)]


def rank_by_hand(ranking: list, target: object) -> int | None:
    distinct = list(dict.fromkeys(ranking))
    return distinct.index(target) + 1 if target in distinct else None


def figures_by_hand(ranks: list[int | None], k: int) -> dict[str, float]:
    inside = [rank if rank is not None and rank <= k else None for rank in ranks]
    gains = {
        "recall": [1.0 if rank else 0.0 for rank in inside],
        "ndcg": [1 / math.log2(rank + 1) if rank else 0.0 for rank in inside],
        "mrr": [1 / rank if rank else 0.0 for rank in inside],
    }
    gains["map"] = gains["mrr"]
    return {f"{name}@{k}": sum(values) / len(values) for name, values in gains.items()}


def quiet(metric: evaluate.Metric, **inputs) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metric.compute(**inputs)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_equals_example_by_example(seed):
    predictions, references = random_lists(np.random.default_rng(seed), 40)
    result = quiet(load("ranking"), predictions=predictions, references=references, ks=[1, 3, 10], n_resamples=0)
    ranks = [rank_by_hand(ranking, target) for ranking, target in zip(predictions, references, strict=True)]
    expected = {"n": 40}
    for k in (1, 3, 10):
        expected |= figures_by_hand(ranks, k)
    assert result == pytest.approx(expected)


def test_ndcg_equals_scikit_learn():
    rng = np.random.default_rng(0)
    predictions, references = rng.permuted(np.tile(np.arange(20), (50, 1)), axis=1), rng.integers(20, size=50)
    scores = np.empty((50, 20))
    np.put_along_axis(scores, predictions, np.arange(20, 0, -1)[None].repeat(50, 0).astype(float), axis=1)
    result = load("ranking").compute(predictions=predictions, references=references, ks=[5, 10])
    for k in (5, 10):
        assert result[f"ndcg@{k}"] == pytest.approx(ndcg_score(np.eye(20)[references], scores, k=k))


@pytest.mark.parametrize(
    ("positive", "negative", "m", "avoid", "recall"),
    [("in", "out", 1, 1, 1), ("in", "in", 0, 0, 1), ("out", "out", 0, 1, 0), ("out", "in", 0, 0, 0)],
)
def test_pairs_succeed_only_when_found_and_avoided(positive, negative, m, avoid, recall):
    lists = {"in": ["x", "t", "y"], "out": ["x", "y", "t"]}
    result = quiet(load(), predictions=[lists[positive], lists[negative]], references=["t", "t"], ks=2, **PAIR)
    found = {name: result[f"sentiment_following/{name}@2"] for name in ("m", "avoid", "recall")}
    assert found == {"m": m, "avoid": avoid, "recall": recall}
    assert result["sentiment_following/n"] == 1


def example_table(module, seed: int = 0) -> dict[str, list]:
    """All axes at once, pairs scattered among the other examples; both paired axes number their pairs alike."""
    rng = np.random.default_rng(seed)
    size = 24 * len(module.AXES)
    predictions, references = random_lists(rng, size)
    axes = [axis for axis in module.AXES for _ in range(24)]
    paired = [axis in module.PAIRED_AXES for axis in axes]
    table = {
        "predictions": predictions,
        "references": [references[i - i % 2] if pair else references[i] for i, pair in enumerate(paired)],
        "axes": axes,
        "sentiments": ["negative" if pair and i % 2 else "positive" for i, pair in enumerate(paired)],
        "pair_ids": [i % 24 // 2 if pair else -1 for i, pair in enumerate(paired)],
    }
    return permuted(table, rng.permutation(size))


def permuted(table: dict[str, list], order: np.ndarray) -> dict[str, list]:
    return {name: [column[i] for i in order] for name, column in table.items()}


def test_axes_equal_example_by_example(module):
    table = example_table(module)
    result = quiet(load(), **table, ks=[2, 4], n_resamples=0)
    ranks = [rank_by_hand(r, t) for r, t in zip(table["predictions"], table["references"], strict=True)]
    for axis in module.AXES:
        rows = [i for i, name in enumerate(table["axes"]) if name == axis]
        positive = [ranks[i] for i in rows if table["sentiments"][i] == "positive"]
        assert result[f"{axis}/n"] == len(positive)
        for k in (2, 4):
            for name, value in figures_by_hand(positive, k).items():
                assert result[f"{axis}/{name}"] == pytest.approx(value)
    for axis in module.PAIRED_AXES:
        pairs: dict[int, dict[str, int | None]] = {}
        for rank, pair, sentiment, name in zip(
            ranks, table["pair_ids"], table["sentiments"], table["axes"], strict=True
        ):
            if name == axis:
                pairs.setdefault(pair, {})[sentiment] = rank
        won = [(p["positive"] or 99) <= 4 and (p["negative"] or 99) > 4 for p in pairs.values()]
        assert 0 < sum(won) < len(won)
        assert result[f"{axis}/m@4"] == pytest.approx(sum(won) / len(won))


def test_order_of_examples_changes_nothing(module):
    table = example_table(module)
    shuffled = permuted(table, np.random.default_rng(9).permutation(len(table["axes"])))
    assert quiet(load(), **table) == pytest.approx(quiet(load(), **shuffled), abs=1e-12)


def test_batches_of_any_size_give_one_result(module):
    table, metric = example_table(module), load()
    for start, stop in ((0, 7), (7, 8), (8, 100)):
        metric.add_batch(**{name: column[start:stop] for name, column in table.items()})
    for i in range(100, len(table["axes"])):
        single = {name: column[i] for name, column in table.items()}
        metric.add(prediction=single.pop("predictions"), reference=single.pop("references"), **single)
    assert quiet(metric) == quiet(load(), **table)


def test_integers_arrays_and_strings_agree():
    rng = np.random.default_rng(1)
    predictions, references = rng.integers(30, size=(25, 10)), rng.integers(30, size=25)
    integers = quiet(load("ranking"), predictions=predictions, references=references)
    strings = quiet(
        load("ranking"), predictions=predictions.astype(str).tolist(), references=references.astype(str).tolist()
    )
    assert integers == strings


def test_negative_integers_are_padding():
    padded = load("ranking").compute(
        predictions=[[-100, 4, 6, 7, -100], [3, 5, -100, -100, -100]], references=[6, 5], ks=2
    )
    assert padded == load("ranking").compute(predictions=[[4, 6, 7], [3, 5]], references=[6, 5], ks=2)
    assert padded["recall@2"] == 1


def test_short_lists_are_scored_with_a_warning():
    with pytest.warns(UserWarning, match="1 of 2 ranked lists hold fewer than k=2"):
        result = load("ranking").compute(predictions=[["a"], ["b", "a"]], references=["a", "a"], ks=[2])
    assert result["recall@2"] == 1


def test_repeated_items_count_once_with_a_warning():
    with pytest.warns(UserWarning, match="1 of 2 ranked lists name an item more than once"):
        result = load("ranking").compute(predictions=[[4, 4, 7], [5, 7, 6]], references=[7, 7], ks=[2], n_resamples=0)
    assert result["recall@2"] == 1


def test_bootstrap_equals_resampling_of_examples(module):
    rng = np.random.default_rng(0)
    values = module.ndcg_at(rng.integers(0, 15, size=200), 10)[:, None]
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


def test_examples_of_a_chosen_target_are_drawn_together():
    def width(axis, references):
        paired = axis.startswith("sentiment")
        column = {name: [] for name in ("predictions", "references", "axes", "sentiments", "pair_ids")}
        for row, target in enumerate(references):
            for sentiment in ("positive", "negative") if paired else ("positive",):
                found = sentiment == "positive" and target < "t5"
                column["predictions"].append([target if found else "x"])
                column["references"].append(target)
                column["axes"].append(axis)
                column["sentiments"].append(sentiment)
                column["pair_ids"].append(row if paired else -1)
        found = load("default").compute(**column, ks=[1])
        figure = f"{axis}/{'m' if paired else 'recall'}@1"
        return found[f"{figure}/high"] - found[f"{figure}/low"]

    many = [f"t{row % 10}" for row in range(100)]
    for axis in ("fine_grained_steering", "coarse_grained_steering", "sentiment_following"):
        assert width(axis, many) > 2.5 * width("recommendation", many)


def test_interval_encloses_the_mean_and_shrinks_with_confidence():
    predictions, references = random_lists(np.random.default_rng(3), 60)
    wide = quiet(load("ranking"), predictions=predictions, references=references, ks=5, confidence=0.99)
    narrow = quiet(load("ranking"), predictions=predictions, references=references, ks=5, confidence=0.5)
    for name in ("recall@5", "ndcg@5", "mrr@5", "map@5"):
        assert wide[f"{name}/low"] < narrow[f"{name}/low"] < wide[name]
        assert wide[name] < narrow[f"{name}/high"] < wide[f"{name}/high"]


def test_seed_decides_the_interval():
    predictions, references = random_lists(np.random.default_rng(3), 60)
    runs = [
        quiet(load("ranking"), predictions=predictions, references=references, ks=5, seed=seed) for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": ["steering"] * 2}, "axes holds 'steering'.*recommendation"),
        ({"axes": [3, 3]}, "axes holds 3.*int2str"),
        ({"sentiments": ["positive", "neutral"]}, "sentiments holds 'neutral'"),
        ({"pair_ids": [0, 1]}, r"pair_id 0 has 1 example\(s\)"),
        ({"pair_ids": [-1, -1]}, "pair_id -1 on a sentiment axis"),
        ({"sentiments": ["negative", "negative"]}, "pair_id 0 has two negative"),
        ({"references": ["a", "b"]}, "pair_id 0 has two targets, one is 'b'"),
        ({"references": ["a"]}, "differ in length.*'references': 1"),
        ({"pair_ids": [0]}, "differ in length.*'pair_ids': 1"),
        ({"pair_ids": None}, "missing inputs.*pair_ids"),
        ({"axes": ["recommendation"] * 2}, "example 0 on axis recommendation has pair_id 0"),
        ({"predictions": [["a", None], ["b", "c"]]}, "predictions holds None.*expected strings or integers, no gaps"),
        ({"predictions": [["a", "b"], ["b", float("nan")]]}, "predictions holds nan, a float"),
        ({"predictions": [[1.0, 2.5], [1.0, 2.0]], "references": [1, 1]}, "predictions holds 1.0, a float"),
        ({"predictions": [[True], [False]], "references": [1, 1]}, "predictions holds True, a bool"),
        ({"predictions": [["1", 2], ["1", 2]]}, "predictions mixes strings and integers"),
        ({"predictions": [["1", "2"]] * 2, "references": [1, 1]}, "ids of different types"),
        ({"predictions": ["a", "b"]}, "predictions holds 'a'; expected a ranked list"),
        ({"predictions": [1, 2]}, "predictions holds 1; expected a ranked list"),
        ({"predictions": [{"a": 1}, {"b": 2}]}, "expected a ranked list of ids per example"),
        ({"references": [["a"], ["a"]]}, r"references holds \['a'\], a list"),
        ({"references": [float("nan"), "a"]}, "references holds nan"),
        ({"predictions": [["a", "b"], "c"]}, "predictions holds 'c'; expected a ranked list"),
        ({"ks": 0}, "ks=0 must name whole numbers >= 1"),
        ({"ks": [5, -1]}, r"ks=\[5, -1\]"),
        ({"ks": [2.5]}, r"ks=\[2.5\]"),
        ({"ks": []}, r"ks=\[\]"),
        ({"confidence": 95}, "confidence=95 must lie between 0 and 1"),
        ({"n_resamples": -1}, "n_resamples=-1"),
    ],
)
def test_malformed_input_is_refused_with_the_reason(change, message):
    inputs = {"predictions": [["a", "b"], ["b", "c"]], "references": ["a", "a"], **PAIR} | change
    with pytest.raises(ValueError, match=message):
        quiet(load(), **inputs)


def test_third_example_of_a_pair_is_refused():
    inputs = {name: [*column, column[-1]] for name, column in PAIR.items()}
    with pytest.raises(ValueError, match=r"pair_id 0 has 3 example\(s\)"):
        quiet(load(), predictions=[["a"]] * 3, references=["a"] * 3, **inputs)


@pytest.mark.parametrize("value", [float("nan"), 1.5])
def test_numbers_that_are_no_ids_are_refused(value):
    with pytest.raises(ValueError, match=f"predictions holds {value}, a float"):
        quiet(load("ranking"), predictions=[[1, value]], references=[value])
    with pytest.raises(ValueError, match=f"references holds {value}, a float"):
        load("ranking").add(prediction=[1, 2], reference=value)


def test_no_examples_and_unknown_configuration_are_refused():
    with pytest.raises(ValueError, match="no examples"):
        load("ranking").compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="no examples.*or call add_batch before"):
        load("ranking").compute()
    with pytest.raises(ValueError, match="unknown configuration 'beauty'"):
        load("beauty")


def test_combine_merges_under_prefixes():
    both = evaluate.combine({"a": load("ranking"), "b": load("ranking")}, force_prefix=True)
    both.add_batch(predictions=[["x", "y"], ["y", "z"]], references=["x", "z"])
    result = both.compute(ks=[1], n_resamples=0)
    assert result["a_recall@1"] == result["b_recall@1"] == 0.5


def test_ranks_refuse_ids_of_two_types(module):
    with pytest.raises(ValueError, match="ids of one type"):
        module.target_ranks([["1", "2"]], [1])


def test_examples_of_the_card_run(monkeypatch, capsys):
    monkeypatch.chdir(FOLDER.parents[1])
    snippets = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    scope: dict = {}
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for snippet in snippets:
            exec(compile(snippet, "README.md", "exec"), scope)
            results.append(scope["results"])
    assert [results[0][name] for name in ("recommendation/recall@3", "recommendation/recall@1")] == [1, 0]
    assert results[0]["sentiment_following/m@3"] == 1 and results[2]["recommendation/recall@2"] == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1.0 0.0"
    result = load("ranking").compute(predictions=[["a", "b"], ["c", "d"]], references=["b", "x"], ks=[2], n_resamples=0)
    assert str(result) in snippets[1]
    padded = load("ranking").compute(predictions=[[3, 7, -1, -1]], references=[7], ks=[2], n_resamples=0)
    assert padded["mrr@2"] == 0.5 and "# 0.5" in snippets[4]


def test_combine_scores_the_axes_of_two_metrics_at_once(module):
    table = example_table(module)
    both = evaluate.combine({"first": load(), "second": load()}, force_prefix=True)
    both.add_batch(**table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = both.compute()
    alone = quiet(load(), **table)
    assert {name.removeprefix("first_"): value for name, value in result.items() if name.startswith("first_")} == alone


def shard(rank: int, processes: int, experiment: str, table: dict[str, list], folder: str) -> dict | None:
    """What one of several processes does: its share of the examples, in batches."""
    metric = evaluate.load(
        str(FOLDER), num_process=processes, process_id=rank, experiment_id=experiment, cache_dir=folder
    )
    own = {name: column[rank::processes] for name, column in table.items()}
    for start in range(0, len(own["axes"]), 10):
        metric.add_batch(**{name: column[start : start + 10] for name, column in own.items()})
    return metric.compute()


def test_several_writers_give_the_first_one_the_result_of_all(module, tmp_path):
    table = example_table(module)
    with ThreadPoolExecutor(3) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jobs = [pool.submit(shard, rank, 3, "threads", table, str(tmp_path)) for rank in range(3)]
        first, *others = [job.result(timeout=120) for job in jobs]
    assert first == pytest.approx(quiet(load(), **table))
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
    assert first == pytest.approx(quiet(load(), **table)) and other is None


def test_results_are_saved_as_they_are(tmp_path):
    result = load("ranking").compute(predictions=[["a", "b"]], references=["b"], ks=[2])
    path = evaluate.save(tmp_path / "result.json", **result)
    assert result.items() <= json.loads(Path(path).read_text()).items()


def test_the_card_is_that_of_a_gradio_space():
    card = SpaceCard.load(FOLDER / "README.md")
    assert card.data.sdk == "gradio" and (FOLDER / card.data.app_file).is_file()
    needed = (FOLDER / "requirements.txt").read_text().split()
    assert {re.split("[<>=]", line)[0] for line in needed} >= {"evaluate", "datasets", "gradio"}
    headings = re.findall(r"^##+ (.*)$", card.text, flags=re.MULTILINE)
    assert [
        "Metric description",
        "How to use",
        "Inputs",
        "Output values",
        "Examples",
        "Limitations and bias",
        "Citation",
        "Further references",
    ] == [heading for heading in headings if heading != "What counts, and what is refused"]
