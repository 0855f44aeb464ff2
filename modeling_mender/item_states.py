"""An encoder that reads only the preference: the states of every item's title are computed once and looked up.

Mender-FiD keeps the token states of each title and lets the decoder fuse them (fusion in decoder, Izacard & Grave
2021, arXiv:2007.01282); Mender-Emb (arXiv:2412.08604) keeps one vector per item. An input is text tokens followed by
rows of the state table, written as token ids beyond the text vocabulary, so that such a model takes the same
`input_ids` and `attention_mask` as any other. A request then costs one short preference, however long the history.

Encoding a batch of texts in groups that a processor's cache holds.

A long batch sends every intermediate result of an encoder through main memory; on a CPU, a thousand tokens at a time
are faster than all at once (measured by `benchmarks/retrieval.py`). Texts of similar length share a group, so one long
text does not make the others as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from .configuration_mender import ItemStatesConfig

__all__ = [
    "ItemStatesEncoder",
    "encode_in_groups",
    "encode_titles",
    "mean_pooled",
    "version_of",
]


TOKENS_AT_ONCE = 1024


def encode_in_groups(
    encode: Callable[[Tensor, Tensor], Tensor],
    input_ids: Tensor,
    attention_mask: Tensor | None,
    tokens_at_once: int | None = None,
) -> Tensor:
    """States of all texts, as `encode` gives them for the whole batch; zeros where a text is padded.

    Args:
        encode: from `input_ids` and `attention_mask` of a group to its states. Shape: (G, T') -> (G, T', D).
        input_ids: text tokens. Shape: (B, T).
        attention_mask: 1 for tokens, 0 for padding; `None` where nothing is padded. Shape: (B, T).
        tokens_at_once: tokens in a group, padding included; a longer text is a group of its own. Default: about a
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
    # Padding behind a text is cut off; padding before it stays, since positions count from the left.
    ends = length - attention_mask.bool().int().flip(1).argmax(dim=1)
    order = ends.argsort(descending=True, stable=True)
    states = None
    for group in _groups(ends[order].tolist(), tokens_at_once):
        rows = order[group]
        width = int(ends[rows[0]])
        found = encode(input_ids[rows, :width], attention_mask[rows, :width])
        if states is None:
            states = found.new_zeros(users, length, found.shape[-1])
        states[rows, :width] = found
    return states


