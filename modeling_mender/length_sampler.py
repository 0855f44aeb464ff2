"""Batches of examples of like length, in an order that depends on seed and epoch alone.

Padding every input to one length is the largest waste in training language encoders (section 5 of the paper's code pads
to 512). Here examples are shuffled, cut into large chunks, and sorted by length within each, so that a batch pads by a
token or two; the batches themselves are shuffled again. The Trainer's own grouping draws from the global random state;
this one does not, so that an interrupted run continues with exactly the batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["EpochSetter", "LengthSampler", "length_grouped_order"]


def length_grouped_order(
    lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, epoch: int, batches_per_chunk: int = 50
) -> np.ndarray:
    """A permutation of the examples in which consecutive batches hold examples of like length.

    Args:
        lengths: tokens of every example. Shape: (N,).
        batch_size: examples per batch.
        seed: of all draws.
        epoch: gives every epoch an order of its own.
        batches_per_chunk: batches whose examples are sorted together; more means less padding and less chance.

    >>> order = length_grouped_order([5, 1, 5, 1], batch_size=2, seed=0, epoch=0)
    >>> {frozenset(batch) for batch in order.reshape(2, 2).tolist()} == {frozenset({0, 2}), frozenset({1, 3})}
    True
    """
    lengths = np.asarray(lengths)
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    # By chunk, then by length; the sort is stable, so that ties keep the order of the shuffle.
    chunk = np.arange(len(order)) // (batch_size * batches_per_chunk)
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
    """Tells a sampler the epoch before batches are drawn.

    The Trainer does so by way of its data loader. But where several processes go on in the middle of an epoch, the
    loader skips batches around each process's share of the batches, and the sampler below both is not reached.

    Args:
        sampler: of the training.
    """

    def __init__(self, sampler: LengthSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Set the epoch: the whole part of `state.epoch`, which is fractional in the middle of one."""
        self.sampler.set_epoch(int(state.epoch))
