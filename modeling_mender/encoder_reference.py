"""A frozen text encoder that is saved by reference: name and commit on the Hub and the digest of its weights.

A small recommender with a sentence encoder is a few megabytes beside the encoder's hundred. With
`save_pretrained(folder, encoder="reference")` the encoder's weights are left out. `from_pretrained` finds them in a
folder that the caller names, in the Hub's cache, in a place that was registered for the name, or on the Hub, in this
order. Only weights with the same SHA-256 are used, and code of the repository never runs.

Weights of the same type as the file are mapped from it, not read: several models share the memory of one encoder, and
what one of them changes or moves is its own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import cached_file

from .configuration_mender import public_name

__all__ = [
    "ENCODER_FOLDER",
    "encoder_weights",
    "encoders_with_tables",
    "find_weights",
    "reference_of",
    "register_encoder",
    "same_weights",
]

WEIGHTS = "model.safetensors"
COMMIT = re.compile(r"[/\\]snapshots[/\\]([0-9a-f]{40})(?:[/\\]|$)")
ENCODER_FOLDER: ContextVar[str | os.PathLike | None] = ContextVar("encoder_folder", default=None)
"""The folder that the caller of `from_pretrained` named."""
_registered: dict[str, Callable[[], str | os.PathLike | None]] = {}
_digests: dict[tuple[str, int, int, int], str] = {}


def register_encoder(name: str, find: Callable[[], str | os.PathLike | None]) -> None:
    """Name a place of an encoder's weights besides the Hub, for instance an installed package.

    Args:
        name: of the encoder on the Hub.
        find: gives the folder with `model.safetensors`, or `None` if it is not there.
    """
    _registered[name] = find


def encoders_with_tables(model: nn.Module) -> list[tuple[str, Any]]:
    """Every `ItemStatesEncoder` in a model, with the prefix of its text encoder's weights.

    Compared by attribute, because code loaded from a folder has its own copy of the class.
    """
    return [
        (f"{path}.text_encoder.".lstrip("."), module)
        for path, module in model.named_modules()
        if isinstance(module, PreTrainedModel) and hasattr(module, "text_encoder") and hasattr(module, "item_states")
    ]


def reference_of(encoder: PreTrainedModel, known: Mapping[str, str | None] | None = None) -> dict[str, str | None]:
    """The reference to a text encoder that has been neither trained nor changed.

    Args:
        encoder: the text encoder.
        known: the reference it was loaded by.

    Returns:
        `{"name": ..., "commit": ..., "sha256": ...}`; the commit is `None` if the place of the weights does not say it.

    Raises:
        ValueError: if the encoder has no public name, or its weights are not those of that name.
    """
    path = str(getattr(encoder.config, "_name_or_path", "") or "")
    own = public_name(path)
    names = dict.fromkeys([*([known["name"]] if known else []), *([own] if own else []), *_registered])
    found = []
    for name in names:
        commit = COMMIT.search(path) if name == own else None
        given = known if known and known["name"] == name else {"commit": commit and commit[1], "sha256": None}
        # A name that was only registered is a guess: it is tried without the Hub.
        file = find_weights(name, given["commit"], given["sha256"], local=name not in (own, (known or {}).get("name")))
        if isinstance(file, Path):
            if same_weights(encoder, file):
                commit = given["commit"] or ((place := COMMIT.search(str(file))) and place[1])
                return {"name": name, "commit": commit, "sha256": _digest(file)}
            found.append(name)
    if found:
        raise ValueError(
            f"the encoder cannot be saved by reference: its weights are not those of {found[0]}, because it was "
            "trained or changed; save it with encoder='copy'"
        )
    reason = f"the weights of {own} cannot be found to compare them" if own else "it has no name on the Hub"
    raise ValueError(f"the encoder cannot be saved by reference: {reason}; save it with encoder='copy'")


def find_weights(
    name: str, commit: str | None, sha256: str | None, *, local: bool = False, hub: Mapping[str, Any] | None = None
) -> Path | str:
    """The file with an encoder's weights, or the reason why there is none.

    Args:
        name: on the Hub.
        commit: on the Hub; `None`: the latest.
        sha256: of the file; `None`: any.
        local: whether to do without the network.
        hub: `cache_dir`, `token` and `local_files_only`, as for `from_pretrained`.
    """
    hub = {key: value for key, value in (hub or {}).items() if key in ("cache_dir", "token", "local_files_only")}
    named = ENCODER_FOLDER.get()
    cache = {**hub, "local_files_only": True}
    places: list[Callable[[], Any]] = [] if named is None else [lambda: named]
    # The cache may have the file under another commit only.
    places += [partial(_on_hub, name, revision, cache) for revision in dict.fromkeys((commit, None))]
    places.append(_registered.get(name, lambda: None))
    if not local and not hub.get("local_files_only"):
        places.append(partial(_on_hub, name, commit, hub))
    reason = "it is neither in the Hub's cache nor on the Hub as far as it can be reached"
    for place in places:
        try:
            folder = place()
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            continue
        file = None if folder is None else Path(folder) / WEIGHTS
        if file is None or not file.is_file():
            continue
        if sha256 is None or _digest(file) == sha256:
            return file
        reason = f"{WEIGHTS} has sha256 {_digest(file)} there, and the model was saved with {sha256}"
        if place is places[0] and named is not None:
            break
    return reason


def _on_hub(name: str, commit: str | None, hub: Mapping[str, Any]) -> Path | None:
    optional = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file = cached_file(name, WEIGHTS, revision=commit, **optional, **hub)
    return None if file is None else Path(file).parent


def encoder_weights(encoder: PreTrainedModel, file: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights of a text encoder, by name as in its `state_dict()`, on the CPU.

    Args:
        encoder: a model of that shape, whose own weights do not matter.
        file: see `find_weights`.
        dtype: type of the weights.
    """
    arguments = {"config": encoder.config, "dtype": dtype, "local_files_only": True, "use_safetensors": True}
    loaded = type(encoder).from_pretrained(str(file.parent), **arguments)
    weights = loaded.state_dict()
    return {name: weights[name] for name in encoder.state_dict()}


def same_weights(encoder: PreTrainedModel, file: Path) -> bool:
    """Whether an encoder has the weights of a file, in its own type."""
    own = encoder.state_dict()
    if any(tensor.device.type == "meta" for tensor in own.values()):
        return False
    try:
        weights = encoder_weights(encoder, file, encoder.dtype)
    except (OSError, ValueError, RuntimeError, KeyError):
        return False
    return all(torch.equal(tensor.cpu(), weights[name].to(tensor.dtype)) for name, tensor in own.items())


def _digest(file: Path) -> str:
    """SHA-256 of a file, computed once as long as it does not change."""
    real = os.path.realpath(file)
    found = os.stat(real)
    key = (real, found.st_ino, found.st_size, found.st_mtime_ns)
    if key not in _digests:
        digest = hashlib.sha256()
        with open(real, "rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
        _digests[key] = digest.hexdigest()
    return _digests[key]
