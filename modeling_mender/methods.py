"""From a preset to a model and its processor: every method of the comparison, built from the same parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, T5Config, T5EncoderModel

from .catalogue import SemanticIdCatalogue
from .code_tokens import add_code_tokens, first_code_token
from .codebook_embeddings import init_from_codebooks
from .configuration_item_states import ItemStatesConfig
from .item_states import ItemStatesEncoder, encode_titles, text_encoder_class
from .lora import add_lora
from .modeling_baselines import (
    PopularityConfig,
    PopularityRecommender,
    TextRetrievalConfig,
    TextRetrievalRecommender,
)
from .modeling_mender import MenderForGenerativeRetrieval
from .modeling_sasrec import SasRecConfig, SasRecForSequentialRecommendation
from .presets import Preset
from .processing_mender import MenderProcessor
from .scratch_tokenizer import code_only_tokenizer, word_tokenizer

__all__ = ["Method", "build_method"]


@dataclass
class Method:
    """A method, ready to be trained.

    Attributes:
        preset: what it is.
        model: a model with `recommend`; around a Mender with LoRA, a `peft.PeftModel`.
        processor: renders its inputs.
    """

    preset: Preset
    model: Any
    processor: MenderProcessor

    @property
    def parameters(self) -> dict[str, int]:
        """Number of parameters, and of those that are trained."""
        parameters = list(self.model.parameters())
        return {
            "parameters": sum(parameter.numel() for parameter in parameters),
            "trained": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        }

    def plain_model(self) -> PreTrainedModel:
        """The model with its adapters merged in: what is saved and served."""
        return self.model.merge_and_unload() if hasattr(self.model, "merge_and_unload") else self.model


def build_method(
    preset: Preset,
    items: Mapping[str, Sequence[str]],
    *,
    encoder: str | None = None,
    catalogue: SemanticIdCatalogue | None = None,
    codebooks: Sequence[Tensor] | Tensor | None = None,
    texts: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Method:
    """Model and processor of a preset.

    Args:
        preset: see `load_preset`.
        items: `{"item_id": [...], "title": [...]}` and, for presets with `item_text: text`, `"text"`.
        encoder: name or folder of a text encoder; not needed by presets whose encoder starts from scratch.
        catalogue: semantic IDs of the items; not needed by presets that write no codes.
        codebooks: centroids of the quantizer, for presets with `codebook_embeddings`.
        texts: what a tokenizer of its own is trained on, for presets with a `vocabulary`; titles are added.
        device: where titles are encoded, for presets that keep item states; the model itself is made on the CPU.

    Raises:
        ValueError: if something is missing that the preset needs.
    """
    for name, needed, given in (
        ("encoder", preset.encoder == "pretrained", encoder),
        ("catalogue", preset.model == "mender", catalogue),
        ("codebooks", preset.codebook_embeddings, codebooks),
    ):
        if needed and given is None:
            raise ValueError(f"preset {preset.name} needs {name}=; pass it to build_method")
    tokenizer = _tokenizer(preset, encoder, [*items["title"], *texts])
    text_encoder = _text_encoder(preset, encoder, tokenizer)
    codes: dict[str, Any] = {}
    if preset.history == "codes":
        add_code_tokens(tokenizer, catalogue.codebook_sizes, text_encoder)
        codes = {"codes": catalogue.codes.tolist()}
    processor = MenderProcessor(
        tokenizer,
        {"item_id": items["item_id"], "title": items["title"], **codes},
        max_length=preset.max_length,
        history=preset.history,
        preference=preset.preference,
        max_history=preset.max_history,
        title_length=preset.title_length,
        codebook_sizes=catalogue.codebook_sizes if codes else None,
    )
    if preset.model == "sasrec":
        shape = {"num_items": len(items["item_id"]), "max_history": preset.max_history, **preset.encoder_shape}
        return Method(preset, SasRecForSequentialRecommendation(SasRecConfig(**shape)), processor)
    if preset.model == "popularity":
        return Method(preset, PopularityRecommender(PopularityConfig(len(items["item_id"]))), processor)
    text_encoder.requires_grad_(preset.encoder_training == "full")
    if preset.history in ("states", "vectors"):
        text_encoder = _with_item_states(preset, text_encoder, processor, items, device)
    if preset.model == "text-retrieval":
        model = TextRetrievalRecommender(TextRetrievalConfig(text_encoder.config), text_encoder)
        return Method(preset, model.eval(), processor)
    model = MenderForGenerativeRetrieval.from_encoder(text_encoder, catalogue, decoder=dict(preset.decoder))
    if preset.codebook_embeddings:
        init_from_codebooks(model.decoder.embed_tokens, codebooks, catalogue.codebook_sizes)
    new: list[int] = []
    if codes:
        first = first_code_token(tokenizer, catalogue.codebook_sizes)
        new = list(range(first, first + sum(catalogue.codebook_sizes)))
        if preset.codebook_embeddings:
            words = text_encoder.get_input_embeddings()
            like = words.weight[:first] if preset.encoder == "pretrained" else None
            init_from_codebooks(words, codebooks, catalogue.codebook_sizes, first, like)
    if preset.encoder_training == "lora":
        model = add_lora(model, new_tokens=new, **preset.lora)
    return Method(preset, model, processor)


def _tokenizer(preset: Preset, encoder: str | None, texts: list[str]) -> Any:
    if preset.encoder == "pretrained":
        return AutoTokenizer.from_pretrained(encoder)
    return word_tokenizer(texts, preset.vocabulary) if preset.vocabulary else code_only_tokenizer()


def _text_encoder(preset: Preset, encoder: str | None, tokenizer: Any) -> PreTrainedModel | None:
    if preset.encoder == "pretrained":
        config = AutoConfig.from_pretrained(encoder)
        return text_encoder_class(config).from_pretrained(encoder)
    if preset.encoder == "scratch":
        shape = {"is_encoder_decoder": False, **preset.encoder_shape}
        return T5EncoderModel(
            T5Config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, eos_token_id=None, **shape)
        )
    return None


def _with_item_states(
    preset: Preset,
    text_encoder: PreTrainedModel,
    processor: MenderProcessor,
    items: Mapping[str, Sequence[str]],
    device: torch.device | str,
) -> ItemStatesEncoder:
    """The text encoder with the table of all items' states."""
    before, after = processor.margins
    inputs, pooled = processor.title_inputs(), preset.history == "vectors"
    if pooled and preset.item_text == "text":
        if "text" not in items:
            raise ValueError(f'preset {preset.name} needs items["text"]; pass it, or item_text="title"')
        inputs = processor.tokenizer(list(items["text"]), truncation=True, max_length=256, verbose=False)["input_ids"]
    text_encoder.to(device)
    states, first = encode_titles(text_encoder, inputs, pooled=pooled, inner=(len(before), len(after)))
    text_encoder.to("cpu")
    config = ItemStatesConfig(
        text_encoder=text_encoder.config,
        text_vocabulary=len(processor.tokenizer),
        num_states=len(states),
        pooled=pooled,
        max_history=preset.max_history if preset.model == "mender" else 0,
    )
    encoder = ItemStatesEncoder(config, text_encoder)
    encoder.set_item_states(states, first)
    return encoder
