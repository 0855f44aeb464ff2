"""Candidates of a beam search: the children of the beams' nodes, and which of them a request allows.

Per-request filters never rebuild the prefix tree. They mask the children that lead to no allowed item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .catalogue import SemanticIdCatalogue
from .item_filter import ItemSelection, allowed_mask, as_selection, check_items_left

__all__ = [
    "CatalogueFilter",
    "ChildSlots",
    "list_children",
    "top_slots",
]


RAGGED_COST = 3
"""Padded slots that cost as much as one slot of a ragged layout, which has to look up its parent."""
MANY_CANDIDATES, BLOCK = 1024, 64
"""Candidates per slot to keep from which the best blocks are found first, and the size of a block."""
WHOLE_LEVEL = 2**17
"""Up to this many nodes, a mask is evaluated once for a whole level instead of for each step's candidates."""


@dataclass(frozen=True)
class ChildSlots(ABC):
    """M slots for the children of W nodes of each of B users.

    Attributes:
        nodes: node ids. Shape: (B, W).
        first: first child of each node, as a node id of the next level. Shape: (B, W).
        begin: slot of that child; the node's other children follow it. Shape: (B, W).
    """

    nodes: Tensor
    first: Tensor
    begin: Tensor

    @abstractmethod
    def scores(self, catalogue: SemanticIdCatalogue, level: int, log_probs: Tensor, scores: Tensor) -> Tensor:
        """Score of every slot: the node's score plus the log-probability of the code; -inf where there is no child.

        Args:
            catalogue: the tree.
            level: depth of the nodes.
            log_probs: of the codes of that level. Shape: (B, W, K).
            scores: of the nodes. Shape: (B, W).

        Returns:
            Shape: (B, M).
        """

    @abstractmethod
    def values(self, table: Tensor) -> Tensor:
        """Table entries of the children.

        Args:
            table: one entry per node of the next level, padded at the end by the widest node's number of children.

        Args:
            table: one for all users, or one row for each. Shape: (nodes,) or (B, nodes).

        Returns:
            Shape: (B, M). Entries of slots without a child are arbitrary.
        """

    @abstractmethod
    def edges(self, look_up: Callable[[Tensor], Tensor], last: int) -> tuple[Tensor, Tensor]:
        """The values of `look_up` at every slot's child id, and at the id after it.

        Args:
            look_up: maps node ids to values, element by element, in the layout (B, ...).
            last: the largest id it accepts.

        Returns:
            Shapes: (B, M), (B, M).
        """

    @abstractmethod
    def owners(self, slots: Tensor) -> Tensor:
        """The position (0..W-1) of each slot's parent. Shape: that of `slots`, (B, ...)."""

    def at(self, catalogue: SemanticIdCatalogue, level: int, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Child ids, positions of their parents, and codes of slots; of a slot without a child, those of any node.

        Args:
            catalogue: the tree.
            level: depth of the nodes.
            slots: Shape: (B, M').

        Returns:
            Each of shape (B, M').
        """
        beams = self.owners(slots)
        picked = slots - self.begin.gather(1, beams) + self.first.gather(1, beams)
        picked = picked.clamp_(max=catalogue.num_nodes(level + 1) - 1)
        codes = catalogue.codes_of(level + 1, picked, self.nodes.gather(1, beams))
        return picked, beams, codes.clamp_(max=catalogue.codebook_sizes[level] - 1)


@dataclass(frozen=True)
class _Padded(ChildSlots):
    """Equally many slots for every node; `widths` (children per node) is None if all nodes fill their slots."""

    width: int
    widths: Tensor | None

    def scores(self, catalogue: SemanticIdCatalogue, level: int, log_probs: Tensor, scores: Tensor) -> Tensor:
        codes = catalogue.code_table(level + 1)
        own = log_probs[:, :, : self.width] if codes is None else log_probs.gather(2, self._windows(codes).long())
        candidate = own + scores[..., None]
        if self.widths is not None:
            slot = torch.arange(self.width, device=candidate.device)
            candidate.masked_fill_(slot >= self.widths[..., None], -torch.inf)
        return candidate.flatten(1)

    def values(self, table: Tensor) -> Tensor:
        return self._windows(table).flatten(1)

    def edges(self, look_up: Callable[[Tensor], Tensor], last: int) -> tuple[Tensor, Tensor]:
        ids = self.first[..., None] + torch.arange(self.width + 1, device=self.first.device)
        found = look_up(ids.clamp_(max=last))
        return found[..., :-1].flatten(1), found[..., 1:].flatten(1)

    def owners(self, slots: Tensor) -> Tensor:
        return slots // self.width

    def _windows(self, table: Tensor) -> Tensor:
        # Copying runs of neighbours is several times faster than gathering single elements.
        if table.dim() == 1:
            return table.unfold(0, self.width, 1)[self.first]
        users = torch.arange(len(table), device=table.device)
        return table.unfold(1, self.width, 1)[users[:, None], self.first]


@dataclass(frozen=True)
class _Ragged(ChildSlots):
    """The children of a user one after the other; all users get as many slots as the user with most children."""

    owner: Tensor
    real: Tensor

    def scores(self, catalogue: SemanticIdCatalogue, level: int, log_probs: Tensor, scores: Tensor) -> Tensor:
        codes = catalogue.code_table(level + 1)
        code = self._ids() - self.first.gather(1, self.owner) if codes is None else codes[self._ids()].long()
        place = (self.owner * log_probs.shape[2] + code).masked_fill_(~self.real, 0)
        candidate = log_probs.flatten(1).gather(1, place) + scores.gather(1, self.owner)
        return candidate.masked_fill_(~self.real, -torch.inf)

    def values(self, table: Tensor) -> Tensor:
        return table[self._ids()] if table.dim() == 1 else table.gather(1, self._ids())

    def edges(self, look_up: Callable[[Tensor], Tensor], last: int) -> tuple[Tensor, Tensor]:
        return look_up(self._ids()), look_up((self._ids() + 1).clamp_(max=last))

    def owners(self, slots: Tensor) -> Tensor:
        return self.owner.gather(1, slots)

    def _ids(self) -> Tensor:
        slots = torch.arange(self.owner.shape[1], device=self.owner.device)
        return (slots + (self.first - self.begin).gather(1, self.owner)).masked_fill_(~self.real, 0)


def list_children(catalogue: SemanticIdCatalogue, level: int, nodes: Tensor) -> ChildSlots:
    """The children of nodes, in the cheaper of two layouts.

    Args:
        catalogue: the tree.
        level: depth of the nodes, 0 for the root.
        nodes: node ids of that depth. Shape: (B, W), int64.
    """
    first, end = catalogue.children(level, nodes)
    widths, widest, beams = end - first, catalogue.widest[level], nodes.shape[1]
    full = catalogue.num_nodes(level) * widest == catalogue.num_nodes(level + 1)
    if catalogue.is_ragged(level):
        ends = widths.cumsum(1)
        most, widest = int(ends[:, -1].max()), int(widths.max())
        if RAGGED_COST * most < beams * widest:
            slots = torch.arange(most, device=nodes.device).expand(len(nodes), -1).contiguous()
            owner = torch.searchsorted(ends, slots, right=True)
            return _Ragged(nodes, first, ends - widths, owner.clamp(max=beams - 1), owner < beams)
    begin = (torch.arange(beams, device=nodes.device) * widest).expand_as(first)
    return _Padded(nodes, first, begin, widest, None if full else widths)


def top_slots(candidate: Tensor, keep: int) -> tuple[Tensor, Tensor]:
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


class CatalogueFilter:
    """Which leaves of a catalogue each of B users may receive.

    Args:
        catalogue: the catalogue to search.
        num_users: B.
        allowed: items that may be returned, see `as_selection`; `None` allows all.
        exclude: items that may not be returned, in the same forms. Takes precedence over `allowed`.
        leaves: a half-open range of leaf positions; items outside it are not returned.

    Raises:
        ValueError: if a selection has the wrong shape, or leaves a user without any item.
        IndexError: if an item index is not in the catalogue.
    """

    def __init__(
        self,
        catalogue: SemanticIdCatalogue,
        num_users: int,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
        leaves: tuple[int, int] | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.num_users = num_users
        self.leaves = leaves
        # Few items are excluded by index, so only their ancestors are checked, without a mask over all items.
        few: Tensor | None = None
        if exclude is not None:
            exclude = as_selection(exclude, "exclude", catalogue.num_items, num_users, catalogue.device)
            if exclude.dtype != torch.bool:
                few, exclude = exclude, None
        mask = allowed_mask(allowed, exclude, catalogue.num_items, num_users, catalogue.device)
        self._count = None if mask is None else _running_count(catalogue.leaf_order(mask))
        self._alive: dict[int, Tensor] = {}
        self._dead: list[tuple[Tensor, Tensor] | None] | None = None
        if few is not None and few.numel():
            self._dead = self._dead_nodes(few)
        self.available = self._available()
        check_items_left(self.available)

    def share(self, other: CatalogueFilter) -> None:
        """Use the allowed and excluded items of another filter, for the same catalogue and users."""
        self._count, self._alive, self._dead = other._count, other._alive, other._dead

    def mask_(self, level: int, scores: Tensor, children: ChildSlots, parent_scores: Tensor) -> None:
        """Set the scores of children that lead to no allowed item to -inf, in place.

        Args:
            level: depth of the children, 1..L.
            scores: one score per slot. Shape: (B, M).
            children: the slots.
            parent_scores: scores of the parents. Shape: (B, W).
        """
        if self._count is not None:
            scores.masked_fill_(~self._allowed_below(level, children), -torch.inf)
        if self.leaves is not None:
            low, high = children.edges(lambda nodes: self.catalogue.leaf_starts(level, nodes), self._last(level))
            scores.masked_fill_((low >= self.leaves[1]) | (high <= self.leaves[0]), -torch.inf)
        if self._dead is not None and self._dead[level - 1] is not None:
            dead, parents = (part.expand(len(scores), -1).contiguous() for part in self._dead[level - 1])
            # A beam with score -inf repeats the node of another beam; only that other beam must be found.
            nodes, order = children.nodes.masked_fill(parent_scores == -torch.inf, -2).sort(dim=1)
            place = torch.searchsorted(nodes, parents).clamp_(max=nodes.shape[1] - 1)
            hit = (nodes.gather(1, place) == parents) & (dead >= 0)
            beam = order.gather(1, place)
            slot = dead + (children.begin - children.first).gather(1, beam)
            scores.scatter_add_(1, slot.masked_fill_(~hit, 0), torch.where(hit, -torch.inf, 0.0))

    def allows_below(self, level: int, nodes: Tensor) -> Tensor:
        """Whether the mask allows any item below each node; exclusions by index are not considered.

        Args:
            level: depth of the nodes, 1..L.
            nodes: node ids; all rows of a user are adjacent, and every user has equally many. Shape: (rows, M).

        Returns:
            Shape: (rows, M), bool.
        """
        per_user = nodes.reshape(self.num_users, -1)
        return (self._count_between(*self._leaf_range(level, per_user)) > 0).view(nodes.shape)

    def _allowed_below(self, level: int, children: ChildSlots) -> Tensor:
        """Whether the mask allows any item below each child. Shape: (B, M)."""
        shared = self._count.dim() == 1
        if shared and level not in self._alive and self.catalogue.num_nodes(level) <= WHOLE_LEVEL:
            self._alive[level] = self._alive_nodes(level)
        if level in self._alive:
            return children.values(self._alive[level])

        def count(nodes: Tensor) -> Tensor:
            leaves = self.catalogue.leaf_starts(level, nodes)
            return self._count[leaves] if shared else self._count.gather(1, leaves.flatten(1)).view_as(leaves)

        low, high = children.edges(count, self._last(level))
        return high > low

    def _alive_nodes(self, level: int) -> Tensor:
        """Whether the shared mask allows any item below each node of a level, padded like `code_table`."""
        starts = self.catalogue.leaf_starts(
            level, torch.arange(self.catalogue.num_nodes(level) + 1, device=self.catalogue.device)
        )
        count = self._count[starts]
        return functional.pad(count[1:] > count[:-1], (0, self.catalogue.widest[level - 1]))

    def _last(self, level: int) -> int:
        return self.catalogue.num_nodes(level)

    def _leaf_range(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        return self.catalogue.leaf_starts(level, nodes), self.catalogue.leaf_starts(level, nodes + 1)

    def _count_between(self, low: Tensor, high: Tensor) -> Tensor:
        """Number of items that the mask allows in leaf ranges."""
        count = self._count
        if count is None:
            return high - low
        if count.dim() == 1:
            return count[high] - count[low]
        flat = low.shape[0], -1
        gather = count.gather(1, high.reshape(flat)) - count.gather(1, low.reshape(flat))
        return gather.view(low.shape)

    def _dead_nodes(self, excluded: Tensor) -> list[tuple[Tensor, Tensor] | None]:
        """For each level 1..L, the nodes below which every allowed item is excluded, and their parents.

        Returns:
            L pairs (nodes, parents), each of shape (B or 1, E), padded with -1; None for levels without such a node.
        """
        catalogue = self.catalogue
        levels = catalogue.num_levels
        items = excluded if excluded.dim() == 2 else excluded[None]
        if self._count is not None and self._count.dim() == 2:
            items = items.expand(self.num_users, -1)  # the items left below a node differ between users
        codes = catalogue.codes[items.clamp(min=0)].long()
        present = (items >= 0) & (codes[..., 0] >= 0)
        paths = [torch.where(present, 0, -1)]
        for level in range(levels):
            step = catalogue.descend(level, paths[-1].reshape(-1), codes[..., level].reshape(-1))
            paths.append(step.view_as(paths[0]))
        # Count each excluded item once, and only if the mask allows it.
        leaves, order = paths[levels].sort(dim=1)
        fresh = torch.ones_like(leaves, dtype=torch.bool)
        fresh[:, 1:] = leaves[:, 1:] != leaves[:, :-1]
        fresh &= leaves >= 0
        fresh &= self._count_between(leaves.clamp(min=0), leaves.clamp(min=0) + 1) > 0
        running = _running_count(fresh)
        dead: list[tuple[Tensor, Tensor] | None] = []
        for level in range(1, levels + 1):
            # Node ids ascend with leaf positions at every level, so this path is sorted as well.
            path = paths[level].gather(1, order).contiguous()
            below = running.gather(1, torch.searchsorted(path, path, right=True)) - running.gather(
                1, torch.searchsorted(path, path)
            )
            low, high = self._leaf_range(level, path.clamp(min=0))
            is_dead = (path >= 0) & (below > 0) & (below == self._count_between(low, high))
            parents = paths[level - 1].gather(1, order)
            most = int(is_dead.sum(1).max())
            if most == 0:
                dead.append(None)
                continue
            first = is_dead.int().argsort(dim=1, descending=True)[:, :most]
            is_dead = is_dead.gather(1, first)
            dead.append(tuple(torch.where(is_dead, part.gather(1, first), -1) for part in (path, parents)))
        self._excluded = running[:, -1]
        return dead

    def _available(self) -> Tensor:
        """How many items each user may receive. Shape: (B,), int64."""
        device = self.catalogue.device
        low, high = self.leaves or (0, len(self.catalogue))
        if self._count is None:
            total = torch.full((self.num_users,), high - low, dtype=torch.int64, device=device)
        else:
            total = (self._count[..., high] - self._count[..., low]).long().expand(self.num_users).clone()
        return total if self._dead is None or self.leaves is not None else total - self._excluded


def _running_count(flags: Tensor) -> Tensor:
    """Number of set flags before each position of the last axis. Shape: (..., M) -> (..., M + 1)."""
    count = torch.zeros(*flags.shape[:-1], flags.shape[-1] + 1, dtype=torch.int32, device=flags.device)
    torch.cumsum(flags, dim=-1, dtype=torch.int32, out=count[..., 1:])
    return count
