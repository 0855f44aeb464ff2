"""The scores of experts for the nodes of the catalogue's tree, which guide the beam search.

The score of a leaf is the weighted sum of the experts. The score of an inner node is the maximum over its leaves: added
to the log-probability of a prefix, it is an upper bound for all items below, so a beam keeps items that the generator
alone would lose. Filters are applied first, so items that may not be returned do not count. In a catalogue of millions
of items, a `PathGuide` estimates nodes from their prefixes instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from .candidates import CatalogueFilter, ChildSlots, top_slots
from .catalogue import SemanticIdCatalogue
from .experts import ExpertSum, sample_items
from .item_evidence import ItemEvidence, added_up
from .item_filter import ItemSelection, allowed_mask, check_items_left, prior_scores
from .item_states import ItemStatesEncoder, version_of

__all__ = ["Guide", "Path", "PathGuide", "additive_centroids", "node_maxima", "path_guide"]

CORRECTED = 2
"""Candidates for each beam on the last level of which a `PathGuide` computes exact scores."""
FITTED_ITEMS = 2**17
"""Items of the fixed random sample on which centroids are fitted."""
LEADING = 512
"""Items of each user, those with the highest scores of item-item rows, words and priors, that lead the search."""
SHRINKAGE = 4.0
"""Items without meaning that are added to those of each code when centroids are fitted."""


@dataclass(frozen=True)
class Guide:
    """Scores of experts for B users, by leaf and by inner node.

    Attributes:
        leaves: the sum of the experts, -inf for leaves that may not be returned. Shape: (B, leaves).
        catalogue: the tree.
    """

    leaves: Tensor
    catalogue: SemanticIdCatalogue

    @cached_property
    def levels(self) -> list[Tensor]:
        """For every depth 1..L, the maximum over the leaves below each node, padded like `code_table` of the catalogue.

        Shape of each: (B, nodes + padding).
        """
        return node_maxima(self.catalogue, self.leaves, -torch.inf)

    @classmethod
    def over(
        cls,
        catalogue: SemanticIdCatalogue,
        scores: Tensor,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
    ) -> Guide:
        """The guide for scores of all items.

        Args:
            catalogue: the tree.
            scores: scores by item index. Shape: (B, N).
            allowed: items that may be returned, see `as_selection`.
            exclude: items that may not be returned, in the same forms. Takes precedence over `allowed`.

        Raises:
            ValueError: if a filter has the wrong shape, or leaves a user without items.
            IndexError: if a filter contains an item that is not in the catalogue.
        """
        mask = allowed_mask(allowed, exclude, catalogue.num_items, len(scores), scores.device)
        leaves = catalogue.leaf_order(scores)
        if mask is not None:
            leaves = leaves.masked_fill(~catalogue.leaf_order(mask), -torch.inf)
            check_items_left((leaves > -torch.inf).sum(1))
        return cls(leaves, catalogue)

    @property
    def available(self) -> Tensor:
        """How many items each user may receive. Shape: (B,), int64."""
        return (self.leaves > -torch.inf).sum(1)

    def at(self, leaves: Tensor) -> Tensor:
        """Scores of leaves. Shape: (B, M) -> (B, M)."""
        return self.leaves.gather(1, leaves)

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The leaves with the highest scores of experts, and the scores. Shape of each: (B, count)."""
        scores, leaves = self.leaves.topk(min(count, self.leaves.shape[1]), dim=1)
        return leaves, scores


def node_maxima(catalogue: SemanticIdCatalogue, leaves: Tensor, padding: float) -> list[Tensor]:
    """The maximum over the leaves below each node, for every depth 1..L.

    Args:
        catalogue: the tree.
        leaves: scores in the order of leaves. Shape: (B, leaves).
        padding: value behind the last node.

    Returns:
        Padded like `code_table` of the catalogue. Shape of each: (B, nodes + padding).
    """
    levels, best = [], leaves
    for level in reversed(range(catalogue.num_levels)):
        levels.append(functional.pad(best, (0, catalogue.widest[level]), value=padding))
        if level and catalogue.widest[level] > 1:
            best = best_of_siblings(catalogue, level, best)
    return levels[::-1]


def best_of_siblings(catalogue: SemanticIdCatalogue, level: int, values: Tensor) -> Tensor:
    """The maximum over the children of every node.

    Args:
        catalogue: the tree.
        level: depth of the nodes.
        values: of all nodes of depth `level + 1`. Shape: (B, children).

    Returns:
        Shape: (B, nodes).
    """
    nodes = torch.arange(catalogue.num_nodes(level), device=values.device)
    first, end = catalogue.children(level, nodes)
    parents = torch.repeat_interleave(nodes, end - first)
    best = values.new_full((len(values), len(nodes)), -torch.inf)
    return best.scatter_reduce_(1, parents.expand(len(values), -1), values, "amax")


