"""Tokenizers learnt from texts: the same ones every time, within bounds, and able to read what they never saw."""

from __future__ import annotations

import random

from transformers import AutoTokenizer

from modeling_mender.training.methods import code_only_tokenizer, word_tokenizer


def texts(count: int = 400) -> list[str]:
    """Sentences of made-up words, many of them equally frequent."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefgh", k=chance.randint(2, 9))) for _ in range(300)]
    return [" ".join(chance.choices(words, k=6)) for _ in range(count)]


def test_the_same_texts_give_the_same_words_whatever_their_order():
    own = texts()
    first = word_tokenizer(own, 200)
    chance = random.Random(1)
    for _ in range(4):
        again = word_tokenizer(chance.sample(own, len(own)), 200)
        assert again.get_vocab() == first.get_vocab()
        assert again(own[:20])["input_ids"] == first(own[:20])["input_ids"]


def test_a_vocabulary_has_at_most_the_tokens_asked_for():
    assert len(word_tokenizer(texts(), 200)) == 200
    assert len(word_tokenizer(["tea"], 200)) < 20


def test_special_tokens_frame_every_text(tmp_path):
    for tokenizer in (word_tokenizer(texts(), 200), code_only_tokenizer()):
        tokenizer.save_pretrained(tmp_path)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        for each in (tokenizer, loaded):
            assert each.pad_token_id == 0
            assert each("")["input_ids"] == [each.eos_token_id]
            assert each("Ω")["input_ids"] == [each.unk_token_id, each.eos_token_id]
