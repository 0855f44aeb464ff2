"""Loads saved models and their processors from a folder or the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

import modeling_mender  # noqa: F401 - registers the classes
from mender.model_folder import check_folder, load_whole, recover
from mender.packaged import model_place, packaged_models
from mender.terminal import UserError
from modeling_mender.encoder_reference import register_encoder
from preference_benchmark.embedding import HUB_NAME, packaged_encoder

__all__ = ["load_saved"]

logger = logging.get_logger(__name__)

# A model with this encoder may have been saved without its weights.
register_encoder(HUB_NAME, packaged_encoder)


def load_saved(
    name: str | Path, device: str | None = None, dtype: str | torch.dtype | None = None, **hub: Any
) -> tuple[Any, Any]:
    """A model with `recommend`, and its processor. Code from a repository is never run.

    Args:
        name: folder that `save_pretrained` wrote, name on the Hub, or that of a packaged model.
        device: a torch device; default: the accelerator if there is one.
        dtype: type of the weights, such as "bfloat16"; tables of items keep theirs. Default: as saved.
        **hub: `revision`, `token` and the like, for a name on the Hub.

    Raises:
        UserError: if the type is unknown, there is no such model, it is not a recommender of this library, or its
            files are damaged or do not belong together.
    """
    recover(name)
    name = model_place(name)
    _check_place(name)
    logger.info("loading the model %s", name)
    with _quiet_loading():
        try:
            model, processor = load_whole(name, lambda: _load(name, **hub))
        except UserError:
            raise
        # Damaged files raise whatever the libraries that read them raise; each of them means the same here.
        except Exception as error:
            kind = "" if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__}: "
            raise UserError(f"{name} cannot be loaded: {kind}{' '.join(str(error).split())}") from error
    if dtype is not None:
        _set_type(model, dtype)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), processor


def _set_type(model: torch.nn.Module, dtype: str | torch.dtype) -> None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f'dtype={dtype!r} is not a floating-point type; pass "float32", "bfloat16" or "float16"')
    for weight in model.parameters():
        weight.data = weight.data.to(found)


def _load(name: str | Path, **hub: Any) -> tuple[Any, Any]:
    config = PreTrainedConfig.get_config_dict(name, **hub)[0]
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UserError(
            f"{name} cannot be loaded: its config.json has model_type={model_type!r}, which is unknown here; "
            "pass a model that `mender train` wrote"
        )
    # Other files of weights are pickles.
    model = AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True, **hub)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False, **hub)
    if not hasattr(model, "recommend") or not hasattr(processor, "decode_items"):
        raise UserError(f"{name} holds a {type(model).__name__}, which cannot recommend; train one with `mender train`")
    check_folder(name, model, processor, **hub)
    return model, processor


def _check_place(name: str | Path) -> None:
    folder = Path(name)
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return
        if (folder / "model" / "config.json").is_file():
            raise UserError(f"{name} is a run; pass its model, {folder / 'model'}")
        if (folder / "adapter_config.json").is_file():
            raise UserError(f"{name} holds an adapter alone; merge it with merge_and_unload() and save the model")
        hidden = f", or run this elsewhere for the packaged {name}" if str(name) in packaged_models() else ""
        raise UserError(f"{name} holds no saved model (config.json is missing); train one with `mender train`{hidden}")
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise UserError(
            f"there is no folder {str(name)!r}; pass a folder that `mender train` wrote, a Hub name, or one of the "
            f"packaged models: {', '.join(packaged_models())}"
        )


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """No progress bars for weights that are read from a disk; downloads show their own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
