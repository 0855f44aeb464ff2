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


def read_purchases(tensors: Mapping[str, Tensor], num_items: int) -> dict[str, list[int]]:
    """The inverse of `write_purchases`.

    Args:
        tensors: those of the file; empty if there is none.
        num_items: N.

    Raises:
        ValueError: if the tensors do not fit together, or name an item that is not there.
    """
    if not tensors:
        return {}
    parts = [tensors.get(name) for name in ("users", "user_bytes", "items", "counts")]
    if any(part is None or part.dim() != 1 or part.is_floating_point() or part.is_complex() for part in parts):
        raise ValueError("it lacks a list of whole numbers")
    users, widths, items, counts = (part.tolist() for part in parts)
    if len(widths) != len(counts) or min(*widths, *counts, 0) < 0 or sum(widths) != len(users):
        raise ValueError("its lists do not fit together")
    if sum(counts) != len(items) or not all(0 <= item < num_items for item in items):
        raise ValueError("it has items that are not in items.json")
    text, found, end, place = bytes(users), {}, 0, 0
    for width, count in zip(widths, counts, strict=True):
        found[text[end : end + width].decode()] = items[place : place + count]
        end, place = end + width, place + count
    if len(found) < len(widths):
        raise ValueError("it has a user twice")
    return found
