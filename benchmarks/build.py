"""How long a benchmark takes to build, and how much sooner than one row at a time.

    python benchmarks/build.py --source sequences --data DIR       # the given data, matching and steering
    python benchmarks/build.py --source corner-shop --users 2000   # small, in a minute
    python benchmarks/build.py --source corner-shop --users 100000 --items 10000 --vectors random --only-ours

Every stage is timed with its rows per second and the process's peak memory so far. The matching of preferences and
the search for steering partners are also done one row at a time, as the published scripts of Preference Discerning
(Paischer et al. 2025, arXiv:2412.08604) do them, re-expressed: one call of the encoder for every user and step with
its five preferences and its item; for every item, products with all preferences and items, each sorted whole. The
rows are independent, so `--rows` of them, drawn at random, are timed, in rounds that alternate with ours in the same
process, and must come to the same results; the time of all rows is that of one, times their number.

`--vectors random` replaces the encoder by random vectors in the stages: that measures everything but the encoder. The
comparison of the matching always takes the encoder.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from preference_benchmark.axes.examples import targets
from preference_benchmark.axes.next_item import history_consolidation, match, recommendation
from preference_benchmark.axes.protocol import SPLITS, Protocol
from preference_benchmark.axes.sentiment import sentiment_following, sentiment_following_with_history, sentiment_pairs
from preference_benchmark.axes.steering import (
    SteeringCandidates,
    coarse_grained_steering,
    fine_grained_steering,
    nearest,
    partners,
    steering_candidates,
)
from preference_benchmark.checks.leakage import check_leakage
from preference_benchmark.embedding import CachedEmbedder, TextEmbedder
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.candidates import Candidates
from preference_benchmark.sources import SOURCES, read_source
from preference_benchmark.sources.corner_shop import corner_shop
from preference_benchmark.tables import Tables

WIDTH = 384


class RandomVectors:
    """Unit vectors that depend on nothing but the text's place: what is left when the encoder costs nothing."""

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """One vector per text; another call with as many texts gives the same ones."""
        vectors = np.random.default_rng(len(texts)).normal(size=(len(texts), WIDTH)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Clock:
    """Stages with their seconds, rows and memory."""

    def __init__(self) -> None:
        self.stages: list[dict] = []

    def time(self, name: str, work: Callable[[], object], rows: Callable[[object], int]) -> object:
        """Do the work and note what it took."""
        started = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        self.stages.append({"stage": name, "seconds": seconds, "rows": rows(result), "peak_gb": peak_gb()})
        print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
        return result


def main() -> None:
    """Build, time, compare."""
    arguments = parse_arguments()
    clock, protocol = Clock(), Protocol(seed=arguments.seed)
    tables = read(arguments, clock)
    preferences = clock.time("preferences", lambda: write(arguments, tables), len)
    encoder = RandomVectors() if arguments.vectors == "random" else TextEmbedder(arguments.encoder)
    embedder = CachedEmbedder(encoder)
    texts = pl.concat([tables.items["text"], preferences["text"].rename("text")]).unique()
    clock.time("vectors of distinct texts", lambda: embedder.encode(texts), len)
    matches = {
        mode: clock.time(f"matching ({mode})", lambda mode=mode: match(preferences, tables, embedder, mode), len)
        for mode in ("oracle", "last")
    }
    candidates = clock.time(
        "steering candidates",
        lambda: steering_candidates(tables, preferences, embedder, protocol),
        lambda found: len(found.nearest),
    )
    pairs = clock.time("sentiment pairs", lambda: sentiment_pairs(tables, preferences, embedder, protocol), len)
    axes = {
        "recommendation": lambda: recommendation(tables, matches["oracle"]),
        "fine_grained_steering": lambda: fine_grained_steering(tables, preferences, candidates, protocol),
        "coarse_grained_steering": lambda: coarse_grained_steering(tables, preferences, candidates, protocol),
        "sentiment_following": lambda: sentiment_following(pairs),
        "history_consolidation": lambda: history_consolidation(tables, preferences),
        "sentiment_following_with_history": lambda: sentiment_following_with_history(tables, pairs),
    }
    frames = {axis: clock.time(axis, build, len) for axis, build in axes.items()}
    clock.time(
        "leakage checks",
        lambda: check_leakage(tables, preferences, {"oracle": frames}, protocol),
        lambda report: sum(finding.searched for finding in report.findings),
    )
    result = {
        "command": "python benchmarks/build.py " + " ".join(arguments.given),
        "users": tables.interactions["user_id"].n_unique(),
        "items": tables.items.height,
        "interactions": tables.interactions.height,
        "preferences": preferences.height,
        "distinct_texts": len(texts),
        "stages": clock.stages,
    }
    show_stages(result)
    if not arguments.only_ours:
        choose = next(stage["seconds"] for stage in clock.stages if stage["stage"] == "matching (oracle)")
        result["compared"] = [
            compare_matching(tables, preferences, TextEmbedder(arguments.encoder, progress=False), choose, arguments),
            compare_steering(tables, preferences, embedder, candidates, arguments, as_written=True),
            compare_steering(tables, preferences, embedder, candidates, arguments, as_written=False),
        ]
        show_comparison(result["compared"])
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Settings of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=sorted(SOURCES), default="corner-shop")
    parser.add_argument("--data", type=Path, help="folder of the raw files")
    parser.add_argument("--users", type=int, default=2_000, help="customers of the corner shop")
    parser.add_argument("--items", type=int, default=400, help="items of the corner shop")
    parser.add_argument("--vectors", choices=("encoder", "random"), default="encoder")
    parser.add_argument(
        "--preferences",
        choices=("written", "drawn"),
        default="written",
        help="drawn: from 100,000 sentences at random; measures everything but the approximator",
    )
    parser.add_argument("--encoder", help="a sentence-transformers model; default: all-MiniLM-L6-v2")
    parser.add_argument("--rows", type=int, default=60, help="rows done one at a time")
    parser.add_argument("--texts", type=int, default=1_000, help="distinct texts encoded in a round of ours")
    parser.add_argument("--rounds", type=int, default=3, help="alternations of the two ways")
    parser.add_argument("--only-ours", action="store_true", help="no comparison")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    arguments.given = sys.argv[1:]
    return arguments


