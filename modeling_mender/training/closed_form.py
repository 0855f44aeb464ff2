"""Experts fitted without a gradient: counts, EASE in closed form, a BM25 index.

EASE (Steck 2019, arXiv:1905.03375) is a linear model of each item on all others with a ridge penalty and a zero
diagonal; its solution needs one inverse of the items' Gram matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import torch
from torch import Tensor

from ..experts import ExpertSum
from ..language_experts import K1, UNKNOWN_WORD, B, Lexical, keys_of_texts
from ..purchase_experts import WINDOW, ItemItem

__all__ = [
    "bm25_index",
    "ease",
    "fill_lexical",
    "observe",
    "popularity",
    "transitions",
]

USERS_AT_ONCE = 8_192
ROWS_AT_ONCE = 256
TEXTS_AT_ONCE = 4_096


def popularity(histories: Sequence[Sequence[int]], num_items: int) -> Tensor:
    """How often each item was bought. Shape: (N,)."""
    bought = [item for history in histories for item in history]
    return torch.bincount(torch.tensor(bought, dtype=torch.long), minlength=num_items).float()


def ease(
    histories: Sequence[Sequence[int]], num_items: int, penalty: float, most_items: int = 10_000
) -> tuple[Tensor, Tensor]:
    """The item-item matrix of EASE, and the items that it is of.

    Args:
        histories: item indices of each user.
        num_items: N.
        penalty: ridge penalty; a larger one gives rare items less weight.
        most_items: number of most popular items to use: the inverse takes S^3 operations and 4 S^2 bytes, a few times.

    Returns:
        Entry (i, j) is the score that the i-th of these items in a history gives to the j-th; the diagonal is 0. Shape:
        (S, S). The items, ascending. Shape: (S,).
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
    return weights.fill_diagonal_(0.0), used


def transitions(histories: Sequence[Sequence[int]], num_items: int, window: int = WINDOW) -> Tensor:
    """Matrix of how often an item was bought soon after another: log(1 + sum of 1/distance). Shape: (N, N), sparse."""
    table = _padded(histories)
    pairs, gains = [torch.empty(2, 0, dtype=torch.int64)], [torch.empty(0)]
    for distance in range(1, min(window, table.shape[1] - 1) + 1):
        before, after = table[:, :-distance], table[:, distance:]
        both = after >= 0
        pairs.append(torch.stack([before[both], after[both]]))
        gains.append(torch.full((pairs[-1].shape[1],), 1.0 / distance))
    counts = torch.sparse_coo_tensor(
        torch.cat(pairs, 1), torch.cat(gains), (num_items, num_items), check_invariants=True
    ).coalesce()
    return counts.log1p()


def observe(experts: ExpertSum, purchases: Sequence[tuple[Sequence[int], int]]) -> None:
    """Count purchases that came after the fit: popularity and transitions are then what a fit with them would give.

    A row of transitions that is full (`num_neighbours`) forgets its least entry, as a fit does; what was forgotten
    before starts at 0. Tensors are replaced, not written to.

    Args:
        experts: those of a model.
        purchases: for each, the items that its user bought before, oldest first, and the item.
    """
    if experts.popularity is not None:
        counts = experts.popularity.counts
        bought = torch.tensor([item for _, item in purchases], device=counts.device)
        experts.popularity.counts = counts + torch.bincount(bought, minlength=len(counts)).to(counts)
    gains = [
        (earlier, item, 1.0 / distance)
        for history, item in purchases
        for distance, earlier in enumerate(reversed(history[-WINDOW:]), 1)
    ]
    if experts.transitions is not None and gains:
        _add_to_logarithms(experts.transitions, gains)


