"""Models that can be had are let pass, and of others it is said at once why not and what to do."""

from __future__ import annotations

import socket
import threading

import pytest
from huggingface_hub import constants

from preference_benchmark.availability import check_classifier, check_model, hub_problem


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The Hub's address and cache, and whether it may be asked, for a test to choose."""

    def choose(address="http://127.0.0.1:9", offline=False):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    choose()
    return choose


@pytest.fixture
def listening():
    """Address of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_folders_and_cached_models_pass_without_a_network(hub, tmp_path):
    hub(offline=True)
    check_model("encoder", str(tmp_path), "Connect.")
    with pytest.raises(FileNotFoundError, match="encoder 'org/name' .* HF_HUB_OFFLINE is set. Connect."):
        check_model("encoder", "org/name", "Connect.")
    snapshot = tmp_path / "cache" / "models--org--name" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    check_model("encoder", "org/name", "Connect.")


def test_rules_are_always_there(hub):
    hub(offline=True)
    check_classifier(None)
    check_classifier("rules")
    with pytest.raises(FileNotFoundError, match="--classifier rules.*--classifier FOLDER.*connect to the Hub once.$"):
        check_classifier("org/judge")


def test_the_hub_is_asked_for_a_connection_only(hub, listening):
    assert "127.0.0.1 cannot be reached (Connection refused)" in hub_problem()
    hub(listening)
    assert hub_problem() == ""
    check_classifier("org/judge")


def test_a_proxy_stands_for_the_hub(hub, listening, monkeypatch):
    hub("http://hub.invalid")
    assert "hub.invalid cannot be reached" in hub_problem()
    monkeypatch.setenv("http_proxy", listening.removeprefix("http://"))
    assert hub_problem() == ""
    monkeypatch.setenv("no_proxy", "hub.invalid")
    assert "hub.invalid cannot be reached" in hub_problem()


@pytest.mark.parametrize("name", ["no/such/folder", "./judge", "../judge", "/nowhere"])
def test_what_cannot_be_a_name_is_not_asked_for(name, hub, listening):
    hub(listening)
    with pytest.raises(FileNotFoundError, match="there is no such folder, and it is not a name on the Hub"):
        check_classifier(name)


def test_an_answer_is_not_waited_for_without_end(hub, monkeypatch):
    ended = threading.Event()

    def connect(*arguments, **options):
        ended.wait()
        raise TimeoutError

    monkeypatch.setattr("preference_benchmark.availability.SECONDS", 0.01)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert "no answer within" in hub_problem()
    ended.set()
