"""Weights of experts, and of the generator beside them, chosen on validation for each kind of request.

The scores of all experts are computed once and kept. Then thousands of weights are tried for the best ranking: the mean
over axes of the logarithm of NDCG, so that small and large figures count alike. The weights with the largest likelihood
of the targets are found by gradient, and the mean of both is taken. Scoring a whole catalogue with a generator takes
too long, so the scores are limited to candidates: the targets, and the items that the generator or an expert ranks
first.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..configuration_mender import GENERATOR, KINDS
from ..processing_mender import MenderProcessor
from .batches import MenderCollator
from .closed_form import ease, popularity, transitions
from .data import example_column, kinds_of, prepare_examples, select_axes, training_histories, without_preferences
from .fit_probability import fit_fit_probability

__all__ = [
    "as_log_probabilities",
    "axis_and_stratum",
    "best_weights",
    "candidate_scores",
    "fit_experts",
    "fit_weights",
    "if_it_earns",
    "least_learned",
    "likely_weights",
    "mean_log_ndcg",
    "mean_with_silent",
    "validation_by_kind",
]

logger = logging.getLogger(__name__)

PENALTIES = (20.0, 100.0, 500.0)
MOST_ITEMS_FOR_PENALTIES = 5_000
"""Larger catalogues use the middle penalty without a search, because each inverse takes a minute."""
ENOUGH = 20
"""An axis with fewer requests counts in proportion to them; otherwise a single request could decide the weights."""
FLOOR = 0.01
"""Added to NDCG before its logarithm, so that an axis with an NDCG of 0 does not dominate."""
CANDIDATES, BEST = 128, 30
"""Number of candidates of an example, and of those that the generator contributes."""
SURE_TARGETS = 10
"""Number of an example's relevant items that are among the candidates in any case."""
AVOID = "avoid"
AVOID_WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0)
TOLERANCE = 0.05
"""Share of NDCG that a larger weight of phrases to avoid may cost; what it keeps out does not show in NDCG."""
BATCH = 16
LIKELIHOOD_STEPS = 150
GENERATOR_EARNS = 0.01
"""Share of NDCG that the generator has to add to get a weight: without it, a request needs no beam search."""
LEARNED = "learned"
LEARNED_SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
LEARNED_EARNS = 0.005
"""Share of NDCG on validation that less of `learned` may cost, see `least_learned`."""
SHARES = {"stated": 0.6, "inferred": 0.2, "silent": 0.2}
"""Of the validation examples, by kind: stated requests have the most axes."""


def mean_log_ndcg(
    scores: Tensor, targets: Tensor, seen: Tensor, groups: Sequence[tuple[str, ...]], top_k: int = 10
) -> float:
    """The mean over axes, and within an axis over strata, of log(NDCG@k + 0.01): small and large figures count alike.

    Axes of fewer than `ENOUGH` requests count less; strata do not.

    Args:
        scores: of all items for every example. Shape: (M, N).
        targets: items that each example asks for, -1 for padding. Shape: (M, R).
        seen: items that are not ranked, -1 for padding. Shape: (M, S).
        groups: axis and stratum of each example, or its axis alone.
        top_k: items that count.
    """
    items = scores.shape[1]
    top_k = min(top_k, items)
    relevant = torch.zeros(len(scores), items + 1, dtype=torch.bool)
    relevant.scatter_(1, targets.where(targets >= 0, items), True)
    found = relevant[:, :items].gather(1, _first(scores, seen, top_k))
    discount = 1.0 / torch.log2(torch.arange(top_k) + 2.0)
    gain = (found * discount).sum(1) / discount.cumsum(0)[(targets >= 0).sum(1).clamp(1, top_k) - 1]
    found = pl.DataFrame({"group": list(groups), "gain": gain.numpy()}).group_by("group").agg(pl.mean("gain"), pl.len())
    logs = found.select("len", axis=pl.col("group").list.first(), value=(pl.col("gain") + FLOOR).log())
    axes = logs.group_by("axis").agg(pl.mean("value"), weight=(pl.sum("len") / ENOUGH).clip(upper_bound=1))
    return float((axes["value"] * axes["weight"]).sum() / axes["weight"].sum())


