"""The Python snippets of docs/serving.md run, in turn, on a tiny model with random weights."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text("utf-8"), flags=re.DOTALL)
SAVED = "outputs/quickstart/model"


def test_snippets_run(capsys, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "modeling_mender"))
    from doubles import WORDS, random_catalogue, tiny_model, word_tokenizer

    from modeling_mender import MenderProcessor

    items = {"item_id": [f"item-{word}" for word in WORDS], "title": WORDS}
    tiny_model(random_catalogue(len(WORDS), [4, 4, 4])).save_pretrained(tmp_path)
    MenderProcessor(word_tokenizer(), items).save_pretrained(tmp_path)
    page: dict[str, object] = {}
    for snippet in SNIPPETS:
        exec(compile(snippet.replace(SAVED, str(tmp_path)), "docs/serving.md", "exec"), page)
    first, kept, generated = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("[") and kept == f"{len(WORDS) - 2} False" and len(rows_in(generated)) == 5


def rows_in(printed: str) -> list[int]:
    """The item rows in a printed list."""
    return [int(row) for row in re.findall(r"-?\d+", printed)]
