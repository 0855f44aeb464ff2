"""Validation requests with the scores that every expert gives their items, which weights are chosen on.

Scores are computed once and kept, so that thousands of weights can be tried. Scoring a whole catalogue with a generator
takes too long, and those of a large one fill the memory. Then scores are limited to candidates: the targets, and the
items that the generator or an expert ranks first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..configuration_mender import GENERATOR, KINDS
from ..processing_mender import MenderProcessor
from .batches import MenderCollator
from .data import example_column, prepare_examples, select_axes, without_preferences

__all__ = [
    "AVOID",
    "SHARES",
    "ScoredRequests",
    "axis_and_stratum",
    "sampled",
    "score_requests",
    "spread_of",
    "validation_by_kind",
]

ENOUGH = 20
"""An axis with fewer requests counts in proportion to them; otherwise a single request could decide the weights."""
FLOOR = 0.01
"""Added to NDCG before its logarithm, so that an axis with an NDCG of 0 does not dominate."""
TOP_K = 10
"""Items of a ranking that NDCG counts."""
CANDIDATES, BEST = 128, 30
"""Number of candidates of an example, and of those that the generator contributes."""
SURE_TARGETS = 10
"""Number of an example's relevant items that are among the candidates in any case."""
WHOLE = 20_000
"""Of larger catalogues only candidates are kept, even without a generator; a score takes 4 bytes."""
GENERATING = ("input_ids", "attention_mask", "kind", "encoder_outputs")
"""What the generator reads of a batch."""
AVOID = "avoid"
BATCH = 16
SHARES = {"stated": 0.6, "inferred": 0.2, "silent": 0.2}
"""Of the validation examples, by kind: stated requests have the most axes."""


@dataclass(frozen=True, eq=False)
class ScoredRequests:
    """M requests with the scores of P items each: of a whole catalogue, or of candidates.

    Attributes:
        scores: by expert. Shape of each: (M, P).
        targets: items that each request asks for, -1 for padding. Shape: (M, R).
        seen: items that are not ranked, -1 for padding. Shape: (M, S).
        groups: axis and stratum of each request, or its axis alone.
    """

    scores: Mapping[str, Tensor]
    targets: Tensor
    seen: Tensor
    groups: Sequence[tuple[str, ...]]

    def rows(self, rows: np.ndarray) -> ScoredRequests:
        """Some of the requests."""
        scores = {name: values[rows] for name, values in self.scores.items()}
        return ScoredRequests(scores, self.targets[rows], self.seen[rows], [self.groups[row] for row in rows])

    def without(self, expert: str) -> ScoredRequests:
        """The same requests with the scores of the other experts."""
        return replace(self, scores={name: values for name, values in self.scores.items() if name != expert})

    @cached_property
    def spread(self) -> dict[str, float]:
        """By expert, see `spread_of`."""
        return {name: spread_of(values) for name, values in self.scores.items()}

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """The group of each request (M,), and how much each of G groups counts (G,), 1 in all.

        Axes count alike, and so do the strata of an axis. Axes of fewer than `ENOUGH` requests count less; strata do
        not.
        """
        number = {group: place for place, group in enumerate(dict.fromkeys(self.groups))}
        place = torch.tensor([number[group] for group in self.groups], dtype=torch.int64)
        axes = [group[0] for group in self.groups]
        strata = [axis for axis, *_ in number]
        share = [min(1, axes.count(axis) / ENOUGH) / strata.count(axis) for axis in strata]
        share = torch.tensor(share, dtype=torch.float64)
        return place, share / share.sum()

    @cached_property
    def shares(self) -> Tensor:
        """How much each request counts, 1 in all: those of a group alike, groups as in `places`. Shape: (M,)."""
        place, share = self.places
        return (share / torch.bincount(place, minlength=len(share)))[place]

    def weighted_sum(self, weights: Mapping[str, float | Tensor]) -> Tensor:
        """A sum of experts' scores, each with a weight for all requests or one for each (M, 1). Shape: (M, P)."""
        return sum(weight * self.scores[name] for name, weight in weights.items())

    def ndcg(self, scores: Tensor) -> Tensor:
        """NDCG@10 of each request when items are ranked by these scores (M, P). Shape: (M,)."""
        top_k = min(TOP_K, scores.shape[1])
        found = self.relevant.gather(1, _first(scores, self.left_out, top_k))
        discount = 1.0 / torch.log2(torch.arange(top_k, dtype=torch.float64) + 2.0)
        most = discount.cumsum(0)[(self.targets >= 0).sum(1).clamp(1, top_k) - 1]
        return (found * discount).sum(1) / most

    def mean_log_ndcg(self, scores: Tensor) -> float:
        """The mean over axes, and within an axis over strata, of log(NDCG@10 + 0.01), for these scores (M, P).

        Small and large figures count alike; for small axes, see `places`.
        """
        place, share = self.places
        sums = torch.zeros(len(share), dtype=torch.float64).index_add_(0, place, self.ndcg(scores))
        return float((sums / torch.bincount(place, minlength=len(share)) + FLOOR).log() @ share)

    def reached(self, weights: Mapping[str, float]) -> float:
        """`mean_log_ndcg` of a weighted sum of the experts."""
        return self.mean_log_ndcg(self.weighted_sum(weights))

    @cached_property
    def relevant(self) -> Tensor:
        """Whether an item is a target. Shape: (M, P)."""
        return self._mask(self.targets)

    @cached_property
    def left_out(self) -> Tensor:
        """Whether an item is not ranked. Shape: (M, P)."""
        return self._mask(self.seen)

    def _mask(self, listed: Tensor) -> Tensor:
        items = next(iter(self.scores.values())).shape[1]
        mask = torch.zeros(len(listed), items + 1, dtype=torch.bool)
        return mask.scatter_(1, listed.where(listed >= 0, items), True)[:, :items]


