"""Items that come, change or go after training, without another step of training.

An item gets what its text gives: a vector, its words, and a semantic ID beside the items that are most like it. What
only purchases give, it gets from later purchases. A removed item keeps its index, so that histories may name it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..catalogue import REMOVED, SemanticIdCatalogue
from ..configuration_mender import LANGUAGE
from ..item_states import ItemStatesEncoder, encode_titles
from ..processing_mender import MenderProcessor
from ..semantic_ids.tie_breaking import break_ties
from .methods import TEXT_LENGTH

__all__ = ["add_items", "has_text_vectors", "ids_beside_similar", "remove_items", "removed_items", "update_items"]

SAME = 0.9
"""Cosine of an item's old and new vector from which it keeps its semantic ID, which the generator was trained on."""


@torch.no_grad()
def add_items(
    model: Any,
    processor: MenderProcessor,
    items: Mapping[str, Sequence[Any]],
    *,
    codes: Tensor | None = None,
    vectors: tuple[Tensor, Tensor] | None = None,
) -> list[int]:
    """Add items behind those of a trained model; save both afterwards to keep them.

    Args:
        model: a Mender or a recommender of experts; nothing is changed if the items cannot be added.
        processor: the model's.
        items: `{"item_id": [...], "title": [...]}`, optionally `"aspects"`, and `"text"` if the model was trained on
            whole texts (`item_text: text` in its preset).
        codes: codes of the quantizer that the model was trained with, `quantizer.encode(vectors)`, without the level
            that breaks ties. Default: those of the most similar items, see `ids_beside_similar`. Shape: (M, L - 1).
        vectors: vectors of the old and of the new items, to find similar items by; default: those of the model.

    Returns:
        The indices of the new items.

    Raises:
        ValueError: if an id is taken, a model cannot learn of items without training, codes are needed, or there is no
            room for more items.
    """
    experts, has_codes = getattr(model, "experts", None), hasattr(model, "set_catalogue")
    if experts is None and not has_codes:
        raise ValueError(
            f"{type(model).__name__} has learned one vector per item and cannot add items; train it again with them"
        )
    ids, titles, texts = _columns(items)
    if taken := sorted({*ids} & {*processor.item_ids}):
        raise ValueError(f"item id {taken[0]!r} is taken; pass new items, or change those of today with update_items")
    tables = _tables(model, processor, items)
    catalogue = None
    if has_codes:
        vectors = vectors or next((pair for encoder, pair in tables if encoder.config.pooled), None)
        if codes is None and vectors is None:
            raise ValueError(
                "this model has no item vectors to find similar items by; pass codes=quantizer.encode(vectors) of the "
                "quantizer that it was trained with"
            )
        old = model.catalogue.codes
        new = break_ties(codes, taken=old) if codes is not None else ids_beside_similar(*vectors, model.catalogue)
        catalogue = model.catalogue.add(new.to(old.device))
    known = _described(processor, [*processor.item_ids, *ids], [*processor.titles, *titles])
    known["text"] = [*known.get("text", processor.titles), *texts]
    if "aspects" in known or items.get("aspects"):
        nothing = [[] for _ in processor.item_ids]
        known["aspects"] = [*known.get("aspects", nothing), *(items.get("aspects") or [[] for _ in ids])]
    if processor.history == "codes":
        known["codes"] = [*processor.codes, *catalogue.codes[len(processor.item_ids) :].tolist()]
    processor.set_items(known)
    for encoder, (before, after) in tables:
        first = torch.ones(len(after), dtype=torch.bool)
        if not encoder.config.pooled:
            first = _first_states(processor.state_counts[-len(ids) :])
        first = torch.cat([encoder.first_state.cpu(), first])
        encoder.set_item_states(torch.cat([before.cpu(), after.to(before.dtype)]), first)
    if experts is not None:
        experts.add_items(processor.text_tokens(texts))
    if catalogue is not None:
        model.set_catalogue(catalogue)
    return list(range(len(processor.item_ids) - len(ids), len(processor.item_ids)))


