"""A saved model carries its code: it loads where nothing but torch and transformers is installed."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clean_site import run_clean, site
from doubles import encoder_folder, small_method
from loopback_hub import LoopbackHub
from transformers import pipeline
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

import modeling_mender
from modeling_mender import MenderConfig
from modeling_mender.modeling_experts import ExpertsConfig
from modeling_mender.modeling_sasrec import SasRecConfig
from modeling_mender.training.presets import load_preset, preset_names

ROOT = Path(__file__).parents[2]
REPO = "org/mender-small"
MENDER = "mender-tok"
SHAPE = {"codebook_sizes": [4, 4], "num_items": 3}
REQUESTS = [{"preference": "find tea", "history": ["item-tea", "item-mug"]}, {"history": ["item-lamp"]}]
METRIC = {"predictions": [["a", "b"], ["c", "d"]], "references": ["a", "d"], "ks": [1], "n_resamples": 0}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of saved models, one per method, and what each answers."""
    root, encoder, answers = tmp_path_factory.mktemp("saved"), tmp_path_factory.mktemp("encoder"), {}
    encoder_folder(encoder)
    for name in preset_names():
        method = small_method(name, str(encoder))
        model = method.plain_model().eval()
        if name == "popularity":
            model.experts.popularity.counts = torch.randperm(model.config.num_items).float()
        model.save_pretrained(root / name)
        method.processor.save_pretrained(root / name)
        # Without flags, since the package is imported here.
        answers[name] = pipeline("generative-retrieval", model=str(root / name), device="cpu")(REQUESTS, top_k=4)
    return root, answers


def same(found: list, expected: list) -> bool:
    """Whether the same items come in the same order, with the same scores up to rounding."""
    pairs = [(a, b) for one, two in zip(found, expected, strict=True) for a, b in zip(one, two, strict=True)]
    return all(
        (a["item_id"], a["title"]) == (b["item_id"], b["title"]) and abs(a["score"] - b["score"]) < 1e-3
        for a, b in pairs
    )


FLAT = {path.name: path for path in Path(modeling_mender.__file__).parent.glob("*.py") if path.name != "__init__.py"}


@pytest.mark.parametrize("name", sorted(FLAT))
def test_code_that_travels_needs_torch_and_transformers_alone(name):
    files = {FLAT[name], *map(Path, get_relative_import_files(FLAT[name]))}
    assert all(file in FLAT.values() for file in files)
    needed = {found for file in files for found in get_imports(file)} - set(sys.stdlib_module_names)
    # transformers requires tokenizers, huggingface_hub, safetensors and numpy.
    assert needed <= {"torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy"}
    text = FLAT[name].read_text("utf-8")
    assert not re.search(r"\bcards?\b|\blora\b|\bpeft\b", text, re.IGNORECASE)
    assert not re.search(r"^\s*(from|import) [.\w]*\b(hub|training|semantic_ids)\b", text, re.MULTILINE)


@pytest.mark.parametrize("name", preset_names())
def test_a_saved_model_carries_little_code(name, saved):
    files = sorted(path for path in (saved[0] / name).rglob("*.py"))
    assert all(file.parent == saved[0] / name and file.name in FLAT for file in files)
    assert {"pipeline_mender.py", "processing_mender.py", "configuration_mender.py"} <= {file.name for file in files}
    most = 8_500 if load_preset(name).model == "mender" else 6_500  # a generator, its search and its experts
    assert len(files) <= 26 and sum(len(file.read_text("utf-8").splitlines()) for file in files) < most
    assert all(file.read_text("utf-8") == FLAT[file.name].read_text("utf-8") for file in files)


def test_every_flat_file_travels_with_some_model(saved):
    carried = {path.name for name in saved[1] for path in (saved[0] / name).glob("*.py")}
    assert carried == set(FLAT)


def test_the_package_exports_few_names_and_imports_training_only_when_it_is_used():
    assert len(modeling_mender.__all__) <= 20 and modeling_mender.__all__ == sorted(modeling_mender.__all__)
    assert all(hasattr(modeling_mender, name) for name in modeling_mender.__all__)
    statements = ast.parse(Path(modeling_mender.__file__).read_text("utf-8")).body
    at_once = {one.module for one in statements if isinstance(one, ast.ImportFrom) and one.level}
    assert at_once and {f"{module}.py" for module in at_once} <= set(FLAT)


