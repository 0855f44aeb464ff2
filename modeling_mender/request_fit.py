"""Whether anything in the catalogue fits a request: a calibrated probability from the scores of language experts.

A search returns its best items even if a shop has nothing of the kind. The probability is a logistic function of a few
features of a request: how well the best items match, how far they stand out, and whether the experts agree on them.
`training.fit_probability` fits its coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_fitted", "common_score", "fit_features", "fit_names", "fit_probability"]

VECTORS = ("learned", "dense")
"""Experts that compare vectors, the one to trust most first."""
WORDS = ("terms", "lexical")
"""Experts that compare words, the one to trust most first."""
COMMON = 0.9
"""Quantile of the catalogue up to which a score says nothing, see `common_score`."""
BEST = 10
"""Number of best items on which experts should agree."""
CONSTANT = "constant"


def common_score(scores: Tensor) -> Tensor:
    """The score that most items of a catalogue do not exceed: the `COMMON` quantile. Shape: (B, N) -> (B, 1)."""
    return scores.kthvalue(max(1, round(COMMON * scores.shape[1])), dim=1, keepdim=True).values


def fit_names(experts: Sequence[str]) -> list[str]:
    """Names of the features of a model with these experts; empty if the experts are not enough.

    >>> fit_names(["popularity", "dense", "lexical"])
    ['dense best', 'dense gap', 'dense spread', 'lexical best', 'unknown words', 'agreement']
    """
    vectors = [name for name in VECTORS if name in experts]
    words = [name for name in WORDS if name in experts]
    if not vectors or not words:
        return []
    own = [f"{name} {feature}" for name in vectors for feature in ("best", "gap", "spread")]
    return [*own, f"{words[0]} best", "unknown words", "agreement"]


def check_fitted(config: Any) -> None:
    """Raises an error if a model cannot say whether anything fits.

    Args:
        config: an `ExpertSumConfig`, or `None` for a model without experts.

    Raises:
        ValueError: if there are no experts, or no coefficients for them.
    """
    if config is None or not fit_names(config.experts):
        raise ValueError(
            "this model has no `fit`: it needs an expert for words (terms or lexical) and one for meaning (learned or "
            "dense); leave it out, or train the preset mender or mender-lite"
        )
    if config.fit is None:
        raise ValueError(
            "`fit` of this model has no coefficients: fit_experts fits them on validation wishes (axis open_wishes), "
            "which its data did not have; leave it out, or fit the experts on a benchmark with wishes"
        )


def fit_features(
    experts: Any,
    input_ids: Tensor,
    num_items: int,
    *,
    encoder: Any = None,
    encoded: Any = None,
    live: Tensor | None = None,
) -> Tensor:
    """Features of requests, in the order of `fit_names`.

    Best: the highest score of an expert; gap: how far that is above the `COMMON` quantile of the catalogue; spread:
    the deviation of scores over the catalogue. Unknown words: the share of terms that are in no item's text.
    Agreement: the standardised lexical score of the items that the other expert ranks first.

    Args:
        experts: an `ExpertSum`.
        input_ids: see `ExpertSum.forward`. Shape: (B, T).
        num_items: N.
        encoder: see `ExpertSum.forward`.
        encoded: see `ExpertSum.forward`.
        live: indices of the items that were not removed; default: all.

    Returns:
        Shape: (B, F), float32.
    """
    vectors = [name for name in VECTORS if name in experts.config.experts]
    words = next(name for name in WORDS if name in experts.config.experts)
    scores = experts(input_ids, num_items, encoder=encoder, encoded=encoded, only=[*vectors, words])
    if live is not None:
        scores = {name: own[:, live] for name, own in scores.items()}
    found = []
    for name in vectors:
        best = scores[name].amax(1)
        found += [best, best - common_score(scores[name]).squeeze(1), scores[name].std(1, correction=0)]
    lexical = scores[words]
    standard = (lexical - lexical.mean(1, keepdim=True)) / (lexical.std(1, correction=0, keepdim=True) + 1e-6)
    first = scores[vectors[0]].topk(min(BEST, lexical.shape[1]), dim=1).indices
    terms = experts.lexical.terms(experts.split(input_ids)[0])
    present = terms >= 0
    unknown = (experts.lexical.starts.diff()[terms.clamp(min=0)] == 0) & present
    share = unknown.sum(1) / present.sum(1).clamp(min=1)
    return torch.stack([*found, lexical.amax(1), share, standard.gather(1, first).mean(1)], dim=1)


def fit_probability(
    experts: Any,
    input_ids: Tensor,
    num_users: int,
    num_items: int,
    *,
    encoder: Any = None,
    encoded: Any = None,
    live: Tensor | None = None,
) -> Tensor:
    """Probability that anything in the catalogue fits each request.

    Of several preferences of a user, the one that fits least counts.

    Args:
        experts: an `ExpertSum` with coefficients, see `check_fitted`.
        input_ids: see `ExpertSum.forward`; the conditions of a user follow each other. Shape: (B * C, T).
        num_users: B.
        num_items: N.
        encoder: see `ExpertSum.forward`.
        encoded: see `ExpertSum.forward`.
        live: see `fit_features`.

    Returns:
        nan for requests without a text. Shape: (B,), float32.
    """
    coefficients = experts.config.fit
    features = fit_features(experts, input_ids, num_items, encoder=encoder, encoded=encoded, live=live)
    own = torch.tensor([coefficients[name] for name in fit_names(experts.config.experts)], device=features.device)
    probability = torch.sigmoid(features @ own + coefficients[CONSTANT]).view(num_users, -1)
    has_text = (experts.split(input_ids)[0] >= 0).any(1).view(num_users, -1)
    least = probability.masked_fill(~has_text, torch.inf).amin(1)
    return least.masked_fill(~has_text.any(1), torch.nan)
