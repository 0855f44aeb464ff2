"""Embeddings of codes that start from the quantizer's codebooks, as the paper's decoder does (arXiv:2412.08604).

Codes that stand for similar items then start out similar. Centroids are turned to the embedding's width by a rotation
that keeps their distances, and scaled to the variance T5 starts with or to that of a trained encoder's words; the
tie-breaking level, which has no centroids, gets sinusoids.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["init_from_codebooks"]


@torch.no_grad()
def init_from_codebooks(
    embedding: nn.Embedding,
    codebooks: Sequence[Tensor] | Tensor,
    codebook_sizes: Sequence[int],
    first: int = 1,
    like: Tensor | None = None,
) -> None:
    """Overwrite the embeddings of codes.

    Args:
        embedding: the decoder's, or an encoder's with code tokens.
        codebooks: centroids of the quantizer's levels, each (K, C); further levels of the catalogue get sinusoids.
        codebook_sizes: codes per level of the catalogue, the tie-breaking level included.
        first: row of the first level's code 0.
        like: embeddings for codes to resemble, such as a trained encoder's words: codes start around their mean,
            with their spread around it. Default: around zero, with spread one. Shape: (words, width).

    Raises:
        ValueError: if a codebook has more centroids than its level has codes.
    """
    width, start = embedding.weight.shape[1], first
    centre, spread = 0.0, 1.0
    if like is not None:
        centre = like.float().mean(0)
        spread = (like.float() - centre).std()
    for level, size in enumerate(codebook_sizes):
        if level < len(codebooks):
            book = torch.as_tensor(codebooks[level]).float()
            if len(book) > size:
                raise ValueError(f"level {level} has {size} codes but the codebook {len(book)} centroids")
            values = _at_width(book, width)
        else:
            values = _sinusoids(size, width)
        rows = slice(start, start + len(values))
        embedding.weight[rows] = (centre + spread * values.to(embedding.weight.device)).to(embedding.weight)
        start += size


def _at_width(book: Tensor, width: int) -> Tensor:
    """Centroids centred, on their principal axes cut or padded to the width, with unit variance. Shape: (K, width)."""
    centred = book - book.mean(0)
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    kept = (left * strength)[:, :width]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0))).Q
    turned = kept @ rotation[: kept.shape[1]]
    return turned / turned.std().clamp(min=1e-6)


def _sinusoids(count: int, width: int) -> Tensor:
    """Sinusoidal position encodings. Shape: (count, width)."""
    position = torch.arange(count)[:, None]
    rate = torch.exp(-torch.arange(0, width, 2) * (torch.log(torch.tensor(10_000.0)) / width))
    values = torch.zeros(count, width)
    values[:, 0::2] = torch.sin(position * rate)
    values[:, 1::2] = torch.cos(position * rate)[:, : width // 2]
    return values