def _first(scores: Tensor, seen: Tensor, top_k: int) -> Tensor:
    """Items with the highest scores, without those seen; of equal scores, the lower index first. Shape: (M, top_k)."""
    # A float's bits order like an integer, if those of negative floats are inverted; -0.0 equals 0.0.
    bits = (scores.float() + 0.0).view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    items = scores.shape[1]
    keys = torch.zeros(len(scores), items + 1, dtype=torch.int64)
    keys[:, :items] = (bits.to(torch.int64) << 32) - torch.arange(items)
    keys.scatter_(1, seen.where(seen >= 0, items), torch.iinfo(keys.dtype).min)
    return keys[:, :items].topk(top_k, dim=1).indices


def fit_weights(
    scores: Mapping[str, Tensor],
    targets: Tensor,
    seen: Tensor,
    groups: Sequence[tuple[str, ...]],
    top_k: int = 10,
    start: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Weights of experts that rank targets well: the mean of `best_weights` and `likely_weights`.

    Of a few hundred requests, the best ranking is to a good part chance, and the largest likelihood is not quite what
    is wanted. The mean of the two ranks other requests better than either, see `benchmarks/weights.py`.

    Args:
        scores: by expert, the scores of all items for every example. Shape of each: (M, N).
        targets: items that each example asks for, -1 for padding. Shape: (M, R).
        seen: items that are not ranked, -1 for padding. Shape: (M, S).
        groups: see `mean_log_ndcg`.
        top_k: items that count.
        start: weights that may be close to the best ones.

    Returns:
        A weight of at least 0 for every expert; the largest is 1 (all are, if none tells the items apart).
    """
    spread = _spread(scores)
    if not any(spread.values()):
        return dict.fromkeys(scores, 1.0)
    likely = likely_weights(scores, targets, seen, groups)
    best = best_weights(scores, targets, seen, groups, top_k, [likely, *([] if start is None else [start])])
    # Each counts half of what moves the ranking.
    share = [sum(weights[name] * spread[name] for name in scores) for weights in (best, likely)]
    mean = {name: best[name] / share[0] + likely[name] / share[1] for name in scores}
    most = max(mean.values())
    return {name: float(np.float32(value / most)) for name, value in mean.items()}


def best_weights(
    scores: Mapping[str, Tensor],
    targets: Tensor,
    seen: Tensor,
    groups: Sequence[tuple[str, ...]],
    top_k: int = 10,
    starts: Sequence[Mapping[str, float]] = (),
) -> dict[str, float]:
    """Weights that rank targets best, by `mean_log_ndcg`; 0 for experts that do not tell the items apart.

    A pattern search without gradient: every weight in turn is raised, lowered, set to zero or brought back, and what
    helps is kept; then with smaller steps.

    Args:
        scores: see `fit_weights`.
        targets: see `fit_weights`.
        seen: see `fit_weights`.
        groups: see `mean_log_ndcg`.
        top_k: items that count.
        starts: weights to start from, beside single experts and equal shares.
    """
    spread = _spread(scores)
    names = [name for name in scores if spread[name] > 0]
    if not names:
        return dict.fromkeys(scores, 0.0)

    def value(weights: np.ndarray) -> float:
        total = sum(float(weight) * scores[name] for name, weight in zip(names, weights, strict=True) if weight)
        return mean_log_ndcg(total, targets, seen, groups, top_k)

    # Steps are relative to the spread of an expert's scores within a request, so that they change rankings.
    unit = 1 / np.array([spread[name] for name in names])
    own = [np.array([start.get(name, 0.0) for name in names]) for start in starts]
    best = max([*(np.eye(len(names)) * unit), unit, *(weights for weights in own if weights.any())], key=value)
    reached = value(best)
    for factor in (4.0, 2.0, 1.3):
        improved = True
        while improved:
            improved = False
            for position in range(len(names)):
                base = best[position] or unit[position] * (best / unit).max() / 4
                for candidate in (base * factor, base / factor, base, 0.0):
                    trial = best.copy()
                    trial[position] = candidate
                    if trial.any() and (found := value(trial)) > reached + 1e-6:
                        best, reached, improved = trial, found, True
    return dict.fromkeys(scores, 0.0) | dict(zip(names, best.tolist(), strict=True))


def likely_weights(
    scores: Mapping[str, Tensor], targets: Tensor, seen: Tensor, groups: Sequence[tuple[str, ...]]
) -> dict[str, float]:
    """Weights with the largest likelihood of targets, see `_by_likelihood`; 0 for experts that do not tell items apart.

    Args:
        scores: see `fit_weights`.
        targets: see `fit_weights`.
        seen: see `fit_weights`.
        groups: see `mean_log_ndcg`.
    """
    spread = _spread(scores)
    names = [name for name in scores if spread[name] > 0]
    if not names:
        return dict.fromkeys(scores, 0.0)
    unit = 1 / np.array([spread[name] for name in names])
    found = _by_likelihood(scores, names, unit, targets, seen, groups)
    return dict.fromkeys(scores, 0.0) | dict(zip(names, found.tolist(), strict=True))


def _spread(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """By expert, the mean over requests of the standard deviation over items."""
    return {name: float(values.std(1).mean()) for name, values in scores.items()}


def _by_likelihood(
    scores: Mapping[str, Tensor],
    names: Sequence[str],
    unit: np.ndarray,
    targets: Tensor,
    seen: Tensor,
    groups: Sequence[tuple[str, ...]],
) -> np.ndarray:
    """Weights with the largest likelihood of targets under a softmax; axes and strata count as in `mean_log_ndcg`.

    A smooth objective with one optimum, which takes every item of a ranking into account.
    """
    there = targets >= 0
    rows = there.any(1).nonzero()[:, 0]
    own = [groups[int(row)] for row in rows]
    strata = {axis: len({group for group in own if group[0] == axis}) for axis, *_ in own}
    counts, axes = Counter(own), Counter(axis for axis, *_ in own)
    share = torch.tensor([min(1, axes[group[0]] / ENOUGH) / (counts[group] * strata[group[0]]) for group in own])
    share /= share.sum()
    shown = torch.stack([scores[name][rows] * float(scale) for name, scale in zip(names, unit, strict=True)])
    left_out = torch.zeros(len(rows), shown.shape[2] + 1).scatter_(1, seen[rows] % (shown.shape[2] + 1), -math.inf)
    left_out.scatter_(1, targets[rows] % left_out.shape[1], 0.0)
    there, targets = there[rows], targets[rows].clamp(min=0)
    with torch.inference_mode(False), torch.enable_grad():
        log_weights = torch.zeros(len(names), requires_grad=True)
        optimizer = torch.optim.Adam([log_weights], lr=0.1)
        for _ in range(LIKELIHOOD_STEPS):
            total = torch.tensordot(log_weights.exp(), shown, 1) + left_out[:, :-1]
            log_probs = total.log_softmax(1).gather(1, targets).masked_fill(~there, 0.0)
            loss = -(share * log_probs.sum(1) / there.sum(1)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return log_weights.detach().exp().numpy() * unit


def as_log_probabilities(
    weights: Mapping[str, float],
    scores: Mapping[str, Tensor],
    targets: Tensor,
    seen: Tensor,
    groups: Sequence[tuple[str, ...]],
) -> dict[str, float]:
    """The weights, scaled so that the weighted sum of scores is a log-probability, up to a constant.

    Args:
        weights: of every expert.
        scores: see `fit_weights`.
        targets: see `fit_weights`.
        seen: see `fit_weights`.
        groups: see `mean_log_ndcg`.
    """
    total = sum(weights[name] * values for name, values in scores.items())
    spread = float(total.std(1).mean())
    factor = 1.0
    if spread:
        factor = float(_by_likelihood({"sum": total}, ["sum"], np.array([1 / spread]), targets, seen, groups)[0])
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
        limit: validation examples in all, see `SHARES`.
        seed: of their choice.
        exclude_seen: whether items of the history are left out of the ranking.
        start: weights of language experts that were trained together, see `fit_language`.

    Returns:
        The weights by kind, the ridge penalty, how many purchases were counted, and the result of
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
    if len(config.weighted) == 1:  # any weight gives the same order
        config.set_weights({})
        return record
    config.set_weights({})  # the generator must rank its candidates, whatever weight an earlier fit gave it
    weights, ranks_silent = {}, False
    for kind, chosen in validation.items():
        logger.info("choosing the weights of experts, %s requests", kind)
        scores, targets, seen = candidate_scores(model, processor, chosen, exclude_seen)
        groups = axis_and_stratum(chosen)
        found = fit_weights(scores, targets, seen, groups, start=start)
        if found.get(GENERATOR):
            found = if_it_earns(found, scores, targets, seen, groups)
        if found.get(LEARNED):
            found = least_learned(found, scores, targets, seen, groups)
        weights[kind] = as_log_probabilities(found, scores, targets, seen, groups)
        if kind == "inferred" and ranks_silent:
            mean = mean_with_silent(weights["silent"], weights[kind])
            weights[kind] = as_log_probabilities(mean, scores, targets, seen, groups)
        elif kind == "silent":
            ranks_silent = any(_spread(scores).values())
    config.set_weights(weights)
    record["weights"] = config.weights
    avoiding = np.flatnonzero([bool(texts) for texts in example_column(examples["validation"], "avoid")])
    if len(avoiding) and experts.avoids:
        logger.info("choosing the weight of phrases to avoid")
        chosen = examples["validation"].select(avoiding)
        record["avoid"] = _best_avoid(
            model, processor, _sampled(chosen, limit // 5, np.random.default_rng(seed)), exclude_seen
        )
    logger.info("fitting the probability that anything fits a request")
    record["fit"] = fit_fit_probability(model, processor, examples["validation"], seed=seed)
    return record


def if_it_earns(
    weights: dict[str, float],
    scores: Mapping[str, Tensor],
    targets: Tensor,
    seen: Tensor,
    groups: Sequence[tuple[str, ...]],
) -> dict[str, float]:
    """The weights, or those of the experts alone if they rank about as well without the generator.

    Args:
        weights: what `fit_weights` found.
        scores: see `fit_weights`, with the generator.
        targets: see `fit_weights`.
        seen: see `fit_weights`.
        groups: see `mean_log_ndcg`.
    """
    others = {name: values for name, values in scores.items() if name != GENERATOR}
    alone = fit_weights(others, targets, seen, groups, start=weights)
    earned = _reached(weights, scores, targets, seen, groups) - _reached(alone, scores, targets, seen, groups)
    return {**alone, GENERATOR: 0.0} if earned < GENERATOR_EARNS else weights


def least_learned(
    weights: dict[str, float],
    scores: Mapping[str, Tensor],
    targets: Tensor,
    seen: Tensor,
    groups: Sequence[tuple[str, ...]],
) -> dict[str, float]:
    """The weights with the smallest share of `learned` that ranks about as well.

    Most of validation asks for what training named, and `learned` knows that by heart: there any amount of it will do,
    and a search takes the amount that chance favours. Of what training did not name, it knows less than the experts
    that compare words.

    Args:
        weights: what `fit_weights` found.
        scores: see `fit_weights`.
        targets: see `fit_weights`.
        seen: see `fit_weights`.
        groups: see `mean_log_ndcg`.
    """
    least = _reached(weights, scores, targets, seen, groups) + math.log(1 - LEARNED_EARNS)
    others = any(weight for name, weight in weights.items() if name != LEARNED)
    for share in LEARNED_SHARES if others else ():
        less = {**weights, LEARNED: share * weights[LEARNED]}
        if _reached(less, scores, targets, seen, groups) >= least:
            return less
    return weights


def _reached(
    weights: Mapping[str, float],
    scores: Mapping[str, Tensor],
    targets: Tensor,
    seen: Tensor,
    groups: Sequence[tuple[str, ...]],
) -> float:
    """`mean_log_ndcg` of a weighted sum of experts."""
    return mean_log_ndcg(sum(weights[name] * scores[name] for name in weights), targets, seen, groups)


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
        expert.set_matrix(ease(bought, items, PENALTIES[1]))
        return PENALTIES[1]
    reached = {}
    for penalty in PENALTIES:
        expert.set_matrix(ease(bought, items, penalty))
        scores, targets, seen = candidate_scores(model, processor, examples, exclude_seen, only="co_purchase")
        reached[penalty] = mean_log_ndcg(scores["co_purchase"], targets, seen, axis_and_stratum(examples))
    best = max(reached, key=reached.get)
    expert.set_matrix(ease(bought, items, best))
    return best


def axis_and_stratum(examples: datasets.Dataset) -> list[tuple[str, str]]:
    """Axis and stratum of every example: what weights are to serve alike."""
    return list(zip(*(example_column(examples, name) for name in ("axis", "stratum")), strict=True))


def _best_avoid(model: Any, processor: MenderProcessor, examples: datasets.Dataset, exclude_seen: bool) -> float:
    """Set the largest weight of phrases to avoid whose rankings are about as good as the best."""
    config, groups = model.experts.config, axis_and_stratum(examples)
    config.set_weights(config.weights, 1.0)
    scores, targets, seen = candidate_scores(model, processor, examples, exclude_seen, avoid=True)
    penalty = scores.pop(AVOID)
    weights = [config.weights[KINDS[kind]] for kind in kinds_of(examples)]
    total = sum(torch.tensor([own[name] for own in weights])[:, None] * values for name, values in scores.items())
    reached = {weight: mean_log_ndcg(total - weight * penalty, targets, seen, groups) for weight in AVOID_WEIGHTS}
    least = max(reached.values()) + np.log(1 - TOLERANCE)
    best = max(weight for weight, value in reached.items() if value >= least)
    config.set_weights(config.weights, best)
    return best


def validation_by_kind(examples: datasets.Dataset, limit: int, seed: int) -> dict[str, datasets.Dataset]:
    """Validation examples of every kind: positive ones only, as many of each axis as of any other.

    Silent ones are recommendation examples without their preference. Those of several matching modes differ in the
    preference alone, so each of them is there once.

    Args:
        examples: the validation split of a benchmark.
        limit: examples in all, see `SHARES`.
        seed: of their choice.
    """
    axes = {name: 1.0 for name in dict.fromkeys(example_column(examples, "axis"))}
    positive = select_axes(examples, axes)
    generator = np.random.default_rng(seed)
    most = round(SHARES["silent"] * limit)
    next_items = select_axes(positive, {"recommendation": 1.0})
    columns = (example_column(next_items, name) for name in ("user_id", "history", "targets"))
    first: dict[str, int] = {}
    for row, example in enumerate(zip(*columns, strict=True)):
        first.setdefault(repr(example), row)
    found = {"silent": without_preferences(_sampled(next_items.select([*first.values()]), most, generator))}
    kinds = np.array(example_column(positive, "kind"))
    for kind in KINDS[:2]:
        rows = np.flatnonzero(kinds == kind)
        # A kind without examples in the benchmark is fitted on all examples.
        own = positive.select(rows) if len(rows) else positive
        axis = np.array(example_column(own, "axis"))
        share = max(1, round(SHARES[kind] * limit) // len(np.unique(axis)))
        parts = [_sampled(own.select(np.flatnonzero(axis == name)), share, generator) for name in np.unique(axis)]
        found[kind] = datasets.concatenate_datasets(parts)
    return found


def _sampled(examples: datasets.Dataset, limit: int, generator: np.random.Generator) -> datasets.Dataset:
    if len(examples) <= limit:
        return examples
    return examples.select(np.sort(generator.choice(len(examples), limit, replace=False)))


def candidate_scores(
    model: Any,
    processor: MenderProcessor,
    examples: datasets.Dataset,
    exclude_seen: bool,
    only: str | None = None,
    avoid: bool = False,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Scores of the candidates of each example, by all experts or one of them, perhaps with penalties as "avoid".

    Args:
        model: see `fit_experts`.
        processor: renders examples.
        examples: M of a benchmark.
        exclude_seen: whether items of the history are left out of the ranking.
        only: an expert; the default is all.
        avoid: whether to score phrases to avoid.

    Returns:
        Scores by expert (M, P), and positions among the candidates of the targets (M, R) and of the items to leave out
        (M, S), padded with -1.
    """
    features = prepare_examples(examples, processor)
    collate = MenderCollator(processor, model, exclude_seen=True)
    wanted = [processor.item_indices(found) for found in example_column(examples, "targets")]
    alone = only is not None or GENERATOR not in model.experts.config.weighted
    parts, targets, seen = [], [], []
    starts = range(0, len(features), BATCH)
    for start in tqdm(starts, desc="Scoring candidates", unit="batch", delay=2, leave=False):
        batch = collate([features[row] for row in range(start, min(start + BATCH, len(features)))])
        batch = {name: value.to(model.device) for name, value in batch.items()}
        target, own = _padded(wanted[start : start + BATCH]), batch["exclude"].cpu()
        own = own if exclude_seen else own[:, :0]
        shared = {}
        if not alone:
            shared["encoder_outputs"] = model.states_for_retrieval(batch["input_ids"], batch["attention_mask"])
        found = model.expert_scores(batch["input_ids"], batch.get("expert_input_ids"), **shared)
        found = {name: scores.cpu() for name, scores in found.items() if only in (None, name)}
        if avoid:
            found[AVOID] = model.penalty(batch["avoid_input_ids"]).cpu()
        if not alone:
            found, target, own = _with_generator(model, batch | shared, found, target, own)
        parts.append(found)
        targets.append(target)
        seen.append(own)
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return joined, *(_padded([row for part in listed for row in part]) for listed in (targets, seen))


def _padded(rows: Sequence[Any]) -> Tensor:
    """Rows of item indices as one table, padded with -1."""
    return pad_sequence([torch.as_tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=-1)


def _with_generator(
    model: Any, batch: Mapping[str, Tensor], scores: Mapping[str, Tensor], targets: Tensor, seen: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Scores of the candidates of a batch, including the generator's, and the positions of targets and seen items."""
    asked = {name: batch[name] for name in ("input_ids", "attention_mask", "kind", "encoder_outputs") if name in batch}
    items = next(iter(scores.values())).shape[1]
    alone = {"behaviour": 0.0, "language": 0.0}
    own = model.recommend(**asked, top_k=min(BEST, items), exclude=batch["exclude"], weights=alone).item_indices.cpu()
    # The best rank of an item by the generator or an expert; targets come first, seen items last.
    rank = torch.full((len(targets), items + 1), items)
    rank.scatter_(1, own.where(own >= 0, items), torch.arange(own.shape[1]).expand_as(own))
    for values in scores.values():
        order = values.argsort(dim=1, descending=True, stable=True)
        place = torch.empty_like(order).scatter_(1, order, torch.arange(items).expand_as(order))
        # An expert with equal scores for all items ranks none of them first.
        place = place.masked_fill(values.amax(1, keepdim=True) == values.amin(1, keepdim=True), items)
        rank[:, :items] = torch.minimum(rank[:, :items], place)
    rank.scatter_(1, seen.where(seen >= 0, items), 2 * items)
    sure = targets[:, :SURE_TARGETS]
    rank.scatter_(1, sure.where(sure >= 0, items), -1)
    pool = rank[:, :items].topk(min(CANDIDATES, items), dim=1, largest=False).indices.sort(dim=1).values

    def places(wanted: Tensor) -> Tensor:
        at = torch.searchsorted(pool, wanted).clamp_(max=pool.shape[1] - 1)
        return torch.where(pool.gather(1, at) == wanted, at, -1)

    found = {name: values.gather(1, pool) for name, values in scores.items()}
    found[GENERATOR] = model.log_probabilities(pool.to(model.device), **asked).cpu()
    return found, places(targets), places(seen.contiguous())
