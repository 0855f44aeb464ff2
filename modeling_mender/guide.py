"""The scores of experts for the nodes of the catalogue's tree, which guide the beam search.

The score of a leaf is the weighted sum of the experts. The score of an inner node is the maximum over its leaves: added
to the log-probability of a prefix, it is an upper bound for all items below, so a beam keeps items that the generator
alone would lose. Filters are applied first, so items that may not be returned do not count.
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
        levels: for every depth 1..L, the maximum over the leaves below each node, padded like `code_table` of the
            catalogue. Shape of each: (B, nodes + padding).
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
        """The leaves with the highest scores of experts, and the scores. Shape of each: (B, count)."""
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
