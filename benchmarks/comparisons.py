"""The comparisons of methods in benchmarks/results: trains what is missing, keeps what was measured, writes the tables.

    python benchmarks/comparisons.py corner_shop
    python benchmarks/comparisons.py steam --data path/to/data --only tiger --only sasrec
    python benchmarks/comparisons.py steam --data path/to/data --again tiger
    python benchmarks/comparisons.py steam --tables-only --partial

comparisons.yaml lists the runs of each comparison. Each run is one `mender train` with one thread, several at a time,
and leaves five_axes.json and ranks.parquet under benchmarks/results/runs. A finished run with the current
settings is not repeated, so a comparison may take several days; a killed run resumes from its last checkpoint. A table
is written when all of its runs are finished, or with --partial.

Users and items are hashed in what is kept: pairing examples needs no more. Their identifiers are public, so this keeps
the data out, but is no anonymisation.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
import yaml
from filelock import FileLock, Timeout

from mender.cli.options import assignments
from mender.comparison import compare, draw_stars, print_comparison, save_comparison
from mender.runs import READ_FROM, read_run
from mender.terminal import UserError, run_script, user_errors
from mender.training import choose_preset
from modeling_mender.training.presets import PROSE
from modeling_mender.training.trainer import last_checkpoint

HERE = Path(__file__).parent
RUNS, WHOLE = HERE / "results" / "runs", "whole"
RUNNING: set[subprocess.Popen] = set()
LAST_WRITTEN = "ranks.parquet"  # of what `mender train` and `mender evaluate` leave


@dataclass(frozen=True)
class Run:
    """One method with one seed on one data set.

    Attributes:
        data_set: key in comparisons.yaml.
        method: name in the tables.
        seed: of every draw.
        words: of its `mender train` that name and change the preset.
        limits: further ones.
        source: words of `mender train` and `mender evaluate` that name the data, without its folder.
        data: that folder; `None` where the source is embedded.
        whole: whether to evaluate on every test example as well.
    """

    data_set: str
    method: str
    seed: int
    words: tuple[str, ...]
    limits: tuple[str, ...]
    source: tuple[str, ...]
    data: Path | None
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
    def where(self) -> list[str]:
        """Words that name the data and its folder."""
        return [*self.source, *([] if self.data is None else ["--data", str(self.data)])]

    @cached_property
    def plan(self) -> dict[str, Any]:
        """All that the run depends on but the code: it is made again when this changes."""
        pairs = list(zip(self.words[::2], self.words[1::2], strict=True))
        options = dict(pairs)
        changes = [value for option, value in pairs if option == "--set"]
        training = [value for option, value in pairs if option == "--train"]
        preset = choose_preset(
            options["--preset"],
            options.get("--conditioning", "both"),
            assignments(changes, "--set"),
            assignments(training, "--train"),
        )
        words = [*self.words, *self.limits, *self.source, "--seed", str(self.seed)]
        return _without_prose(json.loads(json.dumps({"words": words, "preset": asdict(preset)})))

    @property
    def is_there(self) -> bool:
        """Whether everything that it leaves has been kept, of a run with today's settings."""
        folders = [self.kept, self.kept / WHOLE] if self.whole else [self.kept]
        return all(_without_prose(_read(folder / "five_axes.json").get("plan", {})) == self.plan for folder in folders)


