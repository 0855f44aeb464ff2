"""Top-k of scores over the whole catalogue, for models that score every item at once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .catalogue_filter import ItemSelection
from .retrieval import Recommendations

__all__ = ["top_items"]


def top_items(
    scores: Tensor, k: int, allowed: ItemSelection | None = None, exclude: ItemSelection | None = None
) -> Recommendations:
    """The k best items of every user, ties by item row.

    Args:
        scores: one score per user and item. Shape: (B, N).
        k: items to return; fewer come back where fewer are left.
        allowed: items that may be returned: rows or a boolean mask, shared or per user; -1 pads rows.
        exclude: items that may not be returned, in the same forms. Wins over `allowed`.

    Raises:
        ValueError: for k < 1, or if some user is left without any item.

    >>> top_items(torch.tensor([[0.1, 0.9, 0.5]]), k=2, exclude=[1]).rows
    tensor([[2, 0]])
    """
    if k < 1:
        raise ValueError(f"k={k} asks for no items; pass k >= 1")
    live = torch.ones_like(scores, dtype=torch.bool)
    if allowed is not None:
        live &= _mask(allowed, scores)
    if exclude is not None:
        live &= ~_mask(exclude, scores)
    available = live.sum(1)
    if bool((available == 0).any()):
        user = int((available == 0).nonzero()[0])
        raise ValueError(
            f"no item is left for user {user} of the batch after `allowed` and `exclude`; "
            "allow more items or exclude fewer"
        )
    scores = scores.float().masked_fill(~live, -torch.inf)
    best, rows = scores.sort(dim=1, descending=True, stable=True)
    k = min(k, int(available.max()))
    best, rows = best[:, :k], rows[:, :k]
    return Recommendations(rows.masked_fill(best == -torch.inf, -1), best)


def _mask(selection: ItemSelection, scores: Tensor) -> Tensor:
    """A selection as a boolean mask. Shape: (B, N) or (1, N)."""
    users, items = scores.shape
    if not isinstance(selection, Tensor):
        rows = [list(part) if isinstance(part, Iterable) else part for part in selection]
        if rows and isinstance(rows[0], list):
            longest = max(map(len, rows))
            rows = [[*part, *[-1] * (longest - len(part))] for part in rows]
        selection = torch.tensor(rows) if rows else torch.zeros(0, dtype=torch.long)
    selection = selection.to(scores.device)
    selection = selection[None] if selection.dim() == 1 else selection
    if selection.dtype == torch.bool:
        return selection
    if selection.shape[0] not in (1, users):
        raise ValueError(f"a selection for {selection.shape[0]} users beside scores for {users}; pass one row per user")
    if selection.numel() and int(selection.max()) >= items:
        raise IndexError(f"item row {int(selection.max())} lies outside the {items} items")
    mask = torch.zeros(selection.shape[0], items + 1, dtype=torch.bool, device=scores.device)
    return mask.scatter_(1, torch.where(selection < 0, items, selection).long(), True)[:, :items]
