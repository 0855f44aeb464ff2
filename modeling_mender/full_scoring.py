"""Models that score the whole catalogue at once, and the top-k of such scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .catalogue_filter import ItemSelection
from .model_card import CarriesCard
from .retrieval import Recommendations

__all__ = ["ItemScoringModel", "top_items"]


class ItemScoringModel(CarriesCard, PreTrainedModel, ABC):
    """A model that scores every item at once: `recommend`, and labels that are item rows. Subclasses give `scores`."""

    base_model_prefix = ""
    main_input_name = "input_ids"

    def item_tokens(self, rows: Tensor) -> Tensor:
        """Labels of one target per user: the item row itself. Shape: (B, 1)."""
        return torch.as_tensor(rows)[:, None]

    def item_rows(self, labels: Tensor) -> Tensor:
        """Target rows of labels. Shape: (B,)."""
        return labels[:, 0]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Scores of all items (B, N), and the cross-entropy of `labels` (B, 1)."""
        logits = self.scores(input_ids)
        loss = None if labels is None else functional.cross_entropy(logits.float(), labels[:, 0])
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def recommend(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        k: int = 10,
        num_beams: int | str | None = None,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
        **cached: Tensor,
    ) -> Recommendations:
        """The k best items of every user, with their scores.

        Args:
            input_ids: as the processor makes them. Shape: (B, T).
            attention_mask: not needed.
            k: items to return.
            num_beams: not needed: every item is scored.
            allowed: items that may be returned (rows or a boolean mask; shared or per user).
            exclude: items that may not be returned, in the same forms.
            **cached: passed on to `scores`.
        """
        return top_items(self.scores(input_ids, **cached), k, allowed, exclude)

    @abstractmethod
    def scores(self, input_ids: Tensor) -> Tensor:
        """Scores of all items. Shape: (B, N)."""


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
