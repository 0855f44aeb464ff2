"""LoRA on the encoder's attention (Hu et al. 2021, arXiv:2106.09685), with all new modules trained in full.

Adapters alone would leave decoder, projection and head at their random initialisation, so these are listed in
`modules_to_save`. The peft library does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel

__all__ = ["add_lora", "lora_config"]

ATTENTION_NAMES = (
    ("query", "key", "value", "attention.output.dense"),
    ("q", "k", "v", "o"),
    ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("Wqkv", "Wo"),
)
"""Attention projections of BERT, T5, LLaMA and BART, DistilBERT, ModernBERT."""


def lora_config(
    model: PreTrainedModel,
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.0,
    new_tokens: Sequence[int] = (),
    **kwargs: Any,
) -> LoraConfig:
    """A `LoraConfig` for a Mender: adapters on the encoder's attention, all new modules trained in full.

    Args:
        model: a `MenderForGenerativeRetrieval`.
        rank: rank of the adapters.
        alpha: the adapters are scaled by alpha / rank.
        dropout: dropout on the input of the adapters.
        new_tokens: ids of tokens added by `add_code_tokens`; their embeddings are trained in full.
        **kwargs: other fields of `peft.LoraConfig`.

    Raises:
        ValueError: if no known attention projection is found in the encoder.
    """
    new_modules = ["decoder", "lm_head"]
    if isinstance(model.encoder_proj, nn.Linear):
        new_modules.append("encoder_proj")
    if getattr(model.encoder, "order", None) is not None:
        new_modules.append("encoder.order")
    if model.kind_states is not None:
        new_modules.append("kind_states")
    settings: dict[str, Any] = {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "modules_to_save": new_modules,
        "task_type": TaskType.SEQ_2_SEQ_LM,
    }
    if "target_modules" not in kwargs:
        names = "|".join(name.replace(".", r"\.") for name in attention_modules(model.encoder))
        settings["target_modules"] = rf"encoder\..*\.({names})"
    if len(new_tokens):
        settings["trainable_token_indices"] = {_embedding_name(model): list(new_tokens)}
    return LoraConfig(**{**settings, **kwargs})


def add_lora(model: PreTrainedModel, **kwargs: Any) -> PeftModel:
    """Wrap a model with LoRA adapters, ready to train; `merge_and_unload()` returns a plain model.

    Args:
        model: a `MenderForGenerativeRetrieval`.
        **kwargs: as for `lora_config`.
    """
    return get_peft_model(model, lora_config(model, **kwargs))


def _embedding_name(model: PreTrainedModel) -> str:
    """Full name of the encoder's token embedding.

    T5 registers one embedding under two names and uses the inner one, which comes last.
    """
    embedding = model.encoder.get_input_embeddings()
    modules = model.encoder.named_modules(prefix="encoder", remove_duplicate=False)
    return [name for name, module in modules if module is embedding][-1]


def attention_modules(encoder: nn.Module) -> list[str]:
    """Names of the attention projections in the encoder's layers."""
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    for names in ATTENTION_NAMES:
        found = [name for name in names if any(module.endswith("." + name) for module in linear)]
        if len(found) >= 2:
            return found
    raise ValueError(
        f"no known attention projections in {type(encoder).__name__}; its linear layers are named like "
        f"{linear[:3]}. Pass target_modules= with the names to adapt"
    )
