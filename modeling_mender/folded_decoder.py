"""The arithmetic of a trained T5 decoder, rearranged for wide beams.

The parameters are those of the model's `T5Stack` (Raffel et al. 2020, arXiv:1910.10683); only the order of the products
changes. Key and value projections of the cross-attention are folded into the query and output projections, so the
encoder states themselves are the one key and value of every head and layer, shared by all beams of a user; the gains
of the layer norms are folded into the matrices behind them. Self-attention keeps the beams as a tree: each step
appends its keys once and a mask picks each beam's ancestors, so no cache is ever re-ordered.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

__all__ = ["DecodingState", "FoldedDecoder"]


@dataclass
class DecodingState:
    """What the decoder remembers of B users between steps.

    Attributes:
        memory: encoder states at decoder width. Shape: (B, T, D).
        memory_mask: 0 where a state is real, -inf where it is padding. Shape: (B, 1, T).
        keys: per layer, the keys of all beams of all past steps. Shape: (B, heads, S, d_kv).
        values: per layer, likewise.
        ancestors: for each live beam, the key slot of each of its tokens so far. Shape: (B, W, steps).
    """

    memory: Tensor
    memory_mask: Tensor | None
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    ancestors: Tensor | None = None


@dataclass(frozen=True)
class _Layer:
    qkv: Tensor
    self_out: Tensor
    cross_query: Tensor
    cross_out: Tensor
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
        self.heads, self.d_kv, self.eps = config.num_heads, config.d_kv, config.layer_norm_epsilon
        self.dtype = dtype
        self.activation = ACT2FN[config.dense_act_fn]
        self.layers = [self._fold(block.layer, config.is_gated_act) for block in stack.block]
        self.embedding = stack.embed_tokens.weight.detach().to(dtype)
        self.head = (_weight(head) * stack.final_layer_norm.weight.detach().float()).t().to(dtype)
        self._attention = stack.block[0].layer[0].SelfAttention

    def _fold(self, parts: nn.ModuleList, gated: bool) -> _Layer:
        heads, d_kv = self.heads, self.d_kv
        own, cross, feed = parts[0].SelfAttention, parts[1].EncDecAttention, parts[2].DenseReluDense
        gains = [part.layer_norm.weight.detach().float() for part in parts]

        def cast(matrix: Tensor) -> Tensor:
            return matrix.to(self.dtype).contiguous()

        qkv = torch.cat([_weight(own.q), _weight(own.k), _weight(own.v)]) * gains[0]
        # softmax(x Wq' Wk M') M Wv' Wo'  =  softmax((x Wq' Wk) M') M (Wv' Wo'), head by head.
        query, key, value = (_weight(layer).view(heads, d_kv, -1) for layer in (cross.q, cross.k, cross.v))
        out = _weight(cross.o).view(-1, heads, d_kv)
        cross_query = torch.einsum("hkd,hke->dhe", query * gains[1], key).flatten(1)
        cross_out = torch.einsum("hkd,ohk->hdo", value, out).flatten(0, 1)
        wi, gate = (_weight(feed.wi_0), _weight(feed.wi_1) * gains[2]) if gated else (_weight(feed.wi), None)
        return _Layer(
            qkv=cast(qkv.t()),
            self_out=cast(_weight(own.o).t()),
            cross_query=cast(cross_query),
            cross_out=cast(cross_out),
            wi=cast((wi * gains[2]).t()),
            gate=None if gate is None else cast(gate.t()),
            wo=cast(_weight(feed.wo).t()),
        )

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
        slots = self._advance(state, parents, users, width, tokens.device)
        self_mask = self._self_mask(state.ancestors, slots)
        hidden = self.embedding[tokens]
        for index, layer in enumerate(self.layers):
            hidden = hidden + self._self_attention(index, layer, state, hidden, self_mask)
            hidden = hidden + self._cross_attention(layer, state, hidden)
            normed = self._norm(hidden)
            inner = self.activation(normed @ layer.wi)
            if layer.gate is not None:
                inner = inner * (normed @ layer.gate)
            hidden = hidden + inner @ layer.wo
        return (self._norm(hidden) @ self.head).float().log_softmax(-1)

    def _advance(self, state: DecodingState, parents: Tensor | None, users: int, width: int, device) -> int:
        """Give this step's beams their key slots; returns the number of slots in use."""
        used = 0 if state.ancestors is None else state.keys[0].shape[2]
        own = torch.arange(used, used + width, device=device).expand(users, width)[..., None]
        if state.ancestors is None:
            state.ancestors = own
        else:
            past = state.ancestors.gather(1, parents[..., None].expand(-1, -1, state.ancestors.shape[-1]))
            state.ancestors = torch.cat([past, own], dim=-1)
        return used + width

    def _self_mask(self, ancestors: Tensor, slots: int) -> Tensor:
        """Position bias at the ancestors' slots, -inf elsewhere. Shape: (B * heads, W, S)."""
        users, width, steps = ancestors.shape
        bias = self._bias[:, steps - 1, :steps]
        mask = bias.new_full((users, self.heads, width, slots), torch.finfo(bias.dtype).min)
        index = ancestors[:, None].expand(-1, self.heads, -1, -1)
        mask.scatter_(3, index, bias[None, :, None].expand(users, -1, width, -1))
        return mask.view(users * self.heads, width, slots)

    def _self_attention(self, index: int, layer: _Layer, state: DecodingState, hidden: Tensor, mask: Tensor) -> Tensor:
        users, width, _ = hidden.shape
        qkv = (self._norm(hidden) @ layer.qkv).view(users, width, 3, self.heads, self.d_kv)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if index == len(state.keys):
            state.keys.append(key)
            state.values.append(value)
        else:
            state.keys[index] = key = torch.cat([state.keys[index], key], dim=2)
            state.values[index] = value = torch.cat([state.values[index], value], dim=2)
        query, key, value = (part.reshape(users * self.heads, -1, self.d_kv) for part in (query, key, value))
        weights = torch.baddbmm(mask, query, key.transpose(1, 2)).softmax(-1)
        mixed = torch.bmm(weights, value).view(users, self.heads, width, self.d_kv)
        return mixed.transpose(1, 2).reshape(users, width, -1) @ layer.self_out

    def _cross_attention(self, layer: _Layer, state: DecodingState, hidden: Tensor) -> Tensor:
        users, width, depth = hidden.shape
        query = (self._norm(hidden) @ layer.cross_query).view(users, width * self.heads, depth)
        keys = state.memory.transpose(1, 2)
        scores = torch.bmm(query, keys) if state.memory_mask is None else torch.baddbmm(state.memory_mask, query, keys)
        mixed = torch.bmm(scores.softmax(-1), state.memory)
        return mixed.view(users, width, -1) @ layer.cross_out

    def _norm(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, hidden.shape[-1:], eps=self.eps)


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
