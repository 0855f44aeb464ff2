"""Configurations: of Mender (encoder, T5 decoder, semantic IDs) and of an encoder with precomputed item states.

`CarriesCode` writes into every configuration which code loads the model, so that `trust_remote_code=True` needs no
installation: `register_for_auto_class` copies the files of a model beside its weights, but names one auto class and no
pipeline. What is saved names the origin of its parts by their names on the Hub; local paths are never published.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, T5Config
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from .pipeline_mender import TASK, GenerativeRetrievalPipeline

__all__ = [
    "CarriesCode",
    "ExpertSumConfig",
    "ItemStatesConfig",
    "MenderConfig",
    "atomic_write",
    "encoder_config",
    "public_name",
]


CACHED = re.compile(r"models--(.+?)[/\\]snapshots[/\\]")
NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")


def public_name(name_or_path: str | os.PathLike | None) -> str | None:
    """Name on the Hub of a model that was loaded by that name, or from a folder of the Hub's cache; else `None`.

    >>> public_name("org/encoder"), public_name("/home/me/.cache/models--org--encoder/snapshots/0123")
    ('org/encoder', 'org/encoder')
    >>> public_name("/home/me/encoder") is None
    True
    """
    text = os.fspath(name_or_path or "")
    if cached := CACHED.search(text):
        return cached[1].replace("--", "/", 1)
    return text if NAME.fullmatch(text) and not os.path.exists(text) else None


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write to, beside the file; it replaces the file when the block ends without an error.

    Readers find the old file or the whole new one, also after a crash or with several writers.

    Args:
        path: of the file; its folder is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class CarriesCode:
    """Mixin of configurations, first in line: writes `auto_map` and `custom_pipelines`.

    Attributes:
        model_code: file and class of the model, "modeling_x.ModelX".
        auto_classes: auto classes that load it.
    """

    model_code = ""
    auto_classes = ("AutoModel",)

    def to_dict(self) -> dict[str, Any]:
        """All fields, with the names of the code that loads the model."""
        module = type(self).__module__.rpartition(".")[2]
        code = {"AutoConfig": f"{module}.{type(self).__name__}", **dict.fromkeys(self.auto_classes, self.model_code)}
        # Names of a model from the Hub refer to its repository ("org/name--file.Class"); a saved one has its own files.
        set_by_hand = getattr(self, "auto_map", None) or {}
        code.update({auto: name for auto, name in set_by_hand.items() if "--" not in name})
        pipeline = {"impl": f"pipeline_mender.{GenerativeRetrievalPipeline.__name__}", "pt": ["AutoModel"]}
        return {**_without_paths(super().to_dict()), "auto_map": code, "custom_pipelines": {TASK: pipeline}}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A configuration from its fields.

        Installed code drops `custom_pipelines`: its own pipeline is registered, and transformers would ask to trust
        that of the repository.
        """
        if not cls.__module__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}."):
            config_dict = {name: value for name, value in config_dict.items() if name != "custom_pipelines"}
        return super().from_dict(config_dict, **kwargs)


