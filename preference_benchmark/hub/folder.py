"""A folder that is a data repository: several benchmarks, and one README.md that names their files.

Every benchmark is in a folder of its own, named after a digest of what it was made from: `steam/3f0c.../`. Files
there are never changed. The README's YAML says which of these folders count, so replacing the README is the one
moment at which a build takes effect: a build that is killed before leaves the old state, one that is killed after, the
new. `load` reads a benchmark, from such a folder or from the Hub.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Dataset, DatasetDict, load_dataset
from filelock import FileLock
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from preference_benchmark.axes.examples import STORED_FEATURES, with_item_ids
from preference_benchmark.axes.protocol import MODES, SPLITS
from preference_benchmark.hub.card import render
from preference_benchmark.stages import digest_of_file, write_atomically

__all__ = [
    "STAGES",
    "Benchmark",
    "Published",
    "add",
    "contents",
    "holds",
    "load",
    "names_in",
    "problems",
    "published_files",
    "reading",
    "refuse_raw_files_inside",
]

logger = logging.getLogger(__name__)

STAGES = ".stages"
_STATISTICS = "statistics.json"
# Rows of a Parquet file that a byte can stand for, and how much its values may grow when they are read.
_MOST_ROWS_PER_BYTE, _MOST_GROWTH, _ALWAYS_READ = 100, 2_000, 1 << 30
_LOCK, _UNFINISHED = ".lock", ".unfinished-"
_OURS = re.compile(rf"[0-9a-f]{{16}}|{re.escape(_UNFINISHED)}\w+")  # the key of a build, or the rest of a killed one


@dataclass(frozen=True)
class Benchmark:
    """A benchmark to train and evaluate on.

    Attributes:
        name: of the benchmark.
        items: one row per item; row number = item index.
        examples: by matching mode ("oracle", "last"), the splits train, validation and test with the columns of
            `axes.examples.EXAMPLE_FEATURES`.
        statistics: what was counted and measured in the build; empty where it was not built here.
    """

    name: str
    items: Dataset
    examples: dict[str, DatasetDict]
    statistics: dict[str, Any] = field(default_factory=dict)


def load(folder: str | Path, name: str | None = None) -> Benchmark:
    """A benchmark from a folder that `build` filled, or from the Hub.

    Args:
        folder: the folder, or the name of a data set on the Hub as text.
        name: of the benchmark; not needed where there is only one.

    Raises:
        FileNotFoundError: if there is no such folder or data set, or no card in it.
        ValueError: if there is no benchmark of that name, or several and no name is given, or its files are damaged.
    """
    with reading(folder):
        return _load(folder, name)


@contextmanager
def reading(place: str | Path) -> Iterator[None]:
    """Turns whatever comes of damaged files into one error.

    Args:
        place: the folder, or the name of a data set on the Hub, for the message.

    Raises:
        ValueError: instead of any error but this one and `OSError`.
    """
    try:
        yield
    except (ValueError, OSError):
        raise
    # Damaged files raise whatever the libraries that read them raise, and values of statistics may be missing.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{place} is not what a build writes ({reason}); build the benchmark again.") from error


def _load(folder: str | Path, name: str | None) -> Benchmark:
    path = Path(folder)
    local = path.is_dir()
    configs = _configs(path / "README.md" if local else _card_on_the_hub(folder))
    name = _chosen(name, _benchmarks(configs), folder)

    def read(config: str) -> dict[str, pa.Table]:
        # From a folder, load_dataset would give the rows of another one with the same card: its cache looks at the
        # card alone.
        if local:
            return _read_files(path, configs[config])
        splits = load_dataset(str(folder), config)
        return {split: rows.with_format("arrow")[:] for split, rows in splits.items()}

    (items,) = read(f"{name}-items").values()
    item_ids = pl.Series(items["item_id"])
    modes = {mode: name if mode == "oracle" else f"{name}-{mode}" for mode in MODES}
    schema = STORED_FEATURES.arrow_schema

    def splits(config: str) -> DatasetDict:
        # A split without an example has no file: of a shop whose users bought three things each, nothing is trained on.
        found = {split: schema.empty_table() for split in SPLITS} | read(config)
        return DatasetDict({split: with_item_ids(rows.cast(schema), item_ids) for split, rows in found.items()})

    examples = {mode: splits(config) for mode, config in modes.items() if config in configs}
    place = _place(configs[f"{name}-items"])
    return Benchmark(name, Dataset(items), examples, _statistics(folder, place, local))


def names_in(folder: str | Path) -> list[str]:
    """The benchmarks that a folder's card names, or a card itself; none where it names none or there is no card."""
    path = Path(folder)
    readme = path / "README.md" if path.is_dir() else path
    return _benchmarks(_configs(readme)) if readme.name == "README.md" and readme.is_file() else []


