"""Reading raw files: how much faster than one line, and one interaction, at a time?

Writes a synthetic data set in public forms (JSON lines as Amazon publishes them, Python literals as Steam does, a
Parquet table), reads each through its source's reader and with a straightforward implementation of the same step,
interleaved in one process, and compares the results. Prints the median of several rounds.

    python benchmarks/read.py --interactions 1000000 --rounds 3
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from tqdm.auto import tqdm

from preference_benchmark.sources.raw_lines import read_records
from preference_benchmark.sources.table import read_table
from preference_benchmark.tables import prepare

SCHEMA = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64, "review": pl.String}
WORDS = "great mug I didn't expect its “lovely” colour; the handle broke after a week, so I'd not buy it again".split()
USERS_PER, ITEMS_PER = 10, 30  # interactions of a user and of an item, on average


def main() -> None:
    """Time every step both ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = interactions(arguments.interactions, arguments.seed)
    items = rows.select(pl.col("item_id").unique().sort()).with_columns(title=pl.format("Item {}", "item_id"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = write(folder, rows, items)
        seconds: dict[str, tuple[list[float], list[float]]] = {step: ([], []) for step in steps}
        with tqdm(total=2 * arguments.rounds * len(steps), unit="run", leave=False) as bar:
            for _ in range(arguments.rounds):
                for step, ways in steps.items():
                    results = []
                    for way, taken in zip(ways, seconds[step], strict=True):
                        start = time.perf_counter()
                        results.append(way())
                        taken.append(time.perf_counter() - start)
                        bar.update()
                    if results[0] != results[1]:
                        raise RuntimeError(f"{step}: the two implementations disagree: {results}")
        start = time.perf_counter()
        after = read_table(folder).report.after
        whole = time.perf_counter() - start
    threads = pl.thread_pool_size()
    print(f"{rows.height:,} interactions, median of {arguments.rounds} rounds, {threads} polars threads\n")
    print(f"{'step':<28}{'here':>9}{'rows/s':>12}{'per row':>11}{'times':>8}")
    for step, (here, there) in seconds.items():
        ours, theirs = statistics.median(here), statistics.median(there)
        print(f"{step:<28}{ours:>8.2f}s{rows.height / ours:>12,.0f}{theirs:>10.2f}s{theirs / ours:>8.1f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"\nown table, read to k-core: {whole:.2f} s ({after}); peak of this process {peak:.1f} GB")


def interactions(count: int, seed: int) -> pl.DataFrame:
    """Random interactions with reviews of 20 to 60 words; items differ in popularity."""
    random = np.random.default_rng(seed)
    reviews = np.array([" ".join(random.choice(WORDS, random.integers(20, 60))) for _ in range(5_000)], dtype=object)
    users = random.integers(0, max(count // USERS_PER, 1), count)
    items = (max(count // ITEMS_PER, 1) * random.random(count) ** 2).astype(int)
    return pl.DataFrame(
        {
            "user_id": pl.Series(users).cast(pl.String).str.zfill(10),
            "item_id": pl.Series(items).cast(pl.String).str.zfill(7),
            "timestamp": random.integers(1_200_000_000, 1_600_000_000, count),
            "rating": random.integers(1, 6, count).astype(float),
            "review": reviews[random.integers(0, len(reviews), count)].tolist(),
        }
    )


def write(folder: Path, rows: pl.DataFrame, items: pl.DataFrame) -> dict[str, tuple[Callable, Callable]]:
    """Write the files; for every step, our way and the straightforward one."""
    records = rows.to_dicts()
    as_json, as_literals = folder / "rows.json.gz", folder / "rows.literal.gz"
    for path, render in ((as_json, json.dumps), (as_literals, repr)):
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as stream:
            stream.writelines(render(record) + "\n" for record in records)
    rows.write_parquet(folder / "interactions.parquet")
    items.write_parquet(folder / "items.parquet")
    return {
        "JSON lines (gzip)": (
            lambda: summary(read_records(as_json, SCHEMA).frame),
            lambda: by_line(as_json, json.loads),
        ),
        "Python literals (gzip)": (
            lambda: summary(read_records(as_literals, SCHEMA).frame),
            lambda: by_line(as_literals, ast.literal_eval),
        ),
        "checks, order and k-core": (lambda: core(items, rows), lambda: core_by_row(records)),
    }


def summary(frame: pl.DataFrame) -> tuple[int, int, int]:
    """What two readings of a file must agree on."""
    return frame.height, frame["timestamp"].sum(), frame["review"].str.len_chars().sum()


def by_line(path: Path, parse: Callable[[str], dict]) -> tuple[int, int, int]:
    """Parse one line at a time, as the published loaders do."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return summary(pl.DataFrame([parse(line) for line in stream], schema=SCHEMA))


def core(items: pl.DataFrame, rows: pl.DataFrame) -> tuple[int, int, int]:
    """Counts after our preparation."""
    after = prepare(items, rows).report.after
    return after.users, after.items, after.interactions


def core_by_row(records: list[dict]) -> tuple[int, int, int]:
    """Counts after the same steps on lists and dicts: order, drop repeats, then the 5-core until nothing changes."""
    met, kept = set(), []
    for record in sorted(records, key=lambda record: (record["user_id"], record["timestamp"])):
        pair = record["user_id"], record["item_id"]
        if pair not in met:
            met.add(pair)
            kept.append(record)
    while True:
        users = Counter(record["user_id"] for record in kept)
        items = Counter(record["item_id"] for record in kept)
        left = [record for record in kept if users[record["user_id"]] >= 5 and items[record["item_id"]] >= 5]
        if len(left) == len(kept):
            return len(users), len(items), len(kept)
        kept = left


if __name__ == "__main__":
    main()
