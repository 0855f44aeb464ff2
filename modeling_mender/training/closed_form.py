"""Experts fitted without a gradient: counts, EASE in closed form, a BM25 index, and weights chosen on validation.

EASE (Steck 2019, arXiv:1905.03375) is a linear model of each item on all others with a ridge penalty and a zero
diagonal; its solution needs one inverse of the items' Gram matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import bm25s
import datasets
import numpy as np
import torch
from torch import Tensor

from ..experts import Lexical
from ..modeling_experts import KINDS, WINDOW, ExpertsRecommender, checked_weights
from ..processing_mender import MenderProcessor
from .batches import MenderCollator
from .data import example_column, prepare_examples, select_axes, training_histories, without_preferences

__all__ = [
    "bm25_index",
    "ease",
    "fill_lexical",
    "fit_experts",
    "fit_weights",
    "mean_log_ndcg",
    "popularity",
    "transitions",
]

PENALTIES = (20.0, 100.0, 500.0)
MOST_ITEMS_FOR_PENALTIES = 5_000
"""Larger catalogues use the middle penalty without a search, because each inverse takes a minute."""
USERS_AT_ONCE = 8_192
EXAMPLES_PER_KIND, BATCH_SIZE = 1_000, 128
FLOOR = 0.01
"""Added to NDCG before its logarithm, so that an axis with an NDCG of 0 does not dominate."""


def popularity(histories: Sequence[Sequence[int]], num_items: int) -> Tensor:
    """How often each item was bought. Shape: (N,)."""
    bought = [item for history in histories for item in history]
    return torch.bincount(torch.tensor(bought, dtype=torch.long), minlength=num_items).float()


def ease(histories: Sequence[Sequence[int]], num_items: int, penalty: float, most_items: int = 10_000) -> Tensor:
    """The item-item matrix of EASE.

    Args:
        histories: item indices of each user.
        num_items: N.
        penalty: ridge penalty; a larger one gives rare items less weight.
        most_items: number of most popular items to use: the inverse takes N^3 operations and 4 N^2 bytes.

    Returns:
        Entry (i, j) is the score that item i in a history gives to item j; the diagonal is 0. Shape: (N, N).
    """
    table = _padded([list(dict.fromkeys(history)) for history in histories])  # repeated purchases count once
    used = torch.arange(num_items)
    if num_items > most_items:
        counts = torch.bincount(table[table >= 0], minlength=num_items)
        used = counts.argsort(descending=True, stable=True)[:most_items].sort().values
    size = len(used)
    position = torch.full((num_items + 1,), -1)
    position[used] = torch.arange(size)
    gram = torch.zeros(size * size)
    for users in position[table].split(USERS_AT_ONCE):
        both = (users[:, :, None] >= 0) & (users[:, None, :] >= 0)
        cells = (users[:, :, None] * size + users[:, None, :])[both]
        gram.index_add_(0, cells, torch.ones(len(cells)))
    gram = gram.view(size, size)
    gram.diagonal().add_(penalty)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = -inverse / inverse.diagonal()
    weights.fill_diagonal_(0.0)
    if size == num_items:
        return weights
    matrix = torch.zeros(num_items, num_items)
    matrix[used[:, None], used] = weights
    return matrix


def transitions(histories: Sequence[Sequence[int]], num_items: int, window: int = WINDOW) -> Tensor:
    """Matrix of how often an item was bought soon after another: log(1 + sum of 1/distance). Shape: (N, N)."""
    table = _padded(histories)
    matrix = torch.zeros(num_items * num_items)
    for distance in range(1, min(window, table.shape[1] - 1) + 1):
        before, after = table[:, :-distance], table[:, distance:]
        both = after >= 0
        cell = before[both] * num_items + after[both]
        matrix.index_add_(0, cell, torch.full((len(cell),), 1.0 / distance))
    return matrix.log1p_().view(num_items, num_items)


def _padded(histories: Sequence[Sequence[int]]) -> Tensor:
    """Histories as one table, padded with -1. Shape: (U, H)."""
    lengths = torch.tensor([len(history) for history in histories])
    table = torch.full((len(histories), max(1, int(lengths.max()))), -1)
    table[torch.arange(table.shape[1]) < lengths[:, None]] = torch.tensor([item for own in histories for item in own])
    return table


def bm25_index(token_ids: Sequence[Sequence[int]], vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """BM25 posting lists over token ids, computed by the library bm25s (Lucene's variant, k1 = 1.5, b = 0.75).

    Args:
        token_ids: tokens of each item's text.
        vocabulary: V, the number of tokens.

    Returns:
        Starts of the posting lists (V + 1,), item indices (P,) and BM25 terms (P,) of all postings.
    """
    index = bm25s.BM25()
    index.index((list(map(list, token_ids)), {str(token): token for token in range(vocabulary)}), show_progress=False)
    scores = index.scores
    starts = torch.zeros(vocabulary + 1, dtype=torch.int64)
    pointers = torch.from_numpy(np.asarray(scores["indptr"]).astype(np.int64))
    starts[: len(pointers)] = pointers
    starts[len(pointers) :] = pointers[-1]
    items = torch.from_numpy(np.asarray(scores["indices"]).astype(np.int32))
    return starts, items, torch.from_numpy(np.asarray(scores["data"], dtype=np.float32))


def fill_lexical(expert: Lexical, index: tuple[Tensor, Tensor, Tensor]) -> None:
    """Copy an index from `bm25_index` into the expert."""
    for buffer, values in zip((expert.starts, expert.items, expert.gains), index, strict=True):
        buffer.copy_(values)


def mean_log_ndcg(scores: Tensor, targets: Tensor, seen: Tensor, groups: Sequence[str], top_k: int = 10) -> float:
    """The mean over groups of log(NDCG@k + 0.01), so that relative changes of small and large values count equally.

    Args:
        scores: scores of all items for every example. Shape: (M, N).
        targets: target item index of each example. Shape: (M,).
        seen: item indices to leave out of the ranking, padded with -1. Shape: (M, S).
        groups: the group of each example, such as its axis.
        top_k: k of NDCG@k.
    """
    own = scores.gather(1, targets[:, None])
    # Ties are ordered by item index, as in a ranked list.
    ahead = (scores > own) | ((scores == own) & (torch.arange(scores.shape[1]) < targets[:, None]))
    among_seen = ahead.gather(1, seen.clamp(min=0)) & (seen >= 0)
    # A history may contain an item more than once.
    repeats = (seen[:, :, None] == seen[:, None, :]).tril(-1).any(2)
    rank = ahead.sum(1) - (among_seen & ~repeats).sum(1) + 1
    gain = torch.where(rank <= top_k, 1.0 / torch.log2(rank + 1.0), 0.0)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    means = np.bincount(group, gain.numpy(), len(names)) / np.bincount(group)
    return float(np.log(means + FLOOR).mean())


def fit_weights(scores: Mapping[str, Tensor], targets: Tensor, seen: Tensor, groups: Sequence[str]) -> dict[str, float]:
    """The weights of experts with the best `mean_log_ndcg`.

    A pattern search: each weight is increased, decreased, set to zero or restored in turn, and improvements are kept;
    then again with smaller steps.

    Args:
        scores: scores of all items for every example, by expert. Shape of each: (M, N).
        targets: target item index of each example. Shape: (M,).
        seen: item indices to leave out of the ranking, padded with -1. Shape: (M, S).
        groups: the group of each example, such as its axis.

    Returns:
        A weight of at least 0 for every expert; the largest is 1. All are 1 if no expert distinguishes items.
    """
    spread = {name: float(values.std(1).mean()) for name, values in scores.items()}
    names = [name for name in scores if spread[name] > 0]  # an expert with constant scores gets no weight
    if not names:
        return dict.fromkeys(scores, 1.0)

    def value(weights: np.ndarray) -> float:
        total = sum(float(weight) * scores[name] for name, weight in zip(names, weights, strict=True) if weight)
        return mean_log_ndcg(total, targets, seen, groups)

    # Steps are relative to the spread of an expert's scores within a request, so that they change rankings.
    unit = 1 / np.array([spread[name] for name in names])
    starts = [*(np.eye(len(names)) * unit), unit]
    best = max(starts, key=value)
    best_value = value(best)
    for factor in (4.0, 2.0, 1.3):
        improved = True
        while improved:
            improved = False
            for position in range(len(names)):
                base = best[position] or unit[position] * (best / unit).max() / 4
                for candidate in (base * factor, base / factor, base, 0.0):
                    trial = best.copy()
                    trial[position] = candidate
                    if trial.any() and (trial_value := value(trial)) > best_value + 1e-6:
                        best, best_value, improved = trial, trial_value, True
    weights = dict(zip(names, best / best.max(), strict=True))
    return {name: float(np.float32(weights.get(name, 0.0))) for name in scores}


@torch.no_grad()
def fit_experts(
    model: ExpertsRecommender,
    processor: MenderProcessor,
    examples: datasets.DatasetDict,
    *,
    exclude_seen: bool = True,
) -> dict[str, Any]:
    """Fit experts on purchases of the training period, and the weights of each kind of request on validation examples.

    Args:
        model: fitted in place.
        processor: renders examples.
        examples: `train` and `validation` splits of a benchmark.
        exclude_seen: whether items of the history are left out of the ranking.

    Returns:
        The weights by kind, the ridge penalty, and the number of purchases.
    """
    histories = training_histories(examples["train"], examples["validation"])
    bought = [processor.item_indices(history) for history in histories]
    items = len(processor.item_ids)
    record: dict[str, Any] = {"purchases": sum(map(len, bought))}
    validation = _by_kind(examples["validation"])
    if model.popularity is not None:
        model.popularity.counts.copy_(popularity(bought, items))
    if model.transitions is not None:
        model.transitions.set_matrix(transitions(bought, items))
    if model.co_purchase is not None:
        record["ridge_penalty"] = _best_penalty(model, processor, bought, validation["silent"], exclude_seen)
    weights = {}
    if len(model.config.experts) == 1:  # any weight gives the same order
        return record
    for kind, chosen in validation.items():
        scores, targets, seen = _expert_scores(model, processor, chosen, exclude_seen=exclude_seen)
        weights[kind] = fit_weights(scores, targets, seen, example_column(chosen, "axis"))
    model.config.weights = checked_weights(weights, model.config.experts)
    return record | {"weights": model.config.weights}


def _best_penalty(
    model: ExpertsRecommender,
    processor: MenderProcessor,
    bought: list[list[int]],
    silent: datasets.Dataset,
    exclude_seen: bool,
) -> float:
    """Fit EASE with the penalty that ranks best on validation examples; large catalogues use a fixed penalty."""
    items = len(processor.item_ids)
    if items > MOST_ITEMS_FOR_PENALTIES:
        model.co_purchase.set_matrix(ease(bought, items, PENALTIES[1]))
        return PENALTIES[1]
    values = {}
    for penalty in PENALTIES:
        model.co_purchase.set_matrix(ease(bought, items, penalty))
        scores, targets, seen = _expert_scores(model, processor, silent, only="co_purchase", exclude_seen=exclude_seen)
        values[penalty] = mean_log_ndcg(scores["co_purchase"], targets, seen, example_column(silent, "axis"))
    best = max(values, key=values.get)
    model.co_purchase.set_matrix(ease(bought, items, best))
    return best


def _by_kind(examples: datasets.Dataset) -> dict[str, datasets.Dataset]:
    """Positive validation examples of every kind, equally many per axis and at most `EXAMPLES_PER_KIND`.

    Silent requests are recommendation examples without their preference.
    """
    axes = {name: 1.0 for name in dict.fromkeys(example_column(examples, "axis"))}
    positive = select_axes(examples, axes)
    generator = np.random.default_rng(0)
    silent = _sampled(select_axes(positive, {"recommendation": 1.0}), EXAMPLES_PER_KIND, generator)
    by_kind = {"silent": without_preferences(silent)}
    kinds = np.array(example_column(positive, "kind"))
    for kind in KINDS[:2]:
        rows = np.flatnonzero(kinds == kind)
        # A kind without examples in the benchmark is fitted on all examples.
        own = positive.select(rows) if len(rows) else positive
        axis = np.array(example_column(own, "axis"))
        share = max(1, EXAMPLES_PER_KIND // len(np.unique(axis)))
        samples = [_sampled(own.select(np.flatnonzero(axis == name)), share, generator) for name in np.unique(axis)]
        by_kind[kind] = datasets.concatenate_datasets(samples)
    return by_kind


def _sampled(examples: datasets.Dataset, limit: int, generator: np.random.Generator) -> datasets.Dataset:
    if len(examples) <= limit:
        return examples
    return examples.select(np.sort(generator.choice(len(examples), limit, replace=False)))


def _expert_scores(
    model: ExpertsRecommender,
    processor: MenderProcessor,
    examples: datasets.Dataset,
    only: str | None = None,
    exclude_seen: bool = True,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Scores by expert (M, N), targets (M,), and items to leave out (M, S) of examples."""
    features = prepare_examples(examples, processor)
    collate = MenderCollator(processor, model, exclude_seen=True)
    batches, targets, seen = [], [], []
    for start in range(0, len(features), BATCH_SIZE):
        batch = collate([features[row] for row in range(start, min(start + BATCH_SIZE, len(features)))])
        by_expert = model.expert_scores(batch["input_ids"].to(model.device))
        batches.append({name: scores.cpu() for name, scores in by_expert.items() if only in (None, name)})
        targets.append(batch["labels"][:, 0])
        seen.append(batch["exclude"] if exclude_seen else batch["exclude"][:, :0])
    width = max(items.shape[1] for items in seen)
    padded = [torch.nn.functional.pad(items, (0, width - items.shape[1]), value=-1) for items in seen]
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    return joined, torch.cat(targets), torch.cat(padded)
