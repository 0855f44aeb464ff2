"""Words in, items out: one surface over models of every kind, and edits that last."""

from __future__ import annotations

import json

import pytest
import torch
from doubles import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_shops import IDS, fit_counts, shop_of
from transformers import AutoModel, AutoProcessor

import mender
from mender import Recommender, Request
from modeling_mender import add_lora
from modeling_mender.training import closed_form


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Recommenders by preset; tests that edit one take a copy from its folder."""
    made = {}

    def get(name: str) -> Recommender:
        if name not in made:
            made[name] = shop_of(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture
def saved(shops, tmp_path):
    def get(name: str) -> Recommender:
        shops(name).save_pretrained(tmp_path / name, purchases=True)
        return Recommender.from_pretrained(tmp_path / name, device="cpu")

    return get


def ids(items) -> list[str]:
    return [item["item_id"] for item in items]


def test_few_names_are_exported():
    assert {"Recommender", "Request"} <= {*mender.__all__} and len(mender.__all__) <= 12
    assert mender.Recommender is Recommender


@pytest.mark.parametrize("name", ["mender", "mender-lite", "mender-tok", "sasrec", "item-item"])
def test_answers_are_those_of_model_and_processor(shops, name):
    shop = shops(name)
    history = IDS[:3]
    words = {"preference": "find strong tea", "avoid": ["rose"]} if shop.processor.preference == "text" else {}
    found = shop.recommend(history=history, exclude=history, top_k=4, **words)
    inputs = shop.processor(words.get("preference"), history, avoid=words.get("avoid"))
    expected = shop.model.recommend(**inputs, top_k=4, exclude=shop.processor.item_indices(history))
    assert ids(found) == shop.processor.ids(expected.item_indices[0])
    assert [item["score"] for item in found] == pytest.approx(expected.scores[0].tolist(), abs=1e-4)
    assert [item["title"] for item in found] == [item["item_id"].removeprefix("item-") for item in found]


def test_a_batch_answers_as_single_requests_do(shops):
    shop = shops("mender")
    requests = [
        {"preference": "find tea", "history": IDS[:2], "top_k": 2},
        "find lamp",
        {"inferred": "likes mint", "history": IDS[3:5], "why": True},
        Request(preference={"find tea": 2, "mint": 1}, avoid="rose", weights={"behaviour": 0.0}, top_k=5),
        {"history": IDS[5:9], "prior": {IDS[0]: 50.0}, "dial": 2.0},
        {"preference": "green", "avoid": ["soap"], "strict": True, "allowed": IDS[:9], "exclude": [IDS[4]]},
    ]
    together = shop.recommend_batch(requests, batch_size=6, top_k=3)
    for request, found in zip(requests, together, strict=True):
        alone = shop.recommend_batch([request], top_k=3)[0]
        assert ids(found) == ids(alone)
        assert [item["score"] for item in found] == pytest.approx([item["score"] for item in alone], abs=1e-3)
        assert ["why" in item for item in found] == ["why" in item for item in alone]
    assert list(map(len, together)) == [2, 3, 3, 5, 3, 3]
    assert ids(together[4])[0] == IDS[0]
    assert "item-soap" not in ids(together[5]) and IDS[4] not in ids(together[5])
    assert sum(together[2][0]["why"].values()) == pytest.approx(
        together[2][0]["score"] - sum(item["score"] for item in together[2]) / 3, abs=1e-3
    )
    assert shop.recommend_batch([]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the request is empty"),
        ({"preference": "tea", "inferred": "tea"}, "one of the two"),
        ({"history": ["item-ta"]}, "'item-ta' is not among the 16 items; the nearest known ids are 'item-tea'"),
        ({"history": IDS[0]}, "a list of item ids"),
        ({"preference": "tea", "avoid": "tea"}, "wants 'tea' and wants to avoid it"),
        ({"preference": "tea", "exclude": IDS}, "no item is left"),
        ({"preference": "tea", "weights": {"magic": 1}}, "there is no expert 'magic'"),
        ({"preference": {"tea": 1, "mug": -1}}, "whose sum is above 0"),
        ({"preference": {"tea": 1, "mug": -2}}, "whose sum is above 0"),
        ({"preference": {"mug": -1}}, "whose sum is above 0"),
        ({"preference": "tea", "top_k": 0}, "top_k=0; pass at least 1"),
        ({"preference": "tea", "dial": float("nan")}, "finite"),
        ({"preference": "tea", "prior": {"nothing": 1.0}}, "'nothing' is not among"),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(shops, arguments, message):
    with pytest.raises(ValueError, match=message):
        shops("mender").recommend(**arguments)


@pytest.mark.parametrize("value", [{"preference": 3}, {"preference": "tea", "top_k": "5"}, {"avoid": {"tea": 1}}])
def test_values_of_the_wrong_kind_are_refused(shops, value):
    with pytest.raises(TypeError, match="pass"):
        shops("mender").recommend(**value)


@pytest.mark.parametrize("name", ["mender", "mender-lite", "mender-tok"])
def test_something_to_avoid_is_a_request(shops, name):
    shop = shops(name)
    found = shop.recommend(avoid=["rose", "no mint" if shop.processor.experts else "mint"], top_k=16)
    assert {*ids(found)} == {*IDS} and found == shop.recommend(["Avoid rose", "Avoid mint"], top_k=16)


def test_adapted_models_are_asked_and_saved_once_they_are_merged(tmp_path):
    shop = shop_of("mender-tok", tmp_path)
    adapted = add_lora(shop.model, rank=2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data += torch.randn_like(parameter)
    shop = Recommender(adapted, shop.processor)
    found = shop.recommend("find tea", history=IDS[:2])
    with pytest.raises(ValueError, match="adapters, which are saved without it"):
        shop.save_pretrained(tmp_path / "shop")
    assert not (tmp_path / "shop").exists()
    Recommender(adapted.merge_and_unload(), shop.processor).save_pretrained(tmp_path / "shop")
    merged = Recommender.from_pretrained(tmp_path / "shop", device="cpu").recommend("find tea", history=IDS[:2])
    assert ids(merged) == ids(found)
    assert [item["score"] for item in merged] == pytest.approx([item["score"] for item in found], abs=1e-4)


def test_unknown_ids_can_be_skipped_and_unread_fields_are_refused(shops):
    shop = shops("mender")
    expected = shop.recommend("tea", history=IDS[:2])
    assert shop.recommend("tea", history=[*IDS[:1], "gone", IDS[1]], unknown_items="skip") == expected
    with pytest.raises(ValueError, match="reads no preferences"):
        shops("sasrec").recommend("tea", history=IDS[:2])
    with pytest.raises(ValueError, match="no field 'histroy', did you mean 'history'"):
        shop.recommend_batch([{"histroy": IDS[:1]}])


NEW = {"item_id": "new-1", "title": "strong lamp tea", "text": "strong lamp tea glass", "aspects": ["glass"]}


@pytest.mark.parametrize("name", ["mender", "mender-lite"])
def test_an_added_item_is_found_in_another_process(saved, tmp_path, name):
    shop = saved(name)
    shop.add_items([NEW])
    assert "new-1" in shop and len(shop) == len(IDS) + 1 and shop.status["added"] == 1
    shop.save_pretrained(tmp_path / "again")
    again = Recommender.from_pretrained(tmp_path / "again", device="cpu")
    words = {"terms": 100.0, "dense": 0.0, "learned": 0.0, "history_text": 0.0}
    assert ids(again.recommend("strong lamp tea glass", weights=words))[0] == "new-1"
    assert again.items[-1]["aspects"] == ["glass"]
    assert ids(again.recommend(history=["new-1", *IDS[:2]])) == ids(shop.recommend(history=["new-1", *IDS[:2]]))
    # Transformers alone loads the folder as well.
    model, processor = AutoModel.from_pretrained(tmp_path / "again"), AutoProcessor.from_pretrained(tmp_path / "again")
    found = model.eval().recommend(**processor("strong lamp tea glass"), weights=words, top_k=1)
    assert processor.ids(found.item_indices[0]) == ["new-1"]


def test_items_change_and_go(saved):
    shop = saved("mender")
    shop.update_items([{"item_id": "item-tea", "title": "wool hat", "aspects": ["cotton"]}])
    tea = next(item for item in shop.items if item["item_id"] == "item-tea")
    assert tea["title"] == "wool hat" and tea["aspects"] == ["cotton"]
    shop.remove_items(["item-mug"])
    assert "item-mug" not in shop and len(shop) == len(IDS) - 1
    assert "item-mug" not in ids(shop.recommend("mug", history=["item-mug"], top_k=20))
    with pytest.raises(ValueError, match="its id is kept"):
        shop.add_items([{"item_id": "item-mug", "title": "mug"}])


def test_what_an_update_leaves_out_or_gives_as_none_stays(saved):
    shop = saved("mender")
    own = {"item_id": "item-tea", "title": "wool hat", "text": "a text of its own", "aspects": ["cotton"]}
    shop.update_items([own])
    shop.update_items([{"item_id": "item-tea", "title": "felt hat", "text": None, "aspects": None}])
    tea = next(item for item in shop.items if item["item_id"] == "item-tea")
    assert {name: tea[name] for name in own} == {**own, "title": "felt hat"}


def test_a_catalogue_with_items_that_came_and_went_needs_no_new_codes(saved):
    shop = saved("mender")
    new = [{"item_id": f"new-{place}", "title": "strong tea"} for place in range(len(IDS) // 2)]
    shop.add_items(new)
    assert any("refit_codes" in line for line in shop.status["advice"])
    shop.remove_items([item["item_id"] for item in new])
    assert shop.status["added"] == shop.status["removed"] == len(new) and not shop.status["advice"]


@pytest.mark.parametrize(
    ("edit", "argument", "message"),
    [
        ("add_items", [{"item_id": "item-tea", "title": "tea"}], "change it with update_items"),
        ("add_items", [{"item_id": "x"}], "title is missing"),
        ("add_items", [{"item_id": 3, "title": "tea"}], "item_id is missing or no text"),
        ("add_items", [{"item_id": "x", "title": "tea", "aspect": ["a"]}], "did you mean 'aspects'"),
        ("add_items", [{"item_id": "x", "title": "tea", "aspects": "a"}], "a list of phrases"),
        ("add_items", [], "no items"),
        ("remove_items", "item-tea", "a single text"),
        ("remove_items", ["nothing"], "not among"),
        ("update_items", [{"item_id": "nothing", "title": "a"}], "not among"),
        ("update_items", ["item-tea"], "'item-tea' is not an item"),
        ("observe", [("user", "nothing")], "not among"),
        ("observe", [("user",)], "pairs of a user id and an item id"),
    ],
)
def test_edits_that_fail_change_nothing(shops, edit, argument, message):
    shop = shops("mender")
    model, before = shop.model, shop.recommend("tea", history=IDS[:2])
    with pytest.raises(ValueError, match=message):
        getattr(shop, edit)(argument)
    assert shop.model is model and shop.recommend("tea", history=IDS[:2]) == before


def test_a_model_without_item_vectors_adds_items_by_those_of_its_encoder(saved, monkeypatch):
    shop = saved("mender-tok")
    monkeypatch.setattr("mender.learning.embed", lambda texts, encoder: torch.ones(len(texts), 24).half())
    shop.add_items([NEW])
    assert "new-1" in shop and len(shop._version.vectors) == len(IDS) + 1
    assert "new-1" in ids(shop.recommend("strong tea", top_k=20))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, len(WORDS) - 1)), min_size=1, max_size=30), st.integers(1, 29)
)
def test_observed_purchases_count_as_if_the_model_was_fitted_with_them(shops, events, cut):
    shop = shops("item-item")
    base = {f"user-{place}": [place, place + 1, place + 2] for place in range(3)}
    fresh = Recommender(shop.model, shop.processor, settings=shop.settings, purchases=base)
    with fresh._edit() as edit:
        fit_counts(edit.model.experts, list(base.values()))
    pairs = [(f"user-{user}", IDS[item]) for user, item in events]
    for part in (pairs[:cut], pairs[cut:]):
        fresh.observe(part)
    whole = {user: list(own) for user, own in base.items()}
    for user, item in events:
        whole.setdefault(f"user-{user}", []).append(item)
    expected = closed_form.transitions(list(whole.values()), len(IDS))
    experts = fresh.model.experts
    torch.testing.assert_close(experts.popularity.counts, closed_form.popularity(list(whole.values()), len(IDS)))
    history = torch.arange(len(IDS))[:, None]
    torch.testing.assert_close(experts.transitions(history), expected.to_dense(), rtol=1e-4, atol=1e-5)
    assert fresh.status["observed"] == len(events)
    fresh.settings["purchases"] = 9
    assert fresh.refit_behaviour()["behind"] == 0
    ease, _ = closed_form.ease(list(whole.values()), len(IDS), 2.0)
    torch.testing.assert_close(fresh.model.experts.co_purchase(history), ease, rtol=1e-4, atol=1e-5)


def test_user_ids_may_be_numbers(shops, tmp_path):
    shop = shops("item-item")
    numbered = Recommender(shop.model, shop.processor, settings=shop.settings, purchases={7: [0, 1]})
    numbered.observe([(7, IDS[2])])
    assert numbered._version.purchases == {"7": [0, 1, 2]}
    numbered.save_pretrained(tmp_path, purchases=True)
    assert Recommender.from_pretrained(tmp_path, device="cpu")._version.purchases == {"7": [0, 1, 2]}


def test_behaviour_is_not_fitted_again_on_purchases_after_the_training_alone(shops):
    shop = shops("mender")
    unknown = Recommender(shop.model, shop.processor)  # as transformers alone would have saved it
    with pytest.raises(ValueError, match="trained on unknown ones"):
        unknown.refit_behaviour()
    unknown.observe([("user", IDS[0])])
    with pytest.raises(ValueError, match="1 purchases are known"):
        unknown.refit_behaviour()


def test_purchases_are_saved_on_request_only(shops, tmp_path):
    shop = shops("mender")
    shop.save_pretrained(tmp_path / "public")
    assert not list((tmp_path / "public").glob("purchases*"))
    assert "user-1" not in "".join(path.read_text("latin-1") for path in (tmp_path / "public").iterdir())
    shared = Recommender.from_pretrained(tmp_path / "public", device="cpu")
    shared.observe([("user-1", IDS[0])])
    with pytest.raises(ValueError, match="save with purchases=True"):
        shared.refit_behaviour()
    shop.save_pretrained(tmp_path / "ours", purchases=True)
    ours = Recommender.from_pretrained(tmp_path / "ours", device="cpu")
    assert ours._version.purchases == shop._version.purchases
    ours.observe([("user-1", IDS[0])])
    assert ours.refit_behaviour()["observed"] == 0


def test_saving_keeps_files_of_others_and_says_what_was_trained(shops, tmp_path):
    shop = shops("mender-lite")
    shop.save_pretrained(tmp_path / "shop")
    (tmp_path / "shop" / "README.md").write_text("ours")
    shop.save_pretrained(tmp_path / "shop")
    assert (tmp_path / "shop" / "README.md").read_text() == "ours"
    record = json.loads((tmp_path / "shop" / "recommender.json").read_text())
    assert record["settings"]["preset"] == "mender-lite" and record["settings"]["trained_items"] == len(IDS)


def purchases_file(**changes) -> dict[str, torch.Tensor]:
    parts = {"users": [97, 98], "user_bytes": [1, 1], "items": [0, 1, 2], "counts": [1, 2]} | changes
    return {name: torch.tensor(values) for name, values in parts.items()}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("purchases", b"[" * 99, "cannot be read"),
        ("purchases", purchases_file(counts=[1, 2**40]), "items that are not in items.json"),
        ("purchases", purchases_file(user_bytes=[-1, 3]), "do not fit together"),
        ("purchases", purchases_file(items=[0, 1, 16]), "items that are not in items.json"),
        ("purchases", purchases_file(items=[0.0, 1.0, 2.0]), "lacks a list of whole numbers"),
        ("purchases", purchases_file(users=[97, 97]), "a user twice"),
        ("purchases", purchases_file(users=[255, 97]), "is damaged"),
        ("item_vectors", b"", "cannot be read"),
        ("item_vectors", {"vectors": torch.ones(15, 8)}, "numbers of shape"),
        ("item_vectors", {"vectors": torch.ones(16)}, "numbers of shape"),
        ("item_vectors", {"vectors": torch.full((16, 8), torch.nan)}, "not finite"),
    ],
)
def test_damaged_files_beside_the_model_are_refused(shops, tmp_path, file, content, message):
    shops("mender").save_pretrained(tmp_path / "shop")
    path = tmp_path / "shop" / f"{file}.safetensors"
    path.write_bytes(content) if isinstance(content, bytes) else save_file(content, path)
    with pytest.raises(ValueError, match=message):
        Recommender.from_pretrained(tmp_path / "shop", device="cpu")


@pytest.mark.parametrize("field", ["trained_items", "observed", "purchases", "ridge_penalty", "preset", "encoder"])
@pytest.mark.parametrize("value", [[], -1, float("inf"), {"x": 1}])
def test_settings_of_another_kind_are_refused(shops, tmp_path, field, value):
    shops("mender").save_pretrained(tmp_path / "shop")
    path = tmp_path / "shop" / "recommender.json"
    record = json.loads(path.read_text())
    record["settings"][field] = value
    path.write_text(json.dumps(record))
    if field == "encoder" and value == {"x": 1}:
        assert Recommender.from_pretrained(tmp_path / "shop", device="cpu").status["added"] == 0
    else:
        with pytest.raises(ValueError, match=f"{field} is not what mender writes"):
            Recommender.from_pretrained(tmp_path / "shop", device="cpu")
