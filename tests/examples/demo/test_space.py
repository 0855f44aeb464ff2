"""The Space: its folder and its requirements are all that the page needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from clean_site import run_clean, site
from loopback_hub import LoopbackHub
from space import PACKAGES, write_space

DEMO = Path(__file__).parents[3] / "examples" / "demo"
ASK = """
import json, os, runpy
sys.path.insert(0, sys.argv[1])
os.chdir(sys.argv[1])
app = runpy.run_path("app.py")
model = app["load_model"](app["model_name"](None))
from page import LOOK, build_page
build_page(model)
import mender
assert mender.__file__.startswith(os.getcwd()), mender.__file__
assert model.shoppers_are_real
answer = model.answer(["item-tea", "item-mug"], "find rose", k=5)
print(json.dumps([item.item_id for item in answer.items]))
"""
PUBLISH = """
import sys
from huggingface_hub import HfApi
model, space = sys.argv[1:]
api = HfApi()
api.create_repo("you/mender-small", exist_ok=True)
api.upload_folder(repo_id="you/mender-small", folder_path=model)
api.create_repo("you/mender-demo", repo_type="space", space_sdk="gradio", exist_ok=True)
api.upload_folder(repo_id="you/mender-demo", repo_type="space", folder_path=space)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "space"
    write_space(folder)
    return folder


@pytest.fixture
def space(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "space"))


@pytest.fixture(scope="module")
def packages(written, tmp_path_factory) -> Path:
    pytest.importorskip("gradio", reason="the page needs gradio; pip install gradio")
    names = re.findall(r"^[\w-]+", (written / "requirements.txt").read_text(), re.MULTILINE)
    return site(tmp_path_factory.mktemp("packages") / "site", "gradio", *names)


def same_answer(printed: str, recommender) -> bool:
    answer = recommender.answer(["item-tea", "item-mug"], "find rose", k=5)
    return json.loads(printed.splitlines()[-1]) == [item.item_id for item in answer.items]


def test_the_header_of_the_space_says_what_to_run(written):
    header = yaml.safe_load((written / "README.md").read_text("utf-8").split("---")[1])
    assert header["sdk"] == "gradio" and (written / header["app_file"]).is_file()
    assert {"title", "emoji", "colorFrom", "colorTo", "license", "sdk_version"} <= header.keys()
    try:
        installed = distribution("gradio").version
    except PackageNotFoundError:
        pytest.skip("needs gradio; pip install gradio")
    assert header["sdk_version"].split(".")[0] == installed.split(".")[0]


def test_the_folder_holds_the_page_and_the_packages(written):
    assert all((written / package / "__init__.py").is_file() for package in PACKAGES)
    assert {file.name for file in DEMO.glob("*.py")} - {"space.py"} == {file.name for file in written.glob("*.py")}
    assert not list(written.rglob("__pycache__")) and "torch" in (written / "requirements.txt").read_text()


@pytest.mark.slow
def test_runs_with_its_requirements_alone(saved, recommender, space, packages, tmp_path):
    shutil.copytree(saved, space / "model")
    printed = run_clean(packages, ASK, space, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1")
    assert same_answer(printed, recommender)


@pytest.mark.slow
def test_what_is_published_is_found_by_name(saved, recommender, space, packages, tmp_path):
    with LoopbackHub(tmp_path / "hub") as hub:
        done = subprocess.run(
            [sys.executable, "-c", PUBLISH, str(saved), str(space)],
            env={**os.environ, **hub.environment(tmp_path / "publisher")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert "showcase.json" in hub.files("models", "you/mender-small")
        there = {str(path.relative_to(space)) for path in space.rglob("*") if path.is_file()}
        assert there <= set(hub.files("spaces", "you/mender-demo"))
        environment = hub.environment(tmp_path / "stranger")
        printed = run_clean(packages, ASK, space, MENDER_MODEL="you/mender-small", **environment)
    assert same_answer(printed, recommender)
