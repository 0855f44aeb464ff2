"""Coefficients of the probability that anything in the catalogue fits a request (`request_fit`).

A logistic regression tells open wishes of the validation split, which some item fulfils, from wishes that no item does:
everyday things that no item mentions (some from the ranges of other shops), with and without a quality, word salad and
random letters. Both classes have the same weight, so that .5 means undecided.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm.auto import tqdm

from ..language_experts import keys_of_texts
from ..processing_mender import MenderProcessor
from ..request_fit import CONSTANT, fit_names
from .data import example_column

__all__ = ["absent_things", "fit_fit_probability", "logistic_regression", "request_features"]

WISHES = Path(__file__).with_name("absent_wishes.yaml")
MOST_WISHES, LEAST_WISHES = 500, 30
LEAST_THINGS = 10
"""Number of things that no item mentions, below which a catalogue may have anything."""
SHARES = {"things": (0.4, 200), "qualities": (0.2, 100), "salad": (0.2, 100), "letters": (0.2, 100)}
"""Weight and number of the wishes of each kind that no item fulfils."""
RIDGE = 1e-3
"""Has the lowest cross-validated loss on Steam, Office and the corner shop."""
BATCH = 32


def fit_fit_probability(
    model: Any, processor: MenderProcessor, validation: datasets.Dataset, *, seed: int = 0
) -> dict[str, Any] | None:
    """Fit the coefficients of a model on validation wishes, and save them in the configuration of its experts.

    Args:
        model: a model with experts.
        processor: renders wishes.
        validation: the validation split of a benchmark.
        seed: of the choice of wishes, and of the wishes that no item fulfils.

    Returns:
        The coefficients and what they were fitted on; `None`, and no coefficients, without the experts that are needed,
        with too few wishes, or if the catalogue mentions almost all of the things.
    """
    config = model.experts.config
    config.fit = None
    names = fit_names(config.experts)
    axis, sentiment = (np.array(example_column(validation, name)) for name in ("axis", "sentiment"))
    rows = np.flatnonzero((axis == "open_wishes") & (sentiment == "positive"))
    if not names or len(rows) < LEAST_WISHES:
        return None
    settings = yaml.safe_load(WISHES.read_text("utf-8"))
    things = absent_things(model, processor, settings["things"])
    if len(things) < LEAST_THINGS:
        return None
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.permutation(rows)[:MOST_WISHES])
    wishes = [" ".join(texts) for texts in example_column(validation.select(rows), "preferences")]
    groups = [(1.0, wishes, 1.0)]
    for name, (weight, count) in SHARES.items():
        groups.append((0.0, [_MAKERS[name](settings, things, generator) for _ in range(count)], weight))
    features = torch.cat([request_features(model, processor, texts) for _, texts, _ in groups]).double().numpy()
    fits = np.concatenate([np.full(len(texts), fitting) for fitting, texts, _ in groups])
    weights = np.concatenate([np.full(len(texts), weight / len(texts)) for _, texts, weight in groups])
    constant, own = logistic_regression(features, fits, weights)
    config.fit = {CONSTANT: float(constant), **dict(zip(names, map(float, own), strict=True))}
    return {"coefficients": config.fit, "wishes": len(wishes), "absent_things": len(things)}


@torch.no_grad()
def request_features(model: Any, processor: MenderProcessor, texts: Sequence[str]) -> Tensor:
    """Features of preferences, see `request_fit.fit_features`. Shape: (M, F)."""
    parts = []
    for start in tqdm(range(0, len(texts), BATCH), desc="Reading wishes", unit="batch", delay=2, leave=False):
        inputs = processor([[text] for text in texts[start : start + BATCH]])
        read = inputs.get("expert_input_ids", inputs["input_ids"]).to(model.device)
        parts.append(model.fit_features(read).float().cpu())
    return torch.cat(parts)


def absent_things(model: Any, processor: MenderProcessor, things: dict[str, str]) -> list[str]:
    """Those of some things that no item mentions: the text of no item has the key, the word that says what they are."""
    lexical, found = model.experts.lexical, []
    keys_of_things = keys_of_texts(processor.text_tokens(list(things)), lexical.roles)
    for phrase, keys in zip(things.values(), keys_of_things, strict=True):
        terms = lexical.numbered(torch.tensor(keys, dtype=torch.int64, device=lexical.items.device)).unique().tolist()
        having = torch.zeros(lexical.num_items, dtype=torch.int32, device=lexical.items.device)
        for term in terms:
            having[lexical.items[lexical.starts[term] : lexical.starts[term + 1]].long()] += 1
        if int(having.max()) < len(terms):
            found.append(phrase)
    return found


def logistic_regression(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, ridge: float = RIDGE
) -> tuple[float, np.ndarray]:
    """Weighted logistic regression with a penalty on the coefficients of standardised features, by Newton's method.

    Args:
        features: Shape: (M, F).
        labels: 0 or 1. Shape: (M,).
        weights: of the examples. Shape: (M,).
        ridge: the penalty, relative to the mean log-likelihood.

    Returns:
        The constant, and the coefficients of the features as they are. Shape: (F,).
    """
    weights = weights / weights.sum()
    mean = weights @ features
    # A feature that is the same for all examples has coefficient 0.
    deviation = np.sqrt(weights @ (features - mean) ** 2)
    scale = np.where(deviation > 1e-9, deviation, np.inf)
    standard = np.concatenate([np.ones((len(features), 1)), (features - mean) / scale], axis=1)
    penalty = 2 * ridge * np.eye(standard.shape[1])
    penalty[0, 0] = 1e-9  # the constant is free
    found = np.zeros(standard.shape[1])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-standard @ found))
        gradient = standard.T @ (weights * (probability - labels)) + penalty @ found
        curvature = (standard.T * (weights * probability * (1 - probability))) @ standard + penalty
        step = np.linalg.solve(curvature, gradient)
        # Far steps overshoot where probabilities are near 0 or 1.
        found -= step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    own = found[1:] / scale
    return float(found[0] - own @ mean), own


def _thing(settings: dict[str, Any], things: Sequence[str], generator: np.random.Generator) -> str:
    return generator.choice(settings["templates"]).format(generator.choice(things))


def _thing_with_quality(settings: dict[str, Any], things: Sequence[str], generator: np.random.Generator) -> str:
    bare = str(generator.choice(things)).removeprefix("a ").removeprefix("an ")
    return generator.choice(settings["templates"]).format(f"{generator.choice(settings['qualities'])} {bare}")


def _word_salad(settings: dict[str, Any], things: Sequence[str], generator: np.random.Generator) -> str:
    return " ".join(generator.choice(settings["words"].split(), generator.integers(3, 9)))


def _random_letters(settings: dict[str, Any], things: Sequence[str], generator: np.random.Generator) -> str:
    lengths = generator.integers(3, 9, generator.integers(1, 5))
    return " ".join("".join(generator.choice(list(string.ascii_lowercase), length)) for length in lengths)


_MAKERS: dict[str, Callable[[dict[str, Any], Sequence[str], np.random.Generator], str]] = {
    "things": _thing,
    "qualities": _thing_with_quality,
    "salad": _word_salad,
    "letters": _random_letters,
}
