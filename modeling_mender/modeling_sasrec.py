"""SASRec: self-attention over item ids, the standard sequential baseline, which does not read preferences.

Kang & McAuley 2018 (arXiv:1808.09781), trained with its strongest objective: cross-entropy over the whole catalogue at
every position of a sequence instead of one sampled negative (Klenitskiy & Vasilev 2023, arXiv:2309.07602), with dropout
and tied item embeddings. For large catalogues, `num_negatives` items are sampled uniformly and shared by a batch;
uniform sampling needs no logQ correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_mender import CarriesCode, check_sizes, check_whole_numbers, checked_removed
from .item_scoring import ItemScoringModel
from .module_weights import is_its_weight

__all__ = ["SasRecConfig", "SasRecForSequentialRecommendation"]


class SasRecConfig(CarriesCode, PreTrainedConfig):
    """Sizes of a `SasRecForSequentialRecommendation`.

    Args:
        num_items: N.
        hidden_size: width.
        num_layers: transformer blocks.
        num_heads: attention heads; must divide the width.
        max_history: positions, counted from the latest item; earlier items are ignored.
        dropout: dropout rate of embeddings, attention and feed-forward layers.
        num_negatives: items sampled per batch as negatives; 0 uses the whole catalogue.
        removed_items: indices of items that are not recommended any more.

    Raises:
        ValueError: if a size is out of range, or the heads do not divide the width.
    """

    model_type = "mender_sasrec"
    model_code = "modeling_sasrec.SasRecForSequentialRecommendation"

    def __init__(
        self,
        num_items: int = 1,
        hidden_size: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        max_history: int = 20,
        dropout: float = 0.3,
        num_negatives: int = 0,
        removed_items: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        sizes = {"num_items": num_items, "hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
        check_whole_numbers(**sizes, max_history=max_history)
        if hidden_size % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide hidden_size={hidden_size}")
        self.num_items, self.hidden_size = num_items, hidden_size
        self.num_layers, self.num_heads = num_layers, num_heads
        self.max_history, self.dropout, self.num_negatives = max_history, dropout, num_negatives
        self.removed_items = checked_removed(removed_items, num_items)
        super().__init__(**kwargs)
        check_sizes(self.to_dict())


class SasRecForSequentialRecommendation(ItemScoringModel):
    """Item embeddings, causal self-attention blocks, and scores by the same item embeddings.

    Inputs are those of `MenderProcessor(history="indices")`: a start token, then item index + 1; 0 pads on the right.
    """

    config_class = SasRecConfig

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.items = nn.Embedding(config.num_items + 2, width, padding_idx=0)
        self.positions = nn.Embedding(config.max_history + 1, width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                init.zeros_(module.weight[module.padding_idx])
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        """Item embeddings."""
        return self.items

    def item_indices(self, labels: Tensor) -> Tensor:
        """The last item index of each sequence of labels. Shape: (B, T) -> (B,)."""
        position = torch.arange(labels.shape[1], device=labels.device)
        last = torch.where(labels != -100, position, -1).max(dim=1).values
        return labels.gather(1, last.clamp(min=0)[:, None]).squeeze(1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Scores of all items, and the cross-entropy of `labels`.

        Args:
            input_ids: start token and item indices + 1, padded with 0 on the right. Shape: (B, T).
            attention_mask: not used, padding is 0.
            labels: the index of the next item at every position, with -100 for positions to ignore, (B, T); or only at
                the last position, (B, 1).
            num_items_in_batch: number of labels in the whole batch, with gradient accumulation.

        Returns:
            `loss`, and as `logits` the scores at the last position. Shape: (B, N).
        """
        hidden = self._hidden(input_ids)
        last = hidden.gather(1, self._last(input_ids)[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)
        loss = None
        if labels is not None:
            at_labels = last[:, None] if labels.shape[1] == 1 else hidden
            loss = self._loss(at_labels[labels != -100], labels[labels != -100], num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=last @ self._item_vectors(last.device).T)

    def scores(self, input_ids: Tensor) -> Tensor:
        """Log-probabilities of all items to be the next one, without dropout. Shape: (B, N)."""
        training = self.training
        self.eval()
        logits = self(input_ids).logits
        self.train(training)
        return logits.float().log_softmax(-1)

    def _item_vectors(self, device: torch.device) -> Tensor:
        if is_its_weight(self.items):
            return self.items.weight[1 : self.config.num_items + 1]
        return self.items(torch.arange(1, self.config.num_items + 1, device=device))  # adapted, quantised, offloaded

    @staticmethod
    def _last(input_ids: Tensor) -> Tensor:
        return (input_ids != 0).sum(1).clamp(min=1) - 1

    def _hidden(self, input_ids: Tensor) -> Tensor:
        if input_ids.shape[1] > self.config.max_history + 1:
            raise ValueError(
                f"a history has {input_ids.shape[1] - 1} items, but max_history={self.config.max_history}; "
                "use a processor with the same max_history"
            )
        # The latest item is at position 0, whatever the length of the history.
        position = (self._last(input_ids)[:, None] - torch.arange(input_ids.shape[1], device=input_ids.device)).clamp(0)
        hidden = self.dropout(self.items(input_ids) * self.config.hidden_size**0.5 + self.positions(position))
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)

    def _loss(self, hidden: Tensor, targets: Tensor, count: int | Tensor | None) -> Tensor:
        vectors = self._item_vectors(hidden.device)
        negatives = self.config.num_negatives
        if negatives and self.training and negatives < len(vectors):
            sampled = torch.randint(len(vectors), (negatives,), device=hidden.device)
            own = (hidden * vectors[targets]).sum(-1, keepdim=True)
            others = (hidden @ vectors[sampled].T).masked_fill(sampled == targets[:, None], -torch.inf)
            logits, targets = torch.cat([own, others], dim=1), torch.zeros_like(targets)
        else:
            logits = hidden @ vectors.T
        loss = functional.cross_entropy(logits.float(), targets, reduction="mean" if count is None else "sum")
        return loss if count is None else loss / count


class _Block(nn.Module):
    """Pre-norm causal self-attention and feed-forward layer. Being causal, it ignores padding on the right."""

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads, self.rate = config.num_heads, config.dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        users, length, width = hidden.shape
        qkv = self.qkv(self.attention_norm(hidden)).view(users, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(*qkv, is_causal=True, dropout_p=rate)
        hidden = hidden + self.dropout(self.out(mixed.transpose(1, 2).reshape(users, length, width)))
        inner = self.dropout(functional.gelu(self.up(self.feed_norm(hidden))))
        return hidden + self.dropout(self.down(inner))
