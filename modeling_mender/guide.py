"""What experts add to the generator's scores, laid over the catalogue's tree to guide the beam search.

A leaf has the sum of the experts, exactly. An inner node has the best of its leaves: with it, the score of a prefix is
the most that any item below can reach, so a beam keeps what the generator alone would cut. Filters come first: a leaf
that may not be returned guides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .catalogue import SemanticIdCatalogue
from .item_filter import ItemSelection, allowed_mask, check_items_left

__all__ = ["Guide"]


@dataclass(frozen=True)
class Guide:
    """Scores of experts for B users, by leaf and by inner node.

    Attributes:
        leaves: the sum of the experts, -inf for leaves that may not be returned. Shape: (B, leaves).
        levels: for every depth 1..L, the best leaf below each node, padded by the widest sibling range, as a
            catalogue's `code_table` is. Shape of each: (B, nodes + padding).
    """

    leaves: Tensor
    levels: list[Tensor]

    @classmethod
    def over(
        cls,
        catalogue: SemanticIdCatalogue,
        scores: Tensor,
        allowed: ItemSelection | None = None,
        exclude: ItemSelection | None = None,
    ) -> Guide:
        """The guide of scores over all items.

        Args:
            catalogue: the tree.
            scores: by item index. Shape: (B, N).
            allowed: items that may be returned, see `as_selection`.
            exclude: items that may not be returned, in the same forms. Wins over `allowed`.

        Raises:
            ValueError: if a filter has the wrong shape, or leaves some user nothing.
            IndexError: if a filter names an item that is not in the catalogue.
        """
        mask = allowed_mask(allowed, exclude, catalogue.num_items, len(scores), scores.device)
        leaves = catalogue.leaf_order(scores)
        if mask is not None:
            leaves = leaves.masked_fill(~catalogue.leaf_order(mask), -torch.inf)
            check_items_left((leaves > -torch.inf).sum(1))
        levels, best = [], leaves
        for level in reversed(range(catalogue.num_levels)):
            levels.append(functional.pad(best, (0, catalogue.widest[level]), value=-torch.inf))
            if level:
                best = best_of_siblings(catalogue, level, best)
        return cls(leaves, levels[::-1])

    @property
    def available(self) -> Tensor:
        """How many items each user may receive. Shape: (B,), int64."""
        return (self.leaves > -torch.inf).sum(1)

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The leaves that the experts put first, and their scores. Shape of each: (B, count)."""
        scores, leaves = self.leaves.topk(min(count, self.leaves.shape[1]), dim=1)
        return leaves, scores


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
