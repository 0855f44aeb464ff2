"""Runs kept under benchmarks/results: nothing of the data or the machine stays, and tables come out the same."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from test_comparison import read, write_run

from mender.comparison import compare
from mender.training import choose_preset
from modeling_mender import preset_names

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def comparisons():
    spec = importlib.util.spec_from_file_location("comparisons", FOLDER / "comparisons.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plan():
    return yaml.safe_load((FOLDER / "comparisons.yaml").read_text())


def kept(comparisons, plan, folder, method, place):
    """A run of the hand-made kind, kept."""
    record = json.loads((folder / "five_axes.json").read_text())
    record["settings"]["command"] = f"mender train --preset {method} --data {folder}/steam --seed 0 --output {folder}"
    record["scores"] = [{"method": method}, {"method": f"{method}, shuffled preferences"}]
    (folder / "five_axes.json").write_text(json.dumps(record))
    run = next(run for run in comparisons.planned("steam", plan["steam"], None) if run.method == method)
    comparisons.keep(run, folder, place)
    return place


def test_kept_runs_give_the_same_table_and_hide_users_and_paths(comparisons, plan, tmp_path):
    runs = [
        write_run(tmp_path / name, name, rate, source="steam") for name, rate in (("mender-tok", 0.3), ("tiger", 0.2))
    ]
    original = compare(read(*runs))
    hidden = [kept(comparisons, plan, run, run.name, tmp_path / "kept" / run.name) for run in runs]
    assert compare(read(*hidden)).cells == original.cells
    for run, place in zip(runs, hidden, strict=True):
        before, after = (pl.read_parquet(folder / "ranks.parquet") for folder in (run, place))
        for name in ("user_id", "target"):
            assert not set(before[name]) & set(after[name])
            assert before[name].n_unique() == after[name].n_unique()
        assert before.drop("user_id", "target").equals(after.drop("user_id", "target"))
        text = (place / "five_axes.json").read_text()
        assert str(tmp_path) not in text and "--data path/to/steam --seed 0" in text


def test_an_ablation_is_kept_under_its_own_name(comparisons, plan, tmp_path):
    run = write_run(tmp_path / "run", "mender-emb", 0.3, source="steam")
    record = json.loads((run / "five_axes.json").read_text())
    record["scores"] = [{"method": "mender-emb"}, {"method": "mender-emb, shuffled preferences"}]
    (run / "five_axes.json").write_text(json.dumps(record))
    own = "mender-emb, both matchings"
    planned = next(run for run in comparisons.planned("steam", plan["steam"], None) if run.method == own)
    comparisons.keep(planned, run, tmp_path / "kept")
    after = json.loads((tmp_path / "kept" / "five_axes.json").read_text())
    assert [score["method"] for score in after["scores"]] == [own, f"{own}, shuffled preferences"]
    assert after["settings"]["method"] == own and planned.name == "mender-emb-both-matchings-seed0"


def test_the_plan_names_presets_and_real_settings(comparisons, plan):
    for name, entry in plan.items():
        runs = comparisons.planned(name, entry, None)
        assert len({run.name for run in runs}) == len(runs)
        for run in runs:
            words = dict(zip(run.words[::2], run.words[1::2], strict=True))
            changes = [
                value for option, value in zip(run.words[::2], run.words[1::2], strict=True) if option == "--set"
            ]
            choose_preset(words["--preset"], words.get("--conditioning", "both"), changes)
        plain = [method for method, own in entry["runs"].items() if not own.get("ablation")]
        assert sorted(plain) == preset_names()
        for table in entry["tables"].values():
            assert set(table.get("methods", [])) <= set(entry["runs"])
