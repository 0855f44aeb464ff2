"""What the prefix tree of a catalogue costs: build, memory, one search step, filters; up to twenty million items.

    python benchmarks/catalogue.py --quick                  # the sizes that decide: 1, 10 and 20 million items
    python benchmarks/catalogue.py --json catalogue.json    # 10 thousand to 20 million items, uniform and skewed codes
    python benchmarks/catalogue.py --experts --json catalogue.json       # experts in the search over 10 million items

A step expands 30 beams of each of 32 users by one level: children listed, scored, the best 30 of a user kept. `step_ms`
is the mean of the steps from 960 live beams, `slowest_step_ms` their slowest, `walk_ms` the sum of all levels. The
sizes of a distribution are timed in turn, round by round, in one process; figures are medians. `sorted_keys_ms` is the
sum of all levels for the usual alternative, one sorted list of keys and a binary search for every code of every beam.
Skewed codes crowd under few prefixes, and a tie-breaking level tells apart what shares the first three.

--experts adds a language expert, popularity and item-item rows to the search (`guide.PathGuide`). Item vectors have the
width of MiniLM and half precision, in a temporary memory-mapped file. They are sums of one centroid per code, shared by
popular and rare codes alike, and noise that no code holds: the codes explain .8 of a vector, about what residual
k-means of 3 x 256 codes does (PERF: a mean squared error of .2). A request is a vector at cosine .6 to some item; the
generator's log-probabilities depend on the level alone, so that the best ten items of a sum can be computed exactly.
Times are those of the processor, which other work on the machine disturbs less; steps with and without experts take
turns. `recall` is the share of the exact ten best items by the language expert alone, `recall_sum` by its sum with the
generator. `setup_ms` is what a request of 32 users needs before the search.
"""

from __future__ import annotations

import argparse
import json
import tempfile
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
from torch.nn.functional import normalize

from modeling_mender import guide
from modeling_mender.candidates import CatalogueFilter
from modeling_mender.catalogue import SemanticIdCatalogue
from modeling_mender.experts import TEMPERATURE
from modeling_mender.guide import PathGuide
from modeling_mender.item_evidence import ItemEvidence, added_up
from modeling_mender.retrieval import expand

USERS, BEAMS, SEEN = 32, 30, 200
CODES = 256
SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 20_000_000)
QUICK = (1_000_000, 10_000_000, 20_000_000)
WIDTH, SHARES = 384, (0.5, 0.2, 0.1)
"""Width of item vectors, and shares of their variance that the codes of three levels explain."""
CORRECTED = (1, 2, 4, 8)
"""Candidates of the last level that get exact scores, for each beam."""
ROWS_AT_ONCE = 100_000


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--distributions", nargs="+", choices=["uniform", "skewed"], default=["uniform", "skewed"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="only 1, 10 and 20 million items, uniform codes")
    parser.add_argument("--experts", action="store_true", help="experts in the search")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the file of vectors")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    if arguments.experts:
        items = arguments.items if arguments.items != list(SIZES) else [10_000_000]
        rows = [row for count in items for row in measure_experts(count, arguments.rounds, arguments.folder)]
        print_experts(rows)
        write_rows(rows_of(arguments.json, experts=False) + rows, arguments.json)
        return
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
    write_rows(rows + rows_of(arguments.json, experts=True), arguments.json)


def rows_of(path: Path | None, experts: bool) -> list[dict[str, Any]]:
    """Rows of earlier runs with or without experts, which a run of the other kind keeps."""
    if path is None or not path.exists():
        return []
    return [row for row in json.loads(path.read_text("utf-8")) if ("recall" in row) == experts]


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


def skewed_codes(items: int, generator: torch.Generator, exponent: float = -0.7) -> Tensor:
    """Three levels of codes with popular ones among them, and a number for items that share all three; sorted."""
    popularity = torch.arange(1, CODES + 1).float().pow(exponent)
    key = torch.zeros(items, dtype=torch.int64)
    for _ in range(3):
        key = key * CODES + torch.multinomial(popularity, items, replacement=True, generator=generator)
    key = key.sort().values
    _, counts = key.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    tie = torch.arange(items) - torch.repeat_interleave(starts, counts)
    return torch.stack([*((key >> shift & (CODES - 1)).int() for shift in (16, 8, 0)), tie.int()], dim=1)


