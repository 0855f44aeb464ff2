"""A benchmark that was built and published is read as it stands, matching modes and items included."""

from __future__ import annotations

import pytest
from datasets import Dataset

from mender.data import load_benchmark_data

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
            rows = Dataset.from_dict({"preferences": [[f"{config} {split}"]], "target": ["a"]})
            rows.to_parquet(folder / config / f"{split}.parquet")
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
    assert data.texts == ["shop train"] and data.cache.is_dir()


def test_wrong_names_are_refused(built):
    (built / "README.md").write_text(README.format(items="goods"))
    with pytest.raises(ValueError, match="no configuration 'shop-items'; found shop, shop-last, goods"):
        load_benchmark_data("shop", built, "some-encoder")
