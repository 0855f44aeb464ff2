"""Signs of life of a long command, on standard error: what it does, how far it is, for how long it has run.

Packages log every step that may take long, as INFO of their own loggers, and draw bars with tqdm. Both arrive here. A
step gets a line when it takes longer than two seconds, and whatever happens, no half minute passes without a line. A
bar is shown as it is on a terminal. In a log it would be one endless line, so its latest state is written as a line
instead, as often as a step is. With `--quiet` only the line of every half minute is left.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO

__all__ = ["Progress", "progress_shown"]

PATIENCE, HALF_MINUTE = 2.0, 30.0
"""Seconds after which a step is named, and seconds in which at least one line is written."""
PACKAGES = ("mender", "modeling_mender", "preference_benchmark")
METER = re.compile(r"\|[^|]*\|")
"""The drawn part of a bar, as in "Ranking:  40%|████      | 2/5 [00:04<00:06]"."""
UNNAMED = re.compile(r"(?:Batches: )?(?=\d)")
"""How bars begin that do not say what they count: those of transformers and sentence-transformers."""


class Progress:
    """Takes the place of standard error: passes text on, and draws or reports bars.

    Args:
        stream: standard error.
        quiet: whether only the line of every half minute is written.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, stream: TextIO, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.quiet, self.clock = stream, quiet, clock
        self.draws = stream.isatty() and not quiet
        self.started = self.since = self.shown = clock()
        self.step, self.named = "starting", False
        self.bar, self.moved = "", self.started
        self.in_bar, self.at_start = False, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def begin(self, step: str) -> None:
        """A step begins, and with it the one before it ends."""
        self.step, self.bar, self.since, self.named = step, "", self.clock(), False

    def write(self, text: str) -> int:
        """Write text. What tqdm writes is told by its carriage returns and the line ends between them."""
        if text.startswith("\r"):
            self._draw(text)
            self.in_bar = True
        elif text.strip("\n") not in ("", "\x1b[A"):
            self.in_bar = False
        elif text == "\n" and "100%" in self.bar:  # the bar is complete and closed
            self.bar = ""
        if text and (self.draws or not (self.in_bar or text == "\x1b[A")):
            self.stream.write(text)
            self.shown, self.at_start = self.clock(), text.endswith(("\n", "\r"))
        return len(text)

    def _draw(self, text: str) -> None:
        drawn = " ".join(METER.sub(" ", text, count=1).split())
        if not drawn:
            self.bar = ""
            return
        if unnamed := UNNAMED.match(drawn):
            drawn = f"{self.step}: {drawn[unnamed.end() :]}"
        now = self.clock()
        if self.bar.split(":")[0] != drawn.split(":")[0] or not self.bar:
            self.since, self.named = now, self.draws
        self.bar, self.moved = "".join(one for one in drawn if one.isprintable()), now

    def tick(self) -> None:
        """Write a line if one is due."""
        now = self.clock()
        silent = now - self.shown
        unnamed = not (self.named or self.quiet) and now - self.since >= PATIENCE
        if silent < HALF_MINUTE and not (unnamed and silent >= PATIENCE):
            return
        still = now - (self.moved if self.bar else self.since)
        doing = self.bar or self.step
        if still >= HALF_MINUTE:
            doing += f", {'unchanged ' if self.bar else ''}for {still:.0f} s"
        start = "" if self.at_start else "\n"
        self.stream.write(f"{start}[{now - self.started:7.1f} s] {doing}\n")
        self.stream.flush()
        self.named, self.shown, self.at_start = True, now, True


class _Steps(logging.Handler):
    """Hands steps to a `Progress`, and shows warnings as they are shown without it."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            self.progress.begin(" ".join(record.getMessage().split()))
        elif not logging.getLogger().handlers:
            self.progress.write(f"{record.getMessage()}\n")


@contextmanager
def progress_shown(quiet: bool = False) -> Iterator[None]:
    """Shows on standard error that a command lives, until the block ends.

    Of several processes that torchrun started, only the first one reports.

    Args:
        quiet: whether only the line of every half minute is written.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    progress, done = Progress(sys.stderr, quiet), threading.Event()
    handler, loggers = _Steps(progress), [logging.getLogger(name) for name in PACKAGES]
    levels = [logger.level for logger in loggers]

    def watch() -> None:
        while not done.wait(0.5):
            progress.tick()

    watching = threading.Thread(target=watch, daemon=True)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    watching.start()
    try:
        with redirect_stderr(progress):
            yield
    finally:
        done.set()
        watching.join()
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
