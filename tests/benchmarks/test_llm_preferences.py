"""The benchmark of writers: shares by the known truth, the sample to read, and what is shown."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from preference_benchmark.preferences.llm import first_users
from preference_benchmark.sources import read_source

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("llm_preferences_script", FOLDER / "llm_preferences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shop():
    return read_source("corner-shop", None, num_users=40, num_items=60)


def texts_about(shop, template: str, column: str) -> pl.DataFrame:
    """One text after every step, about an attribute that the customer likes or dislikes then."""
    rows = shop.truth.with_columns(text=pl.format(template, pl.col(column).list.first()))
    return rows.select("user_id", "step", "text")


@pytest.mark.parametrize(
    ("template", "column", "verdict"),
    [
        ("Find things with {}", "likes", "faithful"),
        ("Avoid things with {}", "dislikes", "faithful"),
        ("Find things with {}", "dislikes", "false"),
        ("Avoid things with {}", "likes", "false"),
        ("Find something else than {}x", "likes", "neither"),
    ],
)
def test_the_truth_decides(script, shop, template, column, verdict):
    texts = texts_about(shop, template, column)
    found = script.truthful(texts, shop)
    # One attribute may hold the words of another.
    assert found[verdict] > 0.95 and found["texts"] == texts.height
    assert sum(found[name] for name in ("faithful", "false", "neither")) == pytest.approx(1)


def test_without_truth_or_texts_there_is_no_share(script, shop):
    texts = texts_about(shop, "Find {}", "likes")
    assert script.truthful(texts, replace(shop, truth=None)) is None
    assert script.truthful(texts.head(0), shop) is None


def test_as_many_users_as_have_the_steps(script, shop):
    count = script.users_with(shop, 100)
    assert first_users(shop, count).interactions.height >= 100 > first_users(shop, count - 1).interactions.height
    assert script.users_with(shop, 10**9) == shop.interactions["user_id"].n_unique()


def test_the_sample_is_drawn_from_kept_and_rejected(script, tmp_path):
    rows = [("u", step, 0, f"Find {step}", "single word" if step % 3 == 0 else None) for step in range(120)]
    schema = ["user_id", "step", "attempt", "text", "rejected"]
    script.draw_sample(pl.DataFrame(rows, schema=schema, orient="row"), tmp_path / "sample.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "sample.jsonl").read_text().splitlines()]
    assert [line["rejected"] for line in lines] == [None] * 50 + ["single word"] * 20
    assert len({line["step"] for line in lines}) == 70
