"""Time and memory of fitting what was bought, by the size of the catalogue: popularity, transitions, EASE.

    python benchmarks/purchases.py --json benchmarks/results/purchases.json

Purchases are drawn at random, rare items rarely (Zipf). Each size is fitted once, on one thread. Memory is the peak of
a step over what was in use before it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measuring import PeakMemory, write_rows

from mender.terminal import run_script
from modeling_mender.purchase_experts import ItemItem
from modeling_mender.training.closed_form import ease, popularity, transitions
from modeling_mender.training.ranking import one_thread
from preference_benchmark.hub.card import markdown_table

NEIGHBOURS, LENGTH = 200, 8
"""Entries kept of an item, as `ExpertSumConfig` has them by default, and purchases of a user."""


def main(
    items: Annotated[list[int] | None, typer.Option(min=2, help="Sizes of the catalogue; repeatable.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Users, each with eight purchases.")] = 200_000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
) -> None:
    """Measure and print."""
    with one_thread():
        rows = [row for size in items or (10_000, 100_000, 1_000_000) for row in measured(size, users)]
    print(markdown_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows]))
    write_rows(rows, json_file)


def measured(items: int, users: int) -> list[dict[str, Any]]:
    """One row for each expert."""
    drawn = np.random.default_rng(0).zipf(1.2, users * LENGTH) % items
    histories = drawn.reshape(users, LENGTH).tolist()
    rows = []

    def fit(expert: str) -> list[torch.Tensor]:
        """The tensors that are kept."""
        if expert == "popularity":
            return [popularity(histories, items)]
        table = ItemItem(items, NEIGHBOURS)
        if expert == "transitions":
            table.set_matrix(transitions(histories, items))
        else:
            table.set_matrix(*ease(histories, items, penalty=100.0))
        return list(table.buffers())

    for expert in ("popularity", "transitions", "co_purchase"):
        memory, start = PeakMemory(), time.perf_counter()
        kept = fit(expert)
        row = {"items": items, "purchases": users * LENGTH, "expert": expert}
        row |= {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(memory.read())}
        rows.append(row | {"kept_mb": round(sum(part.nbytes for part in kept) / 2**20)})
        print(rows[-1], flush=True)
        del kept
    return rows


if __name__ == "__main__":
    run_script(main, __doc__)
