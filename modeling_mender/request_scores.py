"""What a request adds to the generator's log-probabilities: experts, phrases to avoid and business priors.

A Mender's search adds them; an `ExpertsRecommender` has nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .experts import Encoded, ExpertSum, scores_every_item
from .item_filter import prior_scores
from .item_states import ItemStatesEncoder
from .request_fit import fit_probability

__all__ = ["RequestScores"]


@dataclass(frozen=True)
class RequestScores:
    """What is added for B users with C conditions each, see `MenderForGenerativeRetrieval.recommend`.

    Attributes:
        experts: those of the model; `None` if it has none.
        num_items: N.
        users: B.
        conditions: C.
        device: of the model.
        kind: of every condition or user; `None` if the model does not read it. Shape: (B * C,), (B, C) or (B,).
        input_ids: inputs of the experts, see `ExpertSum.forward`. Shape: (B, T), (B, C, T) or (B * C, T).
        encoder: see `ExpertSum.forward`.
        encoded: the texts of the experts, if they have been encoded.
        live: indices of the items that were not removed; `None` for all.
        guide: makes the guide of a search from keyword arguments of `path_guide`; `None` for a model that scores every
            item, however many.
        condition_weights: weights of conditions. Shape: (B, C).
        avoid_input_ids: see `ExpertSum.penalty`. Shape: (B, A, T').
        prior: see `prior_scores`.
        weights: factors by expert or group.
    """

    experts: ExpertSum | None
    num_items: int
    users: int
    conditions: int
    device: torch.device
    kind: Tensor | None
    input_ids: Tensor | None = None
    encoder: ItemStatesEncoder | None = None
    encoded: Encoded | None = None
    live: Tensor | None = None
    guide: Callable[..., Any] | None = None
    condition_weights: Tensor | None = None
    avoid_input_ids: Tensor | None = None
    prior: Tensor | Sequence[float] | Mapping[int, float] | None = None
    weights: Mapping[str, float] | None = None

    def mix_and_evidence(self) -> tuple[Tensor | None, Any]:
        """Weights of the log-probabilities (B, C) and what to add; `None` for a weight of 1, and for nothing.

        What to add are scores of all items (B, N), or for very many items a `PathGuide` that scores some.

        Raises:
            ValueError: if the request needs experts and there are none, their inputs are missing, or a weight or the
                prior is invalid.
            IndexError: if the prior names an item that is not in the catalogue.
        """
        if self.experts is None and (self.weights or self.avoid_input_ids is not None):
            given = "weights" if self.weights else "avoid_input_ids"
            raise ValueError(f"this model has no experts that `{given}` could be for; leave it out")
        mix = self._condition_weights
        if self.experts is not None and bool((self._generator_weight != 1).any()):
            mix = self._generator_weight if mix is None else self._generator_weight * mix
        return mix, self.scores() if self._every_item else self._guide()

    def scores(self) -> Tensor | None:
        """The sum for all items; `None` if nothing is added. Shape: (B, N)."""
        found = None
        if self.experts is not None:
            if bool(self._expert_weights.any()):
                read, weights = self._rows()
                total = self.experts.total(read, self.num_items, weights, **self._shared)
                found = total.view(self.users, self.conditions, -1).sum(1)
            if self.avoid_input_ids is not None and self.experts.avoids:
                penalty = self._penalty()
                found = -penalty if found is None else found - penalty
        if self.prior is not None:
            found = self._prior if found is None else found + self._prior
        return found

    def contributions(self, item_indices: Tensor) -> dict[str, Tensor]:
        """What each part adds to the scores of items.

        Args:
            item_indices: of each user. Shape: (B, M).

        Returns:
            By name of the expert, as "avoid" and as "prior". Shape of each: (B, M).
        """
        parts, nothing = {}, torch.zeros(item_indices.shape, device=self.device)
        if self.experts is not None:
            parts = dict.fromkeys(self.experts.config.experts, nothing)
            if bool(self._expert_weights.any()):
                read, weights = self._rows()
                shared = self._shared
                parts = self.experts.contributions(item_indices, read, self.num_items, weights, **shared)
            if self.avoid_input_ids is not None and self._every_item:
                parts["avoid"] = -self._penalty().gather(1, item_indices)
            elif self.avoid_input_ids is not None:
                guide = self.guide(**self._guided)
                parts["avoid"] = nothing if guide is None else guide.evidence.at(item_indices)
        if self.prior is not None:
            parts["prior"] = self._prior.gather(1, item_indices)
        return parts

    def fit(self) -> Tensor:
        """Probability that anything in the catalogue fits each request, see `request_fit.fit_probability`. Shape: (B,).

        Raises:
            ValueError: without inputs of experts.
        """
        if self.input_ids is None:
            raise ValueError("`fit` needs input_ids or expert_input_ids, which the processor makes")
        read = self.input_ids.reshape(-1, self.input_ids.shape[-1])
        return fit_probability(self.experts, read, self.users, self.num_items, live=self.live, **self._shared)

    def _guide(self) -> Any:
        """`scores` for a search that does not score every item."""
        evidence = None
        if self.experts is not None and bool(self._expert_weights.any()):
            read, weights = self._rows()
            evidence = self.experts.evidence(read, self.num_items, weights, self.users, **self._shared)
        return self.guide(evidence=evidence, prior=self.prior, **self._guided)

    def _penalty(self) -> Tensor:
        """What phrases to avoid take off. Shape: (B, N)."""
        return self.experts.penalty(self.avoid_input_ids, self.num_items, encoder=self.encoder, live=self.live)

    @property
    def _every_item(self) -> bool:
        return self.guide is None or scores_every_item(self.num_items)

    @property
    def _prior(self) -> Tensor:
        """Business priors. Shape: (B, N)."""
        return prior_scores(self.prior, self.num_items, self.users, self.device).expand(self.users, -1)

    @property
    def _shared(self) -> dict[str, Any]:
        """What every use of the experts needs."""
        return {"encoder": self.encoder, "encoded": self.encoded}

    @property
    def _guided(self) -> dict[str, Any]:
        """What every guide needs."""
        return {"experts": self.experts, "encoder": self.encoder, "avoid_input_ids": self.avoid_input_ids}

    @cached_property
    def _weights(self) -> Tensor:
        """Weights of experts, then of the generator if there is one, by the kind of the first condition. (B, W)."""
        return self.experts.weights(self.kind.reshape(self.users, -1)[:, 0], self.weights)

    @property
    def _expert_weights(self) -> Tensor:
        """Shape: (B, experts)."""
        return self._weights[:, : len(self.experts.config.experts)]

    @property
    def _generator_weight(self) -> Tensor:
        """Shape: (B, 1)."""
        return self._weights[:, len(self.experts.config.experts) :]

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Inputs (B * C, T) and weights of experts (B * C, experts)."""
        if self.input_ids is None:
            raise ValueError(
                "the experts of this model read inputs of their own; pass expert_input_ids, which the processor makes, "
                "or input_ids"
            )
        weights, mix = self._expert_weights.repeat_interleave(self.conditions, 0), self._condition_weights
        read = self.input_ids.reshape(len(weights), -1)
        return read, weights if mix is None else weights * mix.reshape(-1, 1)

    @cached_property
    def _condition_weights(self) -> Tensor | None:
        """Weights of conditions; `None` for one condition of weight 1. Shape: (B, C)."""
        users, conditions, weights = self.users, self.conditions, self.condition_weights
        if weights is None:
            return None if conditions == 1 else torch.full((users, conditions), 1 / conditions, device=self.device)
        weights = torch.as_tensor(weights, dtype=torch.float32, device=self.device)
        if weights.shape != (users, conditions) or not bool(weights.isfinite().all()):
            raise ValueError(
                f"condition_weights has shape {tuple(weights.shape)} or values that are not finite; expected a number "
                f"for each of {conditions} conditions of {users} users"
            )
        return weights
