"""The Python snippets of docs/hub.md run, one after the other; a folder stands for the repository on the Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from packaging import version

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "hub.md").read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.skipif(
    version.parse(transformers.__version__) < version.parse("5.12"),
    reason="a folder stands for the repository, and older transformers read no code of several files from one",
)
def test_snippets_run(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "modeling_mender"))
    from doubles import random_catalogue, tiny_model, word_tokenizer

    from modeling_mender import MenderProcessor

    items = {"item_id": [f"i{row}" for row in range(60)], "title": [f"tea {row}" for row in range(60)]}
    saved = tmp_path / "outputs" / "quickstart" / "model"
    tiny_model(random_catalogue(60, [8, 8])).save_pretrained(saved)
    MenderProcessor(word_tokenizer(), items).save_pretrained(saved)
    score = {"axis": "recommendation", "matching": "last", "method": "Mender", "n": 9, "recall@10": 0.5}
    (saved.parent / "five_axes.json").write_text(json.dumps({"settings": {}, "scores": [score]}))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for snippet in SNIPPETS:
        local = snippet.replace("push_to_hub", "save_pretrained")
        exec(compile(local, "docs/hub.md", "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) == 5 + 3 + 1
    assert "**0.500**" in Path("outputs/copy/README.md").read_text("utf-8")
    assert (names["found"].scores == names["before"].scores).all()  # fresh adapters change nothing
    assert {path.name for path in saved.iterdir()} == {path.name for path in (tmp_path / "org/mender-small").iterdir()}
    assert torch.equal(names["model"].item_codes, names["recommend"].model.item_codes)
