"""Which base model an adapter belongs to, as its files say it: by a name that others can load, not by a local folder.

peft writes down what the base model was loaded by. On this machine that loads it again; on another one nothing is
there, and the name of the folder is nobody's business.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub.utils import validate_repo_id
from peft.utils import CONFIG_NAME

from .atomic_files import write_text
from .card_facts import CARD_FILE
from .card_text import as_list, split_card
from .configuration_mender import public_name

__all__ = ["base_name", "loaded_by", "record_base", "required_base"]


def loaded_by(model: Any) -> str:
    """Name or path that the base model of an adapted model was loaded by; empty where it was made here."""
    return model.peft_config[model.active_adapter].base_model_name_or_path or ""


def base_name(model: Any, *folders: str | os.PathLike) -> str | None:
    """Name on the Hub of an adapted model's base, as far as it is known.

    Args:
        model: a `PeftModel`.
        *folders: whose cards are asked first, in order: people correct names there.

    Returns:
        What a card says, else what the base model was loaded by; `None` where that is a folder.
    """
    for folder in folders:
        path = Path(folder) / CARD_FILE
        try:
            metadata = split_card(path.read_text("utf-8"))[0] if path.is_file() else {}
        except ValueError:  # broken by hand: whoever writes the card says so
            continue
        if said := as_list(metadata.get("base_model")):
            return said[0]
    return public_name(loaded_by(model))


def required_base(model: Any, base: str | None, *folders: str | os.PathLike) -> str:
    """The name under which others find the base model, before an adapter is uploaded.

    Args:
        model: a `PeftModel`.
        base: name that the caller gives, if any.
        *folders: as for `base_name`.

    Raises:
        ValueError: if no name is known, or the one given is none (`HFValidationError`).
    """
    name = base or base_name(model, *folders)
    if name is None:
        path = loaded_by(model)
        origin = f"was loaded from {path!r}" if path else "was never loaded by a name"
        raise ValueError(
            f"the base model of this adapter {origin}, where nobody else finds it; upload the base model and pass "
            'base_model="org/name" (to push_to_hub of a Trainer: finetuned_from="org/name"), or name it in the card '
            'before training: write_adapter_card(folder, model, base_model="org/name")'
        )
    validate_repo_id(name)
    return name


def record_base(folder: str | os.PathLike, model: Any, base: str) -> None:
    """Name the base model in the saved configuration of every adapter in a folder.

    Args:
        folder: where the adapted model is saved; adapters of other names than "default" lie in folders of theirs.
        model: the `PeftModel`.
        base: name on the Hub.
    """
    for path in (Path(folder) / CONFIG_NAME, *(Path(folder) / name / CONFIG_NAME for name in model.peft_config)):
        if not path.is_file():
            continue
        fields = json.loads(path.read_text("utf-8"))
        if fields.get("base_model_name_or_path") != base:
            fields["base_model_name_or_path"] = base
            write_text(path, json.dumps(fields, indent=2, sort_keys=True))
