"""Counters and histograms of a server, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Measures"]

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Measures:
    """What `GET /metrics` shows.

    Args:
        prefix: of the names of all measures.

    Raises:
        ImportError: without `prometheus_client`, which the extra `serve` installs.
    """

    def __init__(self, prefix: str = "mender") -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            PlatformCollector,
            ProcessCollector,
        )

        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        self._requests = Counter(f"{prefix}_http_requests", "Answers", ["path", "status"], registry=own)
        self._seconds = Histogram(
            f"{prefix}_http_seconds", "Seconds of an answer", ["path"], buckets=SECONDS, registry=own
        )
        self._batches = Histogram(
            f"{prefix}_batch_size", "Requests in a batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=own
        )
        self._waits = Histogram(f"{prefix}_wait_seconds", "Seconds in the queue", buckets=SECONDS, registry=own)
        self._computing = Histogram(f"{prefix}_batch_seconds", "Seconds of a batch", buckets=SECONDS, registry=own)
        self._queue = Gauge(f"{prefix}_queue_length", "Requests that wait", registry=own)
        self._items = Gauge(f"{prefix}_items", "Items that can be recommended", registry=own)

    def watch(self, queue: Callable[[], float], items: Callable[[], float]) -> None:
        """Read the length of the queue and the number of items whenever somebody asks."""
        self._queue.set_function(queue)
        self._items.set_function(items)

    def batch(self, size: int, waited: list[float], seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(size)
        self._computing.observe(seconds)
        for wait in waited:
            self._waits.observe(wait)

    def answer(self, path: str, status: int, seconds: float) -> None:
        """Count an answer to a client."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All measures."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
