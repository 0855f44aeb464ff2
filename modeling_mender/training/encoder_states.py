"""States of a frozen encoder, computed once and read from a memory-mapped file ever after.

A frozen encoder gives the same states in every epoch; training then costs only the decoder. States are kept in half
precision, one block per distinct input, without padding. A file is used again, by later runs as well, as long as
encoder and inputs are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..configuration_mender import atomic_write

__all__ = [
    "EncoderStates",
]


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

    @property
    def width(self) -> int:
        """D, the width of the states."""
        return self._table.shape[1]

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        model: PreTrainedModel,
        inputs: Iterable[Sequence[int]],
        path: str | os.PathLike,
        *,
        tokens_per_batch: int = 8192,
    ) -> EncoderStates:
        """Encode every distinct input once, in batches of similar length, or open the file of an earlier run.

        Args:
            model: a model with a frozen encoder. Of an `ItemStatesEncoder`, the text encoder is run, on the text part
                of inputs (`MenderProcessor.text_part`).
            inputs: token ids of the inputs; repetitions are free.
            path: file for the states, or a folder where the file is named after encoder and inputs, so that runs share
                it; written beside it first and renamed when complete.
            tokens_per_batch: tokens in a batch, padding included.

        Raises:
            ValueError: if the encoder is being trained: its states would go stale.
        """
        encoder = getattr(model.encoder, "text_encoder", model.encoder)
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            raise ValueError("the encoder is being trained, so cached states would become outdated; freeze it first")
        distinct = sorted({tuple(ids) for ids in inputs if len(ids)}, key=lambda ids: (len(ids), ids))
        if not distinct:
            raise ValueError("no inputs to encode")
        path = Path(path)
        made_from = {
            "encoder": _digest_of_weights(encoder),
            "inputs": hashlib.sha256(b"".join(_key(ids) + b"," for ids in distinct)).hexdigest(),
        }
        if path.is_dir():
            path = path / f"{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]}.states"
        record = path.with_name(path.name + ".json")
        if not (record.is_file() and path.is_file() and json.loads(record.read_text("utf-8")) == made_from):
            record.unlink(missing_ok=True)
            with atomic_write(path) as unfinished:
                _encode_to_file(encoder, distinct, unfinished, tokens_per_batch)
            with atomic_write(record) as unfinished:
                unfinished.write_text(json.dumps(made_from), "utf-8")
        shape = (sum(map(len, distinct)), encoder.config.hidden_size)
        return cls(distinct, np.memmap(path, dtype=np.float16, mode="r", shape=shape))


def _encode_to_file(
    encoder: PreTrainedModel,
    distinct: Sequence[Sequence[int]],
    path: Path,
    tokens_per_batch: int,
) -> None:
    shape = (sum(map(len, distinct)), encoder.config.hidden_size)
    table = np.memmap(path, dtype=np.float16, mode="w+", shape=shape)
    device, written, start = encoder.device, 0, 0
    training = encoder.training
    encoder.eval()
    with tqdm(total=len(distinct), desc="Encoding inputs", unit="input") as progress:
        while start < len(distinct):
            size = max(1, tokens_per_batch // len(distinct[start]))
            batch = distinct[start : start + size]
            lengths = torch.tensor([len(ids) for ids in batch])
            input_ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in batch], batch_first=True)
            mask = torch.arange(input_ids.shape[1]) < lengths[:, None]
            states = encoder(input_ids=input_ids.to(device), attention_mask=mask.long().to(device))
            flat = states.last_hidden_state.cpu()[mask].to(torch.float16).numpy()
            table[written : written + len(flat)] = flat
            written += len(flat)
            start += len(batch)
            progress.update(len(batch))
    encoder.train(training)
    table.flush()


def _digest_of_weights(encoder: PreTrainedModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _key(input_ids: Sequence[int]) -> bytes:
    """Compact dictionary key of token ids."""
    return np.asarray(input_ids, dtype=np.int32).tobytes()
