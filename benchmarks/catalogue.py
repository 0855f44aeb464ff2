"""What the prefix tree of a catalogue costs: build, memory, one search step, filters; up to twenty million items.

    python benchmarks/catalogue.py --quick                  # the sizes that decide: 1, 10 and 20 million items
    python benchmarks/catalogue.py --json catalogue.json    # 10 thousand to 20 million items, uniform and skewed codes

A step expands 30 beams of each of 32 users by one level: children listed, scored, the best 30 of a user kept. `step_ms`
is the mean of the steps from 960 live beams, `slowest_step_ms` their slowest, `walk_ms` the sum of all levels. The
sizes of a distribution are timed in turn, round by round, in one process; figures are medians. `sorted_keys_ms` is the
sum of all levels for the usual alternative, one sorted list of keys and a binary search for every code of every beam.
Skewed codes crowd under few prefixes, and a tie-breaking level tells apart what shares the first three.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import PeakMemory, write_rows
from rich.console import Console
from rich.table import Table
from torch import Tensor

from modeling_mender.candidates import CatalogueFilter
from modeling_mender.catalogue import SemanticIdCatalogue
from modeling_mender.retrieval import expand

USERS, BEAMS, SEEN = 32, 30, 200
CODES = 256
SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 20_000_000)
QUICK = (1_000_000, 10_000_000, 20_000_000)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--distributions", nargs="+", choices=["uniform", "skewed"], default=["uniform", "skewed"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="only 1, 10 and 20 million items, uniform codes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.items, arguments.distributions = list(QUICK), ["uniform"]
    rows = []
    for distribution in arguments.distributions:
        trees = [_Tree(items, distribution) for items in arguments.items]
        for _ in range(arguments.rounds + 1):
            for tree in trees:
                tree.measure()
        rows += [tree.row() for tree in trees]
    print_table(rows)
    write_rows(rows, arguments.json)


def uniform_codes(items: int, generator: torch.Generator) -> Tensor:
    """Distinct codes, four levels, sorted. Shape: (items, 4), int32."""
    keys = torch.empty(0, dtype=torch.int64)
    while len(keys) < items:
        more = torch.randint(0, CODES**4, (items - len(keys) + 1000,), generator=generator)
        keys = torch.cat([keys, more]).unique()
    dropped = torch.randperm(len(keys), generator=generator)[: len(keys) - items]
    kept = torch.ones(len(keys), dtype=torch.bool)
    kept[dropped] = False
    keys = keys[kept]
    return torch.stack([(keys >> shift & (CODES - 1)).int() for shift in (24, 16, 8, 0)], dim=1)


def skewed_codes(items: int, generator: torch.Generator) -> Tensor:
    """Three levels of codes with popular ones among them, and a number for items that share all three; sorted."""
    popularity = torch.arange(1, CODES + 1).float().pow(-0.7)
    key = torch.zeros(items, dtype=torch.int64)
    for _ in range(3):
        key = key * CODES + torch.multinomial(popularity, items, replacement=True, generator=generator)
    key = key.sort().values
    _, counts = key.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    tie = torch.arange(items) - torch.repeat_interleave(starts, counts)
    return torch.stack([*((key >> shift & (CODES - 1)).int() for shift in (16, 8, 0)), tie.int()], dim=1)


class _Tree:
    """One catalogue, and the times that were measured on it."""

    def __init__(self, items: int, distribution: str) -> None:
        generator = torch.Generator().manual_seed(items)
        codes = (uniform_codes if distribution == "uniform" else skewed_codes)(items, generator)
        sizes = [CODES] * 3 + [max(CODES, int(codes[:, 3].max()) + 1)]
        self.distribution, self.times = distribution, {}
        memory = PeakMemory()
        self.time("build_s", lambda: SemanticIdCatalogue(codes, sizes), repeats=6)
        self.peak_mb = memory.read()
        self.catalogue = SemanticIdCatalogue(codes, sizes)
        self.bytes_per_item = self.catalogue.index_bytes / items
        # A trained model favours codes that many items have: so do these beams.
        self.log_probs = torch.cat(
            [
                torch.randn(USERS, BEAMS, size, generator=generator)
                + torch.bincount(column, minlength=size).clamp(min=1).log()
                for column, size in zip(codes.unbind(1), sizes, strict=True)
            ],
            dim=2,
        ).log_softmax(-1)
        self.keys = self._keys()
        self.allowed = torch.rand(items, generator=generator) < 0.5
        self.seen = torch.randint(0, items, (USERS, SEEN), generator=generator)
        likely = self.walk(None)[1]
        self.seen[:, : likely.shape[1]] = self.catalogue.items_of_leaves(likely)

    def time(self, name: str, run: Callable[[], Any], repeats: int = 1) -> Any:
        for _ in range(repeats):
            started = time.perf_counter()
            result = run()
            self.times.setdefault(name, []).append(time.perf_counter() - started)
        return result

    def walk(self, view: CatalogueFilter | None, name: str | None = None) -> tuple[Tensor, Tensor]:
        """Scores and leaves of the best beams; with a name, the time of every level is noted."""
        catalogue, offset = self.catalogue, 0
        nodes, scores = torch.zeros(USERS, 1, dtype=torch.int64), torch.zeros(USERS, 1)
        for level, size in enumerate(catalogue.codebook_sizes):
            log_probs = self.log_probs[:, : nodes.shape[1]]
            started = time.perf_counter()
            nodes, _, _, scores = expand(catalogue, level, nodes, scores, log_probs, offset, BEAMS, view)
            if name is not None:
                self.times.setdefault(f"{name} {level}", []).append(time.perf_counter() - started)
            offset += size
        return scores, nodes

    def measure(self) -> None:
        """One round."""
        self.walk(None, "plain")
        if len(self.allowed) <= 1_000_000 or "allowed_set_ms" not in self.times:
            self.view = self.time("allowed_set_ms", lambda: CatalogueFilter(self.catalogue, USERS, self.allowed))
        self.walk(self.view, "allowed")
        view = self.time("exclude_set_ms", lambda: CatalogueFilter(self.catalogue, USERS, exclude=self.seen))
        self.walk(view, "exclude")
        if len(self.times.get("sorted_keys_ms", ())) < 10:
            self.time("sorted_keys_ms", self.walk_sorted_keys)

    def _keys(self) -> Tensor:
        """One number for every item, ascending."""
        sizes = self.catalogue.codebook_sizes
        key = torch.zeros(len(self.catalogue), dtype=torch.int64)
        for level, size in enumerate(sizes):
            key = key * size + self.catalogue.codes[:, level]
        return key

    def walk_sorted_keys(self) -> Tensor:
        """The same search on sorted keys: every code of every beam is looked up."""
        sizes, offset = self.catalogue.codebook_sizes, 0
        prefix, scores = torch.zeros(USERS, 1, dtype=torch.int64), torch.zeros(USERS, 1)
        for level, size in enumerate(sizes):
            below = int(np.prod(sizes[level + 1 :], dtype=np.int64))
            width = prefix.shape[1]
            candidates = prefix[..., None] * size + torch.arange(size)
            place = torch.searchsorted(self.keys, candidates * below)
            found = self.keys[place.clamp(max=len(self.keys) - 1)] // below == candidates
            score = self.log_probs[:, :width, offset : offset + size] + scores[..., None]
            score = score.masked_fill(~found, -torch.inf).flatten(1)
            scores, best = score.topk(min(BEAMS, score.shape[1]), dim=1)
            prefix = candidates.flatten(1).gather(1, best)
            offset += size
        return scores

    def row(self) -> dict[str, Any]:
        """Medians, without the first round."""
        times = {name: float(np.median(values[1:])) for name, values in self.times.items() if len(values) > 1}
        times = {name: float(values[0]) for name, values in self.times.items()} | times
        levels = range(self.catalogue.num_levels)
        kinds = ("plain", "allowed", "exclude")
        steps = {name: [1000 * times[f"{name} {level}"] for level in levels] for name in kinds}
        low, high = (
            1000 * sum(function(self.times[f"plain {level}"][1:]) for level in levels) for function in (min, max)
        )
        row = {
            "items": len(self.catalogue),
            "distribution": self.distribution,
            "build_s": times["build_s"],
            "bytes_per_item": self.bytes_per_item,
            "peak_mb": self.peak_mb,
            "step_ms": float(np.mean(steps["plain"][1:])),
            "slowest_step_ms": max(steps["plain"]),
            "walk_ms": sum(steps["plain"]),
            "walk_low_ms": low,
            "walk_high_ms": high,
            "allowed_set_ms": 1000 * times["allowed_set_ms"],
            "allowed_walk_ms": sum(steps["allowed"]),
            "exclude_set_ms": 1000 * times["exclude_set_ms"],
            "exclude_walk_ms": sum(steps["exclude"]),
            "sorted_keys_ms": 1000 * times["sorted_keys_ms"],
            "widest": self.catalogue.widest,
            "n": len(self.times["plain 0"]) - 1,
        }
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


def print_table(rows: list[dict[str, Any]]) -> None:
    """A line per catalogue."""
    title = f"{USERS} users x {BEAMS} beams; {torch.get_num_threads()} threads; medians of n rounds"
    caption = "allowed: half of the items; exclude: 200 seen items a user; set: once a request"
    table = Table(title=title, caption=caption)
    titles = ("items", "codes", "n", "build s", "B/item", "peak MB", "step ms (slowest)", "all steps ms (low-high)")
    for name in (*titles, "allowed: set, steps", "exclude: set, steps", "sorted keys ms"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['items']:,}",
            row["distribution"],
            str(row["n"]),
            f"{row['build_s']:.2f}",
            f"{row['bytes_per_item']:.2f}",
            f"{row['peak_mb']:,.0f}",
            f"{row['step_ms']:.2f} ({row['slowest_step_ms']:.2f})",
            f"{row['walk_ms']:.2f} ({row['walk_low_ms']:.1f}-{row['walk_high_ms']:.1f})",
            f"{row['allowed_set_ms']:.1f}, {row['allowed_walk_ms']:.1f}",
            f"{row['exclude_set_ms']:.1f}, {row['exclude_walk_ms']:.1f}",
            f"{row['sorted_keys_ms']:.1f}",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
