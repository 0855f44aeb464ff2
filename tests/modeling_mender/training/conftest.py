"""A shop that a tiny model learns by heart."""

from __future__ import annotations

import datasets
import pytest
from doubles import WORDS, random_catalogue, tiny_model, word_tokenizer

from modeling_mender import MenderProcessor
from modeling_mender.training.data import prepare_examples


@pytest.fixture
def processor():
    items = {"item_id": [f"item-{word}" for word in WORDS], "title": WORDS}
    return MenderProcessor(word_tokenizer(), items, max_length=24)


@pytest.fixture
def model():
    return tiny_model(random_catalogue(len(WORDS), [3, 3, 3]), d_model=32, dropout_rate=0.0)


@pytest.fixture
def features(processor):
    """The preference names the target; histories of different lengths are noise."""
    count = len(WORDS)
    examples = datasets.Dataset.from_dict(
        {
            "preferences": [[f"find {word}"] for word in WORDS],
            "history": [[f"item-{WORDS[(row * 7 + step) % count]}" for step in range(row % 4)] for row in range(count)],
            "target": [f"item-{word}" for word in WORDS],
        }
    )
    return prepare_examples(examples, processor)
