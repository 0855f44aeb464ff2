"""Labels of item rows, from a copy of the model's item table in main memory.

A collator may run in worker processes, which cannot read from a GPU, and in the main process every question to a GPU
waits for the work before it. So the table is copied once, and again when the model has another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from transformers import PreTrainedModel

from .modeling_mender import tokens_of_rows, version_of

__all__ = ["ItemLabels"]


class ItemLabels:
    """What a model's `item_tokens` gives, on the CPU, and -100 for rows below 0.

    Models whose labels are the rows themselves (`ItemScoringModel`) have no table, and none is kept.

    Args:
        model: owner of the item table.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._source: Tensor | None = None
        self._version = 0
        self._codes: Tensor | None = None
        self.refresh(model)

    def refresh(self, model: PreTrainedModel) -> None:
        """Copy the table anew if the model has another one, or the same one on another device.

        Args:
            model: owner of the item table.

        Raises:
            RuntimeError: in a worker process, if the table is not in main memory.
        """
        table = getattr(model, "item_codes", None)
        if table is None or (table is self._source and version_of(table) == self._version):
            return
        if get_worker_info() is not None and table.device.type != "cpu":
            raise RuntimeError(
                f"the item table on {table.device} is not the one that labels were copied from, and a worker process "
                "cannot read it; make the collator once the model is on its device and has its catalogue, or set "
                "num_workers=0"
            )
        self._source, self._version, self._codes = table, version_of(table), table.detach().cpu()

    def of(self, rows: Sequence[int], model: PreTrainedModel) -> Tensor:
        """Labels of items.

        Args:
            rows: item rows, below 0 where there is no item. Length B.
            model: owner of the item table.

        Returns:
            Shape: (B, L), int64.

        Raises:
            IndexError: if a row is not in the catalogue.
            RuntimeError: see `refresh`.
        """
        self.refresh(model)
        items = torch.tensor(rows)
        chosen = items.clamp(min=0)
        if self._codes is None:
            labels = model.item_tokens(chosen).cpu()
        else:
            labels = tokens_of_rows(chosen, self._codes, model.config.codebook_sizes)
        return labels.masked_fill((items < 0).view(-1, *[1] * (labels.dim() - 1)), -100)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A pickled table counts its versions anew."""
        self.__dict__.update(state)
        self._version = 0 if self._source is None else version_of(self._source)
