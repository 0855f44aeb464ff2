"""An encoder that reads only the preference; the states of item titles are computed once and looked up in a table.

Mender-FiD keeps the token states of each title and lets the decoder fuse them (fusion in decoder, Izacard & Grave
2021, arXiv:2007.01282). Mender-Emb (arXiv:2412.08604) keeps one vector per item. An input is the text tokens, followed
by rows of the state table as token ids above the text vocabulary, so the model takes the same `input_ids` and
`attention_mask` as any other. The cost of a request is encoding one short preference, however long the history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging

from .configuration_mender import ItemStatesConfig
from .saved_weights import ChecksWeights

__all__ = [
    "ItemStatesEncoder",
    "encode_in_groups",
    "encode_titles",
    "mean_pooled",
    "version_of",
]


TOKENS_AT_ONCE = 1024
"""Tokens per group on a CPU, so that the intermediate results of the encoder stay in its cache."""


def encode_in_groups(
    encode: Callable[[Tensor, Tensor], Tensor],
    input_ids: Tensor,
    attention_mask: Tensor | None,
    tokens_at_once: int | None = None,
) -> Tensor:
    """Encode a batch in groups of texts of similar length; states of padding are 0.

    On a CPU, about a thousand tokens at a time are faster than the whole batch (see `benchmarks/retrieval.py`), and a
    long text does not add padding to short ones.

    Args:
        encode: maps `input_ids` and `attention_mask` of a group to its states. Shape: (G, T') -> (G, T', D).
        input_ids: text tokens. Shape: (B, T).
        attention_mask: 1 for tokens, 0 for padding; `None` if nothing is padded. Shape: (B, T).
        tokens_at_once: tokens in a group, padding included; a longer text forms a group by itself. Default: about a
            thousand on a CPU, everything on an accelerator.

    Returns:
        Shape: (B, T, D).
    """
    users, length = input_ids.shape
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if tokens_at_once is None:
        tokens_at_once = TOKENS_AT_ONCE if input_ids.device.type == "cpu" else users * length
    if users * length <= tokens_at_once:
        return encode(input_ids, attention_mask)
    # Padding on the right is removed; padding on the left stays, because positions count from the left.
    ends = length - attention_mask.bool().int().flip(1).argmax(dim=1)
    order = ends.argsort(descending=True, stable=True)
    states = None
    for group in _groups(ends[order].tolist(), tokens_at_once):
        texts = order[group]
        width = int(ends[texts[0]])
        encoded = encode(input_ids[texts, :width], attention_mask[texts, :width])
        if states is None:
            states = encoded.new_zeros(users, length, encoded.shape[-1])
        states[texts, :width] = encoded
    return states


def _groups(lengths: list[int], tokens_at_once: int) -> list[slice]:
    """Slices of texts, longest first, of at most `tokens_at_once` padded tokens and nearly equal size.

    >>> _groups([150] * 8, 1024)
    [slice(0, 4, None), slice(4, 8, None)]
    >>> _groups([900, 200, 200, 200], 1024)
    [slice(0, 1, None), slice(1, 4, None)]
    """
    groups, low = [], 0
    while low < len(lengths):
        left = len(lengths) - low
        most = max(1, tokens_at_once // max(1, lengths[low]))
        # Divides texts of equal length into the fewest groups, without a small last group.
        size = -(-left // -(-left // most))
        groups.append(slice(low, low + size))
        low += size
    return groups


@dataclass
class ItemStatesOutput(BaseModelOutput):
    """States of an `ItemStatesEncoder`.

    Attributes:
        last_hidden_state: states of text and items, in the order of the input. Shape: (B, T, D).
        text_states: states of the tokens of the texts, before any pooling; `None` without text. Shape: (B, T', D).
    """

    text_states: Tensor | None = None


class ItemStatesEncoder(ChecksWeights, PreTrainedModel):
    """A text encoder for preferences and a table of precomputed states for items.

    Args:
        config: the configuration.
        text_encoder: a loaded encoder; by default one is created from `config.text_encoder`.

    Attributes:
        item_states: states of all items, one after the other; float16 if `encode_titles` made them. Shape: (M, D).
        first_state: whether a row of the table is the first state of its item. Shape: (M,), bool.
    """

    config_class = ItemStatesConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: ItemStatesConfig, text_encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if text_encoder is None:
            # `from_pretrained` sets the default type; that in the encoder's own configuration is what it was before.
            dtype = torch.get_default_dtype()
            text_encoder = text_encoder_class(config.text_encoder).from_config(config.text_encoder, dtype=dtype)
        if getattr(text_encoder, "pooler", None) is not None:
            text_encoder.pooler = None
        self.text_encoder = text_encoder
        width = config.hidden_size
        self.order = nn.Embedding(config.max_history, width) if config.max_history else None
        self.register_buffer("item_states", torch.zeros(config.num_states, width), persistent=True)
        self.register_buffer("first_state", torch.ones(config.num_states, dtype=torch.bool), persistent=True)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and self.order is not None:
            init.normal_(self.order.weight, std=0.02)

    def get_input_embeddings(self) -> nn.Module:
        """Word embeddings of the text encoder."""
        return self.text_encoder.get_input_embeddings()

    def train(self, mode: bool = True) -> ItemStatesEncoder:
        """Set training mode; a frozen text encoder stays in evaluation mode, so that its states do not change."""
        super().train(mode)
        if mode and not any(parameter.requires_grad for parameter in self.text_encoder.parameters()):
            self.text_encoder.eval()
        return self

    def set_item_states(self, states: Tensor, first: Tensor) -> None:
        """Replace the state table by the results of `encode_titles`; a memory-mapped table stays on disk.

        Args:
            states: states of all items. Shape: (M, D).
            first: whether a state is the first of its item. Shape: (M,), bool.

        Raises:
            ValueError: if the shapes do not match.
        """
        if states.shape != (len(first), self.config.hidden_size):
            raise ValueError(
                f"states have shape {tuple(states.shape)}, and first has {len(first)} entries; "
                f"expected states of shape ({len(first)}, {self.config.hidden_size})"
            )
        self.item_states, self.first_state = states.to(self.device), first.to(self.device, torch.bool)
        self.config.num_states = len(states)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        text_states: Tensor | None = None,
        **_: Any,
    ) -> ItemStatesOutput:
        """States of text and items, in the order of the input.

        Args:
            input_ids: text tokens, then rows of the state table; padded on the right. Shape: (B, T).
            attention_mask: not used, padding is recognised by its token id. (With `pooled`, the mask hides the text
                positions after the first from the decoder; their states have no meaning.)
            text_states: cached states of the text encoder, so that it need not run; at least as long as the longest
                text. Shape: (B, >= text tokens, D).

        Returns:
            States of shape (B, T, D), and those of the texts' tokens.

        Raises:
            ValueError: if an input refers to a row that the table does not have, or `text_states` is shorter than the
                longest text.
        """
        vocabulary = self.config.text_vocabulary
        text = (input_ids < vocabulary) & (input_ids != self.config.text_encoder.pad_token_id)
        # One transfer for both numbers: each transfer from an accelerator waits for its pending work.
        width, last = torch.stack([text.sum(1).max(), input_ids.max().long()]).tolist()
        if last - vocabulary >= len(self.item_states):
            raise ValueError(
                f"input_ids refer to row {last - vocabulary} of the state table, which has {len(self.item_states)} "
                "rows; after adding items or changing titles, make a new table with encode_titles and pass it to "
                "set_item_states of this encoder (docs/serving.md)"
            )
        index = (input_ids - vocabulary).clamp(min=0)
        # Not `self.dtype`: replicas of `nn.DataParallel` have weights but no parameters.
        items = self.item_states[index].to(self.get_input_embeddings().weight.dtype)
        if self.order is not None:
            items = items + self.order(self._positions(index, input_ids >= vocabulary))
        if width == 0:
            return ItemStatesOutput(last_hidden_state=items)
        if text_states is None:
            texts = input_ids.masked_fill(~text, self.config.text_encoder.pad_token_id)
            text_states = self._encode_texts(texts[:, :width])
        elif text_states.shape[1] < width:
            raise ValueError(
                f"text_states has {text_states.shape[1]} states per text, but the longest text in input_ids has "
                f"{width} tokens; pass the states of all tokens"
            )
        shown = text_states = text_states[:, :width]
        if self.config.pooled:
            shown = mean_pooled(text_states, text[:, :width])[:, None]
        # Texts come before items, so only the first positions can be either.
        length = shown.shape[1]
        front = torch.where(text[:, :length, None], shown.to(items.dtype), items[:, :length])
        return ItemStatesOutput(torch.cat([front, items[:, length:]], dim=1), text_states=text_states)

    def _encode_texts(self, input_ids: Tensor) -> Tensor:
        """States of texts. Without gradients, each distinct text is encoded once, grouped by length.

        Args:
            input_ids: text tokens, padded on the right. Shape: (B, T).

        Returns:
            Shape: (B, T, D).
        """

        def encode(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

        padding = self.config.text_encoder.pad_token_id
        if torch.is_grad_enabled():
            return encode(input_ids, (input_ids != padding).long())
        # On the CPU, because some accelerators do not support this operation; the tensors are small.
        distinct, position = input_ids.cpu().unique(dim=0, return_inverse=True)
        distinct = distinct.to(input_ids.device)
        return encode_in_groups(encode, distinct, (distinct != padding).long())[position.to(input_ids.device)]

    def _positions(self, index: Tensor, is_item: Tensor) -> Tensor:
        """Position of each state's item in the history, counted from the latest item. Shape: (B, T)."""
        starts = (self.first_state[index] & is_item).long()
        later = starts.flip(1).cumsum(1).flip(1) - starts
        return later.clamp(max=self.config.max_history - 1)


def mean_pooled(states: Tensor, mask: Tensor) -> Tensor:
    """The normalised mean of the states of each text. Shape: (B, D)."""
    mask = mask[..., None].to(states.dtype)
    return functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1)


