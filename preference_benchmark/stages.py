"""Finished stages of a long build, kept on disk so that a build that was stopped continues where it was.

A stage is a folder named after the stage and a digest of all it depends on: the stages before it, its parameters and
the source code that makes it. It is written under another name and renamed when it is complete, so that a stage is
either there as a whole or not at all.

The digest of raw files covers whatever their reader may look at: the folder that it is given, files beside a file,
the folders below that it knows, and what options name. Files are compared by place, size and time of modification
first, so that a folder of thousands costs milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

__all__ = [
    "Stages",
    "digest_of",
    "digest_of_code",
    "digest_of_contents",
    "digest_of_file",
    "digest_of_inputs",
    "input_files",
    "write_atomically",
]

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parent
_SHORT = 16
_UNFINISHED = ".unfinished-"


def digest_of(*parts: object) -> str:
    """A digest of anything that JSON can express; the same in every process.

    >>> digest_of("seed", 1) == digest_of("seed", 1) != digest_of("seed", 2)
    True
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of_code(*modules: str) -> str:
    """A digest of the source of modules and subpackages of this package, by name.

    >>> len(digest_of_code("stages"))
    16
    """
    files = []
    for name in modules:
        path = _PACKAGE / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return digest_of([[str(file.relative_to(_PACKAGE)), digest_of_file(file)] for file in files])


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that any reader sees with its old content or with the new one."""
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
    """Stages of one benchmark; each is made once and read from then on.

    Args:
        folder: where they are kept.
        announce: called with the name of every stage and whether it was there already.

    Attributes:
        used: names of the entries of the folder that the present build has used.
    """

    def __init__(self, folder: str | Path, announce: Callable[[str, bool], None] | None = None) -> None:
        self.folder = Path(folder)
        self._announce = announce
        self.used: set[str] = set()

    def announce(self, name: str, found: bool) -> None:
        """Say that a stage begins, or that it was finished before."""
        if not found:
            logger.info("benchmark: %s", name.replace("_", " "))
        if self._announce is not None:
            self._announce(name, found)

    def frame(self, name: str, key: str, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """A table: read where the stage is finished, else made and kept.

        Args:
            name: of the stage.
            key: digest of all that the stage depends on.
            make: makes the table.
        """
        path = self.path(name, key, lambda folder: make().write_parquet(folder / "table.parquet"))
        return pl.read_parquet(path / "table.parquet")

    def path(self, name: str, key: str, make: Callable[[Path], object]) -> Path:
        """A folder: found where the stage is finished, else filled by `make` and kept."""
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
        """A folder to be filled piece by piece, each piece complete in itself."""
        path = self.folder / f"{name}-{key}"
        self.used.add(path.name)
        self.announce(name, path.is_dir())
        path.mkdir(parents=True, exist_ok=True)
        return path

    def prune(self) -> None:
        """Remove what the present build did not use: stages of earlier settings, and the rests of killed ones."""
        for entry in sorted(self.folder.iterdir()):
            if entry.is_dir() and entry.name not in self.used:
                shutil.rmtree(entry)


READING_CODE = ("sources", "tables")
_ENDINGS = (".gz", ".json", ".jsonl", ".ndjson", ".txt", ".csv", ".parquet", ".dat", ".data", ".item")
_ENDINGS += (".zip", ".tar", ".tgz")
_REVIEWS, _METADATA = "raw_review_", "raw_meta_"
# Where readers look below the folder they are given; a reader that is not listed may look anywhere, at any file.
_BELOW = {
    **dict.fromkeys(("amazon2014", "amazon2018", "corner-shop", "sequences", "steam", "steam-reviews", "table"), ()),
    "amazon2023": (f"{_REVIEWS}*/**/*", f"{_METADATA}*/**/*"),
    "movielens": ("ml-*/*",),
    "yelp": ("yelp_dataset/*",),
}
_ANYWHERE = ("[!.]*/**/*",)


def digest_of_inputs(source: str, path: str | Path | None, options: Mapping[str, object]) -> str:
    """A digest of all that tables depend on: reader, options, files, and the code that reads them.

    Args:
        source: the reader, one of `sources.SOURCES`.
        path: what the reader is given; None: no files.
        options: of the reader.
    """
    found = ((file, file.stat()) for file in input_files(source, path, options))
    files = [(str(file), state.st_size, state.st_mtime_ns) for file, state in found]
    given = None if path is None else str(Path(path).absolute())
    return digest_of(source, given, dict(options), files, digest_of_code(*READING_CODE))


def digest_of_contents(source: str, path: str | Path | None, options: Mapping[str, object]) -> str:
    """Like `digest_of_inputs`, but of the files' contents and their names in the folder, wherever that is."""
    folder = _folder(path)
    files = [[os.path.relpath(file, folder), digest_of_file(file)] for file in input_files(source, path, options)]
    given = None if path is None or Path(path).is_dir() else Path(path).name
    return digest_of(source, given, dict(options), files, digest_of_code(*READING_CODE))


def input_files(source: str, path: str | Path | None, options: Mapping[str, object]) -> list[Path]:
    """The files that a reader may look at, sorted; see `digest_of_inputs`."""
    found: set[Path] = set()
    below, endings = _BELOW.get(source, _ANYWHERE), _ENDINGS if source in _BELOW else ""
    if path is not None and Path(path).exists():
        path, folder = Path(path).absolute(), _folder(path)
        found.update([path] if path.is_file() else _data_files(folder, *below, endings=endings))
        found.update(_data_files(folder, "*", endings=endings))
        if source == "amazon2023" and path.is_dir() and path.name.startswith(_REVIEWS):
            metadata = path.name.replace(_REVIEWS, _METADATA, 1)
            found.update(_data_files(folder.parent, f"{path.name}/**/*", f"{metadata}/**/*"))
    for value in options.values():
        if isinstance(value, str | Path) and os.path.exists(value):
            named = Path(value).absolute()
            inside = ("**/*",) if source == "amazon2023" else ("*", *below)
            found.update(_data_files(named, *inside, endings=endings) if named.is_dir() else [named])
    return sorted(found)


def _data_files(folder: Path, *patterns: str, endings: str | tuple[str, ...] = _ENDINGS) -> list[Path]:
    """The files of a folder that fit a glob pattern and have one of the endings."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.name.endswith(endings)}
    return sorted(path for path in found if path.is_file())


def _folder(path: str | Path | None) -> Path:
    """The folder itself, or that of a file."""
    absolute = Path(path or ".").absolute()
    return absolute if absolute.is_dir() else absolute.parent
