"""From quantized codes to semantic IDs: the tie-breaking level, and a report on how good the codes are.

A quantizer gives every item L codes, coarse to fine; several items may share all of them. As in TIGER (Rajput
et al. 2023, arXiv:2305.05065) one last code 0, 1, 2 ... tells such items apart, so that every item has an ID
of its own. The report says what a user of semantic IDs must know before training on them: collisions,
codebook usage, branching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from ..catalogue import REMOVED

__all__ = [
    "CollapsedCodesError",
    "SemanticIdReport",
    "break_ties",
    "check_not_collapsed",
    "report",
]


# A fit is collapsed when fewer than this share of the first level's codes is in use ...
MIN_FIRST_LEVEL_USAGE = 0.25
# ... or when it tells apart fewer than this share of the items that evenly spread codes would tell apart.
MIN_DISTINCT_SHARE = 0.4


class CollapsedCodesError(ValueError):
    """The fitted codes do not distinguish items, so training on them would be useless."""


@dataclass(frozen=True)
class SemanticIdReport:
    """How well a set of codes identifies the items of a catalogue. `print` it for a table.

    Attributes:
        items: number of items N.
        codebook_sizes: codes available per level (tie-breaking level left out).
        codes_used: codes in use per level.
        entropy: entropy of the code distribution per level, in bits.
        perplexity: 2 ** entropy per level, the effective number of codes.
        mean_items_per_prefix: items that share the first l codes, averaged over prefixes, for l = 1 .. L.
        max_items_per_prefix: the same, largest prefix.
        collision_rate: share of items that share all L codes with another item.
        collision_rate_with_ties: the same after the tie-breaking level; 0 for a valid catalogue.
        largest_tie: most items on one tuple of L codes = width of the tie-breaking level.
        reconstruction_error: share of the embeddings' variance that the codes lose (0 perfect, 1 no better
            than the mean), or None where it was not measured.
    """

    items: int
    codebook_sizes: tuple[int, ...]
    codes_used: tuple[int, ...]
    entropy: tuple[float, ...]
    perplexity: tuple[float, ...]
    mean_items_per_prefix: tuple[float, ...]
    max_items_per_prefix: tuple[int, ...]
    collision_rate: float
    collision_rate_with_ties: float
    largest_tie: int
    reconstruction_error: float | None = None

    def to_dict(self) -> dict[str, int | float | list[int] | list[float] | None]:
        """The report as plain JSON values."""
        values = asdict(self).items()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    def __str__(self) -> str:
        error = self.reconstruction_error
        lines = [
            f"Semantic IDs of {self.items:,} items: collisions {self.collision_rate:.2%} before and "
            f"{self.collision_rate_with_ties:.2%} after the tie-breaking level (largest {self.largest_tie})"
            + ("" if error is None else f", variance lost {error:.1%}"),
            "level  codes   used   bits perplexity items/prefix  largest",
        ]
        for level, size in enumerate(self.codebook_sizes):
            lines.append(
                f"{level + 1:>5} {size:>6} {self.codes_used[level]:>6} {self.entropy[level]:>6.2f} "
                f"{self.perplexity[level]:>10.1f} {self.mean_items_per_prefix[level]:>12.2f} "
                f"{self.max_items_per_prefix[level]:>8}"
            )
        return "\n".join(lines)


def break_ties(codes: Tensor, taken: Tensor | None = None) -> Tensor:
    """Add the last level, which separates items that share all L codes.

    Items on the same codes get 0, 1, 2 ... in row order. New items get the smallest codes that `taken` leaves
    free, so existing IDs never move.

    Args:
        codes: codes of the items that need an ID. Shape: (N, L).
        taken: IDs already given, tie-breaking level included; rows that a catalogue removed (`REMOVED` at every level)
            take none. Shape: (M, L + 1).

    Returns:
        Complete, distinct IDs. Shape: (N, L + 1), int64.

    Raises:
        ValueError: if `codes` or `taken` is not a table of non-negative integers, if `taken` has another
            number of levels, or if two rows of `taken` are equal.

    >>> codes = torch.tensor([[7, 1], [7, 1], [3, 0]])
    >>> full = break_ties(codes)
    >>> full.tolist()
    [[7, 1, 0], [7, 1, 1], [3, 0, 0]]
    >>> break_ties(torch.tensor([[7, 1]]), taken=full).tolist()
    [[7, 1, 2]]
    """
    new = _as_codes(codes, "codes")
    levels = new.shape[1]
    old = np.empty((0, levels + 1), np.int64) if taken is None else _as_codes(taken, "taken", removed=True)
    if old.shape[1] != levels + 1:
        raise ValueError(
            f"taken has {old.shape[1]} levels but codes has {levels}; "
            f"pass complete IDs with {levels + 1} levels, the last being the tie-breaking one."
        )
    group = _prefix_groups(np.concatenate([old[:, :levels], new]))[-1]
    old_group, new_group = group[: len(old)], group[len(old) :]
    order = np.lexsort([old[:, levels], old_group])
    old_group, old_last = old_group[order], old[order, levels]
    if np.any((np.diff(old_group) == 0) & (np.diff(old_last) == 0)):
        raise ValueError("taken holds the same ID twice; every existing item must have an ID of its own.")
    rank = _rank_within(new_group)
    # Of a prefix's taken codes s_0 < s_1 < ..., s_j leaves s_j - j free ones below it. The r-th free code is
    # therefore r plus the number of taken codes with s_j - j <= r: one binary search over keys that are
    # sorted by construction.
    free_below = old_last - _rank_within(old_group)
    width = 1 + max(rank.max(initial=0), free_below.max(initial=0))
    skipped = np.searchsorted(old_group * width + free_below, new_group * width + rank, side="right")
    skipped -= np.searchsorted(old_group, new_group, side="left")
    return torch.from_numpy(np.concatenate([new, (rank + skipped)[:, None]], axis=1))


def report(
    codes: Tensor, codebook_sizes: Sequence[int], *, reconstruction_error: float | None = None
) -> SemanticIdReport:
    """Measure collisions, codebook usage and branching of a set of codes.

    Args:
        codes: codes of all items, with or without the tie-breaking level. Shape: (N, L) or (N, L + 1).
        codebook_sizes: codes available at each of the L levels.
        reconstruction_error: carried into the report; `quantizers.reconstruction_error` measures it.

    Raises:
        ValueError: if the number of levels differs from `codebook_sizes`, a code lies outside its codebook,
            or there are no items.

    >>> print(report(torch.tensor([[0, 1], [0, 1], [1, 0], [1, 1]]), [2, 2]))
    Semantic IDs of 4 items: collisions 50.00% before and 0.00% after the tie-breaking level (largest 2)
    level  codes   used   bits perplexity items/prefix  largest
        1      2      2   1.00        2.0         2.00        2
        2      2      2   0.81        1.8         1.33        2
    """
    table, sizes = _as_codes(codes, "codes"), tuple(int(size) for size in codebook_sizes)
    levels = len(sizes)
    if table.shape[1] not in (levels, levels + 1):
        raise ValueError(
            f"codes has {table.shape[1]} levels but codebook_sizes={sizes} names {levels}; "
            "pass one size per level, tie-breaking level left out."
        )
    if not len(table):
        raise ValueError("codes is empty; a report needs at least one item.")
    too_large = np.flatnonzero(table[:, :levels].max(axis=0) >= np.array(sizes))
    if too_large.size:
        level = int(too_large[0])
        raise ValueError(
            f"code {table[:, level].max()} at level {level + 1} is outside its codebook of {sizes[level]}."
        )
    if table.shape[1] == levels:
        table = break_ties(torch.from_numpy(table)).numpy()
    usage = [np.bincount(table[:, level], minlength=size) for level, size in enumerate(sizes)]
    entropy = [float(-(p[p > 0] * np.log2(p[p > 0])).sum()) for p in (count / len(table) for count in usage)]
    prefixes = [np.bincount(group) for group in _prefix_groups(table)]
    crowded = [float(counts[counts > 1].sum() / len(table)) for counts in prefixes]
    return SemanticIdReport(
        items=len(table),
        codebook_sizes=sizes,
        codes_used=tuple(int((count > 0).sum()) for count in usage),
        entropy=tuple(entropy),
        perplexity=tuple(float(2**bits) for bits in entropy),
        mean_items_per_prefix=tuple(float(counts.mean()) for counts in prefixes[:levels]),
        max_items_per_prefix=tuple(int(counts.max()) for counts in prefixes[:levels]),
        collision_rate=crowded[levels - 1],
        collision_rate_with_ties=crowded[levels],
        largest_tie=int(prefixes[levels - 1].max()),
        reconstruction_error=reconstruction_error,
    )


def check_not_collapsed(codes: Tensor, codebook_sizes: Sequence[int], embeddings: Tensor, remedy: str) -> None:
    """Raise an error for codes that do not distinguish items, the most common failure of learned semantic IDs.

    Collapsed means: fewer than a quarter of the first level's codes in use, or fewer distinct code tuples
    than 40 % of what the same number of items would give when spread evenly. Items with equal embeddings
    count once: no quantizer can separate those.

    Args:
        codes: codes of the items the quantizer was fitted on. Shape: (N, L).
        codebook_sizes: codes available at each level.
        embeddings: what the codes were made from. Shape: (N, D).
        remedy: what to change, as the end of the message.

    Raises:
        CollapsedCodesError: if the codes are collapsed.
    """
    table = _as_codes(codes, "codes")
    used_first = len(np.unique(table[:, 0]))
    used_tuples = int(_prefix_groups(table)[-1].max()) + 1
    capacity = float(np.prod(np.array(codebook_sizes, dtype=np.float64)))

    def healthy(items: int) -> bool:
        evenly_spread = -capacity * np.expm1(items * np.log1p(-1 / capacity)) if capacity > 1 else 1.0
        enough_first = used_first >= MIN_FIRST_LEVEL_USAGE * min(codebook_sizes[0], items)
        return enough_first and used_tuples >= MIN_DISTINCT_SHARE * evenly_spread

    if healthy(len(table)):
        return
    distinct = len(np.unique(embeddings.cpu().numpy(), axis=0))
    if not healthy(distinct):
        raise CollapsedCodesError(
            f"the codes collapsed: {used_first} of {codebook_sizes[0]} first-level codes in use, "
            f"{used_tuples} distinct code tuples for {len(table)} items ({distinct} distinct embeddings); " + remedy
        )


def _as_codes(codes: Tensor, name: str, removed: bool = False) -> np.ndarray:
    """Check that `codes` is a table of non-negative integers, and convert it to int64. Shape: (N, L).

    With `removed`, rows that a catalogue removed are left out.
    """
    table = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if table.ndim != 2 or table.shape[1] == 0 or not np.issubdtype(table.dtype, np.integer):
        raise ValueError(f"{name} must be integers of shape (items, levels), got {table.dtype} {tuple(table.shape)}.")
    if removed:
        table = table[(table != REMOVED).any(axis=1)]
    if table.size and table.min() < 0:
        raise ValueError(f"{name} holds the negative code {table.min()}; codes count from 0.")
    return table.astype(np.int64)


def _prefix_groups(codes: np.ndarray) -> list[np.ndarray]:
    """For l = 1 .. L, number the distinct prefixes of length l lexicographically. Shape: L times (N,)."""
    groups, group = [], np.zeros(len(codes), np.int64)
    for column in codes.T:
        # Numbers are made dense at every level, so the product stays far below 2**63 for any depth.
        group = np.unique(group * (column.max(initial=0) + 1) + column, return_inverse=True)[1].reshape(-1)
        groups.append(group)
    return groups


def _rank_within(group: np.ndarray) -> np.ndarray:
    """Position of every row among the rows of its group, in row order. Shape: (N,)."""
    order = np.argsort(group, kind="stable")
    in_order = group[order]
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(in_order, in_order, side="left")
    return rank