def _card_on_the_hub(name: str | Path) -> Path:
    if isinstance(name, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise FileNotFoundError(f"{name} does not exist; pass a folder, or the name of a Hub data set as text.")
    try:
        return Path(hf_hub_download(name, "README.md", repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{name} is neither a folder here nor a data set that could be read from the Hub: {reason}"
        ) from error


def _benchmarks(configs: Mapping[str, object]) -> list[str]:
    """The benchmarks among the configs of a card: each has one for its items and one for its examples or more."""
    names = [name.removesuffix("-items") for name in configs if name.endswith("-items")]
    return [name for name in names if any(f"{name}{ending}" in configs for ending in ("", "-last"))]


def _chosen(name: str | None, names: list[str], folder: str | Path) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    found = ", ".join(names) or "none"
    wanted = "has several benchmarks" if name is None and names else f"has no benchmark {name or ''}".rstrip()
    raise ValueError(f"{folder} {wanted}; found {found}. Pass the name of one.")


def _configs(readme: Path) -> dict[str, dict[str, str]]:
    """The configs of a card, each with the patterns of its files by split; empty where its head names none."""
    if not readme.is_file():
        raise FileNotFoundError(f"{readme} is missing; pass a folder that a benchmark was built into.")
    try:
        metadata = metadata_load(readme)
    except (ValueError, yaml.YAMLError):  # its head is not metadata
        return {}
    configs = metadata.get("configs") if isinstance(metadata, dict) else None
    listed = [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []
    return {
        config["config_name"]: _patterns(config.get("data_files"), readme)
        for config in listed
        if _is_text(config, "config_name")
    }


def _is_text(entry: object, *names: str) -> bool:
    """Whether an entry has texts of these names."""
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)


def _patterns(data_files: object, readme: Path) -> dict[str, str]:
    """Patterns of files by split, as this program writes them into a card; whatever else is under "other".

    Raises:
        ValueError: if a pattern leads out of the folder.
    """
    entries = data_files if isinstance(data_files, list) and data_files else [data_files]
    if not all(_is_text(entry, "split", "path") for entry in entries):
        return {"other": ""}
    for entry in entries:
        path = entry["path"]
        if re.match(r"[/\\~]|\w+:", path) or ".." in re.split(r"[/\\]", path) or not path.isprintable():
            raise ValueError(f"{readme} names files outside its folder, {path!r}; take the folder of another source.")
    return {entry["split"]: entry["path"] for entry in entries}


def _read_files(folder: Path, patterns: Mapping[str, str]) -> dict[str, pa.Table]:
    splits = {}
    for split, pattern in patterns.items():
        paths = sorted(folder.glob(pattern))
        if not paths:
            raise ValueError(f"{folder / pattern}, which the card names, is missing; build the benchmark again.")
        for path in paths:
            _check_size(path, folder)
        splits[split] = pa.concat_tables(pq.read_table(path) for path in paths)
    return splits


def _check_size(path: Path, folder: Path) -> None:
    """Refuse a file that is in another place, or that says it holds far more than its bytes can.

    A few bytes can stand for billions of equal values, which would fill the memory when they are read.

    Raises:
        ValueError: if it is such a file, or no Parquet file.
    """
    _check_inside(path, folder)
    try:
        found = pq.ParquetFile(path).metadata
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file ({error}); build the benchmark again.") from error
    size = path.stat().st_size
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    # Values that repeat are kept once; read, each takes its own bytes.
    most = sum(group.num_rows * _widest(group) for group in groups)
    if found.num_rows > _MOST_ROWS_PER_BYTE * size or most > _MOST_GROWTH * size + _ALWAYS_READ:
        raise ValueError(f"{path} has {size:,} bytes and says that it holds {found.num_rows:,} rows; build it again.")


def _check_inside(path: Path, folder: Path) -> None:
    """Refuse a link to what is not in the folder, or to nothing."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, RuntimeError):  # a link to itself
        inside = False
    if not inside:
        raise ValueError(f"{path} leads out of {folder}; copy the file itself there.")


def _widest(group: pq.RowGroupMetaData) -> int:
    """Bytes that a row takes when it is read, estimated from the longest values in the statistics of a row group."""
    width = 0
    for number in range(group.num_columns):
        column = group.column(number)
        repeated = column.num_values / max(1, group.num_rows)
        longest = column.statistics.max if column.statistics is not None and column.statistics.has_min_max else None
        width += int(repeated * (len(longest) if isinstance(longest, str | bytes) else 8))
    return width


def _place(patterns: Mapping[str, str]) -> str:
    """The folder of a benchmark within its repository."""
    return "/".join(next(iter(patterns.values())).split("/")[:2])


def _statistics(folder: str | Path, place: str, local: bool) -> dict[str, Any]:
    if local:
        path = Path(folder) / place / _STATISTICS
    else:
        try:
            path = Path(hf_hub_download(str(folder), f"{place}/{_STATISTICS}", repo_type="dataset"))
        except (EntryNotFoundError, LocalEntryNotFoundError):
            return {}
    return _read_statistics(path) if path.is_file() else {}


def _read_statistics(path: Path) -> dict[str, Any]:
    """Statistics of a build, with text that terminals and cards can show.

    Raises:
        ValueError: if the file is something else.
    """
    try:
        found = json.loads(path.read_text("utf-8"), object_hook=_printable)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({' '.join(str(error).split())}); build the benchmark again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no statistics; build the benchmark again.")
    return found


def _printable(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without control characters, such as those that make a terminal act."""

    def shown(value: Any) -> Any:
        if isinstance(value, list):
            return [shown(one) for one in value]
        return "".join(one if one.isprintable() else " " for one in value) if isinstance(value, str) else value

    return {shown(name): shown(value) for name, value in entry.items()}


@dataclass(frozen=True)
class Published:
    """A benchmark that the README names.

    Attributes:
        name: of the benchmark.
        place: its folder, relative to the repository.
        statistics: the content of its `statistics.json`.
    """

    name: str
    place: str
    statistics: dict


def refuse_raw_files_inside(folder: Path, name: str, data: Path | None) -> None:
    """Raise a ValueError if raw files lie in the folder that the benchmark `name` gets in `folder`."""
    place = Path(folder) / name
    if data is not None and Path(data).resolve().is_relative_to(place.resolve()):
        raise ValueError(
            f"the raw files {data} are in {place}, the folder that builds of {name!r} are put into; pass another "
            "folder as output, or move them."
        )


def holds(folder: Path, name: str, key: str) -> bool:
    """Whether the folder's README names this build of a benchmark, and all of its files are there."""
    named = any(found.place == f"{name}/{key}" for found in contents(folder, damaged="skip"))
    return named and _is_whole(Path(folder) / name / key)


def _is_whole(place: Path) -> bool:
    if not (place / _STATISTICS).is_file():
        return False
    configs = _read_statistics(place / _STATISTICS)["configs"]
    files = [
        place / config / name
        for config, found in configs.items()
        for split in found["splits"].values()
        for name in split["files"]
    ]
    return all(file.is_file() for file in files)


def add(folder: Path, name: str, key: str, write: Callable[[Path], None]) -> Path:
    """Put a benchmark into the folder, in place of an earlier one of the same name.

    Of what else is in the benchmark's own folder only earlier builds are removed, and the rests of killed ones.

    Args:
        folder: the data repository.
        name: of the benchmark.
        key: digest of all that it was made from.
        write: writes its files, `statistics.json` among them, into a given folder.

    Returns:
        The folder of the benchmark.
    """
    folder = Path(folder)
    target = folder / name / key
    if not _is_whole(target):  # new, or damaged
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=_UNFINISHED))
        try:
            write(scratch)
            scratch.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    with FileLock(folder / _LOCK):
        statistics = _read_statistics(target / _STATISTICS)
        benchmarks = [*contents(folder, without=name), Published(name, f"{name}/{key}", statistics)]
        write_atomically(folder / "README.md", render(benchmarks).encode())
        # Nothing refers to these any more, or ever did.
        for entry in sorted(target.parent.iterdir()):
            if entry != target and _OURS.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
    return target


