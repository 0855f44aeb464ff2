"""Refuses saved weights that do not fit a model: missing, of another shape or type, not finite, out of range.

transformers warns about weights that a file lacks and draws random ones, and casts item codes that are not integers. A
recommender with a random head answers every request, so such files are refused here, in one line. Headers are compared
with the configuration before anything is allocated.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

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
    """Mixin for models that refuses saved weights that do not fit. Must come before `PreTrainedModel` in the bases.

    Modules whose tables hold indices have a method `check_values`, which raises a `ValueError` if one is out of range.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """Load a saved model, see `PreTrainedModel.from_pretrained`.

        Raises:
            OSError: if a file of weights cannot be read.
            ValueError: if the weights are not those of the configuration, are not finite, or refer to items that do
                not exist.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"the weights of {pretrained_model_name_or_path} cannot be read ({error}); the file is damaged or "
                "incomplete, save or download it again"
            ) from error

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
        files = [file for file in checkpoint_files or () if file.endswith(".safetensors")]
        if files and not load_config.is_quantized:
            saved = _headers(files)
            _check_types(name, model, saved)
            if not load_config.ignore_mismatched_sizes:
                _check_total(model, saved)
            _keep_types_of_tables(model, saved)
        info, *rest = load(model, state_dict, checkpoint_files, load_config, expected_keys)
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


def _check_total(model: PreTrainedModel, saved: Mapping[str, tuple[list[int], str]]) -> None:
    """Check that the configuration does not describe more weights than there are."""
    # Totals are compared, because transformers renames, splits and joins the weights of some encoders.
    tied = model.all_tied_weights_keys
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
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
