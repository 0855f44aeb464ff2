"""What a method trains on: axes by name and weight, negatives or not, one sequence per user for SASRec.

The benchmark's train split holds all axes; the paper's data augmentation (arXiv:2412.08604) is the choice among them.
Examples of your own need the columns `preferences`, `history` and `target` (or `targets`) alone.

Labels of item indices, from a copy of the model's item table in main memory.

A collator may run in worker processes, which cannot read from a GPU, and in the main process every question to a GPU
waits for the work before it. So the table is copied once, and again when the model has another one.

Batches of examples of like length, in an order that depends on seed and epoch alone.

Padding every input to one length is the largest waste in training language encoders (section 5 of the paper's code pads
to 512). Here examples are shuffled, cut into large chunks, and sorted by length within each, so that a batch pads by a
token or two; the batches themselves are shuffled again. The Trainer's own grouping draws from the global random state;
this one does not, so that an interrupted run continues with exactly the batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Sampler, get_worker_info
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..configuration_mender import KINDS
from ..modeling_mender import tokens_of_items, version_of
from ..processing_mender import MenderProcessor

__all__ = [
    "AXES",
    "EpochSetter",
    "ItemLabels",
    "LengthSampler",
    "bought_in_training",
    "example_column",
    "first_targets",
    "kinds_of",
    "length_grouped_order",
    "repeated",
    "select_axes",
    "sequence_features",
    "training_histories",
]


AXES = (
    "recommendation",
    "fine_grained_steering",
    "coarse_grained_steering",
    "sentiment_following",
    "history_consolidation",
    "sentiment_following_with_history",
)
"""Axes of the benchmark."""

DEFAULTS = {
    "axis": "recommendation",
    "kind": "stated",
    "user_id": "",
    "avoid": (),
    "sentiment": "positive",
    "pair_id": -1,
    "stratum": "",
    "avoided": (),
}
"""What an example says in the columns that a data set lacks."""


def example_column(examples: datasets.Dataset | Mapping[str, list], name: str) -> list[Any]:
    """A column of examples, or its default value for every example.

    Args:
        examples: a data set, or a batch of one.
        name: `targets` is made of `target` where examples have one each.

    Raises:
        ValueError: if the column is missing and has no default.

    >>> example_column({"history": [["tea"]], "target": ["mug"]}, "targets")
    [['mug']]
    >>> example_column({"history": [["tea"], []]}, "axis")
    ['recommendation', 'recommendation']
    """
    names = examples.column_names if isinstance(examples, datasets.Dataset) else list(examples)
    if name in names:
        return list(examples[name][:])
    if name == "targets" and "target" in names:
        return [[target] for target in examples["target"][:]]
    if name not in DEFAULTS:
        raise ValueError(
            f"the examples lack the column {name!r}, they have {', '.join(names)}; required are preferences, history "
            "and target (or targets)"
        )
    return [DEFAULTS[name]] * (len(examples[names[0]]) if names else 0)


def kinds_of(examples: datasets.Dataset | Mapping[str, list]) -> list[int]:
    """The kind of every request as an index in `KINDS`; without a preference it is silent.

    Raises:
        ValueError: if a kind is unknown.

    >>> kinds_of({"preferences": [["Find tea"], []], "history": [["mug"], ["mug"]]})
    [0, 2]
    """
    found = []
    for kind, texts in zip(example_column(examples, "kind"), example_column(examples, "preferences"), strict=True):
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} of an example is not known; pass one of {', '.join(KINDS)}")
        found.append(KINDS.index(kind if any(texts) else "silent"))
    return found


def first_targets(examples: datasets.Dataset | Mapping[str, list]) -> list[str]:
    """The first target of every example: the item it is trained on.

    Raises:
        ValueError: if an example has no target.
    """
    targets = example_column(examples, "targets")
    if not all(targets):
        raise ValueError(f"example {[bool(found) for found in targets].index(False)} has no target; leave it out")
    return [found[0] for found in targets]


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
            rows: item indices, below 0 where there is no item. Length B.
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
            labels = tokens_of_items(chosen, self._codes, model.config.codebook_sizes)
        return labels.masked_fill((items < 0).view(-1, *[1] * (labels.dim() - 1)), -100)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A pickled table counts its versions anew."""
        self.__dict__.update(state)
        self._version = 0 if self._source is None else version_of(self._source)


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


