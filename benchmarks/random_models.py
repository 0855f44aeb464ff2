"""Models of realistic shape with random item tables, and inputs for them, for the benchmarks to time.

Encoders are MiniLM, with its own weights, or T5 from scratch; catalogues are as large as the paper's. No time depends
on the values.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, T5Config, T5EncoderModel

from modeling_mender import MenderConfig, MenderForGenerativeRetrieval, SemanticIdCatalogue, add_lora
from modeling_mender.configuration_mender import EXPERTS, ExpertSumConfig, ItemStatesConfig
from modeling_mender.item_states import ItemStatesEncoder
from modeling_mender.language_experts import Role
from modeling_mender.training.closed_form import bm25_index, fill_lexical
from preference_benchmark.embedding import default_encoder

__all__ = [
    "CODES",
    "HISTORY",
    "ITEMS",
    "PREFERENCE",
    "TITLE",
    "catalogue",
    "encoder",
    "item_state_inputs",
    "mender",
    "random_labels",
    "with_experts",
    "with_item_states",
]

ITEMS, HISTORY, TITLE, PREFERENCE = 12_000, 20, 12, 14
"""Items of a catalogue and of a history, and tokens of a title and of a preference."""

CODES = [256, 256, 256, 32]
WORDS = 4000
"""Words in the vocabulary of an encoder from scratch, in addition to the codes."""


def catalogue() -> SemanticIdCatalogue:
    """Random distinct codes of the size of the paper's catalogues."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randperm(256**3, generator=generator)[:ITEMS]
    codes = torch.stack([keys // 256**2, keys // 256 % 256, keys % 256, torch.zeros_like(keys)], dim=1)
    return SemanticIdCatalogue(codes, CODES)


def encoder(training: str, words: int = 1) -> Any:
    """MiniLM, frozen or not; or a T5 encoder from scratch over words and codes, as large as the paper's decoder."""
    if training == "scratch":
        shape = MenderConfig().decoder
        names = ("d_model", "d_ff", "d_kv", "num_layers", "num_heads", "dropout_rate")
        own = {name: getattr(shape, name) for name in names}
        return T5EncoderModel(T5Config(vocab_size=words + sum(CODES), is_encoder_decoder=False, **own))
    model = AutoModel.from_pretrained(default_encoder().path)
    return model.requires_grad_(training == "full")


def mender(training: str, decoder: dict[str, int] | None = None, new_tokens: bool = False, text: Any = None) -> Any:
    """Mender over an encoder, with the paper's decoder or another; perhaps with words and codes in one vocabulary."""
    text = text or encoder(training, WORDS if new_tokens else 1)
    words = text.config.vocab_size
    if new_tokens and training != "scratch":
        text.resize_token_embeddings(words + sum(CODES), mean_resizing=False)
    model = MenderForGenerativeRetrieval.from_encoder(text, catalogue(), decoder=decoder)
    if training != "lora":
        return model
    return add_lora(model, new_tokens=range(words, words + sum(CODES)) if new_tokens else ())


def with_item_states(pooled: bool, decoder: dict[str, int] | None = None) -> Any:
    """Mender over a table of precomputed item states."""
    text = encoder("frozen")
    rows = ITEMS * (1 if pooled else TITLE)
    config = ItemStatesConfig(text.config, text.config.vocab_size, rows, pooled=pooled, max_history=HISTORY)
    own = ItemStatesEncoder(config, text)
    first = torch.arange(rows) % (1 if pooled else TITLE) == 0
    own.set_item_states(torch.randn(rows, text.config.hidden_size, dtype=torch.float16), first)
    return MenderForGenerativeRetrieval.from_encoder(own, catalogue(), decoder=decoder)


def with_experts(model: Any) -> Any:
    """The same Mender over item vectors with every expert beside its generator, as full as on real data."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.encoder.config.text_vocabulary
    # Some 60 distinct words a text, a few of them in very many texts.
    lists = (torch.rand(ITEMS, 60, generator=generator) ** 2 * vocabulary).long()
    # One token in five continues a word, as in real vocabularies.
    roles = torch.where(torch.arange(vocabulary) % 5 == 0, Role.CONTINUES, Role.BEGINS).to(torch.uint8)
    index = bm25_index([ids.unique().tolist() for ids in lists], vocabulary, roles)
    sizes = {"num_postings": len(index[1]), "num_words": len(index[-1]), "text_vocabulary": vocabulary}
    model.set_experts(ExpertSumConfig(ITEMS, EXPERTS, **sizes, padding=0, generator=True))
    fill_lexical(model.experts.lexical, index, roles)
    model.experts.popularity.counts.copy_(torch.randint(0, 99, (ITEMS,), generator=generator))
    for expert in (model.experts.co_purchase, model.experts.transitions):
        expert.neighbours.copy_(torch.randint(ITEMS, expert.neighbours.shape, generator=generator))
        expert.strengths.copy_(torch.rand(expert.strengths.shape, generator=generator))
    return model


def item_state_inputs(model: Any, batch: int, cached: bool = True) -> dict[str, torch.Tensor]:
    """A preference and 20 items as rows of the state table, perhaps with the preference's states from a cache."""
    own = model.encoder.config
    per_item = 1 if own.pooled else TITLE
    items = torch.randint(ITEMS, (batch, HISTORY, 1)) * per_item + torch.arange(per_item)
    text = torch.randint(1000, 30_000, (batch, PREFERENCE))
    inputs = torch.cat([text, own.text_vocabulary + items.flatten(1)], dim=1)
    mask = torch.ones_like(inputs)
    if own.pooled:
        mask[:, 1:PREFERENCE] = 0
    found = {"input_ids": inputs, "attention_mask": mask}
    if cached:
        found["text_states"] = torch.randn(batch, PREFERENCE, own.hidden_size)
    return found


def random_labels(model: Any, batch: int) -> torch.Tensor:
    """Codes of random items."""
    return model.item_tokens(torch.randint(ITEMS, (batch,)))
