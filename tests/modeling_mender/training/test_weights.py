"""The weight search finds what helps."""

import numpy as np
import pytest
import torch
from doubles import WORDS, encoder_folder, shop_examples, small_method

from modeling_mender.configuration_mender import KINDS
from modeling_mender.training import catalogue_edits, reading
from modeling_mender.training import scored_requests as scored_module
from modeling_mender.training import weights as weights_module
from modeling_mender.training.ranking import rank_examples
from modeling_mender.training.run import fit_without_gradient
from modeling_mender.training.scored_requests import ENOUGH, ScoredRequests, score_requests, validation_by_kind
from modeling_mender.training.weights import (
    as_log_probabilities,
    best_weights,
    fit_experts,
    fit_weights,
    if_it_earns,
    least_learned,
    likely_weights,
    mean_with_silent,
)


@pytest.fixture
def short_reading(monkeypatch):
    """The weights are what is looked at; how well the language experts read does not matter."""
    monkeypatch.setattr(reading, "LEAST_STEPS", 10)


def test_seen_items_are_not_ranked_and_axes_of_enough_requests_count_alike():
    scores = torch.tensor([[9.0, 5.0, 7.0, 0.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]).repeat(ENOUGH, 1)
    targets, seen = (
        torch.tensor(rows).repeat(ENOUGH, 1) for rows in ([[1], [3], [3]], [[0, 2, 0], [-1] * 3, [-1] * 3])
    )
    groups = [("a",), ("b",), ("b",)] * ENOUGH

    def reached(*asked) -> float:
        return ScoredRequests({"words": asked[0]}, *asked[1:]).reached({"words": 1.0})

    assert np.isclose(reached(scores, targets, seen, groups), np.log(1.01))
    with_one_ahead = reached(scores, targets, seen[:, :1], groups)
    assert np.isclose(with_one_ahead, (np.log(1 / np.log2(3) + 0.01) + np.log(1.01)) / 2)
    few = reached(scores[:3], targets[:3], seen[:3, :1], groups[:3])  # one request of "a", two of "b"
    assert np.isclose(few, (np.log(1 / np.log2(3) + 0.01) + 2 * np.log(1.01)) / 3)
    several = reached(scores[1:2], torch.tensor([[3, 0, -1]]), torch.tensor([[-1]]), [("a",)])  # ranks 1 and 4
    assert np.isclose(several, np.log((1 + 1 / np.log2(5)) / (1 + 1 / np.log2(3)) + 0.01))


@pytest.mark.parametrize("choose", [best_weights, likely_weights, fit_weights])
def test_one_request_does_not_decide_against_hundreds(choose):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(30, (301, 1), generator=generator)
    truth = torch.nn.functional.one_hot(targets[:, 0], 30).float()
    noise = torch.randn(2, 301, 30, generator=generator)
    scores = {"useful": noise[0] + 3 * truth, "other": noise[1]}
    scores["useful"][300], scores["other"][300] = -3 * truth[300], 3 * truth[300]  # misleads in the single one
    groups = [("wishes",)] * 300 + [("sentiment",)]
    weights = choose(ScoredRequests(scores, targets, torch.full((301, 1), -1), groups))
    assert weights["useful"] > 3 * weights["other"]


def test_the_objective_ranks_as_a_sorted_list_does():
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        items = int(torch.randint(1, 40, (), generator=generator))
        scores = torch.randn(20, items, generator=generator).round(decimals=0) * 0.5  # many are equal, some -0.0
        relevant = torch.rand(20, items, generator=generator) < 0.5
        relevant[:, 0] = True
        left_out = (torch.rand(20, items, generator=generator) < 0.2) & ~relevant
        lists = [[row.nonzero()[:, 0] for row in mask] for mask in (relevant, left_out)]
        targets, seen = (torch.nn.utils.rnn.pad_sequence(rows, True, -1) for rows in lists)
        gains = []
        for row in range(20):
            order = sorted(range(items), key=lambda item: (-float(scores[row, item]), item))
            first = [item for item in order if not left_out[row, item]][:10]
            gain = sum(1 / np.log2(place + 2) for place, item in enumerate(first) if relevant[row, item])
            gains.append(gain / sum(1 / np.log2(np.arange(min(10, int(relevant[row].sum()))) + 2)))
        found = ScoredRequests({"words": scores}, targets, seen, [("axis",)] * 20).mean_log_ndcg(scores)
        assert np.isclose(found, np.log(np.mean(gains) + 0.01), atol=1e-5)


def test_the_search_trusts_what_helps():
    generator = torch.Generator().manual_seed(0)
    users, items = 300, 50
    targets = torch.randint(items, (users, 1), generator=generator)
    noise = torch.randn(3, users, items, generator=generator)
    truth = torch.nn.functional.one_hot(targets[:, 0], items).float()
    scores = {"good": 100 * (noise[0] + 2 * truth), "also": noise[1] + 2 * truth, "useless": 10 * noise[2]}
    scores["silent"] = torch.zeros(users, items)
    requests = ScoredRequests(scores, targets, torch.full((users, 1), -1), [("axis",)] * users)
    weights = fit_weights(requests)
    assert weights["silent"] == 0 and max(weights.values()) == 1
    # The two that know something are brought to one scale, the third is hardly heard.
    assert 0.3 < 100 * weights["good"] / weights["also"] < 3
    assert 10 * weights["useless"] < 0.3 * weights["also"]
    assert requests.reached(weights) > max(requests.reached({name: 1.0}) for name in scores)


def test_weights_are_half_of_the_best_ranking_and_half_of_the_likelihood():
    generator = torch.Generator().manual_seed(1)
    users, items = 60, 30
    targets = torch.randint(items, (users, 1), generator=generator)
    truth = torch.nn.functional.one_hot(targets[:, 0], items).float()
    noise = torch.randn(2, users, items, generator=generator)
    scores = {"large": 50 * (noise[0] + truth), "small": noise[1] + truth, "silent": torch.zeros(users, items)}
    requests = ScoredRequests(scores, targets, torch.full((users, 1), -1), [("axis",)] * users)
    spread = torch.tensor([float(values.std(1).mean()) for values in scores.values()])

    def shares(weights: dict[str, float]) -> torch.Tensor:
        """What part of the spread of the sum each expert has."""
        own = torch.tensor([*weights.values()]) * spread
        return own / own.sum()

    likely = likely_weights(requests)
    best = best_weights(requests, [likely])
    assert best.keys() == likely.keys() == scores.keys() and best["silent"] == likely["silent"] == 0
    torch.testing.assert_close(shares(fit_weights(requests)), (shares(best) + shares(likely)) / 2)


def test_weights_as_log_probabilities_make_the_targets_likeliest():
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(20, (80, 1), generator=generator)
    truth = torch.nn.functional.one_hot(targets[:, 0], 20).float()
    noise = torch.randn(2, 80, 20, generator=generator)
    scores = {"popularity": noise[0] + truth, "dense": 0.1 * noise[1] + 0.1 * truth}
    requests = ScoredRequests(scores, targets, torch.full((80, 1), -1), [("axis",)] * 80)
    chosen = fit_weights(requests)
    own = as_log_probabilities(chosen, requests)
    assert np.isclose(own["popularity"] / own["dense"], chosen["popularity"] / chosen["dense"])
    total = requests.weighted_sum(own)
    likelihoods = [float((factor * total).log_softmax(1).gather(1, targets).mean()) for factor in (0.8, 1.0, 1.25)]
    assert max(likelihoods) == likelihoods[1]


def test_the_mean_with_silent_weights_brings_no_generator_back():
    silent = {"popularity": 2.0, "dense": 0.0, "generator": 1.0}
    assert mean_with_silent(silent, {"popularity": 1.0, "dense": 3.0, "generator": 0.5}) == {
        "popularity": 1.5, "dense": 1.5, "generator": 0.75,
    }  # fmt: skip
    assert mean_with_silent(silent, {"popularity": 1.0, "dense": 3.0, "generator": 0.0})["generator"] == 0


def test_inferred_requests_get_less_language_than_their_own_examples_ask_for(tmp_path, short_reading, monkeypatch):
    method, examples = small_method("mender-lite", encoder_folder(tmp_path)), shop_examples(12)
    record = fit_without_gradient(method, examples)
    monkeypatch.setattr(weights_module, "mean_with_silent", lambda silent, inferred: dict(inferred))
    own = fit_without_gradient(method, examples)

    def language(weights: dict[str, float]) -> float:
        """Of the weight of all experts, the part of those that read."""
        return sum(weights[name] for name in ("dense", "learned", "terms")) / sum(weights.values())

    assert record["weights"]["silent"] == own["weights"]["silent"]
    assert 0 < language(record["weights"]["inferred"]) < language(own["weights"]["inferred"])


@pytest.mark.parametrize("ids", [True, False])
def test_silent_requests_are_there_once_and_inferred_ones_with_every_preference(ids):
    examples = shop_examples(12)["validation"]
    users = len({*examples["user_id"]})
    recommended = [row | {"kind": "inferred"} for row in examples if row["axis"] == "recommendation"]
    matched = [*examples, *recommended, *(row | {"preferences": ["find soap"]} for row in recommended)]
    if not ids:  # the column is optional
        matched = [row | {"user_id": ""} for row in matched]
    found = validation_by_kind(examples.from_list(matched, features=examples.features), 1000, seed=0)
    silent, inferred = found["silent"], found["inferred"]
    assert len(silent) == users and len({tuple(history) for history in silent["history"]}) == users
    assert not any(silent["preferences"]) and {*silent["kind"]} == {"silent"}
    axes = list(inferred["axis"])
    assert axes.count("recommendation") == 2 * users and axes.count("history_consolidation") == users


def test_a_single_candidate_tells_nothing():
    one = ScoredRequests({"one": torch.ones(3, 1)}, torch.zeros(3, 1).long(), torch.full((3, 1), -1), [("axis",)] * 3)
    assert fit_weights(one) == {"one": 1.0} == as_log_probabilities({"one": 1.0}, one)


@pytest.mark.parametrize("name", ["mender", "mender-lite"])
def test_items_that_were_removed_are_no_candidates(name, tmp_path, short_reading, monkeypatch):
    method, examples = small_method(name, encoder_folder(tmp_path)), shop_examples(8)
    model, processor, validation = method.model.eval(), method.processor, examples["validation"]
    fit_without_gradient(method, examples)
    gone = processor.item_indices(validation["targets"][0])
    catalogue_edits.remove_items(model, gone)
    requests = score_requests(model, processor, validation, True)
    there = len(processor.item_ids) - len(gone)
    assert all(values.isfinite().all() and values.shape[1] == there for values in requests.scores.values())
    assert bool((requests.targets[0] < 0).all()) and bool((requests.targets >= 0).any())
    fit_experts(model, processor, examples)
    assert all(np.isfinite([*own.values()]).all() for own in model.experts.config.weights.values())

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    fitted = {kind: dict(own) for kind, own in model.experts.config.weights.items()}
    monkeypatch.setattr(weights_module, "fit_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_experts(model, processor, examples)
    assert model.experts.config.weights == fitted


def test_of_a_large_catalogue_candidates_are_scored(tmp_path, short_reading, monkeypatch):
    method, examples = small_method("mender-lite", encoder_folder(tmp_path)), shop_examples(8)
    model, processor, validation = method.model.eval(), method.processor, examples["validation"]
    fit_without_gradient(method, examples)
    whole = score_requests(model, processor, validation, True)
    monkeypatch.setattr(scored_module, "WHOLE", 4)
    monkeypatch.setattr(scored_module, "CANDIDATES", 5)
    some = score_requests(model, processor, validation, True)
    assert bool((some.targets >= 0).all())
    for name, values in some.scores.items():
        assert values.shape == (len(validation), 5)
        assert values.gather(1, some.targets).equal(whole.scores[name].gather(1, whole.targets))


def test_candidates_are_targets_and_what_is_ranked_first():
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(20, 300, generator=generator) for name in ("words", "counts")}
    scores["nothing"] = torch.ones(20, 300)  # whose first items are those of the lowest indices
    targets, seen = (torch.randint(300, (20, 4), generator=generator) for _ in range(2))
    first = torch.randint(300, (20, 3), generator=generator)
    live = torch.arange(1, 300).expand(20, -1)
    found = scored_module._candidates(scores, targets, seen, first, live)
    assert found.shape == (20, scored_module.CANDIDATES)
    for row, pool in enumerate(found.tolist()):
        assert pool == sorted(set(pool)) and 0 not in pool
        ranked = [scores[name][row].argsort(descending=True).tolist() for name in ("words", "counts")]
        ranked.append(first[row].tolist())
        best = {item: min(order.index(item) for order in ranked if item in order) for item in range(1, 300)}
        own = set(targets[row].tolist()) - {0}
        others = sorted(set(best) - own - set(seen[row].tolist()), key=best.get)
        assert own <= set(pool)
        worst = max(best[item] for item in set(pool) - own)
        assert {item for item in others if best[item] < worst} <= set(pool)


def test_experts_that_tell_no_items_apart_get_equal_weights_together_and_none_alone():
    scores, targets = {"one": torch.zeros(4, 5), "other": torch.ones(4, 5)}, torch.zeros(4, 1, dtype=torch.int64)
    requests = ScoredRequests(scores, targets, torch.full((4, 1), -1), [("axis",)] * 4)
    assert fit_weights(requests) == {"one": 1.0, "other": 1.0}
    assert best_weights(requests) == likely_weights(requests) == {"one": 0.0, "other": 0.0}


@pytest.mark.parametrize("knows", [0.0, 2.0])
def test_a_generator_that_adds_nothing_gets_no_weight(knows):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(30, (200, 1), generator=generator)
    truth = torch.nn.functional.one_hot(targets[:, 0], 30).float()
    noise = torch.randn(2, 200, 30, generator=generator)
    scores = {"dense": noise[0] + 2 * truth, "generator": noise[1] + knows * truth}
    requests = ScoredRequests(scores, targets, torch.full((200, 1), -1), [("axis",)] * 200)
    weights = {"dense": 1.0, "generator": 0.01 if knows == 0 else 1.0}
    found = if_it_earns(weights, requests)
    assert found == (weights if knows else {"dense": 1.0, "generator": 0.0})


@pytest.mark.parametrize("knows", [0.0, 2.0])
def test_of_learned_there_is_no_more_than_it_earns(knows):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(30, (200, 1), generator=generator)
    truth = torch.nn.functional.one_hot(targets[:, 0], 30).float()
    noise = torch.randn(2, 200, 30, generator=generator)
    scores = {"terms": noise[0] + 2 * truth, "learned": 0.01 * noise[1] + knows * truth}
    requests = ScoredRequests(scores, targets, torch.full((200, 1), -1), [("axis",)] * 200)
    found = least_learned({"terms": 1.0, "learned": 1.0}, requests)
    assert found["terms"] == 1 and (found["learned"] > 0) == bool(knows)
    if knows:  # and enough to rank about as well
        values = [requests.reached({"terms": 1.0, "learned": share}) for share in (found["learned"], 1.0)]
        assert values[0] >= values[1] + np.log(0.995)
    assert least_learned({"terms": 0.0, "learned": 1.0}, requests)["learned"] == 1


def ndcg(model, processor, examples) -> float:
    ranked = rank_examples(model, processor, examples)
    hits = ranked == np.array(processor.item_indices([target for (target,) in examples["targets"][:]]))[:, None]
    return float((hits / np.log2(np.arange(2, 12))).sum(1).mean())


@pytest.mark.parametrize("name, changes", [("mender", {}), ("mender-tok", {"experts": ["popularity", "lexical"]})])
def test_the_fitted_sum_ranks_better_than_an_untrained_generator(name, changes, tmp_path, short_reading):
    method, examples = small_method(name, encoder_folder(tmp_path), **changes), shop_examples(8)
    model, processor = method.model.eval(), method.processor
    stated = examples["validation"].filter(lambda row: row["axis"] == "fine_grained_steering")
    before = ndcg(model, processor, stated)
    record = fit_without_gradient(method, examples)
    assert record["weights"] == model.config.experts.weights and {*record["weights"]} == {*KINDS}
    assert all(min(weights.values()) >= 0 < max(weights.values()) for weights in record["weights"].values())
    # The preferences name their targets, which the words find at once.
    assert ndcg(model, processor, stated) > max(0.6, before)
    assert not any(record["weights"]["silent"].get(name) for name in ("lexical", "terms"))
    nothing = {"language": 0.0, "behaviour": 0.0}
    inputs = processor(["find tea"], [["item-mug"]])
    alone = model.recommend(**inputs, weights=nothing, num_beams="exact").item_indices
    by_probability = model.log_probabilities(torch.arange(len(WORDS))[None], **only(inputs)).argsort(descending=True)
    if record["weights"]["stated"]["generator"]:
        assert alone.tolist() == by_probability[:, :10].tolist()


def only(inputs) -> dict:
    return {name: inputs[name] for name in ("input_ids", "attention_mask", "kind")}
