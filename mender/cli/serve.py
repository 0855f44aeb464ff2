"""`mender serve`: recommendations over HTTP."""

from __future__ import annotations

import logging
import os
from dataclasses import fields
from typing import Annotated

import typer

from mender.cli import options
from mender.terminal import UserError, user_errors

__all__ = ["serve"]


def serve(
    model: options.Model,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    batch_size: options.BatchSize = 32,
    wait: Annotated[
        float, typer.Option(min=0, help="Milliseconds that a batch waits at most for more requests.")
    ] = 5.0,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; further ones get status 503.")] = 256,
    at_most: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A limit of requests: body, requests, top_k, text, texts, history, ids, num_beams, edits, timeout; "
            "repeatable.",
        ),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Log what people asked for.")] = False,
) -> None:
    """Answer requests over HTTP until SIGTERM; /docs on the server describes them.

    Clients that send the token in MENDER_TOKEN may change the catalogue; if it is not set, nobody may. If
    MENDER_READ_TOKEN is set, reading needs a token too. For example:

    MENDER_TOKEN=secret mender serve MODEL --port 8000 --at-most top_k=50
    """
    try:
        from mender.serving.measures import Measures
        from mender.serving.process import log_as_json, run_app

        Measures()
    except ImportError as error:
        raise UserError(
            f"mender serve needs the extra serve: {error.name} is not installed; `mender doctor` says what to install"
        ) from None
    # What starts and loads takes seconds, and is said in the form of the log.
    log_as_json()
    logging.getLogger("mender.serving").info("starting")

    from mender.recommender import Recommender
    from mender.serving.app import create_app
    from mender.serving.bodies import Limits
    from mender.serving.service import Service, settle

    given = options.assignments(at_most or [], "--at-most")
    known = {field.name: field.default for field in fields(Limits)}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"--at-most {name}={value}: no such limit; there are {', '.join(known)}")
        if not isinstance(value, type(known[name]) | int) or isinstance(value, bool):
            raise UserError(f"--at-most {name}={value}; pass a number")

    def load() -> Recommender:
        return Recommender.from_pretrained(model, device=device, dtype=None if dtype == "auto" else dtype)

    with user_errors():
        limits, shop = Limits(**given), load()

    def service(measures: Measures) -> Service:
        settings = {"batch_size": batch_size, "wait": wait / 1e3, "capacity": queue}
        own = Service(shop, load=load, limits=limits, observe=measures.batch, **settings)
        settle()
        return own

    tokens = {"token": os.environ.get("MENDER_TOKEN"), "read_token": os.environ.get("MENDER_READ_TOKEN")}
    with user_errors():
        app = create_app(service, **tokens, log_texts=log_texts)
        run_app(app, host=host, port=port, patience=limits.timeout)
