"""Batches: examples of similar length together, padded, with the labels of their targets.

Padding all inputs to one length wastes most of the time of training a language encoder (the paper's code pads to 512).
Here examples are shuffled, divided into large chunks and sorted by length within each chunk, so that batches need
little padding; then the batches are shuffled. Unlike the Trainer's own grouping, this order only depends on seed and
epoch, so that a resumed run continues with exactly the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler, get_worker_info
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..catalogue import tokens_of_items
from ..item_states import version_of
from ..processing_mender import MenderProcessor
from .data import FOR_EXPERTS
from .encoder_states import EncoderStates

__all__ = [
    "EpochSetter",
    "ItemLabels",
    "LengthSampler",
    "MenderCollator",
    "SequenceCollator",
    "UserCollator",
    "length_grouped_order",
]

BATCHES_PER_CHUNK = 50
"""Batches whose examples are sorted together; more means less padding and less chance."""


def length_grouped_order(lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the examples in which consecutive batches hold examples of similar length.

    Args:
        lengths: tokens of every example. Shape: (N,).
        batch_size: examples per batch.
        seed: of all draws.
        epoch: gives every epoch an order of its own.

    >>> order = length_grouped_order([5, 1, 5, 1], batch_size=2, seed=0, epoch=0)
    >>> {frozenset(batch) for batch in order.reshape(2, 2).tolist()} == {frozenset({0, 2}), frozenset({1, 3})}
    True
    """
    lengths = np.asarray(lengths)
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    # By chunk, then by length; the sort is stable, so that ties keep the order of the shuffle.
    chunk = np.arange(len(order)) // (batch_size * BATCHES_PER_CHUNK)
    order = order[np.lexsort([lengths[order], chunk])]
    whole = len(order) // batch_size * batch_size
    batches = order[:whole].reshape(-1, batch_size)
    batches = batches[generator.permutation(len(batches))]
    # The incomplete batch stays last: only there may a batch be short.
    return np.concatenate([batches.reshape(-1), order[whole:]])


class LengthSampler(Sampler[int]):
    """A sampler over `length_grouped_order`; `set_epoch` moves it on, as the Trainer does.

    Args:
        lengths: tokens of every example.
        batch_size: examples per batch, over all processes and accumulation steps.
        seed: of all draws.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(length_grouped_order(self.lengths, self.batch_size, self.seed, self.epoch).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Use the order of this epoch."""
        self.epoch = epoch


