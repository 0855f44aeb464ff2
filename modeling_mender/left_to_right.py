"""An encoder that reads a history from left to right, so that one pass serves every next item of a user.

What it makes of a history's beginning does not change when items are added. So a user's history is encoded once in
training, and each of its next items attends to what came before it, as in SASRec (arXiv:1808.09781). TIGER
(arXiv:2305.05065) reads in both directions, and has to encode every beginning by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import T5EncoderModel

__all__ = ["LeftToRightEncoder", "additive", "before_targets", "last_tokens", "within_targets"]


class LeftToRightEncoder(T5EncoderModel):
    """A T5 encoder in which a token attends to itself and to the tokens before it.

    Its configuration is a `T5Config` with `left_to_right=True`.
    """

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """The output of `T5EncoderModel.forward`.

        Args:
            input_ids: Shape: (B, T).
            attention_mask: 1 for tokens, 0 for padding. Shape: (B, T).
            **kwargs: passed on to `T5EncoderModel.forward`.
        """
        given = kwargs["inputs_embeds"] if input_ids is None else input_ids
        length = given.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=given.device).tril()[None]
        if attention_mask is not None:
            mask = mask & attention_mask.bool()[:, None]
        return super().forward(input_ids=input_ids, attention_mask=additive(mask, self.dtype), **kwargs)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to attention scores: 0 where `mask` is true, else a large negative number.

    Args:
        mask: whether a query may attend to a key. Shape: (B, queries, keys), bool.
        dtype: of the scores.

    Returns:
        Shape: (B, 1, queries, keys).
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)[:, None]


def last_tokens(attention_mask: Tensor | None, states: Tensor) -> Tensor:
    """Position of the last token of every input; 0 of an empty one. Shapes: (B, T), (B, T, D) -> (B,)."""
    if attention_mask is None:
        return torch.full((len(states),), states.shape[1] - 1, device=states.device)
    places = torch.arange(attention_mask.shape[1], device=states.device)
    return (places * (attention_mask != 0)).amax(1)


def before_targets(target_positions: Tensor, length: int) -> Tensor:
    """Which tokens of an input come before each of its targets.

    Args:
        target_positions: number of tokens before each target. Shape: (B, S).
        length: T.

    Returns:
        Shape: (B, S, T), bool.
    """
    return torch.arange(length, device=target_positions.device) < target_positions[..., None]


def within_targets(targets: int, levels: int, device: torch.device) -> Tensor:
    """Which codes a decoder that writes several targets in one row attends to: those of the same target so far.

    Args:
        targets: S.
        levels: L.
        device: of the mask.

    Returns:
        Shape: (1, S * L, S * L), bool.

    >>> within_targets(2, 2, torch.device("cpu")).int()
    tensor([[[1, 0, 0, 0],
             [1, 1, 0, 0],
             [0, 0, 1, 0],
             [0, 0, 1, 1]]], dtype=torch.int32)
    """
    so_far = torch.ones(levels, levels, dtype=torch.bool, device=device).tril()
    return torch.block_diag(*[so_far] * targets).bool()[None]