def _groups(lengths: list[int], tokens_at_once: int) -> list[slice]:
    """Runs of texts, longest first, of at most `tokens_at_once` padded tokens and of nearly equal size.

    >>> _groups([150] * 8, 1024)
    [slice(0, 4, None), slice(4, 8, None)]
    >>> _groups([900, 200, 200, 200], 1024)
    [slice(0, 1, None), slice(1, 4, None)]
    """
    runs, low = [], 0
    while low < len(lengths):
        left = len(lengths) - low
        most = max(1, tokens_at_once // max(1, lengths[low]))
        # As many groups as needed, and no smaller last one where lengths are equal.
        size = -(-left // -(-left // most))
        runs.append(slice(low, low + size))
        low += size
    return runs


class ItemStatesEncoder(PreTrainedModel):
    """A text encoder for preferences and a table of precomputed states for items.

    Args:
        config: the shape.
        text_encoder: an encoder that is loaded already; built from `config.text_encoder` when absent.

    Attributes:
        item_states: states of all items, one after the other, half precision where built by `encode_titles`.
            Shape: (M, D).
        first_state: whether a row of the table is an item's first. Shape: (M,), bool.
    """

    config_class = ItemStatesConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: ItemStatesConfig, text_encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if text_encoder is None:
            text_encoder = text_encoder_class(config.text_encoder).from_config(config.text_encoder)
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
        """Set training mode; a frozen text encoder stays in evaluation mode, so that its states never change."""
        super().train(mode)
        if mode and not any(parameter.requires_grad for parameter in self.text_encoder.parameters()):
            self.text_encoder.eval()
        return self

    def set_item_states(self, states: Tensor, first: Tensor) -> None:
        """Replace the state table, as `encode_titles` makes it; a table on disk stays on disk (memory-mapped).

        Args:
            states: Shape: (M, D).
            first: Shape: (M,), bool.

        Raises:
            ValueError: if the shapes do not fit.
        """
        if states.shape != (len(first), self.config.hidden_size):
            raise ValueError(
                f"states have shape {tuple(states.shape)} beside {len(first)} rows; "
                f"expected ({len(first)}, {self.config.hidden_size})"
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
    ) -> BaseModelOutput:
        """States of text and items, where each stands in the input.

        Args:
            input_ids: text tokens, then rows of the state table; padded on the right. Shape: (B, T).
            attention_mask: not needed here: padding is known by its token id. (With `pooled`, the mask keeps the
                decoder from the text positions behind the first, whose states mean nothing.)
            text_states: cached states of the text encoder instead of running it; at least as wide as the longest text.
                Shape: (B, >= text tokens, D).

        Returns:
            Shape: (B, T, D).

        Raises:
            ValueError: if an input names a row that the table lacks, or `text_states` are fewer than the tokens of the
                longest text.
        """
        vocabulary = self.config.text_vocabulary
        text = (input_ids < vocabulary) & (input_ids != self.config.text_encoder.pad_token_id)
        # Both at once: every number that is read from an accelerator waits for it.
        width, last = torch.stack([text.sum(1).max(), input_ids.max().long()]).tolist()
        if last - vocabulary >= len(self.item_states):
            raise ValueError(
                f"input_ids name row {last - vocabulary} of the state table, which has {len(self.item_states)} rows; "
                "for new items and titles, make the table with encode_titles and pass it to set_item_states of this "
                "encoder (docs/serving.md)"
            )
        index = (input_ids - vocabulary).clamp(min=0)
        # Not `self.dtype`: a copy of the model that `nn.DataParallel` makes has weights, but no parameters.
        items = self.item_states[index].to(self.get_input_embeddings().weight.dtype)
        if self.order is not None:
            items = items + self.order(self._places(index, input_ids >= vocabulary))
        if width == 0:
            return BaseModelOutput(last_hidden_state=items)
        if text_states is None:
            texts = input_ids.masked_fill(~text, self.config.text_encoder.pad_token_id)
            text_states = self._encode_texts(texts[:, :width])
        elif text_states.shape[1] < width:
            raise ValueError(
                f"text_states has {text_states.shape[1]} states a text, but input_ids has texts of {width} tokens; "
                "pass the states of all of them"
            )
        text_states = text_states[:, :width]
        if self.config.pooled:
            text_states = mean_pooled(text_states, text[:, :width])[:, None]
        # Texts stand before the items: only that part of the batch is chosen from, place by place.
        ahead = text_states.shape[1]
        front = torch.where(text[:, :ahead, None], text_states.to(items.dtype), items[:, :ahead])
        return BaseModelOutput(last_hidden_state=torch.cat([front, items[:, ahead:]], dim=1))

    def _encode_texts(self, input_ids: Tensor) -> Tensor:
        """States of texts. Where nothing is trained, each distinct text is encoded once, beside others of its length.

        Args:
            input_ids: text tokens, and the text encoder's padding behind them. Shape: (B, T).

        Returns:
            Shape: (B, T, D).
        """

        def encode(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

        padding = self.config.text_encoder.pad_token_id
        if torch.is_grad_enabled():
            return encode(input_ids, (input_ids != padding).long())
        # On the CPU: not every accelerator has this operation, and there is little of it.
        distinct, place = input_ids.cpu().unique(dim=0, return_inverse=True)
        distinct = distinct.to(input_ids.device)
        return encode_in_groups(encode, distinct, (distinct != padding).long())[place.to(input_ids.device)]

    def _places(self, index: Tensor, is_item: Tensor) -> Tensor:
        """Place of each state's item in the history, the latest 0. Shape: (B, T)."""
        starts = (self.first_state[index] & is_item).long()
        later = starts.flip(1).cumsum(1).flip(1) - starts
        return later.clamp(max=self.config.max_history - 1)


def mean_pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of the states of each text, of unit length. Shape: (B, D)."""
    mask = mask[..., None].to(states.dtype)
    return functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1)


def text_encoder_class(config: Any) -> type:
    """The Auto class that gives an encoder alone: T5's would otherwise bring its decoder."""
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
    """The state table of a catalogue: every title through the encoder once, in batches of like length.

    Args:
        encoder: a text encoder.
        titles: token ids of each item's title, special tokens included.
        pooled: one mean vector per title instead of one state per token.
        inner: special tokens before and after a title, whose states are left out (they count towards the mean).
        tokens_per_batch: tokens in a batch, padding included.

    Returns:
        States of shape (M, D), float16, in the order of the items, and whether each is its item's first, (M,).
    """
    lengths = torch.tensor([len(ids) for ids in titles])
    before, after = inner
    kept = torch.ones_like(lengths) if pooled else lengths - before - after
    starts = kept.cumsum(0) - kept
    table = torch.zeros(int(kept.sum()), encoder.config.hidden_size, dtype=torch.float16)
    size = max(1, tokens_per_batch // int(lengths.max()))
    training = encoder.training
    encoder.eval()
    for batch in lengths.argsort(stable=True).split(size):
        ids = nn.utils.rnn.pad_sequence([torch.tensor(titles[row]) for row in batch.tolist()], batch_first=True)
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
    """How often a tensor was written to in place; tensors made in inference mode do not count that."""
    return 0 if tensor.is_inference() else tensor._version