def read(arguments: argparse.Namespace, clock: Clock) -> Tables:
    """The tables; those of the corner shop are written to files first, and read like everybody's own."""
    if arguments.source != "corner-shop":
        return clock.time(
            "read, k-core, tables",
            lambda: read_source(arguments.source, arguments.data),
            lambda tables: tables.report.before.interactions,
        )
    shop = corner_shop(arguments.users, arguments.items, arguments.seed).tables
    with tempfile.TemporaryDirectory() as folder:
        shop.items.write_ndjson(Path(folder) / "items.jsonl")
        shop.interactions.drop("step").write_ndjson(Path(folder) / "interactions.jsonl")
        return clock.time(
            "read, k-core, tables",
            lambda: read_source("table", folder),
            lambda tables: tables.report.before.interactions,
        )


def write(arguments: argparse.Namespace, tables: Tables) -> pl.DataFrame:
    """Preferences by the rules, or drawn at random."""
    if arguments.preferences == "written":
        return ExtractiveApproximator(progress=False)(tables)
    rng = np.random.default_rng(arguments.seed)
    keys = tables.interactions.select("user_id", "step").join(pl.DataFrame({"rank": range(5)}), how="cross")
    number = rng.integers(100_000, size=keys.height)
    negative = number % 5 == 0
    text = pl.select(
        text=pl.when(pl.Series(negative)).then(pl.lit("Avoid ")).otherwise(pl.lit("Find "))
        + pl.format("goods of kind {}", pl.Series(number))
    )
    return keys.hstack(text).with_columns(
        sentiment=pl.when(pl.Series(negative)).then(pl.lit("negative")).otherwise(pl.lit("positive"))
    )


