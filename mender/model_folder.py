"""Replaces the folder of a saved model as a whole, and checks that what is in it belongs together.

A new version is written to a hidden folder beside the old one and flushed to disk. Then the two exchange their names,
which Linux does in one step (renameat2). Elsewhere the old folder is renamed first; if the process dies between the
two renames, the next load or save completes the replacement (`recover`). Beside `model` lies, while it is saved,

    .model.saving-0123abcd/lock   locked by the process that saves; the system unlocks it if that process dies
    .model.saving-0123abcd/new    the new version until the exchange, then the old one
    .model.saving-0123abcd/old    the old version, where names cannot be exchanged

`recommender.json` inside the folder lists the files that were written (others are kept when the folder is replaced) and
holds a digest of ids, titles and semantic IDs, so that a model is not loaded with the items of another.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

__all__ = [
    "RECORD_FILE",
    "check_folder",
    "item_digest",
    "load_whole",
    "read_record",
    "recover",
    "replace_folder",
    "write_handler",
    "write_record",
]

RECORD_FILE = "recommender.json"
FORMAT = 1
MODEL_FILES = re.compile(
    r"""(?x) model(-\d+-of-\d+)?\.safetensors | model\.safetensors\.index\.json | pytorch_model.*
    | (items | (generation_|processor_|preprocessor_)?config | tokenizer(_config)? | special_tokens_map | added_tokens
       | vocab | adapter_config)\.json
    | vocab\.txt | merges\.txt | spiece\.model | adapter_model.*"""
)
"""Files that belong to a model in any folder, also in one without a record; they never outlive it."""
ENDPOINT_REQUIREMENTS = ("torch>=2.4", "transformers>=5.12.1")
"""What a saved model needs where this package is not installed."""
WAIT_SECONDS = 10.0
"""How long a load waits for a folder that another process is about to rename."""
MOST_LOADS = 50
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
T = TypeVar("T")


# Replacing


@contextmanager
def replace_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Gives an empty folder to write into, which replaces `path` if the block ends without an error.

    Readers see the old folder or the new one. If several processes save at once, one of them wins as a whole. Files
    that earlier saves wrote are removed, all others are kept. If `path` is a symbolic link, the folder that it leads to
    is replaced. Leftovers of processes that died are removed.

    Args:
        path: the folder; it need not exist.

    Yields:
        A hidden folder beside `path`.

    Raises:
        OSError: if the folder cannot be replaced. It is as it was before.
    """
    path = _checked(path)
    with _readable_errors(path), _alone(path.parent):
        for left in _areas(path):
            _settle(left, path)
        area, lock = _new_area(path)
    try:
        with _readable_errors(path):
            yield area / "new"
            _finish(area / "new")
            with _alone(path.parent):
                _replace(area, path)
    finally:
        _remove(area, lock)


def recover(path: str | os.PathLike) -> None:
    """Complete or undo a replacement that a killed process left half done. Does nothing if the folder exists.

    If another process is about to give the folder its name, waits for it.

    Args:
        path: the folder; anything else, such as a name on the Hub, is ignored.
    """
    with suppress(OSError):
        path = Path(path).resolve()
        end = time.monotonic() + WAIT_SECONDS
        while not path.exists() and (areas := _areas(path)):
            # Areas of saves that did not come as far as the renames say nothing about the folder.
            started = [area for area in areas if (area / "old").exists()]
            with _alone(path.parent):
                for area in started:
                    _settle(area, path)
            if not started or time.monotonic() > end:
                return
            time.sleep(0.01)


def load_whole(path: str | os.PathLike, load: Callable[[], T]) -> T:
    """What `load` reads from a folder, all of it from one version; repeats it if the folder was replaced meanwhile.

    Args:
        path: the folder, or a name on the Hub.
        load: reads it.

    Raises:
        OSError: if the folder is replaced again and again.
    """
    for _ in range(MOST_LOADS):
        recover(path)
        before = _identity(path)
        try:
            loaded = load()
        except (OSError, ValueError, RuntimeError):
            if _identity(path) == before:
                raise
            continue
        if _identity(path) == before:
            return loaded
    raise OSError(f"{path} was replaced {MOST_LOADS} times while it was read; try again when nothing saves to it")


