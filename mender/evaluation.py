"""A saved or freshly trained model on all axes, both matching modes, and itself with other people's preferences.

Besides the figures, the rank of every single target is kept: two runs on the same examples can then be compared pair by
pair, which tells far smaller differences from noise than two separate intervals do.

Where the metric lies, for `evaluate.load`: beside the packages in a checkout, inside this one once installed.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import evaluate
import numpy as np
import polars as pl
from datasets import Dataset

from mender import __version__
from mender.data import BenchmarkData
from mender.report import Score, draw, in_order, print_table, save_json
from modeling_mender import MenderProcessor, select_axes
from modeling_mender.training.data import first_targets
from modeling_mender.training.ranking import rank_examples, request_speed
from preference_benchmark.axes.controls import shuffle_preferences

__all__ = [
    "KS",
    "check_items",
    "evaluate_saved",
    "measure_requests",
    "metric_folder",
    "metric_module",
    "provenance",
    "read_json",
    "run_of",
    "sample",
    "score_model",
    "write_results",
]


INSTALLED = Path(__file__).parent / "metrics" / "preference_discerning"
IN_CHECKOUT = Path(__file__).parents[1] / "metrics" / "preference_discerning"


def metric_folder() -> str:
    """Folder of the metric `preference_discerning`.

    Raises:
        FileNotFoundError: if it is in neither place.

    >>> import evaluate
    >>> evaluate.load(metric_folder(), "ranking").name
    'preference_discerning'
    """
    for folder in (INSTALLED, IN_CHECKOUT):
        if (folder / "preference_discerning.py").is_file():
            return str(folder)
    raise FileNotFoundError(f"the metric is neither in {INSTALLED} nor in {IN_CHECKOUT}; install mender anew")


@cache
def metric_module() -> ModuleType:
    """The metric's file as a module, for the functions in it; `evaluate.load` gives the metric alone.

    Raises:
        FileNotFoundError: if it is not there.

    >>> metric_module().target_ranks([["a", "b"]], ["b"]).tolist()
    [2]
    """
    file = Path(metric_folder()) / "preference_discerning.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KS = (5, 10)
SHUFFLED = "shuffled preferences"


def score_model(
    model: Any,
    processor: MenderProcessor,
    data: BenchmarkData,
    name: str,
    limit: int | None,
    seed: int,
    exclude_seen: bool = True,
    split: str = "test",
) -> tuple[list[Score], pl.DataFrame]:
    """Scores by axis and matching mode, and the rank of every target.

    Args:
        model: any model with `recommend`.
        processor: renders its inputs.
        data: the benchmark.
        name: of the method, in tables.
        limit: examples (or pairs) per axis at most; `None` takes all.
        seed: of the choice, and of the shuffling of preferences.
        exclude_seen: whether items of the history are left out of what is ranked.
        split: whose examples are asked: "test", or "validation" to choose between models.

    Returns:
        Scores, and a table with one row per example and condition: matching, condition (empty, or shuffled),
        axis, user_id, target, pair_id, sentiment, rank (0 where the target was not found).
    """
    metric = evaluate.load(metric_folder())
    scores, tables = [], []
    for matching, examples in data.examples.items():
        test = examples[split]
        if matching == "last":  # the other axes do not depend on how the next item's preference is chosen
            test = select_axes(test, {"recommendation": 1.0})
        test = sample(test, limit, seed)
        for condition in ("", SHUFFLED):
            asked = test if not condition else shuffle_preferences(test, seed)
            ranked = rank_examples(model, processor, asked, max(KS), exclude_seen=exclude_seen)
            targets = first_targets(test)
            columns = {"axes": test["axis"][:], "sentiments": test["sentiment"][:], "pair_ids": test["pair_id"][:]}
            figures = metric.compute(
                predictions=[processor.ids(rows) for rows in ranked], references=targets, **columns, ks=KS
            )
            label = f"{name}, {condition}" if condition else name
            for axis in dict.fromkeys(columns["axes"]):
                own = {key.split("/", 1)[1]: value for key, value in figures.items() if key.startswith(f"{axis}/")}
                scores.append(Score(axis, matching if axis == "recommendation" else "", label, own))
            hits = ranked == np.array(processor.item_indices(targets))[:, None]
            tables.append(
                pl.DataFrame(
                    {
                        "matching": [matching if axis == "recommendation" else "" for axis in columns["axes"]],
                        "condition": [condition] * len(test),
                        "axis": columns["axes"],
                        "user_id": test["user_id"][:],
                        "target": targets,
                        "pair_id": columns["pair_ids"],
                        "sentiment": columns["sentiments"],
                        "rank": np.where(hits.any(1), hits.argmax(1) + 1, 0),
                    }
                )
            )
    return in_order(scores), pl.concat(tables)


def sample(examples: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most `limit` examples of each axis; pairs stay whole."""
    if limit is None:
        return examples
    axis, pair = np.array(examples["axis"][:]), np.array(examples["pair_id"][:])
    generator = np.random.default_rng(seed)
    kept = []
    for value in np.unique(axis):
        rows = np.flatnonzero(axis == value)
        units = np.where(pair[rows] >= 0, pair[rows], -1 - np.arange(len(rows)))
        distinct = np.unique(units)
        chosen = generator.choice(distinct, min(limit, len(distinct)), replace=False)
        kept.append(rows[np.isin(units, chosen)])
    return examples.select(np.sort(np.concatenate(kept)))


