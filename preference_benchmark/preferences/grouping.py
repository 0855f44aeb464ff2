"""Which aspects share a sentence: aspects that the same items of the history have, each used once.

All rows at once; the loops run over the five sentences and the words of a sentence.
"""

from __future__ import annotations

import numpy as np

from preference_benchmark.preferences.evidence import WINDOW, Summary

__all__ = ["MAX_ASPECTS", "group", "shared_noun"]

MAX_ASPECTS = 3

_BITS = np.array([bin(number).count("1") for number in range(1 << 10)], dtype=np.int8)
# Sentences for users of whom fewer aspects are known than sentences are needed: pairs of them, in this order.
_PAIRS = np.array([(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)])


def group(summary: Summary, wanted: np.ndarray, companions: np.ndarray) -> np.ndarray:
    """Aspects of each sentence, strongest first.

    A sentence opens with the strongest aspect not used yet and takes up to `companions` more that occurred in the
    same items, most often first, as long as enough remain for the sentences to come. Where there are fewer aspects
    than sentences, further sentences combine two that already have one of their own; what is left stays empty.

    Args:
        summary: aspects by strength; R rows, K places.
        wanted: sentences per row, at most S. Shape: (R,).
        companions: how many further aspects each sentence may take. Shape: (R, S).

    Returns:
        Places in the summary, -1 where there is none. Shape: (R, S, MAX_ASPECTS), int64.
    """
    rows, sentences = companions.shape
    available = (summary.index >= 0).sum(axis=1)
    free = summary.index >= 0
    everyone = np.arange(rows)
    chosen = np.full((rows, sentences, MAX_ASPECTS), -1, dtype=np.int64)
    for sentence in range(sentences):
        head = free.argmax(axis=1)
        has_head = free[everyone, head] & (sentence < wanted)
        chosen[has_head, sentence, 0] = head[has_head]
        free[everyone[has_head], head[has_head]] = False
        together = summary.steps[everyone, head]
        for place in range(1, MAX_ASPECTS):
            spare = free.sum(axis=1) > wanted - sentence - 1
            ask = has_head & spare & (companions[:, sentence] >= place)
            shared = count_bits(summary.steps & together[:, None])
            # Of aspects that share as many items the stronger one, which stands first, wins the argmax.
            shared = np.where(free, shared, 0)
            best = shared.argmax(axis=1)
            ask &= shared[everyone, best] > 0
            chosen[ask, sentence, place] = best[ask]
            free[everyone[ask], best[ask]] = False
            together = np.where(ask, together & summary.steps[everyone, best], together)
    for pair, (first, second) in enumerate(_PAIRS):
        sentence = available + pair
        ask = (sentence < wanted) & (available > max(first, second))
        chosen[everyone[ask], sentence[ask], 0] = first
        chosen[everyone[ask], sentence[ask], 1] = second
    return chosen


def shared_noun(summary: Summary, chosen: np.ndarray, nouns: Summary) -> np.ndarray:
    """The kind that most of the items behind each sentence share.

    Args:
        summary: aspects; R rows, K places.
        chosen: places of the aspects of each sentence. Shape: (R, S, MAX_ASPECTS).
        nouns: kinds of the items of each row's history; R rows.

    Returns:
        Positions among the nouns, -1 where no kind holds for two thirds of the items. Shape: (R, S), int64.
    """
    rows, sentences, _ = chosen.shape
    result = np.full((rows, sentences), -1, dtype=np.int64)
    everyone = np.arange(rows)
    for sentence in range(sentences):
        head = chosen[:, sentence, 0]
        behind = np.where(head >= 0, summary.steps[everyone, head], 0)
        for place in range(1, chosen.shape[2]):
            other = chosen[:, sentence, place]
            behind = np.where(other >= 0, behind & summary.steps[everyone, other], behind)
        shared = count_bits(nouns.steps & behind[:, None])
        best = shared.argmax(axis=1)
        enough = 3 * shared[everyone, best] >= 2 * np.maximum(count_bits(behind), 1)
        result[enough, sentence] = nouns.index[everyone, best][enough]
    return result


def count_bits(sets: np.ndarray) -> np.ndarray:
    """Size of each bit set of at most WINDOW = 20 members."""
    half = WINDOW // 2
    return _BITS[sets >> half].astype(np.int64) + _BITS[sets & ((1 << half) - 1)]
