"""LC-Rec's tasks: right question, right answer."""

from __future__ import annotations

import pytest
from doubles import WORDS, random_catalogue, shop_examples, word_tokenizer

from modeling_mender import MenderProcessor
from modeling_mender.processing_mender import add_code_tokens
from modeling_mender.training.alignment_tasks import TASKS, alignment_features
from modeling_mender.training.data import select_axes

SIZES = [3, 3, 3]


@pytest.fixture
def processor():
    tokenizer = word_tokenizer()
    add_code_tokens(tokenizer, SIZES)
    items = {"item_id": [f"item-{word}" for word in WORDS], "title": WORDS}
    codes = random_catalogue(len(WORDS), SIZES).codes.tolist()
    return MenderProcessor(tokenizer, {**items, "codes": codes}, history="codes", codebook_sizes=SIZES)


@pytest.fixture
def examples():
    return select_axes(shop_examples(4)["train"], {"recommendation": 1.0})


def test_titles_are_masked_and_asked_for(processor, examples):
    features = TASKS["codes_to_title"](processor, examples)
    assert len(features) == len(WORDS)
    for word, feature in zip(WORDS, features, strict=True):
        answer = [token for token in feature["text_labels"] if token != -100]
        assert processor.tokenizer.convert_ids_to_tokens(answer) == [word]
        assert len(feature["text_labels"]) == len(feature["input_ids"])
        # Where an answer is asked for, the input holds one and the same mask; headings may use an answer's word.
        asked = {
            shown for shown, label in zip(feature["input_ids"], feature["text_labels"], strict=True) if label != -100
        }
        assert asked == {processor.tokenizer.unk_token_id} and feature["item"] == -1


def test_questions_and_answers_belong_together(processor, examples):
    for row, feature in enumerate(TASKS["title_to_codes"](processor, examples)):
        assert WORDS[row] in processor.tokenizer.decode(feature["input_ids"]) and feature["item"] == row
    for name in ("preference_to_codes", "titles_to_codes"):
        features = TASKS[name](processor, examples)
        assert [processor.item_ids[feature["item"]] for feature in features] == [
            target for (target,) in examples["targets"]
        ]
    first = processor.tokenizer.decode(TASKS["preference_to_codes"](processor, examples)[0]["input_ids"])
    assert examples[0]["preferences"][0] in first


@pytest.mark.parametrize("end", ["", ".", " . "])
def test_tasks_render_what_the_processor_renders(processor, examples, end):
    examples = examples.map(lambda row: {"preferences": [f"{text}{end}" for text in row["preferences"]]})
    for feature, example in zip(TASKS["preference_to_codes"](processor, examples), examples, strict=True):
        assert [feature["input_ids"]] == processor(example["preferences"], [])["input_ids"].tolist()
    items = {"item_id": processor.item_ids, "title": processor.titles}
    titles = MenderProcessor(processor.tokenizer, items, max_history=5)
    for feature, example in zip(TASKS["titles_to_codes"](processor, examples), examples, strict=True):
        assert [feature["input_ids"]] == titles(None, example["history"])["input_ids"].tolist()


def test_examples_without_preference_or_history_have_no_such_task(processor, examples):
    examples = examples.map(lambda row: {"preferences": [], "history": []})
    assert not TASKS["preference_to_codes"](processor, examples) and not TASKS["titles_to_codes"](processor, examples)


def test_weights_say_how_often(processor, examples):
    features = alignment_features(processor, examples, {"title_to_codes": 2.0, "preference_to_codes": 0.5})
    assert len(features) == 2 * len(WORDS) + round(len(examples) / 2)
    with pytest.raises(ValueError, match="alignment task 'dance' is not known"):
        alignment_features(processor, examples, {"dance": 1.0})
