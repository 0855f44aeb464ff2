"""Nearest and farthest vectors by chunked matrix products.

Exact, deterministic (of equally close vectors the first wins) and bounded in memory: one block of the similarity
matrix exists at a time, whatever the number of queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

__all__ = ["Partners", "nearest", "partners"]

# A block of the similarity matrix is at most 1,024 x 2,048 floats: 8 MB, which a cache holds while it is searched.
_QUERIES, _KEYS = 1_024, 2_048


def nearest(queries: np.ndarray, keys: np.ndarray, k: int, *, progress: bool = False) -> np.ndarray:
    """The k keys of highest dot product with each query, best first.

    Args:
        queries: shape (N, D).
        keys: shape (M, D), M >= k.
        k: how many.
        progress: whether to show a bar.

    Returns:
        Positions among the keys. Shape: (N, k), int64.

    Raises:
        ValueError: if there are fewer than k keys.

    >>> nearest(np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]]), k=2)
    array([[1, 2],
           [0, 2]])
    """
    if k < 1 or k > len(keys):
        raise ValueError(f"k={k} neighbours of {len(keys)} vectors were asked for; pass 1 <= k <= {len(keys)}.")
    found = np.empty((len(queries), k), dtype=np.int64)
    products = _Products(np.result_type(queries, keys))
    for rows in _blocks(len(queries), _QUERIES, progress):
        best = np.full((len(queries[rows]), k), -np.inf, dtype=np.result_type(queries, keys))
        where = np.zeros(best.shape, dtype=np.int64)
        for columns in _blocks(len(keys), _KEYS):
            _merge(best, where, products.of(queries[rows], keys[columns]), columns.start)
        found[rows] = where
    return found


@dataclass(frozen=True)
class Partners:
    """For each of N vectors the nearest and the farthest other one; positions, shape: (N,), int64."""

    nearest: np.ndarray
    farthest: np.ndarray


def partners(vectors: np.ndarray, *, progress: bool = False) -> Partners:
    """For each vector the nearest and the farthest other one, by dot product.

    Products are symmetric: each block above the diagonal serves its rows and, transposed, its columns.

    Args:
        vectors: shape (N, D), N >= 2.
        progress: whether to show a bar.

    >>> partners(np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
    Partners(nearest=array([1, 0, 1]), farthest=array([2, 2, 0]))
    """
    found = Partners(*(np.zeros(len(vectors), dtype=np.int64) for _ in range(2)))
    highest, lowest = (np.full(len(vectors), value, dtype=vectors.dtype) for value in (-np.inf, np.inf))

    def look(block: np.ndarray, of: slice, at: int) -> None:
        # Earlier vectors win ties: every vector meets the others in their order.
        for best, where, choose, better in (
            (highest, found.nearest, np.argmax, np.greater),
            (lowest, found.farthest, np.argmin, np.less),
        ):
            if of.start == at:
                np.fill_diagonal(block, best.dtype.type(-np.inf if choose is np.argmax else np.inf))
            column = choose(block, axis=1)
            value = block[np.arange(len(block)), column]
            wins = np.flatnonzero(better(value, best[of]))
            best[of][wins], where[of][wins] = value[wins], column[wins] + at

    products = _Products(vectors.dtype)
    for rows in _blocks(len(vectors), _QUERIES, progress):
        for columns in _blocks(len(vectors), _QUERIES, start=rows.start):
            block = products.of(vectors[rows], vectors[columns])
            look(block, rows, columns.start)
            if columns != rows:
                look(np.ascontiguousarray(block.T), columns, rows.start)
    return found


class _Products:
    """Products of blocks of vectors, all written to the same memory: fresh memory costs a tenth of the time."""

    def __init__(self, dtype: np.dtype) -> None:
        self._memory = np.empty(_QUERIES * max(_QUERIES, _KEYS), dtype=dtype)

    def of(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Dot products, valid until the next call. Shapes: (n, D), (m, D) -> (n, m)."""
        out = self._memory[: len(queries) * len(keys)].reshape(len(queries), len(keys))
        return np.matmul(queries, keys.T, out=out)


def _merge(best: np.ndarray, where: np.ndarray, products: np.ndarray, offset: int) -> None:
    """Take a block's products into the k best so far, in place.

    Args:
        best: the k highest products of every query, highest first. Shape: (n, k).
        where: their positions. Shape: (n, k).
        products: of the queries with further keys; overwritten. Shape: (n, m).
        offset: position of the first of these keys.
    """
    # Few rows of a block hold anything better than what is known: after the first look only those are looked at.
    live = np.arange(len(products))
    for _ in range(best.shape[1]):
        column = products[live].argmax(axis=1) if len(live) < len(products) else products.argmax(axis=1)
        value = products[live, column]
        # Earlier keys win ties, so an equal value does not displace.
        better = value > best[live, -1]
        live, column, value = live[better], column[better], value[better]
        if not len(live):
            return
        products[live, column] = -np.inf
        place = (best[live] >= value[:, None]).sum(axis=1)
        for target in (best, where):
            # Shift what is worse by one, then put the new one in its place.
            later = np.arange(target.shape[1]) > place[:, None]
            shifted = np.concatenate([target[live, :1], target[live, :-1]], axis=1)
            target[live] = np.where(later, shifted, target[live])
        best[live, place], where[live, place] = value, column + offset


def _blocks(rows: int, size: int, progress: bool = False, start: int = 0) -> Iterator[slice]:
    blocks = [slice(first, min(first + size, rows)) for first in range(start, rows, size)]
    return iter(tqdm(blocks, desc="Comparing vectors", disable=not progress or len(blocks) < 8))
