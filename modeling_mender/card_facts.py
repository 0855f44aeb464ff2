"""What a model knows about itself, for its card: method, shape, base encoder and that encoder's licence."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from .card_text import split_card

__all__ = ["encoder_config", "encoder_license", "facts", "method_of", "published_card", "weights_digest"]

CARD_FILE = "README.md"
METHODS = {
    "mender": (
        "Mender: a language encoder reads a preference and a history, a small T5 decoder writes the semantic ID of the "
        "next item, and a prefix tree over the catalogue sees to it that every answer exists"
    ),
    "mender_sasrec": "SASRec: self-attention over the items of a history; it does not read preferences",
    "mender_popularity": "Popularity: the items most bought in training, the same for everybody",
    "mender_text_retrieval": "Text retrieval: the items nearest to what was said and bought, without training",
}


def method_of(model: Any) -> str:
    """A sentence on how the model works."""
    return METHODS.get(model.config.model_type, type(model).__name__)


def encoder_config(model: Any) -> Any | None:
    """Configuration of the language encoder, that of the texts where item states are cached; `None` without one."""
    encoder = getattr(model.config, "encoder", None)
    return getattr(encoder, "text_encoder", encoder)


def facts(model: Any, base: str | None = None) -> dict[str, str]:
    """Shape and size, by name.

    Args:
        model: the model.
        base: name on the Hub of what it was made from: an encoder, or another recommender.
    """
    config, encoder = model.config, encoder_config(model)
    found = {"base model": f"[{base}](https://huggingface.co/{base})"} if base else {}
    if encoder is not None:
        found["encoder"] = f"{encoder.model_type}, {encoder.num_hidden_layers} layers, width {encoder.hidden_size}"
    decoder = getattr(config, "decoder", None)
    if decoder is not None:
        found["decoder"] = f"T5, {decoder.num_layers} layers, width {decoder.d_model}"
    sizes = getattr(config, "codebook_sizes", None)
    if sizes:
        found["semantic IDs"] = f"{len(sizes)} levels of {', '.join(map(str, sizes))} codes"
    if items := getattr(config, "num_items", None):
        found["catalogue"] = f"{items:,} items"
    found["parameters"] = f"{model.num_parameters():,}"
    return found


def published_card(name_or_path: str | os.PathLike | None, online: bool = False) -> str | None:
    """The card in a folder, or of a repository on the Hub; `None` where there is none to be had.

    Args:
        name_or_path: a folder or a name on the Hub.
        online: whether to ask the Hub for it, or to look in its cache only.
    """
    if not name_or_path:
        return None
    if os.path.isdir(name_or_path):
        path = Path(name_or_path) / CARD_FILE
        return path.read_text("utf-8") if path.is_file() else None
    quiet = dict.fromkeys(
        (f"_raise_exceptions_for_{kind}" for kind in ("gated_repo", "missing_entries", "connection_errors")), False
    )
    try:
        found = cached_file(str(name_or_path), CARD_FILE, local_files_only=not online, **quiet)
    except (OSError, ValueError):  # no repository of that name, or no name at all
        return None
    return Path(found).read_text("utf-8") if found else None


def encoder_license(model: Any, online: bool = False) -> str | None:
    """The licence that the card of the base encoder names; `None` where that is not known."""
    encoder = encoder_config(model)
    card = published_card(getattr(encoder, "_name_or_path", None), online)
    if card is None:
        return None
    try:
        found = split_card(card)[0].get("license")
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def weights_digest(folder: str | os.PathLike) -> str | None:
    """SHA-256 of a model's weights, or an adapter's; for one file the digest that the Hub shows beside it.

    Args:
        folder: where the model is saved; `None` is returned where it holds no weights.
    """
    digests = []
    files = sorted(Path(folder).glob("model*.safetensors")) or sorted(Path(folder).glob("adapter_model*.safetensors"))
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        digests.append(digest.hexdigest())
    if len(digests) < 2:
        return digests[0] if digests else None
    return hashlib.sha256("".join(digests).encode()).hexdigest()
