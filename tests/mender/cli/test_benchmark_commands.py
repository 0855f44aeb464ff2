"""`mender benchmark`: from a recipe to a checked folder, for people and for machines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

REPOSITORY = "org/preference-discerning"


def test_a_finished_build_is_found_again(small_shop, build_small_shop, mender):
    code, out, _ = mender(*build_small_shop)
    assert code == 0 and f"Found: corner-shop, corner-shop-last, corner-shop-items in {small_shop}" in out


def test_stats_are_printed_for_people_and_machines(small_shop, mender):
    code, out, _ = mender("benchmark", "stats", small_shop)
    assert code == 0 and "The corner shop" in out and "fine_grained_steering" in out
    assert "specificity" in out and "open_wishes (withheld)" in out
    code, out, err = mender("benchmark", "stats", small_shop, "--json")
    assert code == 0 and json.loads(out)["corner-shop"]["protocol"]["seed"] == 101 and "The corner shop" in err


def test_validate_shows_what_is_known_of_the_truth(small_shop, mender):
    code, out, _ = mender("benchmark", "validate", small_shop)
    assert code == 0 and "states a true like" in out and "every example was checked" in out
    code, out, _ = mender("benchmark", "validate", small_shop, "corner-shop", "--json")
    assert code == 0 and json.loads(out) == {"problems": [], "data_sets": ["corner-shop"]}
    code, _, err = mender("benchmark", "validate", small_shop, "steam")
    assert code == 2 and "has no benchmark steam: it holds corner-shop" in err


def test_a_changed_file_is_found_and_not_published(small_shop, mender, tmp_path):
    copy = shutil.copytree(small_shop, tmp_path / "copy", ignore=shutil.ignore_patterns(".stages"))
    file = next(copy.rglob("train-*.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    code, _, err = mender("benchmark", "publish", copy, REPOSITORY, "--dry-run")
    assert code == 2 and "is not the file that was built" in err
    code, out, _ = mender("benchmark", "validate", copy)
    assert code == 1 and "WRONG: " in out


def test_a_dry_run_lists_files_sizes_and_terms(small_shop, mender):
    code, out, _ = mender("benchmark", "publish", small_shop, REPOSITORY, "--dry-run")
    assert code == 0 and "no person's data" in out and ".stages" not in out
    found = json.loads(mender("benchmark", "publish", small_shop, REPOSITORY, "--dry-run", "--json")[1])
    assert found["repository"] == REPOSITORY and "address" not in found
    for name, size in found["files"].items():
        assert f"{size:,}  {name}" in out and (small_shop / name).stat().st_size == size


@pytest.mark.parametrize("command", [["publish", ".", REPOSITORY], ["stats", "."], ["validate", "."]])
def test_an_empty_folder_is_refused(command, mender, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender("benchmark", *command)
    assert code == 2 and err.count("\n") == 1 and ("holds no benchmark" in err or "it holds nothing" in err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["corner-shop", "--set", "sed=4"], "no field 'sed'"),
        (["corner-shop", "--set", "seed"], "--set 'seed' is not an assignment"),
        (["corner-shop", "--set", "seed=x"], "seed='x' is not a whole number"),
        (["corner-shop", "--set", "axes=[recommendation, x]"], "axes: 'x' is not known; pass some of"),
        (["corner-shop", "--columns", "user_id"], "--columns 'user_id' names no columns; write user_id=customer"),
        (["corner-shop", "--option", "num_users=x"], "num_users='x': pass a whole number, at least 1"),
        (["corner-shop", "--option", "nothing=1"], "source 'corner-shop' has no option 'nothing'"),
        (["corner-shop", "--data", "."], "the corner shop is generated, not read"),
        (["corner-shop", "--option", "num_users"], "--option 'num_users' is not an assignment"),
        (["corner-shop", "--option", "num_users=!!python/name:os.system"], "is not plain YAML"),
        (["steam", "--data", "nowhere"], "nowhere does not exist"),
        (["bookshop"], "'bookshop' is not known"),
        (["bookshop", "--source", "book"], "'book' is not known"),
        (["a b", "--source", "table", "--data", "."], "'a b' cannot name a config"),
        (["corner-shop", "--preferences", "none.parquet"], "none.parquet does not exist"),
        (["corner-shop", "--encoder", "no/such/encoder"], "the encoder 'no/such/encoder' cannot be loaded"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, mender, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender("benchmark", "build", *words, "--output", "built", "--quiet")
    assert code == 2 and message in err.splitlines()[-1] and err.splitlines()[-1].startswith("error: ")
    assert not list((tmp_path / "built").glob("[!.]*"))


@pytest.mark.parametrize(
    ("words", "lacks"),
    [
        (["benchmark", "build", "steam", "--protocol", "paper", "--output", "x"], "(--classifier rules; in Python"),
        (["benchmark", "build", "steam", "--set", "classifier=no/judge", "--output", "x"], "--classifier rules"),
        (["benchmark", "build", "steam", "--encoder", "no/encoder", "--output", "x"], "Leave it out for the default"),
        (["preferences", "write", "--polarity", "no/judge", "--output", "x.parquet"], "Leave --polarity out"),
    ],
)
def test_what_is_missing_is_said_in_one_line_before_slow_imports(words, lacks, tmp_path):
    slow = {"datasets", "matplotlib", "polars", "sentence_transformers", "torch", "transformers"}
    script = f"import sys; from mender.cli import main; print(main({words!r}), sorted({slow} & {{*sys.modules}}))"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout == "2 []\n", done.stdout + done.stderr
    assert "HF_HUB_OFFLINE is set" in done.stderr and lacks in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_papers_protocol_takes_rules_for_its_classifier(mender, tiny_encoder, tmp_path):
    shop = ["corner-shop", "--option", "num_users=60", "--option", "num_items=40", "--set", "axes=[recommendation]"]
    rules = ["--protocol", "paper", "--classifier", "rules", "--encoder", tiny_encoder]
    code, out, _ = mender("benchmark", "build", *shop, *rules, "--output", tmp_path, "--json")
    protocol = json.loads(out)["protocol"]
    assert code == 0 and protocol["classifier"] is None and protocol["leaks"] == "flag"


@pytest.mark.parametrize("place", ["movielens", "movielens/ml-1m.zip", "link"])
def test_raw_files_in_the_folder_of_the_data_set_are_refused_at_once(place, tmp_path, mender):
    (tmp_path / "movielens").mkdir()
    (tmp_path / "movielens" / "ml-1m.zip").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "movielens")
    code, _, err = mender("benchmark", "build", "movielens", "--data", tmp_path / place, "--output", tmp_path)
    assert code == 2 and "the folder that builds of 'movielens' are put into; pass another" in err
    assert {entry.name for entry in tmp_path.iterdir()} == {"movielens", "link"}


@pytest.mark.parametrize("files", ["data/*.parquet", [{"split": "train", "path": "train.parquet"}], None])
def test_foreign_readmes_are_refused_before_anything_is_computed(tmp_path, files, mender):
    configs = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    (tmp_path / "README.md").write_text(f"---\n{configs}---\n# Somebody's data\n")
    code, _, err = mender("benchmark", "build", "corner-shop", "--output", tmp_path)
    assert code == 2 and "was not written by this program; pass another folder as output" in err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.fixture
def ready_made(tmp_path):
    """A tiny data set of the schema in which the paper's own preferences are published."""
    row = {
        "dimension": "preference_recommendation",
        "expected_behavior": "retrieve_target",
        "user_id": "u7",
        "history_item_ids": [1, 2],
        "prompt_text": "Find soap",
        "target_item_id": 3,
        "target_semantic_id": [0, 3],
    }
    folder = tmp_path / "there"
    (folder / "data" / "benchmark").mkdir(parents=True)
    (folder / "data" / "catalog").mkdir()
    for split in ("train", "validation", "test"):
        pl.DataFrame([row]).write_parquet(folder / "data" / "benchmark" / f"{split}.parquet")
    items = {"item_id": [1, 2, 3], "semantic_id": [[0, 1], [0, 2], [0, 3]], "title": ["a", "b", "c"]}
    pl.DataFrame(items).write_parquet(folder / "data" / "catalog" / "catalog.parquet")
    return folder


