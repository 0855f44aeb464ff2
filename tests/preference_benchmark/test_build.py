"""A build on disk: the same bytes again, only what matters anew, and nothing lost when it is stopped."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from benchmark_doubles import HashEmbedder, random_preferences
from datasets import load_dataset

from preference_benchmark import build as build_benchmark
from preference_benchmark import load, read_tables, recipe
from preference_benchmark.axes.examples import EXAMPLE_FEATURES, ITEM_COLUMNS, STORED_FEATURES
from preference_benchmark.axes.protocol import PAPER, SPLITS, STEERING_AXES, WISH_AXES
from preference_benchmark.checks.leakage import LeakageError
from preference_benchmark.hub import folder as hub_folder
from preference_benchmark.hub import plots
from preference_benchmark.preferences.files import write_preferences

SHOP = recipe("corner-shop", options={"num_users": 60, "num_items": 40})
OTHER_SEED = replace(SHOP, protocol=SHOP.protocol.replace(seed=3))


class Stopped(BaseException):
    """Stands for a kill: nothing may catch it."""


def build(folder, shop=SHOP, embedder=None, seen=None, stages=None):
    note = (lambda name, found: seen.append((name, found))) if seen is not None else None
    embedder = embedder or HashEmbedder()
    return build_benchmark(shop, folder, embedder=embedder, stages=stages, announce=note, progress=False)


def visible(folder):
    """Bytes of the files of a data repository, by path; a benchmark's own folder under the name "KEY"."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if not name.startswith(".")}


def statistics_of(folder, name=None):
    return load(folder, name).statistics


