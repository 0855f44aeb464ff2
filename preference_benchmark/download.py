"""Fetching the public files of a data set into a folder: resumable, checked, written whole or not at all.

A file grows as `{name}.part`. When the connection breaks it is continued from there (HTTP Range), now or by the next
call, unless the server says that the file has changed since (If-Range). When it is complete and its checksum is
right, it is renamed, and `{name}.sha256` beside it (readable by `sha256sum -c`) remembers the checksum. Where none
has been published, the first download is trusted: one whose checksum is not the remembered one is an error.
"""

from __future__ import annotations

from pathlib import Path

from preference_benchmark.public_files import PublicDataset

__all__ = ["ChecksumError", "fetch"]


class ChecksumError(ValueError):
    """A file is not what was published, or not what it was when it was fetched first."""


def fetch(dataset: PublicDataset, folder: Path, *, progress: bool = True) -> Path:
    """The folder with all files of a data set in it; what is missing is downloaded.

    Files that are there already are not asked for again. One that an earlier call has fetched must still have the
    checksum it had then; one that was put there by hand is taken as it is.

    Args:
        dataset: an entry of `public_files.PUBLIC_FILES`.
        folder: where the files are or shall be; made where there is none.
        progress: whether to show a progress bar on standard error.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if a required file is missing and cannot be downloaded: no network, HF_HUB_OFFLINE is
            set, the address is gone, or the terms must be accepted in person. Says what to put where.
        ChecksumError: if a file has another checksum than the published or the remembered one.
        OSError: if the disk is full; what has arrived is kept and continued by the next call.
    """
    missing = [file for file in dataset.files if not (Path(folder) / file.name).is_file()]
    if missing:
        names = [file.name for file in missing]
        raise FileNotFoundError(f"{folder} lacks {names}; fetch them from {dataset.homepage}.")
    return Path(folder)
