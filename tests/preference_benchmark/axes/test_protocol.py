"""Choices are checked at once, and read from a command line."""

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
        ({"user_stride": 0}, "user_stride=0 is not positive"),
        ({"evaluation_ranks": (0, 3)}, r"evaluation_ranks=\(0, 3\) must be two ranks"),
        ({"described_by": "title"}, "described_by='title' must name columns"),
        ({"seeds": 1}, "no field 'seeds'; its fields are"),
    ],
)
def test_bad_choices_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Protocol().replace(**changes)


def test_assignments_have_the_types_of_their_fields():
    found = Protocol().parsed(
        ["seed=7", "axes=history_consolidation, recommendation", "evaluation_ranks=1,2", "classifier=some/model"]
    )
    assert found == Protocol(
        seed=7, axes=("recommendation", "history_consolidation"), evaluation_ranks=(1, 2), classifier="some/model"
    )
    assert found.parsed(["classifier=none"]).classifier is None
    for wrong in ("seed", "seed=x", "sed=1"):
        with pytest.raises(ValueError, match="seed|sed"):
            Protocol().parsed([wrong])


def test_axes_keep_their_order():
    assert Protocol(axes=tuple(reversed(AXES))).axes == AXES
    assert PAPER.leaks == "flag"
