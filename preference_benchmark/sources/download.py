"""Fetching the public files of a data set into a folder: resumable, checked, written whole or not at all.

A file grows as `{name}.part`. When the connection breaks it is continued from there (HTTP Range), now or by the next
call, unless the server has another version by then (If-Range). When it is complete and its checksum is right, it is
renamed, and `{name}.sha256` beside it (readable by `sha256sum -c`) remembers the checksum. Where none has been
published, the first download is trusted, and a later one with another checksum is an error.

Where the public data sets are, what their files are called, and on which terms they are given.

One table, `PUBLIC_FILES`, by the name of the benchmark's config. `download.fetch` reads it; so does every error that
says which file is missing. A size or a checksum stands here only where it has been published; `download` says
what happens where it has not.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

__all__ = [
    "ChecksumError",
    "PUBLIC_FILES",
    "PublicDataset",
    "PublicFile",
    "fetch",
]


_AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_YELP = "https://business.yelp.com/data/resources/open-dataset/"
_AMAZON_NOTICE = (
    "Reviews and product data collected from Amazon and published for research by J. McAuley's group (UC San Diego). "
    "The release names no licence; the reviews belong to their authors. Cite He and McAuley (WWW 2016) and McAuley et "
    "al. (SIGIR 2015)."
)
_STEAM_NOTICE = (
    "Reviews and game data collected from Steam and published for research by J. McAuley's group (UC San Diego). "
    "The release names no licence; the reviews belong to their authors, and account names in it identify people. "
    "Cite Kang and McAuley (ICDM 2018), Wan and McAuley (RecSys 2018) and Pathak et al. (SIGIR 2017)."
)
_YELP_NOTICE = (
    "The Yelp Open Dataset is given under Yelp's Dataset User Agreement, which everyone has to accept in person: "
    "academic and personal use only, and no passing on of the data or of parts of it. A benchmark built from it holds "
    "review text and must not be published."
)
_MOVIELENS_NOTICE = (
    "MovieLens ratings are published by GroupLens (University of Minnesota) for research. No commercial use without "
    "permission, no claim of endorsement; the 1M release may not be redistributed without separate permission, and "
    "neither may a benchmark built from it. Cite Harper and Konstan (ACM TiiS 5(4), 2016)."
)


@dataclass(frozen=True)
class PublicFile:
    """One file of a data set.

    Attributes:
        name: what it is called in the folder; the sources look for this name.
        url: where it is, or, where the data set has to be fetched by hand, the page that leads to it.
        size: bytes, or None where no size has been published.
        sha256: the published checksum, or None: the first download is then trusted and later ones must equal it.
        optional: whether the data set can be read without it.
        instead: names of other files, such as the archive it is given in, that serve as well.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    optional: bool = False
    instead: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublicDataset:
    """The files of one data set and the terms they come with.

    Attributes:
        source: the name in `sources.SOURCES` that reads them.
        files: what to fetch.
        notice: the terms, in our words.
        homepage: where the publishers describe the data.
        manual: whether the terms must be accepted in person, so that nothing is downloaded.
    """

    source: str
    files: tuple[PublicFile, ...]
    notice: str
    homepage: str
    manual: bool = False


