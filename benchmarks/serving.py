"""Load on servers over loopback: throughput and latency of a lock, a thread per request, `mender serve` and others.

    python benchmarks/serving.py outputs/quickstart/model --seconds 5 --json serving.json

Every server is a process of its own, and the load comes from another one: clients of a few lines on asyncio streams,
each with a connection that stays open, which asks again when it has its answer. Servers take turns, in several rounds.
`lock`, `threads` and `mender` are the same application; only how it asks the model differs. `litserve` and `ray` are
the batching of these libraries over the same model, where they are installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import util
from pathlib import Path
from typing import Annotated, Any
from urllib.request import urlopen

import typer

from mender.terminal import run_script

TOKEN = "benchmark"
SERVERS = ("lock", "threads", "mender")
WISHES = ("tea with a malty brew", "a gift for a gardener", "candles with a vanilla scent", "dark chocolate", "soap")
GARBAGE = (b"{", b"[" * 5000, b'{"preference": 3}', b'{"history": ["nobody"]}', b'{"top_k": 1e9}', b"\xff" * 100, b"[]")


def main(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    servers: Annotated[str, typer.Option(help="Which servers, separated by commas.")] = ",".join(SERVERS),
    clients: Annotated[str, typer.Option(help="Numbers of clients, separated by commas.")] = "1,8,32",
    seconds: Annotated[float, typer.Option(help="Seconds of load on each server in each round.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every server.")] = 3,
    disturb: Annotated[str, typer.Option(help="Also, on mender alone: edits, reload, garbage.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
    serve: Annotated[str | None, typer.Option(hidden=True)] = None,
    port: Annotated[int, typer.Option(hidden=True)] = 0,
    load: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure and print."""
    if serve is not None:
        return run_server(serve, model, port)
    if load is not None:
        return print(json.dumps(asyncio.run(ask_for(**json.loads(load)))))
    names, counts = servers.split(","), [int(count) for count in clients.split(",")]
    rows = []
    with running(names, model) as (ports, groups):
        for count in counts:
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    before = processor_seconds(groups[name])
                    found[name].append(under_load(model, ports[name], name, count, seconds))
                    found[name][-1]["processor"] = processor_seconds(groups[name]) - before
            rows += [{"server": name, "clients": count, **merged(found[name])} for name in names]
            show(rows[-len(names) :])
        for kind in filter(None, disturb.split(",")):
            one = under_load(model, ports["mender"], "mender", counts[-1], max(seconds, 10), kind)
            rows.append({"server": f"mender, {kind}", "clients": counts[-1], **merged([one])})
            show(rows[-1:])
    if json_file is not None:
        record = {"seconds": seconds, "rounds": rounds, "load_average": os.getloadavg(), "cpus": os.cpu_count()}
        json_file.write_text(json.dumps({**record, "rows": rows}, indent=1) + "\n", "utf-8")


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows of the table."""
    for row in rows:
        extra = "".join(
            f"  {name} {row[name]}" for name in ("per_processor_second", "disturbed", "disturbances_ms") if name in row
        )
        print(
            f"{row['server']:16} {row['clients']:4} clients {row['per_second']:8.1f}/s  p50 {row['p50_ms']:7.1f} ms  "
            f"p99 {row['p99_ms']:7.1f} ms  failed {row['failed']}{extra}",
            flush=True,
        )


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds of throughput, and percentiles of all answers."""
    times = sorted(value for run in runs for value in run["ms"])
    figures = {
        "per_second": statistics.median(len(run["ms"]) / run["seconds"] for run in runs),
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[min(len(times) - 1, int(len(times) * 0.99))],
        "answers": len(times),
        "failed": sum(run["failed"] for run in runs),
    }
    if all("processor" in run for run in runs):
        figures["per_processor_second"] = round(len(times) / sum(run["processor"] for run in runs), 1)
    if others := [value for run in runs for value in run["others"]]:
        figures["disturbed"] = len(others)
        figures["disturbances_ms"] = round(statistics.median(others), 1)
    return figures


# Load


def under_load(model: str, port: int, server: str, clients: int, seconds: float, disturb: str = "") -> dict[str, Any]:
    """What clients in a process of their own saw."""
    ask = {"port": port, "server": server, "clients": clients, "seconds": seconds, "disturb": disturb}
    command = [sys.executable, __file__, model, "--load", json.dumps(ask)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


async def ask_for(port: int, server: str, clients: int, seconds: float, disturb: str) -> dict[str, Any]:
    """Milliseconds of every answer of several clients, and how many failed."""
    times: list[float] = []
    others: list[float] = []
    failed = 0
    path = "/predict" if server == "litserve" else "/recommend"
    # Connected before the clock runs; servers are warm.
    links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(clients)]
    await ask(links[0], "POST", path, request(0))
    start = time.perf_counter()
    end = start + seconds

    async def client(number: int) -> None:
        nonlocal failed
        place = number
        while (before := time.perf_counter()) < end:
            status = await ask(links[number], "POST", path, request(place))
            times.append((time.perf_counter() - before) * 1e3)
            failed += status != 200
            place += clients

    tasks = [client(number) for number in range(clients)]
    if disturb:
        tasks.append(disturbing(port, disturb, end, others))
    await asyncio.gather(*tasks)
    return {"ms": times, "failed": failed, "seconds": time.perf_counter() - start, "others": others}


