"""Items that come after training: added to a model and its processor without another step of training.

An item gets what its text gives: a vector, its words, and a semantic ID beside the items that are most like it. What
only purchases give, it gets with the next fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..catalogue import REMOVED
from ..configuration_mender import LANGUAGE
from ..item_states import ItemStatesEncoder, encode_titles
from ..processing_mender import MenderProcessor
from ..semantic_ids.tie_breaking import break_ties
from .methods import TEXT_LENGTH

__all__ = ["add_items", "nearest_codes"]


@torch.no_grad()
def add_items(
    model: Any, processor: MenderProcessor, items: Mapping[str, Sequence[str]], *, codes: Tensor | None = None
) -> list[int]:
    """Add items behind those of a trained model; save both afterwards to keep them.

    Args:
        model: a Mender or a recommender of experts; nothing is changed if the items cannot be added.
        processor: the model's.
        items: `{"item_id": [...], "title": [...]}`, and `"text"` if the model was trained on whole texts
            (`item_text: text` in its preset).
        codes: codes of the quantizer that the model was trained with, `quantizer.encode(vectors)`, without the level
            that breaks ties. Default: those of the most similar items, see `nearest_codes`. Shape: (M, L - 1).

    Returns:
        The indices of the new items.

    Raises:
        ValueError: if an id is taken, a model cannot learn of items without training, codes are needed, or there is no
            room for more items with these codes.
    """
    experts, has_codes = getattr(model, "experts", None), hasattr(model, "set_catalogue")
    if experts is None and not has_codes:
        raise ValueError(
            f"{type(model).__name__} has learned one vector per item and cannot add items; train it again with them"
        )
    ids, titles = list(items["item_id"]), list(items["title"])
    texts = list(items.get("text") or titles)
    if len({len(ids), len(titles), len(texts)}) > 1:
        raise ValueError(f"{len(ids)} item ids, {len(titles)} titles, {len(texts)} texts; pass one of each per item")
    if taken := sorted({*ids} & {*processor.item_ids}):
        raise ValueError(f"item id {taken[0]!r} is taken; pass new items, or change titles with processor.set_items")
    tables = _tables(model, processor, items)
    catalogue = None
    if has_codes:
        old = model.catalogue.codes
        vectors = next((pair for encoder, pair in tables if encoder.config.pooled), None)
        if codes is None and vectors is None:
            raise ValueError(
                "this model has no item vectors to find similar items by; pass codes=quantizer.encode(vectors) of the "
                "quantizer that it was trained with"
            )
        codes = nearest_codes(*vectors, old) if codes is None else codes.to(old.device)
        catalogue = model.catalogue.add(break_ties(codes, taken=old).to(old.device))
    known = {"item_id": processor.item_ids + ids, "title": processor.titles + titles, "text": texts}
    if processor.history == "codes":
        known["codes"] = [*processor.codes, *catalogue.codes[len(processor.item_ids) :].tolist()]
    processor.set_items(known)
    for encoder, (before, after) in tables:
        first = torch.ones(len(after), dtype=torch.bool)
        if not encoder.config.pooled:
            counts = torch.tensor(processor.state_counts[-len(ids) :])
            first = torch.zeros(len(after), dtype=torch.bool).index_fill(0, counts.cumsum(0) - counts, True)
        first = torch.cat([encoder.first_state.cpu(), first])
        encoder.set_item_states(torch.cat([before.cpu(), after.to(before.dtype)]), first)
    if experts is not None:
        experts.add_items(processor.text_tokens(texts))
    if catalogue is not None:
        model.set_catalogue(catalogue)
    return list(range(len(processor.item_ids) - len(ids), len(processor.item_ids)))


def _tables(
    model: Any, processor: MenderProcessor, items: Mapping[str, Sequence[str]]
) -> list[tuple[ItemStatesEncoder, tuple[Tensor, Tensor]]]:
    """Every table of item states of a model: its encoder, the old states and those of the new items."""
    experts = getattr(model, "experts", None)
    encoders = [getattr(model, "encoder", None), None if experts is None else experts.vectors]
    found = []
    for encoder in encoders:
        # Compared by name, because code loaded from a folder has its own copy of the class.
        if type(encoder).__name__ != ItemStatesEncoder.__name__:
            continue
        pooled, margins = encoder.config.pooled, tuple(map(len, processor.margins))
        inputs = processor.title_inputs(items)
        if pooled and items.get("text"):
            inputs = processor.text_inputs(items["text"], max_length=TEXT_LENGTH)
        states, _ = encode_titles(encoder.text_encoder, inputs, pooled=pooled, inner=margins)
        found.append((encoder, (encoder.item_states, states)))
    if not found and experts is not None and any(name in LANGUAGE for name in experts.config.experts):
        raise ValueError("the experts of this model read text, but it has no item vectors; load the whole model")
    return found


def nearest_codes(vectors: Tensor, new: Tensor, codes: Tensor) -> Tensor:
    """Codes of new items among those of a catalogue, without the level that breaks ties.

    Level by level, an item takes the code whose items have the nearest mean: the centroids that a quantizer would have
    found for these items.

    Args:
        vectors: of the items of the catalogue. Shape: (N, D).
        new: of the new items. Shape: (M, D).
        codes: semantic IDs of the catalogue; removed items do not count. Shape: (N, L).

    Returns:
        Shape: (M, L - 1), int64.

    >>> vectors, codes = torch.eye(3), torch.tensor([[0, 1, 0], [2, 0, 0], [2, 5, 0]])
    >>> nearest_codes(vectors, torch.tensor([[0.0, 0.1, 0.9]]), codes).tolist()
    [[2, 5]]
    """
    live = codes[:, 0] != REMOVED
    vectors, codes = vectors[live.to(vectors.device)].float(), codes[live].long().to(vectors.device)
    new = new.float().to(vectors.device)
    parent = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
    chosen, found = torch.zeros(len(new), dtype=torch.int64, device=vectors.device), []
    for level in range(codes.shape[1] - 1):
        nodes, owner = torch.stack([parent, codes[:, level]], dim=1).unique(dim=0, return_inverse=True)
        sums = torch.zeros(len(nodes), vectors.shape[1], device=vectors.device).index_add_(0, owner, vectors)
        means = sums / torch.bincount(owner, minlength=len(nodes))[:, None]
        distance = torch.cdist(new, means).masked_fill(nodes[:, 0] != chosen[:, None], torch.inf)
        chosen, parent = distance.argmin(1), owner
        found.append(nodes[chosen, 1])
    return torch.stack(found, dim=1)
