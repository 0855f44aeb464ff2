"""The arithmetic of a trained T5 decoder, rearranged for wide beams.

The parameters are those of the model's `T5Stack` (Raffel et al. 2020, arXiv:1910.10683); only the order of the products
changes. Key and value projections of both attentions are folded into the query and output projections, so the states
attended to are the one key and value of every head: the encoder's, shared by all layers and all beams of a user, and
the beams' own. Those are kept as a tree: each step appends the states of its beams once and a mask picks each beam's
ancestors, so no cache is ever re-ordered. The gains of the layer norms are folded into the matrices behind them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

__all__ = ["DecodingState", "FoldedDecoder"]

CACHED_SCORES = 2**18
"""Attention scores computed at a time on a CPU, so that softmax and the second product find them in its cache."""


@dataclass
class DecodingState:
    """What the decoder remembers of B users between steps.

    Attributes:
        memory: encoder states at decoder width. Shape: (B, T, D).
        memory_mask: 0 where a state is real, a large negative number where it is padding. Shape: (B, 1, T).
        written: per layer, the normalised states of all beams of all past steps. Shape: (B, S, D).
        ancestors: for each live beam, the slot in `written` of each of its tokens so far. Shape: (B, W, steps).
    """

    memory: Tensor
    memory_mask: Tensor | None
    written: list[Tensor] = field(default_factory=list)
    ancestors: Tensor | None = None


class _Attention:
    """Query and output matrices of an attention whose states are key and value of every head.

    softmax(x Wq' Wk M') M Wv' Wo'  =  softmax((x Wq' Wk) M') M (Wv' Wo'), head by head.

    With H heads of width K and states of width D each bracketed product is one matrix of D x H D, or two: D x H K and,
    head by head, K x D. One is faster while D is at most 2 K; beyond, two take fewer multiplications.

    Args:
        query: shape (H K, D), as the key, value and transposed output matrices.
        key: see `query`.
        value: see `query`.
        out: shape (D, H K).
        heads: H.
        dtype: of the products.
    """

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor, heads: int, dtype: torch.dtype) -> None:
        self.heads, self.width = heads, query.shape[1]
        query, key, value = (weight.view(heads, -1, self.width) for weight in (query, key, value))
        out = out.view(self.width, heads, -1)
        self.whole = self.width <= 2 * query.shape[1]
        if self.whole:
            parts = (
                torch.einsum("hkd,hke->dhe", query, key).flatten(1),
                torch.einsum("hkd,ohk->hdo", value, out).flatten(0, 1),
            )
        else:
            parts = query.flatten(0, 1).t(), key, value.transpose(1, 2), out.flatten(1).t()
        self.parts = [part.to(dtype).contiguous() for part in parts]

    def queries(self, hidden: Tensor) -> Tensor:
        """Queries of all heads in the space of the states. Shapes: (N, D) -> (N, H * D)."""
        if self.whole:
            return hidden @ self.parts[0]
        to_heads, key = self.parts[:2]
        narrow = (hidden @ to_heads).view(len(hidden), self.heads, -1)
        wide = hidden.new_empty(len(hidden), self.heads, self.width)
        torch.bmm(narrow.transpose(0, 1), key, out=wide.transpose(0, 1))
        return wide.flatten(1)

    def add(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Hidden states plus what the heads found. Shapes: (N, D), (N, H * D) -> (N, D)."""
        if not self.whole:
            value = self.parts[2]
            narrow = hidden.new_empty(len(hidden), self.heads, value.shape[2])
            torch.bmm(mixed.view(len(hidden), self.heads, -1).transpose(0, 1), value, out=narrow.transpose(0, 1))
            mixed = narrow.flatten(1)
        return torch.addmm(hidden, mixed, self.parts[-1])


@dataclass(frozen=True)
class _Layer:
    own: _Attention
    cross: _Attention
    wi: Tensor
    gate: Tensor | None
    wo: Tensor


class FoldedDecoder:
    """A decoder step for all beams of all users at once.

    Args:
        stack: the trained `T5Stack` (its adapters, if any, are applied).
        head: linear layer from decoder states to the semantic-ID vocabulary.
        dtype: type of the products; sums in norms, softmaxes and log-probabilities are float32.
    """

    def __init__(self, stack: nn.Module, head: nn.Module, dtype: torch.dtype) -> None:
        config = stack.config
        self.heads, self.eps = config.num_heads, config.layer_norm_epsilon
        self.dtype = dtype
        # In place where that is possible: fresh memory costs more here than the activation itself.
        self.activation = torch.relu_ if config.dense_act_fn == "relu" else ACT2FN[config.dense_act_fn]
        self.layers = [self._fold(block.layer, config.is_gated_act) for block in stack.block]
        self.embedding = stack.embed_tokens.weight.detach().to(dtype)
        self.head = (_weight(head) * stack.final_layer_norm.weight.detach().float()).t().to(dtype)
        self._attention = stack.block[0].layer[0].SelfAttention

    def _fold(self, parts: nn.ModuleList, gated: bool) -> _Layer:
        own, cross, feed = parts[0].SelfAttention, parts[1].EncDecAttention, parts[2].DenseReluDense
        gains = [part.layer_norm.weight.detach().float() for part in parts]

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
        """State before the first token.

        Args:
            memory: encoder states at decoder width. Shape: (B, T, D).
            attention_mask: 1 for real states, 0 for padding. Shape: (B, T).
            max_steps: number of tokens that will be decoded, for the position bias.
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
            state: the state so far; updated in place.
            tokens: last token of each beam. Shape: (B, W).
            parents: the beam of the previous step that each beam extends; `None` at the first. Shape: (B, W).

        Returns:
            Shape: (B, W, V), float32.
        """
        users, width = tokens.shape
        self_mask = self._self_mask(*self._advance(state, parents, users, width, tokens.device))
        hidden = self.embedding[tokens.flatten()]
        for index, layer in enumerate(self.layers):
            normed = self._norm(hidden)
            own = normed.view(users, width, -1)
            if index == len(state.written):
                state.written.append(own)
            else:
                own = state.written[index] = torch.cat([state.written[index], own], dim=1)
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
        """Give this step's beams their slots; returns the ancestors of every beam, itself included, and all slots."""
        used = 0 if state.ancestors is None else state.written[0].shape[1]
        own = torch.arange(used, used + width, device=device).expand(users, width)[..., None]
        if state.ancestors is not None:
            past = state.ancestors.gather(1, parents[..., None].expand(-1, -1, state.ancestors.shape[-1]))
            own = torch.cat([past, own], dim=-1)
        state.ancestors = own
        return own, used + width

    def _self_mask(self, ancestors: Tensor, slots: int) -> Tensor:
        """Position bias at the ancestors' slots, a large negative number elsewhere. Shape: (B, W * heads, S)."""
        users, width, steps = ancestors.shape
        bias = self._bias[:, steps - 1, :steps]
        mask = bias.new_full((users, width, self.heads, slots), torch.finfo(bias.dtype).min)
        index = ancestors[:, :, None].expand(-1, -1, self.heads, -1)
        mask.scatter_(3, index, bias.expand(users, width, -1, -1))
        return mask.view(users, width * self.heads, slots)

    def _norm(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, hidden.shape[-1:], eps=self.eps)


def _attend(query: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Attention in which the states are key and value of every head.

    Args:
        query: queries of all beams and heads. Shape: (B * W, heads * D).
        states: what is attended to. Shape: (B, S, D).
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
        part = slice(low, low + at_once)
        keys = states[part].transpose(1, 2)
        scores = torch.bmm(query[part], keys) if mask is None else torch.baddbmm(mask[part], query[part], keys)
        torch.bmm(scores.softmax(-1), states[part], out=mixed[part])
    return mixed.view(shape)


def _weight(linear: nn.Module) -> Tensor:
    """The matrix a linear layer applies, its unmerged LoRA adapters included. Shape: (out, in), float32."""
    base = getattr(linear, "base_layer", None)
    if base is None:
        return linear.weight.detach().float()
    weight = base.weight.detach().float()
    if not linear.merged and not linear.disable_adapters:
        for adapter in linear.active_adapters:
            weight = weight + linear.get_delta_weight(adapter).detach().float()
    return weight
