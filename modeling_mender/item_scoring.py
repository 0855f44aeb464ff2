"""Base class of models that score every item of the catalogue at once, and top-k over such scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .item_filter import (
    ItemSelection,
    Recommendations,
    allowed_mask,
    check_items_left,
    checked_top_k,
    prior_scores,
    relative_to_mean,
)
from .module_weights import check_tables
from .saved_weights import ChecksWeights

__all__ = ["ItemScoringModel", "top_items"]


class ItemScoringModel(ChecksWeights, PreTrainedModel, ABC):
    """A model that scores every item at once; its labels are item indices. Subclasses implement `scores`."""

    base_model_prefix = ""
    main_input_name = "input_ids"

    def item_tokens(self, item_indices: Tensor) -> Tensor:
        """Labels of items: the item indices themselves. Shape: (B,) -> (B, 1)."""
        return torch.as_tensor(item_indices)[:, None]

    def live_items(self) -> Tensor | None:
        """Indices of the items that were not removed, ascending, int64; `None` if none was."""
        if not self.config.removed_items:
            return None
        live = torch.ones(self.config.num_items, dtype=torch.bool)
        live[list(self.config.removed_items)] = False
        return live.nonzero().squeeze(1).to(self.device)

    def item_indices(self, labels: Tensor) -> Tensor:
        """Item indices of labels. Shape: (B, 1) -> (B,)."""
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
        top_k: int = 10,
        num_beams: int | str | None = None,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
        prior: Tensor | Sequence[float] | Mapping[int, float] | None = None,
        why: bool = False,
        fit: bool = False,
        **read: Any,
    ) -> Recommendations:
        """The `top_k` best items of every user, with their scores.

        Args:
            input_ids: as the processor makes them. Shape: (B, T).
            attention_mask: not used.
            top_k: items to return.
            num_beams: not used, every item is scored.
            allowed: items that may be returned (indices or a boolean mask; shared or per user).
            exclude: items that may not be returned, in the same forms.
            prior: business priors that are added to the scores, see `prior_scores`.
            why: whether to add what each part of the score contributed, see `Recommendations`.
            fit: whether to add the probability that anything fits, see `Recommendations`.
            **read: passed on to `scores`.

        Raises:
            ValueError: for top_k < 1, a filter or prior that has the wrong shape or leaves a user without items, or if
                a fit is asked of a model without one.
            IndexError: if a filter or prior contains an item that is not in the catalogue.
        """
        check_tables(self)
        scores = self.scores(input_ids, **read)
        if prior is not None:
            prior = prior_scores(prior, scores.shape[1], len(scores), scores.device).expand_as(scores)
            scores = scores + prior
        if self.config.removed_items:
            mask = allowed_mask(allowed, exclude, scores.shape[1], len(scores), scores.device)
            live = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
            live[self.live_items()] = True
            allowed, exclude = live if mask is None else mask & live, None
        found = top_items(scores, top_k, allowed, exclude)
        if fit:
            found = replace(found, fit=self.fit_probability(input_ids, **read))
        if not why:
            return found
        items = found.item_indices.clamp(min=0)
        parts = self.contributions(items, input_ids, **read)
        if prior is not None:
            parts["prior"] = prior.gather(1, items)
        return replace(found, contributions=relative_to_mean(parts, found.item_indices))

    def fit_probability(self, input_ids: Tensor, **_: Any) -> Tensor:
        """Probability that anything in the catalogue fits each request, for models with language experts. Shape: (B,).

        Raises:
            ValueError: if the model has none.
        """
        raise ValueError("this model does not read preferences, so it has no `fit`; leave it out")

    def contributions(self, item_indices: Tensor, input_ids: Tensor, **read: Any) -> dict[str, Tensor]:
        """What each part of the model adds to the scores of items; a model without parts is one, "model".

        Args:
            item_indices: of each user. Shape: (B, M).
            input_ids: see `recommend`.
            **read: passed on to `scores`.

        Returns:
            Shape of each: (B, M).
        """
        return {"model": self.scores(input_ids, **read).gather(1, item_indices)}

    @abstractmethod
    def scores(self, input_ids: Tensor) -> Tensor:
        """Scores of all items. Shape: (B, N)."""


def top_items(
    scores: Tensor, top_k: int, allowed: ItemSelection | None = None, exclude: ItemSelection | None = None
) -> Recommendations:
    """The `top_k` best items of every user; ties are ordered by item index.

    Args:
        scores: one score per user and item. Shape: (B, N).
        top_k: items to return; fewer are returned if fewer are left.
        allowed: items that may be returned, see `as_selection`.
        exclude: items that may not be returned, in the same forms. Takes precedence over `allowed`.

    Raises:
        ValueError: for top_k < 1, or a filter that has the wrong shape or leaves a user without items.
        IndexError: if a filter contains an item that is not in the catalogue.

    >>> top_items(torch.tensor([[0.1, 0.9, 0.5]]), top_k=2, exclude=[1]).item_indices
    tensor([[2, 0]])
    """
    (users, items), top_k, scores = scores.shape, checked_top_k(top_k), scores.float()
    mask = allowed_mask(allowed, exclude, items, users, scores.device)
    available = items
    if mask is not None:
        left = mask.sum(-1).expand(users)
        check_items_left(left)
        scores, available = scores.masked_fill(~mask, -torch.inf), int(left.max())
    best, ranked = scores.sort(dim=1, descending=True, stable=True)
    best, ranked = best[:, : min(top_k, available)], ranked[:, : min(top_k, available)]
    return Recommendations(ranked.masked_fill(best == -torch.inf, -1), best)