class EpochSetter(TrainerCallback):
    """Sets the epoch of a sampler at the beginning of each epoch.

    The Trainer does this through its data loader, but does not reach the sampler if several processes resume in the
    middle of an epoch.

    Args:
        sampler: the sampler of the training examples.
    """

    def __init__(self, sampler: LengthSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Set the epoch: the whole part of `state.epoch`, which is fractional in the middle of one."""
        self.sampler.set_epoch(int(state.epoch))


class ItemLabels:
    """Labels of items, as from the model's `item_tokens`, from a copy of its item table in main memory.

    A collator may run in worker processes, which cannot read from a GPU, and in the main process each read from a GPU
    waits for its pending work. So the table is copied once, and again if the model gets a new table. Models whose
    labels are item indices (`ItemScoringModel`) have no table.

    Args:
        model: the model with the item table.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._source: Tensor | None = None
        self._version = 0
        self._codes: Tensor | None = None
        self.refresh(model)

    def refresh(self, model: PreTrainedModel) -> None:
        """Copy the table again if the model has a new one, or the same one on another device.

        Args:
            model: the model with the item table.

        Raises:
            RuntimeError: in a worker process, if the table is not in main memory.
        """
        table = getattr(model, "item_codes", None)
        if table is None or (table is self._source and version_of(table) == self._version):
            return
        if get_worker_info() is not None and table.device.type != "cpu":
            raise RuntimeError(
                f"the item table on {table.device} is not the one that labels were copied from, and a worker process "
                "cannot read it; create the collator after the model is on its device and has its catalogue, or set "
                "num_workers=0"
            )
        self._source, self._version, self._codes = table, version_of(table), table.detach().cpu()

    def of(self, item_indices: Sequence[int] | Tensor, model: PreTrainedModel) -> Tensor:
        """Labels of items; -100 where an index is below 0.

        Args:
            item_indices: item indices, a list or a tensor. Shape: (...).
            model: the model with the item table.

        Returns:
            Shape: (..., L), int64.

        Raises:
            IndexError: if an item is not in the catalogue.
            RuntimeError: see `refresh`.
        """
        self.refresh(model)
        items = torch.as_tensor(item_indices)
        chosen = items.clamp(min=0)
        if self._codes is None:
            labels = model.item_tokens(chosen).cpu()
        else:
            labels = tokens_of_items(chosen, self._codes, model.config.codebook_sizes)
        return labels.masked_fill((items < 0).view(*items.shape, *[1] * (labels.dim() - items.dim())), -100)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state in a worker process, where the version counter of the table starts again at 0."""
        self.__dict__.update(state)
        self._version = 0 if self._source is None else version_of(self._source)


@dataclass
class MenderCollator:
    """Pads features to the longest of the batch and looks up the labels of their targets.

    Args:
        processor: the processor of the model.
        model: the model with the item table; labels equal its `item_tokens` and come from a copy on the CPU.
        states: cached encoder states by token ids. With them, batches have `encoder_outputs` instead of `input_ids`,
            or `text_states` in addition to `input_ids` for an `ItemStatesEncoder`.
        exclude_seen: whether batches have the items of each history, so that evaluation does not recommend them.
    """

    processor: MenderProcessor
    model: PreTrainedModel
    states: EncoderStates | None = None
    exclude_seen: bool = False
    item_labels: ItemLabels = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.item_labels = ItemLabels(self.model)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch with `input_ids` or `encoder_outputs`, `attention_mask` (B, T), `labels` (B, L), perhaps others.

        `negative` (B,) if the item of an example must not be recommended; `text_labels` (B, T) if an example is trained
        on text (its `item` is then -1); `exclude` (B, H) with `exclude_seen`.
        """
        inputs = [feature["input_ids"] for feature in features]
        labels = self.item_labels.of([feature["item"] for feature in features], self.model)
        batch: dict[str, Any] = {"attention_mask": self.processor.memory_mask(inputs), "labels": labels}
        if self.states is None or self.processor.history in ("states", "vectors"):
            batch["input_ids"] = self.processor.pad(inputs)
        if self.states is not None:
            texts = [self.processor.text_part(ids) for ids in inputs]
            nothing = torch.zeros(0, self.states.width)
            states = pad_sequence([self.states[ids] if ids else nothing for ids in texts], batch_first=True)
            batch |= {"text_states": states} if "input_ids" in batch else {"encoder_outputs": (states,)}
        if self.processor.experts:
            read = self.processor.collate(features)
            batch |= {name: read[name] for name in FOR_EXPERTS if name in read}
        if getattr(self.model, "reads_kind", False):
            batch["kind"] = torch.tensor([feature["kind"] for feature in features])
        if any(feature.get("negative") for feature in features):
            batch["negative"] = torch.tensor([bool(feature["negative"]) for feature in features])
        if any(feature.get("text_labels") for feature in features):
            texts = [torch.tensor(feature["text_labels"] or [-100], dtype=torch.long) for feature in features]
            labels = pad_sequence(texts, batch_first=True, padding_value=-100)
            missing = batch["attention_mask"].shape[1] - labels.shape[1]
            batch["text_labels"] = torch.nn.functional.pad(labels, (0, missing), value=-100)
        if self.exclude_seen:
            seen = [torch.tensor(feature["seen"], dtype=torch.long) for feature in features]
            batch["exclude"] = pad_sequence(seen, batch_first=True, padding_value=-1)
        return batch


class SequenceCollator(MenderCollator):
    """Like `MenderCollator`, but features may have their own `labels`, one per position."""

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


class UserCollator(MenderCollator):
    """Like `MenderCollator`, but features may have several `targets` and their `target_positions`."""

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: `input_ids`, `attention_mask` (B, T), and `labels` (B, L); of several targets (B, S, L).

        With these, `target_positions` (B, S); where a user has fewer than S, the labels are -100.
        """
        if "targets" not in features[0]:
            return super().__call__(features)
        inputs = [feature["input_ids"] for feature in features]
        targets, positions = (
            pad_sequence([torch.tensor(feature[name]) for feature in features], batch_first=True, padding_value=padding)
            for name, padding in (("targets", -1), ("target_positions", 1))
        )
        return {
            "input_ids": self.processor.pad(inputs),
            "attention_mask": self.processor.memory_mask(inputs),
            "labels": self.item_labels.of(targets, self.model),
            "target_positions": positions,
        }
