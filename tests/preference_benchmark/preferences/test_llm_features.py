"""What is found out about a server, and which prompt follows from it."""

from __future__ import annotations

import json

import pytest
from benchmark_doubles import random_tables
from llm_loopback import LoopbackServer, completion, good_answer

from preference_benchmark.embedding import Unavailable
from preference_benchmark.preferences.llm import LlmApproximator, OpenAIServer, look_at, prompt_for, prompt_named

pytest.importorskip("openai")
pytest.importorskip("aiolimiter")

SMALL = {"id": "/models/tiny-chat.gguf", "owned_by": "llamacpp", "meta": {"n_params": 134_515_008}}
LLAMA = {"/v1/models": {"data": [SMALL]}, "/props": {"total_slots": 1}}
REFUSED = (400, '{"error": {"message": "this model has no chat template"}}', {})


def one_line(content: str, times: int, seed: int) -> str:
    """A preference in the product's words, as small models can write it."""
    return json.loads(good_answer(content))["preferences"][0]


def chosen(server: LoopbackServer, model: str = "m"):
    where = {"model": model, "base_url": server.url}
    return prompt_for(look_at(**where), **where)


def test_llama_cpp_says_what_it_runs():
    with LoopbackServer(pages=LLAMA) as server:
        found = look_at("anything", server.url)
    assert found.model == "tiny-chat.gguf (135M)" and found.parameters == 134_515_008
    assert found.slots == 1 and found.grammar and "135 million" in str(found)


@pytest.mark.parametrize(
    ("models", "typed", "reported"),
    [
        ([{"id": "org/one"}, {"id": "org/two"}], "org/two", "org/two"),
        ([{"id": "org/one"}], "any name", "org/one"),
        ([{"id": "org/one"}, {"id": "org/two"}], "alias", None),
        ([{"id": "a", "aliases": ["b"]}, {"id": "c"}], "b", "a"),
        ([{"id": "/home/me/models/x/"}], "x", "x"),
        (["odd", None, {"id": 3}, {"name": "n"}], "x", "3"),
        ("odd", "x", None),
        (None, "x", None),
    ],
)
def test_the_model_is_the_one_that_the_server_reports(models, typed, reported):
    with LoopbackServer(pages={"/v1/models": {"data": models}}) as server:
        assert look_at(typed, server.url).model == reported


def test_a_silent_server_is_no_reason_to_stop():
    assert look_at("m-8B", "http://127.0.0.1:9/v1").parameters == 8e9


@pytest.mark.parametrize(
    ("behave", "pages", "name", "form"),
    [
        (lambda *_: "x", LLAMA, "one-review", "text"),
        (lambda content, *_: good_answer(content), {}, "instruct", "json_schema"),
        (lambda *_: "Sorry.", {}, "one-review", "json_schema"),
    ],
)
def test_the_prompt_fits_the_model(behave, pages, name, form):
    with LoopbackServer(behave, pages=pages) as server:
        prompt, features, why = chosen(server)
    assert prompt.name == name and features.response_format == form and why


def test_a_server_without_schemas_is_asked_with_less():
    def behave(content, times, seed):
        kind = server.bodies[-1].get("response_format", {}).get("type")
        return (400, '{"error": "no response_format"}', {}) if kind == "json_schema" else good_answer(content)

    with LoopbackServer(behave) as server:
        prompt, features, _ = chosen(server)
    assert prompt.name == "instruct" and features.response_format == "json_object"


def test_a_model_without_chat_continues_texts(tmp_path):
    def behave(content, times, seed):
        if "messages" in server.bodies[-1]:
            return REFUSED
        return one_line(content, times, seed).removeprefix("Find")

    tables = random_tables(0)
    with LoopbackServer(behave) as server:
        prompt, features, why = chosen(server)
        assert prompt.name == "few-shot" and "no chat template" in why
        engine = OpenAIServer("m", prompt, base_url=server.url, features=features)
        write = LlmApproximator(engine, prompt, tmp_path, progress=False)
        found = write(tables)
        last = server.bodies[-1]
    assert last["prompt"].endswith(("Preference: Find", "Preference: Avoid")) and last["max_tokens"] == 48
    assert last["stop"] == ["\n"] and "grammar" not in last
    assert server.paths["/v1/completions"] > 20 and not found.is_empty()


@pytest.mark.parametrize(("status", "match"), [(401, "401: bad key"), (500, "answered 500")])
def test_a_server_that_cannot_be_asked_is_named(status, match):
    with LoopbackServer(lambda *_: (status, '{"error": {"message": "bad key"}}', {})) as server:
        with pytest.raises(Unavailable, match=match):
            chosen(server)


def test_no_server_is_named():
    with pytest.raises(Unavailable, match="does not answer.*start the server"):
        prompt_for(look_at("m", "http://127.0.0.1:9/v1"), "m", "http://127.0.0.1:9/v1")


def test_small_chat_models_are_asked_in_turns_and_held_to_a_grammar(tmp_path):
    with LoopbackServer(one_line, pages=LLAMA) as server:
        prompt, features, _ = chosen(server)
        engine = OpenAIServer("m", prompt, base_url=server.url, features=features)
        assert engine.concurrency == 1 and engine.model == "tiny-chat.gguf (135M)"
        LlmApproximator(engine, prompt, tmp_path, retries=0, progress=False)(random_tables(0))
        bodies = server.bodies[1:]
    for body in bodies:
        assert [turn["role"] for turn in body["messages"]][:3] == ["system", "user", "assistant"]
        opening = "Find" if "begins with Find" in body["messages"][-1]["content"] else "Avoid"
        assert body["grammar"].startswith(f'root ::= "{opening}" ')
        assert body["max_tokens"] == 48 and "response_format" not in body


def test_answers_belong_to_the_model_that_the_server_reports(tmp_path):
    tables, prompt = random_tables(0), prompt_named("instruct")

    def written(model: str) -> int:
        with LoopbackServer(pages={"/v1/models": {"data": [{"id": model}]}}) as server:
            engine = OpenAIServer("typed", prompt, base_url=server.url)
            LlmApproximator(engine, prompt, tmp_path, progress=False)(tables)
            return sum(server.asked.values())

    assert written("first") == tables.interactions.height
    assert written("second") == tables.interactions.height
    assert written("first") == 0


def test_a_model_that_changes_midway_does_not_mix_its_answers_in(tmp_path):
    def behave(content, times, seed):
        return 200, completion(good_answer(content), model="first" if len(server.bodies) <= 20 else "second"), {}

    prompt, tables = prompt_named("instruct"), random_tables(0)
    with LoopbackServer(behave) as server:
        engine = OpenAIServer("m", prompt, base_url=server.url, concurrency=1)
        write = LlmApproximator(engine, prompt, tmp_path, progress=False)
        with pytest.raises(RuntimeError, match="30 requests in a row got no answer .answered by another model, second"):
            write(tables)
    assert write.report.answers["usable"] == 20