@dataclass(frozen=True)
class PathGuide:
    """Scores of experts for catalogues with too many items to score each: nodes are estimated, leaves are exact.

    The score of a node is the sum of the inner products of the user's query with one centroid per code of its prefix
    (the arithmetic of product quantisation, Jegou et al. 2011), the highest score below it in static tables, and the
    highest score below it of the `LEADING` items that item-item rows, rare words and priors put first. On the last
    level, the `CORRECTED` best candidates for each beam get their exact scores.

    Attributes:
        catalogue: the tree.
        evidence: exact scores of items.
        centroids: one per code, level by level, see `additive_centroids`. Shape: (sum of codebook sizes, D).
        tables: weights (B, 1), and for every depth the maxima below each node, padded like `code_table` of the
            catalogue. Shape of each: (nodes + padding,) or (B, nodes + padding).
    """

    catalogue: SemanticIdCatalogue
    evidence: ItemEvidence
    centroids: Tensor | None = None
    tables: Sequence[tuple[Tensor, Sequence[Tensor]]] = ()

    def start(self) -> Path:
        """The guide of a search that is at the root."""
        return Path(self)

    def at(self, leaves: Tensor) -> Tensor:
        """Exact scores of leaves. Shape: (B, M) -> (B, M)."""
        return self.evidence.at(self.catalogue.items_of_leaves(leaves))


