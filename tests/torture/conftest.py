"""How much every campaign tries, and the table of what was tried and failed.

Each test runs twice: a slice with the other tests, and the whole with `-m torture`. Counts, the seed and a file for the
table are options: `make torture ARGS="--torture kills=500 --torture seed=7 --torture report=torture.md"`. The file is
written after every campaign.
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

    def check(self, holds: bool, sentence: str) -> None:
        """Count one try, and the sentence if it failed."""
        self.tried += 1
        if not holds:
            self.failed.append(sentence)

    def note(self, name: str, count: int = 1) -> None:
        """Count something that is not a failure."""
        self.notes[name] = self.notes.get(name, 0) + count

    def finish(self) -> None:
        """Fail with the first sentences, if there are any."""
        assert self.tried >= self.count, f"{self.tried} of {self.count} {self.what} tried"
        shown = "\n".join(self.failed[:10]).encode("ascii", "backslashreplace").decode()
        assert not self.failed, f"{len(self.failed)} of {self.tried} {self.what} failed (seed {self.seed}):\n{shown}"


def chosen(config: pytest.Config) -> dict[str, str]:
    """The options, checked."""
    given = dict(pair.partition("=")[::2] for pair in config.getoption("--torture"))
    if unknown := sorted(given.keys() - {*DEFAULTS, "seed", "report"}):
        raise pytest.UsageError(f"--torture has no {unknown[0]!r}; it takes {', '.join(DEFAULTS)}, seed and report")
    return given


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every campaign as a slice and as a whole, which may be a share of what campaigns of one kind try together."""
    mark = metafunc.definition.get_closest_marker("campaign")
    if mark is None:
        return
    what, small = mark.args
    given = chosen(metafunc.config)
    whole = max(1, round(int(given.get(what, DEFAULTS[what])) * mark.kwargs.get("share", 1)))
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
    seconds = time.perf_counter() - started
    notes = ", ".join(f"{count:,} {note}" for note, count in sorted(found.notes.items()))
    words = [request.node.originalname.removeprefix("test_").replace("_", " ")]
    words += [f"by {value}" for name, value in request.node.callspec.params.items() if name != "tally"]
    row = [f"{' '.join(words)} ({what})", f"{found.tried:,}", f"{len(found.failed):,}", str(found.seed)]
    row = [*row, f"{seconds:,.0f}", notes]
    request.node.user_properties.append(("tally", f"| {' | '.join(row)} |"))


class Table:
    """What was tried so far, as Markdown; tests may have run in processes of their own."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.rows = config, []

    def __str__(self) -> str:
        head = ["| campaign | tried | failed | seed | seconds | of these |", "|---|---|---|---|---|---|"]
        return "\n".join(head + self.rows) + "\n"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test has tried."""
        rows = [row for name, row in report.user_properties if name == "tally"] if report.when == "teardown" else []
        self.rows += rows
        if rows and (path := chosen(self.config).get("report")):
            Path(path).write_text(str(self), "utf-8")

    def pytest_terminal_summary(self, terminalreporter) -> None:
        """Print the table."""
        if self.rows and "not torture" not in self.config.option.markexpr:
            terminalreporter.write_line(str(self))


def pytest_configure(config: pytest.Config) -> None:
    """Collect the table where reports of all processes arrive."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(config), "torture-table")
