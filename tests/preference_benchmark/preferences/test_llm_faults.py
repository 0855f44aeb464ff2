"""Faults of servers and models: no answer is lost, nothing is written over, and nothing happens in silence."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import threading
import time

import polars as pl
import pytest
from benchmark_doubles import random_tables
from llm_loopback import LoopbackServer, completion, good_answer

from mender.cli import main
from preference_benchmark.preferences.llm import LlmApproximator, OpenAIServer, Useless, prompt_named

pytest.importorskip("openai")
pytest.importorskip("aiolimiter")
INSTRUCT = prompt_named("instruct")
SHOP = ["--source", "corner-shop", "--option", "num_users=60", "--option", "num_items=40"]


def approximator(server: LoopbackServer, cache, **options) -> LlmApproximator:
    engine = OpenAIServer("tiny", INSTRUCT, base_url=server.url, first_pause=0.01, tries=2, concurrency=4)
    return LlmApproximator(engine, INSTRUCT, cache, progress=False, **options)


def with_usage(usage: object):
    return lambda content, *_: (200, completion(good_answer(content), usage=usage), {})


def with_choice(**fields: object):
    def behave(content, *_):
        return 200, completion("", choices=[{"message": {"content": good_answer(content)}} | fields]), {}

    return behave


def with_half_a_character(content, *_):
    answer = good_answer(content)[:-2] + '", "Find \\ud83d lamps"]}'
    body = completion("@").replace('"@"', json.dumps(answer).replace("\\\\ud83d", "\\ud83d"))
    return 200, body, {}


ODD = {
    "fractional usage": with_usage({"prompt_tokens": 10.5, "completion_tokens": 3.2}),
    "usage as text": with_usage({"prompt_tokens": "10", "completion_tokens": "many"}),
    "usage is a word": with_usage("none"),
    "usage is a list": with_usage([1, 2]),
    "usage of lists": with_usage({"prompt_tokens": [1], "completion_tokens": {}}),
    "usage beyond numbers": with_usage({"prompt_tokens": 1e400, "completion_tokens": -5}),
    "no usage": with_usage(None),
    "no reason to end": with_choice(finish_reason=None),
    "an odd reason to end": with_choice(finish_reason={"why": 3}),
    "parts of content": lambda content, *_: (
        200,
        completion("", choices=[{"message": {"content": [{"type": "text", "text": good_answer(content)}, 3]}}]),
        {},
    ),
    "half a character": with_half_a_character,
    "an odd id, model and date": lambda content, *_: (
        200,
        completion(good_answer(content), id=None, model=["m"], created="now", object=7),
        {},
    ),
}


@pytest.mark.parametrize("behave", ODD.values(), ids=ODD)
def test_odd_fields_cost_no_answer(behave, tmp_path):
    tables = random_tables(0, users=4, rows=30)
    with LoopbackServer(behave) as server:
        write = approximator(server, tmp_path)
        found = write(tables)
        again = approximator(server, tmp_path)(tables)
        sent = sum(server.asked.values())
    assert write.report.steps["written"] == tables.interactions.height and not write.report.faults
    assert sent == tables.interactions.height and found.equals(again) and write.report.damaged == 0


@pytest.mark.parametrize(
    ("behave", "useless"),
    [
        (lambda *_: "I am sorry.", "no preference in it"),
        (lambda *_: '["No review found", "No clear preference was mentioned"]', "no answer"),
        (lambda *_: (200, completion("", choices=[{"message": {"content": None}}]), {}), "no preference in it"),
    ],
)
def test_useless_answers_end_the_run_early_and_are_shown(behave, useless, tmp_path):
    with LoopbackServer(behave) as server:
        write = approximator(server, tmp_path)
        with pytest.raises(Useless, match="30 useless answers in a row") as error:
            write(random_tables(0))
        sent = sum(server.asked.values())
        assert str(error.value).count(useless) == 3
        assert sent <= 30 + 4 and write.report.answers["unusable"] == sent
        write = approximator(server, tmp_path, patience=0, retries=0)
        write(random_tables(0))
    assert write.report.steps["failed"] == write.report.answers["unusable"] == random_tables(0).interactions.height


def test_one_good_answer_among_thirty_goes_on(tmp_path):
    requests = itertools.count()  # of several threads, which would skip a number among `server.bodies`

    def behave(content, times, seed):
        return good_answer(content) if next(requests) % 10 == 0 else "Sorry."

    with LoopbackServer(behave) as server:
        write = approximator(server, tmp_path, retries=0)
        write(random_tables(0))
    assert write.report.steps["failed"] > 60


def test_a_server_that_goes_away_ends_the_run(tmp_path):
    def behave(content, times, seed):
        return good_answer(content) if len(server.bodies) <= 10 else (503, "", {})

    with LoopbackServer(behave) as server:
        write = approximator(server, tmp_path)
        with pytest.raises(Useless, match="requests in a row got no answer .HTTP 503"):
            write(random_tables(0))
    assert 0 < write.report.answers["usable"] <= 10 and write.report.steps["unfinished"] > 60


def test_a_dry_run_counts_repetitions(tmp_path):
    tables = random_tables(0)

    with LoopbackServer(lambda content, times, seed: "Sorry." if seed % 2 else good_answer(content)) as server:
        first = approximator(server, tmp_path, retries=0)
        first(tables)
        before = approximator(server, tmp_path, retries=2).estimate(tables)
        sent = sum(server.asked.values())
    useless = first.report.answers["unusable"]
    assert (before.requests, before.again, sent) == (0, useless, tables.interactions.height)
    assert before.expected_again == round(useless * useless / sent)
    assert f"0 to ask, {useless} to ask again" in str(before)
    assert before.prompt_tokens > 0 and before.seconds is not None


def test_a_stop_says_what_it_waits_for(tmp_path, capsys):
    once = threading.Semaphore(1)  # a second signal would end the process at once

    def behave(content, times, seed):
        if len(server.bodies) >= 8 and once.acquire(blocking=False):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        if len(server.bodies) >= 8:
            time.sleep(0.3)
        return good_answer(content)

    with LoopbackServer(behave) as server:
        with pytest.raises(RuntimeError, match="answers kept"):
            approximator(server, tmp_path)(random_tables(0))
    assert "requests under way, " in (said := capsys.readouterr().err) and "s at most" in said and "slowest" in said


def command(server: LoopbackServer, folder, *more: str) -> list[str]:
    words = ["preferences", "write", *SHOP, "--approximator", "openai", "--model", "tiny", "--base-url", server.url]
    words += ["--prompt", "instruct", "--tries", "1", "--concurrency", "1", "--encoder", "no/encoder", "--limit", "4"]
    return [*words, "--cache", str(folder / "answers"), "--output", str(folder / "x.parquet"), *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a complete table of four users, and the answers."""
    folder = tmp_path_factory.mktemp("finished")
    with LoopbackServer() as server:
        assert main(command(server, folder)) == 0
    return folder


