"""What a method trains on: axes by name and weight, negatives or not, rendered for its model.

The benchmark's train split holds all axes; the paper's data augmentation (arXiv:2412.08604) is the choice among them.
Examples of your own need only the columns `preferences`, `history` and `target` (or `targets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import datasets
import numpy as np
import polars as pl

from ..configuration_mender import KINDS
from ..processing_mender import MenderProcessor

__all__ = [
    "AXES",
    "FOR_EXPERTS",
    "example_column",
    "first_targets",
    "kinds_of",
    "prepare_examples",
    "repeated",
    "select_axes",
    "sequence_features",
    "training_histories",
    "training_purchases",
    "user_features",
    "without_preferences",
]

FOR_EXPERTS = ("avoid_input_ids", "expert_input_ids")
"""Features that only a model with experts reads."""

AXES = (
    "recommendation",
    "fine_grained_steering",
    "coarse_grained_steering",
    "sentiment_following",
    "history_consolidation",
    "sentiment_following_with_history",
    "open_wishes",
    "wish_and_avoid",
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
"""Values of columns that a data set lacks."""


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


def select_axes(
    examples: datasets.Dataset, axes: Mapping[str, float], *, negatives: bool = False, seed: int = 0
) -> datasets.Dataset:
    """Sample the examples of axes in proportion to weights.

    Args:
        examples: a split of the benchmark, or examples of your own; see `example_column`.
        axes: weights by name: 2 shows every example twice, 0.5 a random half, 1.5 all and a random half again.
        negatives: whether to keep examples whose target must not be recommended.
        seed: seed of the random part.

    Raises:
        ValueError: if an axis is unknown, or nothing is left.
    """
    if not len(examples):
        raise ValueError(
            "there are no examples to choose from; training needs users with four purchases or more, the last two of "
            "which are kept for validation and test"
        )
    axis, sentiment = (np.array(example_column(examples, name)) for name in ("axis", "sentiment"))
    # A benchmark may have no examples of an axis, for instance of the sentiment axes if there are no ratings.
    known = {*AXES, *axis.tolist()}
    unknown = [name for name in axes if name not in known]
    if unknown:
        raise ValueError(f"axis {unknown[0]!r} is not known; pass some of {', '.join(sorted(known))}")
    generator = np.random.default_rng(seed)
    parts = [
        repeated(np.flatnonzero((axis == name) & (negatives | (sentiment == "positive"))), weight, generator)
        for name, weight in axes.items()
    ]
    chosen = np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
    if not len(chosen):
        raise ValueError(f"the axes {dict(axes)} leave no example of {len(examples)}; name others or raise weights")
    return examples.select(chosen)


def repeated(rows: np.ndarray, weight: float, generator: np.random.Generator) -> np.ndarray:
    """Repeat rows as often as the integer part of a weight, and draw the fractional part at random.

    >>> repeated(np.arange(2), 2.0, np.random.default_rng(0)).tolist()
    [0, 1, 0, 1]
    """
    whole = int(weight)
    extra = generator.choice(rows, round((weight - whole) * len(rows)), replace=False)
    return np.concatenate([*[rows] * whole, extra]).astype(np.int64)


def without_preferences(examples: datasets.Dataset) -> datasets.Dataset:
    """The same examples as silent requests: a history alone.

    >>> examples = datasets.Dataset.from_dict({"preferences": [["Find tea"]], "history": [["mug"]], "target": ["tea"]})
    >>> silent = without_preferences(examples)
    >>> silent["preferences"][0], silent["kind"][0], silent["target"][0]
    ([], 'silent', 'tea')
    """
    texts = datasets.List(datasets.Value("string"))
    nothing = [[] for _ in range(len(examples))]
    silent = examples.remove_columns(
        [name for name in ("preferences", "avoid", "kind") if name in examples.column_names]
    )
    for name in ("preferences", "avoid"):
        silent = silent.add_column(name, nothing, feature=texts)
    return silent.add_column("kind", ["silent"] * len(examples))


def prepare_examples(examples: datasets.Dataset, processor: MenderProcessor) -> datasets.Dataset:
    """Model features of examples with the columns `preferences`, `history` and `target` (or `targets`).

    Args:
        examples: one row per example; `preferences` is a list of texts, `history` a list of item ids, `target` an id.
            Of several `targets` the first counts. Where a column `sentiment` says "negative", the target must not be
            recommended.
        processor: renders texts and knows the items.

    Returns:
        A data set with `input_ids` (list of int), `item` (index of the target), `seen` (indices of the history),
        `negative` (whether the item must not be recommended), `kind` (index in `KINDS`) and `length` (tokens), in the
        same order; for a model with experts also what they read.

    Raises:
        ValueError: if an item is unknown, or an example has neither preference nor history.
    """

    def render(batch: Mapping[str, list]) -> dict[str, list]:
        avoid = example_column(batch, "avoid")
        rendered = processor(batch["preferences"], batch["history"], avoid=avoid, return_tensors=None)
        inputs = rendered["input_ids"]
        read = {name: rendered.get(name) or [None] * len(inputs) for name in features if name in FOR_EXPERTS}
        return {
            "input_ids": inputs,
            **read,
            "item": processor.item_indices(first_targets(batch)),
            "seen": [processor.item_indices(history) for history in batch["history"]],
            "negative": [sentiment == "negative" for sentiment in example_column(batch, "sentiment")],
            "kind": kinds_of(batch),
            "length": [len(ids) for ids in inputs],
        }

    number, tokens = datasets.Value("int64"), datasets.List(datasets.Value("int64"))
    features = {"input_ids": tokens, "item": number, "seen": tokens, "negative": datasets.Value("bool"), "kind": number}
    if processor.experts:
        features |= dict(zip(FOR_EXPERTS, (datasets.List(tokens), tokens), strict=True))
    # Nothing is read from a cache, so rows in memory need no hash of `render`, which takes longer than a few of them.
    fingerprint = None if examples.cache_files else uuid4().hex
    return examples.map(
        render,
        batched=True,
        remove_columns=examples.column_names,
        features=datasets.Features({**features, "length": number}),
        desc="Rendering examples",
        load_from_cache_file=False,
        new_fingerprint=fingerprint,
    )


def training_purchases(train: datasets.Dataset, validation: datasets.Dataset | None = None) -> pl.DataFrame:
    """Items of every user in the training period, oldest first: the longest history of each, and its target.

    Without user ids every training example counts as a user of its own.

    Args:
        train: the train split; its recommendation examples count.
        validation: the validation split, whose histories end with the training period, for users who have no training
            example; `None` leaves these users out.

    Returns:
        Columns `user_id` and `history`.
    """
    by_user = "user_id" in train.column_names
    tables = []
    for examples, with_target in ((train, True), (validation if by_user else None, False)):
        if not examples:
            continue
        examples = select_axes(examples, {"recommendation": 1.0})
        table = pl.DataFrame({"user_id": example_column(examples, "user_id"), "history": examples["history"][:]})
        if with_target:
            table = table.with_columns(history=pl.concat_list("history", pl.Series(first_targets(examples))))
        tables.append(table)
    table = pl.concat(tables)
    if by_user:
        table = table.sort(table["history"].list.len(), descending=True, maintain_order=True)
        table = table.unique("user_id", keep="first", maintain_order=True).sort("user_id")
    return table


def training_histories(train: datasets.Dataset, validation: datasets.Dataset | None = None) -> list[list[str]]:
    """The histories of `training_purchases`."""
    return training_purchases(train, validation)["history"].to_list()


def sequence_features(examples: datasets.Dataset, processor: MenderProcessor) -> datasets.Dataset:
    """Training features of SASRec: one sequence per user, labelled with the next item at every position.

    Args:
        examples: the train split; its recommendation examples count.
        processor: with `history="indices"`.

    Returns:
        `input_ids`, `labels` (item indices, one per position) and `length`.
    """
    longest = processor.max_history + 1
    histories = [processor.item_indices(history) for history in training_histories(examples)]
    inputs = [processor.render("", items[-longest:-1]) for items in histories]
    # The start token predicts the first item of a history, but not the first item that is left after truncation.
    labels = [items if len(items) <= longest else [-100, *items[-longest + 1 :]] for items in histories]
    return datasets.Dataset.from_dict({"input_ids": inputs, "labels": labels, "length": [*map(len, inputs)]})


def user_features(examples: datasets.Dataset, processor: MenderProcessor) -> datasets.Dataset:
    """Training features of an encoder that reads from left to right: a row per user, with all of its next items.

    They are the targets of the recommendation examples; without user ids, every example is a row with its own target.
    Of a history that is longer than an input, the latest items count.

    Args:
        examples: the train split; its recommendation examples count.
        processor: with `history="codes"` and `preference="none"`.

    Returns:
        `input_ids`, `targets` (item indices), `target_positions` (tokens before each of them) and `length`.
    """
    before, after = processor.margins
    levels = len(processor.codebook_sizes)
    longest = min(processor.max_history, (processor.max_length - len(before) - len(after)) // levels) + 1
    histories = [items[-longest:] for items in map(processor.item_indices, training_histories(examples))]
    inputs = [processor.render("", items[:-1]) for items in histories]
    # The first of a row's items that is a target: an example without a history has no other.
    first = [min(1, len(items) - 1) if "user_id" in examples.column_names else len(items) - 1 for items in histories]
    return datasets.Dataset.from_dict(
        {
            "input_ids": inputs,
            "targets": [items[start:] for start, items in zip(first, histories, strict=True)],
            "target_positions": [
                [len(before) + levels * count for count in range(start, len(items))]
                for start, items in zip(first, histories, strict=True)
            ],
            "length": [*map(len, inputs)],
        }
    )
