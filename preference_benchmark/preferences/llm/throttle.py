"""Not faster than a server allows: requests and tokens per minute, and a pause for all when it asks for one."""

from __future__ import annotations

import asyncio
import threading
import time

__all__ = ["Throttle"]

_MINUTE = 60.0
# A sleeping task looks this often whether the run was stopped.
_LOOK_SECONDS = 0.2


class Throttle:
    """Spaces requests evenly, so that there is no burst that a server with shorter windows would refuse.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit; read and written tokens together.

    Raises:
        ValueError: if a limit is not positive.
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, limit in limits.items():
            if limit is not None and limit <= 0:
                raise ValueError(f"{name}={limit} lets nothing through; pass a positive number, or None for no limit.")
        self._per_request = _MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._per_token = _MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self._free_at = self._held_until = 0.0

    async def wait(self, tokens: int, stop: threading.Event) -> bool:
        """Return when a request of about so many tokens may begin; False if the run was stopped before."""
        now = time.monotonic()
        begin = max(self._free_at, now)
        self._free_at = begin + self._per_request + self._per_token * tokens
        if not await pause(begin - now, stop):
            return False
        # Another task may have been told to wait in the meantime; that holds for this one too.
        while (held := self._held_until - time.monotonic()) > 0:
            if not await pause(held, stop):
                return False
        return not stop.is_set()

    def hold(self, seconds: float) -> None:
        """Let nothing begin for so long."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def correct(self, expected: int, used: int) -> None:
        """Account for a request that took more or fewer tokens than expected."""
        self._free_at += self._per_token * (used - expected)


async def pause(seconds: float, stop: threading.Event) -> bool:
    """Sleep; False if `stop` is set before the time is over."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stop.is_set():
            return False
        await asyncio.sleep(min(left, _LOOK_SECONDS))
    return not stop.is_set()
