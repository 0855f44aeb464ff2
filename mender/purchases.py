"""What each user bought: from a benchmark, and as tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import DatasetDict
from torch import Tensor

from modeling_mender.training.data import training_purchases

__all__ = ["purchases_of", "read_purchases", "write_purchases"]


def purchases_of(examples: DatasetDict, processor: Any) -> dict[str, list[int]]:
    """Item indices that each user bought in the training period, oldest first; empty without user ids.

    Args:
        examples: `train` and `validation` splits.
        processor: knows the items.
    """
    table = training_purchases(examples["train"], examples.get("validation"))
    if "user_id" not in examples["train"].column_names:
        return {}
    return {user: processor.item_indices(items) for user, items in table.iter_rows()}


def write_purchases(purchases: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Purchases as tensors: user ids as bytes, with the length of each, and items with the number of each user."""
    ids = [user.encode() for user in purchases]
    return {
        "users": torch.tensor(list(b"".join(ids)), dtype=torch.uint8),
        "user_bytes": torch.tensor([len(user) for user in ids], dtype=torch.int64),
        "items": torch.tensor([item for own in purchases.values() for item in own], dtype=torch.int64),
        "counts": torch.tensor([len(own) for own in purchases.values()], dtype=torch.int64),
    }


def read_purchases(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The inverse of `write_purchases`."""
    if not tensors:
        return {}
    text, found, end = bytes(tensors["users"].tolist()), {}, 0
    items = iter(tensors["items"].tolist())
    for width, count in zip(tensors["user_bytes"].tolist(), tensors["counts"].tolist(), strict=True):
        found[text[end : end + width].decode()] = [next(items) for _ in range(count)]
        end += width
    return found
