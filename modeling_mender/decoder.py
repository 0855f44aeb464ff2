"""A T5 decoder for wide beams: absorbed cross-attention and folded weights.

Training and `generate()` attend to encoder states without projecting them. The search also folds the gains of norms
and pairs of projections into single matrices, and keeps the beams of a user as a masked tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5Config
from transformers.activations import ACT2FN
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

__all__ = [
    "AbsorbedCrossAttention",
    "DecodingState",
    "FoldedDecoder",
    "absorb_cross_attention",
]


class AbsorbedCrossAttention(T5Attention):
    """T5's cross-attention, computed in the cheaper of two orders of the same matrix products.

    T5's own order is used for step-by-step decoding (with `past_key_values`), for attention kernels with other mask
    formats, and if a projection is more than its weight: adapters, quantisation, offloading, pruning.
    """

    @classmethod
    def of(cls, attention: T5Attention, config: T5Config) -> AbsorbedCrossAttention:
        """The same attention, sharing the projections of `attention`."""
        with torch.device("meta"):  # its own projections are replaced below, so nothing is allocated for them
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
        """The output of `T5Attention.forward`.

        Args:
            hidden_states: normalised decoder states. Shape: (B, L, D).
            mask: bool, or added to the scores. Broadcasts to shape (B, H, L, T).
            key_value_states: encoder states at decoder width. Shape: (B, T, D).
            position_bias: passed through; cross-attention has none.
            past_key_values: cache of earlier steps.
            **kwargs: passed on to `T5Attention.forward`.

        Returns:
            Output of shape (B, L, D), the bias, and the attention weights of shape (B, H, L, T); in T5's order, the
            result of `T5Attention.forward`.
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
        values = torch.einsum("bhld,hkd->blhk", mixed, self.v.weight.view(heads)).reshape(users, steps, -1)
        return self.o(values), position_bias, weights

    def _worthwhile(self, hidden: Tensor, states: Tensor | None, mask: Tensor | None) -> bool:
        """Whether the absorbed order is possible and needs fewer multiplications."""
        if states is None or not all(map(_is_its_weight, (self.k, self.v))):
            return False
        if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 4):
            return False
        steps, (length, width) = hidden.shape[1], states.shape[1:]
        projected = length * self.inner_dim * (width + steps)
        absorbed = steps * width * (self.inner_dim + self.n_heads * length)
        return absorbed < projected


def _is_its_weight(projection: nn.Module) -> bool:
    """Whether calling the module does nothing but multiply by its weight."""
    hooks = projection._forward_pre_hooks or projection._forward_hooks or projection._backward_hooks
    plain = type(projection) is nn.Linear and type(projection.weight) is nn.Parameter
    return plain and not hooks and "forward" not in vars(projection)


def absorb_cross_attention(stack: T5Stack) -> None:
    """Replace the cross-attention of all layers by `AbsorbedCrossAttention`; weights keep their names."""
    for block in stack.block:
        layer = block.layer[1]
        layer.EncDecAttention = AbsorbedCrossAttention.of(layer.EncDecAttention, stack.config)


CACHED_SCORES = 2**18
"""Attention scores computed at a time on a CPU, so that they are still in its cache for the softmax."""


@dataclass
class DecodingState:
    """State of the decoder for B users between steps.

    Attributes:
        memory: encoder states at decoder width. Shape: (B, T, D).
        memory_mask: 0 for real states, a large negative number for padding. Shape: (B, 1, T).
        past: per layer, the normalised states of all beams of all past steps. Shape: (B, S, D).
        ancestors: for each beam, the positions in `past` of its tokens so far. Shape: (B, W, steps).
    """

    memory: Tensor
    memory_mask: Tensor | None
    past: list[Tensor] = field(default_factory=list)
    ancestors: Tensor | None = None


