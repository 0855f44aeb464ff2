"""A recommender without a trained network: the weighted sum of experts, with weights for each kind of request.

Presets choose the experts: `popularity`, `item-item` (behaviour), `text-search` (language) and `hybrid` (both). A
request is *stated* (somebody typed a preference), *inferred* (the preference was written from earlier reviews) or
*silent* (a history alone), and each kind has weights of its own: what is typed deserves more trust than a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .configuration_mender import LANGUAGE, CarriesCode, ExpertSumConfig, ItemStatesConfig
from .experts import ExpertSum, default_kind
from .item_scoring import ItemScoringModel
from .item_states import ItemStatesEncoder

__all__ = ["ExpertsConfig", "ExpertsRecommender"]


class ExpertsConfig(CarriesCode, ExpertSumConfig):
    """Shape and weights of an `ExpertsRecommender`, see `ExpertSumConfig`.

    Raises:
        ValueError: if an expert that reads text has no encoder, or see `ExpertSumConfig`.
    """

    model_type = "mender_experts"
    model_code = "modeling_experts.ExpertsRecommender"
    sub_configs = {"encoder": ItemStatesConfig}

    def __init__(self, num_items: int = 1, experts: Any = ("popularity",), **kwargs: Any) -> None:
        super().__init__(num_items, experts, **kwargs)
        reading = [name for name in self.experts if name in LANGUAGE]
        if reading and self.encoder is None:
            raise ValueError(f"expert {reading[0]!r} reads text; pass an encoder, or leave it out")


class ExpertsRecommender(ItemScoringModel):
    """The weighted sum of experts; see `experts.ExpertSum`.

    Args:
        config: which experts, and their weights.
        encoder: vectors of the items, and the text encoder that made them; built from `config.encoder` when absent.
    """

    config_class = ExpertsConfig
    reads_kind = True

    def __init__(self, config: ExpertsConfig, encoder: ItemStatesEncoder | None = None) -> None:
        super().__init__(config)
        self.experts = ExpertSum(config, encoder)
        # Without a parameter, a Trainer would not know where the model lives.
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Nothing to draw: everything is counted, and the encoder brings its own weights."""

    def get_input_embeddings(self) -> nn.Module | None:
        """Word embeddings of the text encoder, where there is one."""
        return None if self.experts.vectors is None else self.experts.vectors.get_input_embeddings()

    def scores(
        self,
        input_ids: Tensor,
        kind: Tensor | None = None,
        *,
        expert_input_ids: Tensor | None = None,
        avoid_input_ids: Tensor | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Tensor:
        """The weighted sum of all experts.

        Args:
            input_ids: as the processor makes them: with `history="vectors"` where an expert reads text, else
                `history="indices"`. Shape: (B, T).
            kind: index in `KINDS` of each request; default: stated where there is text, else silent. Shape: (B,).
            expert_input_ids: what is read instead of `input_ids` where that says no. Shape: (B, T').
            avoid_input_ids: text tokens of what is to be avoided. Shape: (B, A, T').
            weights: by expert or group, what its fitted weight is multiplied by.

        Returns:
            Shape: (B, N).
        """
        experts = self.experts
        input_ids = self._as_vectors(input_ids if expert_input_ids is None else expert_input_ids)
        kind = default_kind(experts.split(input_ids)[0]) if kind is None else kind
        own = experts.weights(kind, weights)
        total = experts.total(input_ids, self.config.num_items, own)
        if avoid_input_ids is not None and experts.avoids:
            total = total - experts.penalty(avoid_input_ids, self.config.num_items)
        return self.scale * total

    def expert_scores(self, input_ids: Tensor, expert_input_ids: Tensor | None = None) -> dict[str, Tensor]:
        """What each expert says of every item, by its name. Shape of each: (B, N).

        Args:
            input_ids: as for `scores`.
            expert_input_ids: see `scores`.
        """
        input_ids = input_ids if expert_input_ids is None else expert_input_ids
        return self.experts(self._as_vectors(input_ids), self.config.num_items)

    def _as_vectors(self, input_ids: Tensor) -> Tensor:
        """Inputs with `history="indices"` as those with `history="vectors"`, of a vocabulary of padding alone."""
        if self.config.encoder is not None:
            return input_ids
        # 0 pads, items are numbered from 1, and the start token comes after the last of them.
        return torch.where(input_ids <= self.config.num_items, input_ids, 0)
