"""Ranked lists for batches and data sets, their metrics, and the speed of requests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import EvalPrediction, PreTrainedModel

from ..processing_mender import MenderProcessor
from .batches import MenderCollator
from .data import prepare_examples

__all__ = ["one_thread", "rank_batch", "rank_examples", "ranking_metrics", "request_speed"]

TRAINING_ONLY = ("labels", "negative", "text_labels")
"""Entries of a batch that are only used in training."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch in one thread.

    Matrices of decoders and experts are so small that two threads mostly wait for each other, and on a busy machine for
    the operating system: a step takes twenty times as long. Encoding many texts at once gains from all threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def rank_batch(model: PreTrainedModel, batch: Mapping[str, Any], top_k: int, num_beams: int | None = None) -> Tensor:
    """The `top_k` best items of every example of a batch.

    Args:
        model: any model with `recommend`.
        batch: as a `MenderCollator` makes it, on the model's device.
        top_k: items per example.
        num_beams: prefixes kept per level; `None` keeps max(30, 2 * top_k).

    Returns:
        Item indices, best first, padded with -1. Shape: (B, top_k), int64.
    """
    request = {name: value for name, value in batch.items() if name not in TRAINING_ONLY}
    ranked = model.recommend(**request, top_k=top_k, num_beams=num_beams).item_indices
    return functional.pad(ranked, (0, top_k - ranked.shape[1]), value=-1)


def rank_examples(
    model: PreTrainedModel,
    processor: MenderProcessor,
    examples: datasets.Dataset,
    top_k: int = 10,
    *,
    num_beams: int | None = None,
    batch_size: int = 128,
    exclude_seen: bool = True,
) -> np.ndarray:
    """The `top_k` best items of every example.

    Batches hold examples of similar length, so that little is spent on padding.

    Args:
        model: any model with `recommend`.
        processor: renders its inputs.
        examples: with the columns `preferences`, `history` and `target` (or `targets`).
        top_k: items per example.
        num_beams: prefixes kept per level; `None` keeps max(30, 2 * top_k).
        batch_size: examples per batch.
        exclude_seen: whether items of the history are left out.

    Returns:
        Item indices in the order of the examples, padded with -1. Shape: (N, top_k), int64.
    """
    features = prepare_examples(examples, processor)
    order = np.argsort(features["length"][:], kind="stable")
    collate = MenderCollator(processor, model, exclude_seen=exclude_seen)
    ranked = np.empty((len(order), top_k), dtype=np.int64)
    model.eval()
    for start in tqdm(range(0, len(order), batch_size), desc="Ranking", unit="batch", delay=2, leave=False):
        rows = order[start : start + batch_size]
        # Labels are for training; the target of an example may have been removed from the catalogue.
        batch = collate([features[int(row)] | {"item": -1} for row in rows])
        batch = {name: value.to(model.device) for name, value in batch.items()}
        with one_thread():
            ranked[rows] = rank_batch(model, batch, top_k, num_beams).cpu().numpy()
    return ranked


def ranking_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """NDCG and recall of ranked items with one target per example, and the number of examples.

    Args:
        prediction: ranked item indices (N, k) and target indices (N,), from `MenderTrainer`.

    Returns:
        `ndcg@k`, `recall@k` and `n`, where k is the length of the lists.
    """
    hits = np.asarray(prediction.predictions) == np.asarray(prediction.label_ids)[:, None]
    top_k = hits.shape[1]
    gain = (hits / np.log2(np.arange(2, top_k + 2))).sum(1)
    return {f"ndcg@{top_k}": float(gain.mean()), f"recall@{top_k}": float(hits.any(1).mean()), "n": len(hits)}


@torch.no_grad()
def request_speed(
    model: PreTrainedModel, processor: MenderProcessor, examples: datasets.Dataset, repeats: int = 5
) -> dict[str, float | str]:
    """Wall time of requests from text to ranked items, rendering included.

    Args:
        model: any model with `recommend`.
        processor: renders its inputs.
        examples: at least 32 users; the first 32 are used.
        repeats: number of measurements, after one to warm up; the median is returned.

    Returns:
        `request_ms` for one user at a time, `users_per_second` in batches of 32, `device` and `threads`.
    """
    users = examples.select(range(min(32, len(examples))))
    preferences, histories = users["preferences"][:], users["history"][:]
    single, batched = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for preference, history in zip(preferences[:8], histories[:8], strict=True):
            model.recommend(**processor([preference], [history]).to(model.device), top_k=10)
        single.append((time.perf_counter() - start) / min(8, len(users)))
        start = time.perf_counter()
        model.recommend(**processor(preferences, histories).to(model.device), top_k=10)
        batched.append(len(users) / (time.perf_counter() - start))
    return {
        "request_ms": 1000 * float(np.median(single[1:])),
        "users_per_second": float(np.median(batched[1:])),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type,
        "threads": torch.get_num_threads(),
    }