def test_a_ready_made_benchmark_is_adopted(ready_made, mender, tmp_path):
    output = tmp_path / "theirs"
    code, out, _ = mender("benchmark", "adopt", ready_made, "theirs", "--output", output, "--license", "mit", "--json")
    assert code == 0
    assert json.loads(out) | {"unpaired": {}} == {
        "output": str(output),
        "items": 3,
        "examples": {"train": 1, "validation": 1, "test": 1},
        "unpaired": {},
    }
    assert get_dataset_config_names(str(output)) == ["theirs", "theirs-items"]
    assert load_dataset(str(output), "theirs", split="test")["preferences"][0] == ["Find soap"]
    assert DatasetCard.load(output / "README.md").data.license == "mit"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["there", "theirs", "--output", "there"], "there exists"),
        (["nowhere", "theirs", "--output", "new"], "nowhere"),
        (["there", "a/b", "--output", "new"], "'a/b' cannot name a config"),
        (
            ["there", "theirs", "--output", "new", "--axis", "recommendation"],
            "--axis 'recommendation' is not an assign",
        ),
    ],
)
def test_what_cannot_be_adopted_is_refused(words, message, ready_made, mender, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender("benchmark", "adopt", *words)
    assert code == 2 and err.count("\n") == 1 and message in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]
