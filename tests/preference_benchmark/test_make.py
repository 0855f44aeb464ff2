"""A build on disk: the same bytes again, only what matters anew, and nothing lost when it is stopped."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from benchmark_doubles import HashEmbedder, random_preferences
from datasets import load_dataset

from preference_benchmark import make as make_module
from preference_benchmark.assemble import ask_every, assemble
from preference_benchmark.axes.protocol import AXES, PAPER, SPLITS
from preference_benchmark.checks import leakage
from preference_benchmark.checks.validation import margins
from preference_benchmark.hub import folder as hub_folder
from preference_benchmark.hub import plots
from preference_benchmark.make import make, read_tables
from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.files import write_preferences
from preference_benchmark.recipes import recipe
from preference_benchmark.stages import Stages

SHOP = recipe("corner-shop", options={"num_users": 60, "num_items": 40})


DRAW = plots.draw


class Stopped(BaseException):
    """Stands for a kill: nothing may catch it."""


def build(work, shop=SHOP, embedder=None, seen=None):
    note = (lambda name, found: seen.append((name, found))) if seen is not None else None
    return make(shop, work, embedder=embedder or HashEmbedder(), announce=note, progress=False)


def bytes_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def plain_plots():
    """The pictures are most of a small build's time; one test draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_module.plots, "draw", lambda parts, margins, title, folder: None)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return build(tmp_path_factory.mktemp("work"))


def test_the_same_recipe_makes_the_same_bytes(made, tmp_path):
    again = build(tmp_path / "elsewhere")
    assert again.key == made.key
    assert bytes_of(again.folder) == bytes_of(made.folder)


def test_another_seed_differs_only_where_a_seed_matters(made, tmp_path):
    other = build(tmp_path, replace(SHOP, protocol=SHOP.protocol.replace(seed=5)))
    ours, theirs = bytes_of(made.folder), bytes_of(other.folder)
    assert (
        ours["corner-shop-items/items-00000-of-00001.parquet"]
        == theirs["corner-shop-items/items-00000-of-00001.parquet"]
    )
    steering = ["fine_grained_steering", "coarse_grained_steering"]
    for split in SPLITS:
        name = f"corner-shop/{split}-00000-of-00001.parquet"
        one, two = pl.read_parquet(made.folder / name), pl.read_parquet(other.folder / name)
        fixed = ~pl.col("axis").is_in(steering)
        assert one.filter(fixed).equals(two.filter(fixed))
        assert not one.filter(~fixed).equals(two.filter(~fixed))
        # The seed says whose history is shown, not what is asked.
        asked = ["axis", "preferences", "targets"]
        assert one.select(asked).equals(two.select(asked))


def test_statistics_count_what_the_files_hold(made):
    for name, config in made.statistics["configs"].items():
        for split, found in config["splits"].items():
            rows = [pq.ParquetFile(made.folder / name / file).metadata.num_rows for file in found["files"]]
            assert sum(rows) == found["rows"] > 0
            if config["part"] != "items":
                assert found["rows"] == sum(counts[split] for counts in made.statistics["examples"].values())
    assert json.loads((made.folder / "statistics.json").read_text("utf-8")) == made.statistics


def test_the_same_numbers_make_the_same_pictures(tmp_path):
    shop = ask_every(read_tables(SHOP, Stages(tmp_path), progress=False)[0], 2)
    parts = assemble(shop, HashEmbedder, SHOP.protocol, ExtractiveApproximator(progress=False), progress=False)
    found = margins(parts, SHOP.protocol)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        DRAW(parts, found, "A shop", folder)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert set(bytes_of(tmp_path / "a")) == set(plots.PLOTS)


def test_validation_knows_the_truth_of_the_corner_shop(made):
    truth = made.statistics["validation"]["truth"]
    # Random vectors match preferences to targets by chance, but preferences are true all the same.
    for question, found in truth.items():
        assert found["n"] > 0 and (found["rate"] > found["chance"] or "target" in question), question
    assert truth["inversion flips the polarity and keeps the aspects"]["rate"] == 1.0
    margins = made.statistics["validation"]["margins"]
    assert margins["recommendation (oracle)"]["margin"] > margins["recommendation (last)"]["margin"]


STAGES = [
    "inputs",
    "tables",
    "preferences",
    "vectors",
    "matches-oracle",
    "matches-last",
    "fine_grained_steering",
    "coarse_grained_steering",
    "sentiment_following",
    "history_consolidation",
    "sentiment_following_with_history",
    "recommendation-oracle",
    "recommendation-last",
    "finished",
]


@pytest.mark.parametrize("stage", ["preferences", "sentiment_following", "finished"])
def test_a_stopped_build_goes_on_and_ends_with_the_same_bytes(stage, made, tmp_path, monkeypatch):
    at = STAGES.index(stage)
    with monkeypatch.context() as patch:
        frame, path = Stages.frame, Stages.path

        def stop(self, name, key, fill):
            def half(*arguments):
                fill(*arguments)
                raise Stopped  # all is written, nothing is renamed

            return path(self, name, key, half if name == stage else fill)

        patch.setattr(Stages, "path", stop)
        patch.setattr(Stages, "frame", frame)
        with pytest.raises(Stopped):
            build(tmp_path)
    seen = []
    again = build(tmp_path, seen=seen)
    finished = [name for name, found in seen if found]
    assert [name for name, _ in seen] == STAGES
    assert finished == [name for name in STAGES[:at]]
    assert bytes_of(again.folder) == bytes_of(made.folder)