async def disturbing(port: int, kind: str, end: float, times: list[float]) -> None:
    """Edits ten times a second, a reload every three seconds, or garbage as fast as it is refused."""
    link = await asyncio.open_connection("127.0.0.1", port)
    number, step = 0, {"edits": 0.1, "reload": 3.0}.get(kind, 0.0)
    while (before := time.perf_counter()) < end:
        if kind == "garbage":
            status = await ask(link, "POST", "/recommend", GARBAGE[number % len(GARBAGE)])
            good = 400 <= status < 500
        elif kind == "reload":
            good = await ask(link, "POST", "/reload", b"") == 200
        elif number % 2:
            good = await ask(link, "DELETE", f"/items/new-{number - 1}", b"") == 200
        else:
            item = {"item_id": f"new-{number}", "title": f"tea {number}"}
            good = await ask(link, "POST", "/items", json.dumps(item).encode()) == 200
        if not good:
            raise RuntimeError(f"{kind}: not the status that was expected")
        times.append((time.perf_counter() - before) * 1e3)
        number += 1
        await asyncio.sleep(max(0.0, before + step - time.perf_counter()))


def request(number: int) -> bytes:
    """A request; no two follow each other with the same text."""
    return json.dumps({"preference": f"{WISHES[number % len(WISHES)]} number {number % 97}"}).encode()


async def ask(link: tuple[Any, Any], method: str, path: str, body: bytes) -> int:
    """The status of an answer, which is read to its end."""
    reader, writer = link
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return int(answer.split(b" ", 2)[1])


# Servers


@contextmanager
def running(names: list[str], model: str) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Ports of servers and their process groups."""
    processes, ports, log = [], {}, tempfile.TemporaryFile()
    try:
        for name in names:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports[name] = free.getsockname()[1]
            command = [sys.executable, __file__, model, "--serve", name, "--port", str(ports[name])]
            processes.append(subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log))
        for name, process in zip(names, processes, strict=True):
            _wait(name, process, ports[name])
        yield ports, {name: process.pid for name, process in zip(names, processes, strict=True)}
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def request_to(port: int, path: str, timeout: float) -> Any:
    """The answer to a single GET."""
    return urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout)


def processor_seconds(group: int) -> float:
    """Processor time of the processes of a group, which a busy machine does not change; Linux only."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            values = stat.read_text().rpartition(")")[2].split()
            total += (int(values[11]) + int(values[12])) * (int(values[2]) == group)
    return total / os.sysconf("SC_CLK_TCK")


def _wait(name: str, process: subprocess.Popen, port: int) -> None:
    for _ in range(1800):
        with suppress(OSError), request_to(port, "/health", 5) as answer:
            if answer.status == 200:
                return
        if process.poll() is not None:
            raise RuntimeError(f"the server {name} ended with {process.returncode}")
        time.sleep(0.1)
    raise RuntimeError(f"the server {name} does not listen")


def run_server(kind: str, model: str, port: int) -> None:
    """Serve until killed."""
    if kind == "litserve":
        return run_litserve(model, port)
    if kind == "ray":
        return run_ray(model, port)
    from mender import Recommender
    from mender.serving.app import create_app
    from mender.serving.bodies import Limits
    from mender.serving.process import run_app
    from mender.serving.service import Service

    class Threads(Service):
        """A thread for every request."""

        pool = ThreadPoolExecutor(256)

        async def recommend(self, queries: Any) -> Any:
            requests = [query.request for query in queries]
            return await asyncio.get_running_loop().run_in_executor(self.pool, self.shop.recommend_batch, requests)

    def load() -> Recommender:
        return Recommender.from_pretrained(model)

    shop, limits = load(), Limits(timeout=120)
    # One at a time, in the order of arrival, is what a lock gives.
    settings = {"limits": limits, "load": load, "batch_size": 1 if kind == "lock" else 32}
    service = (Threads if kind == "threads" else Service)(shop, **settings)
    run_app(create_app(service, token=TOKEN), host="127.0.0.1", port=port)


if util.find_spec("litserve"):
    import litserve

    class Api(litserve.LitAPI):  # its process finds the class by the name of this module
        """LitServe's own batching."""

        def setup(self, device: str) -> None:
            """Load the model."""
            from mender import Recommender

            self.shop = Recommender.from_pretrained(os.environ["MODEL"])

        def predict(self, requests: Any) -> Any:
            """Answers to a batch."""
            return self.shop.recommend_batch(requests)

        def encode_response(self, output: Any) -> Any:
            """As `mender serve` has it."""
            return {"items": output}


def run_litserve(model: str, port: int) -> None:
    """Serve with LitServe."""
    os.environ["MODEL"] = model
    api = Api(max_batch_size=32, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu", timeout=120).run(port=port, host="127.0.0.1", generate_client_file=False)


def run_ray(model: str, port: int) -> None:
    """`@serve.batch` of Ray Serve in one replica."""
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    import ray
    from ray import serve

    @serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
    class Replica:
        def __init__(self) -> None:
            from mender import Recommender

            self.shop = Recommender.from_pretrained(model)

        @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
        async def answer(self, requests: list[Any]) -> list[Any]:
            return await asyncio.to_thread(self.shop.recommend_batch, requests)

        async def __call__(self, request: Any) -> Any:
            if request.url.path == "/health":
                return {}
            return {"items": await self.answer(await request.json())}

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Replica.bind())
    signal.pause()


if __name__ == "__main__":
    run_script(main, __doc__)
