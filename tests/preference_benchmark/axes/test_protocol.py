"""Choices are checked at once."""

from __future__ import annotations

import pytest

from preference_benchmark.axes.protocol import AXES, PAPER, WISH_AXES, Protocol


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": ["steering"]}, "axes: 'steering' is not known; pass some of"),
        ({"matching": []}, "matching: .* is not known"),
        ({"matching": "oracle"}, "matching: 'oracle'"),
        ({"pool": "every"}, r"pool='every' is not known; choose one of \['training', 'all'\]"),
        ({"seed": "x"}, "seed='x' is not a whole number"),
        ({"max_history": 1.5}, "max_history=1.5 is not a whole number"),
        ({"axes": None}, "axes: None is not known"),
        ({"train_ranks": "1,2"}, "train_ranks=1,2 must be two ranks"),
        ({"user_stride": 0}, "user_stride=0 is not positive"),
        ({"evaluation_ranks": (0, 3)}, r"evaluation_ranks=\(0, 3\) must be two ranks"),
        ({"described_by": "title"}, "described_by='title' must name columns"),
        ({"seeds": 1}, "no field 'seeds'; its fields are"),
    ],
)
def test_bad_choices_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Protocol().replace(**changes)


def test_axes_keep_their_order():
    assert Protocol(axes=tuple(reversed(AXES))).axes == AXES
    assert PAPER.leaks == "flag"


def test_rules_may_stand_for_the_papers_classifier():
    assert PAPER.classifier and PAPER.replace(classifier="rules").classifier is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"partner_of": 1},
        {"partner_of": -2},
        {"train_wishes": -1},
        {"evaluation_wishes": 2.5},
        {"attribute_items": 0},
        {"attribute_share": 1.5},
        {"withheld": "half"},
        {"withheld": 1.0},
        {"split": "random"},
        {"time_quantiles": (0.9, 0.8)},
        {"time_quantiles": "0.8,0.9"},
        {"time_quantiles": ("a", "b")},
        {"classifier": 3},
    ],
)
def test_choices_about_wishes_and_time_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Protocol(**wrong)


def test_only_a_split_by_time_is_passed_to_the_reader():
    assert "split" not in Protocol().reading
    assert Protocol(split="time", time_quantiles=[0.5, 0.6]).reading["time_quantiles"] == (0.5, 0.6)


def test_the_papers_protocol_has_the_papers_axes_and_partners():
    assert PAPER.axes == tuple(axis for axis in AXES if axis not in WISH_AXES) and PAPER.partner_of == 0