def test_a_stop_within_the_embedding_costs_one_chunk(made, tmp_path, monkeypatch):
    from preference_benchmark import embedding as vectors

    monkeypatch.setattr(vectors, "_CHUNK", 50)
    monkeypatch.setattr(vectors.VectorStore.__init__, "__kwdefaults__", {"chunk": 50, "progress": False})

    class Tiring(HashEmbedder):
        def encode(self, texts):
            if len(self.asked) > 120:
                raise Stopped
            return super().encode(texts)

    tired = Tiring()
    with pytest.raises(Stopped):
        build(tmp_path, embedder=tired)
    # The digest of an embedder is its class's name and width.
    Fresh = type("Tiring", (HashEmbedder,), {})
    fresh = Fresh()
    again = build(tmp_path, embedder=fresh)
    assert not set(tired.asked[1:]) & set(fresh.asked[1:])  # the first asks for the width
    assert again.statistics["examples"] == made.statistics["examples"]


def test_a_seed_makes_only_its_own_stages_anew(tmp_path):
    build(tmp_path)
    seen = []
    build(tmp_path, replace(SHOP, protocol=SHOP.protocol.replace(seed=9)), seen=seen)
    assert [name for name, found in seen if not found] == [
        "fine_grained_steering",
        "coarse_grained_steering",
        "finished",
    ]


def test_a_leak_leaves_nothing_finished(tmp_path):
    leaky = replace(SHOP, protocol=PAPER.replace(classifier=None, leaks="error"))
    with pytest.raises(leakage.LeakageError, match="LEAK"):
        build(tmp_path, leaky)
    assert not list(tmp_path.glob("finished-*")) and not list(tmp_path.glob(".unfinished-*"))
    flagged = build(tmp_path, replace(leaky, protocol=leaky.protocol.replace(leaks="flag")))
    hub_folder.add(flagged, tmp_path / "out")
    assert "leaks found, and flagged:**" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_folder_holds_several_data_sets_and_the_newest_of_each(made, tmp_path):
    first = hub_folder.add(made, tmp_path)
    other = build(tmp_path / ".stages" / "b", replace(SHOP, name="second", title="A second shop"))
    hub_folder.add(other, tmp_path)
    assert [found.name for found in hub_folder.contents(tmp_path)] == ["corner-shop", "second"]
    newer = build(tmp_path / ".stages" / "a", replace(SHOP, protocol=SHOP.protocol.replace(seed=3)))
    second = hub_folder.add(newer, tmp_path)
    assert second.is_dir() and not first.exists()
    assert hub_folder.problems(tmp_path) == []
    card = (tmp_path / "README.md").read_text("utf-8")
    assert card.count("default: true") == 1 and "A second shop" in card
    again = load_dataset(str(tmp_path), "second-last", cache_dir=tmp_path / "cache")
    assert set(again["test"]["axis"]) == set(AXES)


def test_only_builds_are_removed_from_the_folder_of_a_data_set(made, tmp_path):
    first = hub_folder.add(made, tmp_path)
    own, elsewhere = first.parent / "ml-1m", tmp_path / "elsewhere"
    for folder in (own, elsewhere, first.parent / ".unfinished-abcd1234"):
        folder.mkdir()
        (folder / "ratings.dat").write_text("1::2::5::978300760\n")
    (first.parent / "0123456789abcdef").symlink_to(elsewhere)
    (first.parent / "notes.txt").write_text("mine")
    newer = build(tmp_path / ".stages" / "a", replace(SHOP, protocol=SHOP.protocol.replace(seed=3)))
    second = hub_folder.add(newer, tmp_path)
    left = {entry.name for entry in second.parent.iterdir()}
    assert left == {second.name, "ml-1m", "0123456789abcdef", "notes.txt"}
    assert all((folder / "ratings.dat").is_file() for folder in (own, elsewhere))


@pytest.mark.parametrize("moment", ["copytree", "write_atomically"])
def test_a_stop_while_it_is_put_in_place_leaves_the_old_state(made, moment, tmp_path, monkeypatch):
    hub_folder.add(made, tmp_path)
    before = {name: data for name, data in bytes_of(tmp_path).items() if not name.startswith(".")}
    newer = build(tmp_path / ".stages" / "a", replace(SHOP, protocol=SHOP.protocol.replace(seed=3)))

    def stop(*arguments, **options):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(hub_folder.shutil if moment == "copytree" else hub_folder, moment, stop)
        with pytest.raises(Stopped):
            hub_folder.add(newer, tmp_path)
    kept = {name: (tmp_path / name).read_bytes() for name in before}
    assert kept == before and hub_folder.problems(tmp_path) == []
    hub_folder.add(newer, tmp_path)
    assert hub_folder.contents(tmp_path)[0].statistics["protocol"]["seed"] == 3


