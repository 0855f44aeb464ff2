"""Refuses saved weights that do not fit a model: missing, of another shape or type, not finite, out of range.

transformers warns about weights that a file lacks and draws random ones, and casts item codes that are not integers. A
recommender with a random head answers every request, so such files are refused here, in one line. Headers are compared
with the configuration before anything is allocated. A text encoder that was saved by reference gets its weights here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from .encoder_reference import (
    ENCODER_FOLDER,
    encoder_weights,
    encoders_with_tables,
    find_weights,
    reference_of,
    same_weights,
)

__all__ = ["ChecksWeights", "check_range", "is_finite"]

FLOATS = ("F64", "F32", "F16", "BF16")
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of tensors by their names in safetensors files."""


class ChecksWeights:
    """Mixin for models that refuses saved weights that do not fit, and saves text encoders by reference.

    Must come before `PreTrainedModel` in the bases.

    Modules whose tables hold indices have a method `check_values`, which raises a `ValueError` if one is out of range.
    """

    def post_init(self) -> None:
        """Finish the construction of a model, see `PreTrainedModel.post_init`."""
        super().post_init()
        # transformers looks at direct children only; the encoder of experts is further down.
        self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=True)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        encoder_folder: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a saved model, see `PreTrainedModel.from_pretrained`.

        Args:
            pretrained_model_name_or_path: folder, or name on the Hub.
            *args: as there.
            encoder_folder: folder with the weights of the text encoder, if that was saved by reference. Default: the
                Hub's cache, a registered place, or the Hub.
            **kwargs: as there.

        Raises:
            OSError: if a file of weights cannot be read, or the text encoder is not found.
            ValueError: if the weights are not those of the configuration, are not finite, or refer to items that do
                not exist.
        """
        named = ENCODER_FOLDER.set(encoder_folder)
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"the weights of {pretrained_model_name_or_path} cannot be read ({error}); the file is damaged or "
                "incomplete, save or download it again"
            ) from error
        finally:
            ENCODER_FOLDER.reset(named)

    def save_pretrained(
        self, save_directory: str | os.PathLike, *args: Any, encoder: str | None = None, **kwargs: Any
    ) -> Any:
        """Save a model, see `PreTrainedModel.save_pretrained`.

        Args:
            save_directory: folder.
            *args: as there.
            encoder: "copy" saves the weights of the text encoder with the model. "reference" saves its name on the Hub
                and the digest of its weights instead, for an `ItemStatesEncoder` whose text encoder was never trained.
                Default: as the model was loaded, or "copy" if the text encoder was changed.
            **kwargs: as there.

        Raises:
            ValueError: if the text encoder cannot be saved by reference.
        """
        if encoder not in (None, "copy", "reference"):
            raise ValueError(f'encoder={encoder!r}; pass "copy" or "reference"')
        parts = encoders_with_tables(self)
        if encoder == "reference" and not parts:
            raise ValueError(
                f"{type(self).__name__} has no frozen text encoder with a table of items, which alone can be saved by "
                "reference; save it with encoder='copy'"
            )
        before = [part.config.reference for _, part in parts]
        ignored = self._keys_to_ignore_on_save
        references = [None if encoder == "copy" else _reference(part, encoder) for _, part in parts]
        try:
            self._keys_to_ignore_on_save = set(ignored or ())
            for (prefix, part), reference in zip(parts, references, strict=True):
                part.config.reference = reference
                if reference is not None:
                    self._keys_to_ignore_on_save |= {prefix + name for name in part.text_encoder.state_dict()}
            return super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self._keys_to_ignore_on_save = ignored
            for (_, part), reference in zip(parts, before, strict=True):
                part.config.reference = reference

    @staticmethod
    def _load_pretrained_model(
        model: PreTrainedModel,
        state_dict: Any,
        checkpoint_files: list[str] | None,
        load_config: Any,
        expected_keys: list[str] | None = None,
    ) -> Any:
        """Load weights into a model that has no storage yet (on the "meta" device), or an adapter into a model.

        Raises:
            ValueError: if the weights do not fit the model.
        """
        load = PreTrainedModel._load_pretrained_model
        if expected_keys is not None:  # those of an adapter
            return load(model, state_dict, checkpoint_files, load_config, expected_keys)
        name = load_config.pretrained_model_name_or_path
        referring = [(prefix, part) for prefix, part in encoders_with_tables(model) if part.config.reference]
        files = [file for file in checkpoint_files or () if file.endswith(".safetensors")]
        if files and not load_config.is_quantized:
            saved = _headers(files)
            _check_types(name, model, saved)
            if not load_config.ignore_mismatched_sizes:
                _check_total(model, saved, tuple(prefix for prefix, _ in referring))
            _keep_types_of_tables(model, saved)
        info, *rest = load(model, state_dict, checkpoint_files, load_config, expected_keys)
        for prefix, part in referring:
            _fill_in(prefix, part, model, info, load_config)
        _check_complete(name, model, info, load_config.ignore_mismatched_sizes)
        _check_finite(name, model)
        for module in model.modules():
            if hasattr(module, "check_values"):
                module.check_values()
        return info, *rest


def _headers(files: Sequence[str]) -> dict[str, tuple[list[int], str]]:
    """Shape and type of every tensor in safetensors files."""
    saved = {}
    for file in files:
        with safe_open(file, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
            saved |= {name: (one.get_shape(), one.get_dtype()) for name, one in slices.items()}
    return saved


def _check_types(name: str, model: nn.Module, saved: Mapping[str, tuple[list[int], str]]) -> None:
    """Check that integers were saved as integers of the same size, and numbers with a fraction as such."""
    for key, tensor in model.state_dict().items():
        found = saved.get(key, ((), ""))[1]
        fits = found in FLOATS or found.startswith("F8") if tensor.is_floating_point() else DTYPES.get(found)
        if found and fits not in (True, tensor.dtype):
            expected = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{key} in the weights of {name} has type {found}, expected {expected}; save it as that")


def _check_total(
    model: PreTrainedModel, saved: Mapping[str, tuple[list[int], str]], elsewhere: tuple[str, ...] = ()
) -> None:
    """Check that the configuration does not describe more weights than there are, but for prefixes `elsewhere`."""
    # Totals are compared, because transformers renames, splits and joins the weights of some encoders.
    tied = model.all_tied_weights_keys
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(elsewhere or ("\0",))}
    expected = {name: list(tensor.shape) for name, tensor in own.items() if name not in tied}
    shapes = {name: shape for name, (shape, _) in saved.items()}
    total, available = (sum(map(math.prod, every.values())) for every in (expected, shapes))
    if total > available:
        name = next((name for name, shape in expected.items() if shapes.get(name) != shape), "")
        raise ValueError(
            f"the configuration describes {total:,} weights, but the saved files contain {available:,} (the first "
            f"difference is {name}, {expected.get(name)} instead of {shapes.get(name, 'nothing')}); use the "
            "config.json that was saved with these weights"
        )


def _keep_types_of_tables(model: PreTrainedModel, saved: Mapping[str, tuple[list[int], str]]) -> None:
    """Let tables (buffers) keep the type that they were saved with; the type of the model is that of its parameters.

    Item vectors are saved in half precision; in single precision the file of a loaded model would differ from the one
    it was loaded from, and in half precision counts of purchases would overflow.
    """
    for path, module in model.named_modules():
        for name, table in module.named_buffers(recurse=False):
            dtype = DTYPES.get(saved.get(f"{path}.{name}".lstrip("."), ((), ""))[1])
            if dtype is not None and table.is_floating_point():
                module._buffers[name] = table.to(dtype)


def _reference(part: Any, encoder: str | None) -> dict[str, str | None] | None:
    """The reference to save a text encoder by; `None` if it is to be copied."""
    known = part.config.reference
    if encoder == "reference":
        return reference_of(part.text_encoder, known)
    if known is None:
        return None
    file = find_weights(known["name"], known["commit"], known["sha256"], local=True)
    return known if isinstance(file, Path) and same_weights(part.text_encoder, file) else None


def _fill_in(prefix: str, part: Any, model: PreTrainedModel, info: Any, load_config: Any) -> None:
    """Give a text encoder that was saved by reference its weights."""
    missing = {key for key in info.missing_keys if key.startswith(prefix)}
    if not missing:
        return
    name, commit, sha256 = (part.config.reference[field] for field in ("name", "commit", "sha256"))
    devices = {key: _device_of(key, load_config.device_map) for key in missing}
    if load_config.is_quantized or "disk" in devices.values():
        raise ValueError(
            f"the text encoder {name} was saved by reference, and can be neither quantised nor kept on disk; load the "
            "model without that, save it with encoder='copy', and load it again"
        )
    file = find_weights(name, commit, sha256, hub=getattr(load_config, "download_kwargs", None))
    if isinstance(file, str):
        raise OSError(
            f"{load_config.pretrained_model_name_or_path} refers to the text encoder {name}, which is not found: "
            f"{file}; connect to the Hub, or pass encoder_folder with a folder that holds its weights"
        )
    _check_total(part.text_encoder, _headers([str(file)]))
    weights = encoder_weights(part.text_encoder, file, load_config.dtype or torch.get_default_dtype())
    for key in missing:
        path, _, last = key.rpartition(".")
        tensor, module = weights[key.removeprefix(prefix)].to(devices[key]), model.get_submodule(path)
        if last in module._parameters:
            tensor = nn.Parameter(tensor, requires_grad=False)
        tensor._is_hf_initialized = True  # otherwise transformers would draw random weights
        setattr(module, last, tensor)
    info.missing_keys -= missing


def _device_of(key: str, device_map: Mapping[str, Any] | None) -> Any:
    """The device of a weight: that of the longest module in the map that it belongs to."""
    modules = [name for name in device_map or () if not name or key == name or key.startswith(f"{name}.")]
    return device_map[max(modules, key=len)] if modules else "cpu"


def _check_complete(name: str, model: PreTrainedModel, info: Any, ignore_mismatched_sizes: bool) -> None:
    """Check that every weight of a model was in the files, and with the right shape."""
    ignored = re.compile("|".join(f"({one})" for one in model._keys_to_ignore_on_load_missing or ()) or "$^")
    missing = sorted(
        key for key in info.missing_keys if key not in model.all_tied_weights_keys and not ignored.search(key)
    )
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ValueError(
            f"the weights of {name} lack {missing[0]}{others}; the file is incomplete, or config.json is that of "
            "another model: save or download both again"
        )
    if info.mismatched_keys and not ignore_mismatched_sizes:
        key, found, expected = min(info.mismatched_keys)
        raise ValueError(
            f"{key} in the weights of {name} has shape {tuple(found)}, and config.json describes {tuple(expected)}; "
            "use the config.json that was saved with these weights"
        )


def _check_finite(name: str, model: nn.Module) -> None:
    """Check that weights are numbers."""
    for key, tensor in model.state_dict().items():
        if not is_finite(tensor):
            raise ValueError(
                f"{key} in the weights of {name} has values that are not finite; the training that made them diverged, "
                "or the file is damaged: train again, or save or download it again"
            )


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinite values. Tensors without storage, and of 8 bits, are not read."""
    if tensor.device.type == "meta" or not tensor.is_floating_point() or tensor.element_size() < 2:
        return True
    # A sum is not finite if a value is not; it needs no memory, and is wrong only if it overflows.
    wide = torch.float32 if tensor.element_size() == 2 else tensor.dtype
    return bool(tensor.sum(dtype=wide).isfinite()) or bool(tensor.isfinite().all())


def check_range(name: str, indices: Tensor, least: int, end: int) -> None:
    """Check that indices are at least `least` and smaller than `end`.

    Raises:
        ValueError: if one is not.
    """
    if indices.device.type == "meta" or not indices.numel():
        return
    low, high = (int(value) for value in indices.aminmax())
    if low < least or high >= end:
        wrong = low if low < least else high
        raise ValueError(f"{name} in the saved weights has index {wrong}, outside {least} to {end - 1}; save it again")