def _without_paths(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields in which the origin of sub-configurations is a name on the Hub or left out, never a local path."""
    parts = {name: _without_paths(value) for name, value in fields.items() if isinstance(value, dict)}
    for part in parts.values():
        if "_name_or_path" in part:
            part["_name_or_path"] = public_name(part["_name_or_path"]) or ""
    return {**fields, **parts}


class ItemStatesConfig(PreTrainedConfig):
    """Shape of an `ItemStatesEncoder`.

    Args:
        text_encoder: configuration of the encoder of preferences and titles, or its dictionary (with `model_type`).
        width: of the items' vectors, for the expert "learned".
        reader_width: hidden units of that expert.
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


KINDS = ("stated", "inferred", "silent")
"""Kinds of request: somebody typed a preference, it was written from earlier reviews, or there is a history alone."""
BEHAVIOUR = ("popularity", "co_purchase", "transitions")
LANGUAGE = ("dense", "learned", "lexical", "history_text")
EXPERTS = (*BEHAVIOUR, *LANGUAGE)
GENERATOR = "generator"
"""Name of the generator's log-probabilities among the weights of experts."""


class ExpertSumConfig(PreTrainedConfig):
    """Experts and their weights, see `experts.ExpertSum`.

    Args:
        num_items: N.
        experts: which of `EXPERTS` there are.
        num_neighbours: entries kept of each row of an item-item matrix.
        num_postings: entries of the lexical index.
        width: of the items' vectors, for the expert "learned".
        reader_width: hidden units of that expert.
        text_vocabulary: token ids below this are text; id `text_vocabulary + i` is item i of the history.
        padding: token id that pads texts.
        encoder: an `ItemStatesConfig` with `pooled=True` and no order, or its dictionary: the experts' own text encoder
            and vectors of items. Without one, they are those of the model around the experts.
        generator: whether the log-probabilities of a generator are summed as well.
        weights: by kind of request, the weight of each expert (and of "generator"); 1 where nothing is said.
        avoid: weight of what speaks for a phrase that is to be avoided, see `experts.ExpertSum.penalty`.

    Raises:
        ValueError: if an expert or a kind is unknown, or a weight is not a finite number.
    """

    model_type = "mender_expert_sum"
    sub_configs = {"encoder": ItemStatesConfig}

    def __init__(
        self,
        num_items: int = 1,
        experts: Sequence[str] = ("popularity",),
        num_neighbours: int = 200,
        num_postings: int = 0,
        width: int = 384,
        reader_width: int = 1024,
        text_vocabulary: int = 1,
        padding: int = 0,
        encoder: ItemStatesConfig | dict[str, Any] | None = None,
        generator: bool = False,
        weights: Mapping[str, Mapping[str, float]] | None = None,
        avoid: float = 1.0,
        **kwargs: Any,
    ) -> None:
        unknown = [name for name in experts if name not in EXPERTS]
        if unknown or not experts:
            shown = repr(unknown[0]) if unknown else "an empty list"
            raise ValueError(f"experts: {shown} is not known; pass some of {', '.join(EXPERTS)}")
        if isinstance(encoder, dict):
            encoder = ItemStatesConfig(**{"pooled": True, "max_history": 0, **encoder})
        if encoder is not None:
            text_vocabulary, padding = encoder.text_vocabulary, encoder.text_encoder.pad_token_id
            width = encoder.hidden_size
        super().__init__(**kwargs)
        self.num_items, self.experts = num_items, list(experts)
        self.num_neighbours, self.num_postings = num_neighbours, num_postings
        self.width, self.reader_width = width, reader_width
        self.text_vocabulary, self.padding = text_vocabulary, padding
        self.encoder, self.generator = encoder, generator
        self.set_weights(weights or {}, avoid)

    @property
    def weighted(self) -> list[str]:
        """Names of all that is summed, the generator last."""
        return [*self.experts, *([GENERATOR] if self.generator else [])]

    def set_weights(self, weights: Mapping[str, Mapping[str, float]], avoid: float | None = None) -> None:
        """Replace the weights; 1 where nothing is said.

        Args:
            weights: by kind of request and expert.
            avoid: of what is to be avoided; default: as before.

        Raises:
            ValueError: if a kind or an expert is unknown, or a weight is not a finite number.
        """
        for kind, own in weights.items():
            if kind not in KINDS:
                raise ValueError(f"kind {kind!r} of a request is not known; pass one of {', '.join(KINDS)}")
            for name, value in own.items():
                if name not in self.weighted:
                    known = ", ".join(self.weighted)
                    raise ValueError(f"weights[{kind!r}]: there is no expert {name!r}; this model has {known}")
                if not _is_finite(value):
                    raise ValueError(f"weights[{kind!r}][{name!r}]={value!r}; pass a finite number")
        avoid = self.avoid if avoid is None else avoid
        if not _is_finite(avoid) or avoid < 0:
            raise ValueError(f"avoid={avoid!r}; pass a finite number of at least 0")
        self.avoid = float(avoid)
        self.weights = {
            kind: {name: float(weights.get(kind, {}).get(name, 1.0)) for name in self.weighted} for kind in KINDS
        }


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


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
        kinds: whether the decoder is told the kind of a request (one of `KINDS`), by a learned state of its own.
        experts: an `ExpertSumConfig`, or its dictionary: what is added to the generator's scores.

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
    sub_configs = {"encoder": AutoConfig, "decoder": T5Config, "experts": ExpertSumConfig}
    is_encoder_decoder = True

    def __init__(
        self,
        encoder: PreTrainedConfig | dict[str, Any] | None = None,
        decoder: T5Config | dict[str, Any] | None = None,
        codebook_sizes: Sequence[int] = (256, 256, 256, 256),
        num_items: int = 1,
        kinds: bool = False,
        experts: ExpertSumConfig | dict[str, Any] | None = None,
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
        self.kinds = kinds
        self.experts = ExpertSumConfig(**{**experts, "generator": True}) if isinstance(experts, dict) else experts
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
