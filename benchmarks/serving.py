"""Load on servers over loopback: throughput and latency of a lock, a thread per request, `mender serve` and others.

    python benchmarks/serving.py outputs/quickstart/model --json serving.json --chart serving.png

Every server is a process of its own, and the load comes from another one: clients of a few lines on asyncio streams,
each with a connection that stays open, which asks again when it has its answer. Servers take turns, in several rounds.
`lock`, `threads` and `mender` are the same application; only how it asks the model differs. `litserve` and `ray` are
the batching of these libraries over the same model, where they are installed, and `ray-queue` is the application of
this project on Ray Serve. `--disturb` does something else to `mender` at the same time, and `--soak` reads its memory
over many requests.
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
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.request import urlopen

import typer

from mender.terminal import run_script

TOKEN = "benchmark"
SERVERS = ("lock", "threads", "mender")
WISHES = ("tea with a malty brew", "a gift for a gardener", "candles with a vanilla scent", "dark chocolate", "soap")
ELSEWHERE, ATTEMPTS = 0.04, 6
"""A measurement during which other processes took a larger share of the processors is repeated so many times."""
COLOURS = {"lock": "#7f7f7f", "threads": "#bcbd22", "mender": "#d62728", "litserve": "#1f77b4"}
COLOURS |= {"ray": "#2ca02c", "ray-queue": "#9467bd"}
GARBAGE = (b"{", b"[" * 5000, b'{"preference": 3}', b'{"history": ["nobody"]}', b'{"top_k": 1e9}', b"\xff" * 100, b"[]")


def main(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    servers: Annotated[str, typer.Option(help="Which servers, separated by commas.")] = ",".join(SERVERS),
    clients: Annotated[str, typer.Option(help="Numbers of clients, separated by commas.")] = "1,8,32,128",
    weights: Annotated[
        Literal["own", "generator"], typer.Option(help="The model's own, or the generator alone without experts.")
    ] = "own",
    seconds: Annotated[float, typer.Option(help="Seconds of load on each server in each round.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every server.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch in every server.")] = 1,
    disturb: Annotated[str, typer.Option(help="Also, on mender alone: nothing, edits, reload, garbage.")] = "",
    disturbed_clients: Annotated[int, typer.Option(min=1, help="Clients of --disturb and --soak.")] = 32,
    soak: Annotated[int, typer.Option(min=0, help="Also, on mender alone: as many requests, and its memory.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Where to draw throughput and p99 over clients.")] = None,
    serve: Annotated[str | None, typer.Option(hidden=True)] = None,
    port: Annotated[int, typer.Option(hidden=True)] = 0,
    load: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure and print."""
    if serve is not None:
        return run_server(serve, model, port, weights)
    if load is not None:
        return print(json.dumps(asyncio.run(ask_for(**json.loads(load)))))
    names, counts = servers.split(","), [int(count) for count in clients.split(",") if count]
    record: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "cpus": os.cpu_count()}
    record |= {"seconds": seconds, "rounds": rounds, "threads": threads}
    record |= {"weights": weights, "load_average": [os.getloadavg()]}
    rows = record["rows"] = []
    with running(names, model, weights, threads) as (ports, processes):
        for count in counts:
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for _, name in product(range(rounds), names):
                ask = {"port": ports[name], "server": name, "clients": count, "seconds": seconds}
                found[name].append(undisturbed(model, processes, **ask))
            rows += [{"server": name, "clients": count, **merged(found[name])} for name in names]
            show(rows[-len(names) :])
        ask = {"port": ports.get("mender"), "server": "mender", "clients": disturbed_clients, "seconds": 2 * seconds}
        for kind in filter(None, disturb.split(",")):
            one = undisturbed(model, processes, **ask, disturb=kind)
            rows.append({"server": "mender", "beside": kind, "clients": disturbed_clients, **merged([one])})
            show(rows[-1:])
        if soak:
            record["soak"] = soaked(model, ports["mender"], processes["mender"], disturbed_clients, soak)
    record["load_average"].append(os.getloadavg())
    if json_file is not None:
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if chart is not None:
        draw(rows, chart)


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows of the table."""
    for row in rows:
        names = ("per_processor_second", "disturbed", "disturbances_ms", "elsewhere")
        extra = "".join(f"  {name} {row[name]}" for name in names if name in row)
        print(
            f"{row['server']:9} {row.get('beside', ''):9} {row['clients']:4} clients "
            f"{row['per_second']:7.1f}/s  p50 {row['p50_ms']:7.1f} ms  p99 {row['p99_ms']:7.1f} ms  "
            f"failed {row['failed']}{extra}",
            flush=True,
        )


def soaked(model: str, port: int, process: int, clients: int, count: int) -> list[dict[str, Any]]:
    """Memory of a server before, between and after tenths of many requests."""
    rows = [{"answers": 0, "failed": 0, "resident_mib": resident_mib(process)}]
    for _ in range(10):
        run = under_load(model, port=port, server="mender", clients=clients, seconds=0.0, count=count // 10)
        answers, failed = rows[-1]["answers"] + len(run["ms"]), rows[-1]["failed"] + run["failed"]
        speed = round(len(run["ms"]) / run["seconds"], 1)
        rows.append({"answers": answers, "failed": failed, "resident_mib": resident_mib(process), "per_second": speed})
        print(rows[-1], flush=True)
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Throughput and p99 of every server over the number of clients."""
    from matplotlib import pyplot

    rows = [row for row in rows if "beside" not in row]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, name, title in zip(axes, ("per_second", "p99_ms"), ("answers a second", "p99, ms"), strict=True):
        for server in dict.fromkeys(row["server"] for row in rows):
            own = [(row["clients"], row[name]) for row in rows if row["server"] == server]
            axis.plot(*zip(*own, strict=True), marker="o", color=COLOURS[server], label=server)
        axis.set(xscale="log", title=title, xlabel="clients", xticks=[count for count, _ in own])
        axis.set_xticklabels([str(count) for count, _ in own])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    axes[1].set_yscale("log")
    figure.savefig(path, dpi=120)


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
    figures["per_processor_second"] = round(len(times) / sum(run["processor"] for run in runs), 1)
    figures["elsewhere"] = round(max(run["elsewhere"] for run in runs), 3)
    if others := [value for run in runs for value in run["others"]]:
        figures["disturbed"] = len(others)
        figures["disturbances_ms"] = round(statistics.median(others), 1)
    return figures


