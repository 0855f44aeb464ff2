"""The Python snippets of docs/benchmark.md run, on random vectors instead of a model; its tables name what is there."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "benchmark.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[re.findall(r"import (\w+)", snippet)[0] for snippet in SNIPPETS])
def test_snippet_runs(snippet, capsys, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "preference_benchmark"))
    from benchmark_doubles import HashEmbedder

    from preference_benchmark import embedding, make

    for module in (embedding, make):
        monkeypatch.setattr(module, "TextEmbedder", lambda *arguments, **options: HashEmbedder())
    monkeypatch.setattr(make, "encoder_identity", lambda name: ("hash", "hash"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(sys.modules["preference_benchmark.plots"], "draw", lambda *arguments: None)
    exec(compile(snippet, "docs/benchmark.md", "exec"), {})
    assert capsys.readouterr().out


def test_every_field_and_data_set_that_is_named_exists():
    from preference_benchmark.protocol import AXES, PAPER, Protocol
    from preference_benchmark.recipes import RECIPES

    differing = {field.name for field in fields(Protocol) if getattr(PAPER, field.name) != field.default} - {"matching"}
    assert differing <= set(re.findall(r"^\| `(\w+)` \| `?\w+`?[^|]* \| `", TEXT, flags=re.MULTILINE))
    assert all(f"`{axis}`" in TEXT for axis in AXES)
    assert all(f"`{name}`" in TEXT for name in RECIPES if name != "custom")
