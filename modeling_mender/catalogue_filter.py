"""Per-request views of a catalogue: which items may be returned, without rebuilding its prefix tree.

`allowed` (in stock, a category) becomes a running count over leaves, so that one subtraction says whether anything
below a node may be returned. `exclude` (a few items per user, already seen) becomes, per level, the short list of nodes
all of whose remaining items are excluded, so that its cost does not grow with the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .catalogue import SemanticIdCatalogue

__all__ = ["CatalogueFilter", "ItemSelection"]

ItemSelection = Tensor | Iterable[int] | Iterable[Iterable[int]]
"""Item rows or a boolean mask over rows; shared by all users (one dimension) or one per user (two)."""


class CatalogueFilter:
    """Which leaves of a catalogue B users may receive.

    Args:
        catalogue: the catalogue that is searched.
        num_users: B.
        allowed: items that may be returned; `None` allows all. Item rows (a flat list, or one list per user; -1 pads)
            or a boolean mask of shape (N,) or (B, N).
        exclude: items that may not be returned, in the same forms. Wins over `allowed`.
        leaves: a half-open range of leaf positions outside which nothing is returned.

    Raises:
        ValueError: if a selection has the wrong shape, or leaves some user without any item.
        IndexError: if a row number lies outside the catalogue.
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
        masks, excluded_rows = [], None
        if allowed is not None:
            selection = _as_tensor(allowed, catalogue, num_users, "allowed")
            masks.append(selection if selection.dtype == torch.bool else _mask_of_rows(selection, catalogue.num_rows))
        if exclude is not None:
            selection = _as_tensor(exclude, catalogue, num_users, "exclude")
            if selection.dtype == torch.bool:
                masks.append(~selection)
            else:
                excluded_rows = selection
        self._count: Tensor | None = None
        if masks:
            mask = masks[0] if len(masks) == 1 else masks[0] & masks[1]
            self._count = _running_count(catalogue.leaf_order(mask))
        self._dead: list[tuple[Tensor, Tensor]] | None = None
        if excluded_rows is not None and excluded_rows.numel():
            self._dead = self._dead_nodes(excluded_rows)
        self.available = self._available()
        if bool((self.available == 0).any()):
            user = int((self.available == 0).nonzero()[0])
            raise ValueError(
                f"no item is left for user {user} of the batch after `allowed` and `exclude`; "
                "allow more items or exclude fewer"
            )

    def mask_(self, level: int, scores: Tensor, nodes: Tensor, beams: Tensor, first_child: Tensor) -> Tensor:
        """Set the scores of children below which nothing may be returned to -inf, in place.

        Args:
            level: depth of the children, 1..L.
            scores: one score per child slot. Shape: (B, W, C).
            nodes: child ids, clamped to valid ids. Shape: (B, W, C).
            beams: the children's parents. Shape: (B, W).
            first_child: first child of each parent; slot c holds child first_child + c. Shape: (B, W).
        """
        if self._count is not None or self.leaves is not None:
            low, high = self._leaf_range(level, nodes)
            if self._count is not None:
                scores.masked_fill_(self._count_between(low, high) == 0, -torch.inf)
            if self.leaves is not None:
                scores.masked_fill_((low >= self.leaves[1]) | (high <= self.leaves[0]), -torch.inf)
        if self._dead is not None:
            dead, parents = (part.expand(len(beams), -1) for part in self._dead[level - 1])
            user, item, beam = ((parents[:, :, None] == beams[:, None, :]) & (dead[:, :, None] >= 0)).nonzero(
                as_tuple=True
            )
            slot = dead[user, item] - first_child[user, beam]
            scores[user, beam, slot] = -torch.inf
        return scores

    def _leaf_range(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        low, high = nodes, nodes + 1
        for depth in range(level, self.catalogue.num_levels):
            start = self.catalogue._child_start[depth]
            low, high = start[low].long(), start[high].long()
        return low, high

    def _count_between(self, low: Tensor, high: Tensor) -> Tensor:
        """How many items of a leaf range the mask allows."""
        count = self._count
        if count is None:
            return high - low
        if count.dim() == 1:
            return count[high] - count[low]
        flat = low.shape[0], -1
        gather = count.gather(1, high.reshape(flat)) - count.gather(1, low.reshape(flat))
        return gather.view(low.shape)

    def _dead_nodes(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per level 1..L, the nodes below which every otherwise allowed item is excluded, and their parents.

        Returns:
            L pairs (nodes, parents), each of shape (B or 1, E); -1 pads.
        """
        catalogue = self.catalogue
        levels = catalogue.num_levels
        rows = rows if rows.dim() == 2 else rows[None]
        codes = catalogue.codes[rows.clamp(min=0)].long()
        present = (rows >= 0) & (codes[..., 0] >= 0)
        paths = [torch.where(present, 0, -1)]
        for level in range(levels):
            step = catalogue.descend(level, paths[-1].reshape(-1), codes[..., level].reshape(-1))
            paths.append(step.view_as(paths[0]))
        # Count each excluded item once, and only where the mask does not rule it out already.
        leaves, order = paths[levels].sort(dim=1)
        fresh = torch.ones_like(leaves, dtype=torch.bool)
        fresh[:, 1:] = leaves[:, 1:] != leaves[:, :-1]
        fresh &= leaves >= 0
        fresh &= self._count_between(leaves.clamp(min=0), leaves.clamp(min=0) + 1) > 0
        running = _running_count(fresh)
        dead: list[tuple[Tensor, Tensor]] = []
        for level in range(1, levels + 1):
            # Leaf order is node order at every level, so the sorted path is sorted as well.
            path = paths[level].gather(1, order).contiguous()
            excluded = running.gather(1, torch.searchsorted(path, path, right=True)) - running.gather(
                1, torch.searchsorted(path, path)
            )
            low, high = self._leaf_range(level, path.clamp(min=0))
            is_dead = (path >= 0) & (excluded > 0) & (excluded == self._count_between(low, high))
            parents = paths[level - 1].gather(1, order)
            dead.append((torch.where(is_dead, path, -1), torch.where(is_dead, parents, -1)))
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


def _as_tensor(selection: ItemSelection, catalogue: SemanticIdCatalogue, num_users: int, name: str) -> Tensor:
    """A boolean mask (N,) or (B, N), or item rows (E,) or (B, E) padded with -1."""
    if not isinstance(selection, Tensor):
        listed = list(selection)
        if listed and not isinstance(listed[0], int | bool):
            ragged = [torch.as_tensor(list(rows), dtype=torch.int64) for rows in listed]
            selection = torch.nn.utils.rnn.pad_sequence(ragged, batch_first=True, padding_value=-1)
        else:
            selection = torch.as_tensor(
                listed, dtype=torch.bool if listed and isinstance(listed[0], bool) else torch.int64
            )
    selection = selection.to(catalogue.device)
    if selection.dim() not in (1, 2) or (selection.dim() == 2 and len(selection) != num_users):
        raise ValueError(
            f"`{name}` has shape {tuple(selection.shape)}; expected one dimension (shared by all users) "
            f"or two with one row for each of the {num_users} users"
        )
    if selection.dtype == torch.bool:
        if selection.shape[-1] != catalogue.num_rows:
            raise ValueError(
                f"the boolean mask `{name}` covers {selection.shape[-1]} rows; the catalogue has {catalogue.num_rows}"
            )
        return selection
    if selection.is_floating_point():
        raise ValueError(f"`{name}` has dtype {selection.dtype}; pass item rows (integers) or a boolean mask")
    selection = selection.long()
    outside = (selection < -1) | (selection >= catalogue.num_rows)
    if bool(outside.any()):
        raise IndexError(
            f"`{name}` names item row {int(selection[outside][0])}; the catalogue has rows 0..{catalogue.num_rows - 1}"
        )
    return selection


def _mask_of_rows(rows: Tensor, num_rows: int) -> Tensor:
    """Boolean mask of listed rows; -1 is padding."""
    mask = torch.zeros(*rows.shape[:-1], num_rows + 1, dtype=torch.bool, device=rows.device)
    mask.scatter_(-1, torch.where(rows < 0, num_rows, rows), True)
    return mask[..., :num_rows]


def _running_count(flags: Tensor) -> Tensor:
    """Number of set flags before each position along the last axis, one longer than the input."""
    count = torch.zeros(*flags.shape[:-1], flags.shape[-1] + 1, dtype=torch.int32, device=flags.device)
    torch.cumsum(flags, dim=-1, dtype=torch.int32, out=count[..., 1:])
    return count
