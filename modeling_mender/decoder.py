"""A T5 decoder for wide beams: absorbed cross-attention and folded weights.

Training and `generate()` attend to encoder states without projecting them. The search also folds the gains of norms
and pairs of projections into single matrices, and keeps the beams of a user as a masked tree. A decoder with hooks is
called as it is, step by step.
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

from .module_weights import (
    T5_PARTS,
    evaluating,
    fingerprint,
    gain_of,
    is_its_weight,
    leaves_of,
    matrix_of,
    rows_of,
)

__all__ = [
    "AbsorbedCrossAttention",
    "CalledDecoder",
    "DecodingState",
    "FoldedDecoder",
    "absorb_cross_attention",
    "search_decoder",
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
        if states is None or not all(map(is_its_weight, (self.k, self.v))):
            return False
        if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 4):
            return False
        steps, (length, width) = hidden.shape[1], states.shape[1:]
        projected = length * self.inner_dim * (width + steps)
        absorbed = steps * width * (self.inner_dim + self.n_heads * length)
        return absorbed < projected


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
        bias: position bias of all steps. Shape: (heads, steps, steps).
        past: per layer, the normalised states of all beams of all past steps. Shape: (B, S, D).
        ancestors: for each beam, the positions in `past` of its tokens so far. Shape: (B, W, steps).
    """

    memory: Tensor
    memory_mask: Tensor | None
    bias: Tensor | None = None
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
        stack: the trained `T5Stack`; what adapters, quantisation and offloading make of its weights is folded.
        head: linear layer from decoder states to the semantic-ID vocabulary.
        device: of the encoder states; weights may be kept elsewhere.

    Raises:
        ValueError: if the weights are sharded.
    """

    def __init__(self, stack: nn.Module, head: nn.Module, device: torch.device) -> None:
        config = self.config = stack.config
        self.heads, self.eps = config.num_heads, config.layer_norm_epsilon
        self._read_as = stack.final_layer_norm.weight.dtype
        # Products; log-probabilities are float32.
        self.dtype = torch.float32 if self._read_as == torch.float16 else self._read_as
        self.device = device
        # In place if possible: allocating memory takes longer than the activation itself.
        self.activation = torch.relu_ if config.dense_act_fn == "relu" else ACT2FN[config.dense_act_fn]
        self.layers = [self._fold(block.layer, config.is_gated_act) for block in stack.block]
        width, vocabulary = config.d_model, config.vocab_size
        self.embedding = rows_of(stack.embed_tokens, (vocabulary, width), self.device).to(self.dtype)
        self.head = (self._matrix(head, vocabulary, width) * self._gain(stack.final_layer_norm)).t().to(self.dtype)
        self._attention = stack.block[0].layer[0].SelfAttention

    def _matrix(self, linear: nn.Module, outputs: int, inputs: int) -> Tensor:
        return matrix_of(linear, (outputs, inputs), self._read_as, self.device)

    def _gain(self, norm: nn.Module) -> Tensor:
        return gain_of(norm, self.config.d_model, self.eps, self._read_as, self.device)

    def _fold(self, sublayers: nn.ModuleList, gated: bool) -> _Layer:
        own, cross, feed = sublayers[0].SelfAttention, sublayers[1].EncDecAttention, sublayers[2].DenseReluDense
        gains = [self._gain(sublayer.layer_norm) for sublayer in sublayers]
        width, inner = self.config.d_model, self.config.d_ff

        def cast(matrix: Tensor) -> Tensor:
            return matrix.to(self.dtype).contiguous()

        if gated:
            wi, gate = self._matrix(feed.wi_0, inner, width), self._matrix(feed.wi_1, inner, width) * gains[2]
        else:
            wi, gate = self._matrix(feed.wi, inner, width), None
        return _Layer(
            own=self._fold_attention(own, gains[0], gains[0]),
            cross=self._fold_attention(cross, gains[1], None),
            wi=cast((wi * gains[2]).t()),
            gate=None if gate is None else cast(gate.t()),
            wo=cast(self._matrix(feed.wo, width, inner).t()),
        )

    def _fold_attention(self, attention: nn.Module, query_gain: Tensor, key_gain: Tensor | None) -> _Attention:
        width, inner = self.config.d_model, self.heads * self.config.d_kv
        query, key, value = (self._matrix(part, inner, width) for part in (attention.q, attention.k, attention.v))
        if key_gain is not None:
            key, value = key * key_gain, value * key_gain
        out = self._matrix(attention.o, width, inner)
        return _Attention(query * query_gain, key, value, out, self.heads, self.dtype)

    def start(self, memory: Tensor, attention_mask: Tensor | None, max_steps: int) -> DecodingState:
        """The state before the first token.

        Args:
            memory: encoder states at decoder width. Shape: (B, T, D).
            attention_mask: 1 for real states, 0 for padding. Shape: (B, T).
            max_steps: number of tokens to decode, for the position bias.
        """
        with torch.no_grad():
            bias = self._attention.compute_bias(max_steps, max_steps, device=self.device)[0].to(self.dtype)
        mask = None
        if attention_mask is not None and not bool(attention_mask.all()):
            mask = torch.zeros(attention_mask.shape, dtype=self.dtype, device=memory.device)
            mask = mask.masked_fill_(attention_mask == 0, torch.finfo(self.dtype).min)[:, None]
        return DecodingState(memory.to(self.dtype), mask, bias)

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
        self_mask = self._self_mask(state.bias, *self._advance(state, parents, users, width, tokens.device))
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

    def _self_mask(self, bias: Tensor, ancestors: Tensor, slots: int) -> Tensor:
        """Position bias at the slots of ancestors, a large negative number elsewhere. Shape: (B, W * heads, S)."""
        users, width, steps = ancestors.shape
        bias = bias[:, steps - 1, :steps]
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


class CalledDecoder:
    """The steps of `FoldedDecoder` by calling the modules, whatever they do: many times slower.

    Args:
        stack: the decoder.
        head: the layer from decoder states to the semantic-ID vocabulary.
    """

    def __init__(self, stack: nn.Module, head: nn.Module) -> None:
        self.stack, self.head = stack, head

    def start(self, memory: Tensor, attention_mask: Tensor | None, max_steps: int) -> DecodingState:
        """The state before the first token, see `FoldedDecoder.start`; its mask is `attention_mask`."""
        return DecodingState(memory, attention_mask)

    @torch.no_grad()
    def step(self, state: DecodingState, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """Log-probabilities of the next token of every beam, see `FoldedDecoder.step`; `ancestors` are tokens."""
        prefixes = tokens[..., None]
        if state.ancestors is not None:
            past = state.ancestors.gather(1, parents[..., None].expand(-1, -1, state.ancestors.shape[-1]))
            prefixes = torch.cat([past, prefixes], dim=-1)
        state.ancestors = prefixes
        beams, found = prefixes.shape[1], []
        with evaluating(self.stack), evaluating(self.head):
            for user, own in enumerate(prefixes):
                mask = None if state.memory_mask is None else state.memory_mask[user].expand(beams, -1)
                states = self.stack(
                    input_ids=own,
                    encoder_hidden_states=state.memory[user].expand(beams, -1, -1),
                    encoder_attention_mask=mask,
                    use_cache=False,
                ).last_hidden_state
                found.append(self.head(states[:, -1]).float().log_softmax(-1))
        return torch.stack(found)


def search_decoder(
    stack: nn.Module,
    head: nn.Module,
    device: torch.device,
    known: tuple[Tensor | None, FoldedDecoder | CalledDecoder] | None,
) -> tuple[Tensor | None, FoldedDecoder | CalledDecoder]:
    """The decoder in the fastest form that gives its results.

    Args:
        stack: the decoder.
        head: the layer from decoder states to the semantic-ID vocabulary.
        device: of the encoder states.
        known: an earlier result, which is returned again while all weights have the same values.

    Returns:
        The fingerprint of the weights if they alone decide what the decoder does, and the decoder.

    Raises:
        ValueError: if the weights are sharded.
    """
    leaves = leaves_of(stack, head, (*T5_PARTS, AbsorbedCrossAttention))
    if leaves is None:
        return None, CalledDecoder(stack, head)
    if not all(map(is_its_weight, leaves)):
        return None, FoldedDecoder(stack, head, device)
    mark = fingerprint(leaf.weight for leaf in leaves)
    if known is not None and known[0] is not None and known[0].device == mark.device and torch.equal(known[0], mark):
        return known
    return mark, FoldedDecoder(stack, head, device)
