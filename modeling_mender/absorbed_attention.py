"""Cross-attention that need not project what it attends to.

A T5 decoder (Raffel et al. 2020, arXiv:1910.10683) projects every encoder state to a key and a value, per head and
layer. A semantic ID has four tokens and its input hundreds: it takes far fewer multiplications to carry the queries of
four tokens into the space of the states, and their four mixtures of states through the value projection. Answers,
gradients and parameters are the same, rounding aside. `folded_decoder` does the like for search, with fixed weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

__all__ = ["AbsorbedCrossAttention", "absorb_cross_attention"]


class AbsorbedCrossAttention(T5Attention):
    """T5's cross-attention, by the cheaper of two orders of the same products.

    T5's order is taken in step-by-step decoding (with `past_key_values`), by kernels with masks of their own, and where
    something comes between a projection and its weight: adapters, quantisation, offloading, pruning.
    """

    @classmethod
    def of(cls, attention: T5Attention, config: T5Config) -> AbsorbedCrossAttention:
        """The same attention, with the same projections, which are shared and not copied."""
        with torch.device("meta"):  # its own projections are thrown away: nothing is drawn, nothing allocated
            absorbed = cls(config, layer_idx=attention.layer_idx)
        for name in ("q", "k", "v", "o"):
            setattr(absorbed, name, getattr(attention, name))
        return absorbed.train(attention.training)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        """What the heads find, as from `T5Attention.forward`.

        Args:
            hidden_states: normalised decoder states. Shape: (B, L, D).
            mask: bool, or added to the scores. Broadcasts to shape (B, H, L, T).
            key_value_states: encoder states at decoder width. Shape: (B, T, D).
            position_bias: passed through; cross-attention has none.
            past_key_values: cache of earlier steps.
            **kwargs: of T5's order.

        Returns:
            Output of shape (B, L, D), the bias, and the attention weights of shape (B, H, L, T), or in T5's order what
            T5 returns.
        """
        if not self._worthwhile(hidden_states, key_value_states, mask) or past_key_values is not None:
            return super().forward(
                hidden_states,
                mask=mask,
                key_value_states=key_value_states,
                position_bias=position_bias,
                past_key_values=past_key_values,
                **kwargs,
            )
        users, steps, width = hidden_states.shape
        rows = (users, self.n_heads * steps, -1)
        heads = (self.n_heads, self.key_value_proj_dim, width)
        queries = self.q(hidden_states).view(users, steps, *heads[:2])
        queries = torch.einsum("blhk,hkd->bhld", queries, self.k.weight.view(heads)).reshape(rows)
        scores = (queries @ key_value_states.transpose(1, 2)).view(users, self.n_heads, steps, -1)
        if mask is not None:
            masked = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if masked else scores + mask
        precise = torch.promote_types(scores.dtype, torch.float32)
        weights = functional.softmax(scores, dim=-1, dtype=precise).type_as(scores)
        weights = functional.dropout(weights, self.dropout, self.training)
        mixed = (weights.view(rows) @ key_value_states).view(users, self.n_heads, steps, width)
        found = torch.einsum("bhld,hkd->blhk", mixed, self.v.weight.view(heads)).reshape(users, steps, -1)
        return self.o(found), position_bias, weights

    def _worthwhile(self, hidden: Tensor, states: Tensor | None, mask: Tensor | None) -> bool:
        """Whether this order is possible, and takes fewer multiplications."""
        if states is None or not all(map(_is_its_weight, (self.k, self.v))):
            return False
        if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 4):
            return False
        steps, (length, width) = hidden.shape[1], states.shape[1:]
        projected = length * self.inner_dim * (width + steps)
        absorbed = steps * width * (self.inner_dim + self.n_heads * length)
        return absorbed < projected


def _is_its_weight(projection: nn.Module) -> bool:
    """Whether calling a module is the same as multiplying by its weight, so that the weight alone will do."""
    hooks = projection._forward_pre_hooks or projection._forward_hooks or projection._backward_hooks
    plain = type(projection) is nn.Linear and type(projection.weight) is nn.Parameter
    return plain and not hooks and "forward" not in vars(projection)


def absorb_cross_attention(stack: T5Stack) -> None:
    """Make the layers of a decoder attend to the encoder in whichever order is cheaper; weights keep their names."""
    for block in stack.block:
        layer = block.layer[1]
        layer.EncDecAttention = AbsorbedCrossAttention.of(layer.EncDecAttention, stack.config)