@pytest.fixture
def shop_file(finished, tmp_path):
    """The table in a folder of its own."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "x.parquet"


def some_lost(content, times, seed):
    return (503, "", {}) if seed % 3 == 0 else good_answer(content)


def test_a_stopped_server_changes_nothing(shop_file, tmp_path, capsys):
    before = shop_file.read_bytes()
    with LoopbackServer() as server:
        pass
    assert main(command(server, tmp_path, "--seed", "5")) == 3
    assert shop_file.read_bytes() == before
    assert "got no answer (no connection" in capsys.readouterr().err


def test_an_incomplete_table_replaces_no_file_unless_asked_to(shop_file, tmp_path, capsys):
    before = shop_file.read_bytes()
    with LoopbackServer(some_lost) as server:
        assert main(command(server, tmp_path, "--seed", "5")) == 3
        assert shop_file.read_bytes() == before
        assert "steps have no answer" in (said := capsys.readouterr().err) and "--partial" in said
        assert main(command(server, tmp_path, "--seed", "5", "--partial")) == 3
        assert shop_file.read_bytes() != before
    with LoopbackServer() as server:
        assert main(command(server, tmp_path, "--seed", "5")) == 0


def test_a_new_file_may_be_incomplete(tmp_path):
    with LoopbackServer(some_lost) as server:
        assert main(command(server, tmp_path)) == 3
    assert not pl.read_parquet(tmp_path / "x.parquet").is_empty()


def test_fewer_users_replace_no_file_unless_asked_to(shop_file, tmp_path, capsys):
    before = shop_file.read_bytes()
    with LoopbackServer() as server:
        assert main(command(server, tmp_path, "--limit", "2")) == 2
        assert "4 users, 2 of whom are left out now; pass --partial" in capsys.readouterr().err
        assert shop_file.read_bytes() == before and not server.bodies
        assert main(command(server, tmp_path, "--limit", "2", "--partial")) == 0
        assert main(command(server, tmp_path, "--limit", "6")) == 0


def test_a_useless_model_ends_with_its_answers_and_a_code(tmp_path, capsys):
    with LoopbackServer(lambda *_: "Sorry.") as server:
        assert main(command(server, tmp_path, "--limit", "20")) == 3
    assert capsys.readouterr().err.count("'Sorry.': no preference in it") == 3
    assert not (tmp_path / "x.parquet").exists()
