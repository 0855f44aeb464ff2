"""A table of requests: users a second by `recommend_parquet` and by a loop, and the peak of memory by rows.

    python benchmarks/batch.py outputs/quickstart/model --rows 1000,4000 --json benchmarks/results/batch.json

Every size runs in a process of its own, on one thread.
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
from typing import Annotated, Any

import polars as pl
import torch
import typer

from mender import Recommender
from mender.terminal import run_script

WISHES = ("tea with a malty brew", "a gift for a gardener", "candles with a vanilla scent", "dark chocolate", "soap")


def main(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    rows: Annotated[str, typer.Option(help="Sizes of tables, separated by commas.")] = "1000,4000",
    loop: Annotated[int, typer.Option(help="Rows of the loop.")] = 200,
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard.")] = 1_000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
    one: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure and print."""
    if one is not None:
        return print(json.dumps(measured(model, one, loop, shard_rows)))
    found = []
    for size in map(int, rows.split(",")):
        command = [sys.executable, __file__, model, "--one", str(size), "--loop", str(loop)]
        command += ["--shard-rows", str(shard_rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(found[-1], flush=True)
    if json_file is not None:
        record = {"load_average": os.getloadavg(), "shard_rows": shard_rows, "rows": found}
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def measured(model: str, rows: int, loop: int, shard_rows: int) -> dict[str, Any]:
    """Figures of one size."""
    torch.set_num_threads(1)
    shop = Recommender.from_pretrained(model, device="cpu")
    ids = [item["item_id"] for item in shop.items]
    table = pl.DataFrame(
        {
            "user_id": [f"user-{row}" for row in range(rows)],
            "preference": [f"{WISHES[row % len(WISHES)]} number {row % 97}" for row in range(rows)],
            "history": [[ids[(row * 7 + step) % len(ids)] for step in range(row % 9)] for row in range(rows)],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        table.write_parquet(f"{folder}/requests.parquet")
        start = time.process_time()
        for row in table.head(loop).to_dicts():
            shop.recommend(row["preference"], history=row["history"])
        by_loop = loop / (time.process_time() - start)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.process_time()
        shop.recommend_parquet(f"{folder}/requests.parquet", f"{folder}/answers", shard_rows=shard_rows, progress=False)
        by_batch = rows / (time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "rows": rows,
        "loop_per_cpu_second": round(by_loop, 1),
        "batch_per_cpu_second": round(by_batch, 1),
        "peak_mib": round(peak),
        "peak_mib_beyond_loop": round(peak - before),
    }


if __name__ == "__main__":
    run_script(main, __doc__)
