"""The application of `mender serve` on Ray Serve: replicas on many machines, and edits that reach all of them.

Every replica is the whole application over a model of its own. Edits go through one log, an actor: a replica appends an
edit, and all replicas make the edits of the log in its order, so that all come to the same catalogue. The replica that
took an edit answers when it has made it; the others follow within `POLL` seconds and the time of the edit itself, and
until then answer with the catalogue before it. A new replica makes all edits since the last reload before it serves.

If the log's actor is lost, Ray starts an empty one; replicas then load the model again, and the edits are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from typing import Any

from fastapi import FastAPI

from mender.recommender import Recommender
from mender.serving.app import create_app
from mender.serving.bodies import Limits, Refused
from mender.serving.measures import Measures
from mender.serving.service import Service, settle

__all__ = ["EditLog", "ReplicatedService", "application"]

POLL = 0.2
"""Seconds between two looks of a replica at the log."""


class EditLog:
    """Edits in the order in which all replicas make them.

    Attributes:
        name: another one for every log, so that replicas notice a new one.
    """

    def __init__(self) -> None:
        self.name, self.first, self.edits = secrets.token_hex(8), 0, []

    def append(self, kind: str, given: Any) -> tuple[str, int]:
        """Name of the log, and place of the edit in it."""
        if kind == "reload":  # what came before has no effect any more
            self.first, self.edits = self.first + len(self.edits), []
        self.edits.append((kind, given))
        return self.name, self.first + len(self.edits) - 1

    def since(self, place: int) -> tuple[str, int, list[tuple[str, Any]]]:
        """Name of the log, and edits from a place on, or from the first that still has an effect.

        >>> log = EditLog()
        >>> _ = log.append("remove", "a"), log.append("reload", None), log.append("remove", "b")
        >>> log.since(0)[1:]
        (1, [('reload', None), ('remove', 'b')])
        """
        first = max(place, self.first)
        return self.name, first, self.edits[first - self.first :]


class ReplicatedService(Service):
    """A `Service` whose edits go through a log.

    Args:
        shop: see `Service`.
        log: handle of the actor with the `EditLog`.
        **settings: see `Service`.
    """

    def __init__(self, shop: Recommender, log: Any, **settings: Any) -> None:
        super().__init__(shop, **settings)
        self._log, self._name, self._next = log, None, 0
        self._waiting: dict[tuple[str, int], asyncio.Future] = {}
        self._following: asyncio.Task | None = None
        self._turn = asyncio.Lock()

    async def follow(self) -> None:
        """Make all edits of the log, then look for new ones until closed."""
        await self._catch_up()

        from ray.exceptions import RayError

        async def again() -> None:
            while True:
                await asyncio.sleep(POLL)
                with contextlib.suppress(RayError):  # Ray starts the log again
                    await self._catch_up()

        self._following = asyncio.create_task(again())

    async def edit(self, kind: str, given: Any) -> dict[str, Any]:
        """Append an edit to the log; the status of the catalogue when it is made here."""
        from ray.exceptions import RayError

        try:
            place = await self._log.append.remote(kind, given)
        except RayError:
            raise Refused(503, "edits cannot be taken at the moment; try again in 1 s", Retry_After="1") from None
        done = self._waiting.setdefault(place, asyncio.get_running_loop().create_future())
        await self._catch_up()
        if not done.done():
            self._waiting.pop(place, None)
            raise Refused(503, "the log of edits was lost; send the edit again", Retry_After="1")
        return done.result()

    async def close(self) -> None:
        """See `Service`."""
        if self._following is not None:
            self._following.cancel()
        await super().close()

    async def _catch_up(self) -> None:
        async with self._turn:
            name, first, edits = await self._log.since.remote(self._next)
            if name != self._name:
                if self._name is not None:  # the log before it is lost, with edits that a new replica cannot make
                    await super().edit("reload", None)
                    name, first, edits = await self._log.since.remote(0)
                self._name = name
            for place, (kind, given) in enumerate(edits, first):
                done = self._waiting.pop((name, place), None)
                try:
                    status = await super().edit(kind, given)
                except Refused as refused:  # by every replica, since all have the same catalogue
                    if done is not None:
                        done.set_exception(refused)
                else:
                    if done is not None:
                        done.set_result(status)
                self._next = place + 1


def application(
    model: str,
    *,
    replicas: int | None = None,
    most_replicas: int | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    dtype: str | None = None,
    limits: Limits | None = None,
    batch_size: int = 32,
    wait: float = 0.005,
    capacity: int = 256,
) -> Any:
    """What `serve.run` of Ray deploys. Tokens are those in `MENDER_TOKEN` and `MENDER_READ_TOKEN` of this process.

    Args:
        model: folder with the same path on all machines, or a name on the Hub.
        replicas: how many; with `most_replicas`, at least.
        most_replicas: how many at most, as many as the load needs; default: always `replicas`.
        cpus: of a replica.
        gpus: of a replica.
        dtype: type of the weights.
        limits: see `Service`.
        batch_size: see `Collector`.
        wait: see `Collector`.
        capacity: see `Collector`.

    >>> from ray import serve  # doctest: +SKIP
    >>> serve.run(application("outputs/quickstart/model", replicas=2))  # doctest: +SKIP
    """
    from ray import remote, serve

    tokens = {"token": os.environ.get("MENDER_TOKEN"), "read_token": os.environ.get("MENDER_READ_TOKEN")}
    log_name = f"mender edits of {model} {secrets.token_hex(4)}"

    def build() -> FastAPI:
        def load() -> Recommender:
            return Recommender.from_pretrained(model, device="cuda" if gpus else "cpu", dtype=dtype)

        log = remote(EditLog).options(
            name=log_name, namespace="mender", get_if_exists=True, lifetime="detached", max_restarts=-1, num_cpus=0
        )

        def service(measures: Measures) -> Service:
            settings = {"limits": limits, "batch_size": batch_size, "wait": wait, "capacity": capacity}
            own = ReplicatedService(load(), log.remote(), load=load, observe=measures.batch, **settings)
            settle()
            return own

        return create_app(service, **tokens)

    scale: dict[str, Any] = {"num_replicas": replicas or 1}
    if most_replicas is not None:
        scale = {"autoscaling_config": {"min_replicas": replicas or 1, "max_replicas": most_replicas}}
    deployment = serve.deployment(
        name="mender",
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        max_ongoing_requests=capacity,
        graceful_shutdown_timeout_s=30,
        health_check_period_s=5,
        **scale,
    )
    return deployment(serve.ingress(build)()).bind()
