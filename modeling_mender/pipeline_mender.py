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
from torch.nn.utils.rnn import pad_sequence
from transformers import Pipeline

from .item_filter import ItemSelection, allowed_mask, as_selection

__all__ = ["GenerativeRetrievalPipeline"]

TASK = "generative-retrieval"
SAID = ("preference", "inferred", "avoid", "history", "strength", "preference_weights")
"""Keys of a request that the processor renders."""
FIT = "fit"
WHY = "why "
"""Prefix of contributions among the results of a batch."""
REQUEST_KEYS = (*SAID, "allowed", "exclude")


@dataclass(frozen=True)
class _Request:
    """One rendered request: its features, and the request's own filters as item indices or masks."""

    features: dict[str, Any]
    allowed: Tensor | None
    exclude: Tensor | None


class GenerativeRetrievalPipeline(Pipeline):
    """Ranked items for a preference and a history.

    Args:
        **kwargs: as for every pipeline. `top_k`, `num_beams`, `allowed`, `exclude`, `prior`, `weights`, `why`,
            `fit` and `unknown_items` become defaults of the calls.

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
                preference text, or a dictionary with some of the keys "preference" (a text or a list of texts),
                "inferred" (instead of it, a preference that the user did not type), "avoid" (what the user does not
                want, in the same forms), "history" (item ids, oldest first), "strength" and "preference_weights" (see
                `MenderProcessor`), "allowed" and "exclude" (item ids, item indices or a mask; applied in addition to
                the filters of the call).
            **kwargs: for all requests of this call: `top_k`, items to return (default 10); `num_beams`, prefixes kept
                per level, or "exact"; `allowed` and `exclude`, item ids, item indices or a boolean mask over all items;
                `prior`, added to the scores of all items, or of some by id or index; `weights`, factors for the weights
                of experts, such as {"language": 0}; `why`, whether to explain the scores; `fit`, whether to say if
                anything fits; `unknown_items`, "skip" to ignore items of histories, filters and priors that are not in
                the catalogue; `batch_size`, requests per batch.

        Returns:
            For one request, a list of `{"item_id", "title", "score"}`, best first, with fewer than `top_k` entries if
            fewer items are left. For several requests, a list of such lists. For models that generate semantic IDs, the
            score is the log-probability of the item's semantic ID. With `why=True` each item has "why": what each part
            of the score contributed, relative to the mean of the list (`Recommendations.contributions`). With
            `fit=True` each item has "fit", which all items of a request share: the probability that anything in the
            catalogue fits the request, `None` without a preference.

        Raises:
            TypeError: if a request is neither a text nor a dictionary.
            ValueError: for unknown keys or items, an empty request, or filters that leave no item.
        """
        if isinstance(inputs, list | tuple):
            return super().__call__(list(inputs), **kwargs) if inputs else []
        return super().__call__(inputs, **kwargs)

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
        top_k: int | None = None,
        num_beams: int | str | None = None,
        allowed: Sequence[str] | ItemSelection | None = None,
        exclude: Sequence[str] | ItemSelection | None = None,
        prior: Tensor | Sequence[float] | Mapping[str | int, float] | None = None,
        weights: Mapping[str, float] | None = None,
        why: bool | None = None,
        fit: bool | None = None,
        unknown_items: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        rendering = {"unknown_items": unknown_items}
        # The attribute does not exist yet while the defaults are being set.
        defaults = getattr(self, "_preprocess_params", {})
        unknown_items = unknown_items or defaults.get("unknown_items", "error")
        filters = {"allowed": allowed, "exclude": exclude}
        filters = {name: self._selection(value, name, unknown_items) for name, value in filters.items()}
        if isinstance(prior, Mapping) and all(isinstance(item, str) for item in prior):
            known = self.processor.item_indices(list(prior), unknown_items="skip")
            if unknown_items == "error":
                known = self.processor.item_indices(list(prior))
            values = [value for item, value in prior.items() if unknown_items == "error" or item in self.processor]
            prior = dict(zip(known, values, strict=True))
        scoring = {"prior": prior, "weights": weights, "why": why, "fit": fit}
        retrieval = {"top_k": top_k, "num_beams": num_beams, **filters, **scoring}
        rendering, retrieval = (
            {name: value for name, value in settings.items() if value is not None}
            for settings in (rendering, retrieval)
        )
        return rendering, retrieval, {}

    def preprocess(self, request: str | Mapping[str, Any], unknown_items: str = "error") -> dict[str, list[_Request]]:
        """Render a request. Padding follows when the batch is known."""
        if isinstance(request, str):
            request = {"preference": request}
        if not isinstance(request, Mapping):
            raise TypeError(
                f"a request must be a text or a dictionary with the keys {REQUEST_KEYS}, got {type(request).__name__}"
            )
        if unknown := sorted(set(request) - set(REQUEST_KEYS)):
            raise ValueError(f"a request has the unknown keys {unknown}; known keys are {list(REQUEST_KEYS)}")
        history = request.get("history")
        if isinstance(history, str):
            raise ValueError(f"history={history!r} is a single text; pass a list of item ids, oldest first")
        weights = request.get("preference_weights")
        rendered = self.processor(
            [request.get("preference")],
            [[] if history is None else list(history)],
            inferred=[request.get("inferred")],
            avoid=[request.get("avoid")],
            strength=request.get("strength"),
            preference_weights=None if weights is None else [list(weights)],
            unknown_items=unknown_items,
            return_tensors=None,
        )
        filters = [self._selection(request.get(name), name, unknown_items) for name in ("allowed", "exclude")]
        return {"requests": [_Request({name: values[0] for name, values in rendered.items()}, *filters)]}

    def _forward(
        self,
        inputs: dict[str, list[Any]],
        top_k: int = 10,
        num_beams: int | str | None = None,
        allowed: Tensor | None = None,
        exclude: Tensor | None = None,
        **scoring: Any,
    ) -> dict[str, Tensor]:
        # In a batch, each entry is a list as `preprocess` returned it; for a single request it is the request itself.
        requests = [
            request for entry in inputs["requests"] for request in (entry if isinstance(entry, list) else [entry])
        ]
        inputs = self.processor.collate([request.features for request in requests])
        allowed, exclude = _batch_filters(requests, allowed, exclude, len(self.processor.item_ids))
        found = self.model.recommend(
            **{name: value.to(self.device) for name, value in inputs.items()},
            top_k=top_k,
            num_beams=num_beams,
            allowed=allowed,
            exclude=exclude,
            **scoring,
        )
        # One tensor for each part: transformers splits a batch by the entries of this dictionary.
        why = {f"{WHY}{name}": values for name, values in (found.contributions or {}).items()}
        fit = {} if found.fit is None else {FIT: found.fit}
        return {"item_indices": found.item_indices, "scores": found.scores, **why, **fit}

    def postprocess(self, found: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Ids, titles and scores of the items for one request."""
        indices, scores = found["item_indices"][0], found["scores"][0]
        real = indices >= 0
        items = self.processor.decode_items(indices[real])
        items = [{**item, "score": score} for item, score in zip(items, scores[real].tolist(), strict=True)]
        why = {name.removeprefix(WHY): values[0][real] for name, values in found.items() if name.startswith(WHY)}
        if why:
            table = torch.stack(list(why.values()), dim=1).tolist()
            items = [
                {**item, "why": dict(zip(why, values, strict=True))} for item, values in zip(items, table, strict=True)
            ]
        if FIT in found:
            fit = float(found[FIT][0])
            items = [{**item, FIT: None if isnan(fit) else fit} for item in items]
        return items

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


def _batch_filters(
    requests: Sequence[_Request], allowed: Tensor | None, exclude: Tensor | None, num_items: int
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