def compare_matching(
    tables: Tables, preferences: pl.DataFrame, encoder: TextEmbedder, choose: float, arguments: argparse.Namespace
) -> dict:
    """One call of the encoder per user and step, against one encoding of every distinct text.

    Ours is timed on `--texts` of the distinct texts a round, drawn at random; its time for all rows is that of all
    distinct texts, and `choose`, the seconds that choosing among known vectors took.
    """
    options = Candidates.of(preferences, tables).distinct()
    steps = tables.interactions.filter(pl.col("step") >= 1).select("user_id", "step", "item_id")
    steps = steps.join(tables.items.select("item_id", about="text"), on="item_id")
    rows = steps.sample(min(arguments.rows, steps.height), seed=arguments.seed)
    wanted = rows.join(options.group_by("user_id", "step", maintain_order=True).agg("text"), on=["user_id", "step"])
    distinct = pl.concat([options["text"], tables.items["text"]]).unique().sort()
    one, all_at_once = [], []
    for number in range(arguments.rounds):
        started = time.perf_counter()
        chosen = []
        for texts, about in wanted.select("text", "about").iter_rows():
            vectors = encoder.encode([*texts, about])
            chosen.append(texts[int(np.argmax(vectors[:-1] @ vectors[-1]))])
        one.append((time.perf_counter() - started) / wanted.height)
        part = distinct.sample(min(arguments.texts, len(distinct)), seed=number)
        started = time.perf_counter()
        encoder.encode(part)
        seconds = (time.perf_counter() - started) / len(part)
        all_at_once.append((seconds * len(distinct) + choose) / steps.height)
    own = wanted.select("user_id").unique()
    known = replace(tables, interactions=tables.interactions.join(own, on="user_id", how="semi"))
    written = preferences.join(own, on="user_id", how="semi")
    ours = match(written, known, CachedEmbedder(encoder)).select("user_id", "step", ours="text")
    ours = wanted.join(ours, on=["user_id", "step"], how="left", maintain_order="left")
    same = sum(a == b for a, b in zip(chosen, ours["ours"], strict=True))
    return compared(
        "matching", one, all_at_once, steps.height, wanted.height, f"{same} of {wanted.height} choices agree"
    )


