"""Residual quantisation: a vector as a sum of L centroids, coarse to fine.

The arithmetic that all quantizers share, as pure functions on codebooks of shape (L, K, C): each level takes
the nearest centroid of what the levels above left over (Lee et al. 2022, arXiv:2203.01941).
"""

from __future__ import annotations

import faiss
import torch
from torch import Tensor
from tqdm.auto import tqdm

__all__ = ["assign", "fit_codebooks", "nearest", "reconstruct"]

ROWS_PER_CHUNK = 16_384


def fit_codebooks(x: Tensor, levels: int, codes: int, *, iterations: int = 25, seed: int = 0) -> Tensor:
    """Codebooks by k-means, level by level on the residuals.

    Args:
        x: vectors. Shape: (N, C).
        levels: number of levels L.
        codes: centroids per level K, at most N.
        iterations: k-means iterations per level.
        seed: seed of the starts; the same seed and number of threads give the same codebooks.

    Returns:
        Codebooks on the device of x. Shape: (L, K, C), float32.
    """
    residual, books = x, []
    # The bar appears only where this takes long enough to wonder.
    for level in tqdm(range(levels), desc="residual k-means", unit="level", delay=2, leave=False):
        means = faiss.Kmeans(
            x.shape[1], codes, niter=iterations, seed=seed + level, min_points_per_centroid=1, gpu=False
        )
        means.train(residual.float().cpu().numpy())
        books.append(torch.from_numpy(means.centroids.copy()).to(x.device))
        residual = residual - books[-1][nearest(residual, books[-1])]
    return torch.stack(books)


def assign(x: Tensor, codebooks: Tensor) -> Tensor:
    """Codes of vectors: at every level the nearest centroid of the residual.

    Args:
        x: vectors. Shape: (N, C).
        codebooks: centroids. Shape: (L, K, C).

    Returns:
        Codes. Shape: (N, L), int64, on the device of x.

    >>> assign(torch.tensor([[5.0], [11.0]]), torch.tensor([[[0.0], [10.0]], [[1.0], [4.0]]]))
    tensor([[0, 1],
            [1, 0]])
    """
    residual, codes = x, []
    for book in codebooks:
        codes.append(nearest(residual, book))
        residual = residual - book[codes[-1]]
    return torch.stack(codes, dim=1)


def reconstruct(codes: Tensor, codebooks: Tensor) -> Tensor:
    """The vectors that codes stand for: the sum of their centroids.

    Args:
        codes: output of `assign`. Shape: (N, L).
        codebooks: centroids. Shape: (L, K, C).

    Returns:
        Vectors on the device of the codebooks. Shape: (N, C).

    Raises:
        ValueError: if the number of levels is wrong or a code is outside [0, K).
    """
    levels, size, _ = codebooks.shape
    if codes.ndim != 2 or codes.shape[1] != levels:
        raise ValueError(f"codes must have the shape (items, {levels}), got {tuple(codes.shape)}.")
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size:
        raise ValueError(f"codes range from {codes.min()} to {codes.max()}; expected 0 to {size - 1}.")
    columns = codes.to(codebooks.device, torch.int64).unbind(dim=1)
    return torch.stack([book[column] for book, column in zip(codebooks, columns, strict=True)]).sum(dim=0)


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest centroid of every row of x. Shape: (N,), int64."""
    half_norms = centroids.square().sum(dim=1) / 2
    return torch.cat([(half_norms - chunk @ centroids.T).argmin(dim=1) for chunk in x.split(ROWS_PER_CHUNK)])
