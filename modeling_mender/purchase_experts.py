"""Experts that know what was bought: popularity, and item-item matrices whose rows a history adds up.

`training.closed_form` fills them: with counts, with EASE (Steck 2019, arXiv:1905.03375), and with what was bought soon
afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .saved_weights import check_range

__all__ = ["WINDOW", "ItemItem", "Popularity", "recency"]

WINDOW = 3
"""Number of latest items that the transitions expert uses; the n-th latest has weight 1/n."""


class Popularity(nn.Module):
    """How often each item was bought, the same for everybody.

    Attributes:
        counts: number of purchases in the training period. Shape: (N,).
    """

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_items), persistent=True)

    def add_items(self, count: int) -> None:
        """Add items without purchases."""
        self.counts = functional.pad(self.counts, (0, count))

    def forward(self, users: int) -> Tensor:
        """Logarithm of 1 + purchases, which is finite for items that were never bought. Shape: (B, N)."""
        return self.counts.float().log1p().expand(users, -1)


class ItemItem(nn.Module):
    """Scores items by those of a history: a sparse item-item matrix with the largest entries of every row.

    Args:
        num_items: N.
        num_neighbours: K, the number of entries kept per item.

    Attributes:
        neighbours: the items with the largest entries, padded with -1. Shape: (N, K), int32.
        strengths: the entries. Shape: (N, K).
    """

    def __init__(self, num_items: int, num_neighbours: int) -> None:
        super().__init__()
        table = torch.full((num_items, num_neighbours), -1, dtype=torch.int32)
        self.register_buffer("neighbours", table, persistent=True)
        self.register_buffer("strengths", torch.zeros(num_items, num_neighbours), persistent=True)

    def set_matrix(self, matrix: Tensor, items: Tensor | None = None) -> None:
        """Keep the entries of largest magnitude in every row of a matrix.

        Args:
            matrix: entry (i, j) is the score that item i in a history gives to item j; dense or sparse (COO). Shape:
                (N, N), or (S, S) for S of the items.
            items: which ones, ascending; default: all. Shape: (S,).
        """
        count = min(self.neighbours.shape[1], matrix.shape[1])
        entries = (_largest_of_sparse if matrix.is_sparse else _largest)(matrix, count)
        row, place, column, value = (part.to(self.strengths.device) for part in entries)
        if items is not None:
            items = items.to(row.device)
            row, column = items[row], items[column]
        # New tensors: a copy of the expert may share those of today.
        self.neighbours, self.strengths = torch.full_like(self.neighbours, -1), torch.zeros_like(self.strengths)
        self.neighbours[row, place] = column.to(torch.int32)
        self.strengths[row, place] = value.to(self.strengths.dtype)

    def add_items(self, count: int, num_neighbours: int) -> None:
        """Add items with empty rows; every row has room for `num_neighbours` entries afterwards."""
        room = num_neighbours - self.neighbours.shape[1]
        self.neighbours = functional.pad(self.neighbours, (0, room, 0, count), value=-1)
        self.strengths = functional.pad(self.strengths, (0, room, 0, count))

    def check_values(self) -> None:
        """Check loaded tables.

        Raises:
            ValueError: if a neighbour is not an item.
        """
        check_range("neighbours", self.neighbours, -1, len(self.neighbours))

    def forward(self, history: Tensor, weights: Tensor | None = None) -> Tensor:
        """The sum of the matrix rows of a history; items without a row add nothing.

        Args:
            history: item indices, padded with -1. Shape: (B, H).
            weights: weight of each item of the history; default 1. Shape: (B, H).

        Returns:
            Shape: (B, N).
        """
        neighbours, values = self.entries(history, weights)
        # Padding goes into an extra column, which is removed.
        items = len(self.neighbours)
        columns = torch.where(neighbours < 0, items, neighbours)
        scores = values.new_zeros(len(history), items + 1)
        return scores.scatter_add_(1, columns, values)[:, :items]

    def entries(self, history: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The entries that `forward` adds up: items, padded with -1, and values. Shape of each: (B, H * K)."""
        known = (history >= 0) & (history < len(self.neighbours))
        item_indices = history.masked_fill(~known, 0)
        neighbours = self.neighbours[item_indices].long().masked_fill(~known[..., None], -1)
        values = self.strengths[item_indices].float() * known[..., None]
        if weights is not None:
            values = values * weights[..., None]
        return neighbours.flatten(1), values.flatten(1)


def _largest(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The entries of largest magnitude of every row, without zeros: row, place among them, column, value."""
    column = matrix.abs().topk(count, dim=1).indices
    value = matrix.gather(1, column)
    row, place = (value != 0).nonzero(as_tuple=True)
    return row, place, column[row, place], value[row, place]


def _largest_of_sparse(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of a sparse matrix; of equal entries, the lower columns."""
    matrix = matrix.coalesce()
    (row, column), value = matrix.indices(), matrix.values()
    order = value.abs().argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row, column, value = row[order], column[order], value[order]
    entries = torch.bincount(row, minlength=len(matrix))
    place = torch.arange(len(row), device=row.device) - (entries.cumsum(0) - entries)[row]
    kept = (place < count) & (value != 0)
    return row[kept], place[kept], column[kept], value[kept]


def recency(history: Tensor) -> Tensor:
    """1/n for the n-th latest of the last `WINDOW` items, otherwise 0. Shape: (B, T)."""
    present = history >= 0
    position = present.flip(1).cumsum(1).flip(1)
    return torch.where(present & (position <= WINDOW), 1.0 / position.clamp(min=1), 0.0)