@pytest.fixture(scope="module", autouse=True)
def plain_plots():
    """The pictures are most of a small build's time; tests of the plots draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", lambda built, margins, title, folder: None)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("built"))


def test_the_same_recipe_makes_the_same_bytes(built, tmp_path):
    assert visible(build(tmp_path)) == visible(built)


def test_what_load_dataset_reads_is_what_load_gives_with_item_ids(built, tmp_path):
    benchmark = load(built)
    assert benchmark.name == "corner-shop" and list(benchmark.examples) == ["oracle", "last"]
    items = load_dataset(str(built), "corner-shop-items", split="items", cache_dir=tmp_path)
    assert items.to_list() == benchmark.items.to_list()
    ids = items["item_id"][:]
    for mode, config in (("oracle", "corner-shop"), ("last", "corner-shop-last")):
        stored = load_dataset(str(built), config, cache_dir=tmp_path)
        assert tuple(stored) == SPLITS == tuple(benchmark.examples[mode])
        for split, rows in stored.items():
            examples = benchmark.examples[mode][split]
            assert rows.features == STORED_FEATURES and examples.features == EXAMPLE_FEATURES
            for name in ITEM_COLUMNS:
                assert examples[name][:] == [[ids[index] for index in found] for found in rows[name]]
            same = [name for name in STORED_FEATURES if name not in ITEM_COLUMNS]
            assert examples.select_columns(same).to_list() == rows.select_columns(same).to_list()


def test_another_seed_differs_only_where_a_seed_matters(built, copy):
    other = load(build(copy, OTHER_SEED))
    one = load(built)
    assert one.items.to_list() == other.items.to_list()
    for split in SPLITS:
        ours, theirs = (found.examples["oracle"][split].to_polars() for found in (one, other))
        steering, wishes = pl.col("axis").is_in(STEERING_AXES), pl.col("axis").is_in(WISH_AXES)
        assert ours.filter(~(steering | wishes)).equals(theirs.filter(~(steering | wishes)))
        for drawn in (steering, wishes):
            assert not ours.filter(drawn).equals(theirs.filter(drawn))
        # Steering: the seed says whose history is shown, not what is asked.
        asked = ["axis", "preferences", "targets"]
        assert ours.filter(steering).select(asked).equals(theirs.filter(steering).select(asked))


def test_statistics_count_what_the_files_hold(built):
    (published,) = hub_folder.contents(built)
    statistics = published.statistics
    for name, config in statistics["configs"].items():
        for split, found in config["splits"].items():
            files = (built / published.place / name / file for file in found["files"])
            assert sum(pq.ParquetFile(file).metadata.num_rows for file in files) == found["rows"] > 0
            if config["part"] != "items":
                assert found["rows"] == sum(counts[split] for counts in statistics["examples"].values())
    assert statistics_of(built) == statistics


def test_validation_knows_the_truth_of_the_corner_shop(built):
    statistics = statistics_of(built)
    truth = statistics["validation"]["truth"]
    # Random vectors match preferences to targets by chance, but preferences are true all the same.
    for question, found in truth.items():
        assert found["n"] > 0 and (found["rate"] > found["chance"] or "target" in question), question
    assert truth["inversion flips the polarity and keeps the aspects"]["rate"] == 1.0
    margins = statistics["validation"]["margins"]
    assert margins["recommendation (oracle)"]["margin"] > margins["recommendation (last)"]["margin"]
    similarity = statistics["similarity"]
    assert similarity["oracle"] > similarity["last"] and similarity["oracle"] > similarity["random"] + 0.1


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
    "open_wishes",
    "wish_and_avoid",
    "recommendation-oracle",
    "recommendation-last",
    "finished",
]


@pytest.fixture
def copy(built, tmp_path):
    """The finished build with its stages, to build on."""
    return shutil.copytree(built, tmp_path / "copy")


def test_a_finished_build_is_found_without_reading_anything(copy):
    seen = []
    build(copy, seen=seen)
    assert seen == [("inputs", True), ("finished", True)]


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("preferences", marks=pytest.mark.slow),
        "sentiment_following",
        pytest.param("finished", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_build_continues_and_ends_with_the_same_bytes(stage, built, tmp_path, monkeypatch):
    def stop(name, found):
        if name == STAGES[STAGES.index(stage) + 1]:
            raise Stopped

    if stage == "finished":
        with monkeypatch.context() as patch:
            patch.setattr(plots, "draw", lambda *arguments: (_ for _ in ()).throw(Stopped))
            with pytest.raises(Stopped):  # the Parquet files are written, and not in place
                build(tmp_path)
    else:
        with pytest.raises(Stopped):
            build_benchmark(SHOP, tmp_path, embedder=HashEmbedder(), announce=stop, progress=False)
    seen = []
    build(tmp_path, seen=seen)
    assert [name for name, _ in seen] == STAGES
    finished = STAGES[: STAGES.index(stage) + (stage != "finished")]
    assert [name for name, found in seen if found] == finished
    assert visible(tmp_path) == visible(built)


def test_a_stop_within_the_embedding_costs_one_chunk(built, tmp_path):
    class Tiring(HashEmbedder):
        def encode(self, texts):
            if len(self.asked) > 1:
                raise Stopped
            return super().encode(texts)

    tired = Tiring()
    with pytest.raises(Stopped):
        build(tmp_path, embedder=tired)
    # Two embedders are the same if they have the same class name and give a text the same vector.
    fresh = type("Tiring", (HashEmbedder,), {})()
    again = build(tmp_path, embedder=fresh)
    assert statistics_of(again)["examples"] == statistics_of(built)["examples"]


def test_a_seed_makes_only_its_own_stages_anew(copy):
    seen = []
    build(copy, OTHER_SEED, seen=seen)
    assert [name for name, found in seen if not found] == [
        "fine_grained_steering",
        "coarse_grained_steering",
        "open_wishes",
        "wish_and_avoid",
        "finished",
    ]


@pytest.mark.slow
def test_stages_may_be_kept_elsewhere(built, tmp_path):
    folder = build(tmp_path / "out", stages=tmp_path / "stages")
    assert not (folder / hub_folder.STAGES).exists() and visible(folder) == visible(built)


def test_a_leak_leaves_nothing_finished(tmp_path):
    leaky = replace(SHOP, protocol=PAPER.replace(classifier=None, leaks="error"))
    with pytest.raises(LeakageError, match="LEAK"):
        build(tmp_path, leaky)
    assert visible(tmp_path) == {}
    build(tmp_path, replace(leaky, protocol=leaky.protocol.replace(leaks="flag")))
    assert "leaks found, and flagged:**" in (tmp_path / "README.md").read_text("utf-8")


def test_a_classifier_that_cannot_be_had_stops_before_anything_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE is set. Let rules decide"):
        build(tmp_path / "out", replace(SHOP, protocol=PAPER))
    assert not (tmp_path / "out").exists()


def test_a_classifier_in_a_folder_is_named_without_its_place_and_counts_by_its_weights(tmp_path, monkeypatch):
    class Judge:
        def __init__(self, path, *arguments, **options):
            self.word = (Path(path) / "model.safetensors").read_text()

        def polarity(self, texts):
            negative = texts.str.to_lowercase().str.starts_with(self.word)
            return pl.select(pl.when(negative).then(pl.lit("negative")).otherwise(pl.lit("positive"))).to_series()

        def review_polarity(self, interactions):
            return pl.Series(["negative"] * interactions.height)

    monkeypatch.setattr("preference_benchmark.axes.build.SentimentClassifier", Judge)
    weights = tmp_path / "place" / "judge" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    shop = replace(SHOP, protocol=PAPER.replace(classifier=str(weights.parent)))
    counts = []
    for word in ("avoid", "find"):
        weights.write_text(word)
        found = statistics_of(build(tmp_path / "out", shop))
        assert found["protocol"]["classifier"] == "judge"
        counts.append(found["preferences"]["negative"])
    assert counts[0] < counts[1]
    assert not any(str(tmp_path).encode() in data for data in visible(tmp_path / "out").values())


def test_preferences_from_a_file(built, tmp_path):
    tables = read_tables(SHOP)
    write_preferences(random_preferences(tables, 4), tmp_path / "mine.parquet", {}, tables)
    mine = statistics_of(build(tmp_path / "out", replace(SHOP, preferences=tmp_path / "mine.parquet")))
    assert mine["preferences_by"] == "the file mine.parquet"
    assert mine["preferences"] != statistics_of(built)["preferences"]
    tables.items.write_parquet(tmp_path / "wrong.parquet")
    for name, error in (("wrong.parquet", ValueError), ("absent.parquet", FileNotFoundError)):
        with pytest.raises(error, match="lack the columns|does not exist"):
            build(tmp_path / "out", replace(SHOP, preferences=tmp_path / name))


@pytest.fixture
def own(tmp_path):
    """A recipe for tables of one's own, and the tables."""
    tables = read_tables(SHOP)
    (tmp_path / "mine").mkdir()
    tables.items.write_parquet(tmp_path / "mine" / "items.parquet")
    tables.interactions.drop("step").write_parquet(tmp_path / "mine" / "interactions.parquet")
    return recipe("mine", source="table", data=tmp_path / "mine"), tables


