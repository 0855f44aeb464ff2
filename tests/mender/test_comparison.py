"""Runs side by side: seeds averaged, differences paired, mistakes named."""

from __future__ import annotations

import json

import matplotlib.image
import numpy as np
import polars as pl
import pytest

from mender.comparison import compare, draw_stars, print_comparison, save_comparison

USERS = 200


def write_run(folder, method, hit_rate, seed=0, source="shop", pairs=((True, False), (True, True), (False, False))):
    """A run whose first `hit_rate` share of users are hits on recommendation, and three sentiment pairs."""
    folder.mkdir(parents=True)
    hits = np.arange(USERS) < round(hit_rate * USERS)
    single = pl.DataFrame(
        {
            "matching": ["oracle"] * USERS,
            "condition": [""] * USERS,
            "axis": ["recommendation"] * USERS,
            "user_id": [f"u{row}" for row in range(USERS)],
            "target": ["i"] * USERS,
            "pair_id": [-1] * USERS,
            "sentiment": ["positive"] * USERS,
            "rank": np.where(hits, 3, 0),
        }
    )
    rows = [
        {"sentiment": sentiment, "rank": 1 if hit else 0, "pair_id": pair, "target": f"t{pair}", "user_id": f"p{pair}"}
        for pair, found in enumerate(pairs)
        for sentiment, hit in zip(("positive", "negative"), found, strict=True)
    ]
    paired = pl.DataFrame([{"matching": "", "condition": "", "axis": "sentiment_following", **row} for row in rows])
    pl.concat([single, paired.select(single.columns)], how="vertical_relaxed").write_parquet(folder / "ranks.parquet")
    settings = {"source": source, "method": method, "seed": seed, "parameters": 10, "training": {"steps": 3}}
    (folder / "five_axes.json").write_text(json.dumps({"settings": settings}))
    return folder


def read(*folders):
    return {folder: json.loads((folder / "five_axes.json").read_text()) for folder in folders}


def test_values_and_pairs_are_those_of_the_ranks(tmp_path):
    found = compare(read(write_run(tmp_path / "a", "one", 0.3)))
    assert found.cells["recommendation (oracle)"]["one"].value == pytest.approx(0.3)
    cell = found.cells["sentiment following"]["one"]
    assert (cell.value, cell.n) == (pytest.approx(1 / 3), 3)
    assert found.cells["recommendation (oracle)"]["one"].n == USERS


def test_seeds_are_averaged_and_differences_are_paired(tmp_path):
    runs = read(
        write_run(tmp_path / "a", "base", 0.30),
        write_run(tmp_path / "b", "better", 0.34, seed=0),
        write_run(tmp_path / "c", "better", 0.36, seed=1),
        write_run(tmp_path / "d", "same", 0.30),
    )
    row = compare(runs, "base").cells["recommendation (oracle)"]
    assert row["better"].value == pytest.approx(0.35)
    # The intervals overlap by far, but every example that differs speaks for one side.
    assert row["better"].low < row["base"].high and row["better"].mark == "+"
    assert row["same"].mark == "" and row["same"].difference == (0, 0, 0)
    assert row["base"].difference is None
    assert compare(runs, "better").cells["recommendation (oracle)"]["base"].mark == "-"


def test_everything_is_written_whole(tmp_path, capsys):
    runs = read(write_run(tmp_path / "a", "one", 0.3), write_run(tmp_path / "b", "two", 0.2))
    found = compare(runs)
    print_comparison(found)
    printed = capsys.readouterr().out
    assert "one" in printed and ".300" in printed and "-" in printed
    draw_stars(found, tmp_path / "stars.png")
    assert matplotlib.image.imread(tmp_path / "stars.png").shape[1] > 800
    save_comparison(found, tmp_path)
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert record["cells"]["recommendation (oracle)"]["two"]["value"] == pytest.approx(0.2)
    assert (tmp_path / "comparison.md").read_text().count("\n") == len(found.cells) + 2 + 6
    assert not list(tmp_path.glob("*.tmp"))


def test_what_cannot_be_compared_is_refused(tmp_path):
    one = write_run(tmp_path / "a", "one", 0.3)
    with pytest.raises(ValueError, match="different benchmarks: shop, steam"):
        compare(read(one, write_run(tmp_path / "b", "two", 0.3, source="steam")))
    runs = read(one, write_run(tmp_path / "d", "two", 0.3))
    runs[tmp_path / "d"]["settings"]["exclude_seen"] = False
    with pytest.raises(ValueError, match="some runs were evaluated with --keep-seen"):
        compare(runs)
    runs[tmp_path / "d"]["settings"] |= {"exclude_seen": True, "split": "validation"}
    with pytest.raises(ValueError, match="some runs were evaluated with --validation"):
        compare(runs)
    del runs[tmp_path / "a"]
    assert compare(runs).source == f"{runs[tmp_path / 'd']['settings']['source']}, validation split"
    with pytest.raises(ValueError, match="--reference 'three' is not among the methods; pass one of one"):
        compare(read(one), "three")
    other = write_run(tmp_path / "c", "two", 0.3, pairs=((True, False),))
    with pytest.raises(ValueError, match="two lacks 2 of one's examples"):
        compare(read(one, other))


def test_runs_of_one_name_are_seeds_of_one_method(tmp_path):
    runs = read(write_run(tmp_path / "a", "one", 0.3), write_run(tmp_path / "b", "one", 0.2))
    with pytest.raises(ValueError, match=r"a and .*b are both called one, with seed 0; leave one out, or give it ano"):
        compare(runs)
    runs[tmp_path / "b"]["settings"]["seed"] = 1
    assert compare(runs).costs["one"]["seeds"] == 2
    runs[tmp_path / "b"]["settings"]["preset"] = {"name": "one", "patience": 5}
    assert compare(runs).costs["one"]["seeds"] == 2  # of the other's settings nothing is known
    runs[tmp_path / "a"]["settings"]["preset"] = {"name": "one", "patience": 5, "cost": "little", "new": 1}
    assert compare(runs).costs["one"]["seeds"] == 2
    runs[tmp_path / "a"]["settings"]["preset"] = {"name": "one", "patience": 3}
    with pytest.raises(ValueError, match=r"both called one, with different settings \(patience\)"):
        compare(runs)


def test_examples_of_a_chosen_target_are_drawn_together(tmp_path):
    runs = read(write_run(tmp_path / "a", "one", 0.3), write_run(tmp_path / "b", "two", 0.2))
    steering = pl.col("axis").replace("recommendation", "fine_grained_steering")
    for run in runs:
        pl.read_parquet(run / "ranks.parquet").with_columns(steering).write_parquet(run / "ranks.parquet")
    (cell,) = (cell for label, row in compare(runs).cells.items() if "steering" in label for cell in [row["two"]])
    # All have one target: nothing is known of others.
    assert (cell.low, cell.high) == pytest.approx((0.2, 0.2))
    assert cell.difference == pytest.approx((-0.1, -0.1, -0.1))


def test_gains_by_rank_are_ndcg(tmp_path):
    runs = read(write_run(tmp_path / "a", "one", 0.25))
    assert compare(runs, metric="ndcg@10").cells["recommendation (oracle)"]["one"].value == pytest.approx(0.25 / 2)
    assert compare(runs, metric="recall@5").cells["recommendation (oracle)"]["one"].value == pytest.approx(0.25)
    with pytest.raises(ValueError, match="mrr@10"):
        compare(runs, metric="mrr@10")
