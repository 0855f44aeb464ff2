"""Recommenders are trained on whatever holds purchases, and measured on the same."""

from __future__ import annotations

import datasets
import pandas as pd
import polars as pl
import pytest
from doubles import shop_examples, shop_items

from mender import Recommender
from mender.learning import read_data

IDS = shop_items()["item_id"]
SMALL = {
    "changes": {"decoder": {"num_layers": 1, "d_ff": 32}, "patience": 0},
    "training": {"num_train_epochs": 1},
    "validation_limit": 8,
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def frames() -> tuple[dict, dict]:
    """Purchases of eight users and items with aspects, as columns."""
    rows = [
        (f"user-{user}", IDS[(user + day) % len(IDS)], 1_700_000_000 + day) for user in range(8) for day in range(6)
    ]
    users, bought, times = (list(column) for column in zip(*rows, strict=True))
    items = {**shop_items(), "aspects": [[word] for word in shop_items()["title"]]}
    return {"user_id": users, "item_id": bought, "timestamp": times, "rating": [5] * len(users)}, items


def test_built_benchmarks_recipes_and_mistakes_are_told_apart(word_shop, tiny_encoder):
    data = read_data(word_shop, encoder=tiny_encoder)
    assert data.source == "words" and len(data.items) == len(IDS)
    for given, items, message in (
        ("nowhere", None, "no folder 'nowhere'; pass one, or the name of a recipe: .*corner-shop"),
        (pd.DataFrame(frames()[0]), None, "pass both"),
        (shop_examples()["train"], None, "pass items="),
        (str(word_shop), shop_items(), "leave items= out"),
        ("org/shop", None, "pass source="),
        (3, shop_items(), "int is no table"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_data(given, items, encoder=tiny_encoder)


@pytest.mark.parametrize(
    "kind", ["pandas", pytest.param("polars", marks=pytest.mark.slow), pytest.param("arrow", marks=pytest.mark.slow)]
)
def test_frames_become_a_recommender(kind, tiny_encoder, monkeypatch):
    interactions, items = frames()
    make = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": datasets.Dataset.from_dict}[kind]
    given = (pl.DataFrame(interactions), make(items)) if kind == "arrow" else (make(interactions), make(items))
    shop = Recommender.train(*given, preset="item-item", encoder=tiny_encoder)
    assert len(shop) == len(IDS) and all(item["aspects"] == [item["title"]] for item in shop.items)
    found = shop.recommend(history=IDS[:3], exclude=IDS[:3], top_k=2)
    assert len(found) == 2
    assert shop.status["observed"] == 0 and shop.observe([("user-0", IDS[0])])["observed"] == 1
    assert sum(map(len, shop._version.purchases.values())) == shop.settings["purchases"] + 1
    assert shop.refit_behaviour()["behind"] == 0


def test_plain_examples_become_a_recommender(tiny_encoder, tmp_path):
    examples = datasets.Dataset.from_list(
        [
            {"preferences": [f"find {IDS[place % 16][5:]}"], "history": [IDS[place % 7]], "target": IDS[place % 16]}
            for place in range(48)
        ]
    )
    shop = Recommender.train(examples, shop_items(), preset="mender", encoder=tiny_encoder, **SMALL)
    assert len(shop) == len(IDS) and shop.settings["preset"] == "mender"
    scores = shop.evaluate(examples, shop_items(), limit=8)
    assert {score.axis for score in scores} == {"recommendation"}
    shop.save_pretrained(tmp_path / "shop")
    again = Recommender.from_pretrained(tmp_path / "shop", device="cpu")
    assert again.recommend("find tea", top_k=3) == shop.recommend("find tea", top_k=3)
    again.remove_items(IDS[1:12])
    lower = again.evaluate(examples, shop_items(), limit=8)
    assert [score.results["n"] for score in lower] == [score.results["n"] for score in scores]
    assert lower[0].results["recall@10"] < scores[0].results["recall@10"]


def test_codes_are_fitted_again_with_the_items_of_today(word_shop, tiny_encoder, tmp_path):
    shop = Recommender.train(word_shop, preset="mender-tok", encoder=tiny_encoder, **SMALL)
    assert shop._version.vectors.shape == (len(IDS), 24)
    shop.save_pretrained(tmp_path / "shop")
    again = Recommender.from_pretrained(tmp_path / "shop", device="cpu")
    assert again._version.vectors.shape == shop._version.vectors.shape
    shop.remove_items(IDS[:1])
    shop.refit_codes(word_shop, encoder=tiny_encoder, **SMALL)
    assert len(shop) == len(IDS) and shop.status["removed"] == 0
    model = shop.model
    with pytest.raises(ValueError, match="the data lacks 1 items of the catalogue, such as 'item-new'"):
        lacking = Recommender(model, shop.processor, settings=shop.settings, vectors=shop._version.vectors)
        with lacking._edit() as edit:
            known = {"item_id": [*IDS[:-1], "item-new"], "title": shop.processor.titles, "text": shop.processor.texts}
            edit.processor.set_items(known)
        lacking.refit_codes(word_shop, encoder=tiny_encoder, **SMALL)
    assert lacking.model is not None and "item-new" in lacking
