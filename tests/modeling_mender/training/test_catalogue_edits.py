"""Items added after training are found by what is said of them, and leave the others where they were."""

from __future__ import annotations

import pytest
import torch
from doubles import WORDS, encoder_folder, shop_items, small_method

from modeling_mender import SemanticIdCatalogue
from modeling_mender.configuration_mender import KINDS
from modeling_mender.training.catalogue_edits import (
    add_items,
    ids_beside_similar,
    remove_items,
    removed_items,
    update_items,
)

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


def shelves() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vectors of 24 items around six centres, their codes, and the centres."""
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.randn(count, 8, generator=generator) for count in (3, 6))
    centres = 20 * coarse.repeat_interleave(2, 0) + fine
    vectors = centres.repeat(4, 1) + 0.01 * torch.randn(24, 8, generator=generator)
    return vectors, torch.tensor([[place % 6 // 2, place % 2, place // 6] for place in range(24)]), centres


def test_items_get_the_codes_of_similar_items():
    vectors, codes, centres = shelves()
    found = ids_beside_similar(vectors, vectors, SemanticIdCatalogue(codes, [3, 2, 8]))
    assert torch.equal(found[:, :-1], codes[:, :-1])
    gone = codes.clone()
    gone[0::6] = -1  # the first centre has no items left
    found = ids_beside_similar(vectors, centres, SemanticIdCatalogue(gone, [3, 2, 8]))
    assert torch.equal(found[1:, :-1], codes[1:6, :-1]) and found[0, :-1].tolist() != codes[0, :-1].tolist()


@pytest.mark.parametrize("count", [1, 3, 12, 24])
def test_full_codes_pass_items_on_to_the_next_best(count):
    vectors, codes, centres = shelves()
    catalogue = SemanticIdCatalogue(codes, [3, 2, 8])
    found = ids_beside_similar(vectors, centres[:1].expand(count, -1), catalogue)
    assert len({tuple(code) for code in [*codes.tolist(), *found.tolist()]}) == 24 + count
    assert int(found[:, -1].max()) < 8
    assert found[: min(4, count), :-1].tolist() == codes[:1, :-1].tolist() * min(4, count)


def test_items_without_any_room_are_refused():
    vectors, codes, centres = shelves()
    with pytest.raises(ValueError, match="1 items cannot be added: every semantic ID has 8 items already"):
        ids_beside_similar(vectors, centres[:1].expand(25, -1), SemanticIdCatalogue(codes, [3, 2, 8]))


@pytest.mark.parametrize("name", [*PRESETS, "sasrec"])
def test_removed_items_are_never_recommended_but_may_be_in_a_history(name, tmp_path):
    method = method_of(name, tmp_path)
    model, processor, count = method.model, method.processor, len(WORDS)
    asked = [["find mint tea" if processor.preference == "text" else ""], [["item-mug", "item-soap"]]]
    before = model.recommend(**processor(*asked), top_k=count, num_beams="exact")
    gone = before.item_indices[0, :2].tolist()
    remove_items(model, gone)
    assert removed_items(model) == sorted(gone)
    found = model.recommend(**processor(*asked), top_k=count, num_beams="exact")
    assert found.item_indices[0].tolist() == before.item_indices[0, 2:].tolist()
    model.save_pretrained(tmp_path / "model")
    loaded = type(model).from_pretrained(tmp_path / "model").eval()
    asked[1] = [[processor.item_ids[gone[0]]]]
    again = loaded.recommend(**processor(*asked), top_k=count, num_beams="exact")
    assert removed_items(loaded) == sorted(gone) and not {*again.item_indices[0].tolist()} & {*gone}
    with pytest.raises((ValueError, IndexError)):
        remove_items(model, gone[:1])
    with pytest.raises(ValueError, match="no item"):
        remove_items(model, [index for index in range(count) if index not in gone])


@pytest.mark.parametrize("name", ["mender", "mender-lite", "text-search"])
def test_a_changed_item_is_what_it_would_be_had_it_been_built_so(name, tmp_path):
    items = shop_items()
    method = method_of(name, tmp_path)
    model, processor = method.model, method.processor
    before = {key: value.clone() for key, value in model.state_dict().items()}
    change = {"item_id": ["item-tea"], "title": ["strong glass lamp"], "text": ["strong glass lamp"]}
    update_items(model, processor, change)
    place = items["item_id"].index("item-tea")
    assert processor.titles[place] == "strong glass lamp" and processor.texts[place] == "strong glass lamp"
    inputs = processor(["strong glass lamp"])
    words = "lexical" if name == "text-search" else "terms"
    assert int(model.expert_scores(inputs["input_ids"])[words][0].argmax()) == place
    # Back to what it was: everything is as before, but for the code of an item that moved and the rarity of words.
    update_items(model, processor, {name: [values[place]] for name, values in items.items() if name != "aspects"})
    for key, value in model.state_dict().items():
        if "item_codes" not in key and "gains" not in key:
            torch.testing.assert_close(value.float(), before[key].float(), rtol=2e-3, atol=2e-3)


def test_states_of_a_changed_title_are_in_its_place(tmp_path):
    method = method_of("mender-fid", tmp_path)
    model, processor, generator = method.model, method.processor, torch.Generator().manual_seed(0)
    vectors = torch.randn(len(WORDS), 4, generator=generator)
    change = {"item_id": ["item-tea"], "title": ["strong glass lamp"]}
    place = processor.item_ids.index("item-tea")
    counts, states = processor.state_counts, model.encoder.item_states.clone()
    update_items(model, processor, change, vectors=(vectors, vectors[place : place + 1]))
    assert processor.state_counts == [*counts[:place], 3, *counts[place + 1 :]]
    old, new = states.split(counts), model.encoder.item_states.split(processor.state_counts)
    assert all(torch.equal(old[index], new[index]) for index in range(len(WORDS)) if index != place)
    assert int(model.encoder.first_state.sum()) == len(WORDS)
    model.recommend(**processor(["find tea"], [["item-tea", "item-mug"]]))


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


def test_items_without_room_are_refused_before_anything_changes(tmp_path):
    method = method_of("mender", tmp_path)
    sizes = method.model.config.codebook_sizes
    count = 1 + int(torch.tensor(sizes).prod())
    many = {"item_id": [f"new-{place}" for place in range(count)], "title": ["tea"] * count}
    with pytest.raises(ValueError, match="cannot be added"):
        add_items(method.model, method.processor, many)
    assert method.processor.item_ids == shop_items()["item_id"] and method.model.config.num_items == len(WORDS)
