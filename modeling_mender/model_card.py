"""The card of a model, written wherever it is saved: README.md with metadata that the Hub reads, and text for people.

A plain save says what the model knows about itself; `write_card` adds what was measured. Figures belong to the weights
they were measured with: they are kept, and travel with the model, as long as these are the same. What people wrote or
changed in a card stays (see `card_text`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers.utils import logging

from .atomic_files import write_text
from .card_facts import CARD_FILE, encoder_config, encoder_license, published_card, weights_digest
from .card_results import Evaluation
from .card_sections import card_sections
from .card_text import (
    is_generated,
    is_template,
    is_untouched,
    merged_metadata,
    merged_text,
    recorded_weights,
    split_card,
)
from .hub_names import public_name
from .pipeline_mender import TASK
from .steering_examples import SteeringExample

__all__ = ["CarriesCard", "write_card"]

TAGS = ["mender", TASK, "sequential-recommendation", "recommender-systems", "preference-discerning"]
PLACEHOLDER = "path/to/this/folder"

logger = logging.get_logger(__name__)


def write_card(
    folder: str | os.PathLike,
    model: Any,
    *,
    results: str | os.PathLike | Mapping[str, Any] | Evaluation | None = None,
    method: str | None = None,
    steering: Sequence[SteeringExample] = (),
    repo_id: str | None = None,
    overwrite: bool = False,
    training: str | None = None,
    **metadata: Any,
) -> Path:
    """Write or update the card of a saved model.

    Args:
        folder: where the model is saved.
        model: the model.
        results: what was measured with these weights: `five_axes.json`, or its content.
        method: which method of the results the model is; default: the one they name, else the first.
        steering: lists to show, see `steer`.
        repo_id: name of the repository on the Hub, for heading and snippets; default: the folder's name.
        overwrite: whether to replace a card that somebody wrote by hand, or sections of it that somebody edited.
        training: Markdown about the training, where the caller knows more than the results say.
        **metadata: fields of `huggingface_hub.ModelCardData`, such as `license`, `base_model`, `datasets`, `language`;
            they win over what the card says already, which wins over what is generated.

    Returns:
        The path of the card. A card that nothing of this library wrote stays as it is, with a warning.

    Raises:
        ValueError: if the results are none, or a field of the metadata is not as the Hub wants it.
    """
    path = Path(folder) / CARD_FILE
    existing = path.read_text("utf-8") if path.is_file() else None
    if existing is not None and (overwrite or is_template(existing)):
        existing = None
    if results is not None and not isinstance(results, Evaluation):
        results = Evaluation.read(results, method)
    try:
        before, body = split_card(existing) if existing is not None else ({}, None)
        if existing is not None and not is_generated(existing):
            raise ValueError("it is written by hand")
        ModelCardData(**before)
    except ValueError as error:
        logger.warning(f"{path} is left as it is ({error}); pass overwrite=True to write_card to replace it")
        return path
    measured = results is not None or steering or training
    recorded = set() if existing is None else recorded_weights(existing)
    weights = weights_digest(folder) if measured or recorded else None
    name = _name(folder, repo_id)
    sections = card_sections(model, name, repo_id or PLACEHOLDER, results, steering, training, weights)
    generated, given = _metadata(model, online=repo_id is not None), dict(metadata)
    if results is not None or (recorded and weights not in recorded):
        before = _without_figures(before)
    data = ModelCardData(**merged_metadata(before, generated, given))
    if results is not None:
        dataset = given["datasets"][0] if given.get("datasets") else None
        data.model_name = data.model_name or name
        data.eval_results = [*results.eval_results(dataset), *(data.eval_results or [])]
    text = f"---\n{data.to_yaml()}\n---\n\n{merged_text(body, sections, weights).lstrip()}"
    write_text(path, text)
    return path


class CarriesCard:
    """Mixin of models, first in line: a card is written wherever the model is saved or uploaded."""

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """`PreTrainedModel.save_pretrained`, and the model's card, README.md, beside the weights.

        Args:
            save_directory: the folder, made where it does not exist.
            *args: as for every model.
            **kwargs: as for every model.
        """
        path = Path(save_directory) / CARD_FILE
        # An upload within puts the Hub's card in the place of the folder's.
        self._card_of_folder = path.read_text("utf-8") if path.is_file() else None
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True) and not kwargs.get("push_to_hub"):
            self._update_card(save_directory)
        self._card_of_folder = None

    def _upload_modified_files(self, working_dir: str | os.PathLike, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """The last step of every upload in transformers; it finds the Hub's card in the folder, or an empty form."""
        path, local = Path(working_dir) / CARD_FILE, getattr(self, "_card_of_folder", None)
        online = path.read_text("utf-8") if path.is_file() else ""
        if local is not None and (not online or is_template(online) or is_untouched(online)):
            write_text(path, local)
        self._update_card(working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def _update_card(self, folder: str | os.PathLike, repo_id: str | None = None) -> None:
        path = Path(folder) / CARD_FILE
        if not path.is_file() or is_template(path.read_text("utf-8")):
            # What was loaded and is saved elsewhere keeps its card while its weights are the same.
            origin = published_card(self.config._name_or_path, online=repo_id is not None)
            if origin is not None and weights_digest(folder) in recorded_weights(origin):
                write_text(path, origin)
        write_card(folder, self, repo_id=repo_id)


def _metadata(model: Any, online: bool) -> dict[str, Any]:
    """What the model says about itself, for the Hub."""
    base = public_name(getattr(encoder_config(model), "_name_or_path", None))
    found = {
        "license": encoder_license(model, online),
        "library_name": "transformers",
        "pipeline_tag": TASK,
        "base_model": base,
        "tags": list(TAGS),
    }
    return {name: value for name, value in found.items() if value is not None}


def _without_figures(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without results that were written here: they speak of other weights."""
    kept = []
    for model in metadata.get("model-index") or []:
        results = [result for result in model["results"] if result["task"]["type"] != TASK]
        if results:
            kept.append({**model, "results": results})
    rest = {name: value for name, value in metadata.items() if name != "model-index"}
    return rest | ({"model-index": kept} if kept else {})


def _name(folder: str | os.PathLike, repo_id: str | None) -> str:
    """What to call the model: by its repository, else by its folder, unless that is called "model"."""
    if repo_id:
        return repo_id.rpartition("/")[2]
    folder = Path(folder).resolve()
    return folder.parent.name if folder.name in ("model", "") else folder.name
