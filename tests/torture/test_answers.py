"""Answers of language models with random damage: the parser finds whole entries or none, and never fails.

An answer that is well-formed must give exactly its strings. One that was cut off must give the first of them, never a
part of one. Whatever else is in it, entries are plain text on one line, and the rules say yes or no to each.
"""

from __future__ import annotations

import json
import random
import string

import polars as pl
import pytest
from hostile_text import hostile_text

from preference_benchmark.preferences.llm.parsing import RULES, checked_entries, entries
from preference_benchmark.preferences.names import Names
from preference_benchmark.tables.outside_text import broken_rule

HOSTILE = hostile_text()
WISHES = ["Find mugs with a flat lid", "Avoid thin walls", 'Find 5" pens', "No 'loose' tea", "Find café mugs, not cups"]
ODD = [*"\"'\\[]{},:\n“\x00\ud83d\u202e", "```", "1e999", "NaN", "null"]
AROUND = [("", ""), ("Sure!\n```json\n", "\n```"), ("<think>Find [1] x</think>\n", ""), ("", "\nHope that helps!")]
NAMES = Names(pl.Series([" acme "]), pl.Series(dtype=pl.String))
AT_ONCE = 2_000


def wish(chance: random.Random) -> str:
    kind = chance.randrange(6)
    if kind < 3:
        return chance.choice(WISHES)
    if kind == 3:
        return chance.choice(HOSTILE)
    letters = string.printable if kind == 4 else "aé\u200bЖ漢\U0001f600\u0301\"'{}[],:\\"
    return "".join(chance.choices(letters, k=chance.randrange(1, 40)))


def answer(chance: random.Random) -> tuple[str, str, list[str]]:
    """Kind of damage, answer, and the wishes in it."""
    wishes = [wish(chance) for _ in range(5)]
    before, after = chance.choice(AROUND)
    value = chance.choice([wishes, {"preferences": wishes}])
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 2]))
    kind = chance.choice(["whole", "whole", "cut", "marks", "bytes", "nested", "long"])
    if kind == "cut":
        text = text[: chance.randrange(len(text))]
        after = ""
    elif kind == "marks":
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(text))
            text = text[:place] + chance.choice(ODD) + text[place + chance.randrange(2) :]
    elif kind == "bytes":
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        text = data.decode("utf-8", chance.choice(["replace", "surrogateescape"]))
    elif kind == "nested":
        text = chance.choice(["[", '{"a":', "[{", '["'])[:] * chance.choice([10, 2_000, 9_000]) + text
    elif kind == "long":
        text = chance.choice(["9", '"', "a", "\\", "é,", "'"]) * chance.randrange(1, 30_000) + text
    return kind, before + text + after, wishes


def tidy(text: str) -> str:
    return " ".join(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").split())


def complaint(kind: str, text: str, wishes: list[str], found: list[str]) -> str:
    """What is wrong with the entries of an answer; empty if nothing is."""
    if any(entry != tidy(entry) or not entry for entry in found):
        return "an entry is not plain text"
    expected = [entry for entry in map(tidy, wishes) if entry]
    if kind == "whole" and found != expected:
        return f"found {found} instead of {expected}"
    if kind == "cut" and found != expected[: len(found)]:
        return f"a part of an entry: {found} of {expected}"
    return ""


@pytest.mark.campaign("answers", 1_000)
def test_damaged_answers(tally):
    chance = random.Random(tally.seed)
    while tally.tried < tally.count:
        rows = []
        for place in range(min(AT_ONCE, tally.count - tally.tried)):
            kind, text, wishes = answer(chance)
            try:
                found = entries(text)
            except Exception as error:  # any error here is what is looked for
                tally.check(False, f"{kind}: {type(error).__name__}: {str(error)[:80]} in {text[:200]!r}")
                continue
            message = complaint(kind, text, wishes, found)
            tally.check(not message, f"{kind}: {message} in {text[:300]!r}")
            rows += [(str(place), 0, entry) for entry in found]
        frame = pl.DataFrame(rows, {"user_id": pl.String, "step": pl.Int64, "text": pl.String}, orient="row")
        windows = frame.select("user_id", "step", window=pl.lit("a mug")).unique()
        checked = checked_entries(frame, windows, NAMES)
        if not {*checked["rejected"].to_list()} <= {None, *RULES}:
            tally.check(False, f"unknown rules {checked['rejected'].unique().to_list()}")
        kept = checked.filter(pl.col("rejected").is_null())
        for entry in kept.filter(kept.select(broken=broken_rule(pl.col("text")))["broken"].is_not_null())["text"]:
            tally.check(False, f"{entry!r} became a preference")
        tally.note("entries", checked.height)
        tally.note("entries kept", kept.height)
    tally.finish()
