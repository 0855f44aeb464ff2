"""The matrices that modules multiply by, for a search that works on weights instead of calling modules.

Adapted, quantised and offloaded layers do not multiply by the tensor called `weight`; what they return for an identity
matrix is the matrix that they multiply by. Hooks and modules of other types can do anything, so they have to be called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn
from transformers.models.t5 import modeling_t5

__all__ = [
    "T5_PARTS",
    "check_tables",
    "check_whole",
    "evaluating",
    "fingerprint",
    "float_type",
    "gain_of",
    "is_its_weight",
    "leaves_of",
    "matrix_of",
    "rows_of",
]

SHARDED = (
    "the weights of this model are sharded (FSDP), but recommend() needs whole matrices; call it inside "
    "`FullyShardedDataParallel.summon_full_params(model, writeback=False)`, after `unshard()` of every module that "
    "`fully_shard` wrapped, or on a model loaded from what was saved"
)
T5_PARTS = (
    modeling_t5.T5Stack,
    modeling_t5.T5Block,
    modeling_t5.T5LayerSelfAttention,
    modeling_t5.T5LayerCrossAttention,
    modeling_t5.T5LayerFF,
    modeling_t5.T5Attention,
    modeling_t5.T5DenseActDense,
    modeling_t5.T5DenseGatedActDense,
)


def leaves_of(stack: nn.Module, head: nn.Module, parts: Sequence[type] = T5_PARTS) -> list[nn.Module] | None:
    """The modules of a decoder that have weights.

    Args:
        stack: a `T5Stack`, possibly compiled.
        head: the layer behind it.
        parts: types of modules with known arithmetic.

    Returns:
        `None` if the decoder has hooks or modules of other types, so that only calling it gives its results.
    """
    stack = getattr(stack, "_orig_mod", stack)
    if type(stack) not in parts:
        return None
    composed, linears = [stack], [head]
    leaves = [stack.embed_tokens]
    norms = [stack.final_layer_norm]
    for block in stack.block:
        if type(block) not in parts or len(block.layer) != 3:
            return None
        own, cross, feed = block.layer
        if any(type(layer) not in parts for layer in (own, cross, feed)):
            return None
        attentions, dense = (own.SelfAttention, cross.EncDecAttention), feed.DenseReluDense
        if any(type(part) not in parts for part in (*attentions, dense)):
            return None
        composed += [block, own, cross, feed, *attentions, dense]
        linears += [getattr(attention, name) for attention in attentions for name in "qkvo"]
        linears += [getattr(dense, name) for name in ("wi", "wi_0", "wi_1", "wo") if hasattr(dense, name)]
        norms += [layer.layer_norm for layer in (own, cross, feed)]
        if own.SelfAttention.has_relative_attention_bias:
            leaves.append(own.SelfAttention.relative_attention_bias)
    known = all(hasattr(linear, "in_features") and not _has_bias(linear) for linear in linears)
    known = known and all(type(norm) is modeling_t5.T5LayerNorm or hasattr(norm, "modules_to_save") for norm in norms)
    leaves += linears + norms
    return None if not known or any(map(_is_hooked, composed + leaves)) else leaves


def _has_bias(linear: nn.Module) -> bool:
    bias = getattr(linear, "bias", None)
    return (bias() if callable(bias) and not isinstance(bias, Tensor) else bias) is not None


def _is_hooked(module: nn.Module) -> bool:
    """Whether calling a module does more than its class says, other than accelerate's moving of weights."""
    if module._forward_pre_hooks or module._forward_hooks:
        return True
    return "forward" in vars(module) and not hasattr(module, "_hf_hook")


def is_its_weight(module: nn.Module) -> bool:
    """Whether calling a linear layer, an embedding or a norm uses nothing but its weight."""
    plain = type(module) in (nn.Linear, nn.Embedding, modeling_t5.T5LayerNorm) and type(module.weight) is nn.Parameter
    hooks = module._forward_pre_hooks or module._forward_hooks or module._backward_hooks
    return plain and not hooks and "forward" not in vars(module)


