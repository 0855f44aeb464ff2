"""Constrained beam search over a catalogue, which `model.recommend()` uses.

Beams do not enlarge the batch. A step scores the beams of all users, looks up the children of their nodes in the tree
of the catalogue and keeps the best `width` of them. The log-softmax is over the full vocabulary, so scores equal those
of `generate()` with `SemanticIdLogitsProcessor`.
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
        item_indices: item indices, padded with -1 for users with fewer items. Shape: (B, top_k), int64.
        scores: log-probability of each item's semantic ID, padded with -inf. Shape: (B, top_k), float32.
    """

    item_indices: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.item_indices)


def checked_top_k(top_k: int) -> int:
    """Checks a `top_k` argument.

    Raises:
        ValueError: if it is not an integer above 0.
    """
    if not isinstance(top_k, Integral) or isinstance(top_k, bool):
        raise ValueError(f"top_k={top_k!r}; pass an integer")
    if top_k < 1:
        raise ValueError(f"top_k={top_k}; pass top_k >= 1")
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
        decoder: folded weights of the decoder.
        catalogue: the items to search.
        memory: encoder states at decoder width. Shape: (B, T, D).
        attention_mask: 1 for real states, 0 for padding. Shape: (B, T).
        top_k: items to return; fewer are returned if fewer are allowed.
        num_beams: prefixes kept per level. `None` keeps max(30, 2 * top_k); "exact" scores every item.
        allowed: items that may be returned, see `as_selection`.
        exclude: items that may not be returned, in the same forms. Takes precedence over `allowed`.

    Raises:
        ValueError: for top_k < 1, num_beams < top_k, or a filter that has the wrong shape or leaves a user without
            items.
        IndexError: if a filter contains an item that is not in the catalogue.
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
        raise ValueError(f'num_beams={num_beams!r}; pass an integer, None or "exact"')

    item_filter = None
    if allowed is not None or exclude is not None:
        item_filter = CatalogueFilter(catalogue, len(memory), allowed, exclude)
    if num_beams == "exact" and count > EXACT_CHUNK:
        leaves, scores = _search_in_chunks(decoder, catalogue, memory, attention_mask, min(top_k, count), item_filter)
    else:
        leaves, scores = _beam_search(decoder, catalogue, memory, attention_mask, min(width, count), item_filter)
    top_k = min(top_k, count if item_filter is None else int(item_filter.available.max()))
    leaves, scores = leaves[:, :top_k], scores[:, :top_k]
    item_indices = catalogue.items_of_leaves(leaves).masked_fill(scores == -torch.inf, -1)
    return Recommendations(item_indices, scores)


def _beam_search(
    decoder: FoldedDecoder,
    catalogue: SemanticIdCatalogue,
    memory: Tensor,
    attention_mask: Tensor | None,
    width: int,
    item_filter: CatalogueFilter | None,
) -> tuple[Tensor, Tensor]:
    """Leaves and scores, best first. Both of shape (B, <= width)."""
    users, device = len(memory), memory.device
    state = decoder.start(memory, attention_mask, catalogue.num_levels)
    nodes = torch.zeros(users, 1, dtype=torch.int64, device=device)
    scores = torch.zeros(users, 1, device=device)
    tokens, parents, offset = nodes, None, 1
    for level in range(catalogue.num_levels):
        log_probs = decoder.step(state, tokens, parents)
        nodes, parents, codes, scores = expand(catalogue, level, nodes, scores, log_probs, offset, width, item_filter)
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
    item_filter: CatalogueFilter | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best `width` children of the current nodes of each user.

    Returns:
        Child ids, the beams that they extend, their codes, and their scores, best first. Each of shape (B, W').
    """
    children = list_children(catalogue, level, nodes)
    own = log_probs[:, :, offset : offset + catalogue.codebook_sizes[level]]
    candidate = children.scores(catalogue, level, own, scores)
    if item_filter is not None:
        item_filter.mask_(level + 1, candidate, children, scores)
    keep = min(width, candidate.shape[1], catalogue.num_nodes(level + 1))
    scores, slots = _top(candidate, keep)
    beams = children.owners(slots)
    picked = slots - children.begin.gather(1, beams) + children.first.gather(1, beams)
    # If there are too few children, empty slots after the last node are picked; their scores are -inf.
    picked = picked.clamp_(max=catalogue.num_nodes(level + 1) - 1)
    codes = catalogue.codes_of(level + 1, picked, nodes.gather(1, beams))
    codes = codes.clamp_(max=catalogue.codebook_sizes[level] - 1)
    return picked, beams, codes, scores


def _top(candidate: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """`candidate.topk(keep)`, which for many candidates only searches the `keep` blocks with the highest maxima.

    These blocks contain the best `keep` candidates.
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
    scores, position = candidate.gather(1, slots).topk(keep, dim=1)
    return scores, slots.gather(1, position)


def _search_in_chunks(
    decoder: FoldedDecoder,
    catalogue: SemanticIdCatalogue,
    memory: Tensor,
    attention_mask: Tensor | None,
    top_k: int,
    item_filter: CatalogueFilter | None,
) -> tuple[Tensor, Tensor]:
    """Score every item, one range of leaves at a time, and keep the best `top_k`. Both results of shape (B, top_k)."""
    best_leaves = torch.empty(len(memory), 0, dtype=torch.int64, device=memory.device)
    best_scores = torch.empty(len(memory), 0, device=memory.device)
    for low in range(0, len(catalogue), EXACT_CHUNK):
        high = min(low + EXACT_CHUNK, len(catalogue))
        window = CatalogueFilter(catalogue, len(memory), leaves=(low, high))
        if item_filter is not None:
            window.share(item_filter)
        leaves, scores = _beam_search(decoder, catalogue, memory, attention_mask, high - low, window)
        best_leaves, best_scores = torch.cat([best_leaves, leaves], 1), torch.cat([best_scores, scores], 1)
        best_scores, index = best_scores.topk(min(top_k, best_scores.shape[1]), dim=1)
        best_leaves = best_leaves.gather(1, index)
    return best_leaves, best_scores
