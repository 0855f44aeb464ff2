"""Vectors of texts on the machines of a Ray cluster, or on all GPUs of one machine, with Ray Data.

Embedding is the largest step of a build. Chunks of texts go to workers, each with a `TextEmbedder` of its own, and come
back in order. A chunk is encoded as one process would encode it, so the vectors are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from preference_benchmark.embedding import TextEmbedder

__all__ = ["RayEmbedder"]

logger = logging.getLogger(__name__)


class RayEmbedder:
    """Unit vectors of texts by a sentence-transformers model that every worker loads once.

    A local model must have the same path on all machines, and this package must be installed there.

    Args:
        address: of the cluster, "auto" for the one that this machine belongs to, or "local" for a new one on it.
        name_or_path: see `TextEmbedder`.
        device: "cuda" gives every worker a GPU, "cpu" a processor; default: GPUs if the cluster has any.
        workers: at most; default: as many as the cluster has room for.
        **settings: see `TextEmbedder`.

    Raises:
        ImportError: without `ray[data]`.
    """

    def __init__(
        self,
        address: str,
        name_or_path: str | None = None,
        device: str | None = None,
        *,
        workers: int | None = None,
        **settings: Any,
    ) -> None:
        try:
            import ray
            import ray.data
        except ImportError:
            raise ImportError("embedding over Ray needs the package ray; `pip install 'ray[data]'`.") from None
        logger.info("connecting to Ray")
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        resources = ray.cluster_resources()
        kind = "CPU" if (device or "").startswith("cpu") or not device and not resources.get("GPU") else "GPU"
        if not resources.get(kind):
            raise ValueError(f"device={device!r}, and the cluster at {address!r} has no {kind}; leave the device out")
        self.workers = workers or max(1, int(resources[kind]))
        self.gpus = int(kind == "GPU")
        self.settings = {"name_or_path": name_or_path, "device": "cuda" if self.gpus else "cpu", **settings}

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """One L2-normalised vector per text, in the order given. Shape: (N, D)."""
        return next(self.encode_each([list(texts)]))

    def encode_each(self, chunks: Sequence[Iterable[str]]) -> Iterator[np.ndarray]:
        """What `encode` returns for each of several chunks of texts, which are encoded at the same time."""
        import ray.data

        settings = self.settings

        class Worker:
            def __init__(self) -> None:
                self.embedder = TextEmbedder(**settings, progress=False)

            def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
                return {"vectors": [self.embedder.encode(list(texts)) for texts in rows["texts"]]}

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.execution_options.preserve_order = False, True
        rows = ray.data.from_items([{"texts": list(texts)} for texts in chunks], override_num_blocks=len(chunks))
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(self.workers, len(chunks)))
        for row in rows.map_batches(Worker, batch_size=1, compute=pool, num_gpus=self.gpus).iter_rows():
            yield np.asarray(row["vectors"], dtype=np.float32)
