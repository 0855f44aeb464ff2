"""Published in one commit, read by name in processes that know nothing of this project, and by `load`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_doubles import HashEmbedder
from loopback_hub import LoopbackHub

from preference_benchmark import build, load, recipe
from preference_benchmark.axes.protocol import AXES
from preference_benchmark.hub import plots
from preference_benchmark.hub.publish import plan, publish

SHOP = {"num_users": 60, "num_items": 40}
REPO = "org/preference-discerning"
# What a user's process does: first with `datasets` alone, then with the package.
LOAD = """
import json, sys
from datasets import load_dataset
repo, modes = sys.argv[1], sys.argv[2:]
examples = load_dataset(repo, "corner-shop")
items = load_dataset(repo, "corner-shop-items", split="items")
found = {split: len(examples[split]) for split in examples}
found["items"] = len(items)
found["axes"] = sorted(set(examples["train"]["axis"]))
found["first"] = examples["test"][0]
if "stream" in modes:
    found["streamed"] = next(iter(load_dataset(repo, "corner-shop", split="test", streaming=True)))
assert "preference_benchmark" not in sys.modules
from preference_benchmark import load
loaded = load(repo, "corner-shop")
found["loaded"] = {mode: splits["test"].to_list() for mode, splits in loaded.examples.items()}
found["item_ids"], found["statistics"] = loaded.items["item_id"][:], loaded.statistics
print(json.dumps(found))
"""
PUBLISH = """
import sys
from preference_benchmark.hub.publish import publish
repo, *folders = sys.argv[1:]
for folder in folders:
    publish(folder, repo)
"""


def shop(name="corner-shop", **changes):
    return recipe(name, source="corner-shop", options=SHOP, **changes)


@pytest.fixture(scope="module", autouse=True)
def plain_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", lambda built, margins, title, folder: None)
        yield


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return build(shop(), tmp_path_factory.mktemp("built"), embedder=HashEmbedder(), progress=False)


def run(code, *arguments, **environment):
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done


def loaded(*arguments, **environment):
    done = run(LOAD, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_published_by_name_streamed_and_offline(output, tmp_path):
    other = build(shop("another"), tmp_path / "another", embedder=HashEmbedder(), progress=False)
    with LoopbackHub(tmp_path / "hub") as hub:
        environment = hub.environment(tmp_path / "home")
        done = run(PUBLISH, REPO, output, other, **environment)
        # A benchmark that the repository has and the folder lacks is not lost without being asked for.
        refused = done.stderr.splitlines()[-1]
        assert f"{REPO} has the benchmarks ['corner-shop'], which" in refused and "(--replace)" in refused
        assert set(hub.files("datasets", REPO)) == {*plan(output, REPO).files, ".gitattributes"}
        online = loaded(REPO, "stream", **environment)
    assert online["first"] == online.pop("streamed")
    assert online == loaded(REPO, **environment | {"HF_HUB_OFFLINE": "1"})
    here = load(output)
    counts = here.statistics["configs"]["corner-shop"]["splits"]
    assert {split: online[split] for split in counts} == {split: found["rows"] for split, found in counts.items()}
    assert (online["items"], online["axes"]) == (len(here.items), sorted(AXES))
    assert online["loaded"] == {mode: splits["test"].to_list() for mode, splits in here.examples.items()}
    assert (online["item_ids"], online["statistics"]) == (here.items["item_id"][:], here.statistics)


def test_data_that_must_not_be_published_is_not(tmp_path):
    restricted = shop(may_publish=False, notice="Not for others.")
    folder = build(restricted, tmp_path, embedder=HashEmbedder(), progress=False)
    with pytest.raises(ValueError, match=r"\['corner-shop'\].*Not for others.*--permitted"):
        publish(folder, REPO)
    assert plan(folder, REPO).forbidden == ("corner-shop",)