@torch.no_grad()
def update_items(
    model: Any,
    processor: MenderProcessor,
    items: Mapping[str, Sequence[Any]],
    *,
    vectors: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Change titles, texts and aspects of items; purchases of them still count.

    An item whose text now means something else (`SAME`) gets a new semantic ID beside the items that it is like now.

    Args:
        model: see `add_items`.
        processor: the model's.
        items: as for `add_items`, with ids of the catalogue.
        vectors: see `add_items`.

    Raises:
        ValueError: if an id is unknown or was removed, or see `add_items`.
    """
    ids, titles, texts = _columns(items)
    indices = torch.tensor(processor.item_indices(ids), dtype=torch.int64)
    if gone := sorted({*indices.tolist()} & {*removed_items(model)}):
        raise ValueError(f"item {processor.item_ids[gone[0]]!r} was removed; add it again under another id")
    tables = _tables(model, processor, items)
    known = _described(processor, list(processor.item_ids), list(processor.titles))
    known.setdefault("text", list(processor.titles))
    known.setdefault("aspects", [[] for _ in processor.item_ids])
    aspects = items.get("aspects") or [known["aspects"][index] for index in indices.tolist()]
    for place, index in enumerate(indices.tolist()):
        known["title"][index], known["text"][index] = titles[place], texts[place]
        known["aspects"][index] = list(aspects[place])
    catalogue = None
    if hasattr(model, "set_catalogue"):
        vectors = vectors or next((pair for encoder, pair in tables if encoder.config.pooled), None)
        if vectors is None:
            raise ValueError("this model has no item vectors to find similar items by; pass vectors=")
        catalogue = _moved(model.catalogue, indices, *vectors)
        if processor.history == "codes":
            known["codes"] = catalogue.codes.tolist()
    counts = processor.state_counts if processor.history == "states" else []
    processor.set_items(known, new_states=True)
    for encoder, (before, after) in tables:
        if encoder.config.pooled:
            states = before.cpu().clone()
            states[indices] = after.to(before.dtype).cpu()
            encoder.set_item_states(states, encoder.first_state)
            continue
        pieces, new = list(before.cpu().split(counts)), processor.state_counts
        for index, own in zip(indices.tolist(), after.split([new[index] for index in indices.tolist()]), strict=True):
            pieces[index] = own.to(before.dtype).cpu()
        encoder.set_item_states(torch.cat(pieces), _first_states(new))
    if (experts := getattr(model, "experts", None)) is not None:
        experts.put_texts(indices, processor.text_tokens(texts))
    if catalogue is not None:
        model.set_catalogue(catalogue)


def remove_items(model: Any, item_indices: Sequence[int]) -> None:
    """Take items out of the catalogue. Histories may still name them.

    Args:
        model: any model of this library.
        item_indices: of the items.

    Raises:
        ValueError: if an item was already removed, or none is left.
    """
    gone = sorted({*removed_items(model)} & {*item_indices})
    if gone:
        raise ValueError(f"item index {gone[0]} was removed before; leave it out")
    if hasattr(model, "set_catalogue"):
        model.set_catalogue(model.catalogue.remove(list(item_indices)))
    elif len(model.config.removed_items) + len({*item_indices}) >= model.config.num_items:
        raise ValueError("no item would be left; keep at least one")
    else:
        model.config.removed_items = sorted([*model.config.removed_items, *{*item_indices}])


def removed_items(model: Any) -> list[int]:
    """Indices of the items that were removed."""
    if hasattr(model, "set_catalogue"):
        return (model.item_codes[:, 0] == REMOVED).nonzero().squeeze(1).tolist()
    return list(model.config.removed_items)


def has_text_vectors(model: Any) -> bool:
    """Whether a model has one vector per item, made of its text, so that codes of new items need no others."""
    return any(encoder.config.pooled for encoder in _encoders(model))


def ids_beside_similar(vectors: Tensor, new: Tensor, catalogue: SemanticIdCatalogue) -> Tensor:
    """Semantic IDs of new items, with the codes of the items that they are most like.

    Level by level, an item takes the code whose items have the nearest mean: the centroids that a quantizer would have
    found for these items. Where the level that breaks ties is full, it takes the next best codes that have room.

    Args:
        vectors: of the items of the catalogue. Shape: (N, D).
        new: of the new items. Shape: (M, D).
        catalogue: the items of today; removed ones do not count.

    Returns:
        Shape: (M, L), int64.

    Raises:
        ValueError: if no codes have room.

    >>> catalogue = SemanticIdCatalogue(torch.tensor([[0, 1, 0], [2, 0, 0], [2, 5, 0]]), [3, 6, 2])
    >>> ids_beside_similar(torch.eye(3), torch.tensor([[0.0, 0.1, 0.9], [0.0, 0.0, 1.0]]), catalogue).tolist()
    [[2, 5, 1], [0, 1, 1]]
    """
    codes, room = catalogue.codes.cpu(), catalogue.codebook_sizes[-1]
    live = codes[:, 0] != REMOVED
    vectors, codes = vectors.cpu().float()[live], codes[live].long()
    new = new.cpu().float()
    found = torch.full((len(new), codes.shape[1]), REMOVED)
    taken, waiting = codes, torch.arange(len(new))
    while len(waiting):
        _, group, count = taken[:, :-1].unique(dim=0, return_inverse=True, return_counts=True)
        open_ = (count < room)[group[: len(codes)]]
        if not bool(open_.any()):
            raise ValueError(
                f"{len(waiting)} items cannot be added: every semantic ID has {room} items already; fit codes again "
                "with refit_codes, or train the model again"
            )
        chosen = _nearest_codes(vectors[open_], new[waiting], codes[open_])
        ids = break_ties(chosen, taken=taken)
        fitting = ids[:, -1] < room
        found[waiting[fitting]] = ids[fitting]
        taken, waiting = torch.cat([taken, ids[fitting]]), waiting[~fitting]
    return found


def _nearest_codes(vectors: Tensor, new: Tensor, codes: Tensor) -> Tensor:
    """See `ids_beside_similar`, without the last level. Shape: (M, L - 1)."""
    parent = torch.zeros(len(vectors), dtype=torch.int64)
    chosen, found = torch.zeros(len(new), dtype=torch.int64), []
    for level in range(codes.shape[1] - 1):
        nodes, owner = torch.stack([parent, codes[:, level]], dim=1).unique(dim=0, return_inverse=True)
        sums = torch.zeros(len(nodes), vectors.shape[1]).index_add_(0, owner, vectors)
        means = sums / torch.bincount(owner, minlength=len(nodes))[:, None]
        distance = torch.cdist(new, means).masked_fill(nodes[:, 0] != chosen[:, None], torch.inf)
        chosen, parent = distance.argmin(1), owner
        found.append(nodes[chosen, 1])
    return torch.stack(found, dim=1)


def _moved(
    catalogue: SemanticIdCatalogue, item_indices: Tensor, vectors: Tensor, changed: Tensor
) -> SemanticIdCatalogue:
    """The catalogue in which items whose vectors changed have codes beside the items that they are like now."""
    before, after = vectors[item_indices].cpu().float(), changed.cpu().float()
    moving = torch.nn.functional.cosine_similarity(before, after) < SAME
    if not bool(moving.any()):
        return catalogue
    indices = item_indices[moving]
    codes = catalogue.codes.clone()
    codes[indices] = REMOVED
    if not bool((codes[:, 0] != REMOVED).any()):  # there is nothing else to be like
        return catalogue
    others = SemanticIdCatalogue(codes, catalogue.codebook_sizes)
    codes[indices] = ids_beside_similar(vectors, after[moving], others).to(codes)
    return SemanticIdCatalogue(codes, catalogue.codebook_sizes)


def _columns(items: Mapping[str, Sequence[Any]]) -> tuple[list[str], list[str], list[str]]:
    """Ids, titles and texts; without texts, titles."""
    ids, titles = list(items["item_id"]), list(items["title"])
    texts = list(items.get("text") or titles)
    if len({len(ids), len(titles), len(texts)}) > 1:
        raise ValueError(f"{len(ids)} item ids, {len(titles)} titles, {len(texts)} texts; pass one of each per item")
    if len({*ids}) < len(ids):
        raise ValueError(f"item id {next(one for one in ids if ids.count(one) > 1)!r} is there twice; pass it once")
    return ids, titles, texts


def _described(processor: MenderProcessor, ids: list[str], titles: list[str]) -> dict[str, Any]:
    """Items for `set_items`, with the texts and aspects that the processor has."""
    known = {name: list(values) for name, values in processor.columns.items()} | {"item_id": ids, "title": titles}
    return known | ({"codes": list(processor.codes)} if processor.codes else {})


def _first_states(counts: Sequence[int]) -> Tensor:
    """Whether a row of a state table is the first of its item. Shape: (sum of counts,), bool."""
    counts = torch.tensor(list(counts))
    return torch.zeros(int(counts.sum()), dtype=torch.bool).index_fill(0, counts.cumsum(0) - counts, True)


def _encoders(model: Any) -> list[ItemStatesEncoder]:
    """Every encoder of a model that has a table of item states."""
    experts = getattr(model, "experts", None)
    encoders = [getattr(model, "encoder", None), None if experts is None else experts.vectors]
    # Compared by name, because code loaded from a folder has its own copy of the class.
    return [encoder for encoder in encoders if type(encoder).__name__ == ItemStatesEncoder.__name__]


def _tables(
    model: Any, processor: MenderProcessor, items: Mapping[str, Sequence[Any]]
) -> list[tuple[ItemStatesEncoder, tuple[Tensor, Tensor]]]:
    """Every table of item states of a model: its encoder, the states of today and those of the given items."""
    found = []
    for encoder in _encoders(model):
        pooled, margins = encoder.config.pooled, tuple(map(len, processor.margins))
        inputs = processor.title_inputs(items)
        if pooled and items.get("text"):
            inputs = processor.text_inputs(items["text"], max_length=TEXT_LENGTH)
        states, _ = encode_titles(encoder.text_encoder, inputs, pooled=pooled, inner=margins)
        found.append((encoder, (encoder.item_states, states)))
    experts = getattr(model, "experts", None)
    if not found and experts is not None and any(name in LANGUAGE for name in experts.config.experts):
        raise ValueError("the experts of this model read text, but it has no item vectors; load the whole model")
    return found
