"""Baselines that score the whole catalogue at once: popularity, and the item nearest to what was said and bought."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_mender import CarriesCode, ItemStatesConfig
from .item_filter import ItemSelection, allowed_mask, check_items_left
from .item_states import ItemStatesEncoder
from .retrieval import Recommendations, checked_top_k

__all__ = [
    "ItemScoringModel",
    "PopularityConfig",
    "PopularityRecommender",
    "TextRetrievalConfig",
    "TextRetrievalRecommender",
    "top_items",
]

TEMPERATURE = 0.05
"""Turns cosines into scores of about the scale of log-probabilities; the ranking does not depend on it."""


class ItemScoringModel(PreTrainedModel, ABC):
    """A model that scores every item at once; its labels are item indices. Subclasses give `scores`."""

    base_model_prefix = ""
    main_input_name = "input_ids"

    def item_tokens(self, item_indices: Tensor) -> Tensor:
        """Labels of one target per user: the item index itself. Shape: (B, 1)."""
        return torch.as_tensor(item_indices)[:, None]

    def item_indices(self, labels: Tensor) -> Tensor:
        """Items of labels. Shape: (B,)."""
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
        **cached: Tensor,
    ) -> Recommendations:
        """The `top_k` best items of every user, with their scores.

        Args:
            input_ids: as the processor makes them. Shape: (B, T).
            attention_mask: not needed.
            top_k: items to return.
            num_beams: not needed: every item is scored.
            allowed: items that may be returned (indices or a boolean mask; shared or per user).
            exclude: items that may not be returned, in the same forms.
            **cached: passed on to `scores`.

        Raises:
            ValueError: for top_k < 1, or a filter that has the wrong shape or leaves a user without items.
            IndexError: if a filter names an item that is not in the catalogue.
        """
        return top_items(self.scores(input_ids, **cached), top_k, allowed, exclude)

    @abstractmethod
    def scores(self, input_ids: Tensor) -> Tensor:
        """Scores of all items. Shape: (B, N)."""


def top_items(
    scores: Tensor, top_k: int, allowed: ItemSelection | None = None, exclude: ItemSelection | None = None
) -> Recommendations:
    """The `top_k` best items of every user, ties by item index.

    Args:
        scores: one score per user and item. Shape: (B, N).
        top_k: items to return; fewer come back where fewer are left.
        allowed: items that may be returned, see `as_selection`.
        exclude: items that may not be returned, in the same forms. Wins over `allowed`.

    Raises:
        ValueError: for top_k < 1, or a filter that has the wrong shape or leaves some user nothing.
        IndexError: if a filter names an item beyond the N scored.

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


class PopularityConfig(CarriesCode, PreTrainedConfig):
    """Shape of a `PopularityRecommender`: the number of items."""

    model_type = "mender_popularity"
    model_code = "modeling_baselines.PopularityRecommender"

    def __init__(self, num_items: int = 1, **kwargs: Any) -> None:
        self.num_items = num_items
        super().__init__(**kwargs)


class PopularityRecommender(ItemScoringModel):
    """The items most bought in training, the same for everybody."""

    config_class = PopularityConfig

    def __init__(self, config: PopularityConfig) -> None:
        super().__init__(config)
        self.register_buffer("counts", torch.zeros(config.num_items), persistent=True)
        # Without a parameter, a Trainer would not know where the model lives.
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Nothing to draw."""

    def scores(self, input_ids: Tensor) -> Tensor:
        """How often each item was bought, as log-probability. Shape: (B, N)."""
        return (self.scale * ((self.counts + 0.5) / (self.counts + 0.5).sum()).log()).expand(len(input_ids), -1)


class TextRetrievalConfig(CarriesCode, PreTrainedConfig):
    """Shape of a `TextRetrievalRecommender`.

    Args:
        encoder: an `ItemStatesConfig` with `pooled=True` and no order, or its dictionary.
        preference_weight: share of the preference beside the history, from 0 to 1.

    Raises:
        ValueError: if the weight lies outside [0, 1].
    """

    model_type = "mender_text_retrieval"
    model_code = "modeling_baselines.TextRetrievalRecommender"
    sub_configs = {"encoder": ItemStatesConfig}

    def __init__(
        self,
        encoder: ItemStatesConfig | dict[str, Any] | None = None,
        preference_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        if not 0 <= preference_weight <= 1:
            raise ValueError(f"preference_weight={preference_weight} lies outside [0, 1]")
        if encoder is None or isinstance(encoder, dict):
            encoder = ItemStatesConfig(**{"pooled": True, "max_history": 0, **(encoder or {})})
        super().__init__(**kwargs)
        self.encoder = encoder
        self.preference_weight = preference_weight


class TextRetrievalRecommender(ItemScoringModel):
    """Cosine between an item and the weighted mean of the preference's vector and the history's mean vector."""

    config_class = TextRetrievalConfig

    def __init__(self, config: TextRetrievalConfig, encoder: ItemStatesEncoder | None = None) -> None:
        super().__init__(config)
        # The name "vectors": a Trainer that finds an `encoder` would hand its states on instead of the input.
        self.vectors = ItemStatesEncoder(config.encoder) if encoder is None else encoder
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Nothing to draw: the encoder brings its own."""

    def get_input_embeddings(self) -> nn.Module:
        """Word embeddings of the text encoder."""
        return self.vectors.get_input_embeddings()

    def scores(self, input_ids: Tensor, states: Tensor | None = None) -> Tensor:
        """Cosines, divided by a temperature. Shape: (B, N).

        Args:
            input_ids: as the processor makes them. Shape: (B, T).
            states: what `vectors` gave for them before, (B, T, D).
        """
        states = (self.vectors(input_ids).last_hidden_state if states is None else states).float()
        encoder = self.config.encoder
        is_item = (input_ids >= encoder.text_vocabulary).float()[..., None]
        history = functional.normalize((states * is_item).sum(1), dim=-1)
        spoken = ((input_ids < encoder.text_vocabulary) & (input_ids != encoder.text_encoder.pad_token_id)).any(1)
        preference = states[:, 0] * spoken[:, None]
        weight = self.config.preference_weight
        wanted = functional.normalize(weight * preference + (1 - weight) * history, dim=-1)
        return wanted @ self.vectors.item_states.float().T / TEMPERATURE