def evaluate_saved(
    model: Any,
    processor: MenderProcessor,
    data: BenchmarkData,
    output: Path,
    name: str,
    limit: int | None = None,
    run: Mapping[str, Any] | None = None,
    exclude_seen: bool = True,
    split: str = "test",
) -> dict[str, Any]:
    """Measure a saved model on all axes and write the results.

    Args:
        model: any model with `recommend`.
        processor: the one saved with it.
        data: the benchmark.
        output: folder for the results.
        name: of the method, in tables.
        limit: examples (or pairs) per axis at most; `None` takes all.
        run: what is known of the model's training, see `run_of`; it goes into the record.
        exclude_seen: whether items of the history are left out of what is ranked.
        split: whose examples are asked: "test", or "validation" to choose between models.

    Returns:
        What five_axes.json holds.
    """
    origin = provenance(seed=0)
    scores, ranks = score_model(model, processor, data, name, limit, 0, exclude_seen, split)
    run = {
        **origin,
        **(run or {}),
        "source": data.source,
        "method": name,
        "parameters": model.num_parameters(),
        "exclude_seen": exclude_seen,
        "split": split,
        **measure_requests(model, processor, data),
    }
    title = f"{name} on {data.source}: {len(data.items):,} items{'' if exclude_seen else ', seen ones among them'}"
    title += "" if split == "test" else f", {split} split"
    return write_results(output, scores, ranks, run, title)


def run_of(model: str | Path) -> dict[str, Any]:
    """What the record beside a saved model says of its training: command, preset, curve ...; empty where none is."""
    folder = Path(model)
    record = folder.resolve().parent / "five_axes.json"
    if folder.name != "model" or not record.is_file():
        return {}
    settings = read_json(record).get("settings", {})
    kept = ("method", "seed", "preset", "training", "trained", "seconds")
    if "training" not in settings:
        return {}
    made = {f"trained_by_{name}": settings[name] for name in ("command", "commit") if name in settings}
    return {name: settings[name] for name in kept if name in settings} | made


def check_items(processor: MenderProcessor, data: BenchmarkData, name: str) -> None:
    """Checks that a model's items are those of a benchmark.

    Raises:
        ValueError: if they are not.
    """
    if processor.item_ids != data.items["item_id"][:]:
        raise ValueError(
            f"{name} was trained on other items than {data.source} has ({len(processor.item_ids):,} and "
            f"{len(data.items):,}); pass the --source, --data, --users and --items it was trained with"
        )


def write_results(
    output: Path, scores: list[Score], ranks: pl.DataFrame, run: dict[str, Any], title: str
) -> dict[str, Any]:
    """Table on the screen; five_axes.png, five_axes.json and ranks.parquet in the folder.

    Returns:
        What five_axes.json holds.
    """
    print_table(scores, KS, title)
    output.mkdir(parents=True, exist_ok=True)
    draw(scores, output / "five_axes.png", title=title)
    record = save_json(scores, run, output / "five_axes.json")
    unfinished = output / "ranks.parquet.tmp"
    ranks.write_parquet(unfinished)
    unfinished.replace(output / "ranks.parquet")
    return record


def measure_requests(model: Any, processor: MenderProcessor, data: BenchmarkData) -> dict[str, float]:
    """Milliseconds of one request and users per second, on recommendation examples of the test split."""
    test = select_axes(data.examples["oracle"]["test"], {"recommendation": 1.0})
    return request_speed(model, processor, test)


def provenance(seed: int) -> dict[str, Any]:
    """What a result needs to be found again: command, seed, and the commit of a checkout or the installed version."""
    checkout = Path(__file__).parents[1]
    commit = f"mender {__version__}"
    if (checkout / ".git").exists() and shutil.which("git"):
        commit = _git(checkout, "describe", "--always") or commit
        # Results say nothing about the code that made them.
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
        commit += "-dirty" if changed else ""
    script = Path(sys.argv[0])
    # The command `mender` is a file of that name; `python -m mender` runs the package's __main__.py.
    is_command = script.stem == "mender" or script.parent.name == "mender"
    program = ["mender"] if is_command else ["python", f"{script.parent.name}/{script.name}"]
    return {"command": shlex.join([*program, *sys.argv[1:]]), "commit": commit, "seed": seed}


def _git(checkout: Path, *words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=checkout).stdout.strip()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file as a dictionary.

    Raises:
        ValueError: if it is not there, or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; pass a folder that `mender train` or `mender evaluate` wrote")
    record = json.loads(path.read_text("utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds a {type(record).__name__}, no run; write it anew with `mender evaluate`")
    return record
