"""What is done with the folders of strangers, in a process of its own that may use little memory and time."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

__all__ = ["HISTORY", "outcome"]

MEMORY, SECONDS = 4 << 30, 120
HISTORY = "item-lamp"


def recommend(folder: Path) -> int:
    """Load a model and ask it."""
    from mender.cli import main

    words = ["--preference", "strong tea", "--history", HISTORY, "--device", "cpu", "-k", "3"]
    return main(["recommend", str(folder), *words])


def read_benchmark(folder: Path) -> int:
    """Show, load and check a benchmark; the first that refuses it ends it."""
    from mender.cli import main
    from preference_benchmark import load

    code = main(["benchmark", "stats", str(folder)])
    if code == 0:
        try:
            load(folder)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        code = main(["benchmark", "validate", str(folder)])
    return 0 if code == 1 else code  # 1 is a finding


def show_results(folder: Path) -> int:
    """Put results into the card of a model, which may have one already, and load it again."""
    from mender.cli import main

    words = ["card", str(folder), "--results", str(folder / "five_axes.json")]
    return main(words) or main(words)


def outcome(work: str, folder: Path) -> str:
    """What came of work: "answered", "refused", or what went wrong.

    Args:
        work: a function of this module: gives an exit code, and prints one line where it is 2.
        folder: of a stranger.
    """
    # A process that was forked from one with threads, such as those of polars, may wait for them for ever.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mender.cli", "mender.recommender", "preference_benchmark"])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(work, folder, theirs))
    child.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        result = ""
    child.join()
    return result or f"ended with {child.exitcode}"


def _run(work: str, folder: Path, pipe: Connection) -> None:
    complained = io.StringIO()
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
        signal.alarm(SECONDS)
        sys.stdin = open(os.devnull)  # a question would end it
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(complained):
            code = globals()[work](folder)
        said = complained.getvalue()
        result = {0: "answered", 2: "refused"}.get(code, f"exit {code}: {said[-300:]}")
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        if code == 2 and (len(lines) != 1 or "Traceback" in said):
            result = f"refused in other words: {said[-300:]}"
        if any(word in said for word in ("MemoryError", "allocate", "evil code", "EOF when")):
            result = f"too much, or code: {said[-300:]}"
    except BaseException as error:
        result = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    pipe.send(result)
