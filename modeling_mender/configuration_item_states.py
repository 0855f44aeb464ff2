"""Configuration of an encoder that reads a preference but looks a history up (see `item_states`)."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

__all__ = ["ItemStatesConfig", "encoder_config"]


class ItemStatesConfig(PreTrainedConfig):
    """Shape of an `ItemStatesEncoder`.

    Args:
        text_encoder: configuration of the encoder of preferences and titles, or its dictionary (with `model_type`).
        text_vocabulary: token ids below this are text; id `text_vocabulary + s` is the s-th row of the state table.
        num_states: rows M of the state table, over all items.
        pooled: whether every text is one vector (the mean of its states) or one state per token.
        max_history: items whose place in the history is told apart, the latest counted first; older ones share the
            last place. 0 leaves the order out.

    Raises:
        ValueError: if a size is negative, the text encoder has no padding token to tell text from padding, or
            transformers itself has no such encoder.
    """

    model_type = "mender_item_states"
    sub_configs = {"text_encoder": AutoConfig}

    def __init__(
        self,
        text_encoder: PreTrainedConfig | dict[str, Any] | None = None,
        text_vocabulary: int = 1,
        num_states: int = 1,
        pooled: bool = False,
        max_history: int = 20,
        **kwargs: Any,
    ) -> None:
        text_encoder = encoder_config({} if text_encoder is None else text_encoder, default="bert")
        if min(text_vocabulary, num_states) < 1 or max_history < 0:
            raise ValueError(
                f"text_vocabulary={text_vocabulary}, num_states={num_states}, max_history={max_history}; "
                "the first two must be positive, the last not negative"
            )
        if getattr(text_encoder, "pad_token_id", None) is None:
            raise ValueError(f"{type(text_encoder).__name__} has no pad_token_id; set it to tell text from padding")
        # The base class would take the attention implementation from sub-configurations that are there already.
        super().__init__(**kwargs)
        self.text_encoder = text_encoder
        self.text_vocabulary = text_vocabulary
        self.num_states = num_states
        self.pooled = pooled
        self.max_history = max_history

    @property
    def hidden_size(self) -> int:
        """Width of the states."""
        return self.text_encoder.hidden_size


def encoder_config(config: PreTrainedConfig | dict[str, Any], default: str) -> PreTrainedConfig:
    """Configuration of a text encoder, one that can be built again from its fields.

    Args:
        config: the configuration, or its dictionary.
        default: `model_type` of a dictionary that has none.

    Raises:
        ValueError: if transformers does not have the encoder; its code was then loaded from a repository.
    """
    fields = dict(config) if isinstance(config, dict) else None
    kind = config.model_type if fields is None else fields.pop("model_type", default)
    known = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else None
    if known is None or (fields is None and not isinstance(config, known)):
        raise ValueError(
            f"transformers has no such encoder of model_type {kind!r}: its code came with trust_remote_code=True, and "
            "a model saved with it could not be loaded; take an encoder that transformers has, or register this one "
            "(AutoConfig.register, AutoModel.register) before models with it are made and loaded"
        )
    return config if fields is None else known(**fields)
