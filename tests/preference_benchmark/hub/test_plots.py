"""The same numbers make the same pictures."""

from __future__ import annotations

from benchmark_doubles import examples_of, random_preferences, random_tables

from preference_benchmark.axes.protocol import Protocol
from preference_benchmark.checks.validation import margins
from preference_benchmark.hub.plots import PLOTS, draw


def test_the_same_numbers_make_the_same_pictures(tmp_path):
    tables = random_tables(1)
    built = examples_of(tables, lambda given: random_preferences(given, 1), tmp_path / "stages")
    found = margins(built, Protocol())
    drawn = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        draw(built, found, "A shop", folder)
        drawn.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert drawn[0] == drawn[1] and set(drawn[0]) == set(PLOTS)
