"""What wrong matching costs: matchers choose what they say, accuracy is by the truth, runs end in a table."""

from __future__ import annotations

import json

import polars as pl
import pytest
from benchmark_doubles import HashEmbedder
from doubles import encoder_folder

from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.sources import read_source

SCRIPT = "matching"
SHAPE = {"num_users": 60, "num_items": 40}


@pytest.fixture(scope="module")
def shop(script):
    """A small shop whose texts are compared by their hashes: closeness means nothing."""
    tables = read_source("corner-shop", None, **SHAPE)
    return script.Shop(None, tables, ExtractiveApproximator(progress=False)(tables), HashEmbedder())


def texts(shop, matches):
    return shop.training.select("user_id", "step").join(matches, on=["user_id", "step"], how="left")["text"]


def test_who_knows_the_truth_is_right_and_chance_is_not(script, shop):
    accuracy = {name: shop.accuracy(script.MATCHINGS[name](shop)) for name in ("truth", "oracle", "random of 5")}
    assert accuracy["truth"] == 1 and 0.05 < accuracy["random of 5"] < 0.6
    own = shop.preferences.join(shop.explained.with_columns(pl.col("step") - 1), on=["user_id", "step"], how="semi")
    named = {(user, step + 1) for user, step, text in own.select("user_id", "step", "text").rows()}
    assert named == set(shop.explained.rows())


def test_shares_of_wrong_preferences(script, shop):
    right = texts(shop, script.MATCHINGS["oracle"](shop))
    for source in (script.OWN, script.OTHERS):
        found = {share: texts(shop, script.in_part(share, source)(shop)) for share in (0.2, 0.5, 1.0)}
        changed = {share: right != other for share, other in found.items()}
        # Another customer may want the same.
        assert [values.mean() for values in changed.values()] == pytest.approx([0.2, 0.5, 1.0], abs=0.03)
        assert not (changed[0.2] & ~changed[0.5]).any()
    assert (found[1.0].sort() == right.sort()).all()  # exchanged: the same ones, elsewhere


def test_random_choices_are_among_the_places_and_the_seed_decides(script, shop):
    again = [texts(shop, shop.match(script.drawn(shop, end=5))).to_list() for _ in range(2)]
    assert again[0] == again[1]
    assert texts(shop, shop.match(script.drawn(shop, end=1))).equals(texts(shop, shop.match("oracle")))
    assert (texts(shop, shop.match(script.drawn(shop, first=1))) != texts(shop, shop.match("oracle"))).all()


def test_below_the_threshold_there_is_none(script, shop):
    few, many = (shop.match(script.above(least)) for least in (0.1, -0.1))
    assert 0 < few.height < many.height < shop.training.height
    assert few.join(shop.match("oracle"), on=["user_id", "step", "text"]).height == few.height


def test_accuracies_of_all_matchers(script, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "first_layers", lambda shop, layers: shop.embedder)
    script.write_accuracies(tmp_path, shop)
    lines = (tmp_path / "accuracy.md").read_text().splitlines()
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:5]] for cells in (line.split("|") for line in lines[2:-2])
    }
    assert list(rows) == list(script.MATCHINGS)
    assert rows["truth"][0] == "1.000" and rows["oracle"][1:] == ["1.000", "1.000"]
    assert rows["two layers"] == rows["oracle"] and float(rows["50% of the customer"][1]) == pytest.approx(
        0.5, abs=0.01
    )


def test_runs_are_kept_and_compared(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("preference_benchmark.hub.plots.draw", lambda *arguments: None)
    small = {"decoder": {"num_layers": 1, "d_ff": 16}}
    monkeypatch.setattr(script, "ALONE", script.ALONE | small)
    encoder, results = encoder_folder(tmp_path / "encoder"), tmp_path / "results"
    names = ["oracle", "cosine > .5"]
    options = {"epochs": 1, "users": 30, "items": 20, "encoder": encoder, "eval_limit": 4, "results": results}
    options |= {"scratch": tmp_path / "scratch", "tables_only": False, "accuracy_only": False, "seed": None}
    script.main(only=names, **options)
    kept = {path.parent.name: json.loads(path.read_text()) for path in results.glob("*/run.json")}
    assert set(kept) == {"oracle-seed0", "cosine-above-.5-seed0"}
    assert kept["oracle-seed0"]["matched"] == 1 and 0 < kept["oracle-seed0"]["accuracy"] <= 1
    table = (results / "table.md").read_text()
    assert all(f"\n| {name} | " in table for name in names) and "open wishes, n = 4" in table
    assert (results / "curves.png").stat().st_size > 10_000
    made = []
    monkeypatch.setattr(script, "make", lambda run, *arguments: made.append(run.method))
    monkeypatch.setattr(script, "write_tables", lambda *arguments: None)
    script.main(only=names, **options)
    assert not made
    script.main(only=names[:1], **options | {"epochs": 2})
    assert made == names[:1]