def _identity(path: str | os.PathLike) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _checked(path: str | os.PathLike) -> Path:
    """The real path of the folder to replace; its parent is created."""
    given = Path(path)
    if given.is_symlink() and not given.exists():
        raise FileNotFoundError(f"{path} is a symbolic link to nothing; remove it, or pass another folder")
    path = given.resolve()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{given} is a file; pass the name of a folder")
    if os.path.ismount(path):
        raise OSError(f"{given} is a mount point, which cannot be replaced; pass a folder inside it")
    with _readable_errors(given):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Says in one sentence why a folder was not saved."""
    try:
        yield
    except Exception as error:
        # The Rust code that writes weights has an error class of its own, with the system's number in its text.
        number = getattr(error, "errno", None) or next(
            (code for code in FULL if f"os error {code})" in str(error)), None
        )
        if number in FULL:
            raise OSError(
                number, f"{path} was not saved, and is as it was before: no room ({os.strerror(number)}); free some"
            ) from error
        if isinstance(error, OSError) and number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PermissionError(
                number, f"{path} was not saved, and is as it was before: {path.parent} cannot be written to"
            ) from error
        raise


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Keeps other processes from replacing folders in `parent`, where the system can lock a folder."""
    try:
        import fcntl

        handle = os.open(parent, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):  # network file systems lock files alone
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _areas(path: Path) -> list[Path]:
    """The hidden folders of all saves of a folder, finished or not."""
    pattern = re.compile(rf"{re.escape(_prefix(path))}[0-9a-f]{{8}}")
    with suppress(OSError):
        return sorted(entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name))
    return []


def _prefix(path: Path) -> str:
    # A name may have 255 bytes at most.
    name = path.name
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}.saving-"


def _new_area(path: Path) -> tuple[Path, FileLock]:
    while True:
        area = path.parent / f"{_prefix(path)}{secrets.token_hex(4)}"
        area.mkdir()
        lock = FileLock(area / "lock")
        with suppress(FileNotFoundError, Timeout):
            lock.acquire(blocking=False)
            # Until it was locked, another process may have taken the area for a leftover.
            (area / "new").mkdir()
            if (area / "lock").exists():
                return area, lock
        lock.release()


def _settle(area: Path, path: Path) -> None:
    """Complete or undo what a killed process began, and remove its area; nothing if the process is alive."""
    lock = FileLock(area / "lock")
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return
    old, new = area / "old", area / "new"
    # "old" exists from the first rename on, when "new" was complete.
    for version in (new, old) if old.exists() else ():
        if not path.exists() and version.exists():
            with suppress(OSError):
                os.rename(version, path)
    for version in (new, old):
        if path.exists() and _is_complete(version):
            _rescue(version, path)
    _remove(area, lock)


def _remove(area: Path, lock: FileLock) -> None:
    for version in ("new", "old"):
        shutil.rmtree(area / version, ignore_errors=True)
    if os.name != "nt":  # where a file that is open cannot be deleted
        shutil.rmtree(area, ignore_errors=True)
    lock.release()
    shutil.rmtree(area, ignore_errors=True)


def _finish(new: Path) -> None:
    """List the files of the new version in its record, make them as readable as it is, and flush all of it to disk."""
    files = sorted(file.relative_to(new).as_posix() for file in new.rglob("*") if not file.is_dir())
    files = sorted({*files, RECORD_FILE})
    _write_json(new / RECORD_FILE, {**_json(new / RECORD_FILE), "format": FORMAT, "files": files})
    for name in files:
        # safetensors writes files that nobody else may read, not even the user that a container serves the model with.
        shutil.copymode(new / RECORD_FILE, new / name)
        _sync(new / name)


