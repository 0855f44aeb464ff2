"""Every folder that a recommender saves is served by Inference Endpoints, which know nothing of this project."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import pytest
from clean_site import run_clean, site
from small_shops import IDS, shop_of

from mender import Recommender

ROOT = Path(__file__).parents[2]
# As the toolkit of the endpoints does: the file is executed as a module, the class takes the folder, and every call the
# decoded body; what is raised becomes {"error": ...}.
ENDPOINT = """
import importlib.util, json
from concurrent.futures import ThreadPoolExecutor
folder, bodies = sys.argv[1], json.loads(sys.argv[2])
for name in ("mender", "modeling_mender", "preference_benchmark", "polars", "sentence_transformers"):
    assert importlib.util.find_spec(name) is None, name
spec = importlib.util.spec_from_file_location("handler.EndpointHandler", f"{folder}/handler.py")
module = sys.modules["handler"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
handler = module.EndpointHandler(folder)
def answer(body):
    try:
        return handler(body)
    except Exception as error:
        return {"error": str(error), "kind": type(error).__name__}
with ThreadPoolExecutor(4) as pool:
    print(json.dumps(list(pool.map(answer, bodies))))
"""


def test_an_endpoint_answers_as_the_recommender(tmp_path):
    shop_of("mender", tmp_path).save_pretrained(tmp_path / "model")
    shop = Recommender.from_pretrained(tmp_path / "model", device="cpu")
    request = {"history": IDS[:3], "exclude": IDS[:3]}
    words = {"preference": "find tea", "avoid": "rose"}
    bodies = [
        {"inputs": {**request, **words, "top_k": 3}},
        {"inputs": [request, {"history": IDS[4:6]}], "parameters": {"top_k": 2}},
        {**request, "parameters": None},
        {"inputs": {"history": ["nobody"]}},
        {"inputs": {"histroy": IDS[:1]}},
        {"inputs": request, "parameters": {"top": 2}},
        {"inputs": request, "parameters": [2]},
        {"inputs": 3},
    ]
    clean = site(tmp_path / "site", "torch", "transformers")
    printed = run_clean(clean, ENDPOINT, tmp_path / "model", json.dumps(bodies), HF_HOME=str(tmp_path / "home"))
    one, several, plain, *errors = json.loads(printed.strip().splitlines()[-1])
    expected = [
        shop.recommend(**request, **words, top_k=3),
        *shop.recommend_batch([request, {"history": IDS[4:6]}], top_k=2),
        shop.recommend(**request),
    ]
    for found, wanted in zip([one, *several, plain], expected, strict=True):
        assert [item["item_id"] for item in found] == [item["item_id"] for item in wanted]
        assert [item["score"] for item in found] == pytest.approx([item["score"] for item in wanted], abs=1e-3)
    assert all(error["kind"] == "ValueError" and error["error"] for error in errors)
    assert "nobody" in errors[0]["error"] and "'history'" in errors[1]["error"]


def test_requirements_are_the_lower_bounds_of_the_package(tmp_path):
    shop_of("popularity", tmp_path).save_pretrained(tmp_path / "model")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    written = (tmp_path / "model" / "requirements.txt").read_text("utf-8").split()
    assert len(written) == 2 and {*written} <= {*setup["options"]["install_requires"].split()}
