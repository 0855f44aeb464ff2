"""A saved model carries its code: it loads where nothing but torch and transformers is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clean_site import run_clean, site
from loopback_hub import LoopbackHub
from transformers import AutoModelForTextEncoding, pipeline
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

import modeling_mender
from modeling_mender import (
    MenderConfig,
    MenderForGenerativeRetrieval,
    MenderProcessor,
    PopularityRecommender,
    SasRecForSequentialRecommendation,
    TextRetrievalRecommender,
)
from modeling_mender.configuration_mender import ItemStatesConfig
from modeling_mender.item_states import ItemStatesEncoder, encode_titles
from modeling_mender.modeling_baselines import PopularityConfig, TextRetrievalConfig
from modeling_mender.modeling_sasrec import SasRecConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "modeling_mender"))

from doubles import random_catalogue, shop_items, tiny_encoder, tiny_model, word_tokenizer

ROOT = Path(__file__).parents[2]
REPO = "org/mender-small"
SHAPE = {"codebook_sizes": [4, 4], "num_items": 3}
REQUESTS = [{"preference": "find tea", "history": ["item-tea", "item-mug"]}, {"history": ["item-lamp"]}]
METRIC = {"predictions": [["a", "b"], ["c", "d"]], "references": ["a", "d"], "ks": [1], "n_resamples": 0}


def item_states(pooled: bool, order: int) -> tuple[ItemStatesEncoder, MenderProcessor]:
    """An encoder with the states of the shop's titles, and its processor."""
    torch.manual_seed(1)
    text = AutoModelForTextEncoding.from_config(tiny_encoder())
    processor = MenderProcessor(word_tokenizer(), shop_items(), history="vectors" if pooled else "states")
    states, first = encode_titles(text, processor.title_inputs(), pooled=pooled)
    config = ItemStatesConfig(
        text_encoder=text.config,
        text_vocabulary=len(processor.tokenizer),
        num_states=len(states),
        pooled=pooled,
        max_history=order,
    )
    encoder = ItemStatesEncoder(config, text)
    encoder.set_item_states(states, first)
    return encoder, processor


def recommenders() -> dict:
    """One tiny model of every class that is saved, with its processor."""
    items = shop_items()
    count = len(items["item_id"])
    catalogue = random_catalogue(count, [5, 5])
    titles = MenderProcessor(word_tokenizer(), items)
    rows = MenderProcessor(word_tokenizer(), items, history="indices", preference="none")
    encoder, states = item_states(pooled=False, order=4)
    vectors, pooled = item_states(pooled=True, order=0)
    torch.manual_seed(2)
    popularity = PopularityRecommender(PopularityConfig(count))
    popularity.counts = torch.randperm(count).float()
    return {
        "mender": (tiny_model(catalogue), titles),
        "states": (MenderForGenerativeRetrieval.from_encoder(encoder, catalogue, decoder={"num_layers": 1}), states),
        "sasrec": (SasRecForSequentialRecommendation(SasRecConfig(count, hidden_size=8)), rows),
        "popularity": (popularity, rows),
        "retrieval": (TextRetrievalRecommender(TextRetrievalConfig(vectors.config), vectors), pooled),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of saved models, and what each answers."""
    root, answers = tmp_path_factory.mktemp("saved"), {}
    for name, (model, processor) in recommenders().items():
        model.eval().save_pretrained(root / name)
        processor.save_pretrained(root / name)
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


@pytest.mark.parametrize(
    "module", ["modeling_mender", "modeling_sasrec", "modeling_baselines", "processing_mender", "item_states"]
)
def test_carried_code_needs_torch_and_transformers_alone(module):
    entry = Path(modeling_mender.__file__).parent / f"{module}.py"
    files = {entry, *map(Path, get_relative_import_files(entry))}
    assert all(file.is_file() and file.parent == entry.parent for file in files)
    needed = {name for file in files for name in get_imports(file)} - set(sys.stdlib_module_names)
    # transformers requires the others.
    assert needed <= {"torch", "transformers", "numpy", "tokenizers", "huggingface_hub", "yaml"}
    if module.startswith("modeling"):
        assert entry.parent / "pipeline_mender.py" in files


def test_every_name_leads_to_a_class():
    for config in (MenderConfig(**SHAPE), PopularityConfig(3), SasRecConfig(3), TextRetrievalConfig()):
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


def test_a_saved_folder_holds_everything(saved):
    root, _ = saved
    files = {path.name for path in (root / "mender").iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "items.json",
        "processor_config.json",
        "tokenizer.json",
        "modeling_mender.py",
        "processing_mender.py",
        "pipeline_mender.py",
    } <= files
    for name in saved[1]:
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
figures = evaluate.load("org/preference_discerning", "ranking").compute(**metric)
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
    environment = cached(tmp_path / "home", REPO, root / "mender")
    clean = site(tmp_path / "site", "torch", "transformers")
    found = last_line(run_clean(clean, OFFLINE, REPO, json.dumps(REQUESTS), root, *expected, **environment))
    assert same(found["cache"], expected["mender"])
    for name, answer in expected.items():
        assert same(found[name], answer), name
    assert found["by hand"] == [{key: item[key] for key in ("item_id", "title")} for item in expected["mender"][0]]
    assert found["generated"][0] >= 0


@pytest.mark.slow
def test_published_loaded_by_name_and_loaded_offline(saved, tmp_path):
    root, expected = saved
    requests = json.dumps(REQUESTS)
    with LoopbackHub(tmp_path / "hub") as hub:
        done = subprocess.run(
            [sys.executable, "-c", PUBLISH, str(root / "mender"), REPO, requests, str(tmp_path / "copy")],
            env={**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(tmp_path / "publisher")},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert same(last_line(done.stdout), expected["mender"])
        written = {path.name for path in (root / "mender").iterdir()}
        assert written <= set(hub.files("models", REPO))
        assert written <= set(hub.files("models", f"{REPO}-saved"))

        environment = hub.environment(tmp_path / "stranger")
        clean = site(tmp_path / "site", "torch", "transformers", "evaluate")
        metric = ROOT / "metrics" / "preference_discerning"
        printed = run_clean(clean, ONLINE, REPO, requests, metric, json.dumps(METRIC), **environment)
        loaded, again, figures = last_line(printed)
        assert same(loaded, expected["mender"]) and same(again, expected["mender"])
        assert (figures["n"], figures["recall@1"]) == (2, 0.5)
        again_files = hub.files("models", f"{REPO}-again")
        assert written <= set(again_files)
        # What was loaded from the Hub and saved again needs its origin no more.
        assert "--" not in again_files["config.json"].read_text() + again_files["processor_config.json"].read_text()

    clean = site(tmp_path / "bare-site", "torch", "transformers")
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    assert same(last_line(run_clean(clean, OFFLINE, REPO, requests, root, **offline))["cache"], expected["mender"])
