"""A logits processor that keeps plain `generate()` inside the catalogue."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor

from .catalogue import SemanticIdCatalogue

__all__ = ["SemanticIdLogitsProcessor"]

DEAD = -1e9
"""Score of the pad token on live rows: chosen only when valid continuations run out, as when beams outnumber items."""


class SemanticIdLogitsProcessor(LogitsProcessor):
    """Allows only tokens that continue a semantic ID of the catalogue.

    Works row by row for greedy search, sampling and beam search of any width. Where beams outnumber items, the beams
    left over end in padding tokens with a score near `DEAD`; drop them. So does a row with a prefix that no item has:
    beam search by sampling keeps tokens without any probability where too few have one.

    Args:
        catalogue: the items that may be generated.
        prefix_length: tokens before the semantic ID; 1 for the start token.

    Raises:
        ValueError: (on call) if no row holds a prefix that an item has.
    """

    def __init__(self, catalogue: SemanticIdCatalogue, prefix_length: int = 1) -> None:
        self.catalogue = catalogue
        self.prefix_length = prefix_length
        sizes = torch.tensor([1, *catalogue.codebook_sizes])
        self._offsets = sizes.cumsum(0).tolist()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores with every token that leaves the catalogue at -inf.

        Args:
            input_ids: tokens so far. Shape: (rows, steps).
            scores: logits or log-probabilities of the next token. Shape: (rows, V).
        """
        catalogue = self.catalogue.to(scores.device)
        written = input_ids[:, self.prefix_length :]
        level = written.shape[1]
        masked = torch.full_like(scores, -torch.inf)
        padded = (written == 0).any(dim=1)
        masked[:, 0] = torch.where(padded, 0.0, DEAD)
        if level >= catalogue.num_levels:
            return masked
        nodes = torch.zeros(len(written), dtype=torch.int64, device=scores.device)
        for depth in range(level):
            nodes = catalogue.descend(depth, nodes, written[:, depth] - self._offsets[depth])
        dead = nodes < 0
        if bool(dead.all() & ~padded.all()):
            row = int((~padded).nonzero()[0])
            raise ValueError(
                f"row {row} holds the tokens {written[row].tolist()}, which begin no semantic ID of the catalogue, "
                "and no other row does; start from the start token and let this processor choose every token"
            )
        first, end = catalogue.children(level, nodes.clamp(min=0))
        children = first[:, None] + torch.arange(catalogue.widest[level], device=scores.device)
        real = (children < end[:, None]) & ~dead[:, None]
        children = torch.where(real, children, first[:, None])
        parents = nodes.clamp(min=0)[:, None].expand_as(children)
        tokens = catalogue.codes_of(level + 1, children, parents) + self._offsets[level]
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        allowed.scatter_(1, torch.where(real, tokens, torch.zeros_like(tokens)), True)
        allowed[:, 0] = False
        return torch.where(allowed, scores, masked)
