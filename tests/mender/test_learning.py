"""Recommenders are trained on whatever holds purchases, and measured on the same."""

from __future__ import annotations

import datasets
import pandas as pd
import polars as pl
import pytest
import torch
from doubles import shop_examples, shop_items
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

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
        (3, shop_items(), "int is not a table"),
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


TITLES = [
    *("grüner Tee mit Minze", "grüner Tee mit Honig", "schwarzer Tee mit Kardamom", "blaue Tasse aus Ton"),
    *("зелений чай з м'ятою", "чорний чай", "синя чашка", "червона чашка", "緑茶", "紅茶", "青い茶碗", "白い茶碗"),
]


@pytest.fixture
def multilingual_encoder(tmp_path) -> str:
    """Folder of a tiny XLM-RoBERTa, the family of most multilingual sentence encoders."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TITLES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **names).save_pretrained(tmp_path / "xlm")
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=66, pad_token_id=1, **shape
    )
    XLMRobertaModel(config).save_pretrained(tmp_path / "xlm")
    return str(tmp_path / "xlm")


def test_an_encoder_of_other_languages_reads_wishes_in_them(multilingual_encoder, tmp_path):
    ids = [f"i{number}" for number in range(len(TITLES))]
    examples = [
        {"preferences": [title], "history": [ids[place - 1]], "target": ids[place]}
        for place, title in enumerate(TITLES)
    ]
    items = {"item_id": ids, "title": TITLES}
    shop = Recommender.train(
        datasets.Dataset.from_list(examples * 4), items, preset="text-search", encoder=multilingual_encoder
    )
    shop.save_pretrained(tmp_path / "shop")
    for one in (shop, Recommender.from_pretrained(tmp_path / "shop", device="cpu")):
        for wish, found in {"blaue Tasse": "blaue Tasse aus Ton", "синя чашка": "синя чашка", "緑茶": "緑茶"}.items():
            assert one.recommend(wish, top_k=1)[0]["title"] == found
        # Strictly, as the vectors of an encoder with random weights say little of mint.
        asked = one.recommend("grüner Tee", avoid="Minze", strict=True, top_k=len(TITLES) - 1)
        titles = [item["title"] for item in asked]
        assert "grüner Tee mit Honig" in titles and "grüner Tee mit Minze" not in titles
    assert shop.processor.corrected("schwartzer Tee") == "schwarzer Tee"


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
