"""A table of requests: users a second by `recommend_parquet` and by a loop, and the peak of memory by rows.

    python benchmarks/batch.py outputs/quickstart/model --rows 1000,10000 --json benchmarks/results/batch.json

Every size runs in a process of its own, on one thread, over a table that another process wrote.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import torch
import typer

from mender import Recommender
from mender.terminal import run_script
from modeling_mender.processing_mender import ITEMS_FILE

WISHES = ("tea with a malty brew", "a gift for a gardener", "candles with a vanilla scent", "dark chocolate", "soap")
PART_ROWS = 50_000
"""Rows of one file of a table."""


def main(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    rows: Annotated[str, typer.Option(help="Sizes of tables, separated by commas.")] = "1000,10000",
    requests: Annotated[Literal["stated", "silent"], typer.Option(help="With a wish, or histories alone.")] = "stated",
    loop: Annotated[int, typer.Option(help="Rows of the loop.")] = 200,
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard.")] = 1_000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
    table: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure and print."""
    if table is not None:
        return print(json.dumps(measured(model, table, loop, shard_rows)))
    record: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "requests": requests, "loop": loop}
    record |= {"shard_rows": shard_rows, "load_average": [os.getloadavg()], "rows": []}
    for size in map(int, rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write_table(Path(folder), model, size, requests)
            command = [sys.executable, __file__, model, "--table", folder, "--loop", str(loop)]
            command += ["--shard-rows", str(shard_rows)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        record["rows"].append({"rows": size, **json.loads(done.stdout.splitlines()[-1])})
        print(record["rows"][-1], flush=True)
    record["load_average"].append(os.getloadavg())
    if json_file is not None:
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def write_table(folder: Path, model: str, rows: int, requests: str) -> None:
    """A table in files of `PART_ROWS` rows, with histories of up to eight items."""
    ids = json.loads((Path(model) / ITEMS_FILE).read_text("utf-8"))["item_id"]
    for start in range(0, rows, PART_ROWS):
        part = range(start, min(start + PART_ROWS, rows))
        silent = requests == "silent"
        columns = {
            "user_id": [f"user-{row}" for row in part],
            "history": [[ids[(row * 7 + step) % len(ids)] for step in range(row % 8 + silent)] for row in part],
        }
        if not silent:
            columns["preference"] = [f"{WISHES[row % len(WISHES)]} number {row % 97}" for row in part]
        pl.DataFrame(columns).write_parquet(folder / f"part-{start:09d}.parquet")


def measured(model: str, table: Path, loop: int, shard_rows: int) -> dict[str, Any]:
    """Figures of one table."""
    torch.set_num_threads(1)
    shop = Recommender.from_pretrained(model, device="cpu")
    files = sorted(table.glob("*.parquet"))
    some = pl.read_parquet(files[0], n_rows=loop).drop("user_id").to_dicts()
    shop.recommend(**some[0])
    clock, start = time.perf_counter(), time.process_time()
    for request in some:
        shop.recommend(**request)
    by_loop, loop_clock = len(some) / (time.process_time() - start), len(some) / (time.perf_counter() - clock)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as answers:
        clock, start = time.perf_counter(), time.process_time()
        report = shop.recommend_parquet(table, answers, shard_rows=shard_rows, progress=False)
        by_batch, clock = report.requests / (time.process_time() - start), time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "refused": report.refused,
        "seconds": round(clock, 1),
        "loop_per_second": round(loop_clock, 1),
        "batch_per_second": round(report.requests / clock, 1),
        "loop_per_cpu_second": round(by_loop, 1),
        "batch_per_cpu_second": round(by_batch, 1),
        "peak_mib": round(peak),
        "peak_mib_beyond_loop": round(peak - before),
    }


if __name__ == "__main__":
    run_script(main, __doc__)
