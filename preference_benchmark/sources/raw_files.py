"""Raw files: found by the names they are published under, read as blocks of whole lines.

Plain, gzip-compressed or inside a zip or tar archive; in UTF-8 or what a byte order mark says; with any line ends.
Every source reads through here, so that a truncated download, a wrong kind of file or an empty one is refused in the
same words whatever the source.
"""

from __future__ import annotations

import codecs
import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

__all__ = [
    "ArchiveMember",
    "RawFile",
    "WHITE_SPACE",
    "blocks",
    "files_in",
    "find_beside",
    "find_dataset",
    "find_file",
    "line_starts",
    "nonblank_lines",
]


_BLOCK = 1 << 26  # bytes read at a time
_BINARY = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"ARROW1": "an Arrow file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
}
_GZIP = b"\x1f\x8b"
WHITE_SPACE = np.frombuffer(b" \t\n\r\x0b\x0c", dtype=np.uint8)
# UTF-32 first: its mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz")
# What the libraries raise: damaged flags look like an unknown compression or like encryption, lengths lead astray.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError, IndexError, struct.error)


@dataclass(frozen=True)
class ArchiveMember:
    """A file inside an archive, used wherever the path of a raw file is.

    Attributes:
        archive: the zip or tar file.
        member: the full name in it.
    """

    archive: Path
    member: str

    @property
    def name(self) -> str:
        """The last part of the member's name."""
        return PurePosixPath(self.member).name

    def __str__(self) -> str:
        return f"{self.archive}:{self.member}"


RawFile = Path | ArchiveMember