def spread_of(scores: Tensor) -> float:
    """The mean over requests of the standard deviation over items (M, P); 0 for a single item."""
    return float(scores.std(1).mean()) if scores.shape[1] > 1 else 0.0


def _first(scores: Tensor, left_out: Tensor, top_k: int) -> Tensor:
    """Items with the highest scores, but for those left out; of equal scores, the lower index first.

    Shape: (M, top_k).
    """
    # A float's bits order like an integer, if those of negative floats are inverted; -0.0 equals 0.0.
    bits = (scores.float() + 0.0).view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (bits.to(torch.int64) << 32) - torch.arange(scores.shape[1])
    return keys.masked_fill_(left_out, torch.iinfo(keys.dtype).min).topk(top_k, dim=1).indices


def axis_and_stratum(examples: datasets.Dataset) -> list[tuple[str, str]]:
    """Axis and stratum of every example: what weights are to serve alike."""
    return list(zip(*(example_column(examples, name) for name in ("axis", "stratum")), strict=True))


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
    found = {"silent": without_preferences(sampled(next_items.select([*first.values()]), most, generator))}
    kinds = np.array(example_column(positive, "kind"))
    for kind in KINDS[:2]:
        rows = np.flatnonzero(kinds == kind)
        # A kind without examples in the benchmark is fitted on all examples.
        own = positive.select(rows) if len(rows) else positive
        axis = np.array(example_column(own, "axis"))
        share = max(1, round(SHARES[kind] * limit) // len(np.unique(axis)))
        parts = [sampled(own.select(np.flatnonzero(axis == name)), share, generator) for name in np.unique(axis)]
        found[kind] = datasets.concatenate_datasets(parts)
    return found


def sampled(examples: datasets.Dataset, limit: int, generator: np.random.Generator) -> datasets.Dataset:
    """At most so many examples, in their order."""
    if len(examples) <= limit:
        return examples
    return examples.select(np.sort(generator.choice(len(examples), limit, replace=False)))


def score_requests(
    model: Any,
    processor: MenderProcessor,
    examples: datasets.Dataset,
    exclude_seen: bool,
    only: str | None = None,
    avoid: bool = False,
) -> ScoredRequests:
    """Score every item for each example, or candidates where there is a generator or the catalogue is large.

    Removed items are no candidates.

    Args:
        model: see `fit_experts`.
        processor: renders examples.
        examples: M of a benchmark.
        exclude_seen: whether items of the history are left out of the ranking.
        only: an expert; the default is all.
        avoid: whether to add penalties of phrases to avoid, as `AVOID`.
    """
    features = prepare_examples(examples, processor)
    collate = MenderCollator(processor, model, exclude_seen=True)
    live = model.live_items()
    kept = None if live is None else set(live.tolist())
    wanted = [processor.item_indices(found) for found in example_column(examples, "targets")]
    wanted = [[index for index in own if kept is None or index in kept] for own in wanted]
    alone = only is not None or GENERATOR not in model.experts.config.weighted
    parts, targets, seen = [], [], []
    starts = range(0, len(features), BATCH)
    for start in tqdm(starts, desc="Scoring candidates", unit="batch", delay=2, leave=False):
        # Labels are for training; the target of an example may have been removed from the catalogue.
        batch = collate([features[row] | {"item": -1} for row in range(start, min(start + BATCH, len(features)))])
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
        items = next(iter(found.values())).shape[1]
        asked = {name: value for name, value in (batch | shared).items() if name in GENERATING}
        pool = None if live is None else live.cpu().expand(len(target), -1)
        if not alone or items > WHOLE:
            first = None if alone else _ranked_by_generator(model, asked, batch["exclude"], items)
            pool = _candidates(found, target, own, first, pool)
        if pool is not None:
            found = {name: values.gather(1, pool) for name, values in found.items()}
            target, own = _places(pool, target), _places(pool, own)
        if not alone:
            found[GENERATOR] = model.log_probabilities(pool.to(model.device), **asked).cpu()
        parts.append(found)
        targets.append(target)
        seen.append(own)
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    places = (_padded([row for part in listed for row in part]) for listed in (targets, seen))
    return ScoredRequests(joined, *places, axis_and_stratum(examples))


def _padded(rows: Sequence[Any]) -> Tensor:
    """Rows of item indices as one table, padded with -1."""
    return pad_sequence([torch.as_tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=-1)


def _ranked_by_generator(model: Any, asked: Mapping[str, Tensor], exclude: Tensor, items: int) -> Tensor:
    """The items that the generator alone ranks first, padded with -1. Shape: (B, <= BEST)."""
    alone = {"behaviour": 0.0, "language": 0.0}
    return model.recommend(**asked, top_k=min(BEST, items), exclude=exclude, weights=alone).item_indices.cpu()


def _candidates(
    scores: Mapping[str, Tensor], targets: Tensor, seen: Tensor, first: Tensor | None, live: Tensor | None
) -> Tensor:
    """Items for each request: its targets, and what experts or generator rank first; ascending. Shape: (B, P).

    Args:
        scores: of the experts. Shape of each: (B, N).
        targets: padded with -1. Shape: (B, R).
        seen: items that are not ranked, padded with -1. Shape: (B, S).
        first: see `_ranked_by_generator`.
        live: indices of the items that were not removed; default: all. Shape: (B, live items).
    """
    items = next(iter(scores.values())).shape[1]
    count = min(CANDIDATES, items if live is None else live.shape[1])
    # The best rank of an item by the generator or an expert; targets come first, seen and removed items last.
    rank = torch.full((len(targets), items + 1), items)
    if first is not None:
        rank.scatter_(1, first.where(first >= 0, items), torch.arange(first.shape[1]).expand_as(first))
    nothing = torch.zeros(len(targets), items, dtype=torch.bool)
    for values in scores.values():
        order = _first(values, nothing, count)
        # An expert with equal scores for all items ranks none of them first.
        alike = values.amax(1, keepdim=True) == values.amin(1, keepdim=True)
        place = torch.arange(count).expand_as(order).masked_fill(alike, items)
        rank.scatter_reduce_(1, order, place, "amin")
    rank.scatter_(1, seen.where(seen >= 0, items), 2 * items)
    sure = targets[:, :SURE_TARGETS]
    rank.scatter_(1, sure.where(sure >= 0, items), -1)
    rank = rank[:, :items]
    if live is not None:
        rank = torch.full_like(rank, 3 * items).scatter_(1, live, rank.gather(1, live))
    return rank.topk(count, dim=1, largest=False).indices.sort(dim=1).values


def _places(pool: Tensor, wanted: Tensor) -> Tensor:
    """Positions of items in a pool (B, P), -1 for those that it lacks. Shape: that of `wanted`."""
    wanted = wanted.contiguous()
    at = torch.searchsorted(pool.contiguous(), wanted).clamp_(max=pool.shape[1] - 1)
    return torch.where(pool.gather(1, at) == wanted, at, -1)
