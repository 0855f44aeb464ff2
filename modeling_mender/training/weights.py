"""Weights of experts, and of the generator beside them, chosen on validation for each kind of request.

Thousands of weights are tried for the best ranking: the mean over axes of the logarithm of NDCG, so that small and
large figures count alike. The weights with the largest likelihood of the targets are found by gradient, and the mean of
both is taken.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from ..configuration_mender import GENERATOR, KINDS
from ..processing_mender import MenderProcessor
from .closed_form import ease, popularity, transitions
from .data import example_column, kinds_of, training_histories
from .fit_probability import fit_fit_probability
from .scored_requests import AVOID, ScoredRequests, sampled, score_requests, spread_of, validation_by_kind

__all__ = [
    "as_log_probabilities",
    "best_weights",
    "fit_experts",
    "fit_weights",
    "if_it_earns",
    "least_learned",
    "likely_weights",
    "mean_with_silent",
]

logger = logging.getLogger(__name__)

PENALTIES = (20.0, 100.0, 500.0)
MOST_ITEMS_FOR_PENALTIES = 5_000
"""Larger catalogues use the middle penalty without a search, because each inverse takes a minute."""
AVOID_WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0)
TOLERANCE = 0.05
"""Share of NDCG that a larger weight of phrases to avoid may cost; what it keeps out does not show in NDCG."""
LIKELIHOOD_STEPS = 150
GENERATOR_EARNS = 0.01
"""Share of NDCG that the generator has to add to get a weight: without it, a request needs no beam search."""
LEARNED = "learned"
LEARNED_SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
LEARNED_EARNS = 0.005
"""Share of NDCG on validation that less of `learned` may cost, see `least_learned`."""


def fit_weights(requests: ScoredRequests, start: Mapping[str, float] | None = None) -> dict[str, float]:
    """Weights of experts that rank targets well: the mean of `best_weights` and `likely_weights`.

    Of a few hundred requests, the best ranking is to a good part chance, and the largest likelihood is not quite what
    is wanted. The mean of the two ranks other requests better than either, see `benchmarks/weights.py`.

    Args:
        requests: of one kind.
        start: weights that may be close to the best ones.

    Returns:
        A weight of at least 0 for every expert; the largest is 1 (all are, if none tells the items apart).
    """
    spread = requests.spread
    if not any(spread.values()):
        return dict.fromkeys(spread, 1.0)
    likely = likely_weights(requests)
    best = best_weights(requests, [likely, *([] if start is None else [start])])
    # Each counts half of what moves the ranking.
    share = [sum(weights[name] * spread[name] for name in spread) for weights in (best, likely)]
    mean = {name: best[name] / share[0] + likely[name] / share[1] for name in spread}
    most = max(mean.values())
    return {name: float(np.float32(value / most)) for name, value in mean.items()}


def best_weights(requests: ScoredRequests, starts: Sequence[Mapping[str, float]] = ()) -> dict[str, float]:
    """Weights that rank targets best, by `ScoredRequests.reached`; 0 for experts that do not tell the items apart.

    A pattern search without gradient: every weight in turn is raised, lowered, set to zero or brought back, and what
    helps is kept; then with smaller steps.

    Args:
        requests: of one kind.
        starts: weights to start from, beside single experts and equal shares.
    """
    none, names = dict.fromkeys(requests.scores, 0.0), _telling(requests)
    if not names:
        return none

    def value(weights: np.ndarray) -> float:
        return requests.reached({name: weight for name, weight in zip(names, weights.tolist(), strict=True) if weight})

    # Steps are relative to the spread of an expert's scores within a request, so that they change rankings.
    unit = 1 / np.array([requests.spread[name] for name in names])
    own = [np.array([start.get(name, 0.0) for name in names]) for start in starts]
    best = max([*(np.eye(len(names)) * unit), unit, *(weights for weights in own if weights.any())], key=value)
    reached = value(best)
    for factor in (4.0, 2.0, 1.3):
        improved = True
        while improved:
            improved = False
            for position in range(len(names)):
                base = best[position] or unit[position] * (best / unit).max() / 4
                for candidate in (base * factor, base / factor, 0.0 if best[position] else base):
                    trial = best.copy()
                    trial[position] = candidate
                    if trial.any() and (found := value(trial)) > reached + 1e-6:
                        best, reached, improved = trial, found, True
    return none | dict(zip(names, best.tolist(), strict=True))


def likely_weights(requests: ScoredRequests) -> dict[str, float]:
    """Weights with the largest likelihood of targets, see `_by_likelihood`; 0 for experts that do not tell items apart.

    Args:
        requests: of one kind.
    """
    none, names = dict.fromkeys(requests.scores, 0.0), _telling(requests)
    if not names:
        return none
    unit = torch.tensor([1 / requests.spread[name] for name in names])
    found = _by_likelihood(requests, torch.stack([requests.scores[name] for name in names]) * unit[:, None, None])
    return none | dict(zip(names, (found * unit).tolist(), strict=True))


def _telling(requests: ScoredRequests) -> list[str]:
    """The experts that tell items apart."""
    return [name for name, spread in requests.spread.items() if spread > 0]


def _by_likelihood(requests: ScoredRequests, scores: Tensor) -> Tensor:
    """Weights with the largest likelihood of targets under a softmax; requests count as in `ScoredRequests.shares`.

    A smooth objective with one optimum, which takes every item of a ranking into account.

    Args:
        requests: whose targets are wanted.
        scores: of each of E experts, with a spread of about 1. Shape: (E, M, P).

    Returns:
        Shape: (E,).
    """
    there = requests.targets >= 0
    count = there.sum(1)
    share = requests.shares.where(count > 0, 0.0)
    share = (share / share.sum() / count.clamp(min=1)).float()
    # A target counts even if it was seen.
    left_out = torch.zeros(scores.shape[1:]).masked_fill_(requests.left_out & ~requests.relevant, -math.inf)
    targets = requests.targets.clamp(min=0)
    with torch.inference_mode(False), torch.enable_grad():
        log_weights = torch.zeros(len(scores), requires_grad=True)
        optimizer = torch.optim.Adam([log_weights], lr=0.1)
        for _ in range(LIKELIHOOD_STEPS):
            total = torch.tensordot(log_weights.exp(), scores, 1) + left_out
            log_probs = total.log_softmax(1).gather(1, targets).masked_fill(~there, 0.0)
            loss = -(share * log_probs.sum(1)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return log_weights.detach().exp()


def as_log_probabilities(weights: Mapping[str, float], requests: ScoredRequests) -> dict[str, float]:
    """The weights, scaled so that the weighted sum of scores is a log-probability, up to a constant.

    Args:
        weights: of every expert.
        requests: of one kind.
    """
    total = requests.weighted_sum(weights)
    spread = spread_of(total)
    factor = float(_by_likelihood(requests, total[None] / spread)) / spread if spread else 1.0
    return {name: factor * value for name, value in weights.items()}


def mean_with_silent(silent: Mapping[str, float], inferred: Mapping[str, float]) -> dict[str, float]:
    """The mean of weights for silent and for inferred requests, both from `as_log_probabilities`.

    An inferred preference may not say anything about the next item, and 200 requests are too few to measure how much.
    The mean halves its influence, see `benchmarks/weights.py`. A generator without a weight gets none.
    """
    mean = {name: (silent[name] + value) / 2 for name, value in inferred.items()}
    return mean if inferred.get(GENERATOR, 1.0) else {**mean, GENERATOR: 0.0}


@torch.no_grad()
def fit_experts(
    model: Any,
    processor: MenderProcessor,
    examples: datasets.DatasetDict,
    *,
    limit: int = 1000,
    seed: int = 0,
    exclude_seen: bool = True,
    start: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Fit experts on purchases of the training period, and the weights of each kind of request on validation examples.

    Args:
        model: an `ExpertsRecommender`, or a trained Mender with experts; its experts are filled, its weights set.
        processor: renders examples.
        examples: `train` and `validation` splits of a benchmark.
        limit: validation examples in all, see `scored_requests.SHARES`.
        seed: of their choice.
        exclude_seen: whether items of the history are left out of the ranking.
        start: weights of language experts that were trained together, see `fit_language`.

    Returns:
        How many purchases were counted; the ridge penalty, if the model fits what is bought together; and of several
        experts the weights by kind, that of phrases to avoid (if the data have some), and the result of
        `fit_fit_probability`.
    """
    experts, config = model.experts, model.experts.config
    logger.info("counting purchases")
    histories = training_histories(examples["train"], examples["validation"])
    bought = [processor.item_indices(history) for history in histories]
    items = len(processor.item_ids)
    record: dict[str, Any] = {"purchases": sum(map(len, bought))}
    validation = validation_by_kind(examples["validation"], limit, seed)
    if experts.popularity is not None:
        experts.popularity.counts.copy_(popularity(bought, items))
    if experts.transitions is not None:
        experts.transitions.set_matrix(transitions(bought, items))
    if experts.co_purchase is not None:
        logger.info("fitting what is bought together (EASE), %s items", f"{items:,}")
        record["ridge_penalty"] = _best_penalty(model, processor, bought, validation["silent"], exclude_seen)
    before = config.weights, config.avoid
    config.set_weights({})  # the generator must rank its candidates, whatever weight an earlier fit gave it
    if len(config.weighted) == 1:  # any weight gives the same order
        return record
    try:
        config.set_weights(_weights_by_kind(model, processor, validation, exclude_seen, start))
        record["weights"] = config.weights
        avoiding = np.flatnonzero([bool(texts) for texts in example_column(examples["validation"], "avoid")])
        if len(avoiding) and experts.avoids:
            logger.info("choosing the weight of phrases to avoid")
            chosen = sampled(examples["validation"].select(avoiding), limit // 5, np.random.default_rng(seed))
            record["avoid"] = _best_avoid(model, processor, chosen, exclude_seen)
    except BaseException:  # what was served before is better than weights that fit nothing
        config.set_weights(*before)
        raise
    logger.info("fitting the probability that anything fits a request")
    record["fit"] = fit_fit_probability(model, processor, examples["validation"], seed=seed)
    return record


def _weights_by_kind(
    model: Any,
    processor: MenderProcessor,
    validation: Mapping[str, datasets.Dataset],
    exclude_seen: bool,
    start: Mapping[str, float] | None,
) -> dict[str, dict[str, float]]:
    """The weights of each kind of request; `validation` has silent requests before inferred ones."""
    weights, ranks_silent = {}, False
    for kind, chosen in validation.items():
        logger.info("choosing the weights of experts, %s requests", kind)
        requests = score_requests(model, processor, chosen, exclude_seen)
        found = fit_weights(requests, start=start)
        if found.get(GENERATOR):
            found = if_it_earns(found, requests)
        if found.get(LEARNED):
            found = least_learned(found, requests)
        weights[kind] = as_log_probabilities(found, requests)
        if kind == "inferred" and ranks_silent:
            mean = mean_with_silent(weights["silent"], weights[kind])
            weights[kind] = as_log_probabilities(mean, requests)
        elif kind == "silent":
            ranks_silent = bool(_telling(requests))
    return weights


def if_it_earns(weights: dict[str, float], requests: ScoredRequests) -> dict[str, float]:
    """The weights, or those of the experts alone if they rank about as well without the generator.

    Args:
        weights: what `fit_weights` found.
        requests: of one kind, with the generator.
    """
    alone = {**fit_weights(requests.without(GENERATOR), start=weights), GENERATOR: 0.0}
    earned = requests.reached(weights) - requests.reached(alone)
    return alone if earned < GENERATOR_EARNS else weights


def least_learned(weights: dict[str, float], requests: ScoredRequests) -> dict[str, float]:
    """The weights with the smallest share of `learned` that ranks about as well.

    Most of validation asks for what training named, and `learned` knows that by heart: there any amount of it will do,
    and a search takes the amount that chance favours. Of what training did not name, it knows less than the experts
    that compare words.

    Args:
        weights: what `fit_weights` found.
        requests: of one kind.
    """
    least = requests.reached(weights) + math.log(1 - LEARNED_EARNS)
    others = any(weight for name, weight in weights.items() if name != LEARNED)
    for share in LEARNED_SHARES if others else ():
        less = {**weights, LEARNED: share * weights[LEARNED]}
        if requests.reached(less) >= least:
            return less
    return weights


def _best_penalty(
    model: Any,
    processor: MenderProcessor,
    bought: list[list[int]],
    examples: datasets.Dataset,
    exclude_seen: bool,
) -> float:
    """Fit EASE with the penalty that ranks best on validation examples; large catalogues use a fixed penalty."""
    items, expert = len(processor.item_ids), model.experts.co_purchase
    if items > MOST_ITEMS_FOR_PENALTIES:
        expert.set_matrix(*ease(bought, items, PENALTIES[1]))
        return PENALTIES[1]
    reached = {}
    for penalty in PENALTIES:
        expert.set_matrix(*ease(bought, items, penalty))
        requests = score_requests(model, processor, examples, exclude_seen, only="co_purchase")
        reached[penalty] = requests.reached({"co_purchase": 1.0})
    best = max(reached, key=reached.get)
    expert.set_matrix(*ease(bought, items, best))
    return best


def _best_avoid(model: Any, processor: MenderProcessor, examples: datasets.Dataset, exclude_seen: bool) -> float:
    """Set the largest weight of phrases to avoid whose rankings are about as good as the best."""
    config = model.experts.config
    config.set_weights(config.weights, 1.0)
    requests = score_requests(model, processor, examples, exclude_seen, avoid=True)
    own = [config.weights[KINDS[kind]] for kind in kinds_of(examples)]
    each = {name: torch.tensor([weights[name] for weights in own])[:, None] for name in own[0]}
    wanted, penalty = requests.without(AVOID).weighted_sum(each), requests.scores[AVOID]
    reached = {weight: requests.mean_log_ndcg(wanted - weight * penalty) for weight in AVOID_WEIGHTS}
    least = max(reached.values()) + np.log(1 - TOLERANCE)
    best = max(weight for weight, value in reached.items() if value >= least)
    config.set_weights(config.weights, best)
    return best
