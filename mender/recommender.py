"""The recommender: words and item ids in, items out.

A `Recommender` holds a model, its processor and what else a shop needs between requests: purchases that it was told of,
and vectors of items where the model has none. Below it lie `AutoModel` and `AutoProcessor`, which work without it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mender.editing import Edit, Version, item_columns, item_fields, text_of
from mender.model_folder import RECORD_FILE, load_whole, read_record, replace_folder, write_handler, write_record
from mender.packaged import model_place
from mender.purchases import read_purchases, write_purchases
from mender.saved_models import load_saved
from modeling_mender.request import Request
from modeling_mender.saved_weights import is_finite
from modeling_mender.training import catalogue_edits, closed_form

if TYPE_CHECKING:
    from mender.batch import BatchReport

__all__ = ["Recommender"]

VECTORS_FILE, PURCHASES_FILE = "item_vectors.safetensors", "purchases.safetensors"
KINDS_OF_SETTINGS = {
    **dict.fromkeys(("trained_items", "observed", "purchases"), int),
    "ridge_penalty": (int, float),
    "preset": (str, type(None)),
    "encoder": (dict, type(None)),
}
BATCH_SIZE = 32
FAR = 0.2
"""Share of the items that may be new before `status` advises to fit their semantic IDs again."""


class Recommender:
    """Recommends items of a catalogue to people, by what they bought and what they say.

    Requests and edits may come from several threads. An edit replaces all that requests read in one step, so that every
    request is answered with the items before it or after it; edits wait for one another. `copy.copy(shop)` shares all
    tensors with a recommender and is edited on its own.

    Args:
        model: any model of this library.
        processor: its processor.
        settings: what `save_pretrained` keeps beside them, see `status`.
        vectors: vectors of the items by which semantic IDs were chosen, for models that have none. Shape: (N, D).
        purchases: item indices that each user bought, oldest first.

    Attributes:
        folder: where it was loaded from or saved to last, if that is a folder.
        training: what is known of its training, if that was in this process: preset, parameters, steps, seconds, ...

    >>> from mender import Recommender
    >>> shop = Recommender.from_pretrained("corner-shop")  # doctest: +SKIP
    >>> shop.recommend("tea with a malty brew", top_k=3)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        settings: Mapping[str, Any] | None = None,
        vectors: Tensor | None = None,
        purchases: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        settings = {"trained_items": len(processor.item_ids), "observed": 0, **(settings or {})}
        purchases = {str(user): list(items) for user, items in (purchases or {}).items()}
        self._editing = threading.RLock()
        self.folder: Path | None = None
        self.training: dict[str, Any] = {}
        self._version = Version.of(model.eval(), processor, vectors, purchases, settings)

    # Where a recommender comes from

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str | None = None, dtype: str | torch.dtype | None = None, **hub: Any
    ) -> Recommender:
        """Load a recommender that `save_pretrained` wrote, or any saved model of this library.

        Args:
            name: a folder, a name on the Hub, or that of a model that is installed with this package, "corner-shop". A
                folder in the working directory comes before those.
            device: a torch device; default: the accelerator if there is one.
            dtype: type of the weights, such as "bfloat16", which many CPUs and all recent accelerators compute faster;
                default: as saved.
            **hub: `revision`, `token`, `cache_dir` and the like, for names on the Hub.

        Raises:
            ValueError: if there is no such model, or its files are damaged or do not belong together.
        """
        place = model_place(name)
        return load_whole(place, lambda: cls._load(place, device, dtype, **hub))

    @classmethod
    def _load(cls, name: str | Path, device: str | None, dtype: str | torch.dtype | None, **hub: Any) -> Recommender:
        model, processor = load_saved(name, device, dtype, **hub)
        record = read_record(name, **hub) or {}
        tables = {file: _saved_tensors(name, file, **hub) for file in (VECTORS_FILE, PURCHASES_FILE)}
        items, vectors = len(processor.item_ids), tables[VECTORS_FILE].get("vectors")
        if vectors is not None and (vectors.dim() != 2 or len(vectors) != items or not is_finite(vectors)):
            raise ValueError(
                f"{name} does not fit together: {VECTORS_FILE} has numbers of shape {tuple(vectors.shape)}, items.json "
                f"{items} items, or some are not finite; save the recommender again"
            )
        try:
            purchases = read_purchases(tables[PURCHASES_FILE], items)
        except ValueError as error:
            raise ValueError(f"{PURCHASES_FILE} of {name} is damaged: {error}; remove it, or save it again") from error
        settings = _checked_settings(record.get("settings") or {}, name)
        shop = cls(model, processor, settings=settings, vectors=vectors, purchases=purchases)
        shop.folder = Path(name) if Path(name).is_dir() else None
        return shop

    @classmethod
    def train(cls, data: Any, items: Any = None, *, preset: str = "mender", **options: Any) -> Recommender:
        """Train a recommender; `mender.learning.train` has all options.

        Args:
            data: a folder with two tables, or with built benchmarks; the name of a recipe or of a data set on the Hub;
                a data frame of interactions (pandas or polars); or examples with `preferences`, `history` and `target`
                (a `Dataset` or `DatasetDict`).
            items: with a data frame or examples, the items: a data frame, a `Dataset` or a dictionary of columns.
            preset: name of a method, or a YAML file.
            **options: see `mender.learning.train`.
        """
        from mender.learning import train

        return train(data, items, preset=preset, **options)

    # Asking

    @property
    def model(self) -> Any:
        """The model, for everything that transformers does with one."""
        return self._version.model

    @property
    def processor(self) -> Any:
        """The processor that renders requests for the model."""
        return self._version.processor

    @property
    def settings(self) -> dict[str, Any]:
        """What is saved beside the model."""
        return self._version.settings

    def recommend(
        self,
        preference: str | Sequence[str] | Mapping[str, float] | None = None,
        *,
        inferred: str | Sequence[str] | Mapping[str, float] | None = None,
        history: Sequence[str] = (),
        avoid: str | Sequence[str] | None = None,
        strict: bool = False,
        exclude: Sequence[str] | None = None,
        allowed: Sequence[str] | None = None,
        prior: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        dial: float | None = None,
        top_k: int = 10,
        why: bool = False,
        fit: bool = False,
        unknown_items: str = "error",
        num_beams: int | str | None = None,
    ) -> list[dict[str, Any]]:
        """The best items for one person.

        Args:
            preference: what the person typed, in a language that the encoder reads (the default one: English): a text,
                several texts, or texts with weights.
            inferred: a preference that nobody typed, such as one written from earlier reviews.
            history: ids of the items that the person bought, oldest first; the person need not be known.
            avoid: what is not wanted; items that match it are ranked lower.
            strict: whether items that name a phrase of `avoid` are left out.
            exclude: ids that must not be returned.
            allowed: the only ids that may be returned.
            prior: numbers to add to the scores of items, by id.
            weights: factors for the weights of experts, such as `{"language": 0}`.
            dial: how far the preference moves the result; 1 is the model's own answer.
            top_k: items to return; fewer if fewer are left.
            why: whether to say what each part of the model contributed to every score.
            fit: whether to say how probable it is that anything in the catalogue fits.
            unknown_items: "skip" ignores ids that are not in the catalogue; "error" names the nearest known ones.
            num_beams: prefixes kept per level, or "exact".

        Returns:
            `{"item_id", "title", "score"}` of each item, best first, and `"why"` and `"fit"` where asked for.

        Raises:
            TypeError: if an argument is of the wrong kind.
            ValueError: if the request is empty, contradicts itself, names unknown items, leaves none, or asks for what
                the model does not read.
        """
        request = Request(
            preference=preference,
            inferred=inferred,
            history=history,
            avoid=avoid,
            strict=strict,
            exclude=exclude,
            allowed=allowed,
            prior=prior,
            weights=weights,
            dial=dial,
            top_k=top_k,
            why=why,
            fit=fit,
        )
        return self.recommend_batch([request], unknown_items=unknown_items, num_beams=num_beams)[0]

    def recommend_batch(
        self,
        requests: Iterable[str | Mapping[str, Any] | Request],
        *,
        batch_size: int = BATCH_SIZE,
        unknown_items: str = "error",
        num_beams: int | str | None = None,
        **defaults: Any,
    ) -> list[list[dict[str, Any]]]:
        """The best items for every request.

        Args:
            requests: texts, dictionaries with arguments of `recommend`, or `Request` objects.
            batch_size: requests that are answered at once.
            unknown_items: see `recommend`.
            num_beams: see `recommend`.
            **defaults: arguments of `recommend` for requests that lack them.

        Raises:
            TypeError: see `recommend`.
            ValueError: see `recommend`.
        """
        pipeline = self._version.pipeline  # one version for all of them, whatever is edited meanwhile
        parsed = [Request.parse(request, **defaults) for request in requests]
        for request in parsed:
            _check_read(pipeline.processor, request)
        return pipeline(parsed, batch_size=batch_size, num_beams=num_beams, unknown_items=unknown_items)

    def recommend_parquet(
        self, requests: str | Path, answers: str | Path, *, progress: bool = True, **options: Any
    ) -> BatchReport:
        """Answer every row of a Parquet table, in bounded memory. A run that was stopped continues.

        Args:
            requests: a Parquet file, or a folder of them. Columns with names of fields of a `Request` are read, empty
                values as fields that are left out; all other columns are copied into the answers.
            answers: folder for Parquet shards, with the columns `item_ids`, `scores`, and `error`, which says why a
                row has no answer. Row order is that of the requests.
            progress: whether to show a bar.
            **options: `top_k` (10) for rows without their own; `batch_size` (64), requests that are answered at once;
                `shard_rows` (10,000), rows of a shard, which are in memory at once; `unknown_items`, see `recommend`.

        Returns:
            How many rows were answered, refused, or done by an earlier run.

        Raises:
            ValueError: if the table cannot be read, or the folder has answers to other requests, of a catalogue that
                was edited since, or with other settings.
        """
        from mender.batch import recommend_parquet

        return recommend_parquet(self, requests, answers, progress=progress, **options)

    # The catalogue

    def __len__(self) -> int:
        """Number of items that can be recommended."""
        now = self._version
        return len(now.processor.item_ids) - len(now.removed)

    def __contains__(self, item_id: object) -> bool:
        """Whether an item can be recommended."""
        now = self._version
        known = now.processor
        return item_id in known and known.item_indices([item_id])[0] not in now.removed

    def __repr__(self) -> str:
        return f"Recommender({self.settings.get('preset') or type(self.model).__name__}, {len(self):,} items)"

    @property
    def items(self) -> list[dict[str, Any]]:
        """Id and title of every item that can be recommended, and its text and aspects where they are known."""
        now = self._version
        known, gone = now.processor, {*now.removed}
        columns = known.columns
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for index, row in enumerate(rows) if index not in gone]

    def item(self, item_id: str) -> dict[str, Any]:
        """One item that can be recommended, as `items` has it.

        Raises:
            ValueError: if the id is unknown, or the item was removed.
        """
        now = self._version
        known = now.processor
        (index,) = known.item_indices([item_id])
        if index in now.removed:
            raise ValueError(f"item {item_id!r} was removed from the catalogue")
        return {name: values[index] for name, values in known.columns.items()}

    def add_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Add items, without training. They can be found at once by what their text says.

        Args:
            items: `{"item_id", "title"}` of each, and where you have them `"text"` (what is embedded; default: the
                title and the aspects) and `"aspects"` (phrases).

        Raises:
            ValueError: if an item has no id or title, an id is taken, the model cannot learn of items without
                training, or there is no room for them. Nothing is added then.
        """
        with self._edit() as edit:
            columns = item_columns(items)
            taken = [item_id for item_id in columns["item_id"] if item_id in edit.processor]
            gone = {edit.processor.item_ids[index] for index in catalogue_edits.removed_items(edit.model)}
            if back := [item_id for item_id in taken if item_id in gone]:
                raise ValueError(f"item {back[0]!r} was removed and its id is kept for histories; pass another id")
            if taken:
                raise ValueError(f"item {taken[0]!r} is in the catalogue; change it with update_items")
            vectors = self._vectors_of(edit.model, columns)
            catalogue_edits.add_items(edit.model, edit.processor, columns, vectors=vectors)
            if vectors is not None:
                edit.vectors = torch.cat([vectors[0], vectors[1].to(vectors[0].dtype)])

    def remove_items(self, item_ids: Iterable[str]) -> None:
        """Take items out of the catalogue. They may still be in histories.

        Raises:
            ValueError: if an id is unknown or was removed before, or no item would be left.
        """
        with self._edit() as edit:
            catalogue_edits.remove_items(edit.model, edit.processor.item_indices(_listed(item_ids)))

    def update_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Change title, text or aspects of items; what an item does not name stays as it is.

        Args:
            items: as for `add_items`. A new title or new aspects without a text make a new text of both, unless the
                item has a text of its own.

        Raises:
            ValueError: if an id is unknown or was removed, or see `add_items`. Nothing is changed then.
        """
        with self._edit() as edit:
            rows = [item_fields(item) for item in items]
            known = edit.processor
            for row, index in zip(rows, known.item_indices([row.get("item_id") for row in rows]), strict=True):
                aspects = known.aspects[index] if known.aspects else []
                text = known.texts[index] if known.texts else known.titles[index]
                rendered = text in (known.titles[index], text_of(known.titles[index], aspects))
                row.setdefault("title", known.titles[index])
                row.setdefault("aspects", aspects)
                if not rendered:
                    row.setdefault("text", text)
            columns = item_columns(rows)
            vectors = self._vectors_of(edit.model, columns)
            catalogue_edits.update_items(edit.model, known, columns, vectors=vectors)
            if vectors is not None:
                edit.vectors = vectors[0].clone()
                edit.vectors[known.item_indices(columns["item_id"])] = vectors[1].to(edit.vectors.dtype)

    # Purchases

    def observe(self, purchases: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Count purchases that were made since the training.

        Popularity and what is bought after what are exact at once; what needs a new fit falls behind, see `status` and
        `refit_behaviour`. Recommendations for a person follow from the `history` of the request, not from this.

        Args:
            purchases: pairs of user id and item id, oldest first.

        Returns:
            `status`.

        Raises:
            ValueError: if an item is unknown, or the model counts no purchases. Nothing is counted then.
        """
        pairs = [tuple(pair) for pair in purchases]
        if wrong := [pair for pair in pairs if len(pair) != 2]:
            raise ValueError(f"purchases has {wrong[0]!r}; pass pairs of a user id and an item id")
        with self._edit() as edit:
            experts = getattr(edit.model, "experts", None)
            counted = experts and (experts.popularity is not None or experts.transitions is not None)
            if not counted and (experts is None or experts.co_purchase is None):
                raise ValueError("this model counts no purchases; train one with experts, such as the preset mender")
            indices = edit.processor.item_indices([item for _, item in pairs])
            seen: dict[str, list[int]] = {}
            events = []
            for (user, _), item in zip(pairs, indices, strict=True):
                own = seen.setdefault(str(user), list(edit.purchases.get(str(user), ())))
                events.append((list(own), item))
                own.append(item)
            if events:
                closed_form.observe(experts, events)
            edit.purchases = {**edit.purchases, **seen}
            edit.settings["observed"] += len(events)
        return self.status

    def refit_behaviour(self) -> dict[str, Any]:
        """Fit what people buy together (EASE) again, on all purchases that are known; see `status`.

        Raises:
            ValueError: if the purchases of the training are not known, because it was saved without them, or the model
                does not fit what people buy together.
        """
        with self._edit() as edit:
            experts, settings = getattr(edit.model, "experts", None), edit.settings
            if experts is None or experts.co_purchase is None:
                raise ValueError("this model does not fit what people buy together; there is nothing to fit again")
            known = sum(map(len, edit.purchases.values()))
            trained = settings.get("purchases")
            if not trained or "ridge_penalty" not in settings or known < trained + settings["observed"]:
                raise ValueError(
                    f"{known} purchases are known, and the model was trained on {trained or 'unknown ones'}; save with "
                    "purchases=True after the training, or train again"
                )
            histories, items = list(edit.purchases.values()), len(edit.processor.item_ids)
            experts.co_purchase.set_matrix(*closed_form.ease(histories, items, settings["ridge_penalty"]))
            settings["purchases"], settings["observed"] = known, 0
        return self.status

    def refit_codes(self, data: Any, items: Any = None, **options: Any) -> None:
        """Fit semantic IDs and train the generator again; this recommender then has the items of the data.

        Items that were removed come back if the data has them, and items have the titles and texts of the data.

        Args:
            data: as for `train`; it must have every item of the catalogue.
            items: as for `train`.
            **options: as for `train`; default: the preset of the first training.

        Raises:
            ValueError: if the data lacks items, or see `train`.
        """
        preset = options.pop("preset", None) or self.settings.get("preset")
        if preset is None:
            raise ValueError("how this model was trained is not known; pass preset=")
        with self._editing:  # edits wait, because the new model would lack them
            fresh = type(self).train(data, items, preset=preset, **options)
            known = fresh.processor
            if missing := [item["item_id"] for item in self.items if item["item_id"] not in known]:
                raise ValueError(
                    f"the data lacks {len(missing)} items of the catalogue, such as {missing[0]!r}; add them to its "
                    "items"
                )
            self._version, self.training = fresh._version, fresh.training

    @property
    def status(self) -> dict[str, Any]:
        """What has changed since the training.

        `items`, `added` and `removed` count items; `observed` counts purchases since the last fit, and `behind` is the
        share of all purchases that the fit of what people buy together lacks. `advice` says what to do about it.
        """
        now = self._version
        model, settings = now.model, now.settings
        known, removed = len(now.processor.item_ids), len(now.removed)
        added = known - settings["trained_items"]
        total = settings.get("purchases", 0) + settings["observed"]
        behind = settings["observed"] / total if total else 0.0
        advice = []
        there = added - sum(index >= settings["trained_items"] for index in now.removed)
        if hasattr(model, "set_catalogue") and there > FAR * (known - removed):
            advice.append("many items are new: fit semantic IDs again with refit_codes")
        if behind > FAR:
            advice.append("many purchases are new: call refit_behaviour")
        return {
            "items": known - removed,
            "added": added,
            "removed": removed,
            "observed": settings["observed"],
            "behind": behind,
            "advice": advice,
        }

    # Measuring and sharing

    def evaluate(self, data: Any, items: Any = None, *, limit: int | None = None, **options: Any) -> list[Any]:
        """Scores on all axes of a benchmark, on its test split; see `mender.learning.evaluate`.

        Args:
            data: as for `train`.
            items: as for `train`.
            limit: maximum number of examples (or pairs) per axis.
            **options: see `mender.learning.evaluate`.

        Returns:
            A `mender.report.Score` per axis, matching mode and stratum.
        """
        from mender.learning import evaluate

        return evaluate(self, data, items, limit=limit, **options)

    def save_pretrained(
        self, folder: str | Path, *, purchases: bool = False, encoder: str | None = None, **options: Any
    ) -> None:
        """Save everything that requests and edits need into a folder, whole or not at all.

        Files of others in the folder are kept, such as its card. `AutoModel` and `AutoProcessor` load it as well.

        Args:
            folder: replaced in one step.
            purchases: whether to save what each user bought, for `refit_behaviour`. Not for publishing.
            encoder: "copy" saves the weights of the text encoder, "reference" only where they are and their digest,
                for a frozen encoder with a name on the Hub. Default: as the model was loaded.
            **options: of the model's `save_pretrained`.

        Raises:
            OSError: if the folder cannot be replaced; it is then as it was before.
            ValueError: if the encoder is to be a reference and was trained or has no public name, or the model has
                adapters.
        """
        with self._editing, replace_folder(folder) as unfinished:
            self.write(unfinished, purchases=purchases, encoder=encoder, **options)
        self.folder = Path(folder)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any
    ) -> str:
        """Upload model, items and card to the Hub; what people edited in the card there stays.

        The card and the licence of the folder that this recommender was loaded from or saved to go with it.

        Args:
            repo_id: "organisation/name"; created if it does not exist.
            private: whether only you can see it.
            token: of the Hub; default: the one that you logged in with.
            **options: of `save_pretrained`; purchases are uploaded only with `purchases=True`.

        Returns:
            Address of the commit.
        """
        from mender.learning import push

        return push(self, repo_id, private=private, token=token, **options)

    def write(self, folder: Path, *, purchases: bool = False, encoder: str | None = None, **options: Any) -> None:
        """Write all files into an empty folder; arguments as for `save_pretrained`."""
        now = self._version
        if hasattr(now.model, "merge_and_unload"):
            raise ValueError(
                "the model has adapters, which are saved without it; save Recommender(model.merge_and_unload(), "
                "processor), or the adapters alone with modeling_mender.hub.adapters.save_adapter"
            )
        given = {"encoder": encoder} if encoder is not None else {}
        now.model.save_pretrained(folder, **given, **options)
        now.processor.save_pretrained(folder)
        if now.vectors is not None:
            save_file({"vectors": now.vectors.contiguous()}, folder / VECTORS_FILE)
        if purchases:
            save_file(write_purchases(now.purchases), folder / PURCHASES_FILE)
        write_handler(folder)
        write_record(folder, now.model, now.processor, settings=now.settings)

    # Editing

    @contextmanager
    def _edit(self) -> Iterator[Edit]:
        """What an edit may change; it takes the place of what serves if the block ends without an error."""
        with self._editing:
            edit = Edit(self._version)
            yield edit
            self._version = edit.version()

    def _vectors_of(self, model: Any, columns: Mapping[str, Sequence[Any]]) -> tuple[Tensor, Tensor] | None:
        """Vectors of the items of today and of given ones, for models that have none; `None` for others."""
        if not hasattr(model, "set_catalogue") or catalogue_edits.has_text_vectors(model):
            return None
        now = self._version
        if now.vectors is None:
            raise ValueError(
                "this model has no vectors of items, by which new items find their semantic IDs; save it with "
                "Recommender.save_pretrained after the training"
            )
        from mender.learning import embed

        return now.vectors, embed(columns["text"], now.settings.get("encoder"))


def _check_read(processor: Any, request: Request) -> None:
    """Refuse a request that asks for what the model does not read.

    Raises:
        ValueError: if there is something.
    """
    if (request.texts or request.avoid) and not processor.reads_preference:
        raise ValueError("this model reads no preferences; leave preference and avoid out, or take another model")
    if request.history and not processor.reads_history:
        raise ValueError("this model reads no history; leave history out, or take another model")
    nothing = not request.texts and not request.avoid and not request.history
    if nothing and (processor.reads_history or processor.reads_preference):
        raise ValueError("the request is empty; pass a preference, something to avoid, or a history")


def _listed(item_ids: Iterable[str]) -> list[str]:
    if isinstance(item_ids, str):
        raise ValueError(f"{item_ids!r} is a single text; pass a list of item ids")
    return list(item_ids)


def _saved_tensors(name: str | Path, file: str, **hub: Any) -> dict[str, Tensor]:
    from transformers.utils import cached_file

    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = cached_file(name, file, **missing, **hub)
    try:
        return {} if path is None else load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{file} of {name} cannot be read ({error}); save or download it again") from error


def _checked_settings(settings: Any, name: str | Path) -> dict[str, Any]:
    """Settings as `save_pretrained` writes them.

    Raises:
        ValueError: if one is of another kind.
    """
    wrong = [] if isinstance(settings, dict) else ["settings"]
    for field, value in () if wrong else settings.items():
        number = isinstance(value, int | float)
        if not isinstance(value, KINDS_OF_SETTINGS.get(field, object)) or (number and not 0 <= value < math.inf):
            wrong.append(field)
    if wrong:
        raise ValueError(f"{RECORD_FILE} of {name}: {wrong[0]} is not what mender writes; save the recommender again")
    return settings