def text_encoder_class(config: Any) -> type:
    """The Auto class that creates only the encoder; `AutoModel` would add the decoder of T5."""
    return AutoModelForTextEncoding if type(config) in AutoModelForTextEncoding._model_mapping else AutoModel


@torch.no_grad()
def encode_titles(
    encoder: PreTrainedModel,
    titles: Sequence[Sequence[int]],
    *,
    pooled: bool,
    inner: tuple[int, int] = (0, 0),
    tokens_per_batch: int = 8192,
) -> tuple[Tensor, Tensor]:
    """The state table of a catalogue. Titles are encoded once, in batches of similar length.

    Args:
        encoder: a text encoder.
        titles: token ids of each item's title, special tokens included.
        pooled: one mean vector per title instead of one state per token.
        inner: number of special tokens before and after a title, whose states are left out (but are part of the mean).
        tokens_per_batch: tokens in a batch, padding included.

    Returns:
        States in the order of the items, float16, and whether each is the first of its item. Shapes: (M, D), (M,).
    """
    lengths = torch.tensor([len(ids) for ids in titles])
    before, after = inner
    kept = torch.ones_like(lengths) if pooled else lengths - before - after
    starts = kept.cumsum(0) - kept
    table = torch.zeros(int(kept.sum()), encoder.config.hidden_size, dtype=torch.float16)
    size = max(1, tokens_per_batch // int(lengths.max()))
    training = encoder.training
    encoder.eval()
    batches = lengths.argsort(stable=True).split(size)
    for batch in logging.tqdm(batches, desc="Encoding items", unit="batch", delay=2, leave=False):
        ids = nn.utils.rnn.pad_sequence([torch.tensor(titles[item]) for item in batch.tolist()], batch_first=True)
        mask = torch.arange(ids.shape[1]) < lengths[batch][:, None]
        states = encoder(input_ids=ids.to(encoder.device), attention_mask=mask.long().to(encoder.device))
        states = states.last_hidden_state.float().cpu()
        if pooled:
            table[starts[batch]] = mean_pooled(states, mask).half()
            continue
        position = torch.arange(ids.shape[1])
        content = (position >= before) & (position < (lengths[batch] - after)[:, None])
        target = starts[batch][:, None] + position - before
        table[target[content]] = states[content].half()
    encoder.train(training)
    first = torch.zeros(len(table), dtype=torch.bool)
    first[starts] = True
    return table, first


def version_of(tensor: Tensor) -> int:
    """How often a tensor was modified in place; 0 for tensors created in inference mode, which do not count."""
    return 0 if tensor.is_inference() else tensor._version
