"""Residual quantisation: a vector as a sum of L centroids, coarse to fine.

The arithmetic that all quantizers share, as pure functions on codebooks of shape (L, K, C): each level takes
the nearest centroid of what the levels above left over (Lee et al. 2022, arXiv:2203.01941).

Spread the last level of semantic IDs, so that fewer items collide.

Items that share the first L - 1 codes compete for the K codes of the last level. Optimal transport with
entropy (Sinkhorn 1967; Cuturi 2013, arXiv:1306.0895) shares those codes out instead of giving every item its
nearest one, as LC-Rec does (Zheng et al. 2024, arXiv:2311.09049). The tie-breaking level then stays empty
unless K codes are too few for a prefix.
"""

from __future__ import annotations

import faiss
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..catalogue import REMOVED

__all__ = [
    "assign",
    "fit_codebooks",
    "nearest",
    "reconstruct",
    "spread_last_level",
]


ROWS_PER_CHUNK = 16_384
ITEMS_PER_CHUNK = 32_768
TEMPERATURE = 0.03
"""Temperature of the transport plan, in units of the mean squared distance to the centroids."""
SINKHORN_ITERATIONS = 50
"""Alternations between items and codes."""


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
    # The progress bar only appears if this takes long.
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
    """The vectors of codes: the sum of their centroids.

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
    """Index of the nearest centroid of every vector. Shape: (N,), int64."""
    half_norms = centroids.square().sum(dim=1) / 2
    return torch.cat([(half_norms - chunk @ centroids.T).argmin(dim=1) for chunk in x.split(ROWS_PER_CHUNK)])


def spread_last_level(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    *,
    taken: Tensor | None = None,
) -> Tensor:
    """Distribute the codes of the last level among the items of each prefix.

    Every code of a prefix serves ceil(items / K) items at most. Only prefixes with a collision are touched,
    and the first L - 1 codes never change.

    Args:
        x: vectors that were quantised. Shape: (N, C).
        codes: their codes. Shape: (N, L).
        codebooks: centroids. Shape: (L, K, C).
        taken: codes of items that stay where they are; further levels, and rows that a catalogue removed, are ignored.
            Shape: (M, L) or (M, L + 1).

    Returns:
        Codes with the last level reassigned. Shape: (N, L), int64.

    Raises:
        ValueError: if `taken` has fewer than L levels.
    """
    levels, size = codebooks.shape[:2]
    fixed = codes[:0] if taken is None else taken.to(codes.device, torch.int64)
    if fixed.ndim != 2 or fixed.shape[1] < levels:
        raise ValueError(f"taken must have the shape (items, {levels}) or more levels, got {tuple(fixed.shape)}.")
    fixed = fixed[(fixed != REMOVED).any(1)]
    everything = torch.cat([codes, fixed[:, :levels]])
    group, count = _number_rows(everything[:, :-1])
    full, copies = _number_rows(everything)
    crowded = torch.zeros(len(count), dtype=torch.bool, device=codes.device)
    crowded[group[: len(codes)][copies[full[: len(codes)]] > 1]] = True
    movable = crowded[group[: len(codes)]].nonzero().flatten()
    if not len(movable):
        return codes
    movable = movable[group[movable].argsort(stable=True)]
    residual = x[movable]
    if levels > 1:
        residual = residual - reconstruct(codes[movable, :-1], codebooks[:-1])
    result = codes.clone()
    for rows in _whole_groups(group[movable], ITEMS_PER_CHUNK):
        ids, local = group[movable[rows]].unique_consecutive(return_inverse=True)
        capacity = (-(-count[ids] // size))[:, None].repeat(1, size)
        stay = torch.isin(group[len(codes) :], ids)
        where = torch.searchsorted(ids, group[len(codes) :][stay])
        capacity.index_put_((where, fixed[stay, levels - 1]), -torch.ones_like(where), accumulate=True)
        capacity = capacity.clamp(min=0)
        cost = torch.cdist(residual[rows].double(), codebooks[-1].double()).square()
        mean = cost.new_zeros(len(ids)).index_add_(0, local, cost.mean(dim=1)) / local.bincount()
        cost = cost / (TEMPERATURE * mean[local, None].clamp(min=1e-30))
        result[movable[rows], -1] = _round(_transport_plan(cost, local, capacity), local, capacity)
    return result


def _transport_plan(cost: Tensor, group: Tensor, capacity: Tensor) -> Tensor:
    """Log of the soft assignment: every item places mass 1, every code of a group takes `capacity` at most.

    Args:
        cost: scaled cost of every item and code. Shape: (N, K).
        group: group of every item. Shape: (N,).
        capacity: items a code may serve, per group. Shape: (G, K).
    """
    room, plan = capacity.double().log(), -cost
    price, index = torch.zeros_like(room), group[:, None].expand_as(cost)
    for _ in range(SINKHORN_ITERATIONS):
        plan = (-cost + price[group]).log_softmax(dim=1)
        highest = torch.full_like(room, -torch.inf).scatter_reduce_(0, index, plan, "amax")
        finite = highest.clamp(min=-1e300)
        load = torch.zeros_like(room).index_add_(0, group, (plan - finite[group]).exp()).log() + finite
        # A code asked for less than it can take keeps its price; the total may stay below the total capacity.
        price = (price + (room - load).clamp(max=0)).clamp(min=-1e300)
    return (-cost + price[group]).log_softmax(dim=1)


def _round(plan: Tensor, group: Tensor, capacity: Tensor) -> Tensor:
    """One code per item: in rounds, the items of a group bid for free codes and the most certain bids win."""
    free, codes = capacity.clone(), torch.full_like(group, -1)
    waiting = torch.arange(len(group), device=group.device)
    while len(waiting):
        bids, wanted = plan[waiting].masked_fill(free[group[waiting]] <= 0, -torch.inf).max(dim=1)
        slot = group[waiting] * free.shape[1] + wanted
        # Best bid first within a slot, so the first row of every run of equal slots is its winner.
        order = bids.argsort(descending=True, stable=True)
        order = order[slot[order].argsort(stable=True)]
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = slot[order][1:] != slot[order][:-1]
        winners = order[first]
        codes[waiting[winners]] = wanted[winners]
        free.view(-1)[slot[winners]] -= 1
        lost = torch.ones(len(waiting), dtype=torch.bool, device=group.device)
        lost[winners] = False
        waiting = waiting[lost]
    return codes


def _number_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """Number the distinct rows of a table; returns the number of every row and the count of every number."""
    if not table.shape[1]:
        return table.new_zeros(len(table)), torch.tensor([len(table)], device=table.device)
    _, number, count = table.unique(dim=0, return_inverse=True, return_counts=True)
    return number, count


def _whole_groups(group: Tensor, items: int) -> list[slice]:
    """Cut sorted rows into slices of about `items` rows that never divide a group."""
    starts = torch.cat([group.new_zeros(1), 1 + (group[1:] != group[:-1]).nonzero().flatten()])
    chunk = starts // items
    cuts = [0, *starts[1:][chunk[1:] != chunk[:-1]].tolist(), len(group)]
    return [slice(first, last) for first, last in zip(cuts[:-1], cuts[1:], strict=True)]