def _replace(area: Path, path: Path) -> None:
    """Put the new version in the place of the old one, with the files of others; undone if that fails."""
    new = area / "new"
    if path.exists():
        for name in _others(path):
            _link(path / name, new / name)
        shutil.copymode(path, new)
    for folder, _, _ in os.walk(new):
        _sync(Path(folder))
    try:
        old = _commit(area, path)
        _sync(path.parent)
        if old is not None:
            _rescue(old, path)
    finally:
        if not path.exists() and (area / "old").exists():
            os.rename(area / "old", path)


def _commit(area: Path, path: Path) -> Path | None:
    """Give the new version its name; returns where the old version is now, if there was one."""
    new, old = area / "new", area / "old"
    while True:
        if not path.exists():
            try:
                os.rename(new, path)
            except OSError as error:
                # Another process was faster.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            else:
                return old if old.exists() else None
        elif _exchange(new, path):
            return new
        else:
            # What is there now is a version that another process saved meanwhile.
            shutil.rmtree(old, ignore_errors=True)
            with suppress(FileNotFoundError):
                os.rename(path, old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; `False` if the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(exchange)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOENT):
        return False
    raise OSError(number, f"{os.strerror(number)}: {other}")


def _others(folder: Path) -> list[str]:
    """Files and empty folders in a folder that no save wrote."""
    record = _json(folder / RECORD_FILE)
    ours = record.get("files")
    ours = {name for name in ours if isinstance(name, str)} if isinstance(ours, list) else set()
    names = []
    for place, folders, files in os.walk(folder):
        relative = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        empty = [relative.as_posix()] if not folders and not files and place != str(folder) else []
        names += [(relative / name).as_posix() for name in (*files, *links)] + empty
    return sorted(name for name in names if name not in {*ours, RECORD_FILE} and not MODEL_FILES.fullmatch(name))


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system has no links. An existing target stays."""
    if target.exists() or target.is_symlink():
        return
    if source.is_dir() and not source.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:  # removed meanwhile
        pass
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _rescue(old: Path, path: Path) -> None:
    """Keep files of others that were added to the old version or changed there after they were linked."""
    written = set(_json(path / RECORD_FILE).get("files", ()))
    for name in _others(old):
        before, now = old / name, path / name
        with suppress(OSError):
            if not now.exists() and not now.is_symlink():
                _link(before, now)
            elif name not in written and before.stat().st_mtime_ns > now.stat().st_mtime_ns:
                os.replace(before, now)


def _is_complete(version: Path) -> bool:
    """Whether a version was written to its end; its record is written last."""
    return "files" in _json(version / RECORD_FILE)


def _sync(path: Path) -> None:
    """Flush a file or a folder to disk; some file systems cannot flush folders."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in FULL or error.errno == errno.EIO:
            raise
    finally:
        os.close(handle)


# The record


def write_record(folder: str | os.PathLike, model: Any, processor: Any, **settings: Any) -> None:
    """Write `recommender.json` into the folder that `replace_folder` gave, after model and processor.

    Args:
        folder: where both were saved.
        model: any model of this library.
        processor: its processor.
        **settings: what else the record should hold, as JSON has it.
    """
    _write_json(Path(folder) / RECORD_FILE, {"format": FORMAT, "digest": item_digest(model, processor), **settings})


def write_handler(folder: str | os.PathLike) -> None:
    """Write `handler.py` and `requirements.txt`, by which Inference Endpoints serve the model without this package.

    Args:
        folder: that `replace_folder` gave.
    """
    from modeling_mender.hub import handler

    shutil.copyfile(handler.__file__, Path(folder) / "handler.py")
    (Path(folder) / "requirements.txt").write_text("".join(f"{line}\n" for line in ENDPOINT_REQUIREMENTS), "utf-8")


