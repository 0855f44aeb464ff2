"""A ready-made benchmark of the public schema becomes examples and items like those that are built here."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

from preference_benchmark import load
from preference_benchmark.axes.examples import (
    EXAMPLE_FEATURES,
    STORED_FEATURES,
    examples_dataset,
    items_dataset,
    of_split,
)
from preference_benchmark.axes.protocol import AXES, WISH_AXES
from preference_benchmark.hub.ready_made import read_ready_made, write_ready_made
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE

CODES = {item: [item % 3, item % 2, item, 0] for item in range(1, 13)}
THEIRS = {
    "preference_recommendation": "recommendation",
    "fine_grained_steering": "fine_grained_steering",
    "coarse_grained_steering": "coarse_grained_steering",
    "sentiment_following": "sentiment_following",
    "history_consolidation": "history_consolidation",
    "sentiment_with_history": "sentiment_following_with_history",
}
SCHEMA = {
    "id": pl.String,
    "dimension": pl.String,
    "expected_behavior": pl.String,
    "user_id": pl.String,
    "history_item_ids": pl.List(pl.Int32),
    "history_titles": pl.List(pl.String),
    "prompt_text": pl.String,
    "target_item_id": pl.Int32,
    "target_semantic_id": pl.List(pl.Int32),
    "target_title": pl.String,
    "steering_type": pl.String,
    "previous_item_id": pl.Int32,
}


def example(dimension: str, target: int, behaviour: str = "retrieve_target", **changes: object) -> dict:
    history = [] if dimension == "sentiment_following" else [1, 2, 3]
    row = {
        "id": f"{dimension}-{target}-{behaviour}",
        "dimension": dimension,
        "expected_behavior": behaviour,
        "user_id": "u7",
        "history_item_ids": history,
        "history_titles": [f"Soap {item}" for item in history],
        "prompt_text": f"Find soap like {target}",
        "target_item_id": target,
        "target_semantic_id": CODES[target],
        "target_title": f"Soap {target}",
        "steering_type": "positive",
        "previous_item_id": 3 if history else None,
    }
    return row | changes


def rows() -> list[dict]:
    five = "Find mild soap. Avoid scents. Prefer bars. Look for refills. Choose vegan ones"
    return [
        example("preference_recommendation", 4),
        example("fine_grained_steering", 5),
        example("coarse_grained_steering", 6),
        example("history_consolidation", 4, prompt_text=five),
        example("sentiment_following", 7, "avoid_target", prompt_text="Avoid strong scents"),
        example("sentiment_following", 8, "avoid_target", prompt_text="Avoid glitter"),
        example("sentiment_following", 7, prompt_text="Find strong scents"),
        example("sentiment_following", 8, prompt_text="Find glitter", user_id="another"),
        example("sentiment_with_history", 9, prompt_text="Find oils"),
        example("sentiment_with_history", 9, "avoid_target", prompt_text="Avoid oils"),
        example("sentiment_with_history", 10, "avoid_target", prompt_text="Avoid what nobody asks for"),
    ]


def write(folder: Path, examples: list[dict] | None = None, catalog: pl.DataFrame | None = None) -> Path:
    (folder / "data" / "benchmark").mkdir(parents=True)
    (folder / "data" / "catalog").mkdir()
    frame = pl.DataFrame(rows() if examples is None else examples, schema=SCHEMA)
    for split in ("train", "validation", "test"):
        frame.write_parquet(folder / "data" / "benchmark" / f"{split}.parquet")
    if catalog is None:
        catalog = pl.DataFrame(
            {"item_id": list(CODES), "semantic_id": list(CODES.values()), "title": [f"Soap {item}" for item in CODES]},
            schema={"item_id": pl.Int32, "semantic_id": pl.List(pl.Int32), "title": pl.String},
        ).reverse()
    catalog.write_parquet(folder / "data" / "catalog" / "catalog.parquet")
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_every_axis_has_its_counterpart_and_every_column_its_meaning(tmp_path):
    made = read_ready_made(write(tmp_path))
    assert made.axes == THEIRS and set(made.axes.values()) == set(AXES) - set(WISH_AXES)
    examples = examples_dataset(made.examples, made.items["item_id"])
    assert list(examples) == ["train", "validation", "test"]
    for data in examples.values():
        assert data.features == EXAMPLE_FEATURES and data.num_rows == 10
    found = examples["test"].to_list()
    first = found[0]
    assert (first["axis"], first["sentiment"], first["kind"]) == ("recommendation", POSITIVE, "stated")
    assert (first["user_id"], first["history"], first["targets"]) == ("u7", ["1", "2", "3"], ["4"])
    assert (first["preferences"], first["avoid"], first["pair_id"]) == (["Find soap like 4"], [], -1)
    consolidated = next(row for row in found if row["axis"] == "history_consolidation")
    assert len(consolidated["preferences"]) == 5 and consolidated["kind"] == "inferred"
    assert ". ".join(consolidated["preferences"]) == rows()[3]["prompt_text"]


def test_pairs_are_the_two_texts_about_one_target_and_halves_are_left_out(tmp_path):
    made = read_ready_made(write(tmp_path))
    assert made.unpaired == {"test": 1, "train": 1, "validation": 1}
    paired = made.examples.filter(pl.col("pair_id") >= 0)
    pairs = paired.group_by("pair_id").agg("sentiment", pl.col("targets").list.first(), "preferences")
    assert pairs.height == 9  # three in every split, none shared by two splits
    for row in pairs.iter_rows(named=True):
        assert len(set(row["targets"])) == 1
        assert set(row["sentiment"]) == {POSITIVE, NEGATIVE}
        said = {text.split(" ", 1)[1] for (text,) in row["preferences"]}
        assert len(said) == 1  # "Find x" and "Avoid x"


def test_items_carry_titles_and_semantic_ids_in_the_order_of_their_numbers(tmp_path):
    items = items_dataset(read_ready_made(write(tmp_path)).items)
    assert items["item_id"][:] == [str(item) for item in CODES]
    assert items["semantic_id"][:] == list(CODES.values())
    assert items[0] == {"item_id": "1", "title": "Soap 1", "text": "Soap 1", "aspects": [], "semantic_id": CODES[1]}


def test_a_data_set_with_a_card_is_loaded_by_its_configs(tmp_path, monkeypatch):
    """As on the Hub, where `load_dataset` finds the files through the configs of the card."""
    folder = write(tmp_path / "there")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: benchmark\n  default: true\n  data_files:\n"
        + "".join(f"  - {{split: {s}, path: data/benchmark/{s}.parquet}}\n" for s in ("train", "validation", "test"))
        + "- config_name: catalog\n  data_files: data/catalog/catalog.parquet\n---\n"
    )
    expected = read_ready_made(folder)
    import preference_benchmark.hub.ready_made as module

    real = module.load_dataset
    monkeypatch.setattr(module, "load_dataset", lambda name, config, revision: real(str(folder), config))
    found = read_ready_made("somebody/steerable", revision="main")
    assert found.items.equals(expected.items) and found.examples.equals(expected.examples)


def test_other_names_of_axes_are_asked_for_and_taken(tmp_path):
    renamed = [row | {"dimension": row["dimension"].replace("fine_grained_steering", "axis two")} for row in rows()]
    folder = write(tmp_path, renamed)
    with pytest.raises(ValueError, match=r"axes \['axis two'\] are not known; pass .*axes=\{'axis two': 'recommend"):
        read_ready_made(folder)
    made = read_ready_made(folder, axes={"axis two": "fine_grained_steering"})
    assert made.axes["axis two"] == "fine_grained_steering"
    with pytest.raises(ValueError, match="same name here"):
        read_ready_made(folder, axes={"axis two": "recommendation"})
    with pytest.raises(ValueError, match=r"does not fit: the data set has \['axis two', "):
        read_ready_made(folder, axes={"axis three": "recommendation"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expected_behavior": "maybe"}, r"expected_behavior holds \['maybe'\]; known are \['retrieve_target'"),
        ({"expected_behavior": "avoid_target"}, r"3 examples of \['preference_recommendation'\] ask to avoid"),
        ({"target_item_id": 99}, "1 items of the examples are not in the catalogue, such as 99"),
        ({"history_item_ids": [1, 77]}, "1 items of the examples are not in the catalogue, such as 77"),
        ({"target_semantic_id": [9, 9, 9, 9]}, r"another semantic ID .* item 4: \[9, 9, 9, 9\] and \[1, 0, 4, 0\]"),
    ],
)
def test_examples_that_do_not_fit_are_refused(tmp_path, changes, message):
    examples = rows()
    examples[0] |= changes
    with pytest.raises(ValueError, match=message):
        read_ready_made(write(tmp_path, examples))


def test_missing_files_and_columns_are_named(tmp_path):
    folder = write(tmp_path / "whole")
    (folder / "data" / "benchmark" / "test.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['data/benchmark/test.parquet'\]; copy the data set's"):
        read_ready_made(folder)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_ready_made(tmp_path / "nowhere")
    catalog = pl.DataFrame({"item_id": [1], "name": ["x"]})
    other = write(tmp_path / "other", catalog=catalog)
    with pytest.raises(ValueError, match=r"lacks the columns \['semantic_id', 'title'\]; found \['item_id', 'name'\]"):
        read_ready_made(other)
    shutil.rmtree(other)
    twice = pl.DataFrame({"item_id": [1, 1], "semantic_id": [[1], [2]], "title": ["x", "y"]})
    with pytest.raises(ValueError, match="lists 1 items more than once, such as 1"):
        read_ready_made(write(other, catalog=twice))


def test_written_it_is_read_like_a_benchmark_that_was_built(tmp_path):
    made = read_ready_made(write(tmp_path / "there"))
    output = write_ready_made(made, tmp_path / "beauty-llm", name="beauty-llm", origin="there")
    assert get_dataset_config_names(str(output)) == ["beauty-llm", "beauty-llm-items"]
    read = load_dataset(str(output), "beauty-llm")
    for split, data in read.items():
        assert data.features == STORED_FEATURES
        assert data.to_list() == of_split(made.examples, split).to_dicts()
    assert load_dataset(str(output), "beauty-llm-items", split="items").to_list() == made.items.to_dicts()
    loaded = load(output)
    assert loaded.name == "beauty-llm" and list(loaded.examples) == ["oracle"] and loaded.statistics == {}
    assert loaded.examples["oracle"]["test"]["targets"][0] == ["4"]
    assert DatasetCard.load(output / "README.md").data.license == "unknown"
    with pytest.raises(FileExistsError, match="exists; pass another folder"):
        write_ready_made(made, output, name="beauty-llm", origin="there")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["beauty-llm", "there"]
