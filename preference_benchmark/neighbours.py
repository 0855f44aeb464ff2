"""Nearest and farthest vectors by batched matrix products.

Exact, deterministic (of equally close vectors the first wins) and bounded in memory: one block of the similarity
matrix exists at a time.
"""

from __future__ import annotations

import numpy as np
from tqdm.auto import tqdm

__all__ = ["nearest", "partners"]

# Entries of a block of the similarity matrix: 2^24 float32 are 64 MB.
_BLOCK_ENTRIES = 1 << 24


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
    for rows in _blocks(len(queries), len(keys), progress):
        products = queries[rows] @ keys.T
        index = np.arange(len(products))
        # k is 3 at most here, where repeated argmax is faster than a partial sort and, unlike it, stable.
        for place in range(k):
            best = products.argmax(axis=1)
            found[rows, place] = best
            products[index, best] = -np.inf
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
    for rows in _blocks(len(vectors), len(vectors), progress):
        products = vectors[rows] @ vectors.T
        index = np.arange(len(products))
        products[index, index + rows.start] = np.inf if farthest else -np.inf
        found[rows] = products.argmin(axis=1) if farthest else products.argmax(axis=1)
    return found


def _blocks(rows: int, columns: int, progress: bool) -> tqdm:
    size = max(1, _BLOCK_ENTRIES // max(columns, 1))
    blocks = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    return tqdm(blocks, desc="Comparing vectors", disable=not progress or len(blocks) < 8)
