"""LoRA on the encoder, with everything that is new trained in full.

Adapters alone would leave decoder, projection and head at their random start, a known trap of this field; they are
listed in `modules_to_save` (Hu et al. 2021, arXiv:2106.09685; the peft library does the work).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

try:  # a saved model carries this file, and loading it must not demand peft
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model
except ImportError:
    LoraConfig = PeftModel = TaskType = get_peft_model = None

__all__ = ["add_lora", "lora_config"]

ATTENTION_NAMES = (
    ("query", "key", "value", "attention.output.dense"),
    ("q", "k", "v", "o"),
    ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("Wqkv", "Wo"),
)
"""Names of attention projections, one group per family: BERT, T5, LLaMA / BART, DistilBERT, ModernBERT."""


def lora_config(
    model: PreTrainedModel,
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.0,
    new_tokens: Sequence[int] = (),
    **kwargs: Any,
) -> LoraConfig:
    """A `LoraConfig` for a Mender: adapters on the encoder's attention, all new parts trained in full.

    Args:
        model: a `MenderForGenerativeRetrieval`.
        rank: rank of the adapters.
        alpha: scale of the adapters; they act with alpha / rank.
        dropout: dropout before the adapters.
        new_tokens: token ids whose embeddings are new and are trained in full (`add_code_tokens`).
        **kwargs: other fields of `peft.LoraConfig`.

    Raises:
        ValueError: if no known attention projection is found in the encoder.
        ImportError: if peft is not installed.
    """
    if LoraConfig is None:
        raise ImportError("LoRA needs the peft library; install it with `pip install peft`")
    targets = attention_modules(model.encoder)
    new_parts = ["decoder", "lm_head"]
    if isinstance(model.encoder_proj, nn.Linear):
        new_parts.append("encoder_proj")
    if getattr(model.encoder, "order", None) is not None:
        new_parts.append("encoder.order")
    pattern = r"encoder\..*\.(" + "|".join(name.replace(".", r"\.") for name in targets) + ")"
    settings: dict[str, Any] = {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": pattern,
        "modules_to_save": new_parts,
        "task_type": TaskType.SEQ_2_SEQ_LM,
    }
    if len(new_tokens):
        settings["trainable_token_indices"] = {_embedding_name(model): list(new_tokens)}
    return LoraConfig(**{**settings, **kwargs})


def add_lora(model: PreTrainedModel, **kwargs: Any) -> PeftModel:
    """The model wrapped by peft, ready to train; `merge_and_unload()` gives a plain model back.

    Args:
        model: a `MenderForGenerativeRetrieval`.
        **kwargs: as for `lora_config`.
    """
    return get_peft_model(model, lora_config(model, **kwargs))


def _embedding_name(model: PreTrainedModel) -> str:
    """Full name of the module through which the encoder looks its tokens up.

    T5 holds one embedding under two names and reads the inner one, which comes last.
    """
    embedding = model.encoder.get_input_embeddings()
    modules = model.encoder.named_modules(prefix="encoder", remove_duplicate=False)
    return [name for name, module in modules if module is embedding][-1]


def attention_modules(encoder: nn.Module) -> list[str]:
    """Names under which the encoder's layers hold their attention projections."""
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    for names in ATTENTION_NAMES:
        found = [name for name in names if any(module.endswith("." + name) for module in linear)]
        if len(found) >= 2:
            return found
    raise ValueError(
        f"no known attention projections in {type(encoder).__name__}; its linear layers are named like "
        f"{linear[:3]}. Pass target_modules= with the names to adapt"
    )