# Load


def undisturbed(model: str, servers: dict[str, int], **ask: Any) -> dict[str, Any]:
    """`under_load`, again as long as other processes take the processors, and the quietest of all attempts.

    It also has the server's seconds of the processor, and the share of all processors that was spent elsewhere.
    """
    best, server = {}, ask["server"]
    for _ in range(ATTEMPTS):
        start, own, elsewhere = time.perf_counter(), *spent(servers[server])
        found = under_load(model, **ask)
        seconds, (own_after, elsewhere_after) = time.perf_counter() - start, spent(servers[server])
        elsewhere = (elsewhere_after - elsewhere) / seconds / (os.cpu_count() or 1)
        found |= {"processor": own_after - own, "elsewhere": elsewhere}
        best = min(best or found, found, key=lambda run: run["elsewhere"])
        if elsewhere < ELSEWHERE:
            break
    return best


def spent(server: int) -> tuple[float, float]:
    """Seconds of the processors so far: of a server, and of all processes but the servers and this benchmark."""
    numbers = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(numbers[:3]) + sum(numbers[5:8])  # neither idle nor waiting for a disk; stolen time counts
    return processor_seconds(server), busy / os.sysconf("SC_CLK_TCK") - processor_seconds(os.getpid())


def under_load(model: str, **ask: Any) -> dict[str, Any]:
    """What clients in a process of their own saw; arguments of `ask_for`."""
    command = [sys.executable, __file__, model, "--load", json.dumps(ask)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the clients of {ask['server']} ended with {done.returncode}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


async def ask_for(
    port: int,
    server: str,
    clients: int,
    seconds: float,
    disturb: str = "",
    count: int = 0,
) -> dict[str, Any]:
    """Milliseconds of every answer of several clients for some time, or until a count, and how many failed."""
    times: list[float] = []
    others: list[float] = []
    failed = asked = 0
    path = "/predict" if server == "litserve" else "/recommend"
    # Connected before the clock runs; servers are warm.
    links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(clients)]
    await ask(links[0], "POST", path, request(0))
    start = time.perf_counter()
    end = start + seconds

    async def client(number: int) -> None:
        nonlocal failed, asked
        place = number
        while (before := time.perf_counter()) < end or asked < count:
            asked += 1
            status = await ask(links[number], "POST", path, request(place))
            times.append((time.perf_counter() - before) * 1e3)
            failed += status != 200
            place += clients

    tasks = [client(number) for number in range(clients)]
    if disturb not in ("", "nothing"):
        tasks.append(disturbing(port, disturb, end, others))
    await asyncio.gather(*tasks)
    return {"ms": times, "failed": failed, "seconds": time.perf_counter() - start, "others": others}


