"""`allowed=` and `exclude=` mean the same, and are refused alike, whatever answers: one contract for every model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from doubles import random_catalogue, shop_items, tiny_encoder, tiny_model, word_tokenizer
from transformers import pipeline

from modeling_mender import (
    ExpertsRecommender,
    MenderProcessor,
    SasRecForSequentialRecommendation,
)
from modeling_mender.configuration_mender import ItemStatesConfig
from modeling_mender.generation_mender import catalogue_beam_search
from modeling_mender.modeling_experts import ExpertsConfig
from modeling_mender.modeling_sasrec import SasRecConfig

ITEMS = shop_items()
N, USERS = len(ITEMS["item_id"]), 3
WISHES = ["find tea", "find rose", "avoid soap"]
HISTORIES = [["item-tea"], ["item-mug", "item-rose"], ["item-soap"]]
EACH = [[0, 1, 2, 5, 9], [3, 4, 5, 6, 7, 15], [8, 2]]
ALL = [2, 3, 5, 8, 13]


def popularity():
    model = ExpertsRecommender(ExpertsConfig(N, ["popularity"]))
    model.experts.popularity.counts = torch.randperm(N, generator=torch.Generator().manual_seed(0)).float()
    return model


def sasrec():
    torch.manual_seed(0)
    return SasRecForSequentialRecommendation(SasRecConfig(N, hidden_size=8, num_layers=1)).eval()


def text_search():
    torch.manual_seed(0)
    size = len(word_tokenizer())
    config = ItemStatesConfig(tiny_encoder(), text_vocabulary=size, num_states=N, pooled=True, max_history=0)
    model = ExpertsRecommender(ExpertsConfig(N, ["dense", "history_text"], encoder=config)).eval()
    model.experts.vectors.set_item_states(torch.randn(N, config.hidden_size), torch.ones(N))
    return model


MODELS = {
    "mender": (lambda: tiny_model(random_catalogue(N, [5, 5])), {"max_length": 32}),
    "sasrec": (sasrec, {"history": "indices", "preference": "none"}),
    "popularity": (popularity, {"history": "indices", "preference": "none"}),
    "text search": (text_search, {"history": "vectors"}),
}
KINDS = [*MODELS, "mender, exact", "generate", "search in generate", "pipeline"]


@pytest.fixture(scope="module")
def recommenders():
    return {
        name: (make(), MenderProcessor(word_tokenizer(), ITEMS, **settings))
        for name, (make, settings) in MODELS.items()
    }


@pytest.fixture(params=KINDS)
def ask(request, recommenders):
    """Ranked item indices of every user under filters."""
    kind = request.param
    model, processor = recommenders[kind if kind in MODELS else "mender"]
    inputs = processor(WISHES, HISTORIES)

    def by_recommend(**filters):
        found = model.recommend(**inputs, top_k=N, num_beams="exact" if kind == "mender, exact" else N, **filters)
        return found.item_indices.tolist()

    def by_generate(**filters):
        custom = {"custom_generate": catalogue_beam_search} if kind == "search in generate" else {}
        width = {"num_beams": N, "num_return_sequences": N}
        tokens = model.generate(**inputs, **custom, **width, do_sample=False, **filters)
        ranked = model.item_indices(tokens[:, 1:]).view(USERS, -1).tolist()
        # Where beams outnumber items, plain beam search repeats some of them behind the last.
        return [list(dict.fromkeys(items)) for items in ranked]

    def by_pipeline(**filters):
        pipe = pipeline("generative-retrieval", model=model, processor=processor, device="cpu")
        requests = [{"preference": wish, "history": items} for wish, items in zip(WISHES, HISTORIES, strict=True)]
        answers = pipe(requests, top_k=N, batch_size=USERS, **filters)
        return [processor.item_indices([item["item_id"] for item in answer]) for answer in answers]

    ways = {"generate": by_generate, "search in generate": by_generate, "pipeline": by_pipeline}
    rank = ways.get(kind, by_recommend)

    def asked(**filters):
        return [[item for item in ranked if item >= 0] for ranked in rank(**filters)]

    asked.kind = kind
    return asked


def mask_of(items):
    return [item in items for item in range(N)]


def padded(lists):
    return [[*items, *[-1] * (max(map(len, lists)) - len(items))] for items in lists]


SHARED = {
    "list": lambda items: items,
    "tuple": tuple,
    "set": set,
    "generator": iter,
    "numpy integers": lambda items: [np.int64(item) for item in items],
    "tensors of one number": lambda items: [torch.tensor(item) for item in items],
    "repeated and padded": lambda items: [-1, *items, *items, -1],
    "array": lambda items: np.array(items, dtype=np.uint16),
    "tensor": lambda items: torch.tensor(items, dtype=torch.int32),
    "mask as list": mask_of,
    "mask as array": lambda items: np.array(mask_of(items)),
    "mask as tensor": lambda items: torch.tensor(mask_of(items)),
}
PER_USER = {
    "lists": lambda lists: lists,
    "sets": lambda lists: list(map(set, lists)),
    "arrays": lambda lists: list(map(np.array, lists)),
    "tensors": lambda lists: list(map(torch.tensor, lists)),
    "padded array": lambda lists: np.array(padded(lists)),
    "padded tensor": lambda lists: torch.tensor(padded(lists)),
    "masks as lists": lambda lists: list(map(mask_of, lists)),
    "masks as tensors": lambda lists: [torch.tensor(mask_of(items)) for items in lists],
    "masks in one tensor": lambda lists: torch.tensor(list(map(mask_of, lists))),
}


@pytest.mark.parametrize("form", SHARED)
def test_a_filter_for_all_leaves_the_ranking_of_the_others(ask, form):
    everything = ask()
    kept, left_out = ask(allowed=SHARED[form](ALL)), ask(exclude=SHARED[form](ALL))
    both = ask(allowed=SHARED[form](ALL), exclude=SHARED[form](ALL[:2]))
    for user, ranked in enumerate(everything):
        assert sorted(ranked) == list(range(N))
        assert kept[user] == [item for item in ranked if item in ALL]
        assert left_out[user] == [item for item in ranked if item not in ALL]
        assert both[user] == [item for item in ranked if item in ALL[2:]]


@pytest.mark.parametrize("form", PER_USER)
def test_a_filter_for_each_leaves_the_ranking_of_the_others(ask, form):
    if ask.kind == "pipeline":
        with pytest.raises(ValueError, match="per user|each of the 1 users"):
            ask(allowed=PER_USER[form](EACH))
        return
    kept, left_out = ask(allowed=PER_USER[form](EACH)), ask(exclude=PER_USER[form](EACH))
    both = ask(allowed=PER_USER[form](EACH), exclude=[2])
    for user, ranked in enumerate(ask()):
        assert kept[user] == [item for item in ranked if item in EACH[user]]
        assert left_out[user] == [item for item in ranked if item not in EACH[user]]
        assert both[user] == [item for item in ranked if item in EACH[user] and item != 2]


REFUSED = {
    "below the padding": ([-5], IndexError, "contains item index -5; the catalogue has items 0..15, and -1 is padding"),
    "beyond the catalogue": ([3, N], IndexError, "contains item index 16; the catalogue has items 0..15"),
    "mask too short": ([True] * (N - 1), ValueError, "covers 15 items; the catalogue has 16"),
    "mask too long": (torch.ones(N + 1, dtype=torch.bool), ValueError, "covers 17 items; the catalogue has 16"),
    "too few users": ([[1], [2]], ValueError, "each of the"),
    "too many users": (np.zeros((4, 2), int), ValueError, "each of the"),
    "three dimensions": (torch.zeros(USERS, 1, 1, dtype=int), ValueError, "expected one dimension"),
    "fractions": ([0.5], ValueError, r"dtype torch.float\d+; pass item indices"),
    "one number": (3, ValueError, "=3; pass a list of item indices"),
    "one text": ("item-tea", ValueError, "='item-tea'"),
    "lists and numbers": ([[1], 2], ValueError, "mixes lists with single items"),
    "masks and indices": ([[True] * N, [1], [2]], ValueError, "mixes masks with indices"),
}


@pytest.mark.parametrize("name", ["allowed", "exclude"])
@pytest.mark.parametrize("what", REFUSED)
def test_invalid_filters_are_refused_with_the_same_error(ask, name, what):
    selection, error, message = REFUSED[what]
    with pytest.raises(error, match=message) as raised:
        ask(**{name: selection})
    assert name in str(raised.value)


def test_item_ids_are_for_the_pipeline(ask):
    if ask.kind == "pipeline":
        named = [ITEMS["item_id"][item] for item in ALL]
        for ids in (named, np.array(named)):
            assert ask(exclude=ids) == ask(exclude=ALL)
        return
    with pytest.raises(
        ValueError, match=r"`exclude` contains 'item-tea'; pass item indices.*processor.item_indices\(ids\)"
    ):
        ask(exclude=["item-tea"])


def test_filters_that_leave_no_item_are_refused_with_the_same_error(ask):
    for filters in ({"allowed": []}, {"exclude": range(N)}, {"allowed": [1, 2], "exclude": [2, 1]}):
        with pytest.raises(ValueError, match="no item is left for user 0 of the batch"):
            ask(**filters)
    if ask.kind != "pipeline":
        with pytest.raises(ValueError, match="no item is left for user 1 of the batch"):
            ask(exclude=[[], list(range(N)), [1]])


def test_filters_that_name_nothing_change_nothing(ask):
    everything = ask()
    for nothing in ([], [-1], torch.zeros(N, dtype=torch.bool), np.empty(0)):
        assert ask(exclude=nothing) == everything
    assert ask(allowed=range(N)) == everything


@pytest.mark.parametrize("kind", MODELS)
def test_counts_are_whole_numbers_of_any_type(recommenders, kind):
    model, processor = recommenders[kind]
    inputs = processor(WISHES, HISTORIES)
    expected = model.recommend(**inputs, top_k=3, num_beams=5)
    found = model.recommend(**inputs, top_k=np.int64(3), num_beams=np.int32(5))
    assert torch.equal(found.item_indices, expected.item_indices)
    for wrong in (0, -1, 2.0, "3", True):
        with pytest.raises(ValueError, match=f"top_k={wrong!r}"):
            model.recommend(**inputs, top_k=wrong)


def test_generate_refuses_filters_that_nothing_would_apply(recommenders):
    model, processor = recommenders["mender"]
    inputs = processor(WISHES, HISTORIES)
    with pytest.raises(ValueError, match="allowed would not be applied"):
        model.generate(**inputs, constrained=False, allowed=[1])
