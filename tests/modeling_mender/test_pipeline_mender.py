"""Requests in people's terms give what the parts give, alone and in batches, under filters of both kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from doubles import WORDS, random_catalogue, shop_items, tiny_model, word_tokenizer
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, pipeline

from modeling_mender import (
    ExpertsRecommender,
    GenerativeRetrievalPipeline,
    MenderForGenerativeRetrieval,
    MenderProcessor,
)
from modeling_mender.modeling_experts import ExpertsConfig

TASK = "generative-retrieval"
ITEMS = shop_items()
IDS = ITEMS["item_id"]
REQUESTS = [
    {"preference": "find tea", "history": ["item-tea", "item-mug"]},
    "avoid gentle soap",
    {"history": ["item-lamp"]},
    {"preference": ["find mint", "avoid rose"], "history": IDS[:6]},
    {"preference": "find strong green tea", "exclude": ["item-green"], "allowed": IDS[:9]},
]


@pytest.fixture(scope="module")
def pipe():
    processor = MenderProcessor(word_tokenizer(), ITEMS, max_length=32)
    model = tiny_model(random_catalogue(len(IDS), [5, 5]))
    return pipeline(TASK, model=model, processor=processor, device="cpu")


def ids(answer) -> list:
    return [item["item_id"] for item in answer]


def test_equals_processor_and_recommend(pipe):
    inputs = pipe.processor("find tea", ["item-tea", "item-mug"])
    found = pipe.model.recommend(**inputs, top_k=5)
    answer = pipe(REQUESTS[0], top_k=5)
    assert ids(answer) == pipe.processor.ids(found.item_indices[0])
    assert [item["title"] for item in answer] == [item.removeprefix("item-") for item in ids(answer)]
    assert [item["score"] for item in answer] == pytest.approx(found.scores[0].tolist())
    assert len(pipe(REQUESTS[0])) == 10


def test_what_is_to_be_avoided_becomes_a_sentence_behind_the_preference(pipe):
    expected = pipe({"preference": ["find mint", "Avoid rose", "No soap"], "history": ["item-mug"]})
    for avoid in (["rose", "No soap"], ["I don't like rose.", "No soap."]):
        assert pipe({"preference": "find mint", "avoid": avoid, "history": ["item-mug"]}) == expected
    assert pipe({"avoid": "rose"}) == pipe("Avoid rose")
    assert pipe({"preference": "find mint", "avoid": " "}) == pipe("find mint.")


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_batches_answer_as_single_requests_do(pipe, batch_size):
    alone = [pipe(request, top_k=4) for request in REQUESTS]
    together = pipe(REQUESTS, top_k=4, batch_size=batch_size)
    streamed = list(pipe((request for request in REQUESTS), top_k=4, batch_size=batch_size))
    for answers in (together, streamed):
        assert [ids(answer) for answer in answers] == [ids(answer) for answer in alone]
        scores = [[item["score"] for item in answer] for answer in answers]
        assert scores == [pytest.approx([item["score"] for item in answer], abs=1e-4) for answer in alone]
    assert pipe([]) == []


def test_padding_side_of_the_tokenizer_does_not_matter(pipe):
    expected = pipe(REQUESTS, top_k=4, batch_size=5)
    pipe.tokenizer.padding_side = "left"
    try:
        assert pipe(REQUESTS, top_k=4, batch_size=5) == expected
    finally:
        pipe.tokenizer.padding_side = "right"


def test_filters_for_all_and_for_one(pipe):
    everything = pipe(REQUESTS[0], top_k=len(IDS), num_beams="exact")
    shared = IDS[2:12]
    own = {**REQUESTS[0], "allowed": IDS[8:], "exclude": [IDS[9]]}
    answers = pipe([own, REQUESTS[0]], allowed=shared, exclude=[IDS[11]], top_k=20, num_beams="exact", batch_size=2)
    left = [set(IDS[8:12]) - {IDS[9], IDS[11]}, set(shared) - {IDS[11]}]
    for answer, items in zip(answers, left, strict=True):
        assert ids(answer) == [item for item in ids(everything) if item in items]
    mask = [item in shared for item in IDS]
    for form in (torch.tensor(mask), np.array(mask)):
        assert ids(pipe(REQUESTS[0], allowed=form, top_k=20)) == ids(pipe(REQUESTS[0], allowed=shared, top_k=20))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_ids_indices_and_masks_exclude_the_same_items(pipe, batch_size):
    named, own = IDS[3:11], {"preference": "find soap", "exclude": [IDS[1]], "allowed": IDS[:9]}
    requests = [REQUESTS[0], own, "find mint"]
    mask = torch.tensor([item in named for item in IDS])
    settings = {"top_k": 6, "num_beams": "exact", "batch_size": batch_size}
    for others in ({}, {"allowed": IDS[2:]}, {"allowed": torch.tensor([index > 1 for index in range(len(IDS))])}):
        expected = pipe(requests, exclude=named, **settings, **others)
        for form in (range(3, 11), mask, mask.numpy()):
            assert pipe(requests, exclude=form, **settings, **others) == expected
    expected = pipe({**own, "exclude": named}, top_k=6)
    for form in (range(3, 11), mask, mask.numpy()):
        assert pipe({**own, "exclude": form}, top_k=6) == expected
        assert pipe({"preference": "find soap", "exclude": form}, top_k=6) == pipe("find soap", top_k=6, exclude=form)


def test_defaults_are_set_once_and_overridden_per_call(pipe):
    own = pipeline(TASK, model=pipe.model, processor=pipe.processor, device="cpu", top_k=2, exclude=["item-tea"])
    assert ids(own(REQUESTS[0])) == ids(pipe(REQUESTS[0], top_k=2, exclude=["item-tea"]))
    assert len(own(REQUESTS[0], top_k=3)) == 3


def test_unknown_items_of_a_history(pipe):
    request = {"preference": "find tea", "history": ["item-gone", "item-mug"]}
    with pytest.raises(ValueError, match="item 'item-gone' is not among the 16 items"):
        pipe(request)
    assert pipe(request, unknown_items="skip") == pipe({"preference": "find tea", "history": ["item-mug"]})


def test_unknown_items_of_filters(pipe):
    request = {"preference": "find tea"}
    skip = {"unknown_items": "skip"}
    for name, known in (("exclude", ["item-tea"]), ("allowed", IDS[:9])):
        expected = pipe({**request, name: known}, top_k=4)
        listed = {name: ["item-gone", *known]}
        assert pipe({**request, **listed}, top_k=4, **skip) == expected
        assert pipe(request, top_k=4, **skip, **listed) == expected
        parts = {"model": pipe.model, "processor": pipe.processor, "device": "cpu"}
        assert pipeline(TASK, **parts, **skip)(request, top_k=4, **listed) == expected
        assert pipeline(TASK, **parts, **skip, **listed)(request, top_k=4) == expected
        for asked, shared in (({**request, **listed}, {}), (request, listed)):
            with pytest.raises(ValueError, match="item 'item-gone' is not among the 16 items"):
                pipe(asked, **shared)
    assert pipe(request, exclude=["item-gone"], **skip) == pipe(request)
    with pytest.raises(ValueError, match="no item is left"):
        pipe({**request, "allowed": ["item-gone"]}, **skip)
    with pytest.raises(ValueError, match="unknown_items='drop'"):
        pipe(request, exclude=["item-gone"], unknown_items="drop")


@pytest.mark.parametrize(
    ("request_", "options", "message"),
    [
        (
            {"preferences": "find tea"},
            {},
            "has no field 'preferences', did you mean 'preference'; its fields are preference, inferred, history",
        ),
        ({"history": "item-tea"}, {}, "history='item-tea' is a single text; pass a list"),
        ({"preference": " "}, {}, "neither a preference nor a history"),
        ("find tea", {"exclude": "item-tea"}, "'item-tea' is a single text; pass a list"),
        ("find tea", {"allowed": torch.ones(3, dtype=torch.bool)}, "covers 3 items; the catalogue has 16"),
        ("find tea", {"allowed": IDS[:2], "exclude": IDS[:2]}, "no item is left"),
        ("find tea", {"top_k": 0}, "top_k=0; pass at least 1"),
        ("find tea", {"top_k": 8, "num_beams": 4}, "num_beams=4"),
    ],
)
def test_bad_requests_are_refused(pipe, request_, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(request_, **options)


def test_bad_parts_are_refused(pipe):
    with pytest.raises(TypeError, match="a request must be a text or a dictionary"):
        pipe(3)
    with pytest.raises(TypeError, match="unknown argument 'k'; a call takes"):
        pipe("find tea", k=3)
    with pytest.raises(TypeError, match=r"needs a processor with decode_items\(\), got NoneType"):
        GenerativeRetrievalPipeline(pipe.model, device="cpu")
    with pytest.raises(TypeError, match=r"needs a model with recommend\(\), got BertModel"):
        GenerativeRetrievalPipeline(pipe.model.encoder, processor=pipe.processor, device="cpu")


def test_saved_whole_and_loaded_without_flags(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    expected = pipe(REQUESTS, top_k=4)
    for options in ({}, {"trust_remote_code": True}):
        loaded = pipeline(TASK, model=str(tmp_path), device="cpu", **options)
        assert type(loaded) is GenerativeRetrievalPipeline
        assert loaded(REQUESTS, top_k=4) == expected
    for auto in (AutoModel, AutoModelForSeq2SeqLM):
        assert type(auto.from_pretrained(tmp_path)) is MenderForGenerativeRetrieval
    assert type(AutoProcessor.from_pretrained(tmp_path)) is MenderProcessor


def test_models_that_score_every_item_serve_too(tmp_path):
    model = ExpertsRecommender(ExpertsConfig(len(IDS), ["popularity"]))
    model.experts.popularity.counts = torch.arange(len(IDS)).float()
    processor = MenderProcessor(word_tokenizer(), ITEMS, history="indices", preference="none")
    pipe = pipeline(TASK, model=model, processor=processor, device="cpu")
    answers = pipe([{"history": ["item-tea"]}, {"exclude": [IDS[-1]], "history": []}], top_k=2, batch_size=2)
    assert [ids(answer) for answer in answers] == [IDS[:-3:-1], IDS[-2:-4:-1]]
    pipe.save_pretrained(tmp_path)
    assert pipeline(TASK, model=str(tmp_path), device="cpu")({"history": []}, top_k=1)[0]["title"] == WORDS[-1]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_reasons_add_up_to_differences_between_scores(pipe, batch_size):
    asked = ["find tea", {"history": ["item-mug"], "exclude": IDS[4:]}]
    for answer in pipe(asked, top_k=6, why=True, prior={"item-tea": 1.0}, batch_size=batch_size):
        mean = sum(item["score"] for item in answer) / len(answer)
        assert all(set(item["why"]) == {"generator", "prior"} for item in answer)
        assert [sum(item["why"].values()) for item in answer] == pytest.approx(
            [item["score"] - mean for item in answer], abs=1e-4
        )
    assert "why" not in pipe("find tea")[0]
