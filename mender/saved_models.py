"""Saved models, from a folder or the Hub, with the processor that was saved beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor
from transformers.utils import logging

import modeling_mender  # noqa: F401 - registers the classes
from mender.errors import UserError

__all__ = ["load_saved"]


def load_saved(name: str | Path, device: str | None = None) -> tuple[Any, Any]:
    """A model with `recommend`, and its processor.

    Args:
        name: folder that `save_pretrained` wrote, or name on the Hub.
        device: as torch names it; default: the accelerator if there is one.

    Raises:
        UserError: if there is no such model, or it is no recommender of this library.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            if (folder / "model" / "config.json").is_file():
                raise UserError(f"{name} is a run, its model is {folder / 'model'}; pass that")
            if (folder / "adapter_config.json").is_file():
                raise UserError(f"{name} holds an adapter alone; merge it with merge_and_unload() and save the model")
            raise UserError(f"{name} holds no saved model (config.json is missing); train one with `mender train`")
    elif str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise UserError(f"there is no folder {str(name)!r}; pass a folder that `mender train` wrote or a Hub name")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of weights read from a disk; downloads show their own
    try:
        model = AutoModel.from_pretrained(name)
        processor = AutoProcessor.from_pretrained(name)
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot load {name}: {' '.join(str(error).split())}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if not hasattr(model, "recommend") or not hasattr(processor, "decode_items"):
        raise UserError(f"{name} holds a {type(model).__name__}, which cannot recommend; train one with `mender train`")
    return model, processor
