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
from torch.nn import functional
from transformers import PreTrainedConfig

from .configuration_mender import CarriesCode, ItemStatesConfig, check_sizes
from .experts import EXPERTS, LANGUAGE, ItemItem, Lexical, Popularity
from .item_scoring import ItemScoringModel
from .item_states import ItemStatesEncoder

__all__ = ["KINDS", "ExpertsConfig", "ExpertsRecommender"]

KINDS = ("stated", "inferred", "silent")
TEMPERATURE = 0.05
"""Divides cosine similarities, so that they have about the scale of log-probabilities."""
WINDOW = 3
"""Number of latest items that the transitions expert uses; the n-th latest has weight 1/n."""


class ExpertsConfig(CarriesCode, PreTrainedConfig):
    """Sizes and weights of an `ExpertsRecommender`.

    Args:
        num_items: N.
        experts: names from `EXPERTS`.
        num_neighbours: entries kept in each row of an item-item matrix.
        num_postings: entries of the lexical index.
        encoder: an `ItemStatesConfig` with `pooled=True` and `max_history=0`, or its dictionary; required by experts
            that read text.
        weights: the weight of each expert by kind of request; default 1.

    Raises:
        ValueError: if an expert or a kind is unknown, a weight is not a finite number, a size is out of range, or an
            expert that reads text has no encoder.
    """

    model_type = "mender_experts"
    model_code = "modeling_experts.ExpertsRecommender"
    sub_configs = {"encoder": ItemStatesConfig}

    def __init__(
        self,
        num_items: int = 1,
        experts: Sequence[str] = ("popularity",),
        num_neighbours: int = 200,
        num_postings: int = 0,
        encoder: ItemStatesConfig | dict[str, Any] | None = None,
        weights: Mapping[str, Mapping[str, float]] | None = None,
        **kwargs: Any,
    ) -> None:
        unknown = [name for name in experts if name not in EXPERTS]
        if unknown or not experts:
            shown = repr(unknown[0]) if unknown else "an empty list"
            raise ValueError(f"experts: {shown} is not known; pass some of {', '.join(EXPERTS)}")
        if isinstance(encoder, dict):
            encoder = ItemStatesConfig(**{"pooled": True, "max_history": 0, **encoder})
        reading = [name for name in experts if name in LANGUAGE]
        if reading and encoder is None:
            raise ValueError(f"expert {reading[0]!r} reads text; pass an encoder, or leave the expert out")
        self.num_items, self.experts = num_items, list(experts)
        self.num_neighbours, self.num_postings = num_neighbours, num_postings
        self.encoder = encoder
        self.weights = checked_weights(weights or {}, self.experts)
        super().__init__(**kwargs)
        check_sizes(self.to_dict())


