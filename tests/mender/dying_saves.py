"""Processes that die while they replace a folder. Run as a script, without torch, whose memory makes forks slow.

    python tests/mender/dying_saves.py FOLDER exchange|renames over|first

makes a save die before every single call that changes files, and prints the number of calls and the versions found.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from mender import model_folder
from mender.model_folder import RECORD_FILE, recover, replace_folder

VERSIONS = {"A": ["a", "shard-1", "shard-2", "shared"], "B": ["b", "shared"]}
KEPT = {"note.md", "own/plan.txt"}
os.fsync = lambda handle: None  # processes die here, and not the machine
CALLS = ("rename", "replace", "mkdir", "link", "unlink", "rmdir", "fsync", "open", "chmod")


def save(path: Path, version: str) -> None:
    with replace_folder(path) as folder:
        for name in VERSIONS[version]:
            (folder / name).write_text(version)
        (folder / "sub").mkdir()
        (folder / "sub" / "deep").write_text(version)


def state(path: Path) -> str:
    """The version that a folder holds, after the check that it is whole."""
    recover(path)
    version = (path / "shared").read_text()
    names = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    held = {(path / name).read_text() for name in names - {RECORD_FILE, *KEPT}}
    if names - KEPT != {*VERSIONS[version], "sub/deep", RECORD_FILE} or held != {version}:
        raise ValueError(f"a mixture: {sorted(names)} hold {held}")
    return version


def entries(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def in_fork(work) -> int:
    """The exit code of a process that does this work; negative if it was killed."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = int(work() or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def no_exchange(one: Path, other: Path) -> bool:
    return False


def die_at(step: int, path: Path) -> None:
    """Save, and die before the call with this number."""
    counted = 0

    def dying(call):
        def counting(*given, **named):
            nonlocal counted
            if counted == step:
                os.kill(os.getpid(), signal.SIGKILL)
            counted += 1
            return call(*given, **named)

        return counting

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))
    model_folder._exchange = dying(model_folder._exchange)
    save(path, "B")


def check(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


def main(root: Path, way: str, first: bool) -> None:
    if way == "renames":
        model_folder._exchange = no_exchange
    path, step, code, seen = root / "model", 0, None, set()
    while code != 0:
        for folder in root.iterdir():
            shutil.rmtree(folder)
        if not first:
            save(path, "A")
            (path / "note.md").write_text("mine")
        code = in_fork(lambda step=step: die_at(step, path))
        check(code in (0, -signal.SIGKILL), f"step {step} ended with {code}")
        recover(path)
        check(first or path.exists(), f"step {step}: nothing is there")
        if path.exists():
            seen.add(state(path))
        check(first or (path / "note.md").read_text() == "mine", f"step {step}: the note is lost")
        save(path, "A")
        check(state(path) == "A" and entries(path) == ["model"], f"step {step}: leftovers {entries(path)}")
        check(first or (path / "note.md").read_text() == "mine", f"step {step}: the note is lost by the next save")
        step += 1
    print(step, *sorted(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "first")
