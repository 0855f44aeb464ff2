"""Finding the files of a data set by the names they are published under."""

from __future__ import annotations

from pathlib import Path

from preference_benchmark.sources.raw_blocks import RawFile, holdings

__all__ = ["find_beside", "find_file", "find_holdings"]


def find_file(path: str | Path, patterns: tuple[str, ...], what: str, home: str = "") -> Path:
    """The one file that is meant.

    Args:
        path: the file itself, or the folder that holds it.
        patterns: names it may have in the folder, as glob patterns, the most specific first.
        what: what the file holds, for the error.
        home: address of the page that leads to the public file, for the error.

    Raises:
        FileNotFoundError: if there is no such file; lists the names that would have been taken.
        ValueError: if several files fit the same pattern.
    """
    path = Path(path)
    if path.is_file():
        return path
    published = f" The public files are described at {home}." if home else ""
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} does not exist; expected {what}: a file, or a folder with {' or '.join(patterns)}.{published}"
        )
    found = find_beside(path, patterns, what)
    if found is None:
        names = sorted(entry.name for entry in path.iterdir())
        raise FileNotFoundError(
            f"no {what} in {path}: expected a file named {' or '.join(patterns)}; found {names[:10]}.{published}"
        )
    return found


def find_beside(folder: Path, patterns: tuple[str, ...], what: str) -> Path | None:
    """Like `find_file` in a folder, but None where there is no such file."""
    for pattern in patterns:
        found = sorted(entry for entry in folder.glob(pattern) if entry.is_file())
        if len(found) > 1:
            names = [entry.name for entry in found]
            raise ValueError(f"{folder} has several files of {what}: {names}; pass the path of the one that is meant.")
        if found:
            return found[0]
    return None


def find_holdings(
    path: str | Path, markers: tuple[str, ...], nested: tuple[str, ...], what: str, home: str
) -> dict[str, RawFile]:
    """The files of a data set that is published as one archive, packed or unpacked.

    Args:
        path: the archive, the folder it unpacks to, one of its files, or a folder that holds exactly one of the
            archives or unpacked folders.
        markers: names of files by which the data set is known; it has at least one of them.
        nested: names of the archive and of the folder it unpacks to, as glob patterns.
        what: what the data set is, for the error.
        home: address of the page that leads to the public file, for the error.

    Returns:
        Files by name, in the folder or in the archive.

    Raises:
        FileNotFoundError: if there is no such data set; lists what would have been taken.
        ValueError: if there are several, or the archive is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected {what}: {' or '.join(nested)}, or a folder with {' or '.join(markers)}. "
            f"The public files are described at {home}."
        )
    files = holdings(path.parent if path.name in markers else path)
    if not files.keys().isdisjoint(markers):
        return files
    inner = [entry for pattern in nested for entry in sorted(path.glob(pattern))] if path.is_dir() else []
    found = {entry: files for entry in inner if not (files := holdings(entry)).keys().isdisjoint(markers)}
    if len({entry.name.split(".")[0] for entry in found}) > 1:  # packed beside unpacked is the same twice
        names = [entry.name for entry in found]
        raise ValueError(f"{path} holds {what} more than once: {names}; pass the path of the one that is meant.")
    if not found:
        raise FileNotFoundError(
            f"no {what} in {path}: expected a file named {' or '.join((*markers, *nested))}; found "
            f"{sorted(files)[:10]}. The public files are described at {home}."
        )
    return next(iter(found.values()))
