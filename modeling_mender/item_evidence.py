"""What experts say of items, in parts from which the score of any item follows on demand.

A catalogue of millions of items has no room for one score per user and item. Vectors are compared with one query per
user, item-item rows and posting lists touch few items, and everything else is looked up for the items that a search
reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Avoided", "ItemEvidence", "added_up"]

NUMBERS_AT_ONCE = 2**24
"""Numbers of item vectors that are compared at once."""


@dataclass(frozen=True)
class Avoided:
    """Evidence for A phrases that each of B users wants to avoid, from the experts that find them.

    Attributes:
        vectors: of all items. Shape: (N, D).
        queries: vectors of phrases, one for each phrase and expert that compares vectors. Shape: (B, Q, D).
        common: evidence up to which a phrase costs an item nothing, for each query. Shape: (B, Q).
        weights: of each query. Shape: (Q,).
        words: for each expert that compares words, its scores of items (B, M) by phrase (B * A, M), what is common
            (B * A, 1), and its weight.
        scale: weight of the penalty.
    """

    vectors: Tensor | None
    queries: Tensor | None
    common: Tensor | None
    weights: Tensor | None
    words: list[tuple[Callable[[Tensor], Tensor], Tensor, float]]
    scale: float


@dataclass(frozen=True)
class ItemEvidence:
    """The weighted sum of experts for B users over N items.

    Attributes:
        num_items: N.
        vectors: of all items. Shape: (N, D).
        queries: what vectors are compared with; the scores are inner products. Shape: (B, D).
        counts: number of purchases of each item. Shape: (<= N,).
        popularity: weight of the logarithm of 1 + purchases. Shape: (B, 1).
        items: items that item-item rows, rare words and priors score, ascending, padded with N. Shape: (B, E).
        values: their scores. Shape: (B, E).
        words: scores of items (B, M) by the words that too many items have.
        prior: scores of all items, for all users or for each. Shape: (1, N) or (B, N).
        avoided: what is to be avoided.
    """

    num_items: int
    vectors: Tensor | None = None
    queries: Tensor | None = None
    counts: Tensor | None = None
    popularity: Tensor | None = None
    items: Tensor | None = None
    values: Tensor | None = None
    words: Callable[[Tensor], Tensor] | None = None
    prior: Tensor | None = None
    avoided: Avoided | None = None

    def at(self, item_indices: Tensor) -> Tensor:
        """Exact scores of items.

        Args:
            item_indices: Shape: (B, M).

        Returns:
            Shape: (B, M), float32.
        """
        table = self._compared
        if table is None:
            return self._at(item_indices, None)
        at_once = max(1, NUMBERS_AT_ONCE // (len(item_indices) * table.shape[1]))
        found = []
        for some in item_indices.split(at_once, 1):
            # Twice as fast as `table[some]`.
            vectors = table.index_select(0, some.flatten()).float().view(*some.shape, -1)
            found.append(self._at(some, vectors))
        return torch.cat(found, dim=1)

    @property
    def _compared(self) -> Tensor | None:
        """The vectors of all items, if any are needed. Shape: (N, D)."""
        if self.vectors is not None or self.avoided is None:
            return self.vectors
        return self.avoided.vectors

    def _at(self, items: Tensor, vectors: Tensor | None) -> Tensor:
        """Scores of items (B, M) with vectors (B, M, D)."""
        total = torch.zeros(items.shape, device=items.device)
        if self.queries is not None:
            # Twice as fast as the product with a column.
            total += torch.bmm(self.queries[:, None], vectors.transpose(1, 2)).squeeze(1)
        if self.popularity is not None:
            known = items < len(self.counts)
            counts = self.counts[items.clamp(max=len(self.counts) - 1)].float() * known
            total.addcmul_(self.popularity, counts.log1p())
        if self.items is not None:
            place = torch.searchsorted(self.items, items).clamp_(max=self.items.shape[1] - 1)
            total += self.values.gather(1, place) * (self.items.gather(1, place) == items)
        if self.words is not None:
            total += self.words(items)
        if self.prior is not None:
            total += self.prior.expand(len(items), -1).gather(1, items)
        return total if self.avoided is None else total - self._penalty(items, vectors)

    def _penalty(self, items: Tensor, vectors: Tensor | None) -> Tensor:
        avoided, total = self.avoided, torch.zeros(items.shape, device=items.device)
        if avoided.queries is not None:
            evidence = torch.bmm(vectors, avoided.queries.transpose(1, 2)) - avoided.common[:, None]
            total += evidence.relu_() @ avoided.weights
        for score, common, weight in avoided.words:
            evidence = (score(items) - common).relu_().view(len(items), -1, items.shape[1])
            total += weight * evidence.sum(1)
        return avoided.scale * total


def added_up(items: Tensor, values: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
    """Each item of a user once, with the sum of its values.

    Args:
        items: padded with -1. Shape: (B, E).
        values: Shape: (B, E).
        num_items: N.

    Returns:
        Items, ascending and padded with N, and their sums. Shapes: (B, E').
    """
    ordered, order = torch.where(items < 0, num_items, items).sort(dim=1)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    place = fresh.cumsum(1) - 1
    found = torch.full_like(ordered, num_items).scatter_(1, place, ordered)
    sums = values.new_zeros(values.shape).scatter_add_(1, place, values.gather(1, order))
    most = int((found < num_items).sum(1).max()) if found.numel() else 0
    # One entry of padding stays: a search in an empty list has no nearest entry.
    found, sums = (
        torch.nn.functional.pad(part[:, :most], (0, 1), value=own) for part, own in ((found, num_items), (sums, 0.0))
    )
    return found, sums.masked_fill_(found == num_items, 0.0)
