"""The README's Python snippets run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)
SAVED = "outputs/quickstart/model"


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[snippet.splitlines()[0][:40] for snippet in SNIPPETS])
def test_snippet_runs(snippet, capsys):
    if SAVED in snippet and not (ROOT / SAVED).is_dir():
        pytest.skip(f"{SAVED} is made by `make demo`")
    exec(compile(snippet.replace(SAVED, str(ROOT / SAVED)), "README.md", "exec"), {})
    assert capsys.readouterr().out
