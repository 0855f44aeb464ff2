from __future__ import annotations

from collections import Counter
from itertools import accumulate

import polars as pl
import pytest
from benchmark_doubles import random_tables
from llm_loopback import good_answer

from preference_benchmark.preferences.llm import Completion, LlmApproximator, Prompt, Sampling, prompt_named

INSTRUCT = prompt_named("instruct")


class Scribe:
    """An engine that answers at once, a third of the time to no avail, and remembers what it was given.

    Args:
        written: windows that messages were written about, so far.
    """

    model, batch_size = "scribe", 4

    def __init__(self, written: list[str]) -> None:
        self.prompt, self.sampling, self.faults = INSTRUCT, Sampling(), Counter()
        self.written, self.batches, self.written_by_then = written, [], []

    def run(self, batches, deliver, stop) -> None:
        for batch in batches:
            self.batches.append(batch)
            self.written_by_then.append(len(self.written))
            deliver([Completion(request, self.answer(request), "stop", 100, 60) for request in batch])

    def under_way(self) -> str:
        return "nothing under way"

    def answer(self, request) -> str:
        return "Sorry." if request.seed % 3 == 0 else good_answer(request.messages[-1]["content"])


@pytest.fixture
def written(monkeypatch) -> list[str]:
    windows, messages = [], Prompt.messages
    monkeypatch.setattr(
        Prompt, "messages", lambda self, window, opening="": windows.append(window) or messages(self, window, opening)
    )
    return windows


def test_messages_are_written_batch_by_batch(tmp_path, written):
    engine = Scribe(written)
    LlmApproximator(engine, INSTRUCT, tmp_path, progress=False)(random_tables(0))
    assert engine.written_by_then == list(accumulate(map(len, engine.batches)))
    assert {request.key.attempt for batch in engine.batches for request in batch} == {0, 1, 2}


def test_an_estimate_writes_no_messages_and_knows_their_length(tmp_path, written):
    tables, engine = random_tables(0), Scribe(written)
    write = LlmApproximator(engine, INSTRUCT, tmp_path, retries=0, progress=False)
    before = write.estimate(tables)
    assert not any(written)
    write(tables)
    lengths = [request.characters for batch in engine.batches for request in batch]
    assert lengths == sorted(lengths) and len(lengths) == before.requests
    assert before.prompt_tokens == round(sum(lengths) / 4)
    assert write.estimate(tables).answered == before.requests


def test_entries_show_what_was_answered_and_why_it_was_rejected(tmp_path):
    tables, engine = random_tables(0), Scribe([])
    write = LlmApproximator(engine, INSTRUCT, tmp_path, progress=False)
    assert write.entries(tables).is_empty()
    write(tables)
    found = write.entries(tables)
    assert found.filter(pl.col("rejected").is_null()).height == 5 * write.report.answers["usable"]
    assert found["answer"].str.contains("preferences").all() and found["window"].str.contains("review").any()
