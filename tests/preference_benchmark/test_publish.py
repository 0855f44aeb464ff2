from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_doubles import HashEmbedder
from loopback_hub import LoopbackHub

from preference_benchmark import make as make_module
from preference_benchmark.axes.protocol import AXES
from preference_benchmark.hub import folder as hub_folder
from preference_benchmark.hub.publish import plan
from preference_benchmark.make import make
from preference_benchmark.recipes import recipe

SHOP = {"num_users": 60, "num_items": 40}
REPO = "org/preference-discerning"
# What a user's process does; nothing of this project is in it.
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
print(json.dumps(found))
"""
PUBLISH = """
import sys
from preference_benchmark.hub.publish import publish
publish(*sys.argv[1:])
"""


def shop(name="corner-shop", **changes):
    return recipe(name, source="corner-shop", options=SHOP, **changes)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_module.plots, "draw", lambda parts, margins, title, folder: None)
        hub_folder.add(make(shop(), folder / ".stages", embedder=HashEmbedder(), progress=False), folder)
    return folder


def run(code, *arguments, **environment):
    root = str(Path(__file__).parents[2])
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
    statistics = hub_folder.contents(output)[0].statistics
    counts = statistics["configs"]["corner-shop"]["splits"]
    with LoopbackHub(tmp_path / "hub") as hub:
        environment = hub.environment(tmp_path / "home")
        done = run(PUBLISH, output, REPO, **environment)
        assert done.returncode == 0, done.stderr
        assert set(hub.files("datasets", REPO)) == {*plan(output, REPO).files, ".gitattributes"}
        online = loaded(REPO, "stream", **environment)
    offline = loaded(REPO, **environment | {"HF_HUB_OFFLINE": "1"})
    local = loaded(output, HF_HOME=str(tmp_path / "other"), HF_HUB_OFFLINE="1")
    assert online["first"] == online.pop("streamed")
    assert online == offline == local
    assert {split: online[split] for split in counts} == {split: found["rows"] for split, found in counts.items()}
    assert (online["items"], online["axes"]) == (statistics["items"], sorted(AXES))


def test_a_data_set_of_the_repository_is_not_lost_unasked(output, tmp_path, monkeypatch):
    from preference_benchmark.hub import publish as module

    monkeypatch.setattr(module, "_files_there", lambda api, repo: {"README.md"})
    monkeypatch.setattr(module, "_data_sets_there", lambda api, repo, files: {"steam"})
    with pytest.raises(ValueError, match=r"has the data sets \['steam'\].*--replace"):
        module.publish(output, REPO)


def test_data_that_must_not_be_passed_on_is_not(tmp_path):
    from preference_benchmark.hub.publish import publish

    made = make(
        shop(may_publish=False, notice="Not for others."), tmp_path / "w", embedder=HashEmbedder(), progress=False
    )
    hub_folder.add(made, tmp_path / "out")
    with pytest.raises(ValueError, match=r"\['corner-shop'\].*Not for others.*--permitted"):
        publish(tmp_path / "out", REPO)