def checked_weights(weights: Mapping[str, Mapping[str, float]], experts: Sequence[str]) -> dict[str, dict[str, float]]:
    """The weights of all experts for all kinds of request; 1 if not given.

    Raises:
        ValueError: if a kind or an expert is unknown, or a weight is not a finite number.

    >>> checked_weights({"silent": {"popularity": 2}}, ["popularity"])["silent"]
    {'popularity': 2.0}
    """
    for kind, own in weights.items():
        if kind not in KINDS:
            raise ValueError(f"unknown kind of request {kind!r}; pass one of {', '.join(KINDS)}")
        for name, value in own.items():
            if name not in experts:
                raise ValueError(f"weights[{kind!r}]: there is no expert {name!r}; this model has {', '.join(experts)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
                raise ValueError(f"weights[{kind!r}][{name!r}]={value!r}; pass a finite number")
    return {kind: {name: float(weights.get(kind, {}).get(name, 1.0)) for name in experts} for kind in KINDS}


class ExpertsRecommender(ItemScoringModel):
    """Ranks items by a weighted sum of expert scores; see `experts`.

    Args:
        config: the experts and their weights.
        encoder: item vectors and the text encoder that made them; by default created from `config.encoder`.
    """

    config_class = ExpertsConfig
    reads_kind = True

    def __init__(self, config: ExpertsConfig, encoder: ItemStatesEncoder | None = None) -> None:
        super().__init__(config)
        names, items = config.experts, config.num_items
        neighbours = min(config.num_neighbours, items)
        self.popularity = Popularity(items) if "popularity" in names else None
        self.co_purchase = ItemItem(items, neighbours) if "co_purchase" in names else None
        self.transitions = ItemItem(items, neighbours) if "transitions" in names else None
        # Not named `encoder`: the Trainer would pass the states of an attribute `encoder` instead of the input.
        self.vectors = None
        if config.encoder is not None:
            self.vectors = ItemStatesEncoder(config.encoder) if encoder is None else encoder
        self.lexical = None
        if "lexical" in names:
            self.lexical = Lexical(config.encoder.text_vocabulary, items, config.num_postings)
        # The Trainer finds the device of a model by its parameters, and there are no others.
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Nothing to initialise: all tables are fitted, and the encoder has its own weights."""

    def get_input_embeddings(self) -> nn.Module | None:
        """Word embeddings of the text encoder; `None` without one."""
        return None if self.vectors is None else self.vectors.get_input_embeddings()

    def scores(self, input_ids: Tensor, kind: Tensor | None = None) -> Tensor:
        """The weighted sum of all experts.

        Args:
            input_ids: inputs from a processor with `history="vectors"` if an expert reads text, otherwise with
                `history="indices"`. Shape: (B, T).
            kind: index in `KINDS` of each request; default: stated with text, silent without. Shape: (B,).

        Returns:
            Shape: (B, N).
        """
        texts, _ = self._split(input_ids)
        if kind is None:
            has_text = (texts >= 0).any(1)
            kind = torch.where(has_text, KINDS.index("stated"), KINDS.index("silent"))
        table = [[self.config.weights[name][expert] for expert in self.config.experts] for name in KINDS]
        weights = torch.tensor(table, device=input_ids.device)[kind]
        total: Tensor | float = 0.0
        for position, scores in enumerate(self.expert_scores(input_ids).values()):
            total = total + weights[:, position, None] * scores
        return self.scale * total

    def expert_scores(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Scores of each expert by name, in the order of `config.experts`. Shape of each: (B, N)."""
        texts, history = self._split(input_ids)
        vectors = None if self.vectors is None else self.vectors.item_states.float()
        scores = {}
        for name in self.config.experts:
            if name == "popularity":
                scores[name] = self.popularity(len(input_ids))
            elif name == "co_purchase":
                scores[name] = self.co_purchase(history)
            elif name == "transitions":
                scores[name] = self.transitions(history, self._recency(history))
            elif name == "dense":
                scores[name] = self._preference_vectors(input_ids, texts) @ vectors.T / TEMPERATURE
            elif name == "lexical":
                scores[name] = self.lexical(texts)
            else:
                present = (history >= 0).float()[..., None]
                mean = functional.normalize((vectors[history.clamp(min=0)] * present).sum(1), dim=-1)
                scores[name] = mean @ vectors.T / TEMPERATURE
        return scores

    def _split(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens and item indices of inputs, -1 at all other positions. Shape of each: (B, T)."""
        if self.vectors is None:  # 0 is padding, items count from 1, and N + 1 is the start token
            history = torch.where(input_ids <= self.config.num_items, input_ids - 1, -1)
            return torch.full_like(input_ids, -1), history
        encoder = self.config.encoder
        is_text = (input_ids < encoder.text_vocabulary) & (input_ids != encoder.text_encoder.pad_token_id)
        return torch.where(is_text, input_ids, -1), torch.where(
            input_ids >= encoder.text_vocabulary, input_ids - encoder.text_vocabulary, -1
        )

    def _preference_vectors(self, input_ids: Tensor, texts: Tensor) -> Tensor:
        """Vectors of preferences, 0 without a preference. Shape: (B, D)."""
        states = self.vectors(input_ids).last_hidden_state[:, 0].float()
        return states * (texts >= 0).any(1, keepdim=True)

    @staticmethod
    def _recency(history: Tensor) -> Tensor:
        """1/n for the n-th latest of the last `WINDOW` items, otherwise 0. Shape: (B, T)."""
        present = history >= 0
        position = present.flip(1).cumsum(1).flip(1)
        return torch.where(present & (position <= WINDOW), 1.0 / position.clamp(min=1), 0.0)
