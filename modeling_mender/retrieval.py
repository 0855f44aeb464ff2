"""Constrained beam search over a catalogue, which `model.recommend()` uses.

The score of an item is a weighted sum: log-probabilities of its semantic ID under one or several conditions (a request
with and without its preference, several preferences), and the scores of experts (`guide.Guide`). Beams do not enlarge
the batch. A step scores the beams of all users, looks up the children of their nodes in the tree of the catalogue and
keeps the best `width` of them. The log-softmax is over the full vocabulary, so with the generator alone scores equal
those of `generate()` with `SemanticIdLogitsProcessor`.
"""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from .candidates import CatalogueFilter, list_children, top_slots
from .catalogue import REMOVED, SemanticIdCatalogue
from .decoder import CalledDecoder, DecodingState, FoldedDecoder
from .guide import Guide, Path, PathGuide
from .item_filter import ItemSelection, Recommendations, checked_top_k

__all__ = ["Generator", "item_scores", "search"]

DEFAULT_BEAMS = 30
ALONE = 120
"""Least number of beams without the generator, in a catalogue of which not every item is scored."""
EXACT_CHUNK = 256


def search(
    decoder: FoldedDecoder | CalledDecoder | None,
    catalogue: SemanticIdCatalogue,
    memory: Tensor,
    attention_mask: Tensor | None,
    *,
    top_k: int = 10,
    num_beams: int | str | None = None,
    allowed: ItemSelection | None = None,
    exclude: ItemSelection | None = None,
    mix: Tensor | None = None,
    evidence: Tensor | PathGuide | None = None,
) -> Recommendations:
    """The `top_k` best items of every user.

    Args:
        decoder: the decoder, see `search_decoder`; not needed if all weights in `mix` are 0.
        catalogue: the items to search.
        memory: encoder states at decoder width; the C conditions of a user follow each other. Shape: (B * C, T, D).
        attention_mask: 1 for real states, 0 for padding. Shape: (B * C, T).
        top_k: items to return; fewer are returned if fewer are allowed.
        num_beams: prefixes kept per level. `None` keeps max(30, 2 * top_k); "exact" scores every item.
        allowed: items that may be returned, see `as_selection`.
        exclude: items that may not be returned, in the same forms. Takes precedence over `allowed`.
        mix: weights of the log-probabilities of each condition; default: one condition of weight 1. Shape: (B, C).
        evidence: scores of all items to add to the log-probabilities, of shape (B, N), or a guide that scores items as
            the search reaches them.

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

    users, width = len(memory) if mix is None else len(mix), min(width, count)
    item_filter = guide = None
    if isinstance(evidence, Tensor):  # evidence is looked up for every item, and so are filters
        guide = Guide.over(catalogue, evidence, allowed, exclude)
    else:
        guide = evidence
        if allowed is not None or exclude is not None:
            item_filter = CatalogueFilter(catalogue, users, allowed, exclude)
    generator = Generator(decoder, memory, attention_mask, mix)
    if isinstance(guide, PathGuide) and not generator.counts:  # beams cost little without the decoder
        width = min(max(width, ALONE), count)
    if isinstance(guide, Guide) and not generator.counts:
        leaves, scores = guide.best(width)
    elif num_beams == "exact" and count > EXACT_CHUNK:
        leaves, scores = _search_in_chunks(generator, catalogue, min(top_k, count), item_filter, guide)
    else:
        leaves, scores = _beam_search(generator, catalogue, width, item_filter, guide)
    limit = guide if isinstance(guide, Guide) else item_filter
    top_k = min(top_k, count if limit is None else int(limit.available.max()))
    leaves, scores = leaves[:, :top_k], scores[:, :top_k]
    item_indices = catalogue.items_of_leaves(leaves).masked_fill(scores == -torch.inf, -1)
    return Recommendations(item_indices, scores)


class Generator:
    """The decoder with the conditions of B users; it adds the log-probabilities of conditions with weights.

    Args:
        decoder: the decoder's arithmetic.
        memory: see `search`.
        attention_mask: see `search`.
        mix: see `search`.
    """

    def __init__(
        self,
        decoder: FoldedDecoder | CalledDecoder | None,
        memory: Tensor,
        attention_mask: Tensor | None,
        mix: Tensor | None,
    ) -> None:
        self.decoder, self.memory, self.attention_mask, self.mix = decoder, memory, attention_mask, mix
        self.users, self.conditions = (len(memory), 1) if mix is None else mix.shape

    @property
    def counts(self) -> bool:
        """Whether any weight differs from 0."""
        return self.mix is None or bool(self.mix.any())

    def start(self, levels: int) -> DecodingState:
        """The state before the first token."""
        return self.decoder.start(self.memory, self.attention_mask, levels)

    def step(self, state: DecodingState, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """Log-probabilities of the next token of every beam, see `FoldedDecoder.step`. Shape: (B, W, V)."""
        if self.conditions > 1:
            tokens = tokens.repeat_interleave(self.conditions, 0)
            parents = None if parents is None else parents.repeat_interleave(self.conditions, 0)
        found = self.decoder.step(state, tokens, parents)
        if self.mix is None:
            return found
        if self.conditions == 1:
            return found.mul_(self.mix[..., None])
        return torch.einsum("bcwv,bc->bwv", found.unflatten(0, self.mix.shape), self.mix)


def _beam_search(
    generator: Generator,
    catalogue: SemanticIdCatalogue,
    width: int,
    item_filter: CatalogueFilter | None,
    guide: Guide | PathGuide | None,
) -> tuple[Tensor, Tensor]:
    """Leaves and scores, best first. Both of shape (B, <= width)."""
    device = generator.memory.device
    state = generator.start(catalogue.num_levels) if generator.counts else None
    if isinstance(guide, PathGuide):
        guide = guide.start()
    nodes = torch.zeros(generator.users, 1, dtype=torch.int64, device=device)
    scores = torch.zeros(generator.users, 1, device=device)
    tokens, parents, offset = nodes, None, 1
    for level in range(catalogue.num_levels):
        if state is not None:
            log_probs = generator.step(state, tokens, parents)
        else:
            log_probs = scores.new_zeros(()).expand(*nodes.shape, 1 + sum(catalogue.codebook_sizes))
        nodes, parents, codes, scores = expand(
            catalogue, level, nodes, scores, log_probs, offset, width, item_filter, guide
        )
        tokens = codes + offset
        offset += catalogue.codebook_sizes[level]
    return nodes, scores


def item_scores(generator: Generator, catalogue: SemanticIdCatalogue, item_indices: Tensor) -> Tensor:
    """Weighted log-probabilities of given items.

    Args:
        generator: the decoder.
        catalogue: the items.
        item_indices: Shape: (B, M).

    Returns:
        -inf for items that were removed. Shape: (B, M), float32.
    """
    codes = catalogue.codes[item_indices].long()
    removed, codes = codes[..., 0] == REMOVED, codes.clamp(min=0)
    state = generator.start(catalogue.num_levels)
    scores = torch.zeros(item_indices.shape, device=item_indices.device).masked_fill_(removed, -torch.inf)
    tokens, parents, offset = item_indices.new_zeros(len(item_indices), 1), None, 1
    paths = torch.arange(item_indices.shape[1], device=item_indices.device).expand_as(item_indices)
    for level in range(catalogue.num_levels):
        log_probs = generator.step(state, tokens, parents).expand(-1, paths.shape[1], -1)
        tokens = codes[..., level] + offset
        scores += log_probs.gather(2, tokens[..., None]).squeeze(-1)
        parents = torch.zeros_like(paths) if level == 0 else paths
        offset += catalogue.codebook_sizes[level]
    return scores


def expand(
    catalogue: SemanticIdCatalogue,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    log_probs: Tensor,
    offset: int,
    width: int,
    item_filter: CatalogueFilter | None,
    guide: Guide | Path | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best `width` children of the current nodes of each user.

    Returns:
        Child ids, the beams that they extend, their codes, and their scores, best first. Each of shape (B, W'). The
        scores of inner nodes do not include the guide, which only selects.
    """
    children = list_children(catalogue, level, nodes)
    own = log_probs[:, :, offset : offset + catalogue.codebook_sizes[level]]
    if isinstance(guide, Path):
        return guide.extend(level, children, own, scores, width, item_filter)
    candidate = children.scores(catalogue, level, own, scores)
    if item_filter is not None:
        item_filter.mask_(level + 1, candidate, children, scores)
    keep = min(width, candidate.shape[1], catalogue.num_nodes(level + 1))
    guided = candidate if guide is None else candidate + children.values(guide.levels[level])
    scores, slots = top_slots(guided, keep)
    if guide is not None and level + 1 < catalogue.num_levels:
        scores = candidate.gather(1, slots).masked_fill_(scores == -torch.inf, -torch.inf)
    # If there are too few children, empty slots are picked; their scores are -inf.
    return *children.at(catalogue, level, slots), scores


def _search_in_chunks(
    generator: Generator,
    catalogue: SemanticIdCatalogue,
    top_k: int,
    item_filter: CatalogueFilter | None,
    guide: Guide | PathGuide | None,
) -> tuple[Tensor, Tensor]:
    """Score every item, one range of leaves at a time, and keep the best `top_k`. Both results of shape (B, top_k)."""
    device, users = generator.memory.device, generator.users
    best_leaves = torch.empty(users, 0, dtype=torch.int64, device=device)
    best_scores = torch.empty(users, 0, device=device)
    for low in range(0, len(catalogue), EXACT_CHUNK):
        high = min(low + EXACT_CHUNK, len(catalogue))
        window = CatalogueFilter(catalogue, users, leaves=(low, high))
        if item_filter is not None:
            window.share(item_filter)
        leaves, scores = _beam_search(generator, catalogue, high - low, window, None)
        if guide is not None:
            scores = scores + guide.at(leaves)
        best_leaves, best_scores = torch.cat([best_leaves, leaves], 1), torch.cat([best_scores, scores], 1)
        best_scores, index = best_scores.topk(min(top_k, best_scores.shape[1]), dim=1)
        best_leaves = best_leaves.gather(1, index)
    return best_leaves, best_scores
