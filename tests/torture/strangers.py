"""What is done with the folders of strangers, in a process of its own that may use little memory and time."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from warm_processes import WarmProcesses

__all__ = ["HISTORY", "judge", "outcome"]

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
    code = code or in_one_line(lambda: load(folder))
    code = code or main(["benchmark", "validate", str(folder)])
    return 0 if code == 1 else code  # 1 is a finding


def show_results(folder: Path) -> int:
    """Put results into the card of a model, which may have one already, and load it again."""
    from mender.cli import main

    words = ["card", str(folder), "--results", str(folder / "five_axes.json")]
    return main(words) or main(words)


def use_encoder(folder: Path) -> int:
    """Embed a text with an encoder, and build a model on it."""
    from doubles import small_method

    from preference_benchmark.embedding import TextEmbedder

    def use() -> None:
        TextEmbedder(str(folder), device="cpu", progress=False).encode(["strong tea"])
        small_method("mender-tok", str(folder))

    return in_one_line(use)


def in_one_line(use: Callable[[], Any]) -> int:
    """The exit code of a command that does this."""
    from mender.terminal import new_app, run, user_errors

    app = new_app()

    @app.command()
    def command() -> None:
        with user_errors():
            use()

    return run(app, [])


def outcome(processes: WarmProcesses, work: str, folder: Path, place: Path) -> str:
    """What came of work: "answered", "refused", or what went wrong.

    Args:
        processes: to work in, which find this module.
        work: a function of this module: gives an exit code, and prints one line where it is 2.
        folder: of a stranger.
        place: a folder for files.
    """
    (place / "result.txt").unlink(missing_ok=True)
    code = processes.run("strangers.judge", [work, str(folder), str(place / "result.txt")], place / "log.txt")
    return (place / "result.txt").read_text("utf-8") if (place / "result.txt").exists() else f"ended with {code}"


def judge(work: str, folder: str, result: str) -> None:
    """Do the work in this process, and write into a file what came of it."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
            signal.alarm(SECONDS)
            # Libraries write to the files themselves.
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            code = globals()[work](Path(folder))
            found = _judged(code, _read(output), _read(errors))
        except BaseException as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        Path(result).write_text(found, "utf-8", "backslashreplace")


def _read(file: BinaryIO) -> str:
    sys.stdout.flush()
    sys.stderr.flush()
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _judged(code: int, output: str, errors: str) -> str:
    """What an exit code and what was printed mean."""
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if any(word in output + errors for word in ("MemoryError", "allocate", "evil code", "EOF when")):
        return f"too much, or code: {errors[-300:]}"
    if any(not (one.isprintable() or one in "\n\r\t") for one in output + errors):
        return f"signs to the terminal: {output[-300:]!r} {errors[-300:]!r}"
    if code == 2 and (len(lines) != 1 or "Traceback" in errors):
        return f"refused in other words: {errors[-300:]}"
    return {0: "answered", 2: "refused"}.get(code, f"exit {code}: {errors[-300:]}")
