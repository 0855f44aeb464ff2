"""`pipeline("generative-retrieval")`: ranked items with ids and titles for preferences and histories.

A request has a preference, a history of item ids, or both. The processor renders it, and `model.recommend()` retrieves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Pipeline

from .item_filter import ItemSelection, allowed_mask, as_selection, prior_scores
from .request import Request

__all__ = ["GenerativeRetrievalPipeline"]

TASK = "generative-retrieval"
FIT, WHY = "fit", "why "
"""Names of results of a batch; `WHY` is the prefix of contributions."""
DEFAULTS = ("dial", "fit", "prior", "strict", "top_k", "weights", "why")
"""Fields of requests that a call may give for all of them."""
MISSING = {"item_indices": -1, "scores": -torch.inf}
"""Padding of results where requests of a batch have different numbers of items; 0 for all others."""


@dataclass(frozen=True)
class _Rendered:
    """One request with its features, and its filters and prior by item index."""

    request: Request
    features: dict[str, Any]
    allowed: Tensor | None
    exclude: Tensor | None
    prior: Any


class GenerativeRetrievalPipeline(Pipeline):
    """Ranked items for a preference and a history.

    Args:
        **kwargs: as for every pipeline. Arguments of a call, see `__call__`, become defaults of all calls.

    Raises:
        TypeError: if the model has no `recommend`, or the processor no `decode_items`.

    Works with every model of this library: `pipeline("generative-retrieval", model="org/mender-small")`.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, value, method in (("model", self.model, "recommend"), ("processor", self.processor, "decode_items")):
            if not hasattr(value, method):
                raise TypeError(
                    f"{TASK} needs a {name} with {method}(), got {type(value).__name__}; "
                    f"pass the {name} that was saved with the model as {name}="
                )

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """The best items of every request.

        Args:
            inputs: a request, a list of requests, or a generator of requests (results are streamed). A request is a
                `Request`, a dictionary with some of its fields, or a text, which is its preference.
            **kwargs: for all requests of this call: `allowed` and `exclude` (applied in addition to the filters of a
                request); `top_k`, `dial`, `strict`, `prior`, `weights`, `why` and `fit`, for requests without their
                own; `num_beams`, prefixes kept per level, or "exact"; `unknown_items`, "skip" to ignore items of
                histories, filters and priors that are not in the catalogue; `batch_size`, requests per batch.

        Returns:
            For one request, a list of `{"item_id", "title", "score"}`, best first, with fewer than `top_k` entries if
            fewer items are left. For several requests, a list of such lists. For models that generate semantic IDs, the
            score is the log-probability of the item's semantic ID. With `why=True` each item has "why": what each part
            of the score contributed, relative to the mean of the list (`Recommendations.contributions`). With
            `fit=True` each item has "fit", which all items of a request share: the probability that anything in the
            catalogue fits the request, `None` without a preference.

        Raises:
            TypeError: if a request is neither a text nor a dictionary, or see `Request`.
            ValueError: for unknown fields or items, an empty request, filters that leave no item, or see `Request`.
        """
        if isinstance(inputs, list | tuple):
            return self._answers(inputs, **kwargs)
        return super().__call__(inputs, **kwargs)

    def _answers(
        self, inputs: Sequence[Any], batch_size: int | None = None, num_workers: int | None = None, **kwargs: Any
    ) -> list[list[dict[str, Any]]]:
        """Answers to a list, without the data loader of transformers, whose iterators cost milliseconds a call."""
        given = self._sanitize_parameters(**kwargs)
        kept = (self._preprocess_params, self._forward_params, self._postprocess_params)
        rendering, retrieval, _ = ({**old, **new} for old, new in zip(kept, given, strict=True))
        size, answers = batch_size or self._batch_size or 1, []
        for start in range(0, len(inputs), size):
            batch = [self.preprocess(one, **rendering)["requests"] for one in inputs[start : start + size]]
            found = self.forward({"requests": batch}, **retrieval)
            for row in range(len(batch)):
                answers.append(self.postprocess({name: values[row : row + 1] for name, values in found.items()}))
        return answers

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model with its code and the processor with the items to a folder.

        Args:
            save_directory: the folder; created if it does not exist.
            **kwargs: passed on to both, for instance `push_to_hub=True, repo_id="org/name"`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        num_beams: int | str | None = None,
        allowed: Sequence[str] | ItemSelection | None = None,
        exclude: Sequence[str] | ItemSelection | None = None,
        unknown_items: str | None = None,
        **defaults: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown := sorted(set(defaults) - set(DEFAULTS)):
            raise TypeError(
                f"unknown argument {unknown[0]!r}; a call takes {', '.join(sorted(DEFAULTS))}, allowed, exclude, "
                "num_beams, unknown_items and batch_size"
            )
        Request(**{name: value for name, value in defaults.items() if value is not None})  # checks the values
        # The attribute does not exist yet while the defaults are being set.
        skipping = unknown_items or getattr(self, "_preprocess_params", {}).get("unknown_items", "error")
        filters = {"allowed": allowed, "exclude": exclude}
        filters = {name: self._selection(value, name, skipping) for name, value in filters.items()}
        rendering = {"unknown_items": unknown_items, **defaults}
        retrieval = {"num_beams": num_beams, **filters}
        rendering, retrieval = (
            {name: value for name, value in settings.items() if value is not None}
            for settings in (rendering, retrieval)
        )
        return rendering, retrieval, {}

    def preprocess(
        self, request: str | Mapping[str, Any] | Request, unknown_items: str = "error", **defaults: Any
    ) -> dict[str, list[_Rendered]]:
        """Render a request. Padding follows when the batch is known."""
        request = Request.parse(request, **defaults)
        features = self.processor.features(request, unknown_items=unknown_items)
        allowed, exclude = (
            self._selection(getattr(request, name), name, unknown_items) for name in ("allowed", "exclude")
        )
        if request.strict and (phrases := self.processor.avoided(request)):
            named = as_selection(self.processor.items_naming(phrases), "avoid", len(self.processor.item_ids), 1)
            exclude = named if exclude is None else _both(exclude, named)
        prior = self._prior(request.prior, unknown_items)
        return {"requests": [_Rendered(request, features, allowed, exclude, prior)]}

    def _forward(
        self,
        inputs: dict[str, list[Any]],
        num_beams: int | str | None = None,
        allowed: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> dict[str, Tensor]:
        # In a batch, each entry is a list as `preprocess` returned it; for a single request it is the request itself.
        requests = [
            request for entry in inputs["requests"] for request in (entry if isinstance(entry, list) else [entry])
        ]
        groups: dict[tuple, list[int]] = {}  # the model takes one set of weights for a batch
        for row, one in enumerate(requests):
            groups.setdefault(tuple(sorted((one.request.weights or {}).items())), []).append(row)
        found = [
            self._recommend([requests[row] for row in rows], num_beams, allowed, exclude) for rows in groups.values()
        ]
        return found[0] if len(found) == 1 else _merged(found, [row for rows in groups.values() for row in rows])

    def _recommend(
        self, requests: Sequence[_Rendered], num_beams: int | str | None, allowed: Tensor | None, exclude: Tensor | None
    ) -> dict[str, Tensor]:
        """Results of requests with the same weights. Each of shape (B, M) or (B,)."""
        asked = [one.request for one in requests]
        inputs = self.processor.collate([one.features for one in requests])
        count = len(self.processor.item_ids)
        allowed, exclude = _batch_filters(requests, allowed, exclude, count)
        shared = {"weights": asked[0].weights, "prior": _batch_prior([one.prior for one in requests], count)}
        shared |= {"why": any(one.why for one in asked), "fit": any(one.fit for one in asked)}
        found = self.model.recommend(
            **{name: value.to(self.device) for name, value in inputs.items()},
            top_k=max(one.top_k for one in asked),
            num_beams=num_beams,
            allowed=allowed,
            exclude=exclude,
            **{name: value for name, value in shared.items() if value is not None and value is not False},
        )
        # One tensor for each part: transformers splits a batch by the entries of this dictionary.
        results = {"item_indices": found.item_indices, "scores": found.scores}
        results |= {f"{WHY}{name}": values for name, values in (found.contributions or {}).items()}
        results |= {} if found.fit is None else {FIT: found.fit}
        wanted = {name: torch.tensor([getattr(one, name) for one in asked]) for name in ("top_k", "why", "fit")}
        return results | {f"wanted {name}": values for name, values in wanted.items()}

    def postprocess(self, found: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Ids, titles and scores of the items for one request."""
        wanted = {name: int(found[f"wanted {name}"][0]) for name in ("top_k", "why", "fit")}
        found = {
            name: values[0, : wanted["top_k"]] if values.dim() > 1 else values[0] for name, values in found.items()
        }
        real = found["item_indices"] >= 0
        items = self.processor.decode_items(found["item_indices"][real])
        items = [{**item, "score": score} for item, score in zip(items, found["scores"][real].tolist(), strict=True)]
        why = {name.removeprefix(WHY): values[real] for name, values in found.items() if name.startswith(WHY)}
        if wanted["why"]:
            # Relative to the mean of what this request returns, which may be less than others in its batch do.
            table = torch.stack([values - values.mean() for values in why.values()], dim=1).tolist()
            items = [
                {**item, "why": dict(zip(why, values, strict=True))} for item, values in zip(items, table, strict=True)
            ]
        if wanted["fit"]:
            fit = float(found[FIT])
            items = [{**item, FIT: None if isnan(fit) else fit} for item in items]
        return items

    def _prior(self, prior: Any, unknown_items: str) -> Any:
        """A prior by item index; numbers for every item stay as they are."""
        if not isinstance(prior, Mapping):
            return prior
        found = {}
        for item, value in prior.items():
            known = (
                self.processor.item_indices([item], unknown_items=unknown_items) if isinstance(item, str) else [item]
            )
            found |= dict.fromkeys(known, value)
        return found

    def _selection(
        self, selection: Sequence[str] | ItemSelection | None, name: str, unknown_items: str
    ) -> Tensor | None:
        """A selection as item indices or a boolean mask over all items. Shape: (E,) or (N,)."""
        if selection is None:
            return None
        if isinstance(selection, str):
            raise ValueError(f"{name}={selection!r} is a single text; pass a list of item ids")
        if isinstance(selection, Iterable) and not isinstance(selection, Tensor):
            selection = selection if isinstance(selection, np.ndarray) else list(selection)
            if len(selection) and all(isinstance(item, str) for item in selection):
                selection = self.processor.item_indices(selection, unknown_items=unknown_items)
        selected = as_selection(selection, name, len(self.processor.item_ids), num_users=1)
        if selected.dim() > 1:
            raise ValueError(f"`{name}` has one row per user; put the filter of a user into the request of that user")
        return selected


def _both(first: Tensor, second: Tensor) -> Tensor:
    """The union of a selection, a mask or item indices, and item indices."""
    if first.dtype == torch.bool:
        return first.index_fill(0, second, True)
    return torch.cat([first, second])


def _batch_prior(priors: Sequence[Any], num_items: int) -> Any:
    """The priors of a batch: one for all if they are equal, otherwise a row for each. Shape: (B, N)."""
    first = priors[0]
    if all(prior is first or (isinstance(prior, Mapping) and prior == first) for prior in priors):
        return first
    none = torch.zeros(num_items)
    return torch.stack([none if prior is None else prior_scores(prior, num_items, 1, "cpu") for prior in priors])


def _merged(parts: Sequence[dict[str, Tensor]], order: Sequence[int]) -> dict[str, Tensor]:
    """Results of several groups of a batch as those of one batch.

    Args:
        parts: results of each group.
        order: row in the batch of each row of the groups, one group after the other.
    """
    place = torch.tensor(order).argsort()
    width = max(part["item_indices"].shape[1] for part in parts)
    merged = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        like = next(part[name] for part in parts if name in part)
        rows = []
        for part in parts:
            shape = part["item_indices"].shape[: like.dim()]
            values = part.get(name, like.new_full(shape, torch.nan if name == FIT else 0))
            missing = width - values.shape[-1] if values.dim() > 1 else 0
            rows.append(functional.pad(values, (0, missing), value=MISSING.get(name, 0)) if missing else values)
        merged[name] = torch.cat(rows)[place.to(like.device)]
    return merged


def _batch_filters(
    requests: Sequence[_Rendered], allowed: Tensor | None, exclude: Tensor | None, num_items: int
) -> tuple[Tensor | None, Tensor | None]:
    """The filters of a batch.

    Exclusion masks are merged into the mask of allowed items. The model looks up every excluded index in its tree,
    while the cost of a mask does not depend on how many items it excludes.

    Returns:
        Allowed items as a mask of shape (N,) or (B, N), and excluded item indices of shape (E,) or (B, E), padded with
        -1. Each is `None` without such a filter.
    """
    shared, few = _masked(allowed, exclude, num_items)
    own = [_masked(request.allowed, request.exclude, num_items) for request in requests]
    if any(mask is not None for mask, _ in own):
        everything = torch.ones(num_items, dtype=torch.bool)
        masks = torch.stack([everything if mask is None else mask for mask, _ in own])
        shared = masks if shared is None else masks & shared
    if any(indices is not None for _, indices in own):
        none = torch.empty(0, dtype=torch.int64)
        common = none if few is None else few
        few = pad_sequence(
            [common if indices is None else torch.cat([indices, common]) for _, indices in own],
            batch_first=True,
            padding_value=-1,
        )
    return shared, few


def _masked(allowed: Tensor | None, exclude: Tensor | None, num_items: int) -> tuple[Tensor | None, Tensor | None]:
    """A mask of items that are allowed and not excluded by a mask, and the item indices that are excluded by index."""
    by_mask = exclude is not None and exclude.dtype == torch.bool
    return allowed_mask(allowed, exclude if by_mask else None, num_items, 1), None if by_mask else exclude