def main(
    name: Annotated[str, typer.Argument(help="A key of comparisons.yaml.")],
    data: Annotated[Path | None, typer.Option(help="Folder that holds the folders of raw files.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A method; may be given several times.")] = None,
    again: Annotated[list[str] | None, typer.Option(help="A method to train again, even if its run exists.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each method at most.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Train nothing.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Write tables although runs are missing.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for models and checkpoints.")] = Path("outputs/comparisons"),
) -> None:
    """Train, keep, compare."""
    everything = yaml.safe_load((HERE / "comparisons.yaml").read_text("utf-8"))
    if name not in everything:
        raise UserError(f"{name!r} is none of the comparisons {', '.join(everything)}")
    if tables_only and again:
        raise UserError("--tables-only trains nothing and --again asks for training; leave one of them out")
    entry, retrained = everything[name], set(again or [])
    asked = {*(only or []), *retrained} or set(entry["runs"])
    if asked - set(entry["runs"]):
        raise UserError(f"{min(asked - set(entry['runs']))!r} is none of the methods {'; '.join(entry['runs'])}")
    runs = planned(name, entry, data)
    chosen = [run for run in runs if run.method in asked and (seeds is None or run.seed < seeds)]
    wanted = [] if tables_only else [run for run in chosen if run.method in retrained or not run.is_there]
    if wanted and "files" in entry and not (data is not None and (data / entry["files"]).is_dir()):
        raise UserError(f"pass --data with the folder that holds {entry['files']}/" + (f", not {data}" if data else ""))
    for folder in (
        folder for run in wanted if run.method in retrained for folder in (run.kept, output / name / run.name)
    ):
        if folder.exists():  # what was kept is in git
            shutil.rmtree(folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = make_all(wanted, output / name, workers)
    if failed:
        print(f"Failed: {', '.join(failed)}; their logs are under {output / name}", file=sys.stderr)
    for table, settings in entry["tables"].items():
        write_table(table, settings, entry, runs, partial)
    if failed:
        raise UserError(f"{len(failed)} of {len(wanted)} runs failed; the same command tries them again")


def planned(name: str, entry: dict[str, Any], data: Path | None) -> list[Run]:
    """All runs of a comparison, in the order of the file."""
    return [
        Run(
            data_set=name,
            method=method,
            seed=seed,
            words=("--preset", own.get("preset", method), *own.get("words", [])),
            limits=tuple(entry.get("limits", [])),
            source=("--source", entry["source"], *entry.get("shape", [])),
            data=(data or Path("path/to")) / entry["files"] if "files" in entry else None,
            whole=own.get("whole", False) and seed == own.get("seeds", [0])[0],
        )
        for method, own in entry["runs"].items()
        for seed in own.get("seeds", [0])
    ]


def make_all(runs: list[Run], output: Path, workers: int) -> list[str]:
    """Make runs, some at a time; returns the names of those that failed."""
    stopping = threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        try:
            done = [pool.submit(make, run, output, stopping) for run in runs]
            return [run.name for run, fine in zip(runs, done, strict=True) if not fine.result()]
        except KeyboardInterrupt:  # a terminal tells the running ones as well, `kill` does not
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)  # first, or the next one begins
            for process in list(RUNNING):
                process.terminate()
            raise


def make(run: Run, output: Path, stopping: threading.Event) -> bool:
    """Train and evaluate one run and keep its figures; whether that went well."""
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    print(f"{time.strftime('%H:%M')} {run.name}: begins", flush=True)
    try:
        with FileLock(output / f"{run.name}.lock", timeout=0):
            fine = _make(run, output / run.name, stopping)
        outcome = "done" if fine else "failed"
    except Timeout:
        fine, outcome = False, "is being made by another process"
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        fine, outcome = False, f"failed ({error})"
    minutes = (time.monotonic() - started) / 60
    print(f"{time.strftime('%H:%M')} {run.name}: {outcome} after {minutes:.1f} min", flush=True)
    return fine


def _make(run: Run, folder: Path, stopping: threading.Event) -> bool:
    if _without_prose(_read(folder / "plan.json")) != run.plan:  # do not resume from a checkpoint with other settings
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        _replace(folder / "plan.json", lambda path: path.write_text(json.dumps(run.plan), "utf-8"))
    log = folder / "log.txt"
    if not (folder / LAST_WRITTEN).exists():
        words = [*run.words, *run.limits, *run.where, "--seed", str(run.seed), "--output", str(folder)]
        resume = ["--resume"] if _has_checkpoint(folder / "checkpoints") else []
        if not _call(["train", *words, *resume], log, stopping):
            return False
    keep(run, folder, run.kept)
    if run.whole and not stopping.is_set():
        whole = folder / WHOLE
        if not (whole / LAST_WRITTEN).exists() and not _call(
            ["evaluate", str(folder / "model"), *run.where, "--output", str(whole)], log, stopping
        ):
            return False
        keep(run, whole, run.kept / WHOLE)
    if (folder / "checkpoints").exists():
        shutil.rmtree(folder / "checkpoints")
    return not stopping.is_set()


def _has_checkpoint(folder: Path) -> bool:
    try:
        return bool(last_checkpoint(folder))
    except ValueError:
        return False