def files_in(path: Path) -> dict[str, RawFile]:
    """The files of a folder, or of a zip or tar archive, by the last part of their names.

    Raises:
        ValueError: if the archive is damaged.
    """
    if path.is_dir():
        return {entry.name: entry for entry in sorted(path.iterdir()) if entry.is_file()}
    try:
        if path.name.endswith(_ZIP):
            with zipfile.ZipFile(path) as archive:
                names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        elif path.name.endswith(_TAR):
            with tarfile.open(path) as archive:
                names = [entry.name for entry in archive if entry.isfile()]
        else:
            return {}
    except (*_DAMAGE, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged archive ({_briefly(error)}); download it again.") from error
    members = (ArchiveMember(path, name) for name in names)
    return {member.name: member for member in members if not member.name.startswith(".")}


def blocks(path: RawFile, encoding: str = "utf-8") -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, each with the number of its first line, counted from 1.

    Lines come as UTF-8 and end with a line feed, whatever they end with in the file.

    Args:
        path: the file; gzip is recognised by its content.
        encoding: of the file, where it has no byte order mark.

    Raises:
        ValueError: if the file is truncated, damaged, of a binary format, or, unless it is UTF-8, not in its encoding.
            What is not UTF-8 is left to the caller, who knows what to do with such a line.
    """
    number, rest, end = 1, b"", b""
    try:
        with _opened(path) as stream:
            chunks = _utf8_chunks(path, stream, encoding)
            chunk = next(chunks, b"")
            while chunk:
                end = end or (b"\r" if b"\r" in chunk[:-1] and b"\n" not in chunk else b"\n")
                following = next(chunks, b"")
                cut = chunk.rfind(end) + 1 if following else len(chunk)
                if cut:
                    block, rest = rest + chunk[:cut], chunk[cut:]
                    yield number, _with_line_feeds(block, end)
                    number += block.count(end)
                else:
                    rest += chunk
                chunk = following
    except EOFError as error:
        raise ValueError(
            f"{path} is a truncated gzip file: it ends in the middle of the data; download it again."
        ) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); download it again.") from error
    except _DAMAGE as error:
        raise ValueError(f"{path} is in a damaged archive ({_briefly(error)}); download it again.") from error


def nonblank_lines(block: bytes) -> np.ndarray:
    r"""The numbers of the lines of a block that are not blank, counted from 0.

    >>> nonblank_lines(b"a\n\n \t\nb").tolist()
    [0, 3]
    """
    data, starts = line_starts(block)
    # A line that begins with white space may hold nothing else.
    doubtful = np.flatnonzero(np.isin(data[starts], WHITE_SPACE))
    ends = (block.find(b"\n", start) + 1 or len(block) for start in starts[doubtful].tolist())
    blank = [not block[start:end].strip() for start, end in zip(starts[doubtful].tolist(), ends, strict=True)]
    return np.delete(np.arange(len(starts)), doubtful[np.array(blank, dtype=bool)])


def line_starts(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The block as numbers, and where in it lines start. Shapes: (bytes,), uint8, and (lines,)."""
    data = np.frombuffer(block, dtype=np.uint8)
    starts = np.concatenate([[0], np.flatnonzero(data == ord("\n")) + 1])
    return data, starts[starts < len(data)]


def _with_line_feeds(block: bytes, end: bytes) -> bytes:
    return block.replace(b"\r\n", b"\n").removesuffix(b"\r") if end == b"\n" else block.replace(b"\r", b"\n")


def _utf8_chunks(path: RawFile, stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """The content as UTF-8, without a byte order mark; UTF-8 is passed on unchecked."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"encoding={encoding!r} is not known; pass a name such as utf-8, latin-1 or utf-16.") from None
    chunk = stream.read(_BLOCK)
    mark, name = next((known for known in _BYTE_ORDER_MARKS if chunk.startswith(known[0])), (b"", name))
    chunk = chunk[len(mark) :]
    if name.startswith(("utf-16", "utf-32")) and b"\x00" not in chunk:
        name = "utf-8"  # line ends and separators alone would hold zeros
    if name in ("utf-16", "utf-32"):
        raise ValueError(f"{path} has no byte order mark; pass encoding={name + '-le'!r} or {name + '-be'!r}.")
    if name in ("utf-8", "utf-8-sig", "ascii"):
        _refuse_binary(path, chunk)
        while chunk:
            yield chunk
            chunk = stream.read(_BLOCK)
        return
    decoder, line = codecs.getincrementaldecoder(name)(), 1
    while True:
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            reason = getattr(error, "reason", error)
            raise ValueError(
                f"{path} is not {name} at line {line:,} or soon after ({reason}); pass the encoding that it has."
            ) from error
        line += text.count("\n")
        if text:
            yield text.encode(errors="replace")
        if not chunk:
            return
        chunk = stream.read(_BLOCK)


@contextmanager
def _opened(path: RawFile) -> Iterator[BinaryIO]:
    """The file's content; gzip is recognised by its first bytes."""
    with _stored(path) as stream:
        if stream.peek(2).startswith(_GZIP):
            with gzip.GzipFile(fileobj=stream) as content:
                yield content
        else:
            yield stream


@contextmanager
def _stored(path: RawFile) -> Iterator[BinaryIO]:
    if isinstance(path, Path):
        with path.open("rb") as stream:
            yield stream
    elif path.archive.name.endswith(_ZIP):
        with zipfile.ZipFile(path.archive) as archive, archive.open(path.member) as stream:
            yield stream
    else:
        with tarfile.open(path.archive) as archive, archive.extractfile(path.member) as stream:
            yield stream


def _refuse_binary(path: RawFile, start: bytes) -> None:
    for magic, kind in _BINARY.items():
        if start.startswith(magic):
            raise ValueError(f"{path} is {kind}; expected plain text or gzip with one record a line.")
    start = start[:1024]
    if b"\x00" in start:
        if not any(start[0::2]) or not any(start[1::2]):  # ASCII in two bytes each
            name = "utf-16-le" if any(start[0::2]) else "utf-16-be"
            raise ValueError(
                f"{path} seems to be UTF-16 without a byte order mark; convert it to UTF-8, or pass "
                f"encoding={name!r} where the source has this option."
            )
        raise ValueError(f"{path} is a binary file; expected plain text or gzip with one record a line.")


def _briefly(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]


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
    """Like `find_file` in a folder; None where there is no such file."""
    for pattern in patterns:
        found = sorted(entry for entry in folder.glob(pattern) if entry.is_file())
        if len(found) > 1:
            names = [entry.name for entry in found]
            raise ValueError(f"{folder} has several files of {what}: {names}; pass the path of the one that is meant.")
        if found:
            _refuse_twin(found[0])
            return found[0]
    return None


def _refuse_twin(path: Path) -> None:
    """Raise a ValueError if the file is there both packed and unpacked."""
    twin = path.with_name(path.name.removesuffix(".gz") if path.name.endswith(".gz") else f"{path.name}.gz")
    if twin.is_file():
        raise ValueError(
            f"{path.parent} has both {path.name} and {twin.name}; remove one of them, or pass the path of the one that "
            "is meant."
        )


def find_dataset(
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
    files = files_in(path.parent if path.name in markers else path)
    if not files.keys().isdisjoint(markers):
        return files
    inner = [entry for pattern in nested for entry in sorted(path.glob(pattern))] if path.is_dir() else []
    found = {entry: files for entry in inner if not (files := files_in(entry)).keys().isdisjoint(markers)}
    if len({entry.name.split(".")[0] for entry in found}) > 1:  # packed beside unpacked is the same twice
        names = [entry.name for entry in found]
        raise ValueError(f"{path} holds {what} more than once: {names}; pass the path of the one that is meant.")
    if not found:
        raise FileNotFoundError(
            f"no {what} in {path}: expected a file named {' or '.join((*markers, *nested))}; found "
            f"{sorted(files)[:10]}. The public files are described at {home}."
        )
    return next(iter(found.values()))
