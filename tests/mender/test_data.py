"""A benchmark that was built and published is read as it stands, matching modes and items included."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from datasets import Dataset, DatasetDict

from mender import data as data_module
from mender.data import BenchmarkData, load_benchmark_data
from preference_benchmark.axes.examples import STORED_FEATURES
from preference_benchmark.builder import Benchmark

README = """---
configs:
- config_name: shop
  data_files: [{{split: train, path: shop/train.parquet}}, {{split: test, path: shop/test.parquet}}]
- config_name: shop-last
  data_files: [{{split: train, path: last/train.parquet}}, {{split: test, path: last/test.parquet}}]
- config_name: {items}
  data_files: [{{split: items, path: items/items.parquet}}]
---
"""


@pytest.fixture
def built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "built"
    for config in ("shop", "last"):
        (folder / config).mkdir(parents=True)
        for split in ("train", "test"):
            row = {name: "" for name in STORED_FEATURES} | {"preferences": [f"{config} {split}"], "avoid": []}
            row |= {"history": [1], "targets": [0], "pair_id": -1}
            Dataset.from_list([row], features=STORED_FEATURES).to_parquet(folder / config / f"{split}.parquet")
    (folder / "items").mkdir()
    items = {"item_id": ["a", "b"], "title": ["A", "B"], "text": ["a a", "b b"]}
    Dataset.from_dict(items).to_parquet(folder / "items" / "items.parquet")
    (folder / "README.md").write_text(README.format(items="shop-items"))
    return folder


def test_built_folder_is_read(built):
    data = load_benchmark_data("shop", built, "some-encoder")
    assert data.item_columns == {"item_id": ["a", "b"], "title": ["A", "B"], "text": ["a a", "b b"]}
    assert data.examples["oracle"]["test"]["preferences"][:] == [["shop test"]]
    assert data.examples["last"]["train"]["preferences"][:] == [["last train"]]
    assert data.examples["last"]["test"][0]["history"] == ["b"] and data.examples["last"]["test"][0]["targets"] == ["a"]
    assert data.texts == ["shop train"] and data.cache.is_dir()


def test_wrong_names_are_refused(built):
    (built / "README.md").write_text(README.format(items="goods"))
    with pytest.raises(ValueError, match="no configuration 'shop-items'; found shop, shop-last, goods"):
        load_benchmark_data("shop", built, "some-encoder")


def test_a_benchmark_of_another_name_is_told_from_raw_files(built):
    with pytest.raises(ValueError, match="no configuration 'table'; found shop, shop-last, shop-items. Pass --source"):
        load_benchmark_data("table", built, "some-encoder")
    (built / "README.md").write_text(README.format(items="other-items"))
    with pytest.raises(FileNotFoundError, match="no interactions in .*: expected a file named interactions.csv"):
        load_benchmark_data("table", built, "some-encoder")


def matched_data(tmp_path):
    examples = {}
    for mode in ("oracle", "last"):
        axes = ["recommendation", "fine_grained_steering"] * 2
        split = Dataset.from_dict({"axis": axes, "preferences": [[f"{mode} {row}"] for row in range(4)]})
        examples[mode] = DatasetDict(train=split, validation=split, test=split)
    return BenchmarkData("shop", Dataset.from_dict({"item_id": ["a"]}), examples, tmp_path)


def test_recommendation_examples_of_both_matchings_and_the_other_axes_once(tmp_path):
    data = matched_data(tmp_path)
    assert data.matched({"oracle": 1.0, "last": 0.0}) is data.examples["oracle"]
    assert data.matched({"last": 1.0}) is data.examples["last"]
    both = data.matched({"oracle": 2.0, "last": 0.5}, seed=0)
    texts = [text for (text,) in both["train"]["preferences"]]
    assert texts[:6] == ["oracle 1", "oracle 3", "oracle 0", "oracle 2", "oracle 0", "oracle 2"]
    assert len(texts) == 7 and texts[6] in ("last 0", "last 2")
    assert both["train"].features == data.examples["oracle"]["train"].features
    validation = [text for (text,) in both["validation"]["preferences"]]
    assert validation == ["oracle 1", "oracle 3", "oracle 0", "oracle 2", "last 0", "last 2"]


def test_a_matching_the_benchmark_lacks_is_refused(tmp_path):
    data = matched_data(tmp_path)
    del data.examples["last"]
    with pytest.raises(ValueError, match="matching='last' is not in this benchmark, which has oracle; build"):
        data.matched({"oracle": 1.0, "last": 1.0})


@pytest.fixture
def built_here(tmp_path, monkeypatch):
    """Raw files, and a function that loads them and says whether they had to be read and built for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "reviews_Beauty_5.json.gz").write_bytes(b"reviews")
    items = Dataset.from_dict({"item_id": ["a"], "title": ["A"], "text": ["a"]})
    examples = DatasetDict(train=Dataset.from_dict({"preferences": [["Find a"]]}))
    built = []
    monkeypatch.setattr(data_module, "read_source", lambda *arguments, **options: SimpleNamespace(report="read"))
    monkeypatch.setattr(data_module, "TextEmbedder", lambda encoder: None)

    def build_benchmark(tables, embedder, *, seed):
        built.append(seed)
        return Benchmark(items, {"oracle": examples, "last": examples}, "built")

    monkeypatch.setattr(data_module, "build_benchmark", build_benchmark)

    def load(path, source="amazon2014"):
        before = len(built)
        assert load_benchmark_data(source, path, "encoder").texts == ["Find a"]
        return len(built) > before

    return load


@pytest.mark.parametrize("given", ["raw", "raw/reviews_Beauty_5.json.gz"])
def test_what_was_built_is_built_again_when_files_or_code_change(given, built_here, tmp_path, monkeypatch):
    path = tmp_path / given
    assert [built_here(path) for _ in range(2)] == [True, False]
    # Metadata lie beside the reviews.
    (tmp_path / "raw" / "meta_Beauty.json.gz").write_bytes(b"metadata")
    assert [built_here(path) for _ in range(2)] == [True, False]
    (tmp_path / "raw" / "meta_Beauty.json.gz").write_bytes(b"other metadata")
    assert [built_here(path) for _ in range(2)] == [True, False]
    for module in ("preference_benchmark.stages", "preference_benchmark.builder"):
        monkeypatch.setattr(f"{module}.digest_of_code", lambda *modules: "of tomorrow")
        assert [built_here(path) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "readme",
    [
        "# My tables\n",
        "---\nconfigs:\n- config_name: default\n  data_files: '*.parquet'\n- config_name: items\n---\n",
        "---\nconfigs: 5\n---\n",
        "---\nlicense: [\n---\n",
        "---\nmine\n---\n",
    ],
)
def test_raw_tables_may_have_a_readme(readme, built_here, tmp_path):
    for name in ("interactions.parquet", "items.parquet"):
        Dataset.from_dict({"item_id": ["a"]}).to_parquet(tmp_path / "raw" / name)
    (tmp_path / "raw" / "README.md").write_text(readme)
    assert built_here(tmp_path / "raw", "table")
