"""Items added after training are found by what is said of them, and leave the others where they were."""

from __future__ import annotations

import pytest
import torch
from doubles import WORDS, encoder_folder, shop_items, small_method

from modeling_mender.configuration_mender import KINDS
from modeling_mender.training.new_items import add_items, nearest_codes

NEW = {
    "item_id": ["new-0", "new-1"],
    "title": ["strong lamp tea", "glass"],
    "text": ["strong lamp tea", "glass cotton"],
}
PRESETS = ["mender", "mender-lite", "mender-emb", "mender-fid", "text-search", "item-item"]


def method_of(name, folder, **changes):
    method = small_method(name, encoder_folder(folder), **changes)
    if (experts := getattr(method.model.eval(), "experts", None)) is not None:
        experts.config.set_weights({kind: dict.fromkeys(experts.config.weighted, 1.0) for kind in KINDS})
    return method


@pytest.mark.parametrize("name", PRESETS)
def test_new_items_come_behind_the_others_and_leave_their_scores(name, tmp_path):
    method = method_of(name, tmp_path)
    model, processor, count = method.model, method.processor, len(WORDS)
    asked = [["find mint tea"], [["item-mug", "item-soap"]]]
    if processor.preference == "none":
        asked[0] = [""]
    before = model.recommend(**processor(*asked), top_k=count, num_beams="exact")
    codes = torch.tensor([[0, 1], [2, 2]]) if name == "mender-fid" else None
    added = add_items(model, processor, NEW, codes=codes)
    assert added == [count, count + 1] and processor.item_ids[-2:] == NEW["item_id"]
    after = model.recommend(**processor(*asked), top_k=count + 2, num_beams="exact")
    assert set(after.item_indices[0].tolist()) == set(range(count + 2))
    old = after.item_indices[0] < count
    assert torch.equal(after.item_indices[0][old], before.item_indices[0])
    torch.testing.assert_close(after.scores[0][old], before.scores[0], rtol=1e-4, atol=1e-4)
    # They can be in a history, and are saved with the model.
    asked[1] = [["new-0", "item-soap"]]
    expected = model.recommend(**processor(*asked), top_k=5)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded, again = (type(one).from_pretrained(tmp_path / "model") for one in (model, processor))
    found = loaded.eval().recommend(**again(*asked), top_k=5)
    assert torch.equal(found.item_indices, expected.item_indices)


@pytest.mark.parametrize("name", ["mender", "mender-lite", "text-search"])
def test_new_items_have_the_vectors_and_words_of_a_model_that_was_built_with_them(name, tmp_path):
    method = method_of(name, tmp_path)
    items, model = shop_items(), method.model
    vectors = model.encoder if name == "mender" else model.experts.vectors
    whole = vectors.item_states.clone()
    # An item that is in the catalogue once more, under another id: it is scored as the first one is.
    twin = {"item_id": ["twin"], "title": [items["title"][5]], "text": [items["text"][5]]}
    (index,) = add_items(model, method.processor, twin)
    torch.testing.assert_close(vectors.item_states[index], whole[5], rtol=2e-3, atol=2e-3)
    scores = model.expert_scores(method.processor([f"find {items['title'][5]}"])["input_ids"])
    words = "lexical" if name == "text-search" else "terms"
    torch.testing.assert_close(scores[words][:, index], scores[words][:, 5])
    torch.testing.assert_close(scores["dense"][:, index], scores["dense"][:, 5], rtol=2e-3, atol=2e-2)
    if name == "mender":  # beside its twin, apart from it by the last level only
        codes = model.catalogue.codes
        assert codes[index, :-1].tolist() == codes[5, :-1].tolist() and codes[index, -1] != codes[5, -1]


def test_items_are_found_by_their_words(tmp_path):
    method = method_of("mender", tmp_path)
    added = add_items(method.model, method.processor, NEW)
    words = {"terms": 100.0, "dense": 0.0, "learned": 0.0, "history_text": 0.0}
    inputs = method.processor(["strong lamp tea"])
    found = method.model.recommend(**inputs, top_k=1, num_beams=3, weights=words)
    assert found.item_indices.tolist() == [added[:1]]


def test_nearest_codes_of_the_items_themselves_are_their_own():
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.randn(count, 8, generator=generator) for count in (3, 6))
    centres = 20 * coarse.repeat_interleave(2, 0) + fine
    vectors = centres.repeat(4, 1) + 0.01 * torch.randn(24, 8, generator=generator)
    codes = torch.tensor([[place % 6 // 2, place % 2, place // 6] for place in range(24)])
    assert torch.equal(nearest_codes(vectors, vectors, codes), codes[:, :-1])
    gone = codes.clone()
    gone[0::6] = -1  # the first centre has no items left
    found = nearest_codes(vectors, centres, gone)
    assert torch.equal(found[1:], codes[1:6, :-1]) and found[0].tolist() != codes[0, :-1].tolist()


@pytest.mark.parametrize(
    ("name", "items", "message"),
    [
        ("sasrec", NEW, "train it again"),
        ("mender-tok", NEW, "pass codes=quantizer.encode"),
        ("mender", {"item_id": ["item-tea"], "title": ["tea"]}, "'item-tea' is taken"),
        ("mender", {"item_id": ["new"], "title": []}, "1 item ids, 0 titles"),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(name, items, message, tmp_path):
    method = method_of(name, tmp_path)
    before = {key: value.clone() for key, value in method.model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        add_items(method.model, method.processor, items)
    assert method.processor.item_ids == shop_items()["item_id"]
    after = method.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_codes_without_room_are_refused_before_anything_changes(tmp_path):
    method = method_of("mender", tmp_path)
    many = {"item_id": [f"new-{place}" for place in range(9)], "title": ["tea"] * 9, "text": ["tea soap"] * 9}
    with pytest.raises(ValueError):
        add_items(method.model, method.processor, many)
    assert method.processor.item_ids == shop_items()["item_id"] and method.model.config.num_items == len(WORDS)
