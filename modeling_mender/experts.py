"""Experts: modules that score every item of the catalogue; a weighted sum of their scores ranks the items.

Behaviour experts use purchases: popularity, items bought by the same people (EASE, Steck 2019, arXiv:1905.03375) and
items bought soon afterwards. Language experts use text: cosine similarity of sentence embeddings, and BM25 over the
encoder's tokens (Robertson & Zaragoza 2009). Scores are not normalised per request, so an expert has one scale for
all requests, and its weight means the same everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BEHAVIOUR", "EXPERTS", "LANGUAGE", "ItemItem", "Lexical", "Popularity"]

BEHAVIOUR = ("popularity", "co_purchase", "transitions")
LANGUAGE = ("dense", "lexical", "history_text")
EXPERTS = (*BEHAVIOUR, *LANGUAGE)


class Popularity(nn.Module):
    """How often each item was bought, the same for everybody.

    Attributes:
        counts: number of purchases in the training period. Shape: (N,).
    """

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_items), persistent=True)

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
        self.num_items = num_items
        table = torch.full((num_items, num_neighbours), -1, dtype=torch.int32)
        self.register_buffer("neighbours", table, persistent=True)
        self.register_buffer("strengths", torch.zeros(num_items, num_neighbours), persistent=True)

    def set_matrix(self, matrix: Tensor) -> None:
        """Keep the entries of largest magnitude in every row of a matrix.

        Args:
            matrix: entry (i, j) is the score that item i in a history gives to item j. Shape: (N, N).
        """
        kept = min(self.neighbours.shape[1], matrix.shape[1])
        _, order = matrix.abs().topk(kept, dim=1)
        values = matrix.gather(1, order)
        self.neighbours.fill_(-1)
        self.strengths.zero_()
        self.neighbours[:, :kept] = torch.where(values != 0, order, -1).to(torch.int32)
        self.strengths[:, :kept] = values.to(self.strengths.dtype)

    def forward(self, history: Tensor, weights: Tensor | None = None) -> Tensor:
        """The sum of the matrix rows of a history.

        Args:
            history: item indices, padded with -1. Shape: (B, H).
            weights: weight of each item of the history; default 1. Shape: (B, H).

        Returns:
            Shape: (B, N).
        """
        present = history >= 0
        item_indices = history.clamp(min=0)
        neighbours = self.neighbours[item_indices].long()
        values = self.strengths[item_indices].float() * present[..., None]
        if weights is not None:
            values = values * weights[..., None]
        # Padding goes into an extra column, which is removed.
        columns = torch.where(neighbours < 0, self.num_items, neighbours).flatten(1)
        scores = values.new_zeros(len(history), self.num_items + 1)
        return scores.scatter_add_(1, columns, values.flatten(1))[:, : self.num_items]


class Lexical(nn.Module):
    """BM25 of texts over token ids: an inverted index with the items that contain each token, and their BM25 terms.

    Args:
        vocabulary: V, the number of tokens.
        num_items: N.
        num_postings: P, the number of entries in all posting lists.

    Attributes:
        starts: start of each token's posting list. Shape: (V + 1,), int64.
        items: item indices of all posting lists, one after the other. Shape: (P,), int32.
        gains: the BM25 term of each posting. Shape: (P,).
    """

    def __init__(self, vocabulary: int, num_items: int, num_postings: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.register_buffer("starts", torch.zeros(vocabulary + 1, dtype=torch.int64), persistent=True)
        self.register_buffer("items", torch.zeros(num_postings, dtype=torch.int32), persistent=True)
        self.register_buffer("gains", torch.zeros(num_postings), persistent=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of all items for queries; repeated tokens of a query count once.

        Args:
            tokens: token ids, padded with -1. Shape: (B, T).

        Returns:
            Shape: (B, N).
        """
        users = len(tokens)
        ordered = tokens.sort(dim=1).values
        distinct = ordered >= 0
        distinct[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
        user, token = distinct.nonzero()[:, 0], ordered[distinct]
        first = self.starts[token]
        lengths = self.starts[token + 1] - first
        # Positions of all postings of all query tokens, list by list.
        ends = lengths.cumsum(0)
        place = torch.arange(int(ends[-1]) if len(ends) else 0, device=tokens.device)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=tokens.device), lengths)
        posting = first[owner] + place - (ends - lengths)[owner]
        scores = self.gains.new_zeros(users * self.num_items, dtype=torch.float32)
        cell = user[owner] * self.num_items + self.items[posting].long()
        return scores.index_add_(0, cell, self.gains[posting].float()).view(users, self.num_items)
