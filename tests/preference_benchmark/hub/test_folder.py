"""A folder of several benchmarks: the newest of each, nothing lost, nothing foreign touched; and what `load` reads."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset

from mender.cli import main
from preference_benchmark import load
from preference_benchmark.axes.examples import STORED_FEATURES
from preference_benchmark.hub import folder as hub_folder
from preference_benchmark.hub.folder import STAGES, add, contents, names_in, problems, published_files
from preference_benchmark.stages import digest_of_file

KEYS = {version: f"{version:016x}" for version in range(3)}
ITEMS = ["jug", "mug", "tea"]


class Stopped(BaseException):
    """Stands for a kill: nothing may catch it."""


def writer(name, version):
    """Writes a benchmark of one example, whose preference names the version."""

    def write(target):
        row = {column: "" for column in STORED_FEATURES} | {"axis": "recommendation", "avoid": [], "pair_id": -1}
        row |= {"history": [2, 0], "targets": [1], "avoided": [], "preferences": [f"Find version {version}"]}
        parts = {
            name: ("oracle", "test", Dataset.from_list([row], features=STORED_FEATURES)),
            f"{name}-items": ("items", "items", Dataset.from_dict({"item_id": ITEMS})),
        }
        configs = {}
        for config, (part, split, rows) in parts.items():
            (target / config).mkdir()
            file = target / config / f"{split}-00000-of-00001.parquet"
            rows.to_parquet(file)
            files = {file.name: digest_of_file(file)}
            configs[config] = {"part": part, "splits": {split: {"rows": len(rows), "files": files}}}
        (target / "statistics.json").write_text(json.dumps({"name": name, "version": version, "configs": configs}))

    return write


@pytest.fixture(autouse=True)
def plain_cards(monkeypatch):
    """Cards that hold the configs alone."""

    def render(benchmarks):
        lines = ["---", "configs:"]
        for found in sorted(benchmarks, key=lambda found: found.name):
            for config, content in found.statistics["configs"].items():
                lines += [f"- config_name: {config}", "  data_files:"]
                pattern = f"{found.place}/{config}/{{split}}-*.parquet"
                lines += [
                    f"  - {{split: {split}, path: '{pattern.format(split=split)}'}}" for split in content["splits"]
                ]
        return "\n".join([*lines, "---", ""])

    monkeypatch.setattr(hub_folder, "render", render)


def put(folder, name="shop", version=0):
    return add(folder, name, KEYS[version], writer(name, version))


def bytes_of(folder):
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".")}


def test_a_folder_holds_several_benchmarks_and_the_newest_of_each(tmp_path):
    first, _ = put(tmp_path), put(tmp_path, "another")
    second = put(tmp_path, version=1)
    assert second.is_dir() and not first.exists()
    assert names_in(tmp_path) == [found.name for found in contents(tmp_path)] == ["another", "shop"]
    assert problems(tmp_path) == []
    assert load(tmp_path, "shop").statistics["version"] == 1
    with pytest.raises(ValueError, match="has several benchmarks; found another, shop. Pass the name of one"):
        load(tmp_path)
    with pytest.raises(ValueError, match="has no benchmark steam; found another, shop"):
        load(tmp_path, "steam")


def test_examples_get_the_ids_of_their_items(tmp_path):
    put(tmp_path)
    found = load(tmp_path)
    (example,) = found.examples["oracle"]["test"].to_list()
    assert (example["history"], example["targets"]) == (["tea", "jug"], ["mug"])
    assert found.items["item_id"][:] == ITEMS and list(found.examples) == ["oracle"]


def test_a_folder_is_read_as_it_is_and_not_from_a_cache(tmp_path):
    for version in range(2):
        folder = tmp_path / str(version) / "built"
        add(folder, "shop", KEYS[0], writer("shop", version))
        load_dataset(str(folder), "shop", cache_dir=tmp_path / "cache")  # its cache knows the first by the same card
        assert load(folder).examples["oracle"]["test"]["preferences"][0] == [f"Find version {version}"]


def test_only_builds_are_removed_from_the_folder_of_a_benchmark(tmp_path):
    first = put(tmp_path)
    own, elsewhere = first.parent / "ml-1m", tmp_path / "elsewhere"
    for folder in (own, elsewhere, first.parent / ".unfinished-abcd1234"):
        folder.mkdir()
        (folder / "ratings.dat").write_text("1::2::5::978300760\n")
    (first.parent / "0123456789abcdef").symlink_to(elsewhere)
    (first.parent / "notes.txt").write_text("mine")
    second = put(tmp_path, version=1)
    left = {entry.name for entry in second.parent.iterdir()}
    assert left == {second.name, "ml-1m", "0123456789abcdef", "notes.txt"}
    assert all((folder / "ratings.dat").is_file() for folder in (own, elsewhere))


@pytest.mark.parametrize("moment", ["write", "card"])
def test_a_stop_while_it_is_put_in_place_leaves_the_old_state(moment, tmp_path, monkeypatch):
    put(tmp_path)
    before = bytes_of(tmp_path)

    def stop(*arguments):
        raise Stopped

    with monkeypatch.context() as patch:
        if moment == "card":
            patch.setattr(hub_folder, "write_atomically", stop)
        with pytest.raises(Stopped):
            add(tmp_path, "shop", KEYS[1], stop if moment == "write" else writer("shop", 1))
    assert {name: (tmp_path / name).read_bytes() for name in before} == before and problems(tmp_path) == []
    put(tmp_path, version=1)
    assert load(tmp_path).statistics["version"] == 1


@pytest.mark.parametrize("lost", ["statistics.json", "shop/test-00000-of-00001.parquet"])
def test_a_damaged_build_can_be_built_again(lost, tmp_path):
    place = put(tmp_path)
    assert hub_folder.holds(tmp_path, "shop", KEYS[0])
    (place / lost).unlink()
    assert not hub_folder.holds(tmp_path, "shop", KEYS[0])
    with pytest.raises(ValueError, match="which .* names, is missing; build .* again"):
        contents(tmp_path) if lost == "statistics.json" else load(tmp_path)
    assert contents(tmp_path, without="shop") == []
    put(tmp_path)
    assert hub_folder.holds(tmp_path, "shop", KEYS[0]) and problems(tmp_path) == []


def test_changed_files_are_named(tmp_path):
    place = put(tmp_path)
    file = place / "shop" / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    assert problems(tmp_path) == [f"{file.relative_to(tmp_path)} is not the file that was built; build shop again."]


@pytest.mark.parametrize(
    ("readme", "message"),
    [
        ("# Mine\n", "names no benchmark; pass another folder"),
        ("---\nlicense: [\n---\n", "names no benchmark"),
        ("---\nconfigs: 5\n---\n", "names no benchmark"),
        ("---\nconfigs:\n- config_name: default\n  data_files: '*.parquet'\n---\n", "was not written by this program"),
    ],
)
def test_foreign_readmes_are_left_alone(readme, message, tmp_path):
    (tmp_path / "README.md").write_text(readme)
    with pytest.raises(ValueError, match=message):
        put(tmp_path)
    assert (tmp_path / "README.md").read_text() == readme and names_in(tmp_path) == []
    with pytest.raises(ValueError, match="has no benchmark"):
        load(tmp_path)


def test_what_is_not_there_is_not_found(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match="README.md is missing|does not exist"):
            load(place)
    with pytest.raises(FileNotFoundError, match="org/shop is neither a folder here nor a data set that could be read"):
        load("org/shop")


def test_raw_files_inside_the_folder_of_the_benchmark_are_refused(tmp_path):
    with pytest.raises(ValueError, match="folder that builds of 'shop' are put into; pass another"):
        hub_folder.refuse_raw_files_inside(tmp_path, "shop", tmp_path / "shop" / "raw")
    hub_folder.refuse_raw_files_inside(tmp_path, "shop", tmp_path / STAGES)
    hub_folder.refuse_raw_files_inside(tmp_path, "shop", None)


@pytest.fixture
def built(tmp_path):
    """A folder with one benchmark."""
    add(tmp_path / "folder", "shop", KEYS[0], writer("shop", 0))
    return tmp_path / "folder"


@pytest.mark.parametrize("place", ["../secret", "/etc", "~", "a/../../secret", "C:/x", "https://evil.example"])
def test_cards_that_name_files_of_other_places_are_refused(built, place):
    readme = built / "README.md"
    readme.write_text(readme.read_text("utf-8").replace("path: '", f"path: '{place}/"), "utf-8")
    for use in (load, contents, published_files, names_in):
        with pytest.raises(ValueError, match="names files outside its folder"):
            use(built)


def test_links_out_of_the_folder_are_not_followed(built, tmp_path):
    path = next(built.glob("*/*/*-items/*.parquet"))
    shutil.move(path, tmp_path / "other.parquet")
    path.symlink_to(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="leads out of"):
        load(built)


def test_few_bytes_that_stand_for_gigabytes_are_not_read(built):
    path = next(built.glob("*/*/*-items/*.parquet"))
    rows = 5_000_000
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array(["y" * 1_000]))
    pq.write_table(pa.table({"item_id": text}), path, compression="zstd")
    assert path.stat().st_size < 2_000_000
    with pytest.raises(ValueError, match="says that it holds 5,000,000 rows"):
        load(built)


def test_lists_of_lists_in_a_card_are_not_written_out(tmp_path):
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    head = f"a0: &a0 [x]\n{levels}configs: [{{config_name: x, data_files: *a39}}, {{config_name: *a39}}, *a39]\n"
    (tmp_path / "README.md").write_text(f"---\n{head}---\n")
    assert names_in(tmp_path) == []


def test_statistics_show_and_are_not_obeyed(built):
    path = next(built.glob("*/*/statistics.json"))
    statistics = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(statistics | {"title": "\x1b[2Jshop\u202e", "read": {"a\x07": ["\x9b"]}}), "utf-8")
    (found,) = contents(built)
    assert found.statistics["title"] == " [2Jshop " and found.statistics["read"] == {"a ": [" "]}
    path.write_text("[" * 100_000, "utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        contents(built)


def test_damaged_benchmarks_are_refused_in_one_line(built, capsys):
    items = next(built.glob("*/*/*-items/*.parquet"))
    whole = items.read_bytes()
    items.unlink()
    items.symlink_to(items.name)
    with pytest.raises(ValueError, match="leads out of"):
        load(built)
    items.unlink()
    pq.write_table(pa.table({"item": ["a"]}), items)
    with pytest.raises(ValueError, match=r"is not what a build writes \(KeyError: [^\n]*\); build the benchmark again"):
        load(built)
    items.write_bytes(whole)
    # Its statistics hold little of what a build writes.
    assert main(["benchmark", "stats", str(built)]) == main(["benchmark", "validate", str(built)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("is not what a build writes" in line for line in lines)


def test_links_out_of_the_folder_are_not_published(built, tmp_path):
    (tmp_path / "secret").write_text("x")
    next(built.glob("*/*/statistics.json")).with_name("note.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="note.txt leads out of"):
        published_files(built)
