"""Semantic IDs as words of the encoder: one token per code, added behind the text vocabulary.

TIGER (arXiv:2305.05065) reads nothing but such tokens, LC-Rec (arXiv:2311.09049) and the extended-vocabulary baselines
of the paper (arXiv:2412.08604) read them beside text. Their embeddings are new, so they must be trained: adapters
alone would leave them at their random start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

__all__ = ["add_code_tokens", "code_token", "first_code_token"]


def code_token(level: int, code: int) -> str:
    """Name of a code as a token.

    >>> code_token(0, 12), code_token(3, 0)
    ('<a_12>', '<d_0>')
    """
    return f"<{chr(ord('a') + level)}_{code}>"


def add_code_tokens(tokenizer: Any, codebook_sizes: Sequence[int], encoder: PreTrainedModel | None = None) -> None:
    """Give a tokenizer one token per code, level by level, and its encoder the embeddings of them.

    Args:
        tokenizer: extended in place.
        codebook_sizes: codes per level.
        encoder: resized to the tokenizer; new rows start as its own class starts them, spare ones are used as they are.

    Raises:
        ValueError: if the tokenizer has some of these tokens already.
    """
    names = [code_token(level, code) for level, size in enumerate(codebook_sizes) for code in range(size)]
    added = tokenizer.add_tokens(names)
    if added != len(names):
        raise ValueError(f"the tokenizer has {len(names) - added} of the {len(names)} code tokens already")
    if encoder is not None:
        # transformers would draw the new rows from a spread of at most some 3e-5 of the old ones', around their mean:
        # all codes would start as the same vector, and a model from scratch takes many epochs to tell them apart.
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def first_code_token(tokenizer: Any, codebook_sizes: Sequence[int]) -> int:
    """Token id of the first level's code 0; the ids of the others follow.

    Raises:
        ValueError: if the tokenizer lacks the code tokens.
    """
    first = tokenizer.convert_tokens_to_ids(code_token(0, 0))
    last = tokenizer.convert_tokens_to_ids(code_token(len(codebook_sizes) - 1, codebook_sizes[-1] - 1))
    if first is None or last is None or last - first != sum(codebook_sizes) - 1:
        raise ValueError(
            f"the tokenizer has no tokens for codebook_sizes={list(codebook_sizes)}; call add_code_tokens first"
        )
    return first
