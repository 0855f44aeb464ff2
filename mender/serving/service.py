"""The model that serves: answers queries in batches, edits its catalogue, and is replaced as a whole.

Answers are computed in one thread and edits in another. An edit and a reload replace one reference, so that a batch is
answered by the model before it or after it, and no request waits for either.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import ceil
from typing import Any

from mender.batch import answer_each
from mender.recommender import Recommender
from mender.serving.bodies import Limits, Query, Refused
from mender.serving.collector import Collector, QueueFull

__all__ = ["Service", "settle"]

EDITS = 32
"""Edits that may wait for one another."""


class Service:
    """What the HTTP application asks.

    Args:
        shop: answers until the first reload.
        load: loads the model again, for `reload`; without it there is no reload.
        limits: what one request may ask for.
        batch_size: see `Collector`.
        wait: see `Collector`.
        capacity: see `Collector`.
        observe: see `Collector`.

    Attributes:
        shop: what answers now.
        draining: whether the process is about to end.
    """

    def __init__(
        self,
        shop: Recommender,
        *,
        load: Callable[[], Recommender] | None = None,
        limits: Limits | None = None,
        batch_size: int = 32,
        wait: float = 0.005,
        capacity: int = 256,
        observe: Callable[[int, list[float], float], None] | None = None,
    ) -> None:
        self.shop, self.limits, self.draining = shop, limits or Limits(), False
        self._load = load
        self.queue = Collector(
            self._answer,
            length=lambda query: query.length,
            batch_size=batch_size,
            wait=wait,
            capacity=capacity,
            observe=observe,
        )
        self._editor, self._edits = ThreadPoolExecutor(1, thread_name_prefix="edit"), 0
        warm_up(shop)

    async def recommend(self, queries: Sequence[Query]) -> list[list[dict[str, Any]]]:
        """The best items for every query.

        Raises:
            Refused: if a query cannot be answered, too many wait, or the answer takes too long.
        """
        try:
            return await asyncio.wait_for(self.queue.ask_all(queries), self.limits.timeout)
        except QueueFull as full:
            raise Refused(503, str(full), Retry_After=str(full.retry_after)) from None
        except asyncio.TimeoutError:
            message = f"no answer within {self.limits.timeout:g} s; try again later"
            raise Refused(503, message, Retry_After=str(ceil(self.limits.timeout))) from None
        except ValueError as error:
            raise Refused(400, str(error)) from None

    def item(self, item_id: str) -> dict[str, Any]:
        """An item that can be recommended.

        Raises:
            Refused: if there is none with this id.
        """
        try:
            return self.shop.item(item_id)
        except ValueError:
            raise Refused(404, f"no item has the id {item_id!r}") from None

    async def add_items(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Add items; see `Recommender.add_items`."""
        return await self.edit("add", items)

    async def update_item(self, item: dict[str, Any]) -> dict[str, Any]:
        """Change an item; see `Recommender.update_items`."""
        self.item(item["item_id"])
        return await self.edit("update", item)

    async def remove_item(self, item_id: str) -> dict[str, Any]:
        """Remove an item; see `Recommender.remove_items`."""
        self.item(item_id)
        return await self.edit("remove", item_id)

    async def observe(self, purchases: list[tuple[str, str]]) -> dict[str, Any]:
        """Count purchases; see `Recommender.observe`."""
        return await self.edit("observe", purchases)

    async def reload(self) -> dict[str, Any]:
        """Load the model again, in place of what serves and of its edits.

        Raises:
            Refused: if it cannot be loaded; what served goes on then.
        """
        if self._load is None:
            raise Refused(409, "this server has no folder to load a model from; start it with one")
        return await self.edit("reload", None)

    async def edit(self, kind: str, given: Any) -> dict[str, Any]:
        """Make an edit in the thread of edits; the status of the catalogue after it.

        Raises:
            Refused: if it cannot be made, or too many edits wait.
        """
        if self._edits >= EDITS:
            raise Refused(503, "too many edits are waiting; try again in 1 s", Retry_After="1")
        self._edits += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._editor, self.apply, kind, given)
        except (TypeError, ValueError) as error:
            raise Refused(400, str(error)) from None
        finally:
            self._edits -= 1

    def apply(self, kind: str, given: Any) -> dict[str, Any]:
        """Make an edit now; the status of the catalogue after it."""
        if kind == "reload":
            try:
                fresh = self._load()
            except (OSError, ValueError) as error:
                raise Refused(500, f"the old model goes on, because the new one cannot be loaded: {error}") from error
            warm_up(fresh)
            self.shop = fresh
        elif kind == "add":
            self.shop.add_items(given)
        elif kind == "update":
            self.shop.update_items([given])
        elif kind == "remove":
            self.shop.remove_items([given])
        else:
            self.shop.observe(given)
        return self.shop.status

    async def follow(self) -> None:
        """Begin to serve: what edits elsewhere need is done here by those that have it."""

    async def close(self) -> None:
        """Answer what waits, then end."""
        self.draining = True
        await self.queue.close()
        self._editor.shutdown(wait=True)

    def _answer(self, queries: list[Query]) -> list[Any]:
        """Answers in the order of the queries; an exception where one has none."""
        shop, answers = self.shop, [None] * len(queries)
        groups: dict[tuple, list[int]] = {}
        for place, query in enumerate(queries):
            groups.setdefault((query.unknown_items, query.num_beams), []).append(place)
        for (unknown, beams), places in groups.items():
            requests = [queries[place].request for place in places]
            found = answer_each(shop, requests, unknown_items=unknown, num_beams=beams)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers


def warm_up(shop: Recommender) -> None:
    """Answer one request, so that the first client does not wait for what is computed once."""
    known = shop.processor
    request = {"preference": "anything"} if known.reads_preference else {}
    if known.reads_history:
        request["history"] = known.item_ids[:1]
    with suppress(ValueError):  # a model may refuse it; it will say so to clients as well
        shop.recommend_batch([request], top_k=1)


def settle() -> None:
    """Collect garbage, and leave all that is alive now out of later collections; call it once, before serving.

    Half a million objects of libraries live as long as the process. A collection that looks at all of them stops every
    request for some tenths of a second. Models are in no cycles, so those of a reload or an edit go without it.
    """
    gc.collect()
    gc.freeze()
