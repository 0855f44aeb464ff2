"""What a request says about items, with one contract for all models: filters, priors, and the ranked items it gets.

A selection is a list of item indices or a boolean mask, either shared by all users or one per user. Models do not know
item ids: `processor.item_indices(ids)` converts them to indices, and the pipeline does so by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = [
    "ItemSelection",
    "Recommendations",
    "allowed_mask",
    "as_mask",
    "as_selection",
    "check_items_left",
    "checked_top_k",
    "prior_scores",
    "relative_to_mean",
]

ItemSelection = Tensor | np.ndarray | Iterable[int] | Iterable[Iterable[int]]
"""Item indices or a boolean mask over all items; shared by all users (one dimension) or one per user (two)."""


@dataclass(frozen=True)
class Recommendations:
    """Ranked items of B users, best first, with what `recommend()` was asked to add.

    Attributes:
        item_indices: item indices, padded with -1 for users with fewer items. Shape: (B, top_k), int64.
        scores: log-probability of each item's semantic ID, or the weighted sum of experts, padded with -inf.
            Shape: (B, top_k), float32.
        contributions: by part of the score ("generator", the name of an expert, "avoid", "prior"), what it contributed
            to the score of each item, relative to its mean over the user's items; 0 for padding. The sum over all parts
            is the score minus the user's mean score. Only with `why=True`. Shape of each: (B, top_k), float32.
        fit: probability that anything in the catalogue fits each request; nan for requests without a preference. Only
            with `fit=True`. Shape: (B,), float32.
    """

    item_indices: Tensor
    scores: Tensor
    contributions: Mapping[str, Tensor] | None = None
    fit: Tensor | None = None

    def __len__(self) -> int:
        return len(self.item_indices)


def checked_top_k(top_k: int) -> int:
    """Checks a `top_k` argument.

    Raises:
        ValueError: if it is not an integer above 0.
    """
    if not isinstance(top_k, Integral) or isinstance(top_k, bool):
        raise ValueError(f"top_k={top_k!r}; pass an integer")
    if top_k < 1:
        raise ValueError(f"top_k={top_k}; pass top_k >= 1")
    return int(top_k)


def as_selection(
    selection: ItemSelection, name: str, num_items: int, num_users: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Checks a selection and converts it to a tensor.

    Args:
        selection: item indices or a boolean mask, shared or per user; indices may be padded with -1.
        name: name of the argument, for messages.
        num_items: N, removed items included.
        num_users: B.
        device: device of the result.

    Returns:
        A boolean mask of shape (N,) or (B, N), or item indices of shape (E,) or (B, E), padded with -1.

    Raises:
        ValueError: if it is neither, a mask does not have N entries, or the number of rows is not B.
        IndexError: if an index is not between -1 and N - 1.

    >>> as_selection([[3, 1], [2]], "exclude", num_items=4, num_users=2)
    tensor([[ 3,  1],
            [ 2, -1]])
    """
    selected = _as_tensor(selection, name).to(device)
    if selected.dim() not in (1, 2) or (selected.dim() == 2 and len(selected) != num_users):
        raise ValueError(
            f"`{name}` has shape {tuple(selected.shape)}; expected one dimension (shared by all users) "
            f"or two dimensions with one row for each of the {num_users} users"
        )
    if selected.dtype == torch.bool:
        if selected.shape[-1] != num_items:
            raise ValueError(f"the mask `{name}` covers {selected.shape[-1]} items; the catalogue has {num_items}")
        return selected
    selected = selected.long()
    outside = (selected < -1) | (selected >= num_items)
    if bool(outside.any()):
        raise IndexError(
            f"`{name}` contains item index {int(selected[outside][0])}; the catalogue has items 0..{num_items - 1}, "
            "and -1 is padding"
        )
    return selected


def as_mask(selected: Tensor, num_items: int) -> Tensor:
    """A selection from `as_selection` as a boolean mask. Shape: (..., N)."""
    if selected.dtype == torch.bool:
        return selected
    mask = torch.zeros(*selected.shape[:-1], num_items + 1, dtype=torch.bool, device=selected.device)
    # Padding goes into an extra entry, which is removed.
    return mask.scatter_(-1, torch.where(selected < 0, num_items, selected), True)[..., :num_items]


def allowed_mask(
    allowed: ItemSelection | None,
    exclude: ItemSelection | None,
    num_items: int,
    num_users: int,
    device: torch.device | str = "cpu",
) -> Tensor | None:
    """Mask of the items that are allowed and not excluded; `None` without filters.

    Args:
        allowed: items that may be returned; `None` allows all.
        exclude: items that may not be returned; takes precedence over `allowed`.
        num_items: N.
        num_users: B.
        device: device of the result.

    Returns:
        Shape: (N,) or (B, N), bool.

    Raises:
        ValueError: see `as_selection`.
        IndexError: see `as_selection`.
    """
    masks = []
    if allowed is not None:
        masks.append(as_mask(as_selection(allowed, "allowed", num_items, num_users, device), num_items))
    if exclude is not None:
        masks.append(~as_mask(as_selection(exclude, "exclude", num_items, num_users, device), num_items))
    return None if not masks else masks[0] if len(masks) == 1 else masks[0] & masks[1]


