"""The children of the live nodes of a beam search, laid out for scoring.

Each user has W nodes, and the children of a node are a contiguous range of ids. On most levels every node gets as many
slots as the widest node has children; where a few nodes are far wider than the rest, as on a tie-breaking level, the
children of a user follow one another without gaps instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .catalogue import SemanticIdCatalogue

__all__ = ["ChildSlots", "list_children"]

RAGGED_COST = 3
"""How many padded slots cost as much as one slot of a ragged layout, which has to find out whose child it is."""


@dataclass(frozen=True)
class ChildSlots(ABC):
    """M slots for the children of W nodes of each of B users.

    Attributes:
        nodes: the nodes. Shape: (B, W).
        first: first child of each node, as a node id of the next level. Shape: (B, W).
        begin: slot of that child; the node's other children follow. Shape: (B, W).
    """

    nodes: Tensor
    first: Tensor
    begin: Tensor

    @abstractmethod
    def scores(self, catalogue: SemanticIdCatalogue, level: int, log_probs: Tensor, scores: Tensor) -> Tensor:
        """Score of every slot: its node's plus the log-probability of its code, -inf where there is no child.

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
        """Entries of a table over the ids of the next level, with room for the widest node's children behind it.

        Returns:
            Shape: (B, M); slots without a child hold any entry.
        """

    @abstractmethod
    def edges(self, look_up: Callable[[Tensor], Tensor], last: int) -> tuple[Tensor, Tensor]:
        """What `look_up` says of every slot's child id, and of the id after it.

        Args:
            look_up: from node ids to values, element by element, in the layout (B, ...).
            last: the largest id it takes.

        Returns:
            Shapes: (B, M), (B, M).
        """

    @abstractmethod
    def owners(self, slots: Tensor) -> Tensor:
        """The node, 0..W-1, that slots belong to. Shape: that of `slots`, (B, ...)."""


@dataclass(frozen=True)
class _Padded(ChildSlots):
    """As many slots for every node as the widest has children; `widths` is None where all nodes are that wide."""

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
        # Runs of neighbours, copied whole: several times faster than element by element.
        return table.unfold(0, self.width, 1)[self.first]


@dataclass(frozen=True)
class _Ragged(ChildSlots):
    """The children of a user one after the other; users with fewer children than the one with most have idle slots."""

    owner: Tensor
    real: Tensor

    def scores(self, catalogue: SemanticIdCatalogue, level: int, log_probs: Tensor, scores: Tensor) -> Tensor:
        codes = catalogue.code_table(level + 1)
        code = self._ids() - self.first.gather(1, self.owner) if codes is None else codes[self._ids()].long()
        place = (self.owner * log_probs.shape[2] + code).masked_fill_(~self.real, 0)
        candidate = log_probs.flatten(1).gather(1, place) + scores.gather(1, self.owner)
        return candidate.masked_fill_(~self.real, -torch.inf)

    def values(self, table: Tensor) -> Tensor:
        return table[self._ids()]

    def edges(self, look_up: Callable[[Tensor], Tensor], last: int) -> tuple[Tensor, Tensor]:
        return look_up(self._ids()), look_up((self._ids() + 1).clamp_(max=last))

    def owners(self, slots: Tensor) -> Tensor:
        return self.owner.gather(1, slots)

    def _ids(self) -> Tensor:
        slots = torch.arange(self.owner.shape[1], device=self.owner.device)
        return (slots + (self.first - self.begin).gather(1, self.owner)).masked_fill_(~self.real, 0)


def list_children(catalogue: SemanticIdCatalogue, level: int, nodes: Tensor) -> ChildSlots:
    """The children of nodes.

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