def read_record(path: str | os.PathLike, **hub: Any) -> dict[str, Any] | None:
    """What `recommender.json` holds; `None` if the folder has none, as if transformers alone had saved it.

    Args:
        path: the folder, or a name on the Hub.
        **hub: `revision`, `token` and other arguments of `transformers.utils.cached_file`.

    Raises:
        ValueError: if the file is not what `replace_folder` writes, or a later version wrote it.
    """
    from transformers.utils import cached_file

    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file = cached_file(path, RECORD_FILE, **missing, **hub)
    if file is None:
        return None
    try:
        record = json.loads(Path(file).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{RECORD_FILE} of {path} is not JSON; save the recommender again") from error
    if not isinstance(record, dict) or not isinstance(record.get("digest"), str | None):
        raise ValueError(f"{RECORD_FILE} of {path} is not the record of a recommender; save the recommender again")
    if record.get("format") != FORMAT:
        raise ValueError(
            f"{RECORD_FILE} of {path} has format={record.get('format')!r}, and this version of mender reads {FORMAT}; "
            "update mender"
        )
    return record


def check_folder(path: str | os.PathLike, model: Any, processor: Any, **hub: Any) -> None:
    """Check that a model and a processor loaded from one folder belong together.

    Args:
        path: the folder, or a name on the Hub.
        model: as loaded.
        processor: as loaded.
        **hub: see `read_record`.

    Raises:
        ValueError: if they do not.
    """
    items, known = model.config.num_items, len(processor.item_ids)
    if items != known:
        raise ValueError(
            f"{path} does not fit together: the model has {items} items and items.json {known}; save model and "
            "processor again, into one folder"
        )
    codes = getattr(model, "item_codes", None)
    if processor.codes and (codes is None or _differ(processor.codes, codes.tolist())):
        raise ValueError(
            f"{path} does not fit together: items.json has other semantic IDs than the model; save model and "
            "processor again, into one folder"
        )
    _check_states(path, model, processor)
    record = read_record(path, **hub)
    digest = record and record.get("digest")
    if digest is not None and digest != item_digest(model, processor):
        raise ValueError(
            f"{path} does not fit together: its items are not those that {RECORD_FILE} was written with; save the "
            f"recommender again, or remove {RECORD_FILE} if you changed the items yourself"
        )


def _differ(codes: list[list[int]], of_model: list[list[int]]) -> bool:
    """Whether items have other codes in the processor than in the model, where removed items have -1."""
    return any(now[0] >= 0 and before != now for before, now in zip(codes, of_model, strict=True))


def _check_states(path: str | os.PathLike, model: Any, processor: Any) -> None:
    """Check that token ids of requests refer to the tables of states that the model has."""
    from modeling_mender.encoder_reference import encoders_with_tables

    for _, encoder in encoders_with_tables(model):
        config, tokens = encoder.config, processor.text_vocabulary
        if config.text_vocabulary != tokens:
            raise ValueError(
                f"{path} does not fit together: the tokenizer has {tokens} tokens and the encoder expects "
                f"{config.text_vocabulary}; save model and processor again, into one folder"
            )
        rows = config.num_states
        expected = len(processor.item_ids) if config.pooled else sum(processor.state_counts)
        if rows != expected:
            raise ValueError(
                f"{path} does not fit together: the encoder has {rows} states of items, and the items of the processor "
                f"{expected}; save model and processor again, into one folder"
            )


def item_digest(model: Any, processor: Any) -> str:
    """SHA-256 of ids, titles and semantic IDs. Weights are left out, because casts and quantisation change them.

    Args:
        model: any model of this library.
        processor: its processor.
    """
    digest = hashlib.sha256()
    # Text may have lone surrogates, which UTF-8 has not; ASCII escapes them.
    digest.update(json.dumps([model.config.num_items, processor.item_ids, processor.titles]).encode("ascii"))
    codes = getattr(model, "item_codes", None)
    if codes is not None:
        table = codes.detach().cpu().numpy().astype("<i4")
        digest.update(json.dumps(table.shape).encode("ascii"))
        digest.update(table.tobytes())
    return digest.hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; empty if there is none, or it holds something else."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
