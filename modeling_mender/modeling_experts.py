"""A recommender without a trained network: a weighted sum of experts, with separate weights for each kind of request.

Presets choose the experts: `popularity`, `item-item` (behaviour), `text-search` (language) and `hybrid` (both). A
request is *stated* (a user typed the preference), *inferred* (the preference was derived from earlier reviews) or
*silent* (only a history). Each kind has its own weights, because a typed preference is more reliable than an inferred
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .configuration_mender import LANGUAGE, CarriesCode, ExpertSumConfig, ItemStatesConfig, checked_removed
from .experts import ExpertSum, default_kind
from .item_scoring import ItemScoringModel
from .item_states import ItemStatesEncoder
from .request_fit import check_fitted, fit_features
from .request_scores import RequestScores

__all__ = ["ExpertsConfig", "ExpertsRecommender"]


class ExpertsConfig(CarriesCode, ExpertSumConfig):
    """Sizes and weights of an `ExpertsRecommender`, see `ExpertSumConfig`.

    Args:
        num_items: N.
        experts: names of experts.
        removed_items: indices of items that are not recommended any more.
        **kwargs: see `ExpertSumConfig`.

    Raises:
        ValueError: if an expert that reads text has no encoder, or see `ExpertSumConfig`.
    """

    model_type = "mender_experts"
    model_code = "modeling_experts.ExpertsRecommender"
    sub_configs = {"encoder": ItemStatesConfig}

    def __init__(
        self,
        num_items: int = 1,
        experts: Any = ("popularity",),
        removed_items: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(num_items, experts, **kwargs)
        self.removed_items = checked_removed(removed_items, num_items)
        reading = [name for name in self.experts if name in LANGUAGE]
        if reading and self.encoder is None:
            raise ValueError(f"expert {reading[0]!r} reads text; pass an encoder, or leave the expert out")


class ExpertsRecommender(ItemScoringModel):
    """Ranks items by a weighted sum of expert scores; see `experts.ExpertSum`.

    Args:
        config: the experts and their weights.
        encoder: item vectors and the text encoder that made them; by default created from `config.encoder`.
    """

    config_class = ExpertsConfig
    reads_kind = True

    def __init__(self, config: ExpertsConfig, encoder: ItemStatesEncoder | None = None) -> None:
        super().__init__(config)
        self.experts = ExpertSum(config, encoder)
        # Not used: the Trainer finds the device of a model by its parameters, and there may be no others.
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Nothing to initialise: all tables are fitted, and the encoder has its own weights."""

    def get_input_embeddings(self) -> nn.Module | None:
        """Word embeddings of the text encoder; `None` without one."""
        return None if self.experts.vectors is None else self.experts.vectors.get_input_embeddings()

    def scores(
        self,
        input_ids: Tensor,
        kind: Tensor | None = None,
        *,
        condition_weights: Tensor | None = None,
        expert_input_ids: Tensor | None = None,
        avoid_input_ids: Tensor | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Tensor:
        """The weighted sum of all experts.

        Args:
            input_ids: inputs from a processor with `history="vectors"` if an expert reads text, otherwise with
                `history="indices"`. Shape: (B, T), or (B, C, T) for several conditions of each user.
            kind: index in `KINDS` of each request; default: stated with text, silent without. Shape: (B,) or (B, C).
            condition_weights: weights of each user's conditions. Default: equal weights with a sum of 1. Shape: (B, C).
            expert_input_ids: inputs without negated sentences, to be read instead of `input_ids`. Shape: (B, T') or
                (B, C, T').
            avoid_input_ids: text tokens of the phrases to avoid. Shape: (B, A, T').
            weights: factors for fitted weights, by expert or group.

        Returns:
            Shape: (B, N).
        """
        asked = {"condition_weights": condition_weights, "avoid_input_ids": avoid_input_ids, "weights": weights}
        found = self._request(input_ids, kind, expert_input_ids, **asked).scores()
        return torch.zeros(len(input_ids), self.config.num_items, device=self.device) if found is None else found

    def contributions(
        self,
        item_indices: Tensor,
        input_ids: Tensor,
        kind: Tensor | None = None,
        *,
        condition_weights: Tensor | None = None,
        expert_input_ids: Tensor | None = None,
        avoid_input_ids: Tensor | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> dict[str, Tensor]:
        """What each expert and the phrases to avoid add to the scores of items.

        Args:
            item_indices: of each user. Shape: (B, M).
            input_ids: see `scores`, also for the other arguments.
            kind: Shape: (B,) or (B, C).
            condition_weights: Shape: (B, C).
            expert_input_ids: Shape: (B, T') or (B, C, T').
            avoid_input_ids: Shape: (B, A, T').
            weights: factors for fitted weights, by expert or group.

        Returns:
            By name of the expert, and as "avoid". Shape of each: (B, M).
        """
        asked = {"condition_weights": condition_weights, "avoid_input_ids": avoid_input_ids, "weights": weights}
        return self._request(input_ids, kind, expert_input_ids, **asked).contributions(item_indices)

    def _request(
        self, input_ids: Tensor, kind: Tensor | None, expert_input_ids: Tensor | None, **asked: Any
    ) -> RequestScores:
        """The sum of experts for requests; arguments as in `scores`."""
        users, conditions = len(input_ids), 1 if input_ids.dim() == 2 else input_ids.shape[1]
        read = input_ids if expert_input_ids is None else expert_input_ids
        read = self._as_vectors(read.reshape(users * conditions, -1))
        kind = default_kind(self.experts.split(read)[0]) if kind is None else kind
        return RequestScores(
            experts=self.experts,
            num_items=self.config.num_items,
            users=users,
            conditions=conditions,
            device=self.device,
            kind=kind,
            input_ids=read,
            live=self.live_items(),
            **asked,
        )

    def expert_scores(self, input_ids: Tensor, expert_input_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Scores of each expert by name, in the order of `config.experts`. Shape of each: (B, N).

        Args:
            input_ids: as for `scores`.
            expert_input_ids: see `scores`.
        """
        input_ids = input_ids if expert_input_ids is None else expert_input_ids
        return self.experts(self._as_vectors(input_ids), self.config.num_items)

    def fit_features(self, input_ids: Tensor, expert_input_ids: Tensor | None = None) -> Tensor:
        """Features of requests, see `request_fit.fit_features`. Shape: (B, F)."""
        input_ids = input_ids if expert_input_ids is None else expert_input_ids
        return fit_features(self.experts, input_ids, self.config.num_items, live=self.live_items())

    def fit_probability(self, input_ids: Tensor, expert_input_ids: Tensor | None = None, **_: Any) -> Tensor:
        """Probability that anything in the catalogue fits each request, see `request_fit.fit_probability`.

        Args:
            input_ids: as for `scores`.
            expert_input_ids: see `scores`.
            **_: other arguments of `scores`, which do not matter.

        Returns:
            Shape: (B,).
        """
        check_fitted(self.config)
        return self._request(input_ids, None, expert_input_ids).fit()

    def penalty(self, avoid_input_ids: Tensor) -> Tensor:
        """Penalties of all items for phrases to avoid, see `ExpertSum.penalty`. Shape: (B, N)."""
        return self.experts.penalty(avoid_input_ids, self.config.num_items, live=self.live_items())

    def _as_vectors(self, input_ids: Tensor) -> Tensor:
        """Inputs with `history="indices"` in the form of `history="vectors"` with one text token, padding."""
        if self.config.encoder is not None:
            return input_ids
        # 0 is padding, items count from 1, and N + 1 is the start token.
        return torch.where(input_ids <= self.config.num_items, input_ids, 0)
