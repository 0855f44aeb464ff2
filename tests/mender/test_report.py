"""The table, the picture and the JSON hold what the metric said."""

from __future__ import annotations

import json

import matplotlib.image
import pytest

from mender.report import Score, draw, print_table, save_json


@pytest.fixture
def scores():
    plain = {f"{name}@{k}": 0.1 * k / 5 for name in ("recall", "ndcg") for k in (5, 10)}
    paired = {**plain, "m@5": 0.25, "m@10": 0.375}
    intervals = {f"{name}/{end}": value for name, value in paired.items() for end in ("low", "high")}
    return [
        Score("recommendation", "oracle", "Mender", {"n": 40, **plain, **intervals}),
        Score("recommendation", "oracle", "popularity", {"n": 40, **plain, **intervals}),
        Score("sentiment_following", "", "Mender", {"n": 7, **paired, **intervals}),
    ]


def test_table_names_axis_matching_method_and_figures(scores, capsys):
    print_table(scores, title="a title")
    printed = capsys.readouterr().out
    for text in ("a title", "recommendation (oracle)", "popularity", "0.2000", "m 0.3750", "0.200-0.200", "40"):
        assert text in printed


def test_picture_and_figures_are_written_whole(scores, tmp_path):
    draw(scores, tmp_path / "table.png", title="a title")
    assert matplotlib.image.imread(tmp_path / "table.png").shape[1] > 1000
    save_json(scores, {"seed": 3}, tmp_path / "table.json")
    read = json.loads((tmp_path / "table.json").read_text())
    assert read["settings"] == {"seed": 3}
    assert read["scores"][2]["m@10"] == 0.375 and read["scores"][2]["axis"] == "sentiment_following"
    assert not list(tmp_path.glob("*.tmp"))
