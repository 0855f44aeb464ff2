"""LC-Rec's auxiliary tasks: examples that tie code tokens to language (Zheng et al. 2023, arXiv:2311.09049).

LC-Rec tunes a language model that writes words and codes alike. Here the decoder writes codes alone, so the tasks that
end in codes train it as any other example does, while the one that ends in words is a masked title beside the item's
codes, which the encoder predicts with its own word embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import datasets
import numpy as np

from ..processing_mender import MenderProcessor
from .data import first_targets, repeated

__all__ = [
    "TASKS",
    "alignment_features",
]


Features = list[dict[str, list[int] | int]]


def title_to_codes(processor: MenderProcessor, examples: datasets.Dataset) -> Features:
    """From the title of an item to its codes."""
    inputs = processor.text_inputs([f"Item: {title}" for title in processor.titles])
    return [{"input_ids": ids, "item": item} for item, ids in enumerate(inputs)]


def codes_to_title(processor: MenderProcessor, examples: datasets.Dataset) -> Features:
    """From the codes of an item and its masked title to the words of the title."""
    tokenizer = processor.tokenizer
    mask = tokenizer.mask_token_id
    if mask is None:  # T5 has sentinel tokens instead, other tokenizers at least an unknown token
        mask = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        mask = tokenizer.unk_token_id if mask is None else mask
    heading, title_heading = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Items:", "Title:"))
    before, after = processor.margins
    features: Features = []
    codes_of_items = processor.code_pieces(range(len(processor.titles)))
    for ids, codes in zip(processor.title_inputs(), codes_of_items, strict=True):
        title = ids[len(before) : len(ids) - len(after)]
        start = [*before, *heading, *codes, *title_heading]
        features.append(
            {
                "input_ids": [*start, *[mask] * len(title), *after],
                "text_labels": [*[-100] * len(start), *title, *[-100] * len(after)],
                "item": -1,
            }
        )
    return features


def preference_to_codes(processor: MenderProcessor, examples: datasets.Dataset) -> Features:
    """From a preference to the codes of the item it was matched to."""
    items = processor.item_indices(first_targets(examples))
    return [
        {"input_ids": processor.render(preferences, []), "item": item}
        for item, preferences in zip(items, examples["preferences"], strict=True)
        if any(text.strip() for text in preferences)
    ]


def titles_to_codes(processor: MenderProcessor, examples: datasets.Dataset) -> Features:
    """From the titles of a history to the codes of the next item."""
    items = processor.item_indices(first_targets(examples))
    return [
        {"input_ids": processor.render("", processor.item_indices(history[-5:]), history="titles"), "item": item}
        for item, history in zip(items, examples["history"], strict=True)
        if len(history)
    ]


TASKS: dict[str, Callable[[MenderProcessor, datasets.Dataset], Features]] = {
    "title_to_codes": title_to_codes,
    "codes_to_title": codes_to_title,
    "preference_to_codes": preference_to_codes,
    "titles_to_codes": titles_to_codes,
}


def alignment_features(
    processor: MenderProcessor, examples: datasets.Dataset, tasks: Mapping[str, float], seed: int = 0
) -> datasets.Dataset:
    """Training features of auxiliary tasks.

    Args:
        processor: with `history="codes"`.
        examples: of the train split, axis `recommendation`.
        tasks: by name of `TASKS`, how often an epoch shows each of its examples.
        seed: of the draw where a weight is not whole.

    Returns:
        The columns of `prepare_examples`, and `text_labels` (empty where the answer is an item).

    Raises:
        ValueError: if a task is unknown.
    """
    unknown = [name for name in tasks if name not in TASKS]
    if unknown:
        raise ValueError(f"alignment task {unknown[0]!r} is not known; pass some of {', '.join(TASKS)}")
    generator = np.random.default_rng(seed)
    chosen: Features = []
    for name, weight in tasks.items():
        features = TASKS[name](processor, examples)
        chosen += [features[row] for row in repeated(np.arange(len(features)), weight, generator)]
    return datasets.Dataset.from_list(
        [
            {
                "input_ids": feature["input_ids"],
                "item": feature["item"],
                "seen": [],
                "negative": False,
                "kind": 0,
                "length": len(feature["input_ids"]),
                "text_labels": feature.get("text_labels", []),
            }
            for feature in chosen
        ]
    )