class _Attention:
    """Query and output matrices of an attention in which states serve as keys and values of every head.

    softmax(x Wq' Wk M') M Wv' Wo'  =  softmax((x Wq' Wk) M') M (Wv' Wo'), head by head.

    With H heads of width K and states of width D, each product in brackets is either one matrix of D x H D or two
    matrices, D x H K and (per head) K x D. One matrix is faster up to D = 2 K; above, two need fewer multiplications.

    Args:
        query: query matrix. Shape: (H K, D).
        key: key matrix. Shape: (H K, D).
        value: value matrix. Shape: (H K, D).
        out: output matrix. Shape: (D, H K).
        heads: H.
        dtype: type of the products.
    """

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor, heads: int, dtype: torch.dtype) -> None:
        self.heads, self.width = heads, query.shape[1]
        query, key, value = (weight.view(heads, -1, self.width) for weight in (query, key, value))
        out = out.view(self.width, heads, -1)
        self.merged = self.width <= 2 * query.shape[1]
        if self.merged:
            matrices = (
                torch.einsum("hkd,hke->dhe", query, key).flatten(1),
                torch.einsum("hkd,ohk->hdo", value, out).flatten(0, 1),
            )
        else:
            matrices = query.flatten(0, 1).t(), key, value.transpose(1, 2), out.flatten(1).t()
        self.matrices = [matrix.to(dtype).contiguous() for matrix in matrices]

    def queries(self, hidden: Tensor) -> Tensor:
        """Queries of all heads in the space of the states. Shapes: (N, D) -> (N, H * D)."""
        if self.merged:
            return hidden @ self.matrices[0]
        to_heads, key = self.matrices[:2]
        narrow = (hidden @ to_heads).view(len(hidden), self.heads, -1)
        wide = hidden.new_empty(len(hidden), self.heads, self.width)
        torch.bmm(narrow.transpose(0, 1), key, out=wide.transpose(0, 1))
        return wide.flatten(1)

    def add(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Hidden states plus the projected output of the heads. Shapes: (N, D), (N, H * D) -> (N, D)."""
        if not self.merged:
            value = self.matrices[2]
            narrow = hidden.new_empty(len(hidden), self.heads, value.shape[2])
            torch.bmm(mixed.view(len(hidden), self.heads, -1).transpose(0, 1), value, out=narrow.transpose(0, 1))
            mixed = narrow.flatten(1)
        return torch.addmm(hidden, mixed, self.matrices[-1])


@dataclass(frozen=True)
class _Layer:
    own: _Attention
    cross: _Attention
    wi: Tensor
    gate: Tensor | None
    wo: Tensor


class FoldedDecoder:
    """Decoder steps for all beams of all users at once.

    Args:
        stack: the trained `T5Stack`; adapters are merged into the folded copy of its weights.
        head: linear layer from decoder states to the semantic-ID vocabulary.
        dtype: type of the products; log-probabilities are float32.
    """

    def __init__(self, stack: nn.Module, head: nn.Module, dtype: torch.dtype) -> None:
        config = stack.config
        self.heads, self.eps = config.num_heads, config.layer_norm_epsilon
        self.dtype = dtype
        # In place if possible: allocating memory takes longer than the activation itself.
        self.activation = torch.relu_ if config.dense_act_fn == "relu" else ACT2FN[config.dense_act_fn]
        self.layers = [self._fold(block.layer, config.is_gated_act) for block in stack.block]
        self.embedding = stack.embed_tokens.weight.detach().to(dtype)
        self.head = (_weight(head) * stack.final_layer_norm.weight.detach().float()).t().to(dtype)
        self._attention = stack.block[0].layer[0].SelfAttention

    def _fold(self, sublayers: nn.ModuleList, gated: bool) -> _Layer:
        own, cross, feed = sublayers[0].SelfAttention, sublayers[1].EncDecAttention, sublayers[2].DenseReluDense
        gains = [sublayer.layer_norm.weight.detach().float() for sublayer in sublayers]

        def cast(matrix: Tensor) -> Tensor:
            return matrix.to(self.dtype).contiguous()

        wi, gate = (_weight(feed.wi_0), _weight(feed.wi_1) * gains[2]) if gated else (_weight(feed.wi), None)
        return _Layer(
            own=self._fold_attention(own, gains[0], gains[0]),
            cross=self._fold_attention(cross, gains[1], None),
            wi=cast((wi * gains[2]).t()),
            gate=None if gate is None else cast(gate.t()),
            wo=cast(_weight(feed.wo).t()),
        )

    def _fold_attention(self, attention: nn.Module, query_gain: Tensor, key_gain: Tensor | None) -> _Attention:
        query, key, value, out = map(_weight, (attention.q, attention.k, attention.v, attention.o))
        if key_gain is not None:
            key, value = key * key_gain, value * key_gain
        return _Attention(query * query_gain, key, value, out, self.heads, self.dtype)

    def start(self, memory: Tensor, attention_mask: Tensor | None, max_steps: int) -> DecodingState:
        """The state before the first token.

        Args:
            memory: encoder states at decoder width. Shape: (B, T, D).
            attention_mask: 1 for real states, 0 for padding. Shape: (B, T).
            max_steps: number of tokens to decode, for the position bias.
        """
        bias = self._attention.compute_bias(max_steps, max_steps).detach()[0]
        self._bias = bias.to(self.dtype)
        mask = None
        if attention_mask is not None and not bool(attention_mask.all()):
            mask = torch.zeros(attention_mask.shape, dtype=self.dtype, device=memory.device)
            mask = mask.masked_fill_(attention_mask == 0, torch.finfo(self.dtype).min)[:, None]
        return DecodingState(memory.to(self.dtype), mask)

    def step(self, state: DecodingState, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """Log-probabilities of the next token of every beam.

        Args:
            state: the current state; updated in place.
            tokens: last token of each beam. Shape: (B, W).
            parents: the beam of the previous step that each beam extends; `None` in the first step. Shape: (B, W).

        Returns:
            Shape: (B, W, V), float32.
        """
        users, width = tokens.shape
        self_mask = self._self_mask(*self._advance(state, parents, users, width, tokens.device))
        hidden = self.embedding[tokens.flatten()]
        for index, layer in enumerate(self.layers):
            normed = self._norm(hidden)
            own = normed.view(users, width, -1)
            if index == len(state.past):
                state.past.append(own)
            else:
                own = state.past[index] = torch.cat([state.past[index], own], dim=1)
            hidden = layer.own.add(hidden, _attend(layer.own.queries(normed), own, self_mask))
            queries = layer.cross.queries(self._norm(hidden))
            hidden = layer.cross.add(hidden, _attend(queries, state.memory, state.memory_mask))
            normed = self._norm(hidden)
            inner = self.activation(normed @ layer.wi)
            if layer.gate is not None:
                inner = inner * (normed @ layer.gate)
            hidden = torch.addmm(hidden, inner, layer.wo)
        return (self._norm(hidden) @ self.head).float().log_softmax(-1).view(users, width, -1)

    def _advance(
        self, state: DecodingState, parents: Tensor | None, users: int, width: int, device: torch.device
    ) -> tuple[Tensor, int]:
        """Assign slots to the beams of this step; returns the ancestors of every beam (and itself), and all slots."""
        used = 0 if state.ancestors is None else state.past[0].shape[1]
        own = torch.arange(used, used + width, device=device).expand(users, width)[..., None]
        if state.ancestors is not None:
            past = state.ancestors.gather(1, parents[..., None].expand(-1, -1, state.ancestors.shape[-1]))
            own = torch.cat([past, own], dim=-1)
        state.ancestors = own
        return own, used + width

    def _self_mask(self, ancestors: Tensor, slots: int) -> Tensor:
        """Position bias at the slots of ancestors, a large negative number elsewhere. Shape: (B, W * heads, S)."""
        users, width, steps = ancestors.shape
        bias = self._bias[:, steps - 1, :steps]
        mask = bias.new_full((users, width, self.heads, slots), torch.finfo(bias.dtype).min)
        index = ancestors[:, :, None].expand(-1, -1, self.heads, -1)
        mask.scatter_(3, index, bias.expand(users, width, -1, -1))
        return mask.view(users, width * self.heads, slots)

    def _norm(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, hidden.shape[-1:], eps=self.eps)


def _attend(query: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Attention in which states serve as keys and values of every head.

    Args:
        query: queries of all beams and heads. Shape: (B * W, heads * D).
        states: keys and values. Shape: (B, S, D).
        mask: added to the scores. Broadcasts to shape (B, W * heads, S).

    Returns:
        Shape: (B * W, heads * D).
    """
    shape, (users, slots, depth) = query.shape, states.shape
    query = query.view(users, -1, depth)
    rows = query.shape[1]
    at_once = max(1, CACHED_SCORES // (rows * slots)) if states.device.type == "cpu" else users
    mixed = torch.empty_like(query)
    for low in range(0, users, at_once):
        chunk = slice(low, low + at_once)
        keys = states[chunk].transpose(1, 2)
        scores = torch.bmm(query[chunk], keys) if mask is None else torch.baddbmm(mask[chunk], query[chunk], keys)
        torch.bmm(scores.softmax(-1), states[chunk], out=mixed[chunk])
    return mixed.view(shape)


def _weight(linear: nn.Module) -> Tensor:
    """The matrix of a linear layer, including adapters that are not merged. Shape: (out, in), float32."""
    base = getattr(linear, "base_layer", None)
    if base is None:
        return linear.weight.detach().float()
    weight = base.weight.detach().float()
    if not linear.merged and not linear.disable_adapters:
        for adapter in linear.active_adapters:
            weight = weight + linear.get_delta_weight(adapter).detach().float()
    return weight
