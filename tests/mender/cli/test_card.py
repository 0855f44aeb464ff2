"""`mender card`: figures, lists and metadata, beside what was written by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def test_a_card_gets_figures_lists_and_metadata(mender, trained):
    model = trained / "mender-tok-seed0" / "model"
    shown = ["--history", "tea", "--preference", "find soap", "--preference", "find lamp", "--license", "mit"]
    code, out, err = mender("card", model, *shown, "--dataset", "org/words", "--name", "Words", "--json")
    assert code == 0, err
    assert json.loads(out) == {"card": str(model / "README.md"), "results": str(model.parent / "five_axes.json")}
    text = (model / "README.md").read_text()
    assert "license: mit" in text and "- org/words" in text and "# Words" in text and "recall@10" in text
    assert '"find soap" | "find lamp"' in text
    code, _, err = mender("card", model, "--results", model / "config.json")
    assert code == 2 and 'config.json has no "scores"' in err
    code, _, err = mender("card", "org/name")
    assert code == 2 and "no folder 'org/name'" in err
    code, _, err = mender("card", model, "--push")
    assert code == 2 and "--push needs the name of the repository" in err


def test_the_base_model_written_by_hand_stays(mender, trained, word_shop, words, tmp_path, monkeypatch):
    monkeypatch.setattr("mender.cards.encoder_name", lambda model: "org/encoder")
    model = Path(shutil.copytree(trained / "mender-tok-seed0", tmp_path / "run")) / "model"
    readme = model / "README.md"
    assert mender("card", model)[0] == 0 and "base_model: org/encoder" in readme.read_text()
    readme.write_text(readme.read_text().replace("base_model: org/encoder", "base_model: org/by-hand"))
    assert mender("card", model)[0] == 0 and "base_model: org/by-hand" in readme.read_text()
    shop = [*words, "--output", tmp_path / "again"]
    assert mender("evaluate", model, *shop)[0] == 0
    shown, record = readme.read_text().split("<!-- ")
    assert "base_model: org/by-hand" in shown and "org/encoder" not in shown
    assert str(word_shop) not in shown + record