async def disturbing(port: int, kind: str, end: float, times: list[float]) -> None:
    """Edits ten times a second, a reload every three seconds, or garbage as fast as it is refused."""
    link = await asyncio.open_connection("127.0.0.1", port)
    number, start = 0, time.time_ns()  # ids of removed items stay taken
    step = {"edits": 0.1, "reload": 3.0}.get(kind, 0.0)
    while (before := time.perf_counter()) < end:
        if kind == "garbage":
            status = await ask(link, "POST", "/recommend", GARBAGE[number % len(GARBAGE)])
            good = 400 <= status < 500
        elif kind == "reload":
            good = await ask(link, "POST", "/reload", b"") == 200
        elif number % 2:
            good = await ask(link, "DELETE", f"/items/{start}-{number - 1}", b"") == 200
        else:
            item = {"item_id": f"{start}-{number}", "title": f"tea {number}"}
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
def running(
    names: list[str], model: str, weights: str, threads: int
) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Ports of servers and their processes."""
    processes, ports, log = [], {}, tempfile.TemporaryFile()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        for name in names:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports[name] = free.getsockname()[1]
            command = [
                sys.executable,
                __file__,
                model,
                "--serve",
                name,
                "--port",
                str(ports[name]),
                "--weights",
                weights,
            ]
            processes.append(subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log, env=environment))
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


def processor_seconds(process: int) -> float:
    """Processor time of a process and all below it, which a busy machine does not change; Linux only."""
    return sum(sum(map(int, values[11:15])) for values in _tree(process)) / os.sysconf("SC_CLK_TCK")


def resident_mib(process: int) -> float:
    """Resident memory of a process and all below it; Linux only."""
    return round(sum(int(values[21]) for values in _tree(process)) * os.sysconf("SC_PAGESIZE") / 2**20, 1)


def _tree(process: int) -> list[list[str]]:
    """The fields of `/proc/PID/stat` from the third on of a process and all below it."""
    known, above = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            known[int(stat.parent.name)] = values = stat.read_text().rpartition(")")[2].split()
            above[int(stat.parent.name)] = int(values[1])
    found = [process]
    for one in found:
        found += [below for below, parent in above.items() if parent == one]
    return [known[one] for one in found if one in known]


def _wait(name: str, process: subprocess.Popen, port: int) -> None:
    for _ in range(1800):
        with suppress(OSError), request_to(port, "/health", 5) as answer:
            if answer.status == 200:
                return
        if process.poll() is not None:
            raise RuntimeError(f"the server {name} ended with {process.returncode}")
        time.sleep(0.1)
    raise RuntimeError(f"the server {name} does not listen")


def load_model(model: str, weights: str) -> Any:
    """The recommender, or one that uses its generator alone."""
    from mender import Recommender

    shop = Recommender.from_pretrained(model)
    if weights == "generator":
        for own in shop.model.config.experts.weights.values():
            own.update({name: float(name == "generator") for name in own})
    return shop


def run_server(kind: str, model: str, port: int, weights: str) -> None:
    """Serve until killed."""
    if kind == "litserve":
        return run_litserve(model, port, weights)
    if kind.startswith("ray"):
        return run_ray(kind, model, port, weights)
    from mender.serving.app import create_app
    from mender.serving.bodies import Limits
    from mender.serving.process import run_app
    from mender.serving.service import Service, settle

    class Threads(Service):
        """A thread for every request."""

        pool = ThreadPoolExecutor(256)

        async def recommend(self, queries: Any) -> Any:
            requests = [query.request for query in queries]
            return await asyncio.get_running_loop().run_in_executor(self.pool, self.shop.recommend_batch, requests)

    def load() -> Any:
        return load_model(model, weights)

    shop, limits = load(), Limits(timeout=120)
    # One at a time, in the order of arrival, is what a lock gives.
    settings = {"limits": limits, "load": load, "batch_size": 1 if kind == "lock" else 32}
    service = (Threads if kind == "threads" else Service)(shop, **settings)
    settle()
    run_app(create_app(service, token=TOKEN), host="127.0.0.1", port=port)


if util.find_spec("litserve"):
    import litserve

    class Api(litserve.LitAPI):  # its process finds the class by the name of this module
        """LitServe's own batching."""

        def setup(self, device: str) -> None:
            """Load the model."""
            from mender.serving.service import settle

            self.shop = load_model(*json.loads(os.environ["MODEL"]))
            settle()

        def predict(self, requests: Any) -> Any:
            """Answers to a batch."""
            return self.shop.recommend_batch(requests)

        def encode_response(self, output: Any) -> Any:
            """As `mender serve` has it."""
            return {"items": output}


def run_litserve(model: str, port: int, weights: str) -> None:
    """Serve with LitServe."""
    os.environ["MODEL"] = json.dumps([model, weights])
    api = Api(max_batch_size=32, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu", timeout=120).run(port=port, host="127.0.0.1", generate_client_file=False)


def run_ray(kind: str, model: str, port: int, weights: str) -> None:
    """One replica on Ray Serve, with its own batching, `@serve.batch`, or with the application of this project."""
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    import ray
    from ray import serve
    from starlette.responses import JSONResponse

    from mender.serving.over_ray import application

    if kind == "ray-queue" and weights != "own":
        raise ValueError("ray-queue serves the model as it is saved; measure it with its own weights")

    @serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
    class Replica:
        def __init__(self) -> None:
            from mender.serving.service import settle

            self.shop = load_model(os.path.abspath(model), weights)
            settle()

        @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
        async def answer(self, requests: list[Any]) -> list[Any]:
            return await asyncio.to_thread(self.shop.recommend_batch, requests)

        async def __call__(self, request: Any) -> Any:
            if request.url.path == "/health":
                return {}
            return JSONResponse({"items": await self.answer(await request.json())})

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(application(os.path.abspath(model)) if kind == "ray-queue" else Replica.bind())
    signal.pause()


if __name__ == "__main__":
    run_script(main, __doc__)
