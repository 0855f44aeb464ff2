"""How much every campaign tries, and the table of what was tried and failed.

Each test runs twice: a slice with the other tests, and the whole with `-m torture`. Counts, the seed and a file for the
table are options: `make torture ARGS="--torture kills=500 --torture seed=7 --torture report=torture.md"`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# What `make torture` tries without options: about half an hour on two cores.
DEFAULTS = {
    "answers": 100_000,
    "calls": 10_000,
    "client": 3_000,
    "edits": 3_000,
    "folders": 300,
    "kills": 50,
    "lines": 100_000,
    "requests": 3_000,
}
TALLIES = pytest.StashKey[list]()


@dataclass
class Tally:
    """What a campaign tried, and what failed.

    Attributes:
        what: is tried: a key of `DEFAULTS`.
        count: how many to try.
        seed: of everything drawn.
        tried: so far.
        failed: one sentence each.
        notes: what else should be known of the run.
    """

    what: str
    count: int
    seed: int
    tried: int = 0
    failed: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def check(self, holds: bool, sentence: str) -> None:
        """Count one try, and the sentence if it failed."""
        self.tried += 1
        if not holds:
            self.failed.append(sentence)

    def note(self, name: str, count: int = 1) -> None:
        """Count something that is no failure."""
        self.notes[name] = self.notes.get(name, 0) + count

    def finish(self) -> None:
        """Fail with the first sentences, if there are any."""
        assert self.tried >= self.count, f"{self.tried} of {self.count} {self.what} tried"
        shown = "\n".join(self.failed[:10])
        assert not self.failed, f"{len(self.failed)} of {self.tried} {self.what} failed (seed {self.seed}):\n{shown}"


def chosen(config: pytest.Config) -> dict[str, str]:
    """The options, checked."""
    given = dict(pair.partition("=")[::2] for pair in config.getoption("--torture"))
    if unknown := sorted(given.keys() - {*DEFAULTS, "seed", "report"}):
        raise pytest.UsageError(f"--torture has no {unknown[0]!r}; it takes {', '.join(DEFAULTS)}, seed and report")
    return given


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every campaign as a slice and as a whole."""
    mark = metafunc.definition.get_closest_marker("campaign")
    if mark is None:
        return
    what, small = mark.args
    given = chosen(metafunc.config)
    whole = int(given.get(what, DEFAULTS[what]))
    part = [] if small is None else [pytest.param((what, small), id="slice")]
    all_ = pytest.param((what, whole), id="whole", marks=pytest.mark.torture)
    metafunc.parametrize("tally", [*part, all_], indirect=True)


@pytest.fixture
def tally(request: pytest.FixtureRequest):
    """Counts of this run."""
    what, count = request.param
    found = Tally(what, count, int(chosen(request.config).get("seed", 0)))
    started = time.perf_counter()
    yield found
    found.seconds = time.perf_counter() - started
    request.config.stash.setdefault(TALLIES, []).append((request.node.originalname, found))
    if report := chosen(request.config).get("report"):
        Path(report).write_text(table(request.config))


def table(config: pytest.Config) -> str:
    """What was tried so far, as Markdown."""
    lines = ["| campaign | tried | failed | seed | seconds | of these |", "|---|---|---|---|---|---|"]
    for name, one in config.stash.get(TALLIES, []):
        notes = ", ".join(f"{count:,} {note}" for note, count in sorted(one.notes.items()))
        title = name.removeprefix("test_").replace("_", " ")
        lines.append(
            f"| {title} ({one.what}) | {one.tried:,} | {len(one.failed)} | {one.seed} | {one.seconds:,.0f} | {notes} |"
        )
    return "\n".join(lines) + "\n"


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the table."""
    if terminalreporter.config.stash.get(TALLIES, []) and "torture" in terminalreporter.config.option.markexpr:
        terminalreporter.write_line(table(terminalreporter.config))