def test_preferences_from_a_file(made, tmp_path):
    tables, _, _ = read_tables(SHOP, Stages(tmp_path / "tables"), progress=False)
    write_preferences(random_preferences(tables, 4), tmp_path / "mine.parquet", {}, tables)
    mine = build(tmp_path, replace(SHOP, preferences=tmp_path / "mine.parquet"))
    assert mine.statistics["preferences_by"] == "the file mine.parquet"
    assert mine.statistics["preferences"] != made.statistics["preferences"]
    tables.items.write_parquet(tmp_path / "wrong.parquet")
    for name, error in (("wrong.parquet", ValueError), ("absent.parquet", FileNotFoundError)):
        with pytest.raises(error, match="lack the columns|does not exist"):
            build(tmp_path, replace(SHOP, preferences=tmp_path / name))


def test_changed_raw_files_are_noticed(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    shop = read_tables(SHOP, Stages(tmp_path / "shop"), progress=False)[0]
    shop.items.write_parquet(folder / "items.parquet")
    shop.interactions.drop("step").write_parquet(folder / "interactions.parquet")
    own = recipe("mine", source="table", data_dir=folder)
    first = build(tmp_path / "work", own)
    assert first.statistics["interactions"] == shop.interactions.height
    users = shop.interactions["user_id"].unique().sort()[:40]
    kept = shop.interactions.filter(pl.col("user_id").is_in(users.implode()))
    kept.drop("step").write_parquet(folder / "interactions.parquet")
    second = build(tmp_path / "work", own)
    assert second.statistics["users"] < first.statistics["users"]
    # A file that an option names counts as well; one that is the same again makes nothing anew but its own digest.
    shop.items.write_parquet(tmp_path / "goods.parquet")
    named = replace(own, options={"items": str(tmp_path / "goods.parquet")})
    build(tmp_path / "work", named)
    for rename, anew in (("Other goods", ["inputs", "tables"]), (None, ["inputs"])):
        items = shop.items if rename is None else shop.items.with_columns(title=pl.lit(rename))
        shop, seen = replace(shop, items=items), []
        items.write_parquet(tmp_path / "goods.parquet")
        os.utime(tmp_path / "goods.parquet", ns=(1, 1) if rename else (2, 2))
        build(tmp_path / "work", named, seen=seen)
        assert [name for name, found in seen if not found][:2] == anew


def test_shards_that_arrive_later_are_noticed(tmp_path):
    def shard(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows).write_parquet(path)

    def read():
        seen = []
        stages = Stages(tmp_path / "work", lambda name, found: seen.append((name, found)))
        return read_tables(recipe("mine", source="amazon2023", data_dir=tmp_path / "raw"), stages)[0], seen

    def reviews(user):
        written = {"rating": 4.0, "timestamp": 1_588_687_728_923, "title": "Good", "text": "A good mute."}
        return [{"user_id": user, "parent_asin": f"B{item}", **written} for item in range(6)]

    shard(tmp_path / "raw" / "raw_review_Horns" / "0.parquet", [row for user in "abcde" for row in reviews(user)])
    assert read()[0].interactions["user_id"].n_unique() == 5
    assert [found for _, found in read()[1]] == [True, True]
    shard(tmp_path / "raw" / "raw_review_Horns" / "1.parquet", reviews("f"))
    assert read()[0].interactions["user_id"].n_unique() == 6
    shard(
        tmp_path / "raw" / "raw_meta_Horns" / "0.parquet", {"parent_asin": [f"B{n}" for n in range(6)], "title": "Mute"}
    )
    assert read()[0].items["title"].to_list() == ["Mute"] * 6


def test_a_full_disk_leaves_nothing_half_written(made, tmp_path, monkeypatch):
    hub_folder.add(made, tmp_path)
    before = bytes_of(tmp_path)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make_module, "write_shards", full)
    newer = replace(SHOP, protocol=SHOP.protocol.replace(seed=3))
    with pytest.raises(OSError, match="No space left"):
        build(tmp_path / ".stages" / "a", newer)
    assert not list((tmp_path / ".stages" / "a").glob("finished-*"))
    assert {name: data for name, data in bytes_of(tmp_path).items() if not name.startswith(".stages")} == before


def test_a_damaged_build_can_be_built_again(made, tmp_path):
    folder = hub_folder.add(made, tmp_path)
    (folder / "statistics.json").unlink()
    with pytest.raises(ValueError, match=r"statistics\.json, which .* names, is missing; build .* again"):
        hub_folder.contents(tmp_path)
    assert hub_folder.contents(tmp_path, without=made.statistics["name"]) == []
    assert (hub_folder.add(made, tmp_path) / "statistics.json").is_file()


def test_foreign_readmes_are_left_alone(made, tmp_path):
    Path(tmp_path / "README.md").write_text("# Mine\n", encoding="utf-8")
    with pytest.raises(ValueError, match="names no data set; pass another folder"):
        hub_folder.add(made, tmp_path)
    assert (tmp_path / "README.md").read_text("utf-8") == "# Mine\n"
