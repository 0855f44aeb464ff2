"""Comparisons made run by run: what is kept, when a run is made again, when a table is written."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from mender.comparison import compare
from mender.terminal import UserError
from modeling_mender.training.presets import preset_names

FOLDER = Path(__file__).parents[2] / "benchmarks"
USERS = 50


@pytest.fixture
def comparisons(tmp_path, monkeypatch):
    """The script, writing to a folder of the test's own."""
    spec = importlib.util.spec_from_file_location("comparisons", FOLDER / "comparisons.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    (tmp_path / "benchmarks").mkdir()
    plan = (FOLDER / "comparisons.yaml").read_text()
    (tmp_path / "benchmarks" / "comparisons.yaml").write_text(plan)
    monkeypatch.setattr(module, "HERE", tmp_path / "benchmarks")
    monkeypatch.setattr(module, "RUNS", tmp_path / "benchmarks" / "results" / "runs")
    return module


@pytest.fixture
def plan():
    return yaml.safe_load((FOLDER / "comparisons.yaml").read_text())


@pytest.fixture
def calls(comparisons, monkeypatch):
    """Commands that were called; in place of running them, what they would leave. `.fail` names one to fail."""

    class Calls(list):
        fail = None

        def __call__(self, words, log, stopping):
            self.append(words)
            if words[0] == self.fail:
                return False
            given = dict(zip(words, words[1:], strict=False))
            method = given.get("--preset", "tiger")
            write_run(Path(given["--output"]), method, shlex_join(words))
            return True

    called = Calls()
    monkeypatch.setattr(comparisons, "_call", called)
    return called


def shlex_join(words):
    return " ".join(["mender", *words])


def write_run(folder, method, command):
    folder.mkdir(parents=True, exist_ok=True)
    rank = np.random.default_rng(len(method)).integers(0, 11, USERS)
    settings = {"source": "steam", "method": method, "seed": 0, "parameters": 10, "training": {}, "command": command}
    scores = [{"method": method}, {"method": f"{method}, shuffled preferences"}]
    (folder / "five_axes.json").write_text(json.dumps({"settings": settings, "scores": scores}))
    pl.DataFrame(
        {
            "matching": ["oracle"] * USERS,
            "condition": [""] * USERS,
            "axis": ["recommendation"] * USERS,
            "stratum": [""] * USERS,
            "user_id": [f"user {row // 2}" for row in range(USERS)],
            "target": [f"item {row % 7}" for row in range(USERS)],
            "pair_id": [-1] * USERS,
            "sentiment": ["positive"] * USERS,
            "rank": rank,
            "relevant": [1] * USERS,
            "found": [[found] if found else [] for found in rank],
            "unit": [row % 7 for row in range(USERS)],
        },
        schema_overrides={"found": pl.List(pl.Int64)},
    ).write_parquet(folder / "ranks.parquet")
    return folder


def one(comparisons, plan, method, name="steam"):
    return next(run for run in comparisons.planned(name, plan[name], None) if run.method == method)


def make(comparisons, run, output):
    return comparisons.make(run, output, threading.Event())


def records(*folders):
    return {folder: json.loads((folder / "five_axes.json").read_text()) for folder in folders}


def test_kept_runs_compare_as_the_original_ones_and_hold_no_identifiers_or_paths(comparisons, plan, tmp_path):
    command = f"mender train --preset x --data {tmp_path}/steam --seed 0 --output {tmp_path}/out --resume"
    originals = [write_run(tmp_path / name, name, command) for name in ("mender-tok", "tiger")]
    kept = [tmp_path / "kept" / folder.name for folder in originals]
    for folder, place in zip(originals, kept, strict=True):
        comparisons.keep(one(comparisons, plan, folder.name), folder, place)
        before, after = (pl.read_parquet(at / "ranks.parquet") for at in (folder, place))
        for name in ("user_id", "target"):
            assert not set(before[name]) & set(after[name])
            assert before[name].n_unique() == after[name].n_unique()
        assert before.drop("user_id", "target").equals(after.drop("user_id", "target"))
        assert str(tmp_path) not in (place / "five_axes.json").read_text()
        settings = records(place)[place]["settings"]
        assert settings["command"] == "mender train --preset x --data path/to/steam --seed 0" and settings["resumed"]
    assert compare(records(*kept)).cells == compare(records(*originals)).cells


def test_the_path_of_an_evaluated_model_is_not_kept(comparisons):
    command = "mender evaluate /home/me/run/model --source steam --data '/home/me/my data' --output /home/me/whole"
    assert (
        comparisons.public_command(command) == "mender evaluate path/to/model --source steam --data 'path/to/my data'"
    )


def test_an_ablation_is_kept_under_its_own_name(comparisons, plan, tmp_path):
    own = "mender-emb, both matchings"
    run = one(comparisons, plan, own)
    comparisons.keep(run, write_run(tmp_path / "run", "mender-emb", "mender train"), tmp_path / "kept")
    record = records(tmp_path / "kept")[tmp_path / "kept"]
    assert [score["method"] for score in record["scores"]] == [own, f"{own}, shuffled preferences"]
    assert record["settings"]["method"] == own and run.name == "mender-emb-both-matchings-seed0"


def test_a_failed_evaluation_does_not_train_again(comparisons, plan, calls, tmp_path):
    run = one(comparisons, plan, "tiger", "musical_instruments")
    calls.fail = "evaluate"
    assert not make(comparisons, run, tmp_path / "out") and not run.is_there
    calls.fail = None
    assert make(comparisons, run, tmp_path / "out") and run.is_there
    assert [words[0] for words in calls] == ["train", "evaluate", "evaluate"]


def test_a_checkpoint_is_gone_on_with_unless_settings_changed(comparisons, plan, calls, tmp_path):
    run = one(comparisons, plan, "tiger")
    calls.fail = "train"
    for changed, resumed in ((run, False), (run, True), (replace(run, limits=("--eval-limit", "5")), False)):
        assert not make(comparisons, changed, tmp_path)
        assert ("--resume" in calls[-1]) == resumed
        checkpoint = tmp_path / run.name / "checkpoints" / "checkpoint-7"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "trainer_state.json").write_text("{}")


