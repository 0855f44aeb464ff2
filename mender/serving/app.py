"""The HTTP application: JSON in, JSON out, for any ASGI server.

It reads bodies under limits, asks a `Service`, and turns every error into a status and one sentence. It holds no state
of its own, so that one process serves it as well as many replicas do.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mender import __version__
from mender.serving import openapi
from mender.serving.bodies import Refused, items_of, json_of, purchases_of, queries_of
from mender.serving.measures import Measures
from mender.serving.service import Service

__all__ = ["create_app"]

log = logging.getLogger("mender.serving")
READ_ERRORS = (400, 401, 408, 413, 415, 500, 503)
WRITE_ERRORS = (400, 401, 403, 408, 413, 415, 500, 503)


def create_app(
    service: Service | Callable[[Measures], Service],
    *,
    token: str | None = None,
    read_token: str | None = None,
    log_texts: bool = False,
) -> FastAPI:
    """The application.

    Args:
        service: answers; or what makes one, at the start of the application, of the measures that it reports to.
        token: what clients must present to change something; without one, nothing can be changed.
        read_token: what clients must present to ask; default: nothing. `token` is good for both.
        log_texts: whether the log has the texts of requests and the sentences that refuse them.

    Raises:
        ImportError: without the packages of the extra `serve`.
    """
    measures, state = Measures(), {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state["service"] = own = service if isinstance(service, Service) else service(measures)
        measures.watch(lambda: len(own.queue), lambda: len(own.shop))
        app.state.service = own
        await own.follow()
        yield
        await own.close()

    app = FastAPI(
        title="Mender", version=__version__, description=openapi.description, lifespan=lifespan, redoc_url=None
    )
    app.add_middleware(_Outermost, measures=measures)

    def serving() -> Service:
        return state["service"]

    def check(request: Request, write: bool = False) -> None:
        """Whether the client may do this."""
        accepted = [secret for secret in ((token,) if write else (token, read_token)) if secret]
        if write and not accepted:
            raise Refused(403, "this server changes nothing; start it with MENDER_TOKEN set")
        if not write and not read_token:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        known = [hmac.compare_digest(given.strip().encode("latin-1"), secret.encode()) for secret in accepted]
        if scheme.lower() != "bearer" or not any(known):
            raise Refused(401, "send a header 'Authorization: Bearer TOKEN'", WWW_Authenticate="Bearer")

    async def given(request: Request) -> Any:
        """The JSON body."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, f"send JSON with a header 'Content-Type: application/json', not {kind[:60]!r}")
        limits, parts = serving().limits, []
        large = Refused(413, f"the body is larger than {limits.body:,} bytes; send less at once")

        async def arrive() -> None:
            size = 0
            async for part in request.stream():
                parts.append(part)
                if (size := size + len(part)) > limits.body:
                    raise large

        told = request.headers.get("content-length", "0")
        if told.isdecimal() and len(told.lstrip("0")) > 18 or int(told if told.isdecimal() else 0) > limits.body:
            raise large
        try:
            await asyncio.wait_for(arrive(), limits.timeout)
        except asyncio.TimeoutError:
            raise Refused(408, f"the body did not arrive within {limits.timeout:g} s", Connection="close") from None
        value = json_of(b"".join(parts))
        if log_texts:
            request.scope["mender.body"] = value
        return value

    read = {"tags": ["read"]}
    write = {"tags": ["write"]}

    @app.post(
        "/recommend",
        **read,
        responses=openapi.answers("Answers", *READ_ERRORS),
        openapi_extra=openapi.body("Requests"),
    )
    async def recommend(request: Request) -> Response:
        """The best items for one request, or for each of a list."""
        check(request)
        queries, many = queries_of(await given(request), serving().limits)
        found = [{"items": items} for items in await serving().recommend(queries)]
        return _json(found if many else found[0])

    @app.get("/items/{item_id:path}", **read, responses=openapi.answers("Item", 401, 404))
    async def item(item_id: str, request: Request) -> Response:
        """An item of the catalogue."""
        check(request)
        return _json(serving().item(item_id))

    @app.post(
        "/items", **write, responses=openapi.answers("Status", *WRITE_ERRORS), openapi_extra=openapi.body("Items")
    )
    async def add_items(request: Request) -> Response:
        """Add one item, or several at once or not at all."""
        check(request, write=True)
        return _json(await serving().add_items(items_of(await given(request), serving().limits)))

    @app.patch(
        "/items/{item_id:path}",
        **write,
        responses=openapi.answers("Status", 404, *WRITE_ERRORS),
        openapi_extra=openapi.body("Change"),
    )
    async def update_item(item_id: str, request: Request) -> Response:
        """Change title, text or aspects of an item."""
        check(request, write=True)
        (change,) = items_of([await given(request)], serving().limits)
        if "item_id" in change:
            raise Refused(400, "the id of an item stays; send title, text or aspects")
        return _json(await serving().update_item({"item_id": item_id, **change}))

    @app.delete("/items/{item_id:path}", **write, responses=openapi.answers("Status", 400, 401, 403, 404, 503))
    async def remove_item(item_id: str, request: Request) -> Response:
        """Remove an item; it may still be in histories."""
        check(request, write=True)
        return _json(await serving().remove_item(item_id))

    @app.post(
        "/observe",
        **write,
        responses=openapi.answers("Status", *WRITE_ERRORS),
        openapi_extra=openapi.body("Purchases"),
    )
    async def observe(request: Request) -> Response:
        """Count purchases, oldest first."""
        check(request, write=True)
        return _json(await serving().observe(purchases_of(await given(request), serving().limits)))

    @app.post("/reload", **write, responses=openapi.answers("Status", 401, 403, 409, 500, 503))
    async def reload(request: Request) -> Response:
        """Load the model's folder again, in place of what serves and of all edits since."""
        check(request, write=True)
        return _json(await serving().reload())

    @app.get("/health", tags=["state"], responses=openapi.answers("State"))
    async def health() -> Response:
        """Whether the process answers."""
        return _json({"status": "alive"})

    @app.get("/ready", tags=["state"], responses=openapi.answers("State", 503))
    async def ready() -> Response:
        """Whether to send requests here."""
        now = serving()
        if now.draining:
            raise Refused(503, "this server is about to stop", Retry_After="1")
        if len(now.queue) >= now.queue.capacity:
            raise Refused(503, "too many requests are waiting", Retry_After="1")
        return _json({"status": "ready"})

    @app.get("/metrics", tags=["state"], responses={200: {"content": {"text/plain": {}}}})
    async def metrics(request: Request) -> Response:
        """Counters and histograms for Prometheus."""
        check(request)
        return Response(measures.text(), media_type="text/plain; version=0.0.4")

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        if log_texts:
            request.scope["mender.refused"] = str(error)
        return _json({"error": str(error)}, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        return _json({"error": f"{error.detail}; see /docs"}, error.status_code, error.headers)

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            found["components"] = {"schemas": openapi.schemas(serving().limits)}
            scheme = {"bearer": {"type": "http", "scheme": "bearer"}}
            found["components"]["securitySchemes"] = scheme
            for path in found["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    if operation["tags"] == ["write"] or (operation["tags"] == ["read"] and read_token):
                        operation["security"] = [{"bearer": []}]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = describe
    return app


class _Outermost:
    """Counts and logs every answer, and lets no traceback reach a client."""

    def __init__(self, app: Any, measures: Measures) -> None:
        self.app, self.measures = app, measures

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = perf_counter(), 0

        async def watched(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            status = 499
        except Exception as error:
            self._failed(error)
            if not status:
                await _json({"error": "the server failed; its log says where"}, 500)(scope, receive, watched)
        finally:
            seconds = perf_counter() - start
            # The pattern of the path, since paths hold ids and whatever strangers write.
            path = getattr(scope.get("route"), "path", "other")
            self.measures.answer(path, status, seconds)
            known = {"method": scope["method"], "path": path, "status": status, "ms": round(seconds * 1e3, 1)}
            texts = {name: scope[f"mender.{name}"] for name in ("body", "refused") if f"mender.{name}" in scope}
            level = logging.ERROR if status >= 500 and status != 503 else logging.INFO
            log.log(level, "request", extra={"fields": known | texts})

    def _failed(self, error: Exception) -> None:
        """Logs where an error came from, without its message, which may quote a request."""
        places, step = [], error.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            places.append(f"{code.co_filename.rpartition('site-packages/')[2]}:{step.tb_lineno} {code.co_name}")
            step = step.tb_next
        log.error("failure", extra={"fields": {"error": type(error).__name__, "places": places[-8:]}})


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
    # ASCII, since a message may quote half a character, which UTF-8 cannot say.
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")
