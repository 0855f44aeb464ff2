"""Raw files with faults in lines, bytes, quotes and types: `test_fuzz` has the faults and the checks."""

from __future__ import annotations

import pytest
from test_fuzz import DATA, run


@pytest.mark.campaign("lines", None)  # its slice is test_fuzz
def test_faulty_lines_of_every_source(tally, tmp_path):
    for name in sorted(DATA):
        folder = tmp_path / name
        folder.mkdir()
        found = run(name, -(-tally.count // len(DATA)), tally.seed + 1, folder)
        for counts in found.values():
            for outcome, count in counts.items():
                tally.tried += count
                tally.note(outcome, count)
    tally.finish()
