"""The comparisons of methods in benchmarks/results: trains what is missing, keeps what was measured, writes the tables.

    python benchmarks/comparisons.py corner_shop
    python benchmarks/comparisons.py steam --data path/to/data --only tiger --only sasrec
    python benchmarks/comparisons.py steam --data path/to/data --again tiger
    python benchmarks/comparisons.py steam --tables-only

comparisons.yaml says what belongs to a comparison. Each run is one `mender train` with one thread, several at a time,
and leaves five_axes.json and ranks.parquet under benchmarks/results/runs: a run that is there is not made again, so a
comparison may be made over several days, and a killed one goes on where its last checkpoint was. Tables are made of
the runs that are there; those that are missing are named.

The kept ranks hold no identifier of the data: users and items are hashed, which is all that pairing examples needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
import yaml

from mender.comparison import compare, draw_stars, print_comparison, save_comparison
from mender.errors import UserError, user_errors
from mender.evaluation import read_json
from mender.terminal import run_script
from modeling_mender.checkpoints import last_checkpoint

HERE = Path(__file__).parent
RUNS, WHOLE = HERE / "results" / "runs", "whole"


@dataclass(frozen=True)
class Run:
    """One method with one seed on one data set.

    Attributes:
        data_set: key in comparisons.yaml.
        method: name in the tables.
        seed: of every draw.
        source: words of `mender train` and `mender evaluate` that name the data.
        words: further ones of its `mender train`, without --seed and --output.
        whole: whether to evaluate on every test example as well.
    """

    data_set: str
    method: str
    seed: int
    source: tuple[str, ...]
    words: tuple[str, ...]
    whole: bool

    @property
    def name(self) -> str:
        """Name of its folders."""
        return re.sub(r"[^a-z0-9.-]+", "-", self.method) + f"-seed{self.seed}"

    @property
    def kept(self) -> Path:
        """Where its figures are kept."""
        return RUNS / self.data_set / self.name

    @property
    def is_there(self) -> bool:
        """Whether everything that it leaves has been kept."""
        folders = [self.kept, self.kept / WHOLE] if self.whole else [self.kept]
        return all((folder / "five_axes.json").exists() for folder in folders)


def main(
    name: Annotated[str, typer.Argument(help="A key of comparisons.yaml: steam, musical_instruments, corner_shop.")],
    data: Annotated[Path | None, typer.Option(help="Folder that holds the folders of raw files.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A method; may be given several times.")] = None,
    again: Annotated[list[str] | None, typer.Option(help="A method to train afresh, even if it is there.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each method at most.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    tables_only: Annotated[bool, typer.Option(help="Train nothing.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for models and checkpoints.")] = Path("outputs/comparisons"),
) -> None:
    """Train, keep, compare."""
    everything = yaml.safe_load((HERE / "comparisons.yaml").read_text("utf-8"))
    if name not in everything:
        raise UserError(f"{name!r} is none of the comparisons {', '.join(everything)}")
    entry, afresh = everything[name], set(again or [])
    asked = {*(only or []), *afresh} or set(entry["runs"])
    if asked - set(entry["runs"]):
        raise UserError(f"{min(asked - set(entry['runs']))!r} is none of the methods {'; '.join(entry['runs'])}")
    runs = planned(name, entry, data)
    chosen = [run for run in runs if run.method in asked and (seeds is None or run.seed < seeds)]
    wanted = [] if tables_only else [run for run in chosen if run.method in afresh or not run.is_there]
    if wanted and "files" in entry and not (data is not None and (data / entry["files"]).is_dir()):
        raise UserError(f"pass --data with the folder that holds {entry['files']}/" + (f", not {data}" if data else ""))
    for run in wanted:
        if run.method in afresh:
            shutil.rmtree(output / name / run.name, ignore_errors=True)
    failed = make_all(wanted, output / name, workers)
    missing = [run.name for run in runs if not run.is_there]
    if missing:
        print(f"Not in the tables, because not there: {', '.join(missing)}")
    for table, settings in entry["tables"].items():
        write_table(table, settings, entry, [run for run in runs if run.is_there])
    if failed:
        raise UserError(f"failed: {', '.join(failed)}; their logs are under {output / name}")


def planned(name: str, entry: dict[str, Any], data: Path | None) -> list[Run]:
    """All runs of a comparison, in the order of the file."""
    files = ["--data", str((data or Path("path/to")) / entry["files"])] if "files" in entry else []
    source = ("--source", entry["source"], *files, *entry.get("shape", []))
    return [
        Run(
            data_set=name,
            method=method,
            seed=seed,
            source=source,
            words=("--preset", own.get("preset", method), *own.get("words", []), *entry.get("limits", [])),
            whole=own.get("whole", False),
        )
        for method, own in entry["runs"].items()
        for seed in own.get("seeds", [0])
    ]


def make_all(runs: list[Run], output: Path, workers: int) -> list[str]:
    """Make runs, some at a time; returns the names of those that failed."""
    with ThreadPoolExecutor(workers) as pool:
        done = [pool.submit(make, run, output) for run in runs]
        try:
            return [run.name for run, fine in zip(runs, done, strict=True) if not fine.result()]
        except KeyboardInterrupt:  # the running ones have got it as well; the others must not begin
            pool.shutdown(cancel_futures=True)
            raise


def make(run: Run, output: Path) -> bool:
    """Train and evaluate one run and keep its figures; whether that went well."""
    folder = output / run.name
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{time.strftime('%H:%M')} {run.name}: begins", flush=True)
    words = [*run.words, *run.source, "--seed", str(run.seed), "--output", str(folder)]
    resume = ["--resume"] if _has_checkpoint(folder / "checkpoints") else []
    fine = _call(["train", *words, *resume], folder / "log.txt")
    if fine:
        keep(run, folder, run.kept)
    if fine and run.whole:
        asked = ["evaluate", str(folder / "model"), *run.source, "--output", str(folder / WHOLE)]
        fine = _call(asked, folder / "log.txt")
        if fine:
            keep(run, folder / WHOLE, run.kept / WHOLE)
    if fine:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    minutes = (time.monotonic() - started) / 60
    print(f"{time.strftime('%H:%M')} {run.name}: {'done' if fine else 'failed'} after {minutes:.1f} min", flush=True)
    return fine


def _has_checkpoint(folder: Path) -> bool:
    try:
        return bool(last_checkpoint(folder))
    except ValueError:
        return False


def _call(words: list[str], log: Path) -> bool:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_MININTERVAL": "30"}
    with log.open("a", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "mender", *words]
        return subprocess.run(command, stdout=stream, stderr=stream, env=environment, check=False).returncode == 0


def keep(run: Run, folder: Path, kept: Path) -> None:
    """Copy a run's figures to where results are kept, without paths of this machine and identifiers of the data."""
    record = read_json(folder / "five_axes.json")
    settings = record["settings"]
    own, settings["method"] = settings["method"], run.method
    for name in ("command", "trained_by_command"):
        if name in settings:
            settings[name] = public_command(settings[name])
    for score in record["scores"]:  # some are of the method "NAME, shuffled preferences"
        score["method"] = run.method + score["method"].removeprefix(own)
    ranks = pl.read_parquet(folder / "ranks.parquet")
    hidden = ranks.with_columns(_hashed(ranks[name]) for name in ("user_id", "target"))
    kept.mkdir(parents=True, exist_ok=True)
    _replace(kept / "ranks.parquet", lambda path: hidden.write_parquet(path, compression="zstd"))
    _replace(kept / "five_axes.json", lambda path: path.write_text(json.dumps(record, indent=1) + "\n", "utf-8"))


