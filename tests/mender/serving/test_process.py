"""The command in a process of its own: SIGTERM ends it when what came before is answered."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from small_shops import IDS

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx")
ROOT = Path(__file__).parents[3]
PATHS = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
def server(shop_folder, tmp_path):
    """A server, its address, and the file of its log: a pipe that nobody reads would stop it."""
    command = [sys.executable, "-m", "mender", "serve", shop_folder, "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": PATHS, "MENDER_TOKEN": "s3cret"}
    log = tmp_path / "log.jsonl"
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream, env=environment, cwd=ROOT)
    try:
        events = {}
        while "Application startup complete." not in events:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
            whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
            events = {line["event"]: line for line in map(json.loads, whole)}
        yield process, f"http://127.0.0.1:{events['serving']['port']}", log
    finally:
        process.kill()
        process.wait()


def test_it_answers_and_drains(server):
    process, address, log = server
    with httpx.Client(base_url=address, timeout=30) as client:
        for path in ("/health", "/ready"):
            assert client.get(path).status_code == 200
        assert len(client.post("/recommend", json={"preference": "find tea", "top_k": 3}).json()["items"]) == 3
        found = client.delete(f"/items/{IDS[0]}", headers={"authorization": "Bearer s3cret"})
        assert found.json()["removed"] == 1
    # Many requests wait when the signal comes; all of them are answered.
    answers = []

    def ask():
        with httpx.Client(base_url=address, timeout=30) as client:
            answers.append(client.post("/recommend", json=["find tea"] * 30).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    with httpx.Client(base_url=address, timeout=30) as client:
        accepted = 0
        while accepted < 240:
            counts = re.findall(r"^mender_(?:batch_size_sum|queue_length) (\S+)$", client.get("/metrics").text, re.M)
            accepted = sum(map(float, counts)) + 32  # a batch is counted when it is done
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    assert answers == [200] * 8
    assert "Traceback" not in log.read_text()
    with pytest.raises(httpx.TransportError), httpx.Client(base_url=address) as client:
        client.get("/health")


@pytest.fixture
def own_logging():
    """The command sends what these write to its log; afterwards they are as they were."""
    loggers = [logging.getLogger(name) for name in ("mender", "uvicorn")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_port_in_use_ends_in_one_line(shop_folder, mender, own_logging, monkeypatch):
    monkeypatch.setattr("mender.serving.service.settle", lambda: None)  # the objects of this process go on to be freed
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, err = mender("serve", shop_folder, "--port", port, "--device", "cpu")
    *logged, line = err.splitlines()
    assert code == 2 and line.startswith("error: ") and "ddress already in use" in line
    assert [json.loads(entry)["event"] for entry in logged[:1]] == ["starting"]


def served(sent: bytes, patience: float) -> bytes:
    """What a server of nothing answers to some bytes until it closes the connection."""
    import uvicorn

    from mender.serving.process import _protocol

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(app, http=_protocol(patience), lifespan="off", log_config=None, timeout_keep_alive=600)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            with socket.create_connection(listening.getsockname(), timeout=60) as client:
                with suppress(OSError):
                    client.sendall(sent)
                found = b""
                with suppress(ConnectionError):
                    while part := client.recv(4096):
                        found += part
                return found
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize(
    ("sent", "patience"),
    [(b"P", 0.1), (b"GET / HTTP/1.1\r\nHost: x\r\nA: b", 0.1), (b"GET / HTTP/1.1\r\nA: " + b"a" * 200_000, 600)],
)
def test_headers_that_do_not_end_end_the_connection(sent, patience):
    assert served(sent, patience) == b""


def test_a_second_request_has_to_end_its_headers_as_well():
    assert served(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n", 1.0).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
def test_whatever_the_description_allows_or_not_is_answered_as_it_says(server):
    """Random requests from the OpenAPI page, valid and not: no failure, and only described answers."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi import checks

    address = server[1]
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    kept = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]
    kept.append(schemathesis.checks.not_a_server_error)
    tried = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        examples = 2 if operation.path == "/reload" else 40
        for mode in modes:

            @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(operation.as_strategy(generation_mode=mode))
            def attack(case):
                nonlocal tried
                tried += 1
                answer = case.call(headers={"authorization": "Bearer s3cret"}, timeout=120)
                case.validate_response(answer, checks=kept)

            with suppress(Unsatisfiable):  # without a body or parameters, there is nothing to get wrong
                attack()
    assert tried > 200
    assert httpx.get(f"{address}/ready").status_code == 200
