"""The metric on random examples in random forms against a plain implementation; junk is refused by name."""

from __future__ import annotations

import math
import random

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from test_preference_discerning import KS, accuracy, list_figures, load, score

JUNK = [None, True, -3, 2**70, math.nan, -math.inf, "", "x", b"\x00", object(), [], [[]], {}, {1: "a"}, {1: math.nan}]
JUNK += ["\ud83d", "a\x00", np.float32(3), np.array(["a", "a\x00"]), pl.Series([1]), 10**400, 1e308, lambda: 1]
SETTINGS = ["ks", "confidence", "n_resamples", "seed", "catalogue"]
COLUMNS = ["predictions", "references", "axes", "kinds", "sentiments", "pair_ids", "avoided", "groups", "nothing"]
FORMS = [list, np.array, lambda ids: pa.array(list(ids)), pl.Series, pd.Series, tuple, list, list]


def names(chance: random.Random, count: int) -> list:
    """Distinct ids of one kind."""
    if chance.random() < 0.3:
        return chance.sample(range(2**31), count)
    letters = "ab\x00é\u200bЖ \U0001f600"
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chance.choices(letters, k=chance.randrange(1, 9))) + str(len(found))] = None
    return list(found)


def examples(chance: random.Random) -> tuple[dict, list, list]:
    """Arguments of a call, and rankings and relevant items as plain values."""
    ids = names(chance, 12)
    size = chance.randrange(1, 20)
    predictions = [chance.choices(ids, k=chance.randrange(16)) for _ in range(size)]
    relevant = [chance.sample(ids, chance.randrange(1, 5)) for _ in range(size)]
    kind = chance.choice(["one", "several", "graded"])
    if kind == "one":
        relevant = [own[0] for own in relevant]
    if kind == "graded":
        relevant = [{item: chance.choice([1, 2, 2.5]) for item in own} for own in relevant]
    form = chance.choice(FORMS)
    given = predictions if any(not own for own in predictions) else [form(own) for own in predictions]
    return {"predictions": given, "references": relevant}, predictions, relevant


def differs(found: dict, expected: dict) -> list[str]:
    return [name for name, value in expected.items() if not math.isclose(found[name], value, abs_tol=1e-9)]


@pytest.mark.campaign("calls", 80)
def test_calls_of_the_metric(tally, monkeypatch):
    # Half of a small call, for a cache that is not used.
    monkeypatch.setattr("datasets.arrow_dataset.generate_fingerprint", lambda dataset: "none")
    chance = random.Random(tally.seed)
    metric = load()
    while tally.tried < tally.count:
        inputs, predictions, relevant = examples(chance)
        if chance.random() < 0.6:
            found = score(metric, **inputs, ks=list(KS), n_resamples=5)
            expected = {}
            for k in KS:
                each = [accuracy(*pair, k) for pair in zip(predictions, relevant, strict=True)]
                expected |= {f"{name}@{k}": sum(one[name] for one in each) / len(each) for name in each[0]}
            expected |= list_figures(predictions)
            tally.check(not (wrong := differs(found, expected)), f"{wrong} of {inputs}")
            tally.note("scored as by the plain implementation")
            continue
        name = chance.choice(SETTINGS + COLUMNS)
        junk = chance.choice(JUNK)
        if name in COLUMNS and chance.random() < 0.6:
            junk = [chance.choice(JUNK) for _ in predictions]
        try:
            found = score(metric, **{"n_resamples": 5, **inputs, name: junk})
        except ValueError as error:
            tally.check(name in str(error), f"{name}={junk!r} is not named: {str(error)[:200]}")
            tally.note("refused")
        except Exception as error:  # any other error is what is looked for
            tally.check(False, f"{name}={str(junk)[:100]}: {type(error).__name__}: {str(error)[:200]}")
            metric = load()
        else:
            tally.check(all(map(math.isfinite, found.values())), f"{name}={junk!r} gives {found}")
            tally.note("accepted")
    tally.finish()
