"""A report adds up, or is refused."""

from __future__ import annotations

import pytest

from preference_benchmark.tables import ReadReport


def test_a_report_that_does_not_add_up_is_refused():
    counts = {"used": {"interactions": 5, "items": 2}, "dropped": {"spam": 1}, "malformed": {"no record": 2}}
    assert ReadReport(lines=9, added=1, **counts)
    for lines in (8, 10):
        with pytest.raises(RuntimeError, match=f"7 used . 1 dropped . 2 malformed, of {lines} lines and 1 added"):
            ReadReport(lines=lines, added=1, files=("a.csv",), **counts)


def test_reasons_are_printed_with_their_first_examples():
    report = ReadReport(
        source="shop",
        files=("a.jsonl",),
        lines=1_003,
        used={"interactions": 1_000},
        malformed={"lines that are not records": 2},
        dropped={"items without an id": 1},
        examples={"lines that are not records": ("a.jsonl:4",)},
    )
    assert str(report).splitlines()[1:4] == [
        "read: 1,003 lines of a.jsonl",
        "malformed: 2 lines that are not records (a.jsonl:4, ...)",
        "dropped: 1 items without an id",
    ]
