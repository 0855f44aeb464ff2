"""Finding the files of a data set by the names they are published under."""

from __future__ import annotations

from pathlib import Path

__all__ = ["find_beside", "find_file"]


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