def _call(words: list[str], log: Path, stopping: threading.Event) -> bool:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "mender", *words]
        if stopping.is_set():
            return False
        with subprocess.Popen(command, stdout=stream, stderr=stream, env=environment) as process:
            RUNNING.add(process)
            if stopping.is_set():  # since the line above
                process.terminate()
            try:
                return process.wait() == 0
            finally:
                RUNNING.discard(process)


def keep(run: Run, folder: Path, kept: Path) -> None:
    """Copy a run's figures to where results are kept, without paths of this machine and identifiers of the data.

    Args:
        run: whose figures they are.
        folder: what `mender train` or `mender evaluate` left.
        kept: emptied first, so that nothing of an earlier run remains.
    """
    record = read_run(folder)
    settings = record["settings"]
    own, settings["method"] = settings["method"], run.method
    settings.pop(READ_FROM, None)  # where this machine keeps the data
    for name in ("command", "trained_by_command"):
        if name in settings:
            settings["resumed"] = settings.get("resumed", False) or "--resume" in shlex.split(settings[name])
            settings[name] = public_command(settings[name])
    for score in record["scores"]:  # some are of the method "NAME, shuffled preferences"
        score["method"] = run.method + score["method"].removeprefix(own)
    ranks = pl.read_parquet(folder / "ranks.parquet")
    hidden = ranks.with_columns(hashed(ranks[name]) for name in ("user_id", "target"))
    if kept.exists():
        shutil.rmtree(kept)
    kept.mkdir(parents=True)
    _replace(kept / "ranks.parquet", lambda path: hidden.write_parquet(path, compression="zstd"))
    text = json.dumps(record | {"plan": run.plan}, indent=1) + "\n"
    _replace(kept / "five_axes.json", lambda path: path.write_text(text, "utf-8"))


def public_command(command: str) -> str:
    """A command line of `mender train` or `mender evaluate`, without where this machine keeps things."""
    words = [word for word in shlex.split(command) if word != "--resume"]
    if "--output" in words:
        place = words.index("--output")
        words[place : place + 2] = []
    if "--data" in words:
        place = words.index("--data") + 1
        words[place] = f"path/to/{Path(words[place]).name}"
    if "evaluate" in words:
        words[words.index("evaluate") + 1] = "path/to/model"
    return shlex.join(words)


def hashed(column: pl.Series) -> pl.Series:
    """A column of identifiers, hashed."""
    distinct = {value: hashlib.sha256(value.encode()).hexdigest()[:12] for value in column.unique()}
    return column.replace_strict(distinct, return_dtype=pl.String).alias(column.name)


def _without_prose(plan: dict[str, Any]) -> dict[str, Any]:
    if "preset" not in plan:
        return plan
    return plan | {"preset": {name: value for name, value in plan["preset"].items() if name not in PROSE}}


def _read(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    unfinished = path.with_name(f"{path.name}.tmp")
    write(unfinished)
    unfinished.replace(path)


def write_table(name: str, settings: dict[str, Any], entry: dict[str, Any], runs: list[Run], partial: bool) -> None:
    """Compare runs, print the table, and write table and star plot.

    Args:
        name: of its folder.
        settings: see comparisons.yaml.
        entry: the comparison it belongs to.
        runs: all that the comparison has.
        partial: whether to write it although runs are missing.
    """
    plain = [method for method, own in entry["runs"].items() if not own.get("apart")]
    methods, seeds, whole = settings.get("methods", plain), settings.get("seeds"), settings.get("whole", False)
    own = [
        run
        for method in methods
        for run in runs
        if run.method == method and (run.whole or not whole) and (seeds is None or run.seed in seeds)
    ]
    there = [run for run in own if run.is_there]
    missing = [run.name for run in own if run not in there]
    if missing:
        print(f"{name} lacks {', '.join(missing)}")
    if (missing and not partial) or len({run.method for run in there}) < 2 or there[0].method != methods[0]:
        print(f"{name}: not written" + ("" if partial else " (--partial writes it of what is there)"))
        return
    folders = [run.kept / WHOLE if whole else run.kept for run in there]
    with user_errors():
        comparison = compare(
            {folder: read_run(folder) for folder in folders},
            metric=settings.get("metric", "recall@10"),
        )
    print_comparison(comparison)
    target = HERE / "results" / name
    target.mkdir(parents=True, exist_ok=True)
    draw_stars(comparison, target / "stars.png")
    save_comparison(comparison, target)
    print(f"Saved under benchmarks/results/{name}/")


if __name__ == "__main__":
    run_script(main, __doc__)
