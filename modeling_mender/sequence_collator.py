"""Batches of whole sequences for SASRec, and of single targets for its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from .trainer import MenderCollator

__all__ = ["SequenceCollator"]


class SequenceCollator(MenderCollator):
    """As `MenderCollator`; features with `labels` of their own keep them, one per position."""

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: `input_ids`, `attention_mask` (B, T), and `labels` (B, T), or (B, 1) in evaluation."""
        if "labels" not in features[0]:
            return super().__call__(features)
        inputs = [feature["input_ids"] for feature in features]
        labels = [torch.tensor(feature["labels"]) for feature in features]
        return {
            "input_ids": self.processor.pad(inputs),
            "attention_mask": self.processor.memory_mask(inputs),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        }
