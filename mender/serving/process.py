"""Runs the application in one process until a signal: SIGTERM ends it when all that came before is answered."""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["log_as_json", "run_app"]

HEADERS = 65_536
"""Bytes in which the headers of a request must end."""


def run_app(
    app: FastAPI, *, host: str, port: int, connections: int = 1_000, patience: float = 10.0, grace: float = 30.0
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: see `create_app`.
        host: address to listen on.
        port: 0 takes any that is free; the log says which.
        connections: clients that may be connected at once; others are answered 503.
        patience: seconds in which the headers of a request must arrive; the connection is closed otherwise.
        grace: seconds that requests may take after a signal.

    Raises:
        OSError: if the address is in use or not of this machine.
    """
    log_as_json()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_protocol(patience),
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=connections,
        # Longer than load balancers keep a connection, which would otherwise send a request into a closed one.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(grace),
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=config.backlog) as listening:
        logging.getLogger("mender.serving").info("serving", extra={"fields": {"port": listening.getsockname()[1]}})
        _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says by `GET /ready` that it is about to stop, to those who are still connected."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.config.app.state.service.draining = True
        super().handle_exit(sig, frame)


def _protocol(patience: float) -> type[HttpToolsProtocol]:
    """HTTP for clients of which some begin a request and never end its headers, which uvicorn would wait for."""

    class Protocol(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            self.begun, self.size, self.deadline = False, 0, None
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            if self.deadline is None and not self.begun:  # the first bytes of a connection, whatever they are
                self._wait()
            super().data_received(data)
            if self.deadline is not None:
                self.size += len(data)
                if self.size > HEADERS:
                    self._close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.begun = True
            self._wait()

        def on_headers_complete(self) -> None:
            self._done()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._done()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._done()
            self.deadline = self.loop.call_later(patience, self._close)

        def _done(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
            self.deadline, self.size = None, 0

        def _close(self) -> None:
            self._done()
            self.transport.close()

    return Protocol


class _Lines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        known = {"time": f"{moment}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        known |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[0] is not None:
            known["error"] = record.exc_info[0].__name__
        return json.dumps(known)


def log_as_json() -> None:
    """Write what this package and uvicorn log to standard error, as one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("mender", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