def contents(folder: Path, without: str | None = None, *, damaged: str = "error") -> list[Published]:
    """The benchmarks that a folder's README names, in its order.

    Args:
        folder: the folder.
        without: a benchmark to leave out, whatever state it is in, because it is about to be built again.
        damaged: "error", or "skip" benchmarks whose statistics are missing.

    Raises:
        ValueError: if the README belongs to something else, or a file that it names is missing.
    """
    readme = Path(folder) / "README.md"
    if not readme.is_file():
        return []
    places: dict[str, str] = {}
    for patterns in _configs(readme).values():
        parts = next(iter(patterns.values())).split("/")
        if len(parts) != 4:
            raise ValueError(f"{readme} was not written by this program; pass another folder as output.")
        places[parts[0]] = "/".join(parts[:2])
    if not places:
        raise ValueError(f"{readme} names no benchmark; pass another folder as output.")
    found = []
    for name, place in places.items():
        path = Path(folder) / place / _STATISTICS
        if name == without or (damaged == "skip" and not path.is_file()):
            continue
        if not path.is_file():
            raise ValueError(f"{path}, which {readme} names, is missing; build {name} again.")
        found.append(Published(name, place, _read_statistics(path)))
    return found


def published_files(folder: Path) -> list[Path]:
    """The files that make up the repository, relative to the folder: the README and all that it names.

    Raises:
        ValueError: if there is no benchmark in the folder, or a link leads out of it.
    """
    found = contents(folder)
    if not found:
        raise ValueError(f"{folder} holds no benchmark; build one with --output {folder} first.")
    files = [Path("README.md")]
    for benchmark in found:
        place = Path(folder) / benchmark.place
        files += sorted(path.relative_to(folder) for path in place.rglob("*") if path.is_file())
    for path in files:
        _check_inside(folder / path, folder)
    return files


def problems(folder: Path) -> list[str]:
    """What is wrong with the files of a folder: missing, or not what was built."""
    wrong = []
    for benchmark in contents(folder):
        logger.info("checking the files of %s", benchmark.name)
        for config, found in benchmark.statistics["configs"].items():
            for split in found["splits"].values():
                for name, digest in split["files"].items():
                    path = Path(folder) / benchmark.place / config / name
                    shown = path.relative_to(folder)
                    if not path.is_file():
                        wrong.append(f"{shown} is missing; build {benchmark.name} again.")
                    elif digest_of_file(path) != digest:
                        wrong.append(f"{shown} is not the file that was built; build {benchmark.name} again.")
    return wrong
