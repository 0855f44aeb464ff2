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

__all__ = ["log_as_json", "run_app"]


def run_app(app: FastAPI, *, host: str, port: int, connections: int = 1_000, grace: float = 30.0) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: see `create_app`.
        host: address to listen on.
        port: 0 takes any that is free; the log says which.
        connections: clients that may be connected at once; others are answered 503.
        grace: seconds that requests may take after a signal.

    Raises:
        OSError: if the address is in use or not of this machine.
    """
    log_as_json()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
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
