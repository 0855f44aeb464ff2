"""The catalogue as a prefix tree of semantic IDs.

Every item has one code tuple, and constrained decoding follows the tuples level by level. The tree is stored as one
compressed sparse row list per level over lexicographically sorted codes. The children of a node are a contiguous
range, so child ids need no memory, and a leaf's position identifies its item (the layout of STATIC,
arXiv:2602.22647, without its dense levels).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "CompactOffsets",
    "REMOVED",
    "SemanticIdCatalogue",
    "token_offsets",
    "tokens_of_items",
]


BLOCK_BITS = 7
WORTH_COMPACTING = 2**16


class CompactOffsets:
    """A non-decreasing list of integers in about two bytes each, read by index.

    The child offsets of a prefix tree never decrease, and neighbours differ by little. One full number for every 128
    offsets and a 16-bit difference for each take half the memory. Short or steep lists are stored as they are.

    Args:
        values: the numbers, at least one. Shape: (M,), int64.

    >>> offsets = CompactOffsets(torch.arange(100_000) // 3)
    >>> offsets[torch.tensor([0, 99_999])], offsets.nbytes / len(offsets) < 2.1
    (tensor([    0, 33333]), True)
    """

    def __init__(self, values: Tensor) -> None:
        self._length = len(values)
        self._base: Tensor | None = None
        wide = torch.int32 if int(values[-1]) < 2**31 else torch.int64
        if len(values) >= WORTH_COMPACTING:
            block = 1 << BLOCK_BITS
            padded = functional.pad(values, (0, -len(values) % block), value=int(values[-1])).view(-1, block)
            steps = padded - padded[:, :1]
            if int(steps[:, -1].max()) < 2**15:
                self._base = padded[:, 0].to(wide)
                self._offset = steps.to(torch.int16).view(-1)
                return
        self._offset = values.to(wide)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Tensor) -> Tensor:
        """The numbers at these positions, int64."""
        offset = self._offset[index].long()
        return offset if self._base is None else offset + self._base[index >> BLOCK_BITS]

    @property
    def nbytes(self) -> int:
        """Bytes of the list."""
        return self._offset.nbytes + (0 if self._base is None else self._base.nbytes)

    def to(self, device: torch.device | str) -> CompactOffsets:
        """The same list on another device."""
        moved = object.__new__(CompactOffsets)
        moved._length, moved._offset = self._length, self._offset.to(device)
        moved._base = None if self._base is None else self._base.to(device)
        return moved


REMOVED = -1
"""Code at every level of a removed item: its index stays taken, but it can no longer be retrieved."""


class SemanticIdCatalogue:
    """Item indices and their semantic IDs, with the prefix tree that constrains decoding.

    Immutable: `add` and `remove` return a new catalogue. Item indices never change, so titles, histories and saved
    results stay valid when items are added or removed.

    Args:
        codes: one code per level, coarse to fine; `REMOVED` at every level of a removed item. Shape: (N, L).
        codebook_sizes: number of codes per level. Length L.

    Raises:
        ValueError: if a code is outside its codebook, two items share a code tuple, or no item is left.

    >>> catalogue = SemanticIdCatalogue(torch.tensor([[0, 1], [2, 0], [0, 0]]), codebook_sizes=[3, 2])
    >>> len(catalogue), (2, 0) in catalogue, (2, 1) in catalogue
    (3, True, False)
    >>> catalogue.item_indices(torch.tensor([[0, 0], [1, 1]]))
    tensor([ 2, -1])
    """

    def __init__(self, codes: Tensor, codebook_sizes: Sequence[int]) -> None:
        codes = torch.as_tensor(codes)
        self.codebook_sizes = tuple(int(size) for size in codebook_sizes)
        _check_shape(codes, self.codebook_sizes)
        live = _live_items(codes, self.codebook_sizes)
        self.num_live = len(codes) if live is None else len(live)
        if self.num_live == 0:
            raise ValueError(f"the catalogue has no item left ({len(codes)} items, all removed); add items before use")
        self.codes = codes.to(torch.int32)
        self._live = live
        self._build(live)

    def _build(self, live: Tensor | None) -> None:
        """Sort the codes of the live items (`None`: all) and derive the child ranges of every level."""
        codes = self.codes if live is None else self.codes[live]
        order = _lexicographic_order(codes, self.codebook_sizes)
        already_sorted = order is None
        if not already_sorted:
            codes = codes[order]
        self._item_of_leaf: Tensor | None = None
        if live is not None or not already_sorted:
            item_of_leaf = order if live is None else live if already_sorted else live[order]
            self._item_of_leaf = item_of_leaf.to(torch.int32)

        levels, count = len(self.codebook_sizes), len(codes)
        starts = torch.zeros(count, dtype=torch.bool, device=codes.device)
        starts[0] = True
        parent_leaf = torch.zeros(1, dtype=torch.int64, device=codes.device)
        self._child_start: list[CompactOffsets] = []
        self._code: list[Tensor | None] = []
        self.widest: list[int] = []
        self._leaf_starts: dict[int, Tensor] = {}
        for level in range(levels):
            column = codes[:, level].to(_smallest_dtype(self.codebook_sizes[level]))
            starts[1:] |= column[1:] != column[:-1]
            leaf = starts.nonzero().squeeze(1)
            if level == levels - 1 and len(leaf) != count:
                self._raise_duplicates(starts)
            # A node's first child is the node of the next level that begins at the same leaf.
            first = parent_leaf if len(leaf) == count else starts.cumsum(0, dtype=torch.int32)[parent_leaf].long() - 1
            child_start = torch.cat([first, first.new_tensor([len(leaf)])])
            widths = child_start.diff()
            self.widest.append(int(widths.max()))
            code = column[leaf]
            # Codes ascend below a node: they are 0, 1, 2, ... if the first is 0 and the last is their number minus 1.
            implied = bool((code[first] == 0).all()) and bool((code[child_start[1:] - 1] == widths - 1).all())
            self._code.append(None if implied else functional.pad(code, (0, self.widest[-1])))
            self._child_start.append(CompactOffsets(child_start))
            parent_leaf = leaf

    def _raise_duplicates(self, starts: Tensor) -> None:
        leaf = int((~starts).nonzero()[0])
        leaves = torch.tensor([leaf - 1, leaf], device=starts.device)
        first, second = self.items_of_leaves(leaves).tolist()
        code = tuple(self.codes[first].tolist())
        raise ValueError(
            f"item indices {first} and {second} share the semantic ID {code}; "
            "separate them with a tie-breaking level (break_ties) before building the catalogue"
        )

    # As a Python collection

    def __len__(self) -> int:
        return self.num_live

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Code tuples of all items that were not removed, in the order of item indices."""
        live = self.codes[:, 0] != REMOVED
        return (tuple(code) for code in self.codes[live].tolist())

    def __contains__(self, code: object) -> bool:
        if isinstance(code, str) or not isinstance(code, Sequence | Tensor) or len(code) != self.num_levels:
            return False
        return bool(self.item_indices(torch.as_tensor(code, device=self.device)[None])[0] >= 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SemanticIdCatalogue):
            return NotImplemented
        return self.codebook_sizes == other.codebook_sizes and torch.equal(self.codes.cpu(), other.codes.cpu())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        removed = self.num_items - len(self)
        suffix = f", {removed} removed" if removed else ""
        return f"SemanticIdCatalogue({len(self)} items{suffix}, codebook_sizes={list(self.codebook_sizes)})"

    @property
    def num_levels(self) -> int:
        """L, the length of a semantic ID."""
        return len(self.codebook_sizes)

    @property
    def num_items(self) -> int:
        """N, removed items included."""
        return len(self.codes)

    @property
    def device(self) -> torch.device:
        """The device of the tree."""
        return self.codes.device

    def num_nodes(self, level: int) -> int:
        """Nodes at depth `level`: 1 at the root (level 0), the number of items at level L."""
        return len(self._child_start[level]) - 1 if level < self.num_levels else len(self)

    # Adding and removing items

    def add(self, codes: Tensor) -> SemanticIdCatalogue:
        """A catalogue with new items at the indices N, N+1, ...; existing items keep index and codes.

        Args:
            codes: codes of the new items. Shape: (M, L).
        """
        codes = torch.as_tensor(codes, device=self.device)
        if codes.dim() != 2 or codes.shape[1] != self.num_levels:
            raise ValueError(f"new codes have shape {tuple(codes.shape)}; expected (M, {self.num_levels})")
        return SemanticIdCatalogue(torch.cat([self.codes, codes]), self.codebook_sizes)

    def remove(self, item_indices: Iterable[int] | Tensor) -> SemanticIdCatalogue:
        """A catalogue in which some items can no longer be retrieved; all others keep their index and codes.

        Args:
            item_indices: the items to remove, or a boolean mask over all items.

        Raises:
            IndexError: if an item is not in this catalogue, or was already removed.
            ValueError: if the length of a mask is not the number of items.
        """
        listed = item_indices if isinstance(item_indices, Tensor) else list(item_indices)
        items = torch.as_tensor(listed, device=self.device)
        if items.dtype == torch.bool:
            if items.shape != (self.num_items,):
                raise ValueError(f"the mask has shape {tuple(items.shape)}; expected ({self.num_items},)")
            items = items.nonzero().squeeze(1)
        items = items.long()
        outside = (items < 0) | (items >= self.num_items)
        absent = outside | (self.codes[items.clamp(0, self.num_items - 1), 0] == REMOVED)
        if bool(absent.any()):
            raise IndexError(
                f"item indices {items[absent][:5].tolist()} are not in this catalogue of {self.num_items} items "
                "(or were already removed); pass only items that are in it"
            )
        codes = self.codes.clone()
        codes[items] = REMOVED
        return SemanticIdCatalogue(codes, self.codebook_sizes)

    def to(self, device: torch.device | str) -> SemanticIdCatalogue:
        """The same catalogue on another device."""
        return self if torch.device(device) == self.device else self.around(self.codes.to(device))

    def around(self, codes: Tensor) -> SemanticIdCatalogue:
        """The same catalogue and tree, with another tensor of the same codes, on the device of that tensor.

        Args:
            codes: must equal the catalogue's codes, which is not checked. Shape: (N, L), int32.
        """
        device = codes.device
        moved = object.__new__(SemanticIdCatalogue)
        moved.__dict__.update(self.__dict__)
        moved.codes = codes
        moved._live = None if self._live is None else self._live.to(device)
        moved._item_of_leaf = None if self._item_of_leaf is None else self._item_of_leaf.to(device)
        moved._child_start = [start.to(device) for start in self._child_start]
        moved._code = [None if code is None else code.to(device) for code in self._code]
        moved._leaf_starts = {level: starts.to(device) for level, starts in self._leaf_starts.items()}
        return moved

    # The tree

    def children(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """First child of each node and the end of its child range, as node ids of level + 1.

        Args:
            level: depth of `nodes`, 0 for the root.
            nodes: node ids of that depth. Any shape, int64.
        """
        start = self._child_start[level]
        return start[nodes], start[nodes + 1]

    def is_ragged(self, level: int) -> bool:
        """Whether the widest node of depth `level` has so many children that padding all nodes to it is wasteful."""
        return self.widest[level] > 8 * max(8, self.num_nodes(level + 1) / self.num_nodes(level))

    def code_table(self, level: int) -> Tensor | None:
        """The last code of every node of depth `level`, padded by the size of the widest sibling range.

        `None` if the codes below every parent are 0, 1, 2, ... in order.
        """
        return self._code[level - 1]

    def leaf_starts(self, level: int, nodes: Tensor) -> Tensor:
        """Position of the first leaf below each node; the value of node id + 1 is the end of the node's range.

        Args:
            level: depth of `nodes`.
            nodes: node ids of that depth; the number of nodes gives the end of the last range. Any shape, int64.
        """
        if level == self.num_levels:
            return nodes
        if level == self.num_levels - 1:
            return self._child_start[level][nodes]
        if level not in self._leaf_starts:
            starts = torch.arange(self.num_nodes(level) + 1, device=self.device)
            for depth in range(level, self.num_levels):
                starts = self._child_start[depth][starts]
            self._leaf_starts[level] = starts.to(torch.int32 if len(self) < 2**31 else torch.int64)
        return self._leaf_starts[level][nodes].long()

    def codes_of(self, level: int, nodes: Tensor, parents: Tensor) -> Tensor:
        """The last code of each node's prefix, int64.

        Args:
            level: depth of `nodes`, at least 1.
            nodes: node ids of that depth, or ids that exceed the last by at most the widest node's number of children.
                Any shape.
            parents: parents of the nodes, in the same shape; used only if codes are implied by position.
        """
        code = self._code[level - 1]
        if code is not None:
            return code[nodes].long()
        return nodes - self._child_start[level - 1][parents]

    def descend(self, level: int, nodes: Tensor, codes: Tensor) -> Tensor:
        """The child of each node with the given code, or -1 if there is none.

        Args:
            level: depth of `nodes`.
            nodes: node ids of that depth; negative ids have no children. Shape: (B,).
            codes: codes at the next level. Shape: (B,).
        """
        parents = nodes.clamp(min=0)
        low, end = self.children(level, parents)
        high = end.clone()
        for _ in range(max(1, self.widest[level].bit_length())):
            middle = (low + high) // 2
            inside = middle < high
            below = inside & (
                self.codes_of(level + 1, middle.clamp(max=self.num_nodes(level + 1) - 1), parents) < codes
            )
            low = torch.where(below, middle + 1, low)
            high = torch.where(inside & ~below, middle, high)
        last = self.num_nodes(level + 1) - 1
        found = (low < end) & (self.codes_of(level + 1, low.clamp(max=last), parents) == codes) & (nodes >= 0)
        return torch.where(found, low, torch.full_like(low, -1))

    def item_indices(self, codes: Tensor) -> Tensor:
        """Item indices of full code tuples; -1 for tuples that no item has.

        Args:
            codes: Shape: (M, L).

        Returns:
            Shape: (M,), int64.
        """
        codes = torch.as_tensor(codes, device=self.device).long()
        nodes = torch.zeros(len(codes), dtype=torch.int64, device=self.device)
        for level in range(self.num_levels):
            nodes = self.descend(level, nodes, codes[:, level])
        found = self.items_of_leaves(nodes.clamp(min=0))
        return torch.where(nodes >= 0, found, nodes)

    def live_items(self) -> Tensor | None:
        """Indices of the items that were not removed, ascending, int64; `None` if none was."""
        return self._live

    def items_of_leaves(self, leaves: Tensor) -> Tensor:
        """Item indices of leaves (node ids at level L), int64."""
        return leaves.long() if self._item_of_leaf is None else self._item_of_leaf[leaves].long()

    def leaf_order(self, per_item: Tensor) -> Tensor:
        """Reorder a table with one entry per item, (..., N), into leaf order, (..., live items)."""
        return per_item if self._item_of_leaf is None else per_item.index_select(-1, self._item_of_leaf)


def tokens_of_items(item_indices: Tensor, item_codes: Tensor, codebook_sizes: Sequence[int]) -> Tensor:
    """Decoder tokens of items, see `MenderForGenerativeRetrieval.item_tokens`.

    Args:
        item_indices: Shape: (...).
        item_codes: codes of all items, on the device of the indices. Shape: (N, L).
        codebook_sizes: codes of each level. Length L.

    Returns:
        Shape: (..., L), int64.

    Raises:
        IndexError: if an item is not in the catalogue.
    """
    outside = (item_indices < 0) | (item_indices >= len(item_codes))
    if not bool(outside.any()):
        codes = item_codes[item_indices].long()
        outside = codes[..., 0] == REMOVED
    if bool(outside.any()):
        raise IndexError(
            f"item index {int(item_indices[outside].reshape(-1)[0])} is not in the catalogue of {len(item_codes)} items"
        )
    return codes + token_offsets(codebook_sizes, codes.device)


def token_offsets(codebook_sizes: Sequence[int], device: torch.device) -> Tensor:
    """The decoder token of code 0 of each level. Shape: (L,)."""
    return torch.tensor([1, *codebook_sizes[:-1]], device=device).cumsum(0)


def _check_shape(codes: Tensor, codebook_sizes: tuple[int, ...]) -> None:
    if not codebook_sizes or min(codebook_sizes) < 1:
        raise ValueError(f"codebook_sizes={list(codebook_sizes)}; every level needs at least one code")
    if codes.dim() != 2 or codes.shape[1] != len(codebook_sizes):
        raise ValueError(
            f"codes have shape {tuple(codes.shape)}; expected (items, {len(codebook_sizes)}) "
            f"for codebook_sizes={list(codebook_sizes)}"
        )
    if len(codes) == 0:
        raise ValueError("the catalogue is empty; pass the codes of at least one item")
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise ValueError(f"codes have dtype {codes.dtype}; expected an integer type")


def _live_items(codes: Tensor, codebook_sizes: tuple[int, ...]) -> Tensor | None:
    """Indices of the items that are not removed, or None if no item is removed; checks that codes are in range."""
    if codes.dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        codes = codes.long()
    limit = torch.tensor(codebook_sizes, device=codes.device)
    lowest, highest = codes.amin(0), codes.amax(0)
    if bool((lowest >= 0).all()) and bool((highest < limit).all()):
        return None
    live = (codes != REMOVED).any(dim=1)
    wrong = ((codes < 0) | (codes >= limit)) & live[:, None]
    if bool(wrong.any()):
        item, level = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"item index {item} has code {int(codes[item, level])} at level {level}, outside its codebook of "
            f"{codebook_sizes[level]} codes; re-encode the item or enlarge codebook_sizes[{level}]"
        )
    return live.nonzero().squeeze(1)


def _smallest_dtype(codebook_size: int) -> torch.dtype:
    return torch.uint8 if codebook_size <= 2**8 else torch.int16 if codebook_size <= 2**15 else torch.int32


def _lexicographic_order(codes: Tensor, codebook_sizes: tuple[int, ...]) -> Tensor | None:
    """The permutation that sorts items by code tuple, or None if they are already sorted.

    As many levels as fit are packed into one mixed-radix int64 key. Longer IDs need several keys and one stable sort
    per key, from the last levels to the first.
    """
    keys: list[Tensor] = []
    radix = 1
    for level, size in enumerate(codebook_sizes):
        if not keys or radix * size >= 2**62:
            keys.append(torch.zeros(len(codes), dtype=torch.int64, device=codes.device))
            radix = 1
        keys[-1].mul_(size).add_(codes[:, level])
        radix *= size
    if len(keys) == 1 and bool((keys[0][1:] >= keys[0][:-1]).all()):
        return None
    order = None
    for key in reversed(keys):
        step = torch.argsort(key if order is None else key[order], stable=True)
        order = step if order is None else order[step]
    return order