def test_runs_with_other_settings_do_not_count(comparisons, plan, calls, tmp_path):
    run = one(comparisons, plan, "tiger")
    assert make(comparisons, run, tmp_path) and run.is_there
    assert not replace(run, words=(*run.words, "--set", "max_history=5")).is_there
    record = json.loads((run.kept / "five_axes.json").read_text())
    record["plan"]["preset"]["cost"] = "said in other words"  # as records of before have it
    (run.kept / "five_axes.json").write_text(json.dumps(record))
    assert run.is_there


def test_only_one_process_makes_a_run(comparisons, plan, calls, tmp_path, capsys):
    run = one(comparisons, plan, "tiger")
    with comparisons.FileLock(tmp_path / f"{run.name}.lock"):
        assert not make(comparisons, run, tmp_path)
    assert "being made by another process" in capsys.readouterr().out and not calls


def test_tables_wait_for_all_runs_unless_asked(comparisons, plan, calls, tmp_path, capsys):
    (tmp_path / "steam").mkdir()
    ask = {"name": "steam", "data": tmp_path, "output": tmp_path / "out", "only": ["hybrid", "sasrec"], "seeds": 1}
    table = tmp_path / "benchmarks" / "results" / "steam" / "comparison.md"
    comparisons.main(**ask)
    assert not table.exists() and "steam lacks hybrid-seed1" in capsys.readouterr().out
    # Both are trained, and asked for every test example as well.
    assert sorted(words[0] for words in calls) == ["evaluate", "evaluate", "train", "train"]
    comparisons.main(**ask, partial=True)
    assert len(calls) == 4 and "sasrec" in table.read_text()
    comparisons.main(**{**ask, "only": None, "again": ["sasrec"]})
    assert [words[0] for words in calls[4:]] == ["train", "evaluate"]


def test_only_the_first_seed_is_asked_for_every_test_example(comparisons):
    entry = {"source": "steam", "runs": {"hybrid": {"whole": True, "seeds": [3, 4]}, "tiger": {}}, "tables": {}}
    runs = comparisons.planned("steam", entry, None)
    assert [(run.name, run.whole) for run in runs] == [
        ("hybrid-seed3", True),
        ("hybrid-seed4", False),
        ("tiger-seed0", False),
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": "stem"}, "'stem' is none of the comparisons steam"),
        ({"name": "steam", "only": ["tigr"]}, "'tigr' is none of the methods hybrid; mender"),
        ({"name": "steam"}, "pass --data with the folder that holds steam/"),
        ({"name": "steam", "tables_only": True, "again": ["tiger"]}, "leave one of them out"),
    ],
)
def test_bad_requests_are_refused(comparisons, asked, message):
    with pytest.raises(UserError, match=message):
        comparisons.main(**asked)


def test_failures_are_named_and_do_not_stop_the_others(comparisons, calls, tmp_path, capsys):
    (tmp_path / "steam").mkdir()
    calls.fail = "train"
    with pytest.raises(UserError, match="2 of 2 runs failed"):
        comparisons.main("steam", tmp_path, only=["sasrec"], seeds=2, output=tmp_path / "out")
    assert len(calls) == 2 and "Failed: sasrec-seed0, sasrec-seed1" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_a_stop_leaves_no_training_behind_and_begins_none(comparisons, plan, tmp_path, monkeypatch):
    script = tmp_path / "training"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(comparisons.sys, "executable", str(script))
    children = []

    class Waiting(set):
        def add(self, process):  # a training has begun: stop as `kill` does
            super().add(process)
            children.append(process)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    monkeypatch.setattr(comparisons, "RUNNING", Waiting())
    runs = comparisons.planned("corner_shop", plan["corner_shop"], None)[:2]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `main` has it
    try:
        with pytest.raises(KeyboardInterrupt):
            comparisons.make_all(runs, tmp_path / "outputs", workers=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [child.poll() for child in children] == [-signal.SIGTERM]
    assert not any(run.is_there for run in runs)
    stopping = threading.Event()
    stopping.set()
    assert not comparisons._call(["train"], tmp_path / "log.txt", stopping) and len(children) == 1


def test_the_plan_names_presets_and_real_settings(comparisons, plan):
    for name, entry in plan.items():
        runs = comparisons.planned(name, entry, None)
        assert len({run.name for run in runs}) == len(runs)
        assert all(run.plan["preset"]["name"] for run in runs)
        assert {run.plan["preset"]["name"] for run in runs} == {*preset_names()} or not entry["tables"]
        for table in entry["tables"].values():
            assert set(table.get("methods", [])) <= set(entry["runs"])