def tree_bytes(catalogue: SemanticIdCatalogue) -> int:
    """Bytes of the tree: child ranges and codes.

    Not counted are the item table, which the model stores anyway, and the order of the items: 4 bytes each if they are
    not sorted by code.
    """
    codes = [code for code in catalogue._code if code is not None]
    return sum(part.nbytes for part in (*catalogue._child_start, *codes, *catalogue._leaf_starts.values()))


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
        self.bytes_per_item = tree_bytes(self.catalogue) / items
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


class _Items:
    """Items whose vectors their codes explain in part, requests, and the exact ten best items of each."""

    def __init__(self, items: int, folder: Path) -> None:
        generator = torch.Generator().manual_seed(items)
        codes = skewed_codes(items, generator, exponent=-0.5)[torch.randperm(items, generator=generator)]
        sizes = [CODES] * 3 + [max(CODES, int(codes[:, 3].max()) + 1)]
        self.catalogue = SemanticIdCatalogue(codes, sizes)
        parts = [torch.randn(CODES, WIDTH, generator=generator) * (share / WIDTH) ** 0.5 for share in SHARES]
        pool = torch.randn(2**16, WIDTH, generator=generator) * ((1 - sum(SHARES)) / WIDTH) ** 0.5
        self.file = tempfile.NamedTemporaryFile(dir=folder, suffix=".vectors")
        table = np.memmap(self.file.name, np.float16, "w+", shape=(items, WIDTH))
        self.vectors = torch.from_numpy(table)
        chosen = torch.randint(items, (USERS,), generator=generator)
        for low in range(0, items, ROWS_AT_ONCE):
            rows = codes[low : low + ROWS_AT_ONCE].long()
            noise = torch.randint(2 * len(pool), (len(rows),), generator=generator)
            made = pool[noise // 2] * (1 - 2 * (noise % 2))[:, None]
            for level, part in enumerate(parts):
                made += part[rows[:, level]]
            self.vectors[low : low + len(rows)] = normalize(made, dim=1).half()
        other = normalize(torch.randn(USERS, WIDTH, generator=generator), dim=1)
        self.queries = normalize(0.6 * self.vectors[chosen].float() + 0.8 * other, dim=1) / TEMPERATURE
        logits = [2 * torch.randn(USERS, 1, size, generator=generator) for size in sizes[:3]]
        logits.append(torch.zeros(USERS, 1, sizes[3]))
        self.log_probs = [level.log_softmax(-1) for level in logits]
        self.best, self.best_sum = self._best(codes)
        counts = torch.rand(items, generator=generator).pow_(-0.7).floor_()
        self.counts = counts
        touched = torch.randint(items, (USERS, 20 * 200), generator=generator)
        self.entries = touched, torch.rand(touched.shape, generator=generator)

    def _best(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The ten best items by the language expert, and by the sum with the generator. Shape of each: (B, 10)."""
        kept = [(torch.empty(USERS, 0), torch.empty(USERS, 0, dtype=torch.int64))] * 2
        for low in range(0, len(codes), ROWS_AT_ONCE):
            scores = self.queries @ self.vectors[low : low + ROWS_AT_ONCE].float().T
            rows = codes[low : low + ROWS_AT_ONCE].long()
            written = sum(level[:, 0, rows[:, place]] for place, level in enumerate(self.log_probs))
            for place, own in enumerate((scores, scores + written)):
                found, item = own.topk(10, dim=1)
                both = torch.cat([kept[place][0], found], 1), torch.cat([kept[place][1], item + low], 1)
                order = both[0].topk(10, dim=1).indices
                kept[place] = both[0].gather(1, order), both[1].gather(1, order)
        return kept[0][1], kept[1][1]


def measure_experts(items: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """One row for every number of beams and of candidates that get exact scores."""
    made = _Items(items, folder)
    catalogue, started = made.catalogue, time.process_time()
    sample = torch.randint(items, (guide.FITTED_ITEMS,), generator=torch.Generator().manual_seed(0))
    centroids = guide.additive_centroids(catalogue.codes[sample], made.vectors[sample], catalogue.codebook_sizes)
    fit_s, started = time.process_time() - started, time.process_time()
    maxima = guide.node_maxima(catalogue, catalogue.leaf_order(made.counts.log1p())[None], 0.0)
    maxima = [level[0].half() for level in maxima]
    maxima_s = time.process_time() - started
    language = {"vectors": made.vectors, "queries": made.queries}
    weight = torch.ones(USERS, 1)

    def with_language() -> PathGuide:
        return PathGuide(catalogue, ItemEvidence(items, **language), centroids)

    def with_all() -> PathGuide:
        listed, values = added_up(*made.entries, items)
        behaviour = {"counts": made.counts, "popularity": weight, "items": listed, "values": values}
        return PathGuide(catalogue, ItemEvidence(items, **language, **behaviour), centroids, [(weight, maxima)])

    rows, usual = [], guide.CORRECTED
    for beams in (30, 60, 120):
        log_probs = torch.cat([level.expand(-1, beams, -1) for level in made.log_probs], 2)
        for corrected in CORRECTED:
            guide.CORRECTED = corrected
            times: dict[str, list[float]] = {}
            for _ in range(rounds + 1):
                for name, make in (("plain", lambda: None), ("language", with_language), ("all", with_all)):
                    walked(catalogue, beams, log_probs, make, times.setdefault(name, []))
            medians = {name: np.median(np.array(own[1:]), axis=0) * 1000 for name, own in times.items()}
            steps = {name: float(own[1:].mean()) for name, own in medians.items()}
            alone = walked(catalogue, beams, torch.zeros(()).expand_as(log_probs), with_language)
            summed = walked(catalogue, beams, log_probs, with_language)
            rows.append(
                {
                    "items": items,
                    "beams": beams,
                    "corrected": corrected * beams,
                    "recall": share_found(alone, made.best),
                    "recall_sum": share_found(summed, made.best_sum),
                    "step_ms": steps["plain"],
                    "language_step_ms": steps["language"],
                    "language_setup_ms": float(medians["language"][0]),
                    "all_step_ms": steps["all"],
                    "all_setup_ms": float(medians["all"][0]),
                    "vector_bytes": 2 * WIDTH,
                    "tree_bytes": tree_bytes(catalogue) / items,
                    "popularity_bytes": sum(level.nbytes for level in maxima) / items + 4,
                    "centroids_s": fit_s,
                    "maxima_s": maxima_s,
                    "n": rounds,
                }
            )
    guide.CORRECTED = usual
    return [
        {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()} for row in rows
    ]


def walked(
    catalogue: SemanticIdCatalogue,
    beams: int,
    log_probs: Tensor,
    make: Callable[[], PathGuide | None],
    times: list[list[float]] | None = None,
) -> Tensor:
    """Items of the best leaves (B, W); the times of the guide and of every level are noted."""
    started = time.process_time()
    own = make()
    state = None if own is None else own.start()
    noted = [time.process_time() - started]
    nodes, scores, offset = torch.zeros(USERS, 1, dtype=torch.int64), torch.zeros(USERS, 1), 0
    for level, size in enumerate(catalogue.codebook_sizes):
        started = time.process_time()
        found = expand(catalogue, level, nodes, scores, log_probs[:, : nodes.shape[1]], offset, beams, None, state)
        noted.append(time.process_time() - started)
        nodes, _, _, scores = found
        offset += size
    if times is not None:
        times.append(noted)
    return catalogue.items_of_leaves(nodes)


def share_found(items: Tensor, best: Tensor) -> float:
    """How many of the ten best items are among the first ten."""
    return float((items[:, :10, None] == best[:, None]).any(1).float().mean())


def print_experts(rows: list[dict[str, Any]]) -> None:
    """A line per number of beams and corrected candidates."""
    first = rows[0]
    table = Table(title=f"{USERS} users, {torch.get_num_threads()} threads; medians of {first['n']} rounds")
    table.caption = (
        f"bytes an item: vectors {first['vector_bytes']}, tree {first['tree_bytes']:.2f}, popularity "
        f"{first['popularity_bytes']:.2f}; once: centroids {first['centroids_s']:.1f} s, "
        f"maxima {first['maxima_s']:.1f} s"
    )
    titles = ("items", "beams", "exact scores", "recall@10: language", "with generator", "step ms: plain", "+ language")
    for name in (*titles, "+ all", "setup ms: language", "all"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['items']:,}",
            *(str(row[name]) for name in ("beams", "corrected")),
            *(f"{row[name]:.3f}" for name in ("recall", "recall_sum")),
            *(f"{row[name]:.2f}" for name in ("step_ms", "language_step_ms", "all_step_ms")),
            *(f"{row[name]:.2f}" for name in ("language_setup_ms", "all_setup_ms")),
        )
    Console(width=150).print(table)


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
