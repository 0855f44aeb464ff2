"""The folder copied into a Space: only its requirements are installed, the model brings its code along."""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from clean_site import run_clean, site

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "demo"
ASK = """
import json, os, runpy
sys.path.insert(0, sys.argv[1])
os.chdir(sys.argv[1])
app = runpy.run_path("app.py")
recommender = app["load_recommender"](app["model_name"](None), trust_remote_code=True)
from page import LOOK, build_page
build_page(recommender)
assert "modeling_mender" not in sys.modules and "polars" not in sys.modules
answer = recommender.answer(["item-tea", "item-mug"], "find rose", k=5)
print(json.dumps([item.item_id for item in answer.full]))
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
        pytest.skip("needs gradio; pip install mender[demo]")
    assert header["sdk_version"].split(".")[0] == installed.split(".")[0]


@pytest.mark.slow
def test_runs_with_its_requirements_alone(saved, recommender, tmp_path):
    pytest.importorskip("gradio", reason="the page needs gradio; pip install mender[demo]")
    space = tmp_path / "space"
    shutil.copytree(DEMO, space, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(saved, space / "model")
    packages = site(tmp_path / "site", "gradio", *requirements())
    printed = run_clean(packages, ASK, space, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1")
    answer = recommender.answer(["item-tea", "item-mug"], "find rose", k=5)
    assert json.loads(printed.splitlines()[-1]) == [item.item_id for item in answer.full]
