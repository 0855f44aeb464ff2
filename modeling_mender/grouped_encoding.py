"""Encoding a batch of texts in groups that a processor's cache holds.

A long batch sends every intermediate result of an encoder through main memory; on a CPU, a thousand tokens at a time
are faster than all at once (measured by `benchmarks/retrieval.py`). Texts of similar length share a group, so one long
text does not make the others as long.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["encode_in_groups"]

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
