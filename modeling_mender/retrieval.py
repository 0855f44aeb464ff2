"""Constrained beam search over a catalogue: the search behind `model.recommend()`.

Beams of a user are never materialised as a bigger batch. A step scores the beams, looks up the children of their
nodes in the catalogue's tree and keeps the best `width` of them; the log-softmax stays over the full vocabulary, so
scores equal those of `generate()` with `SemanticIdLogitsProcessor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from .candidates import CatalogueFilter, list_children
from .catalogue import SemanticIdCatalogue
from .decoder import FoldedDecoder
from .item_filter import ItemSelection

__all__ = ["Recommendations", "checked_top_k", "search"]

DEFAULT_BEAMS = 30
EXACT_CHUNK = 256
MANY_CANDIDATES, BLOCK = 1024, 64


@dataclass(frozen=True)
class Recommendations:
    """Ranked items of B users, best first.

    Attributes:
        item_indices: item indices; -1 pads users that may receive fewer items than others. Shape: (B, top_k), int64.
        scores: log-probability of each item's semantic ID; -inf where padded. Shape: (B, top_k), float32.
    """

    item_indices: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.item_indices)


def checked_top_k(top_k: int) -> int:
    """The number of items asked for.

    Raises:
        ValueError: if it is not a whole number above 0.
    """
    if not isinstance(top_k, Integral) or isinstance(top_k, bool):
        raise ValueError(f"top_k={top_k!r}; pass a whole number")
    if top_k < 1:
        raise ValueError(f"top_k={top_k} asks for no items; pass top_k >= 1")
    return int(top_k)


def search(
    decoder: FoldedDecoder,
    catalogue: SemanticIdCatalogue,
    memory: Tensor,
    attention_mask: Tensor | None,
    *,
    top_k: int = 10,
    num_beams: int | str | None = None,
    allowed: ItemSelection | None = None,
    exclude: ItemSelection | None = None,
) -> Recommendations:
    """The `top_k` best items of every user.

    Args:
        decoder: the decoder's arithmetic.
        catalogue: what may be returned.
        memory: encoder states at decoder width. Shape: (B, T, D).
        attention_mask: 1 for real states. Shape: (B, T).
        top_k: how many items to return; fewer come back where fewer may be returned.
        num_beams: prefixes kept per level. `None` keeps max(30, 2 * top_k); "exact" scores every item.
        allowed: items that may be returned, see `as_selection`.
        exclude: items that may not be returned, in the same forms. Wins over `allowed`.

    Raises:
        ValueError: if top_k < 1, num_beams < top_k, or a filter has the wrong shape or leaves some user nothing.
        IndexError: if a filter names an item that is not in the catalogue.
    """
    top_k, count = checked_top_k(top_k), len(catalogue)
    if num_beams == "exact":
        width = count
    elif num_beams is None:
        width = max(DEFAULT_BEAMS, 2 * top_k)
    elif isinstance(num_beams, Integral) and not isinstance(num_beams, bool):
        if num_beams < min(top_k, count):
            raise ValueError(f"num_beams={num_beams} cannot return top_k={top_k} items; pass num_beams >= top_k")
        width = int(num_beams)
    else:
        raise ValueError(f'num_beams={num_beams!r}; pass a whole number, None or "exact"')

    view = None
    if allowed is not None or exclude is not None:
        view = CatalogueFilter(catalogue, len(memory), allowed, exclude)
    if num_beams == "exact" and count > EXACT_CHUNK:
        leaves, scores = _search_in_chunks(decoder, catalogue, memory, attention_mask, min(top_k, count), view)
    else:
        leaves, scores = _beam_search(decoder, catalogue, memory, attention_mask, min(width, count), view)
    top_k = min(top_k, count if view is None else int(view.available.max()))
    leaves, scores = leaves[:, :top_k], scores[:, :top_k]
    item_indices = catalogue.items_of_leaves(leaves).masked_fill(scores == -torch.inf, -1)
    return Recommendations(item_indices, scores)


def _beam_search(
    decoder: FoldedDecoder,
    catalogue: SemanticIdCatalogue,
    memory: Tensor,
    attention_mask: Tensor | None,
    width: int,
    view: CatalogueFilter | None,
) -> tuple[Tensor, Tensor]:
    """Leaves and scores, best first. Both of shape (B, <= width)."""
    users, device = len(memory), memory.device
    state = decoder.start(memory, attention_mask, catalogue.num_levels)
    nodes = torch.zeros(users, 1, dtype=torch.int64, device=device)
    scores = torch.zeros(users, 1, device=device)
    tokens, parents, offset = nodes, None, 1
    for level in range(catalogue.num_levels):
        log_probs = decoder.step(state, tokens, parents)
        nodes, parents, codes, scores = expand(catalogue, level, nodes, scores, log_probs, offset, width, view)
        tokens = codes + offset
        offset += catalogue.codebook_sizes[level]
    return nodes, scores


def expand(
    catalogue: SemanticIdCatalogue,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    log_probs: Tensor,
    offset: int,
    width: int,
    view: CatalogueFilter | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best `width` children of the live nodes of each user.

    Returns:
        Child ids, the beam each extends, their codes, and their scores, best first. Each of shape (B, W').
    """
    children = list_children(catalogue, level, nodes)
    own = log_probs[:, :, offset : offset + catalogue.codebook_sizes[level]]
    candidate = children.scores(catalogue, level, own, scores)
    if view is not None:
        view.mask_(level + 1, candidate, children, scores)
    keep = min(width, candidate.shape[1], catalogue.num_nodes(level + 1))
    scores, slots = _top(candidate, keep)
    beams = children.owners(slots)
    picked = slots - children.begin.gather(1, beams) + children.first.gather(1, beams)
    # Where children run out, empty slots behind the last node are picked; their scores are -inf.
    picked = picked.clamp_(max=catalogue.num_nodes(level + 1) - 1)
    codes = catalogue.codes_of(level + 1, picked, nodes.gather(1, beams))
    codes = codes.clamp_(max=catalogue.codebook_sizes[level] - 1)
    return picked, beams, codes, scores


