"""Edits of a recommender that serves: a copy is edited and then takes its place, and items are checked first.

A request reads one reference, to a `Version`, once; an edit makes a new version and puts it in that place. So threads
see the catalogue before an edit or after it, and need no lock. Edits wait for one another.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from modeling_mender import GenerativeRetrievalPipeline
from modeling_mender.spelling import most_similar
from modeling_mender.training.catalogue_edits import removed_items

__all__ = ["Edit", "Version", "item_columns", "item_fields", "text_of"]

FIELDS = ("item_id", "title", "text", "aspects")
EDITED_BY = ("add_items", "put", "set_catalogue", "set_item_states")
"""Methods of the modules that edits change; a module without them and without such parts stays as it is."""


@dataclass(frozen=True)
class Version:
    """Everything that requests and edits read, replaced as a whole, so that a version is always one catalogue.

    Attributes:
        pipeline: model and processor.
        vectors: see `Recommender`.
        purchases: see `Recommender`.
        settings: see `Recommender`.
    """

    pipeline: GenerativeRetrievalPipeline
    vectors: Tensor | None
    purchases: dict[str, list[int]]
    settings: dict[str, Any]

    @classmethod
    def of(cls, model: Any, processor: Any, *rest: Any) -> Version:
        """A version with a pipeline of its own."""
        # Tokenizers change their state at the first call, which other threads may not see happen.
        processor.margins  # noqa: B018
        return cls(GenerativeRetrievalPipeline(model=model, processor=processor, device=model.device), *rest)

    @property
    def model(self) -> Any:
        """The model."""
        return self.pipeline.model

    @property
    def processor(self) -> Any:
        """Its processor."""
        return self.pipeline.processor

    @property
    def removed(self) -> list[int]:
        """Indices of the items that were removed."""
        return removed_items(self.model)


class Edit:
    """What an edit may change: a copy of what serves.

    Args:
        version: what serves.
    """

    def __init__(self, version: Version) -> None:
        self.model, self.vectors, self.purchases = _twin(version.model), version.vectors, version.purchases
        self.processor = copy.copy(version.processor)  # `set_items` replaces lists and does not write to them
        self.settings = copy.deepcopy(version.settings)

    def version(self) -> Version:
        """What is to serve."""
        return Version.of(self.model, self.processor, self.vectors, self.purchases, self.settings)


def _twin(model: nn.Module) -> nn.Module:
    """A copy that shares tensors and most modules with a model, to be edited while the model serves.

    Edits replace tensors and do not write to them, so the model does not change. Modules that no edit changes, such as
    text encoder and decoder, are those of the model, with all that was attached to them.
    """
    kept, edited = [], []
    if not _sort(model, kept, edited):  # the last one is the model, of which edits change the configuration alone
        edited.append(kept.pop())
    shared = [value for module in kept for value in (module, vars(module).get("config"))]
    copies, usual = {}, vars(nn.Module())
    for module in edited:
        own = vars(module)
        shared += [*own["_parameters"].values(), *own["_buffers"].values()]
        for name, value in own.items():
            if name.startswith("_") and name not in usual:  # what is computed once and kept
                copies[id(value)] = dict(value) if type(value) is dict else value
    memo = {id(value): value for value in shared} | copies
    for module in edited:
        memo.pop(id(vars(module).get("config")), None)
    memo.pop(id(None), None)
    return copy.deepcopy(model, memo)


def _sort(module: nn.Module, kept: list[nn.Module], edited: list[nn.Module]) -> bool:
    """Sort a module and its parts by whether edits change them or a part of them; whether they change this one."""
    parts = [_sort(part, kept, edited) for part in module.children()]
    changes = any(parts) or any(hasattr(module, name) for name in EDITED_BY)
    (edited if changes else kept).append(module)
    return changes


def item_columns(items: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Items as columns, checked.

    Raises:
        ValueError: if an item lacks an id or a title, a value is of the wrong kind, or a field is unknown.
    """
    columns: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for item in map(item_fields, items):
        unknown = [name for name in item if name not in FIELDS]
        if unknown:
            close = most_similar(str(unknown[0]), FIELDS, 1)
            hint = f", did you mean {close[0]!r}" if close else ""
            raise ValueError(f"an item has no field {unknown[0]!r}{hint}; its fields are {', '.join(FIELDS)}")
        for name in ("item_id", "title"):
            if not isinstance(item.get(name), str) or not item[name].strip():
                raise ValueError(f"item {item!r}: {name} is missing or no text; pass one")
        aspects = item.get("aspects") or []
        if isinstance(aspects, str) or not all(isinstance(phrase, str) for phrase in aspects):
            raise ValueError(f"item {item['item_id']!r}: aspects={aspects!r}; pass a list of phrases")
        text = item.get("text") or text_of(item["title"], aspects)
        if not isinstance(text, str):
            raise ValueError(f"item {item['item_id']!r}: text={text!r} is not text")
        for name, value in zip(FIELDS, (item["item_id"], item["title"], text, list(aspects)), strict=True):
            columns[name].append(value)
    if not columns["item_id"]:
        raise ValueError("there are no items; pass at least one")
    return columns


def item_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an item; `None` means that a field is left out.

    Raises:
        ValueError: if it is no mapping.
    """
    if not isinstance(item, Mapping):
        raise ValueError(f"{item!r} is not an item; pass dictionaries with item_id and title")
    return {name: value for name, value in item.items() if value is not None}


def text_of(title: str, aspects: Sequence[str]) -> str:
    """What is embedded of an item without a text of its own."""
    return ". ".join([title, *aspects])