def matrix_of(linear: nn.Module, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix that a linear layer without bias multiplies by.

    Args:
        linear: the layer; what adapters, quantisation and offloading make of its weight is in the result.
        shape: outputs and inputs of the layer.
        dtype: of the activations.
        device: of the activations.

    Returns:
        Shape: (out, in), float32.

    Raises:
        ValueError: if the weights are sharded.
    """
    if is_its_weight(linear):
        return _whole(linear.weight, shape)
    with evaluating(linear), torch.no_grad():
        return _whole(linear(torch.eye(shape[1], dtype=dtype, device=device)).t(), shape)


def rows_of(embedding: nn.Module, shape: tuple[int, int], device: torch.device) -> Tensor:
    """The vectors that an embedding returns, see `matrix_of`. Shape: (V, D), float32."""
    if is_its_weight(embedding):
        return _whole(embedding.weight, shape)
    with evaluating(embedding), torch.no_grad():
        return _whole(embedding(torch.arange(shape[0], device=device)), shape)


def gain_of(norm: nn.Module, width: int, eps: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The gains of T5's norm, see `matrix_of`. Shape: (D,), float32."""
    if is_its_weight(norm):
        return _whole(norm.weight, (width,))
    with evaluating(norm), torch.no_grad():
        gain = norm(torch.ones(1, width, dtype=dtype, device=device))[0]
    return _whole(gain, (width,)) * (1 + eps) ** 0.5


def _whole(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    check_whole(weight, shape)
    return weight.detach().float()


def check_whole(weight: Tensor, shape: tuple[int, ...] | None = None) -> None:
    """Check that a weight is not one shard of several.

    Args:
        weight: of any module; without a shape, a matrix.
        shape: that of the whole weight, if it is known.

    Raises:
        ValueError: if it is a shard.
    """
    whole = weight.dim() == 2 if shape is None else tuple(weight.shape) == shape
    if not whole or hasattr(weight, "full_tensor"):
        raise ValueError(SHARDED)


def parts_of(module: nn.Module) -> list[nn.Module]:
    """A module and all its parts; shared ones come several times. Faster than `modules()`, for every request."""
    found = [module]
    for part in found:
        found += [own for own in part._modules.values() if own is not None]
    return found


def check_tables(model: nn.Module) -> None:
    """Check that the item tables of a model are in memory.

    Raises:
        ValueError: if they were offloaded, as weights may be.
    """
    # Names are made only where there is something to name.
    tables = (table for module in parts_of(model) for table in module._buffers.values() if table is not None)
    if not any(table.is_meta for table in tables):
        return
    for name, table in model.named_buffers():
        if table.is_meta:
            raise ValueError(
                f"the table {name!r} of this model is offloaded, and recommend() reads it directly; offload weights "
                "alone (offload_buffers=False)"
            )


def float_type(module: nn.Module) -> torch.dtype:
    """The type of a module's activations: that of its first weight that is not stored as integers.

    >>> float_type(nn.Linear(2, 3).half())
    torch.float16
    """
    types = (weight.dtype for weight in module.parameters() if weight.is_floating_point())
    return next(types, torch.float32)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, so that nothing is dropped; every part returns to its own mode."""
    training = [part for part in parts_of(module) if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def fingerprint(weights: Iterable[Tensor]) -> Tensor:
    """A hash of values, which differs however they were changed; counters of writes miss `.data` and fused optimizers.

    Each row of 64-bit words is multiplied by random odd numbers and added up modulo 2^64. A change of one word always
    changes it, any other does with a probability of 1 - 2^-64. It reads the weights once.

    Args:
        weights: tensors of any type and shape on one device, in a fixed order.

    Returns:
        Shape: (number of rows of all tensors,), int64. On an accelerator, a single row.

    >>> weight = torch.rand(3, 4)
    >>> before = fingerprint([weight])
    >>> weight.data[1, 2] += 1e-6
    >>> torch.equal(fingerprint([weight]), before)
    False
    """
    weights = [weight.detach() for weight in weights]
    if weights[0].device.type != "cpu":  # one launch instead of several for every tensor
        weights = [torch.cat([weight.reshape(-1).view(torch.uint8) for weight in weights])]
    return torch.cat([_hash(weight) for weight in weights])


def _hash(weight: Tensor) -> Tensor:
    """A number for every row. Shape: (..., D) -> (rows,), int64."""
    rows = weight.reshape(-1, weight.shape[-1] if weight.dim() else 1).contiguous()
    if rows.storage_offset() * rows.element_size() % 8:
        rows = rows.clone()
    size = rows.shape[1] * rows.element_size()
    word = next(kind for kind in (torch.int64, torch.int32, torch.int16, torch.uint8) if size % kind.itemsize == 0)
    words = rows.view(word).long()
    factors = _factors(words.shape[1], words.device)
    return words @ factors if words.device.type == "cpu" else (words * factors).sum(-1)


@lru_cache(maxsize=16)
def _factors(count: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    with torch.inference_mode(False):
        return (torch.randint(-(2**62), 2**62, (count,), generator=generator) * 2 + 1).to(device)
