"""Runs side by side: seeds averaged, differences paired, mistakes named."""

from __future__ import annotations

import itertools
import json

import matplotlib.image
import numpy as np
import polars as pl
import pytest

from mender.comparison import compare, draw_stars, print_comparison, randomisation_test, save_comparison

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
            "stratum": [""] * USERS,
            "user_id": [f"u{row}" for row in range(USERS)],
            "target": ["i"] * USERS,
            "pair_id": [-1] * USERS,
            "sentiment": ["positive"] * USERS,
            "rank": np.where(hits, 3, 0),
            "relevant": [1] * USERS,
            "found": [[3] if hit else [] for hit in hits],
            "unit": [0] * USERS,
        }
    )
    rows = [
        {"sentiment": sentiment, "rank": int(hit), "pair_id": pair, "target": f"t{pair}", "user_id": f"p{pair}"}
        | {"relevant": 1, "found": [1] * hit, "unit": pair}
        for pair, found in enumerate(pairs)
        for sentiment, hit in zip(("positive", "negative"), found, strict=True)
    ]
    same = {"matching": "", "condition": "", "axis": "sentiment_following", "stratum": ""}
    paired = pl.DataFrame([same | row for row in rows])
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
    assert row["same"].mark == "~" and row["same"].difference == (0, 0, 0)
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
    assert (tmp_path / "comparison.md").read_text().count("\n") == len(found.cells) + 2 + 6 + 2
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
    with pytest.raises(ValueError, match="two was not measured on 2 examples of one"):
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


def test_randomisation_agrees_with_all_sign_flips():
    difference = np.array([0.5, 1.0, -0.25, 0.75, 0.0, 1.0, 0.5, -0.5])
    signs = np.array(list(itertools.product((-1, 1), repeat=len(difference))))
    exact = (np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9).mean()
    (found,) = randomisation_test([difference], flips=200_000)
    assert found == pytest.approx(exact, abs=0.005)


def test_examples_of_a_unit_flip_together():
    difference, units = np.ones(40), np.repeat(["a", "b", "c"], [20, 10, 10])
    (alone,), (together,) = randomisation_test([difference]), randomisation_test([difference], units)
    assert alone < 0.001 and together == pytest.approx(2 / 8, abs=0.02)


def test_differences_must_survive_all_comparisons_of_the_table(tmp_path):
    """Eight of 200 users better is convincing alone, not as the best of many comparisons."""
    base, better = write_run(tmp_path / "a", "base", 0.30), write_run(tmp_path / "b", "better", 0.34)
    alone = compare(read(base, better)).cells["recommendation (oracle)"]["better"]
    assert alone.p_value == pytest.approx(2 / 2**8, abs=0.004) and alone.mark == "+"
    others = [write_run(tmp_path / f"c{number}", f"same{number}", 0.30) for number in range(8)]
    among = compare(read(base, better, *others)).cells["recommendation (oracle)"]
    assert among["better"].p_holm == pytest.approx(18 * alone.p_value) and among["better"].mark == "~"
    assert all(among[f"same{number}"].mark == "~" and among[f"same{number}"].p_holm == 1 for number in range(8))


def test_not_inferior_depends_on_the_margin(tmp_path):
    runs = read(write_run(tmp_path / "a", "base", 0.50), write_run(tmp_path / "b", "close", 0.49))
    row = "recommendation (oracle)"
    assert compare(runs, margin=0.10).cells[row]["close"].not_inferior
    assert not compare(runs, margin=0.01).cells[row]["close"].not_inferior
    with pytest.raises(ValueError, match="--margin 1.5"):
        compare(runs, margin=1.5)


def test_seeds_show_their_spread(tmp_path):
    runs = read(write_run(tmp_path / "a", "one", 0.30), write_run(tmp_path / "b", "one", 0.40, seed=1))
    cell = compare(runs).cells["recommendation (oracle)"]["one"]
    assert cell.seed_spread == pytest.approx(np.std([0.3, 0.4], ddof=1))


def test_wishes_are_compared_by_all_relevant_items_and_by_stratum(tmp_path):
    folder = write_run(tmp_path / "a", "one", 0.3)
    lists = [([1, 4], 2), ([2, 3], 40), ([], 3), ([1, 2, 3], 3)]
    wishes = pl.DataFrame(
        {
            "matching": "",
            "condition": "",
            "axis": "open_wishes",
            "stratum": ["known", "known", "withheld", "withheld"],
            "user_id": "",
            "target": [f"i{row}" for row in range(4)],
            "pair_id": -1,
            "sentiment": "positive",
            "rank": [found[0] if found else 0 for found, _ in lists],
            "relevant": [relevant for _, relevant in lists],
            "found": pl.Series([found for found, _ in lists], dtype=pl.List(pl.Int64)),
            "unit": range(4),
        }
    )
    ranks = pl.read_parquet(folder / "ranks.parquet")
    pl.concat([ranks, wishes.select(ranks.columns)], how="vertical_relaxed").write_parquet(folder / "ranks.parquet")
    cells = compare(read(folder), metric="recall@5").cells
    # Of two relevant items one is among the first two; of forty two are among the first five.
    assert cells["open wishes (known)"]["one"].value == pytest.approx((1 / 2 + 2 / 5) / 2)
    assert cells["open wishes (withheld)"]["one"].value == pytest.approx((0 + 1) / 2)
    gain = 1 / np.log2(np.arange(2, 12))
    ndcg = [(gain[0] + gain[3]) / gain[:2].sum(), gain[1:3].sum() / gain[:10].sum()]
    cells = compare(read(folder), metric="ndcg@10").cells
    assert cells["open wishes (known)"]["one"].value == pytest.approx(np.mean(ndcg))