class Path:
    """What a `PathGuide` says of the beams of a search; changes as they are extended."""

    def __init__(self, guide: PathGuide) -> None:
        evidence = guide.evidence
        self.guide, self.offset = guide, 0
        self.steps = None if guide.centroids is None else evidence.queries @ guide.centroids.T
        self.scores = None if self.steps is None else self.steps.new_zeros(len(self.steps), 1)
        # Items that have scores of their own: their users, the beams that they are below, codes, and scores.
        self.codes: Tensor | None = None
        if evidence.items is not None:
            values, place = evidence.values.topk(min(LEADING, evidence.values.shape[1]), dim=1, sorted=False)
            listed = evidence.items.gather(1, place)
            self.users, place = (listed < evidence.num_items).nonzero(as_tuple=True)
            self.values = values[self.users, place]
            self.codes = guide.catalogue.codes.index_select(0, listed[self.users, place])
            self.beams = torch.zeros_like(self.users)
            live = self.codes[:, 0] >= 0
            if not bool(live.all()):
                self._keep(live)

    def extend(
        self,
        level: int,
        children: ChildSlots,
        log_probs: Tensor,
        scores: Tensor,
        width: int,
        item_filter: CatalogueFilter | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best `width` children of the current nodes; the same results as `retrieval.expand`.

        Args:
            level: depth of the nodes.
            children: their children.
            log_probs: of the codes of that level. Shape: (B, W, K).
            scores: of the nodes, without experts. Shape: (B, W).
            width: number of children to keep.
            item_filter: which items are allowed.
        """
        guide, catalogue = self.guide, self.guide.catalogue
        added, own = self._by_code(level, *log_probs.shape[1:]), scores
        if self.scores is not None:
            own = own + self.scores
        candidate = children.scores(catalogue, level, log_probs if added is None else log_probs + added, own)
        for weight, levels in guide.tables:
            candidate.addcmul_(weight, children.values(levels[level]).float())
        if item_filter is not None:
            item_filter.mask_(level + 1, candidate, children, scores)
        most = min(candidate.shape[1], catalogue.num_nodes(level + 1))
        last = level + 1 == catalogue.num_levels
        best, slots = top_slots(candidate, min(width * CORRECTED if last else width, most))
        nodes, beams, codes = children.at(catalogue, level, slots)
        users = torch.arange(len(nodes), device=nodes.device)[:, None]
        found = scores.gather(1, beams) + log_probs[users, beams, codes]
        dead = best == -torch.inf
        if not last:
            self._advance(level, beams, codes, dead, *log_probs.shape[1:])
            return nodes, beams, codes, found.masked_fill_(dead, -torch.inf)
        found = (found + guide.at(nodes)).masked_fill_(dead, -torch.inf)
        found, order = found.topk(min(width, most), dim=1)
        return *(part.gather(1, order) for part in (nodes, beams, codes)), found

    def _by_code(self, level: int, width: int, codes: int) -> Tensor | None:
        """What the experts add for each code of each beam, without tables. Shape: (B, W or 1, K)."""
        added = None
        if self.steps is not None:
            added = self.steps[:, None, self.offset : self.offset + codes]
        if self.codes is not None:
            users = len(self.guide.evidence.items)
            self.cells = (self.users * width + self.beams) * codes + self.codes[:, level]
            best = self.values.new_zeros(users * width * codes)
            best = best.scatter_reduce_(0, self.cells, self.values, "amax").view(users, width, codes)
            added = best if added is None else best.add_(added)
        return added

    def _advance(self, level: int, beams: Tensor, chosen: Tensor, dead: Tensor, width: int, codes: int) -> None:
        if self.steps is not None:
            self.scores = self.scores.gather(1, beams) + self.steps.gather(1, self.offset + chosen)
            self.offset += codes
        if self.codes is not None:
            users, kept = beams.shape
            cells = (torch.arange(users, device=beams.device)[:, None] * width + beams) * codes + chosen
            ids = torch.arange(kept, device=beams.device).expand_as(beams)
            place = beams.new_full((users * width * codes,), -1)
            place[cells[~dead]] = ids[~dead]
            self.beams = place.index_select(0, self.cells)
            self._keep(self.beams >= 0)

    def _keep(self, live: Tensor) -> None:
        """Forget the items with scores that are below no beam."""
        live = live.nonzero().squeeze(1)
        self.users, self.beams, self.codes, self.values = (
            part.index_select(0, live) for part in (self.users, self.beams, self.codes, self.values)
        )


def additive_centroids(codes: Tensor, vectors: Tensor, codebook_sizes: Sequence[int], sweeps: int = 3) -> Tensor:
    """One vector per code, so that the sum over an item's codes is close to the item's vector, for any quantizer.

    Least squares, level by level: the centroid of a code is the mean of what the other levels leave of the vectors of
    its items. Codes of few items are drawn towards 0, as the codes of a tie-breaking level mean nothing.

    Args:
        codes: of a sample of items; rows of removed items hold -1 and are left out. Shape: (S, L).
        vectors: their vectors. Shape: (S, D).
        codebook_sizes: number of codes per level. Length L.
        sweeps: how often each level is fitted.

    Returns:
        Shape: (sum of codebook sizes, D), float32.
    """
    live = codes[:, 0] >= 0
    codes, rest = codes[live].long(), vectors[live].float()
    found = [rest.new_zeros(size, rest.shape[1]) for size in codebook_sizes]
    for _ in range(sweeps):
        for level, own in enumerate(codes.unbind(1)):
            rest += found[level][own]
            counts = torch.bincount(own, minlength=codebook_sizes[level])[:, None]
            sums = torch.zeros_like(found[level]).index_add_(0, own, rest)
            found[level] = sums / (counts + SHRINKAGE)
            rest -= found[level][own]
    return torch.cat(found)


def path_guide(
    catalogue: SemanticIdCatalogue,
    users: int,
    *,
    experts: ExpertSum | None = None,
    evidence: ItemEvidence | None = None,
    encoder: ItemStatesEncoder | None = None,
    avoid_input_ids: Tensor | None = None,
    prior: Tensor | Sequence[float] | Mapping[int, float] | None = None,
) -> PathGuide | None:
    """The guide of a search that does not score every item; `None` if there is nothing to add.

    Args:
        catalogue: the tree.
        users: B.
        experts: the experts.
        evidence: of the experts, see `ExpertSum.evidence`.
        encoder: see `ExpertSum.forward`.
        avoid_input_ids: see `ExpertSum.penalty`. Shape: (B, A, T').
        prior: see `prior_scores`.
    """
    items, device = catalogue.num_items, catalogue.device
    avoided = None
    if avoid_input_ids is not None:
        avoided = experts.avoided(avoid_input_ids, items, encoder=encoder, live=catalogue.live_items())
    if evidence is None and avoided is None and prior is None:
        return None
    evidence = replace(evidence or ItemEvidence(items), avoided=avoided)
    centroids, tables = None, []
    if evidence.queries is not None:
        centroids = _centroids(catalogue, experts, evidence.vectors)
    if evidence.popularity is not None:
        tables.append((evidence.popularity, _popularity_maxima(catalogue, experts)))
    if prior is not None:
        values = prior_scores(prior, items, users, device)
        if isinstance(prior, Mapping):
            named = torch.tensor(list(prior), dtype=torch.int64, device=device)
            entries = [(named.expand(users, -1), values[named].expand(users, -1))]
            if evidence.items is not None:
                entries.append((evidence.items, evidence.values))
            listed, values = added_up(*(torch.cat(side, 1) for side in zip(*entries, strict=True)), items)
            evidence = replace(evidence, items=listed, values=values)
        else:
            evidence = replace(evidence, prior=values.view(-1, items))
            leaves = catalogue.leaf_order(evidence.prior)
            tables.append((values.new_ones(users, 1), node_maxima(catalogue, leaves, 0.0)))
    return PathGuide(catalogue, evidence, centroids, tables)


def _centroids(catalogue: SemanticIdCatalogue, experts: ExpertSum, vectors: Tensor) -> Tensor:
    """Additive centroids of item vectors, fitted once on a sample. Shape: (sum of codebook sizes, D)."""

    def fit() -> Tensor:
        sample = sample_items(len(vectors), FITTED_ITEMS, vectors.device)
        return additive_centroids(catalogue.codes[sample], vectors[sample], catalogue.codebook_sizes)

    return experts.keep("centroids", (vectors, version_of(vectors), catalogue), fit)


def _popularity_maxima(catalogue: SemanticIdCatalogue, experts: ExpertSum) -> list[Tensor]:
    """Highest popularity below the nodes of every depth, computed once. Shape of each: (nodes + padding,)."""
    counts = experts.popularity.counts

    def look_up() -> list[Tensor]:
        known = functional.pad(counts.float().log1p(), (0, catalogue.num_items - len(counts)))
        leaves = catalogue.leaf_order(known)[None]
        return [level[0].half() for level in node_maxima(catalogue, leaves, 0.0)]

    return experts.keep("popularity", (counts, version_of(counts), catalogue), look_up)
