"""Finished stages of a long build, kept on disk so that a build that was stopped goes on where it stood.

A stage is a folder named after the stage and a digest of all it depends on: the stages before it, its parameters and
the source code that makes it. It is written under another name and renamed when it is complete, so that a stage is
there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

__all__ = ["Stages", "digest_of", "digest_of_code", "digest_of_file", "write_atomically"]

_PACKAGE = Path(__file__).parent
_SHORT = 16
_UNFINISHED = ".unfinished-"


def digest_of(*parts: object) -> str:
    """A digest of anything that JSON can say; the same in every process.

    >>> digest_of("seed", 1) == digest_of("seed", 1) != digest_of("seed", 2)
    True
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _by_block(file)


def digest_of_code(*modules: str) -> str:
    """A digest of the source of modules and sub-packages of this package, by name.

    >>> len(digest_of_code("stages"))
    16
    """
    files = []
    for name in modules:
        path = _PACKAGE / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return digest_of([[str(file.relative_to(_PACKAGE)), digest_of_file(file)] for file in files])


def write_atomically(path: Path, data: bytes) -> None:
    """A file with this content; whoever looks sees the old content or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Stages:
    """Stages of one data set; each is made once and read from then on.

    Args:
        folder: where they are kept; None keeps nothing, and every stage is made anew.
        announce: called with the name of every stage and whether it was there already.
    """

    def __init__(self, folder: Path | None, announce: Callable[[str, bool], None] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.announce = announce or (lambda name, found: None)
        self.used: set[str] = set()

    def frame(self, name: str, key: str, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """A table: read where the stage is finished, else made and kept.

        Args:
            name: of the stage.
            key: digest of all that the stage depends on.
            make: makes the table.
        """
        if self.folder is None:
            self.announce(name, False)
            return make()
        path = self.path(name, key, lambda folder: make().write_parquet(folder / "table.parquet"))
        return pl.read_parquet(path / "table.parquet")

    def path(self, name: str, key: str, make: Callable[[Path], object]) -> Path:
        """A folder: found where the stage is finished, else filled by `make` and kept."""
        if self.folder is None:
            raise ValueError(f"stage {name!r} needs a folder; pass one to Stages.")
        finished = self.folder / f"{name}-{key}"
        self.used.add(finished.name)
        self.announce(name, finished.is_dir())
        if finished.is_dir():
            return finished
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix=_UNFINISHED))
        try:
            make(scratch)
            scratch.chmod(0o755)
            # Another process may have finished the same stage meanwhile; its content is the same.
            if not finished.is_dir():
                os.rename(scratch, finished)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return finished

    def growing(self, name: str, key: str) -> Path:
        """A folder that its user fills bit by bit, each bit complete in itself."""
        path = self.folder / f"{name}-{key}"
        self.used.add(path.name)
        self.announce(name, path.is_dir())
        path.mkdir(parents=True, exist_ok=True)
        return path

    def prune(self, names: Sequence[str] | None = None) -> None:
        """Remove what the present build did not use: stages of earlier settings, and what a kill left behind.

        Args:
            names: stages to look at; default: all.
        """
        for entry in sorted(self.folder.iterdir()):
            stage = entry.name.rsplit("-", 1)[0]
            stale = entry.name not in self.used and (names is None or stage in names)
            if entry.is_dir() and (stale or entry.name.startswith(_UNFINISHED)):
                shutil.rmtree(entry)


def _by_block(file) -> str:
    """What `hashlib.file_digest` does, on Python 3.10."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