def public_command(command: str) -> str:
    """A command line without where this machine keeps things.

    >>> public_command("mender train --preset tiger --data /home/me/data/steam --seed 0 --output /tmp/x")
    'mender train --preset tiger --data path/to/steam --seed 0'
    """
    words = shlex.split(command)
    for option in ("--output", "--data"):
        if option in words:
            place = words.index(option)
            words[place : place + 2] = (
                [] if option == "--output" else ["--data", f"path/to/{Path(words[place + 1]).name}"]
            )
    return shlex.join(word for word in words if word != "--resume")


def _hashed(column: pl.Series) -> pl.Series:
    distinct = {value: hashlib.sha256(value.encode()).hexdigest()[:12] for value in column.unique()}
    return column.replace_strict(distinct, return_dtype=pl.String).alias(column.name)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    unfinished = path.with_name(f"{path.name}.tmp")
    write(unfinished)
    unfinished.replace(path)


def write_table(name: str, settings: dict[str, Any], entry: dict[str, Any], runs: list[Run]) -> None:
    """Compare runs, print the table, and write table and star plot."""
    plain = [method for method, own in entry["runs"].items() if not own.get("ablation")]
    methods, seeds = settings.get("methods", plain), settings.get("seeds")
    whole = settings.get("whole", False)
    chosen = {
        run.kept / WHOLE if whole else run.kept: None
        for method in methods
        for run in runs
        if run.method == method and (run.whole or not whole) and (seeds is None or run.seed in seeds)
    }
    if len(chosen) < 2:
        print(f"{name}: fewer than two runs are there; no table")
        return
    with user_errors():
        comparison = compare(
            {folder: read_json(folder / "five_axes.json") for folder in chosen},
            metric=settings.get("metric", "recall@10"),
        )
    print_comparison(comparison)
    folder = HERE / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    draw_stars(comparison, folder / "stars.png")
    save_comparison(comparison, folder)
    print(f"Saved under {folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder}/")


if __name__ == "__main__":
    run_script(main, __doc__)
