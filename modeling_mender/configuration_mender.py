"""Configuration of Mender: an encoder sub-configuration, a T5 decoder sub-configuration and the semantic-ID shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, T5Config

from .configuration_item_states import ItemStatesConfig, encoder_config
from .remote_code import CarriesCode

__all__ = ["MenderConfig"]

DECODER_DEFAULTS = {
    "d_model": 128,
    "d_ff": 1024,
    "d_kv": 64,
    "num_layers": 6,
    "num_heads": 6,
    "dropout_rate": 0.2,
    "feed_forward_proj": "relu",
}
"""The decoder of the paper (arXiv:2412.08604)."""


class MenderConfig(CarriesCode, PreTrainedConfig):
    """Shape of a `MenderForGenerativeRetrieval`.

    Args:
        encoder: configuration of the language encoder or of an `ItemStatesEncoder`, as an object or its dictionary
            (with `model_type`). Default: T5.
        decoder: configuration of the T5 decoder, or the fields in which it differs from the paper's.
        codebook_sizes: codes per level of a semantic ID, coarse to fine, the tie-breaking level last.
        num_items: rows of the item table, removed items included.

    Raises:
        ValueError: if a codebook size or the number of items is not positive, or transformers itself has no such
            encoder.

    >>> config = MenderConfig(codebook_sizes=[8, 8, 2], num_items=20)
    >>> config.decoder.vocab_size, config.decoder.d_model
    (19, 128)
    """

    model_type = "mender"
    model_code = "modeling_mender.MenderForGenerativeRetrieval"
    auto_classes = ("AutoModel", "AutoModelForSeq2SeqLM")
    sub_configs = {"encoder": AutoConfig, "decoder": T5Config}
    is_encoder_decoder = True

    def __init__(
        self,
        encoder: PreTrainedConfig | dict[str, Any] | None = None,
        decoder: T5Config | dict[str, Any] | None = None,
        codebook_sizes: Sequence[int] = (256, 256, 256, 256),
        num_items: int = 1,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        codebook_sizes = [int(size) for size in codebook_sizes]
        if not codebook_sizes or min(codebook_sizes) < 1:
            raise ValueError(f"codebook_sizes={codebook_sizes}; every level needs at least one code")
        if num_items < 1:
            raise ValueError(f"num_items={num_items}; the item table needs at least one row")
        encoder = {} if encoder is None else encoder
        kind = encoder.get("model_type") if isinstance(encoder, dict) else encoder.model_type
        # By name, not by class: code loaded from a folder brings its own copy of the class.
        if kind != ItemStatesConfig.model_type:
            encoder = encoder_config(encoder, default="t5")
        elif isinstance(encoder, dict):
            encoder = ItemStatesConfig(**{name: value for name, value in encoder.items() if name != "model_type"})
        if isinstance(decoder, PreTrainedConfig):
            decoder = decoder.to_dict()
        decoder = {**DECODER_DEFAULTS, **(decoder or {})}
        decoder.update(
            vocab_size=1 + sum(codebook_sizes),
            is_decoder=True,
            is_encoder_decoder=True,
            use_cache=True,
            pad_token_id=0,
            eos_token_id=None,
            decoder_start_token_id=0,
        )
        kwargs["is_encoder_decoder"] = True
        super().__init__(**kwargs)
        # Set after the base class: it would take the attention implementation from sub-configurations it finds, and a
        # loaded encoder without one pays no attention to padding masks.
        self.encoder = encoder
        self.decoder = T5Config(**decoder)
        self.codebook_sizes = codebook_sizes
        self.num_items = num_items
        # And these because it fills them with defaults meant for text vocabularies.
        self.pad_token_id, self.eos_token_id, self.decoder_start_token_id = 0, None, 0
        self.tie_word_embeddings = tie_word_embeddings

    @property
    def num_levels(self) -> int:
        """L, the length of a semantic ID."""
        return len(self.codebook_sizes)

    @property
    def hidden_size(self) -> int:
        """Width of the decoder."""
        return self.decoder.d_model
