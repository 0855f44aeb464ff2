"""What a data set is read from: the files that its reader may look at, and digests of them.

Files are told apart by place, size and time of modification, so that a folder of thousands costs milliseconds. Looked
at is what readers look at: the folder that they are given, what lies beside a file, the folders below that they know,
and what options name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from preference_benchmark.stages import digest_of, digest_of_code, digest_of_file

__all__ = ["data_files", "digest_of_contents", "digest_of_inputs", "input_files", "stamps"]

_READING_CODE = ("sources", "tables", "columns")
_ENDINGS = (".gz", ".json", ".jsonl", ".ndjson", ".txt", ".csv", ".parquet", ".dat", ".data", ".item")
_ENDINGS += (".zip", ".tar", ".tgz")
_REVIEWS, _METADATA = "raw_review_", "raw_meta_"
# Where readers look below the folder they are given; one that is not listed may look anywhere, at files of any name.
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
        path: what it is given; None: no files.
        options: passed on to the reader.
    """
    files = stamps(input_files(source, path, options))
    given = None if path is None else str(Path(path).absolute())
    return digest_of(source, given, dict(options), files, digest_of_code(*_READING_CODE))


def digest_of_contents(source: str, path: str | Path | None, options: Mapping[str, object]) -> str:
    """Like `digest_of_inputs`, but of the files' contents and their names in the folder, wherever that is."""
    folder = _folder(path)
    files = [[os.path.relpath(file, folder), digest_of_file(file)] for file in input_files(source, path, options)]
    given = None if path is None or Path(path).is_dir() else Path(path).name
    return digest_of(source, given, dict(options), files, digest_of_code(*_READING_CODE))


def input_files(source: str, path: str | Path | None, options: Mapping[str, object]) -> list[Path]:
    """The files that a reader may look at, sorted; see `digest_of_inputs`."""
    found: set[Path] = set()
    below, endings = _BELOW.get(source, _ANYWHERE), _ENDINGS if source in _BELOW else ""
    if path is not None and Path(path).exists():
        path, folder = Path(path).absolute(), _folder(path)
        found.update([path] if path.is_file() else data_files(folder, *below, endings=endings))
        found.update(data_files(folder, "*", endings=endings))
        if source == "amazon2023" and path.is_dir() and path.name.startswith(_REVIEWS):
            metadata = path.name.replace(_REVIEWS, _METADATA, 1)
            found.update(data_files(folder.parent, f"{path.name}/**/*", f"{metadata}/**/*"))
    for value in options.values():
        if isinstance(value, str | Path) and os.path.exists(value):
            named = Path(value).absolute()
            inside = ("**/*",) if source == "amazon2023" else ("*", *below)
            found.update(data_files(named, *inside, endings=endings) if named.is_dir() else [named])
    return sorted(found)


def data_files(folder: Path, *patterns: str, endings: str | tuple[str, ...] = _ENDINGS) -> list[Path]:
    """The files of a folder that fit a glob pattern and end as raw data do, or as told."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.name.endswith(endings)}
    return sorted(path for path in found if path.is_file())


def stamps(files: list[Path]) -> list[tuple[str, int, int]]:
    """Place, size and time of modification of each file."""
    found = ((file, file.stat()) for file in files)
    return [(str(file), state.st_size, state.st_mtime_ns) for file, state in found]


def _folder(path: str | Path | None) -> Path:
    """The folder itself, or that of a file."""
    absolute = Path(path or ".").absolute()
    return absolute if absolute.is_dir() else absolute.parent
