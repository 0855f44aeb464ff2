"""The folder of a run: what was measured, and all that is needed to measure it again.

model/           model and processor with their card, where the run trained one
five_axes.json   settings (command, commit, seed, preset, training curve, ...) and scores
five_axes.png    the scores as a bar chart
ranks.parquet    the rank of every target, which `mender compare` compares pair by pair
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from mender import __version__
from mender.report import Score, draw, print_table
from preference_benchmark.stages import write_atomically

__all__ = ["FIGURES", "READ_FROM", "provenance", "read_from", "read_run", "training_of", "write_run"]

logger = logging.getLogger(__name__)

FIGURES = "five_axes.json"
# Where a training run read its data: source, data, encoder, and how tables are read.
READ_FROM = "read_from"
# What the record of an evaluation repeats of the training run.
KEPT = ("method", "seed", "preset", "training", "trained", "seconds")


def provenance(seed: int) -> dict[str, Any]:
    """Where a result comes from: command, seed, and the commit of a checkout or the installed version."""
    checkout = Path(__file__).parents[1]
    commit = f"mender {__version__}"
    if (checkout / ".git").exists() and shutil.which("git"):
        commit = _git(checkout, "describe", "--always") or commit
        # Results are not code: a changed table does not make a checkout dirty.
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
        commit += "-dirty" if changed else ""
    script = Path(sys.argv[0])
    # The command `mender` is a file of that name; `python -m mender` runs the package's __main__.py.
    is_command = script.stem == "mender" or script.parent.name == "mender"
    program = ["mender"] if is_command else ["python", f"{script.parent.name}/{script.name}"]
    return {"command": shlex.join([*program, *sys.argv[1:]]), "commit": commit, "seed": seed}


def _git(checkout: Path, *words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=checkout).stdout.strip()


def write_run(
    folder: Path, scores: list[Score], settings: dict[str, Any], title: str, ranks: pl.DataFrame | None = None
) -> dict[str, Any]:
    """Print the table of a run and write its figures, plot and ranks.

    Args:
        folder: of the run.
        scores: one per axis, matching mode, stratum and method.
        settings: what the run depends on, and what it cost.
        title: of table and plot.
        ranks: one row per example, see `mender.evaluation.score_model`; `None` writes none.

    Returns:
        What five_axes.json holds.
    """
    print_table(scores, title=title)
    logger.info("writing results")
    folder.mkdir(parents=True, exist_ok=True)
    draw(scores, folder / "five_axes.png", title=title)
    names = ("axis", "matching", "stratum", "method")
    rows = [{name: getattr(one, name) for name in names} | one.results for one in scores]
    record = {"settings": settings, "scores": rows}
    write_atomically(folder / FIGURES, json.dumps(record, indent=2).encode())
    if ranks is not None:
        table = BytesIO()
        ranks.write_parquet(table)
        write_atomically(folder / "ranks.parquet", table.getvalue())
    return record


def read_run(folder: Path) -> dict[str, Any]:
    """What five_axes.json of a run holds.

    Raises:
        ValueError: if it is missing, or holds something else.
    """
    path = folder / FIGURES
    if not path.is_file():
        raise ValueError(f"{path} is missing; pass a folder that `mender train` or `mender evaluate` wrote")
    try:
        record = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); write it again with `mender evaluate`") from error
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise ValueError(f"{path} is not the record of a run; write it again with `mender evaluate`")
    return record


def training_of(model: str | Path) -> dict[str, Any]:
    """The training record of a saved model, from the run folder it is in; empty if it is in none."""
    settings = _settings_of_run(model)
    if "training" not in settings:
        return {}
    trained_by = {f"trained_by_{name}": settings[name] for name in ("command", "commit") if name in settings}
    return {name: settings[name] for name in KEPT if name in settings} | trained_by


def read_from(model: str | Path) -> dict[str, Any]:
    """Where the run of a saved model read its data, as `mender train` recorded it; empty if that is not known."""
    found = _settings_of_run(model).get(READ_FROM)
    return dict(found) if isinstance(found, dict) else {}


def _settings_of_run(model: str | Path) -> dict[str, Any]:
    """Settings of the run whose folder a model is in; empty if it is in none."""
    folder = Path(model)
    run = folder.resolve().parent
    return read_run(run)["settings"] if folder.name == "model" and (run / FIGURES).is_file() else {}