def _add_to_logarithms(expert: ItemItem, gains: Sequence[tuple[int, int, float]]) -> None:
    """Add to entries (row, column, value) of a matrix of which an expert keeps log(1 + entry)."""
    device, items = expert.strengths.device, len(expert.neighbours)
    rows, columns, values = (torch.tensor(column, device=device) for column in zip(*gains, strict=True))
    changed, place = rows.unique(return_inverse=True)
    neighbours, strengths = expert.neighbours.clone(), expert.strengths.clone()
    for first in range(0, len(changed), ROWS_AT_ONCE):
        own = changed[first : first + ROWS_AT_ONCE]
        here = (place >= first) & (place < first + len(own))
        # Padding goes into an extra column, which is removed.
        kept = torch.where(neighbours[own] < 0, items, neighbours[own]).long()
        table = torch.zeros(len(own), items + 1, device=device).scatter_(1, kept, strengths[own].float().expm1())
        table.index_put_((place[here] - first, columns[here]), values[here].float(), accumulate=True)
        part = ItemItem(items, neighbours.shape[1])
        part.neighbours, part.strengths = neighbours[own], strengths[own]
        part.set_matrix(table[:, :items].log1p())
        neighbours[own], strengths[own] = part.neighbours, part.strengths
    expert.neighbours, expert.strengths = neighbours, strengths


def _padded(histories: Sequence[Sequence[int]]) -> Tensor:
    """Histories as one table, padded with -1. Shape: (U, H)."""
    lengths = torch.tensor([len(history) for history in histories], dtype=torch.int64)
    table = torch.full((len(histories), max([1, *map(len, histories)])), -1)
    bought = [item for own in histories for item in own]
    table[torch.arange(table.shape[1]) < lengths[:, None]] = torch.tensor(bought, dtype=torch.int64)
    return table


def bm25_index(token_ids: Sequence[Sequence[int]], vocabulary: int, roles: Tensor | None = None) -> tuple[Tensor, ...]:
    """BM25 posting lists over the terms of texts, computed by the library bm25s (Lucene's variant).

    Args:
        token_ids: tokens of each item's text.
        vocabulary: V, the number of tokens.
        roles: see `language_experts.keys_of`. Shape: (V,).

    Returns:
        Starts of the posting lists (V + W + 1,), item indices (P,) and gains (P,) of all postings, the mean length of
        a text, and with roles the words, see `Lexical` (W,).
    """
    texts: list[list[int]] = []
    for start in range(0, len(token_ids), TEXTS_AT_ONCE):
        texts += keys_of_texts(token_ids[start : start + TEXTS_AT_ONCE], roles)
    words: list[int] = []
    if roles is not None:
        words = [*sorted({key for own in texts for key in own if key >= vocabulary}), UNKNOWN_WORD]
        terms = {key: vocabulary + place for place, key in enumerate(words)}
        texts = [[terms.get(key, key) for key in own] for own in texts]
    size = vocabulary + len(words)
    index = bm25s.BM25(k1=K1, b=B)
    index.index((texts, {str(term): term for term in range(size)}), show_progress=False)
    scores = index.scores
    starts = torch.zeros(size + 1, dtype=torch.int64)
    pointers = torch.from_numpy(np.asarray(scores["indptr"]).astype(np.int64))
    starts[: len(pointers)] = pointers
    starts[len(pointers) :] = pointers[-1]
    items = torch.from_numpy(np.asarray(scores["indices"]).astype(np.int32))
    gains = torch.from_numpy(np.asarray(scores["data"], dtype=np.float32))
    found = starts, items, gains, torch.tensor(sum(map(len, texts)) / max(1, len(texts)))
    return found if roles is None else (*found, torch.tensor(words))


def fill_lexical(expert: Lexical, index: tuple[Tensor, ...], roles: Tensor | None = None) -> None:
    """Copy an index from `bm25_index` into the expert, and the roles that it was made with."""
    buffers = [expert.starts, expert.items, expert.gains, expert.mean_length]
    if roles is not None:
        expert.roles.copy_(roles)
        buffers.append(expert.words)
    for buffer, values in zip(buffers, index, strict=True):
        buffer.copy_(values)
