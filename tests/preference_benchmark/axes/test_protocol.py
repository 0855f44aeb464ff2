"""Choices are checked at once."""

from __future__ import annotations

import pytest

from preference_benchmark.axes.protocol import AXES, PAPER, Protocol


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