def select_axes(
    examples: datasets.Dataset, axes: Mapping[str, float], *, negatives: bool = False, seed: int = 0
) -> datasets.Dataset:
    """Examples of some axes, each as often as its weight says.

    Args:
        examples: a split of the benchmark, or examples of your own; see `example_column`.
        axes: weights by name: 2 shows every example twice, 0.5 a random half, 1.5 all and a random half again.
        negatives: whether examples that say what must not come back are among them.
        seed: of the random part.

    Raises:
        ValueError: if an axis is unknown, or nothing is left.
    """
    if not len(examples):
        raise ValueError(
            "there are no examples to choose from; training needs users with four purchases or more, the last two of "
            "which are kept for validation and test"
        )
    axis, sentiment = (np.array(example_column(examples, name)) for name in ("axis", "sentiment"))
    # A benchmark may lack an axis, such as the sentiment axes where nobody rated anything.
    known = {*AXES, *axis.tolist()}
    unknown = [name for name in axes if name not in known]
    if unknown:
        raise ValueError(f"axis {unknown[0]!r} is not known; pass some of {', '.join(sorted(known))}")
    generator = np.random.default_rng(seed)
    rows = [
        repeated(np.flatnonzero((axis == name) & (negatives | (sentiment == "positive"))), weight, generator)
        for name, weight in axes.items()
    ]
    chosen = np.sort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
    if not len(chosen):
        raise ValueError(f"the axes {dict(axes)} leave no example of {len(examples)}; name others or raise weights")
    return examples.select(chosen)


def repeated(rows: np.ndarray, weight: float, generator: np.random.Generator) -> np.ndarray:
    """Rows as often as the weight says, the fraction drawn at random.

    >>> repeated(np.arange(2), 2.0, np.random.default_rng(0)).tolist()
    [0, 1, 0, 1]
    """
    whole = int(weight)
    extra = generator.choice(rows, round((weight - whole) * len(rows)), replace=False)
    return np.concatenate([*[rows] * whole, extra]).astype(np.int64)


def training_histories(examples: datasets.Dataset) -> list[list[str]]:
    """Items of every user in the training period, oldest first: the longest history of each, and its target.

    Without user ids every example counts as a user of its own.

    Args:
        examples: of the train split, axis `recommendation`.
    """
    names = [name for name in ("user_id", "history", "target", "targets") if name in examples.column_names]
    table = examples.select_columns(names).to_polars().with_columns(target=pl.Series(first_targets(examples)))
    if "user_id" in names:
        table = table.sort(pl.col("history").list.len(), descending=True, maintain_order=True)
        table = table.unique("user_id", keep="first", maintain_order=True).sort("user_id")
    return table.select(pl.concat_list("history", "target")).to_series().to_list()


def bought_in_training(examples: datasets.DatasetDict) -> list[list[str]]:
    """Items of every user in the training period, oldest first, of users too new to have training examples as well.

    A user's validation example has the items of the training period as its history.

    Args:
        examples: `train` and `validation` splits; recommendation examples are looked at.
    """
    tables = []
    for split, with_target in (("train", True), ("validation", False)):
        own = examples[split]
        if not len(own):  # users with three purchases have nothing to be trained on but what validation knows
            continue
        own = select_axes(own, {"recommendation": 1.0})
        table = own.select_columns(["user_id", "history"]).to_polars()
        if with_target:
            table = table.with_columns(history=table["history"].list.concat(pl.Series(first_targets(own))))
        tables.append(table)
    table = pl.concat(tables)
    longest = table.sort(table["history"].list.len(), descending=True, maintain_order=True).unique(
        "user_id", keep="first", maintain_order=True
    )
    return longest.sort("user_id")["history"].to_list()


def sequence_features(examples: datasets.Dataset, processor: MenderProcessor) -> datasets.Dataset:
    """SASRec's training features: one sequence per user, the next item as label at every position.

    Args:
        examples: of the train split, axis `recommendation`.
        processor: with `history="indices"`.

    Returns:
        `input_ids`, `labels` (item indices, one per position) and `length`.
    """
    longest = processor.max_history + 1
    histories = [processor.item_indices(history) for history in training_histories(examples)]
    inputs = [processor.render("", rows[-longest:-1]) for rows in histories]
    # The start token predicts the very first item; where earlier ones are cut off there is nothing to predict it from.
    labels = [rows if len(rows) <= longest else [-100, *rows[-longest + 1 :]] for rows in histories]
    return datasets.Dataset.from_dict({"input_ids": inputs, "labels": labels, "length": [*map(len, inputs)]})