def prior_scores(
    prior: Tensor | Sequence[float] | Mapping[int, float], num_items: int, num_users: int, device: torch.device | str
) -> Tensor:
    """A business prior as scores to add.

    Args:
        prior: one value per item, for all users or per user; or values by item index, with 0 for all other items.
        num_items: N.
        num_users: B.
        device: device of the result.

    Returns:
        Shape: (N,) or (B, N), float32.

    Raises:
        ValueError: if values are not finite, or there are not N of them (for each of B users).
        IndexError: if an item index is not in the catalogue.
    """
    if isinstance(prior, Mapping):
        outside = [item for item in prior if not (isinstance(item, Integral) and 0 <= item < num_items)]
        if outside:
            raise IndexError(f"`prior` names item index {outside[0]!r}; the catalogue has items 0..{num_items - 1}")
        values = torch.zeros(num_items)
        values[torch.tensor(list(prior), dtype=torch.int64)] = torch.tensor(list(prior.values()), dtype=torch.float32)
    else:
        values = torch.as_tensor(prior, dtype=torch.float32)
        if values.shape not in ((num_items,), (num_users, num_items)):
            raise ValueError(
                f"`prior` has shape {tuple(values.shape)}; expected ({num_items},), one value for every item of the "
                f"catalogue, or ({num_users}, {num_items})"
            )
    if not bool(values.isfinite().all()):
        raise ValueError("`prior` holds a value that is not finite; pass numbers, and `exclude` to leave items out")
    return values.to(device)


def relative_to_mean(parts: Mapping[str, Tensor], item_indices: Tensor) -> dict[str, Tensor]:
    """Parts of the scores of items, relative to their means over the items of a user.

    Args:
        parts: what each part adds to the scores. Shape of each: (B, M).
        item_indices: the items, padded with -1. Shape: (B, M).

    Returns:
        0 for padding. Shape of each: (B, M).

    >>> relative_to_mean({"prior": torch.tensor([[3.0, 1.0, 9.0]])}, torch.tensor([[4, 2, -1]]))
    {'prior': tensor([[ 1., -1.,  0.]])}
    """
    padding = item_indices < 0
    count = (~padding).sum(1, keepdim=True).clamp(min=1)
    # Padding has the score of any item, and that of a removed one is -inf.
    parts = {name: values.float().masked_fill(padding, 0.0) for name, values in parts.items()}
    means = {name: values.sum(1, keepdim=True) / count for name, values in parts.items()}
    return {name: (values - means[name]).masked_fill(padding, 0.0) for name, values in parts.items()}


def check_items_left(available: Tensor) -> None:
    """Raises an error if filters leave a user without items.

    Args:
        available: number of items that each user may receive. Shape: (B,).

    Raises:
        ValueError: if a number is 0.
    """
    if bool((available == 0).any()):
        user = int((available == 0).nonzero()[0])
        raise ValueError(
            f"no item is left for user {user} of the batch after `allowed` and `exclude`; "
            "allow more items or exclude fewer"
        )


def _as_tensor(selection: ItemSelection, name: str) -> Tensor:
    if isinstance(selection, str) or not (hasattr(selection, "__array__") or isinstance(selection, Iterable)):
        raise ValueError(f"{name}={selection!r}; pass a list of item indices or a boolean mask")
    if hasattr(selection, "__array__"):
        return _whole_numbers(selection, name)
    listed = list(selection)
    if not any(map(_is_list, listed)):
        return _whole_numbers(listed, name)
    if not all(map(_is_list, listed)):
        raise ValueError(f"`{name}` mixes lists with single items; pass one list for all users, or one per user")
    rows = [_whole_numbers(row if hasattr(row, "__array__") else list(row), name) for row in listed]
    if any(row.dtype == torch.bool for row in rows):
        if len({(row.dtype, len(row)) for row in rows}) > 1:
            raise ValueError(f"`{name}` mixes masks with indices, or masks of several lengths; pass one kind")
        return torch.stack(rows)
    return pad_sequence(rows, batch_first=True, padding_value=-1)


def _is_list(value: Any) -> bool:
    """Whether an entry of a selection is the selection of one user, not an item."""
    return not isinstance(value, str) and isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def _whole_numbers(values: Tensor | np.ndarray | Sequence[Any], name: str) -> Tensor:
    """Booleans or integers as a tensor; an empty list selects no items."""
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind in "OSU" and array.size:
            raise ValueError(
                f"`{name}` contains {array.flatten().tolist()[0]!r}; pass item indices, "
                "processor.item_indices(ids) converts ids to indices"
            )
        if not array.size and array.dtype != bool:
            array = array.astype(np.int64)
        values = torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else np.array(array))
    if values.is_floating_point() or values.is_complex():
        raise ValueError(f"`{name}` has dtype {values.dtype}; pass item indices (whole numbers) or a boolean mask")
    return values
