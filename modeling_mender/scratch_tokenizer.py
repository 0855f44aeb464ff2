"""Tokenizers of encoders that start from scratch: words learnt from the texts at hand, or no words at all.

The words are byte-pair merges (Sennrich et al. 2016, arXiv:1508.07909) of lower-cased text. The same texts give the
same vocabulary; the trainer of WordPiece numbers continuations in hash order and would draw a new one every time.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

__all__ = ["code_only_tokenizer", "word_tokenizer"]

SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def word_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are learnt from texts.

    Args:
        texts: titles and preferences, say; their order does not matter.
        vocabulary: tokens at most, special ones included; few texts give fewer.

    >>> word_tokenizer(["green tea", "black tea"], 100).tokenize("Green tea")
    ['green', 'tea']
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*SPECIAL.values()], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _ending_texts(tokenizer)


def code_only_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer without words, for encoders that read codes alone."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL.values())}
    return _ending_texts(Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"])))


def _ending_texts(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    end = SPECIAL["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
