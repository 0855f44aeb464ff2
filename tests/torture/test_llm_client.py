"""A server that does everything wrong at random moments: what was paid for is kept, and the next run goes on.

Runs against the same answers follow one another, each with other faults, until one has no faults. An answer that came
back whole is never asked for again, whatever it says. The last run settles every step, and gives a sound table.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter

import polars as pl
import pytest
from benchmark_doubles import random_tables
from llm_loopback import LoopbackServer, completion, good_answer
from test_answers import answer

from preference_benchmark.preferences.llm import LlmApproximator, OpenAIServer, prompt_named
from preference_benchmark.tables.outside_text import broken_rule

pytest.importorskip("openai")
pytest.importorskip("aiolimiter")
INSTRUCT = prompt_named("instruct")
JUNK = [None, -1, 10**30, 0.5, "x", [], {}, [1], {"a": None}, True, "\x00", "é" * 1_000]
FIELDS = ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]


class Faults:
    """Answers with faults, and what was answered whole, by what was asked and its seed."""

    def __init__(self, seed: int, share: float) -> None:
        self.chance, self.share = random.Random(seed), share
        self.whole: Counter[tuple[str, int]] = Counter()
        self.kinds: Counter[str] = Counter()
        self.lock = threading.Lock()

    def __call__(self, content: str, times: int, seed: int):
        with self.lock:
            chance = random.Random(self.chance.random())
            kind = chance.choice(["status", "fatal", "body", "cut", "text", "field", "half"])
            if chance.random() >= self.share:
                kind = "none"
            self.kinds[kind] += 1
            answered = getattr(self, kind)(content, chance)
            # A field of another kind costs no answer, unless it holds the answer or names another model.
            if kind in ("none", "text", "half") or (
                kind == "field" and '"assistant"' in answered[1] and '"model": "m"' in answered[1]
            ):
                self.whole[content, seed] += 1
        return answered

    def none(self, content, chance):
        return good_answer(content)

    def status(self, content, chance):
        body = chance.choice(["", "{}", '{"error": {"message": "\\ud83d no"}}', "<html>", "[" * 5_000])
        return chance.choice([408, 425, 429, 500, 502, 503, 529, 599]), body, {"Retry-After": chance.choice(["0", "x"])}

    def fatal(self, content, chance):
        return (
            (chance.choice([400, 401, 402, 404, 413, 422]), '{"error": "no"}', {})
            if chance.random() < 0.1
            else (self.status(content, chance))
        )

    def body(self, content, chance):
        return 200, chance.choice(["", "null", "[]", "{}", "not JSON", '{"choices": []}', "[" * 9_000, "\x00"]), {}

    def cut(self, content, chance):
        whole = completion(good_answer(content))
        end = chance.randrange(len(whole))
        return 200, whole[:end], {"Content-Length": str(len(whole.encode())), "Connection": "close"}

    def text(self, content, chance):
        """Whole answers of no use, or hardly any."""
        text = chance.choice(["", "Sorry.", "[" * 20_000, "Find pens\n" * 3_000, answer(chance)[1], answer(chance)[1]])
        return 200, completion(text.encode("utf-8", "replace").decode(), chance.choice(["stop", "length"])), {}

    def field(self, content, chance):
        """A whole answer with a field of another kind; it may be unreadable."""
        body = json.loads(completion(good_answer(content)))
        body[chance.choice(FIELDS)] = chance.choice(JUNK)
        return 200, json.dumps(body), {}

    def half(self, content, chance):
        """Half a character in the text."""
        body = json.loads(completion(good_answer(content)))
        body["choices"][0]["message"]["content"] += "\ud83d"
        return 200, json.dumps(body), {}


def one_run(server: LoopbackServer, folder, tables) -> tuple[pl.DataFrame | None, LlmApproximator]:
    engine = OpenAIServer("tiny", INSTRUCT, base_url=server.url, first_pause=0.001, tries=2, concurrency=4)
    write = LlmApproximator(engine, INSTRUCT, folder, progress=False, retries=1)
    try:
        return write(tables), write
    except RuntimeError:  # says that the server cannot be used, or that its answers are of no use
        return None, write


def settle(tally, folder, seed: int) -> None:
    """Runs with faults, and one without."""
    chance = random.Random(seed)
    tables = random_tables(seed, users=6, rows=40)
    whole: Counter[tuple[str, int]] = Counter()
    sent = 0
    for share in [chance.uniform(0.2, 1) for _ in range(chance.randrange(1, 4))] + [0.0]:
        faults = Faults(seed, share)
        with LoopbackServer(faults) as server:
            found, write = one_run(server, folder, tables)
        whole += faults.whole
        sent += sum(server.asked.values())
        for kind, count in faults.kinds.items():
            tally.note(f"answered with fault {kind}" if kind != "none" else "answered well", count)
        seed += 1
    tally.tried += sent
    repeated = {key: count for key, count in whole.items() if count > 1}
    # Steps that look alike are asked with seeds of their own, so that no question comes twice.
    tally.check(not repeated, f"seed {seed}: {len(repeated)} answers that were there were paid for again")
    if found is None:
        tally.check(False, f"seed {seed}: a run without faults ended with an error")
        return
    steps = write.report.steps
    tally.check(not steps.get("unfinished"), f"seed {seed}: steps are open after a run without faults: {steps}")
    tally.check(sum(steps.values()) == tables.interactions.height, f"seed {seed}: steps are missing: {steps}")
    broken = found.filter(found.select(rule=broken_rule(pl.col("text")))["rule"].is_not_null())
    tally.check(broken.is_empty(), f"seed {seed}: {broken['text'].to_list()[:3]} became preferences")


@pytest.mark.campaign("client", 40)
def test_a_server_with_random_faults(tally, tmp_path):
    number = 0
    while tally.tried < tally.count:
        number += 1
        try:
            settle(tally, tmp_path / str(number), 1_000 * tally.seed + 10 * number)
        except Exception as error:  # any error here is what is looked for
            tally.check(False, f"number {number}: {type(error).__name__}: {str(error)[:300]}")
    tally.finish()
