"""The folder copied into a Space: only its requirements are installed, the model brings its code along."""

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

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "demo"
ASK = """
import json, os, runpy
sys.path.insert(0, sys.argv[1])
os.chdir(sys.argv[1])
app = runpy.run_path("app.py")
recommender = app["load_model"](app["model_name"](None), trust_remote_code=True)
from page import LOOK, build_page
build_page(recommender)
assert "modeling_mender" not in sys.modules and "polars" not in sys.modules
assert recommender.shoppers_are_real
answer = recommender.answer(["item-tea", "item-mug"], "find rose", k=5)
print(json.dumps([item.item_id for item in answer.full]))
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


def requirements() -> list[str]:
    lines = (DEMO / "requirements.txt").read_text().splitlines()
    return [re.match(r"[\w-]+", line).group() for line in lines if line.strip() and not line.startswith("#")]


def test_the_header_of_the_space_says_what_to_run():
    header = yaml.safe_load((DEMO / "README.md").read_text("utf-8").split("---")[1])
    assert header["sdk"] == "gradio" and (DEMO / header["app_file"]).is_file()
    assert {"title", "emoji", "colorFrom", "colorTo", "license", "sdk_version"} <= header.keys()
    try:
        installed = distribution("gradio").version
    except PackageNotFoundError:
        pytest.skip("needs gradio; pip install gradio")
    assert header["sdk_version"].split(".")[0] == installed.split(".")[0]


@pytest.fixture
def space(tmp_path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "space", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    pytest.importorskip("gradio", reason="the page needs gradio; pip install gradio")
    return site(tmp_path_factory.mktemp("packages") / "site", "gradio", *requirements())


def same_answer(printed: str, recommender) -> bool:
    answer = recommender.answer(["item-tea", "item-mug"], "find rose", k=5)
    return json.loads(printed.splitlines()[-1]) == [item.item_id for item in answer.full]


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
        assert {path.name for path in DEMO.iterdir() if path.is_file()} <= set(hub.files("spaces", "you/mender-demo"))
        environment = hub.environment(tmp_path / "stranger")
        printed = run_clean(packages, ASK, space, MENDER_MODEL="you/mender-small", **environment)
    assert same_answer(printed, recommender)
