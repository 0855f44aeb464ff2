"""Nearest and farthest vectors by chunked matrix products.

Exact, deterministic (of equally close vectors the first wins) and bounded in memory: one block of the similarity
matrix exists at a time, whatever the number of queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tqdm.auto import tqdm

__all__ = ["nearest", "partners"]

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
    for rows in _blocks(len(queries), _QUERIES, progress):
        best = np.full((len(queries[rows]), k), -np.inf, dtype=np.result_type(queries, keys))
        where = np.zeros(best.shape, dtype=np.int64)
        for columns in _blocks(len(keys), _KEYS):
            _merge(best, where, queries[rows] @ keys[columns].T, columns.start)
        found[rows] = where
    return found


def partners(vectors: np.ndarray, *, farthest: bool = False, progress: bool = False) -> np.ndarray:
    """For each vector the nearest (or farthest) other one, by dot product.

    Args:
        vectors: shape (N, D), N >= 2.
        farthest: whether to look for the lowest product instead of the highest.
        progress: whether to show a bar.

    Returns:
        Positions, never a vector's own. Shape: (N,), int64.
    """
    found = np.empty(len(vectors), dtype=np.int64)
    sign = -1 if farthest else 1
    for rows in _blocks(len(vectors), _QUERIES, progress):
        queries = sign * vectors[rows]
        best = np.full((len(queries), 1), -np.inf, dtype=vectors.dtype)
        where = np.zeros(best.shape, dtype=np.int64)
        for columns in _blocks(len(vectors), _KEYS):
            products = queries @ vectors[columns].T
            own = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            products[own - rows.start, own - columns.start] = -np.inf
            _merge(best, where, products, columns.start)
        found[rows] = where[:, 0]
    return found


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


def _blocks(rows: int, size: int, progress: bool = False) -> Iterator[slice]:
    blocks = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    return iter(tqdm(blocks, desc="Comparing vectors", disable=not progress or len(blocks) < 8))