def _top(candidate: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """`candidate.topk(keep)`; of very many candidates, only blocks that hold one of the best are looked through.

    The best `keep` lie in the `keep` blocks with the highest maxima.
    """
    users, count = candidate.shape
    if count < MANY_CANDIDATES * keep:
        return candidate.topk(keep, dim=1)
    whole = count - count % BLOCK
    maxima = candidate[:, :whole].unflatten(1, (-1, BLOCK)).amax(2)
    best = maxima.topk(min(keep, maxima.shape[1]), dim=1, sorted=False).indices
    slots = (best[..., None] * BLOCK + torch.arange(BLOCK, device=best.device)).flatten(1)
    rest = torch.arange(whole, count, device=best.device).expand(users, -1)
    slots = torch.cat([slots, rest], dim=1)
    scores, place = candidate.gather(1, slots).topk(keep, dim=1)
    return scores, slots.gather(1, place)


def _search_in_chunks(
    decoder: FoldedDecoder,
    catalogue: SemanticIdCatalogue,
    memory: Tensor,
    attention_mask: Tensor | None,
    top_k: int,
    view: CatalogueFilter | None,
) -> tuple[Tensor, Tensor]:
    """Every item scored, a range of leaves at a time, keeping the best `top_k`. Both results of shape (B, top_k)."""
    best_leaves = torch.empty(len(memory), 0, dtype=torch.int64, device=memory.device)
    best_scores = torch.empty(len(memory), 0, device=memory.device)
    for low in range(0, len(catalogue), EXACT_CHUNK):
        high = min(low + EXACT_CHUNK, len(catalogue))
        window = CatalogueFilter(catalogue, len(memory), leaves=(low, high))
        if view is not None:
            window.share(view)
        leaves, scores = _beam_search(decoder, catalogue, memory, attention_mask, high - low, window)
        best_leaves, best_scores = torch.cat([best_leaves, leaves], 1), torch.cat([best_scores, scores], 1)
        best_scores, index = best_scores.topk(min(top_k, best_scores.shape[1]), dim=1)
        best_leaves = best_leaves.gather(1, index)
    return best_leaves, best_scores
