from __future__ import annotations

import threading

import pytest

from preference_benchmark.preferences.llm.answers import Answer, AnswerCache
from preference_benchmark.preferences.llm.engine import Key


def answer(user: str, step: int = 0, attempt: int = 0, window: str = "w", text: str = "Find tea") -> Answer:
    return Answer(user, step, attempt, window, text, "stop", 10, 5, 0.1)


def ask(user: str, step: int = 0, attempt: int = 0, window: str = "w") -> tuple[Key, str]:
    return Key(user, step, attempt), window


def test_an_answer_is_found_again_by_another_process(tmp_path):
    with AnswerCache(tmp_path, "org/model", "v1") as cache:
        cache.add([answer("a"), answer("b", text='"quotes"\n\u2028 and \U0001f600')])
    fresh = AnswerCache(tmp_path, "org/model", "v1")
    assert len(fresh) == 2 and fresh.find(*ask("b")) == answer("b", text='"quotes"\n\u2028 and \U0001f600')


@pytest.mark.parametrize("other", [ask("b"), ask("a", step=1), ask("a", attempt=1), ask("a", window="other")])
def test_another_question_has_no_answer(tmp_path, other):
    cache = AnswerCache(tmp_path, "m", "v")
    cache.add([answer("a")])
    assert cache.find(*ask("a")) and cache.find(*other) is None


def test_models_and_versions_are_kept_apart(tmp_path):
    AnswerCache(tmp_path, "org/model", "v").add([answer("a")])
    for model, version in (("other/model", "v"), ("org/model", "v2")):
        assert len(AnswerCache(tmp_path, model, version)) == 0


def test_a_torn_line_costs_that_line_only(tmp_path):
    cache = AnswerCache(tmp_path, "m", "v")
    cache.add([answer("a"), answer("b")])
    cache.close()
    (shard,) = cache.folder.glob("*.jsonl")
    whole = shard.read_bytes()
    for cut in range(len(whole)):
        shard.write_bytes(whole[:cut])
        assert len(AnswerCache(tmp_path, "m", "v")) == whole[:cut].count(b"\n")
    shard.write_bytes(b'garbage\n{"user_id": 1}\n[]\n\n' + whole)
    damaged = AnswerCache(tmp_path, "m", "v")
    assert (len(damaged), damaged.damaged) == (2, 4)


def test_writers_side_by_side_lose_nothing_and_see_each_other(tmp_path):
    def write(name: str) -> None:
        with AnswerCache(tmp_path, "m", "v") as cache:
            for step in range(50):
                cache.add([answer(name, step)])

    reader = AnswerCache(tmp_path, "m", "v")
    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    reader.refresh()
    assert len(reader) == 200 and reader.damaged == 0
    assert len(list(reader.folder.glob("*.jsonl"))) == 4


def test_of_two_answers_the_older_shard_counts_for_everybody(tmp_path):
    first, second = AnswerCache(tmp_path, "m", "v"), AnswerCache(tmp_path, "m", "v")
    first.add([answer("a", text="Find the first")])
    second.add([answer("a", text="Find the second")])
    first.reload()
    second.reload()
    assert first.find(*ask("a")).text == second.find(*ask("a")).text == "Find the first"
