"""Two recommenders without training, to be beaten: popularity, and the nearest item to what was said and bought.

Text retrieval is the fair opponent that the paper's baselines lack: it reads the preference, as Mender does. Both have
the interface of every other model here, so that they are saved, loaded, evaluated and served alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig

from .configuration_item_states import ItemStatesConfig
from .full_scoring import ItemScoringModel
from .item_states import ItemStatesEncoder
from .remote_code import CarriesCode

__all__ = ["PopularityConfig", "PopularityRecommender", "TextRetrievalConfig", "TextRetrievalRecommender"]

TEMPERATURE = 0.05
"""Turns cosines into scores of about the scale of log-probabilities; the ranking does not depend on it."""


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
