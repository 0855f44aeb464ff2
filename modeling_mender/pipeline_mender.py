"""`pipeline("generative-retrieval")`: requests as people write them in, ranked items with titles out.

A request names a preference, a history of item ids, or both; the processor renders it, the model's `recommend()`
retrieves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
REQUEST_KEYS = (*SAID, "allowed", "exclude")


@dataclass(frozen=True)
class _Request:
    """One rendered request: its features, and what it alone allows and excludes, as indices or masks."""

    features: dict[str, Any]
    allowed: Tensor | None
    exclude: Tensor | None


class GenerativeRetrievalPipeline(Pipeline):
    """Ranked items for a preference and a history.

    Args:
        **kwargs: as for every pipeline. `top_k`, `num_beams`, `allowed`, `exclude`, `prior`, `weights` and
            `unknown_items` become defaults of the calls.

    Raises:
        TypeError: if the model cannot `recommend`, or there is no processor that knows the items.

    Any model of this library serves: `pipeline("generative-retrieval", model="org/mender-small")`.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for part, value, method in (("model", self.model, "recommend"), ("processor", self.processor, "decode_items")):
            if not hasattr(value, method):
                raise TypeError(
                    f"{TASK} needs a {part} with {method}(), got {type(value).__name__}; "
                    f"pass {part}= as it was saved with the model"
                )

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """The best items of every request.

        Args:
            inputs: a request, a list of them, or a generator (which streams). A request is a preference text, or a
                dictionary with some of "preference" (a text, or several), "inferred" (instead of it, one that nobody
                typed), "avoid" (what is not wanted, likewise), "history" (item ids, oldest first), "strength" and
                "preference_weights" (see `MenderProcessor`), "allowed" and "exclude" (item ids, item indices or a mask,
                for this request on top of those for all).
            **kwargs: for all requests of this call: `top_k`, items to return (10); `num_beams`, prefixes kept per
                level, or "exact"; `allowed` and `exclude`, item ids, item indices or a boolean mask over all items;
                `prior`, a value to be added to the score of every item, or of those named by id or index; `weights`,
                factors for the weights of experts, as {"language": 0};
                `unknown_items`, "skip" to leave out items of histories and filters that the catalogue lacks;
                `batch_size`, requests answered at once.

        Returns:
            For a request, a list of `{"item_id", "title", "score"}`, best first, fewer than `top_k` where fewer items
            are left; for several requests, a list of such lists. The score is the log-probability of the item's
            semantic ID for models that generate one.

        Raises:
            TypeError: if a request is neither text nor dictionary.
            ValueError: for unknown keys or items, a request that says nothing, or filters that leave no item.
        """
        if isinstance(inputs, list | tuple):
            return super().__call__(list(inputs), **kwargs) if inputs else []
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write everything the pipeline needs to a folder: the model with its code, and the processor with the items.

        Args:
            save_directory: the folder, made where it does not exist.
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
        unknown_items: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        rendering = {"unknown_items": unknown_items}
        # Missing while the defaults themselves are read.
        defaults = getattr(self, "_preprocess_params", {})
        unknown_items = unknown_items or defaults.get("unknown_items", "error")
        filters = {"allowed": allowed, "exclude": exclude}
        filters = {name: self._selection(value, name, unknown_items) for name, value in filters.items()}
        if isinstance(prior, Mapping) and all(isinstance(item, str) for item in prior):
            known = {item: value for item, value in prior.items() if unknown_items == "error" or item in self.processor}
            prior = dict(zip(self.processor.item_indices(list(known)), known.values(), strict=True))
        retrieval = {"top_k": top_k, "num_beams": num_beams, **filters, "prior": prior, "weights": weights}
        given = [{name: value for name, value in part.items() if value is not None} for part in (rendering, retrieval)]
        return given[0], given[1], {}

    def preprocess(self, request: str | Mapping[str, Any], unknown_items: str = "error") -> dict[str, list[_Request]]:
        """A request, rendered. Padding waits until the batch is known."""
        if isinstance(request, str):
            request = {"preference": request}
        if not isinstance(request, Mapping):
            raise TypeError(f"a request is a text or a dictionary with {REQUEST_KEYS}, got {type(request).__name__}")
        if unknown := sorted(set(request) - set(REQUEST_KEYS)):
            raise ValueError(f"a request has the keys {unknown}; known are {list(REQUEST_KEYS)}")
        history = request.get("history")
        if isinstance(history, str):
            raise ValueError(f"history={history!r} is one text; pass a list of item ids, oldest first")
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
        # A batch is a list of what `preprocess` returned; alone, a request comes as it was returned.
        requests = [one for part in inputs["requests"] for one in (part if isinstance(part, list) else [part])]
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
        return {"item_indices": found.item_indices, "scores": found.scores}

    def postprocess(self, found: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Ids, titles and scores of one request's items."""
        indices, scores = found["item_indices"][0], found["scores"][0]
        there = indices >= 0
        items = self.processor.decode_items(indices[there])
        return [{**item, "score": score} for item, score in zip(items, scores[there].tolist(), strict=True)]

    def _selection(
        self, selection: Sequence[str] | ItemSelection | None, name: str, unknown_items: str
    ) -> Tensor | None:
        """Item indices of ids or indices, or a boolean mask over all items. Shape: (E,) or (N,)."""
        if selection is None:
            return None
        if isinstance(selection, str):
            raise ValueError(f"{name}={selection!r} is one text; pass a list of item ids")
        if isinstance(selection, Iterable) and not isinstance(selection, Tensor):
            selection = selection if isinstance(selection, np.ndarray) else list(selection)
            if len(selection) and all(isinstance(item, str) for item in selection):
                selection = self.processor.item_indices(selection, unknown_items=unknown_items)
        selected = as_selection(selection, name, len(self.processor.item_ids), num_users=1)
        if selected.dim() > 1:
            raise ValueError(f"`{name}` has one row per user; put filters of one user into that user's request")
        return selected


def _batch_filters(
    requests: Sequence[_Request], allowed: Tensor | None, exclude: Tensor | None, num_items: int
) -> tuple[Tensor | None, Tensor | None]:
    """What a batch may receive, and which items it may not.

    What is excluded by a mask becomes part of what is allowed: the model looks up every excluded index in its tree, but
    masks cost the same however many items they exclude.

    Returns:
        A mask of shape (N,) or (B, N), and item indices of shape (E,) or (B, E), padded with -1; `None` for all items,
        and for none.
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
    """A mask of what is allowed and not excluded by a mask, and the indices of what is excluded by index."""
    by_mask = exclude is not None and exclude.dtype == torch.bool
    return allowed_mask(allowed, exclude if by_mask else None, num_items, 1), None if by_mask else exclude