def compare_steering(
    tables: Tables,
    preferences: pl.DataFrame,
    embedder: CachedEmbedder,
    candidates: SteeringCandidates,
    arguments: argparse.Namespace,
    *,
    as_written: bool,
) -> dict:
    """For every item whole sorts of its products with all preferences and items, against a search without sorting.

    One at a time, an item meets every preference as often as it was written (the published way), or, where not
    `as_written`, every distinct text once; ours is the same in both comparisons.
    """
    rows = targets(tables)
    items, pool = embedder.encode(tables.items["text"]), embedder.encode(candidates.pool)
    of_split = {split: rows.filter(pl.col("split") == split)["target"].unique().sort().to_numpy() for split in SPLITS}
    place = np.arange(len(pool))
    if as_written:
        period = tables.training_period().select("user_id", "step")
        texts = preferences.filter(pl.col("sentiment") == "positive").join(period, on=["user_id", "step"], how="semi")
        known = pl.DataFrame({"text": candidates.pool, "place": place})
        place = texts.join(known, on="text", maintain_order="left")["place"].to_numpy()
    written = pool[place]
    rng = np.random.default_rng(arguments.seed)
    total = sum(len(found) for found in of_split.values())
    sample = [(s, int(rng.choice(of_split[s]))) for s in rng.choice(SPLITS, arguments.rows)]
    one, all_at_once, agree = [], [], 0
    protocol = Protocol(seed=arguments.seed)
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        answers = []
        for split, s in sample:
            here = of_split[split]
            order = np.argsort(-(items[here] @ items[s]))
            fine, coarse = here[order[1]] if here[order[0]] == s else here[order[0]], here[order[-1]]
            ranked = (place[np.argsort(-(written @ items[of]))] for of in (s, fine, coarse))
            near_s, near_fine, near_coarse = (first_distinct(found, 3) for found in ranked)
            answers.append((near_s[0], near_s[1], fine, coarse, near_fine[2], near_coarse[2]))
        one.append((time.perf_counter() - started) / len(sample))
        started = time.perf_counter()
        near = nearest(items, pool, k=protocol.deepest_rank)
        pairs = {}
        for split, here in of_split.items():
            of_each = partners(items[here])
            pairs[split] = here[of_each.nearest], here[of_each.farthest]
        all_at_once.append((time.perf_counter() - started) / total)
    for (split, s), answer in zip(sample, answers, strict=True):
        at = int(np.searchsorted(of_split[split], s))
        fine, coarse = (found[at] for found in pairs[split])
        agree += answer == (near[s, 0], near[s, 1], fine, coarse, near[fine, 2], near[coarse, 2])
    what = f"{len(written):,} preferences as written" if as_written else f"{len(written):,} distinct texts"
    return compared(
        f"steering, {what}",
        one,
        all_at_once,
        total,
        len(sample),
        f"{agree} of {len(sample)} items agree in all six answers",
    )


def first_distinct(ranked: np.ndarray, count: int) -> list[int]:
    """The first `count` different numbers of a ranking."""
    found: dict[int, None] = {}
    for number in ranked:
        found[int(number)] = None
        if len(found) == count:
            break
    return list(found)


def compared(name: str, one: list[float], ours: list[float], rows: int, timed: int, agreement: str) -> dict:
    """Both ways in numbers: medians of the rounds, and the time of all rows."""
    slow, fast = statistics.median(one), statistics.median(ours)
    return {
        "work": name,
        "rows": rows,
        "rows_timed_one_at_a_time": timed,
        "one_at_a_time_ms": [1e3 * value for value in one],
        "ours_ms": [1e3 * value for value in ours],
        "one_at_a_time_hours": slow * rows / 3600,
        "ours_hours": fast * rows / 3600,
        "times": slow / fast,
        "agreement": agreement,
    }


def show_stages(result: dict) -> None:
    """The stages as a table."""
    title = f"{result['users']:,} users, {result['items']:,} items, {result['interactions']:,} interactions"
    table = Table("stage", "seconds", "rows", "rows/s", "peak GB", title=title)
    for stage in result["stages"]:
        speed = stage["rows"] / max(stage["seconds"], 1e-9)
        cells = (f"{stage['seconds']:.1f}", f"{stage['rows']:,}", f"{speed:,.0f}", f"{stage['peak_gb']:.2f}")
        table.add_row(stage["stage"], *cells)
    total = sum(stage["seconds"] for stage in result["stages"])
    table.add_row("all", f"{total:.1f}", "", "", f"{result['stages'][-1]['peak_gb']:.2f}")
    Console(width=120).print(table)


def show_comparison(found: list[dict]) -> None:
    """Both ways side by side."""
    table = Table("work", "rows", "one at a time (n)", "ours", "all rows", "times", "check")
    for row in found:
        table.add_row(
            row["work"],
            f"{row['rows']:,}",
            f"{statistics.median(row['one_at_a_time_ms']):.2f} ms/row ({row['rows_timed_one_at_a_time']})",
            f"{statistics.median(row['ours_ms']):.3f} ms/row",
            f"{row['one_at_a_time_hours']:.2f} h / {row['ours_hours']:.3f} h",
            f"{row['times']:.1f}x",
            row["agreement"],
        )
    Console(width=160).print(table)


def peak_gb() -> float:
    """Peak resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()