def test_changed_raw_files_are_noticed(own, tmp_path):
    shop, tables = own
    assert statistics_of(build(tmp_path / "out", shop))["interactions"] == tables.interactions.height
    users = tables.interactions["user_id"].unique().sort()[:40]
    kept = tables.interactions.filter(pl.col("user_id").is_in(users.implode()))
    kept.drop("step").write_parquet(tmp_path / "mine" / "interactions.parquet")
    assert statistics_of(build(tmp_path / "out", shop))["users"] == 40


def test_files_that_options_name_count_by_their_content(own, tmp_path):
    shop, tables = own
    goods = tmp_path / "goods.parquet"
    shop = replace(shop, options={"items": str(goods)})
    anew = []
    for number, title in enumerate((None, "Other goods", "Other goods")):
        items = tables.items if title is None else tables.items.with_columns(title=pl.lit(title))
        items.write_parquet(goods)
        os.utime(goods, ns=(number, number))
        seen = []
        build(tmp_path / "out", shop, seen=seen)
        anew.append([name for name, found in seen if not found][:2])
    assert anew == [["inputs", "tables"], ["inputs", "tables"], ["inputs"]]


def test_a_full_disk_leaves_nothing_half_written(copy, monkeypatch):
    before = visible(copy)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "draw", full)
    with pytest.raises(OSError, match="No space left"):
        build(copy, OTHER_SEED)
    assert visible(copy) == before


def test_a_user_is_asked_out_of_every_few(built, tmp_path):
    sparse = statistics_of(build(tmp_path, replace(SHOP, protocol=SHOP.protocol.replace(user_stride=2))))
    whole = statistics_of(built)
    assert sparse["users"] == -(-whole["users"] // 2) and sparse["items"] == whole["items"]


def test_a_shop_whose_users_bought_three_things_each_has_an_empty_training_split(tmp_path):
    shop = recipe("corner-shop", options={"num_users": 40, "num_items": 30})
    shop = replace(shop, protocol=shop.protocol.replace(max_history=3, axes=("recommendation",)))
    found = load(build(tmp_path, shop))
    assert len(found.examples["oracle"]["train"]) == 0 < len(found.examples["oracle"]["test"])
    assert found.examples["oracle"]["train"].features == found.examples["oracle"]["test"].features
