"""Raw files as blocks of whole lines: plain, gzip-compressed, or inside a zip or tar archive.

Every source reads through here, so that a truncated download, a wrong kind of file or an empty one is refused in the
same words whatever the source.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

__all__ = ["ArchiveMember", "RawFile", "blocks", "holdings", "read_bytes"]

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
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class ArchiveMember:
    """A file inside an archive; stands wherever the path of a raw file does.

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


def holdings(path: Path) -> dict[str, RawFile]:
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
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is a damaged archive ({reason}); download it again.") from error
    members = (ArchiveMember(path, name) for name in names)
    return {member.name: member for member in members if not member.name.startswith(".")}


def read_bytes(path: RawFile) -> bytes:
    """The whole file, decompressed if it is gzip; refuses empty, truncated and other binary files."""
    data = b"".join(block for _, block in blocks(path))
    if not data.strip():
        raise ValueError(f"{path} is empty; download it again or name another file.")
    return data


def blocks(path: RawFile) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, each with the number of its first line, counted from 1.

    Raises:
        ValueError: if the file is truncated, damaged or of a binary format.
    """
    number, rest = 1, b""
    try:
        with _opened(path) as stream:
            while chunk := stream.read(_BLOCK):
                if number == 1 and not rest:
                    _refuse_binary(path, chunk)
                end = chunk.rfind(b"\n") + 1
                if not end:
                    rest += chunk
                    continue
                block, rest = rest + chunk[:end], chunk[end:]
                yield number, block
                number += block.count(b"\n")
    except EOFError as error:
        raise ValueError(
            f"{path} is a truncated gzip file: it ends in the middle of the data; download it again."
        ) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); download it again.") from error
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise ValueError(f"{path} lies in a damaged archive ({error}); download it again.") from error
    if rest:
        yield number, rest


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
    if b"\x00" in start[:1024]:
        raise ValueError(f"{path} is a binary file; expected plain text or gzip with one record a line.")
