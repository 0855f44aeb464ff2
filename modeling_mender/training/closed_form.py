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

from ..experts import K1, WINDOW, B, Lexical

__all__ = [
    "bm25_index",
    "ease",
    "fill_lexical",
    "popularity",
    "transitions",
]

USERS_AT_ONCE = 8_192


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


def bm25_index(token_ids: Sequence[Sequence[int]], vocabulary: int) -> tuple[Tensor, ...]:
    """BM25 posting lists over token ids, computed by the library bm25s (Lucene's variant).

    Args:
        token_ids: tokens of each item's text.
        vocabulary: V, the number of tokens.

    Returns:
        Starts of the posting lists (V + 1,), item indices (P,) and BM25 terms (P,) of all postings, and the mean length
        of a text.
    """
    index = bm25s.BM25(k1=K1, b=B)
    index.index((list(map(list, token_ids)), {str(token): token for token in range(vocabulary)}), show_progress=False)
    scores = index.scores
    starts = torch.zeros(vocabulary + 1, dtype=torch.int64)
    pointers = torch.from_numpy(np.asarray(scores["indptr"]).astype(np.int64))
    starts[: len(pointers)] = pointers
    starts[len(pointers) :] = pointers[-1]
    items = torch.from_numpy(np.asarray(scores["indices"]).astype(np.int32))
    gains = torch.from_numpy(np.asarray(scores["data"], dtype=np.float32))
    return starts, items, gains, torch.tensor(sum(map(len, token_ids)) / max(1, len(token_ids)))


def fill_lexical(expert: Lexical, index: tuple[Tensor, ...]) -> None:
    """Copy an index from `bm25_index` into the expert."""
    for buffer, values in zip((expert.starts, expert.items, expert.gains, expert.mean_length), index, strict=True):
        buffer.copy_(values)
