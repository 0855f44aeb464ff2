"""States of a frozen encoder, computed once and read from a memory-mapped file ever after.

A frozen encoder gives the same states in every epoch; training then costs only the decoder. States are kept in half
precision, one block per distinct input, without padding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

__all__ = ["EncoderStates"]


class EncoderStates:
    """Encoder states by token ids.

    Args:
        inputs: distinct inputs, as token ids.
        table: the states of all inputs, one after the other. Shape: (tokens, D), float16.

    >>> table = np.arange(6, dtype=np.float16).reshape(3, 2)
    >>> EncoderStates([[7, 8], [9]], table)[[9]]
    tensor([[4., 5.]])
    """

    def __init__(self, inputs: Sequence[Sequence[int]], table: np.ndarray) -> None:
        ends = np.cumsum([len(ids) for ids in inputs])
        self._span = {_key(ids): (int(end) - len(ids), int(end)) for ids, end in zip(inputs, ends, strict=True)}
        self._table = table

    def __len__(self) -> int:
        return len(self._span)

    def __contains__(self, input_ids: Sequence[int]) -> bool:
        return _key(input_ids) in self._span

    def __getitem__(self, input_ids: Sequence[int]) -> Tensor:
        """States of one input. Shape: (T, D), float32.

        Raises:
            KeyError: if the input was not among those encoded.
        """
        try:
            start, end = self._span[_key(input_ids)]
        except KeyError:
            raise KeyError(
                f"no cached encoder states for an input of {len(input_ids)} tokens; build EncoderStates over all inputs"
            ) from None
        return torch.from_numpy(self._table[start:end].astype(np.float32))

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        model: PreTrainedModel,
        inputs: Iterable[Sequence[int]],
        path: str | os.PathLike,
        *,
        tokens_per_batch: int = 8192,
        dtype: torch.dtype | None = None,
    ) -> EncoderStates:
        """Encode every distinct input once, in batches of like length.

        Args:
            model: a Mender with a frozen encoder.
            inputs: token ids of the inputs; repetitions are free.
            path: file for the states; written beside it first and renamed when complete.
            tokens_per_batch: tokens in a batch, padding included.
            dtype: precision in which the encoder runs; bfloat16 is about twice as fast where processors support it.

        Raises:
            ValueError: if the encoder is being trained: its states would go stale.
        """
        if any(parameter.requires_grad for parameter in model.encoder.parameters()):
            raise ValueError("the encoder is being trained, so cached states would go stale; freeze it first")
        distinct = sorted({tuple(ids) for ids in inputs}, key=lambda ids: (len(ids), ids))
        if not distinct:
            raise ValueError("no inputs to encode")
        width = model.config.encoder.hidden_size
        total = sum(map(len, distinct))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".tmp")
        table = np.memmap(unfinished, dtype=np.float16, mode="w+", shape=(total, width))
        device, written, start = model.item_codes.device, 0, 0
        training = model.encoder.training
        model.encoder.eval()
        with tqdm(total=len(distinct), desc="Encoding inputs", unit="input") as progress:
            while start < len(distinct):
                size = max(1, tokens_per_batch // len(distinct[start]))
                batch = distinct[start : start + size]
                lengths = torch.tensor([len(ids) for ids in batch])
                input_ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in batch], batch_first=True)
                mask = torch.arange(input_ids.shape[1]) < lengths[:, None]
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    states = model.encoder(
                        input_ids=input_ids.to(device), attention_mask=mask.long().to(device)
                    ).last_hidden_state
                flat = states.cpu()[mask].to(torch.float16).numpy()
                table[written : written + len(flat)] = flat
                written += len(flat)
                start += len(batch)
                progress.update(len(batch))
        model.encoder.train(training)
        table.flush()
        unfinished.replace(path)
        return cls(distinct, np.memmap(path, dtype=np.float16, mode="r", shape=(total, width)))


def _key(input_ids: Sequence[int]) -> bytes:
    """Compact dictionary key of token ids."""
    return np.asarray(input_ids, dtype=np.int32).tobytes()
