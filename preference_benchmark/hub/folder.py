"""A folder that is a data repository: several data sets, one README.md that names their files.

Every data set lies in a folder of its own, named after a digest of what it was made from: `steam/3f0c.../`. Files
there are never changed. The README's YAML says which of these folders count, so replacing the README is the one
moment at which a build takes effect: whoever kills it before leaves the old state, whoever kills it after, the new.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from filelock import FileLock
from huggingface_hub import metadata_load

from preference_benchmark.axes.examples import STORED_FEATURES, with_item_ids
from preference_benchmark.axes.protocol import MODES
from preference_benchmark.hub.card import render
from preference_benchmark.make import Made
from preference_benchmark.stages import digest_of_file, write_atomically

__all__ = [
    "Published",
    "add",
    "contents",
    "load_folder",
    "problems",
    "published_files",
    "refuse_raw_files_inside",
]


STAGES = ".stages"
_LOCK, _UNFINISHED = ".lock", ".unfinished-"
_OURS = re.compile(rf"[0-9a-f]{{16}}|{re.escape(_UNFINISHED)}\w+")  # the key of a build, or what a kill left behind


@dataclass(frozen=True)
class Published:
    """A data set that the README names.

    Attributes:
        name: of the data set.
        place: its folder, relative to the repository.
        statistics: the content of its `statistics.json`.
    """

    name: str
    place: str
    statistics: dict


def refuse_raw_files_inside(output: Path, name: str, data_dir: Path | None) -> None:
    """Raise a ValueError if raw files lie in the folder that the data set `name` gets in `output`."""
    place = Path(output) / name
    if data_dir is not None and Path(data_dir).resolve().is_relative_to(place.resolve()):
        raise ValueError(
            f"the raw files {data_dir} lie in {place}, the folder that builds of {name!r} are put into; pass another "
            "folder as output, or move them."
        )


def add(made: Made, output: Path) -> Path:
    """Put a finished data set into the folder, in place of an earlier one of the same name.

    Of what else lies in the data set's folder only earlier builds are removed, and what a kill left of one.

    Returns:
        The folder of the data set.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    name = made.statistics["name"]
    with FileLock(output / _LOCK):
        target = output / name / made.key
        if not (target / "statistics.json").is_file():  # new, or damaged
            target.parent.mkdir(exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=_UNFINISHED))
            try:
                shutil.copytree(made.folder, scratch, dirs_exist_ok=True)
                scratch.chmod(0o755)
                shutil.rmtree(target, ignore_errors=True)
                os.rename(scratch, target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        new = Published(name, f"{name}/{made.key}", made.statistics)
        others = contents(output, without=name)
        write_atomically(output / "README.md", render([*others, new]).encode())
        # Nothing refers to these any more, or ever did.
        for entry in sorted(target.parent.iterdir()):
            if entry != target and _OURS.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
    return target


def contents(output: Path, without: str | None = None) -> list[Published]:
    """The data sets that a folder's README names, in its order.

    Args:
        output: the folder.
        without: a data set to leave out, whatever state it is in: it is about to be built again.

    Raises:
        ValueError: if the README is that of something else, or a file that it names is missing.
    """
    readme = Path(output) / "README.md"
    if not readme.is_file():
        return []
    configs = (metadata_load(readme) or {}).get("configs") or []
    places: dict[str, str] = {}
    for config in configs:
        files = config.get("data_files") or [""]
        parts = str(files[0].get("path") if isinstance(files[0], dict) else files).split("/")
        if len(parts) != 4:
            raise ValueError(f"{readme} was not written by this program; pass another folder as output.")
        places[parts[0]] = "/".join(parts[:2])
    if not places:
        raise ValueError(f"{readme} names no data set; pass another folder as output.")
    found = []
    for name, place in places.items():
        if name == without:
            continue
        path = Path(output) / place / "statistics.json"
        if not path.is_file():
            raise ValueError(f"{path}, which {readme} names, is missing; build {name} again.")
        found.append(Published(name, place, json.loads(path.read_text("utf-8"))))
    return found


def load_folder(folder: Path, name: str) -> tuple[Dataset, dict[str, DatasetDict]]:
    """Items of a data set in a folder, and by matching mode its examples, with item ids in place of item indices.

    The files are read themselves: for a folder on the disk, `load_dataset` keys its cache by the card alone, and gives
    the rows of another folder that has the same card.
    """
    folder = Path(folder)
    configs = {config["config_name"]: config for config in metadata_load(folder / "README.md")["configs"]}
    items = _read_config(folder, configs[f"{name}-items"])["items"]
    item_ids = pl.Series(items["item_id"])
    modes = {"oracle": name} | {mode: f"{name}-{mode}" for mode in MODES if mode != "oracle"}
    examples = {
        mode: DatasetDict(
            {
                split: with_item_ids(rows.cast(STORED_FEATURES.arrow_schema), item_ids)
                for split, rows in _read_config(folder, configs[config]).items()
            }
        )
        for mode, config in modes.items()
        if config in configs
    }
    return Dataset(items), examples


def _read_config(folder: Path, config: dict) -> dict[str, pa.Table]:
    return {
        files["split"]: pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob(files["path"])))
        for files in config["data_files"]
    }


def published_files(output: Path) -> list[Path]:
    """The files that make up the repository, relative to the folder: the README and all that it names.

    Raises:
        ValueError: if there is no data set in the folder.
    """
    found = contents(output)
    if not found:
        raise ValueError(f"{output} holds no data set; build one with --output {output} first.")
    files = [Path("README.md")]
    for data_set in found:
        folder = Path(output) / data_set.place
        files += sorted(path.relative_to(output) for path in folder.rglob("*") if path.is_file())
    return files


def problems(output: Path) -> list[str]:
    """What is wrong with the files of a folder: missing, or not what was built."""
    wrong = []
    for data_set in contents(output):
        for config, found in data_set.statistics["configs"].items():
            for split in found["splits"].values():
                for name, digest in split["files"].items():
                    path = Path(output) / data_set.place / config / name
                    shown = path.relative_to(output)
                    if not path.is_file():
                        wrong.append(f"{shown} is missing; build {data_set.name} again.")
                    elif digest_of_file(path) != digest:
                        wrong.append(f"{shown} is not the file that was built; build {data_set.name} again.")
    return wrong
