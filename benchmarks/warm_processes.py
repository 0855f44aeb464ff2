"""Processes that need not import anything, since each is a fork of one that has imported what they need.

A fresh interpreter imports libraries for seconds before it does a tenth of a second's work. The process that is forked
does nothing but import: what it is told, and what a child had to import, for the next ones. It has no threads, which a
fork would leave in the middle of what they do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["WarmProcesses"]


class WarmProcesses:
    """Runs functions in forks of a process of its own, one at a time.

    Args:
        modules: to import before the first fork.
        environment: of the processes, beside that of this one.
        path: folders to import from, before those of PYTHONPATH.
    """

    def __init__(
        self, modules: Sequence[str], environment: Mapping[str, str] | None = None, path: Sequence[Path] = ()
    ) -> None:
        folders = [*map(str, path), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        self._parent = subprocess.Popen(
            [sys.executable, "-c", f"import warm_processes; warm_processes.serve({list(modules)})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(folders), **(environment or {})},
        )
        self._child = 0

    def __enter__(self) -> WarmProcesses:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._parent.kill()
        self._parent.communicate()

    def start(self, function: str, arguments: Sequence[Any], log: Path) -> None:
        """Start a function.

        Args:
            function: as "module.name"; it returns the exit code of its process, or None.
            arguments: as JSON has them.
            log: gets what is printed; the process works in its folder.
        """
        self._parent.stdin.write(json.dumps([function, arguments, str(log)]) + "\n")
        self._parent.stdin.flush()
        self._child = int(self._parent.stdout.readline())

    def kill(self) -> None:
        """Kill the process, if it has not ended."""
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)

    def wait(self) -> int:
        """The exit code of the process, once it has ended; negative if it was killed."""
        code, self._child = int(self._parent.stdout.readline()), 0
        return code

    def run(self, function: str, arguments: Sequence[Any], log: Path) -> int:
        """Start a function and wait for its end; returns the exit code."""
        self.start(function, arguments, log)
        return self.wait()


def serve(modules: Sequence[str]) -> None:
    """Import modules, and fork for every line that comes in."""
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for name in modules:
        import_module(name)
    known = {*sys.modules}
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _run(*json.loads(line), writing)
        os.close(writing)
        print(child, file=output)
        with os.fdopen(reading) as pipe:
            imported = pipe.read().split()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=output)
        for name in [name for name in imported if name not in known]:
            # Some modules are there under names by which they cannot be imported.
            with suppress(BaseException):
                import_module(name)
        known |= {*imported}


def _run(function: str, arguments: list[Any], log: str, imported: int) -> None:
    """Be the process of one function, to its end."""
    file, nothing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.open(os.devnull, os.O_RDONLY)
    for number, handle in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(number, handle)
    os.chdir(Path(log).parent)
    module, _, name = function.rpartition(".")
    code = getattr(import_module(module), name)(*arguments)
    with os.fdopen(imported, "w") as pipe:
        pipe.write("\n".join(sys.modules))
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    # To take thousands of modules apart takes longer than most work.
    os._exit(code or 0)