def test_every_name_leads_to_a_class():
    for config in (MenderConfig(**SHAPE), ExpertsConfig(3), SasRecConfig(3)):
        written = config.to_dict()
        names = [*written["auto_map"].values(), written["custom_pipelines"]["generative-retrieval"]["impl"]]
        for name in names:
            module, _, cls = name.partition(".")
            assert hasattr(sys.modules[f"modeling_mender.{module}"], cls)
        assert set(written["auto_map"]) >= {"AutoConfig", "AutoModel"}


def test_installed_code_asks_for_no_trust():
    config = MenderConfig(**SHAPE)
    again = MenderConfig.from_dict(config.to_dict())
    assert not hasattr(again, "custom_pipelines")
    assert again.to_dict() == config.to_dict()


def test_another_repository_is_not_referred_to():
    own, foreign = "my_config.MyConfig", "org/first--modeling_mender.MenderForGenerativeRetrieval"
    config = MenderConfig(**SHAPE, auto_map={"AutoConfig": own, "AutoModel": foreign})
    written = config.to_dict()["auto_map"]
    assert written["AutoConfig"] == own
    assert written["AutoModel"] == "modeling_mender.MenderForGenerativeRetrieval"


def test_a_saved_folder_has_what_loads_it(saved):
    root, answers = saved
    files = {"config.json", "model.safetensors", "items.json", "processor_config.json", "tokenizer.json"}
    for name in answers:
        assert files <= {path.name for path in (root / name).iterdir()}
        config = json.loads((root / name / "config.json").read_text())
        for reference in {*config["auto_map"].values(), config["custom_pipelines"]["generative-retrieval"]["impl"]}:
            module, _, cls = reference.partition(".")
            assert f"class {cls}(" in (root / name / f"{module}.py").read_text()


# A user with the package: no flags.
PUBLISH = """
import json, sys
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, pipeline
import modeling_mender
folder, repo, requests = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
AutoModel.from_pretrained(folder).push_to_hub(repo)
AutoProcessor.from_pretrained(folder).push_to_hub(repo)
model, processor = AutoModelForSeq2SeqLM.from_pretrained(repo), AutoProcessor.from_pretrained(repo)
assert type(model) is modeling_mender.MenderForGenerativeRetrieval
assert type(processor) is modeling_mender.MenderProcessor
pipe = pipeline("generative-retrieval", model=repo, device="cpu")
pipe.save_pretrained(sys.argv[4], push_to_hub=True, repo_id=f"{repo}-saved")
print(json.dumps(pipe(requests, top_k=4)))
"""
# A stranger: trust_remote_code, no package. What was loaded is published again, whole.
ONLINE = """
import json
from huggingface_hub import HfApi
from transformers import AutoModelForSeq2SeqLM, pipeline
import evaluate
repo, requests, folder, metric = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
pipe = pipeline("generative-retrieval", model=repo, trust_remote_code=True, device="cpu")
pipe.push_to_hub(f"{repo}-again")
again = pipeline(model=f"{repo}-again", trust_remote_code=True, device="cpu")
model = AutoModelForSeq2SeqLM.from_pretrained(f"{repo}-again", trust_remote_code=True)
HfApi().create_repo("org/preference_discerning", repo_type="space", space_sdk="gradio")
HfApi().upload_folder(repo_id="org/preference_discerning", folder_path=folder, repo_type="space")
figures = evaluate.load("org/preference_discerning").compute(**metric)
print(json.dumps([pipe(requests, top_k=4), again(requests, top_k=4), figures]))
"""
# The same stranger without a network: a populated cache, and folders.
OFFLINE = """
import json
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, pipeline
repo, requests, folder = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
for name in ("modeling_mender", "preference_benchmark", "datasets", "faiss", "peft", "polars", "sentence_transformers"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported: the environment is not clean")
try:
    AutoModel.from_pretrained(repo, trust_remote_code=False)
    raise SystemExit("loaded without trust")
except ValueError as refused:
    assert "trust_remote_code" in str(refused), refused
places = {"cache": repo, **{name: f"{folder}/{name}" for name in sys.argv[4:]}}
answers = {}
for name, place in places.items():
    pipe = pipeline("generative-retrieval", model=place, trust_remote_code=True, device="cpu")
    answers[name] = pipe(requests, top_k=4, batch_size=2)
model = AutoModelForSeq2SeqLM.from_pretrained(repo, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
inputs = processor(requests[0]["preference"], requests[0]["history"])
answers["by hand"] = processor.decode_items(model.recommend(**inputs, top_k=4).item_indices[0])
answers["generated"] = model.item_indices(model.generate(**inputs, num_beams=4)[:, 1:]).tolist()
print(json.dumps(answers))
"""


