"""What the Hub is to hold: built, used from its folders, published to a Hub on this machine, and loaded by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from benchmark_doubles import HashEmbedder
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub
from snippets import blocks

from mender.packaged import packaged_model
from preference_benchmark import build, recipe
from preference_benchmark.embedding import packaged_encoder
from preference_benchmark.hub import plots

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "06_release.py"
NAMES = {"mender-small": "models", "preference-discerning": "datasets"} | dict.fromkeys(
    ("preference_discerning", "mender-demo"), "spaces"
)
# The lines of docs/hub.md, and what they leave.
STRANGER = """
import json
from mender import Recommender
{lines}
shop = Recommender.from_pretrained("org/mender-small")
print(json.dumps({{
    "items": [item["item_id"] for item in processor.decode_items(found.item_indices[0])],
    "shop": [item["item_id"] for item in shop.recommend("dark chocolate", top_k=3)],
    "corner-shop": len(examples),
    "steam": len(games),
}}))
"""

# Runs the script once for each list of arguments, with another token, in one process, which imports it once.
RUNS = """
import json, os, runpy, sys
for token, words in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"], sys.argv = token, words
    try:
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    for stream in (sys.stdout, sys.stderr):
        print(f"exit {code}", file=stream, flush=True)
"""


def run(*command: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def built(tmp_path, monkeypatch) -> Path:
    """Folders as the script leaves them, as far as publishing looks at them."""
    monkeypatch.setattr(plots, "draw", lambda built, margins, title, folder: None)
    hub = tmp_path / "dist" / "hub"
    for name in set(NAMES) - {"preference-discerning"}:
        (hub / name).mkdir(parents=True)
        (hub / name / "README.md").write_text(name)
    shop = recipe("corner-shop", options={"num_users": 60, "num_items": 40})
    build(shop, hub / "preference-discerning", embedder=HashEmbedder(), progress=False)
    return hub


def test_nothing_is_sent_when_it_is_tried_or_without_a_token(built, tmp_path):
    with LoopbackHub(tmp_path / "hub") as hub:
        words = [str(SCRIPT), "--publish", "org"]
        asked = json.dumps([("hf_dummy", [*words, "--dry-run"]), ("", words)])
        done = run("-c", RUNS, asked, folder=tmp_path, **hub.environment(tmp_path / "home"))
        assert done.returncode == 0, done.stderr
        tried, _ = done.stdout.split("exit 0\n")
        assert all(f"org/{name}" in tried for name in NAMES) and "items" in tried
        said = done.stderr.split("exit 0\n")[1]
        assert said.startswith("error: publishing needs a token of the Hub") and said.endswith("exit 2\n")
        assert not hub.requests


@pytest.mark.slow
def test_what_was_not_built_is_not_published(built, tmp_path):
    (built / "mender-demo" / "README.md").unlink()
    done = run(SCRIPT, "--publish", "org", "--dry-run", folder=tmp_path)
    assert done.returncode == 2 and "has no mender-demo; run `make release` first" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(packaged_encoder() is None, reason="needs the extra offline")
def test_what_is_built_is_published_and_found_by_name(tmp_path):
    done = run(SCRIPT, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    output = tmp_path / "dist" / "hub"
    assert all(f"dist/hub/{name}: " in done.stdout for name in NAMES)
    heads = {name: yaml.safe_load((output / name / "README.md").read_text("utf-8").split("---")[1]) for name in NAMES}
    assert all(head["license"] for head in heads.values()), heads
    assert all((output / name / "LICENSE").is_file() for name in set(NAMES) - {"preference-discerning"})
    assert sum(path.stat().st_size for path in (output / "mender-small").iterdir()) < 12_000_000
    # Another benchmark beside that of the corner shop, under the name of a public data set.
    other = replace(recipe("corner-shop", options={"num_users": 60, "num_items": 40}), name="steam", title="Steam")
    build(other, output / "preference-discerning", embedder=HashEmbedder(), progress=False)
    with LoopbackHub(tmp_path / "hub") as hub:
        for _ in range(2):  # the second is an update
            done = run(SCRIPT, "--publish", "org", folder=tmp_path, **hub.environment(tmp_path / "publisher"))
            assert done.returncode == 0, done.stderr[-3000:]
        assert hub.variables == {"org/mender-demo": {"MENDER_MODEL": "org/mender-small"}}
        for name, kind in NAMES.items():
            files = set(hub.files(kind, f"org/{name}"))
            assert "README.md" in files and not any(part.startswith(".stages") for part in files)
        assert {"app.py", "LICENSE", "requirements.txt"} <= set(hub.files("spaces", "org/mender-demo"))
        assert {"showcase.json", "LICENSE", "handler.py"} <= set(hub.files("models", "org/mender-small"))
        card = ModelCard.load(hub.files("models", "org/mender-small")["README.md"])
        assert 'Recommender.from_pretrained("org/mender-small")' in card.text and card.data.license == "apache-2.0"
        metric = hub.files("spaces", "org/preference_discerning")["README.md"].read_text("utf-8")
        assert 'evaluate.load("org/preference_discerning")' in metric and '"metrics/' not in metric
        (lines,) = blocks("docs/hub.md", "py")
        done = run("-c", STRANGER.format(lines=lines), folder=tmp_path, **hub.environment(tmp_path / "stranger"))
        assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["items"]) == 3 and found["items"] == found["shop"]
    assert found["corner-shop"] > found["steam"] > 0
    assert not (packaged_model("corner-shop") / "LICENSE").exists()  # the installed folder is left alone