def _amazon2014(category: str) -> PublicDataset:
    # Without metadata, items are described by their reviewers. The paper's items have metadata, so it is required.
    names = (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz")
    return PublicDataset(
        source="amazon2014",
        files=tuple(PublicFile(name, _AMAZON_2014 + name) for name in names),
        notice=_AMAZON_NOTICE,
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    )


PUBLIC_FILES: dict[str, PublicDataset] = {
    "beauty": _amazon2014("Beauty"),
    "sports": _amazon2014("Sports_and_Outdoors"),
    "toys": _amazon2014("Toys_and_Games"),
    "steam": PublicDataset(
        source="steam",
        files=(
            PublicFile(
                "australian_user_reviews.json.gz",
                "https://mcauleylab.ucsd.edu/public_datasets/data/steam/australian_user_reviews.json.gz",
                sha256="a934bf74d8579bb25bc7bf24e652a87e2ccc91064e429a4cb4af5809178687a8",
            ),
            PublicFile("steam_games.json.gz", "https://cseweb.ucsd.edu/~wckang/steam_games.json.gz"),
        ),
        notice=_STEAM_NOTICE,
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    ),
    "yelp": PublicDataset(
        source="yelp",
        files=tuple(
            PublicFile(f"yelp_academic_dataset_{part}.json", _YELP, instead=("yelp_dataset.tar",))
            for part in ("review", "business")
        ),
        notice=_YELP_NOTICE,
        homepage=_YELP,
        manual=True,
    ),
    "movielens": PublicDataset(
        source="movielens",
        files=(
            PublicFile(
                "ml-1m.zip",
                "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                size=5_917_549,
                sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            ),
        ),
        notice=_MOVIELENS_NOTICE,
        homepage="https://grouplens.org/datasets/movielens/1m/",
    ),
}


_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_ATTEMPTS = 4  # in a row that bring nothing new
_PAUSE = 1.0  # seconds before going on; doubled after each attempt that brought nothing
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


class ChecksumError(ValueError):
    """A file is not what was published, or not what it was when it was fetched first."""


class _BrokenOff(ConnectionError):
    """The connection ended before the file did."""


_LOST = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)


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
    folder = Path(folder)
    for file in dataset.files:
        if (folder / file.name).is_file():
            _check_remembered(folder / file.name)
    missing = [file for file in dataset.files if not _is_there(file, folder)]
    required = [file for file in missing if not file.optional]
    offline = next((name for name in _OFFLINE if os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")), None)
    if dataset.manual or offline:
        if required:
            reason = "their terms must be accepted in person" if dataset.manual else f"{offline} is set"
            raise FileNotFoundError(_what_to_put_where(dataset, folder, required, reason))
        return folder
    for file in missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch_file(file, folder, progress)
        except _LOST as error:
            if not file.optional:
                still = [other for other in required if not _is_there(other, folder)]
                raise FileNotFoundError(_what_to_put_where(dataset, folder, still, f"{file.url}: {error}")) from error
    return folder


def _is_there(file: PublicFile, folder: Path) -> bool:
    return any((folder / name).is_file() for name in (file.name, *file.instead))


def _what_to_put_where(dataset: PublicDataset, folder: Path, files: list[PublicFile], reason: str) -> str:
    lines = [f"{len(files)} file(s) are missing in {folder} and cannot be downloaded ({reason}). Put there:"]
    for file in files:
        size = f" ({file.size:,} bytes)" if file.size else ""
        other = f", or {' or '.join(file.instead)}," if file.instead else ""
        lines.append(f"  {file.name}{size}{other} from {file.url}")
    if dataset.manual:
        lines.append(f"Accept the terms on {dataset.homepage} and put there what you are given.")
    else:
        lines.append("With a network they are downloaded by themselves, continuing what has arrived already.")
        lines.append(f"About the data: {dataset.homepage}")
    return "\n".join(lines)


def _fetch_file(file: PublicFile, folder: Path, progress: bool) -> None:
    part = folder / f"{file.name}.part"
    with tqdm(total=file.size, desc=file.name, unit="B", unit_scale=True, disable=not progress) as bar:
        idle, reached = 0, False
        while True:
            before = _size(part)
            try:
                _continue(file, part, bar)
                break
            except _LOST as error:
                status = getattr(error, "code", None)
                if status is not None and status < 500 and status not in (408, 429):
                    raise  # the server has answered, and will not answer differently
                if status is None and isinstance(error, urllib.error.URLError) and not reached:
                    raise  # there is no way to the server
                reached = True
                idle = 0 if _size(part) > before else idle + 1
                if idle == _ATTEMPTS:
                    raise
                time.sleep(_PAUSE * 2**idle)
    found = _sha256(part)
    _check(file, folder, part, found)
    _write(folder / f"{file.name}.sha256", f"{found}  {file.name}\n")
    os.replace(part, folder / file.name)
    _version(part).unlink(missing_ok=True)


def _continue(file: PublicFile, part: Path, bar: tqdm) -> None:
    """Append to the part what it lacks; returns when the file is complete, raises when the connection breaks."""
    headers = {"User-Agent": "preference-benchmark", "Accept-Encoding": "identity"}
    have = _size(part)
    known = _version(part).read_text("utf-8").strip() if _version(part).is_file() else ""
    if have and known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    request = urllib.request.Request(file.url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:
            # The part holds all there is, or more than that: which, the checksum or a new start will tell.
            if error.headers.get("Content-Range", "") == f"bytes */{have}":
                return
            part.unlink()
            raise _BrokenOff(f"{file.url} is shorter than the {have:,} bytes that had arrived") from error
        raise
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise _BrokenOff(f"{file.url} continued in another place than was asked for")
        if not resumed:  # all of it, from the start: the server ignores ranges or has another version
            have = 0
        _remember_version(part, response.headers)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        bar.total, bar.n = total or file.size, have
        bar.refresh()
        if total is not None:
            _require_space(part, total - have, file)
        with part.open("ab" if resumed else "wb") as stream:
            while chunk := response.read1(_CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
        if total is not None and _size(part) < total:
            raise _BrokenOff(f"broke off after {_size(part):,} of {total:,} bytes")


def _remember_version(part: Path, headers: http.client.HTTPMessage) -> None:
    """Keep what identifies this version of the file; without it a part cannot be continued safely."""
    etag = headers.get("ETag", "")
    version = headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
    if version:
        _write(_version(part), version + "\n")
    else:
        _version(part).unlink(missing_ok=True)


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _require_space(part: Path, needed: int, file: PublicFile) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{file.name} needs {needed:,} more bytes but {part.parent} has {free:,} free; make room or name another "
            "folder, then call again: what has arrived is kept",
        )


def _check(file: PublicFile, folder: Path, part: Path, found: str) -> None:
    """Hold a finished part against the published size and checksum, or the one remembered from an earlier time."""
    remembered = _remembered(folder / file.name)
    size = _size(part)
    if file.sha256 is not None and found != file.sha256:
        wrong = f"the published checksum is {file.sha256}"
    elif file.sha256 is None and remembered not in (None, found):
        wrong = f"when it was fetched first it was {remembered}"
    elif file.size is not None and size != file.size:
        wrong = f"the published size is {file.size:,} bytes"
    else:
        return
    part.unlink()
    _version(part).unlink(missing_ok=True)
    raise ChecksumError(
        f"{file.url} gave {size:,} bytes with sha256 {found}, but {wrong}. The download is thrown away: try again, "
        f"and if it stays so the public file has changed. To take the new one, put it at {folder / file.name} by hand "
        f"and remove {file.name}.sha256."
    )


def _check_remembered(path: Path) -> None:
    """A file that was fetched earlier must be what it was then."""
    remembered = _remembered(path)
    if remembered is not None and (found := _sha256(path)) != remembered:
        raise ChecksumError(
            f"{path} has sha256 {found}, but had {remembered} when it was fetched. Remove it to fetch it again, or "
            f"remove {path.name}.sha256 to keep it as it is."
        )


def _remembered(path: Path) -> str | None:
    note = path.with_name(f"{path.name}.sha256")
    words = note.read_text("utf-8").split() if note.is_file() else []
    return words[0].lower() if words else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _write(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, "utf-8")
    os.replace(new, path)