def last_line(printed: str):
    return json.loads(printed.splitlines()[-1])


def cached(home: Path, repo: str, folder: Path) -> dict[str, str]:
    """A Hub cache that holds the folder under a name, and the environment to use it offline."""
    commit = "0123456789abcdef" * 2 + "01234567"
    cache = home / "hub" / f"models--{repo.replace('/', '--')}"
    shutil.copytree(folder, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def test_folders_and_a_cache_load_where_only_torch_and_transformers_are(saved, tmp_path):
    root, expected = saved
    environment = cached(tmp_path / "home", REPO, root / MENDER)
    clean = site(tmp_path / "site", "torch", "transformers")
    found = last_line(run_clean(clean, OFFLINE, REPO, json.dumps(REQUESTS), root, *expected, **environment))
    assert same(found["cache"], expected[MENDER])
    for name, answer in expected.items():
        assert same(found[name], answer), name
    assert found["by hand"] == [{key: item[key] for key in ("item_id", "title")} for item in expected[MENDER][0]]
    assert found["generated"][0] >= 0


@pytest.mark.slow
def test_published_loaded_by_name_and_loaded_offline(saved, tmp_path):
    root, expected = saved
    requests = json.dumps(REQUESTS)
    with LoopbackHub(tmp_path / "hub") as hub:
        done = subprocess.run(
            [sys.executable, "-c", PUBLISH, str(root / MENDER), REPO, requests, str(tmp_path / "copy")],
            env={**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(tmp_path / "publisher")},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert same(last_line(done.stdout), expected[MENDER])
        written = {path.name for path in (root / MENDER).iterdir()}
        assert written <= set(hub.files("models", REPO))
        assert written <= set(hub.files("models", f"{REPO}-saved"))

        environment = hub.environment(tmp_path / "stranger")
        clean = site(tmp_path / "site", "torch", "transformers", "evaluate")
        metric = ROOT / "metrics" / "preference_discerning"
        printed = run_clean(clean, ONLINE, REPO, requests, metric, json.dumps(METRIC), **environment)
        loaded, again, figures = last_line(printed)
        assert same(loaded, expected[MENDER]) and same(again, expected[MENDER])
        assert (figures["n"], figures["recall@1"]) == (2, 0.5)
        again_files = hub.files("models", f"{REPO}-again")
        assert written <= set(again_files)
        # What was loaded from the Hub and saved again needs its origin no more.
        assert "--" not in again_files["config.json"].read_text() + again_files["processor_config.json"].read_text()

    clean = site(tmp_path / "bare-site", "torch", "transformers")
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    assert same(last_line(run_clean(clean, OFFLINE, REPO, requests, root, **offline))["cache"], expected[MENDER])


BY_REFERENCE = """
import json
from pathlib import Path
from transformers import AutoModel, AutoProcessor
folder, requests = sys.argv[1], json.loads(sys.argv[2])
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(requests[0]["preference"], requests[0]["history"])
found = processor.decode_items(model.recommend(**inputs, top_k=4).item_indices[0])
model.save_pretrained(sys.argv[3])
print(json.dumps([found, b"text_encoder.emb" in (Path(sys.argv[3]) / "model.safetensors").read_bytes()]))
"""


@pytest.mark.slow
def test_an_encoder_that_was_saved_by_reference_comes_from_the_cache(tmp_path, monkeypatch):
    encoder_folder(tmp_path / "encoder")
    environment = cached(tmp_path / "home", "org/encoder", tmp_path / "encoder")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    snapshots = tmp_path / "home" / "hub" / "models--org--encoder" / "snapshots"
    method = small_method("mender-emb", str(next(snapshots.iterdir())))
    method.model.eval().save_pretrained(tmp_path / "model", encoder="reference")
    method.processor.save_pretrained(tmp_path / "model")
    inputs = method.processor(REQUESTS[0]["preference"], REQUESTS[0]["history"])
    expected = method.processor.decode_items(method.model.recommend(**inputs, top_k=4).item_indices[0])
    clean = site(tmp_path / "site", "torch", "transformers")
    arguments = (tmp_path / "model", json.dumps(REQUESTS), tmp_path / "again")
    assert last_line(run_clean(clean, BY_REFERENCE, *arguments, **environment)) == [expected, False]
