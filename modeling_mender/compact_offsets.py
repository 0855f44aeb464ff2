"""Where the children of each node begin, in two bytes a node.

The offsets of a prefix tree never decrease, and neighbours differ by a handful: one full number for every 128 of them
and a 16-bit distance for each say the same in half the memory. Lists that are short, or too steep, stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["CompactOffsets"]

BLOCK_BITS = 7
WORTH_COMPACTING = 2**16


class CompactOffsets:
    """A non-decreasing list of whole numbers, read by index.

    Args:
        values: the numbers, at least one. Shape: (M,), int64.

    >>> offsets = CompactOffsets(torch.arange(100_000) // 3)
    >>> offsets[torch.tensor([0, 99_999])], offsets.nbytes / len(offsets) < 2.1
    (tensor([    0, 33333]), True)
    """

    def __init__(self, values: Tensor) -> None:
        self._length = len(values)
        self._base: Tensor | None = None
        wide = torch.int32 if int(values[-1]) < 2**31 else torch.int64
        if len(values) >= WORTH_COMPACTING:
            block = 1 << BLOCK_BITS
            padded = functional.pad(values, (0, -len(values) % block), value=int(values[-1])).view(-1, block)
            steps = padded - padded[:, :1]
            if int(steps[:, -1].max()) < 2**15:
                self._base = padded[:, 0].to(wide)
                self._offset = steps.to(torch.int16).view(-1)
                return
        self._offset = values.to(wide)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Tensor) -> Tensor:
        """The numbers at these places, int64."""
        offset = self._offset[index].long()
        return offset if self._base is None else offset + self._base[index >> BLOCK_BITS]

    @property
    def nbytes(self) -> int:
        """Memory of the list."""
        return self._offset.nbytes + (0 if self._base is None else self._base.nbytes)

    def to(self, device: torch.device | str) -> CompactOffsets:
        """The same list on another device."""
        moved = object.__new__(CompactOffsets)
        moved._length, moved._offset = self._length, self._offset.to(device)
        moved._base = None if self._base is None else self._base.to(device)
        return moved
