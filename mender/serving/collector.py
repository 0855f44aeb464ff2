"""Answers requests together that arrive together.

One batch is computed at a time, in a thread; what arrives meanwhile waits and forms the next one. A batch waits for
company only as long as there were others lately, so that a lone client waits for nobody. The oldest request is always
in the next batch, and requests of similar length join it, because a batch is padded to its longest text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter
from typing import Any

__all__ = ["Collector", "QueueFull"]


class QueueFull(Exception):
    """No room for another request.

    Attributes:
        retry_after: seconds after which there probably is.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many requests are waiting; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Waiting:
    """A request and the answer that its client waits for."""

    request: Any
    length: int
    answer: asyncio.Future
    since: float = field(default_factory=perf_counter)


class Collector:
    """A queue of requests, answered in batches.

    Args:
        answer: answers several requests in a thread; an entry that is an exception is raised for its client alone.
        length: what a request costs, in any unit; requests of similar length are answered together.
        batch_size: requests in a batch at most.
        wait: seconds that a batch waits at most for as many requests as there were at the last one.
        capacity: requests that may wait.
        observe: called with every batch's size, the seconds that its requests waited, and the seconds it took.

    >>> async def main():
    ...     collector = Collector(lambda numbers: [2 * number for number in numbers], batch_size=8)
    ...     return await asyncio.gather(*map(collector.ask, range(4)))
    >>> asyncio.run(main())
    [0, 2, 4, 6]
    """

    def __init__(
        self,
        answer: Callable[[list[Any]], Sequence[Any]],
        *,
        length: Callable[[Any], int] = lambda request: 0,
        batch_size: int = 32,
        wait: float = 0.005,
        capacity: int = 256,
        observe: Callable[[int, list[float], float], None] | None = None,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("wait", wait, 0), ("capacity", capacity, 1)):
            if value < least:
                raise ValueError(f"{name}={value}; pass at least {least}")
        self._answer, self._length, self._observe = answer, length, observe
        self.batch_size, self.wait, self.capacity = batch_size, wait, capacity
        self._queue: list[_Waiting] = []
        self._expected, self._seconds, self._busy = 1, 0.1, False
        self._some, self._enough = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recommend")
        self._loop: asyncio.Task | None = None

    def __len__(self) -> int:
        """Number of requests that wait."""
        return len(self._queue)

    async def ask(self, request: Any) -> Any:
        """The answer to a request.

        Raises:
            QueueFull: if too many requests wait.
            Exception: what `answer` returned for the request, or raised.
        """
        return (await self.ask_all([request]))[0]

    async def ask_all(self, requests: Sequence[Any]) -> list[Any]:
        """The answers to several requests of one client, all or none of which are accepted; see `ask`."""
        if len(self._queue) + len(requests) > self.capacity and self._queue:
            raise QueueFull(max(1, ceil(len(self._queue) / self.batch_size * self._seconds)))
        if self._loop is None:
            self._loop = asyncio.create_task(self._serve())
        loop = asyncio.get_running_loop()
        own = [_Waiting(request, self._length(request), loop.create_future()) for request in requests]
        self._queue += own
        self._some.set()
        if len(self._queue) >= self._expected:
            self._enough.set()
        try:
            return await asyncio.gather(*(one.answer for one in own))
        finally:
            for one in own:  # of a client that gave up, or whose other request was refused
                one.answer.cancel()

    async def close(self) -> None:
        """Answer what waits, then end."""
        while self._queue or self._busy:
            await asyncio.sleep(0.01)
        if self._loop is not None:
            self._loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop
            self._loop = None
        self._thread.shutdown(wait=True)

    async def _serve(self) -> None:
        while True:
            await self._some.wait()
            if len(self._queue) < self._expected and self.wait:
                self._enough.clear()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._enough.wait(), self.wait)
            if batch := self._next():
                self._busy = True
                await self._compute(batch)
                self._busy = False
            # As many as were here a moment ago may come again, with what they ask next.
            self._expected = min(self.batch_size, max(1, len(batch) + len(self._queue)))
            if not self._queue:
                self._some.clear()

    def _next(self) -> list[_Waiting]:
        """The oldest request and those most like it in length; they leave the queue."""
        self._queue = [one for one in self._queue if not one.answer.done()]
        if len(self._queue) <= self.batch_size:
            batch, self._queue = self._queue, []
            return batch
        oldest = self._queue[0]
        similar = sorted(self._queue[1:], key=lambda one: abs(one.length - oldest.length))
        batch = [oldest, *similar[: self.batch_size - 1]]
        taken = set(map(id, batch))
        self._queue = [one for one in self._queue if id(one) not in taken]
        return batch

    async def _compute(self, batch: list[_Waiting]) -> None:
        start = perf_counter()
        waited = [start - one.since for one in batch]
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self._answer, [one.request for one in batch])
        except Exception as error:  # every client of the batch is told; the queue goes on
            answers = [error] * len(batch)
        self._seconds = perf_counter() - start
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():
                continue
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
        if self._observe is not None:
            self._observe(len(batch), waited, self._seconds)
