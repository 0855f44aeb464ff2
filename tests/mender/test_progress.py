"""A long command shows that it lives: steps, bars and quiet ones, on terminals and in logs."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from mender.progress import HALF_MINUTE, PATIENCE, Progress, progress_shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Time passes only when a test says so, and the progress looks twice a second."""

    def __init__(self, stream, quiet=False):
        self.now = 0.0
        self.progress = Progress(stream, quiet, clock=lambda: self.now)

    def wait(self, seconds):
        for _ in range(int(2 * seconds)):
            self.now += 0.5
            self.progress.tick()


def lines(stream):
    return stream.getvalue().splitlines()


def test_quick_steps_say_nothing_and_slow_ones_are_named_once():
    log = io.StringIO()
    clock = Clock(log)
    for step in ("one", "two", "three"):
        clock.progress.begin(step)
        clock.wait(PATIENCE - 0.5)
    assert not log.getvalue()
    clock.progress.begin("fitting")
    clock.wait(20)
    assert lines(log) == ["[    6.5 s] fitting"]
    clock.wait(45)
    assert lines(log)[1:] == ["[   36.5 s] fitting, for 32 s", "[   66.5 s] fitting, for 62 s"][:2]


def test_quiet_leaves_one_line_every_half_minute():
    terminal = Terminal()
    clock = Clock(terminal, quiet=True)
    clock.progress.begin("training")
    bar = tqdm(total=100, desc="Training", file=clock.progress, mininterval=0, miniters=1)
    for _ in range(100):
        bar.update()
        clock.wait(1)
    bar.close()
    found = lines(terminal)
    assert [line[:11] for line in found] == ["[   30.0 s]", "[   60.0 s]", "[   90.0 s]"]
    assert "Training: 30% 30/100" in found[0] and "\r" not in terminal.getvalue()


def test_a_bar_is_drawn_on_a_terminal_and_reported_in_a_log():
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        clock = Clock(stream)
        for _ in tqdm(range(5), desc="Ranking", file=clock.progress, mininterval=0, miniters=1):
            clock.wait(1)
        assert ("\r" in stream.getvalue()) == drawn
        assert ("|####" in stream.getvalue()) == drawn
        reported = [line for line in lines(stream) if line.startswith("[ ")]
        assert len(reported) == (0 if drawn else 1)
        assert drawn or "Ranking: " in reported[0]


def test_a_bar_without_a_name_has_that_of_its_step():
    log = io.StringIO()
    clock = Clock(log)
    clock.progress.begin("training")
    for desc in (None, "Batches"):
        with tqdm(total=10, desc=desc, file=clock.progress):
            clock.wait(20)
    assert [line.split("] ", 1)[1][:20] for line in lines(log)] == ["training: 0% 0/10 [0"] * 2


def test_a_bar_that_stands_still_is_said_to():
    log = io.StringIO()
    clock = Clock(log)
    bar = tqdm(total=10, desc="Requests", file=clock.progress)
    clock.wait(70)
    bar.close()
    assert lines(log)[-1].startswith("[   62.0 s] Requests: 0% 0/10") and lines(log)[-1].endswith("unchanged for 62 s")


def test_what_is_written_between_bars_arrives():
    log = io.StringIO()
    progress = Progress(log)
    with tqdm(total=2, desc="outer", file=progress) as outer:
        for _ in tqdm(range(2), desc="inner", file=progress, leave=False):
            outer.update()
            tqdm.write("between", file=progress)
    print("after", file=progress)
    print(file=progress)
    assert log.getvalue().split() == ["between", "between", "after"]
    assert log.getvalue().endswith("after\n\n")


@given(
    events=st.lists(st.tuples(st.sampled_from(["wait", "step", "bar", "text"]), st.floats(0.5, 50)), max_size=20),
    quiet=st.booleans(),
)
def test_no_half_minute_is_silent(events, quiet):
    class Timed(io.StringIO):
        times = [0.0]

        def write(self, text):
            self.times.append(clock.now)
            return super().write(text)

    stream = Timed()
    stream.times = [0.0]
    clock = Clock(stream, quiet)
    for kind, seconds in events:
        if kind == "step":
            clock.progress.begin("a step")
        elif kind == "bar":
            clock.progress.write("\rBar:  10%|█         | 1/10 [00:01<00:09,  1.0it/s]")
        elif kind == "text":
            clock.progress.write("text\n")
        clock.wait(seconds)
    ends = [*stream.times, clock.now]
    assert max(after - before for before, after in zip(ends, ends[1:], strict=False)) <= HALF_MINUTE
    assert not set(stream.getvalue()) & {"\r", "\x1b"}


@pytest.mark.parametrize("quiet", [False, True])
def test_packages_report_by_logging_and_everything_is_as_before(quiet, capsys, monkeypatch):
    before, logger = sys.stderr, logging.getLogger("modeling_mender.training")
    monkeypatch.setattr("logging.root.handlers", [])
    with progress_shown(quiet):
        assert logger.isEnabledFor(logging.INFO)
        logger.info("a step")
        logger.warning("take care")
        assert sys.stderr is not before and sys.stderr.step == "a step"
    assert sys.stderr is before and not logger.isEnabledFor(logging.INFO)
    assert not logging.getLogger("modeling_mender").handlers
    assert capsys.readouterr().err == "take care\n"


def test_of_several_processes_one_reports(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = sys.stderr
    with progress_shown():
        assert sys.stderr is before
