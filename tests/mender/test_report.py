"""The table and the plot of a run show what the metric returned; both are written whole or not at all."""

from __future__ import annotations

import matplotlib.image
import pytest

from mender.report import Score, draw, print_table


@pytest.fixture
def scores():
    plain = with_intervals({f"{name}@{k}": 0.1 * k / 5 for name in ("recall", "ndcg") for k in (5, 10)})
    return [
        Score("recommendation", "oracle", "Mender", {"n": 40, **plain}),
        Score("recommendation", "oracle", "popularity", {"n": 40, **plain}),
        Score("sentiment_following", "", "Mender", {"n": 7, **plain, **with_intervals({"m@5": 0.25, "m@10": 0.375})}),
    ]


def with_intervals(figures):
    return figures | {f"{name}/{end}": value for name, value in figures.items() for end in ("low", "high")}


def test_table_names_axis_matching_method_and_figures(scores, capsys):
    print_table(scores, title="a title")
    printed = capsys.readouterr().out
    for text in ("a title", "recommendation (oracle)", "popularity", ".2000", "m .3750", ".200-.200", "40"):
        assert text in printed


def test_the_plot_is_a_picture(scores, tmp_path):
    draw(scores, tmp_path / "table.png", title="a title")
    assert matplotlib.image.imread(tmp_path / "table.png").shape[1] > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["table.png"]


def test_wishes_are_shown_by_stratum_with_precision_and_what_should_stay_out(capsys):
    figures = with_intervals({f"{name}@{k}": 0.3 for name in ("r_precision", "recall", "ndcg") for k in (5, 10)})
    avoided = {"avoided@5": 0.5, "avoided@10": 1.25}
    print_table(
        [
            Score("open_wishes", "", "Mender", {"n": 9, **figures}, "withheld"),
            Score("wish_and_avoid", "", "Mender", {"n": 9, **figures, **avoided}, "known"),
        ]
    )
    printed = " ".join(capsys.readouterr().out.split())
    for text in ("open wishes (withheld)", "wish and avoid (known)", "P .3000", "out 1.25", "items to avoid"):
        assert text in printed


def test_sentiment_pairs_show_what_was_recommended_instead(scores, capsys):
    pairs = with_intervals({"m@5": 0.25, "m@10": 0.5}) | {"n": 7, "fit@5": 0.125, "fit@10": 0.25}
    print_table([Score("sentiment_following_with_history", "", "Mender", pairs)])
    assert "fit .250" in capsys.readouterr().out
