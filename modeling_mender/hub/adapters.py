"""Adapters of a model: saved and uploaded with a card and the name of the base model on the Hub.

An adapter is small and holds no item table: base model and processor stay where they are, or are saved first. peft
writes an empty form as the card, and records the path that the base model was loaded from: on another machine nothing
is there, and a local path is never published.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import validate_repo_id
from markupsafe import Markup
from peft import get_peft_model_state_dict
from peft.utils import CONFIG_NAME

from ..configuration_mender import atomic_write, public_name
from .card import CARD_FILE, TAGS, as_list, card_name, push_card, update_card
from .results import code_span

__all__ = ["base_name", "keeping_card", "required_base", "save_adapter", "write_adapter_card"]


def save_adapter(
    model: Any, folder: str | os.PathLike, *, push_to_hub: bool = False, repo_id: str | None = None, **card: Any
) -> Path:
    """Save the adapter of a model and its card.

    Args:
        model: what `add_lora` or `PeftModel.from_pretrained` returned.
        folder: where to save; created where it does not exist.
        push_to_hub: whether to upload the folder as well; peft's own `push_to_hub` would upload an empty card and the
            local path of the base model.
        repo_id: name of the repository; default: the folder's.
        **card: as for `write_adapter_card`.

    Returns:
        The folder.

    Raises:
        ValueError: if it is to be uploaded and nothing says what the base model is called on the Hub.
    """
    folder = Path(folder)
    if push_to_hub:
        required_base(model, card.get("base_model"), *(() if card.get("overwrite") else (folder,)))
        repo_id = HfApi().create_repo(repo_id or folder.resolve().name, exist_ok=True).repo_id
    with keeping_card(folder):
        model.save_pretrained(str(folder))
    write_adapter_card(folder, model, repo_id=repo_id, **card)
    if push_to_hub:
        HfApi().upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Upload adapter", allow_patterns=["adapter_*"]
        )
        push_card(folder, repo_id)
    return folder


@contextmanager
def keeping_card(folder: str | os.PathLike) -> Iterator[None]:
    """Restores the card of a folder afterwards: peft writes an empty form, or local paths into an existing card."""
    path = Path(folder) / CARD_FILE
    before = path.read_text("utf-8") if path.is_file() else None
    yield
    if before is None:
        path.unlink(missing_ok=True)
    else:
        with atomic_write(path) as unfinished:
            unfinished.write_text(before, "utf-8")


def write_adapter_card(
    folder: str | os.PathLike,
    model: Any,
    *,
    base_model: str | None = None,
    model_name: str | None = None,
    repo_id: str | None = None,
    overwrite: bool = False,
    **card: Any,
) -> Path:
    """Write or update the card of a saved adapter.

    Where the name of the base model on the Hub is known, it replaces the local path in the adapter's configuration too;
    otherwise the path stays, and the adapter loads on this machine.

    Args:
        folder: where the adapter is saved.
        model: the adapted model.
        base_model: name of the base model on the Hub; default: what the card says, else the name it was loaded by.
        model_name: for the heading; default: the repository's name, else the folder's.
        repo_id: name of the adapter's repository, for the snippets.
        overwrite: whether to replace a card that was written by hand, and all edits.
        **card: `results`, `method`, `training`, `new_weights` and fields of the metadata, as for `write_card`.

    Returns:
        The path of the card. A card that was written by hand stays as it is, with a warning.
    """
    base = base_model or base_name(model, *(() if overwrite else (folder,)))
    if base:
        _record_base(folder, model, base)
    adapter, origin = model.peft_config[model.active_adapter], _loaded_by(model)
    facts = {"base model": card_name(origin) if origin else "unknown", **_adapter_facts(model, adapter)}
    content = {
        "adapter": True,
        "name": model_name or card_name(folder, repo_id),
        "place": repo_id or "path/to/this/folder",
        "facts": facts,
    }
    options = {name: card.pop(name) for name in ("results", "method", "training", "new_weights") if name in card}
    # If the card has several names, the adapter may use any of them.
    given = {**card, "base_model": None if base_model in _named_bases(folder) else base_model}
    generated = {"library_name": "peft", "base_model": base, "tags": [*TAGS, adapter.peft_type.value.lower()]}
    return update_card(folder, content, generated=generated, given=given, overwrite=overwrite, **options)


def base_name(model: Any, *folders: str | os.PathLike) -> str | None:
    """The name of the base model on the Hub, if it is known.

    Args:
        model: a `PeftModel`.
        *folders: whose cards are asked first, in order: people correct names there.

    Returns:
        What a card says, else what the base model was loaded by; `None` where that is a folder.
    """
    named = (name for folder in folders for name in _named_bases(folder))
    return next(named, None) or public_name(_loaded_by(model))


def required_base(model: Any, base: str | None, *folders: str | os.PathLike) -> str:
    """The name of the base model on the Hub, which an adapter needs before it is uploaded.

    Args:
        model: a `PeftModel`.
        base: name that the caller gives, if any.
        *folders: as for `base_name`.

    Raises:
        ValueError: if no name is known, or the one given is not valid (`HFValidationError`).
    """
    name = base or base_name(model, *folders)
    if name is None:
        path = _loaded_by(model)
        origin = f"was loaded from {path!r}" if path else "was not loaded by a name"
        raise ValueError(
            f"the base model of this adapter {origin}, where others cannot load it; upload the base model and pass "
            'base_model="org/name" (to push_to_hub of a Trainer: finetuned_from="org/name"), or name it in the card '
            'before training: write_adapter_card(folder, model, base_model="org/name")'
        )
    validate_repo_id(name)
    return name


def _loaded_by(model: Any) -> str:
    """Name or path that the base model was loaded from; empty if it was not loaded."""
    return model.peft_config[model.active_adapter].base_model_name_or_path or ""


def _named_bases(folder: str | os.PathLike) -> list[str]:
    """The base models in the card of a folder."""
    path = Path(folder) / CARD_FILE
    try:
        return as_list(ModelCard.load(path).data.base_model) if path.is_file() else []
    except (ValueError, yaml.YAMLError):  # a broken card; `write_adapter_card` warns about it
        return []


def _record_base(folder: str | os.PathLike, model: Any, base: str) -> None:
    """Write the name of the base model into the configuration of every adapter in a folder and its subfolders."""
    for path in (Path(folder) / CONFIG_NAME, *(Path(folder) / name / CONFIG_NAME for name in model.peft_config)):
        fields = json.loads(path.read_text("utf-8")) if path.is_file() else None
        if fields and fields.get("base_model_name_or_path") != base:
            fields["base_model_name_or_path"] = base
            with atomic_write(path) as unfinished:
                unfinished.write_text(json.dumps(fields, indent=2, sort_keys=True), "utf-8")


def _adapter_facts(model: Any, adapter: Any) -> dict[str, Any]:
    """Kind and size of an adapter, from the settings that its kind has."""
    settings = {
        "rank": getattr(adapter, "r", None),
        "alpha": getattr(adapter, "lora_alpha", getattr(adapter, "alpha", None)),
        "dropout": getattr(adapter, "lora_dropout", None),
        "virtual tokens": getattr(adapter, "num_virtual_tokens", None),
    }
    known = [f"{name} {value}" for name, value in settings.items() if value is not None]
    facts: dict[str, Any] = {"kind": ", ".join([adapter.peft_type.value, *known])}
    if targets := getattr(adapter, "target_modules", None):
        targets = targets if isinstance(targets, str) else ", ".join(sorted(targets))
        facts["adapted modules"] = code_span(targets)
    if hasattr(adapter, "modules_to_save"):
        facts["saved whole"] = Markup(", ".join(map(code_span, adapter.modules_to_save or [])) or "none")
    size = sum(value.numel() for value in get_peft_model_state_dict(model).values())
    return {**facts, "size": f"{size:,} parameters"}
