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

from .atomic_files import write_text
from .card_facts import CARD_FILE, encoder_config, encoder_license, published_card, weights_digest
from .card_file import CardFile
from .card_results import Evaluation
from .card_sections import card_sections
from .card_text import as_list, is_template, is_untouched, recorded_weights
from .configuration_mender import public_name
from .pipeline_mender import TASK
from .steering_examples import SteeringExample

__all__ = ["CarriesCard", "card_name", "write_card"]

TAGS = ["mender", TASK, "sequential-recommendation", "recommender-systems", "preference-discerning"]
PLACEHOLDER = "path/to/this/folder"


def write_card(
    folder: str | os.PathLike,
    model: Any,
    *,
    results: str | os.PathLike | Mapping[str, Any] | Evaluation | None = None,
    method: str | None = None,
    steering: Sequence[SteeringExample] = (),
    training: str | None = None,
    model_name: str | None = None,
    repo_id: str | None = None,
    overwrite: bool = False,
    defaults: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> Path:
    """Write or update the card of a saved model.

    Args:
        folder: where the model is saved.
        model: the model.
        results: what was measured with these weights: `five_axes.json`, or its content.
        method: which method of the results the model is; default: the one they name, else the first.
        steering: lists to show, see `steer`.
        training: Markdown about the training, where the caller knows more than the results say.
        model_name: for the heading; default: the repository's, else the folder's.
        repo_id: name of the repository on the Hub, for the snippets.
        overwrite: whether to replace a card that somebody wrote by hand, or sections of it that somebody edited.
        defaults: fields of the metadata that the caller knows better than the model: they take the place of what is
            generated, not of what people wrote in the card.
        **metadata: fields of `huggingface_hub.ModelCardData`, such as `license`, `base_model`, `datasets`, `language`;
            they win over what the card says already, which wins over what is generated. `tags` are added.

    Returns:
        The path of the card. A card that nothing of this library wrote stays as it is, with a warning.

    Raises:
        ValueError: if the results are none, or a field of the metadata is not as the Hub wants it.
    """
    if results is not None and not isinstance(results, Evaluation):
        results = Evaluation.read(results, method)
    card = CardFile.open(folder, overwrite)
    if card is None:
        return Path(folder) / CARD_FILE
    name = model_name or card_name(folder, repo_id)
    weights = card.weights(bool(results or steering or training))
    encoder = public_name(getattr(encoder_config(model), "_name_or_path", None))
    generated = {
        "license": encoder_license(model, online=repo_id is not None),
        "library_name": "transformers",
        "pipeline_tag": TASK,
        "base_model": encoder,
        "tags": [*TAGS, *as_list(metadata.pop("tags", None))],
    }
    for field, value in (defaults or {}).items():
        if value is not None:
            if card.metadata.get(field) == generated.get(field):  # written by a plain save
                card.metadata.pop(field, None)
            generated[field] = value
    base = metadata.get("base_model") or card.metadata.get("base_model") or generated["base_model"]
    dataset = next(iter(as_list(metadata.get("datasets"))), None)
    return card.save(
        card_sections(
            model,
            name,
            repo_id or PLACEHOLDER,
            base if isinstance(base, str) else None,
            results,
            steering,
            training,
            weights,
        ),
        weights,
        {key: value for key, value in generated.items() if value is not None},
        metadata,
        [] if results is None else results.eval_results(dataset),
        name,
    )


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
            measured = recorded_weights(origin or "")
            if measured and weights_digest(folder) in measured:
                write_text(path, origin)
        write_card(folder, self, repo_id=repo_id)


def card_name(folder: str | os.PathLike, repo_id: str | None = None) -> str:
    """What to call a model: by its repository, else by its folder, or the one above a folder called "model"."""
    if repo_id:
        return repo_id.rpartition("/")[2]
    folder = Path(folder).resolve()
    return folder.parent.name if folder.name in ("model", "adapter") else folder.name
