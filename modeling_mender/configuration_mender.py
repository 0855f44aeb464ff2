"""Configurations of Mender (encoder, T5 decoder, semantic IDs) and of an encoder with precomputed item states.

`CarriesCode` writes the names of the code that loads a model into its configuration, so that the model can be loaded
with `trust_remote_code=True` where this package is not installed. `register_for_auto_class` copies the code files but
registers only one auto class and no pipeline. Saved configurations name their encoder by its name on the Hub; local
paths are never published.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, T5Config
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from .pipeline_mender import TASK, GenerativeRetrievalPipeline

__all__ = [
    "CarriesCode",
    "ExpertSumConfig",
    "ItemStatesConfig",
    "MenderConfig",
    "atomic_write",
    "check_implementations",
    "check_sizes",
    "checked_removed",
    "check_whole_numbers",
    "encoder_config",
    "public_name",
    "reads_left_to_right",
]


CACHED = re.compile(r"models--(.+?)[/\\]snapshots[/\\]")
NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")


def public_name(name_or_path: str | os.PathLike | None) -> str | None:
    """The Hub name of a model that was loaded by that name or from the Hub's cache; otherwise `None`.

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
    """Gives a temporary path to write to; the temporary file replaces `path` if the block ends without an error.

    Readers see either the old file or the complete new one, even after a crash or with several writers.

    Args:
        path: path of the file; its folder is created.
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
    """Mixin for configurations that writes `auto_map` and `custom_pipelines`. Must be the first base class.

    Attributes:
        model_code: file and class of the model, "modeling_x.ModelX".
        auto_classes: auto classes that load the model.
    """

    model_code = ""
    auto_classes = ("AutoModel",)

    def to_dict(self) -> dict[str, Any]:
        """All fields, including the names of the code that loads the model."""
        module = type(self).__module__.rpartition(".")[2]
        code = {"AutoConfig": f"{module}.{type(self).__name__}", **dict.fromkeys(self.auto_classes, self.model_code)}
        # In a model from the Hub, names point to its repository ("org/name--file.Class"); a saved copy has the files.
        given = getattr(self, "auto_map", None) or {}
        code.update({auto: name for auto, name in given.items() if "--" not in name})
        pipeline = {"impl": f"pipeline_mender.{GenerativeRetrievalPipeline.__name__}", "pt": ["AutoModel"]}
        return {**_without_paths(super().to_dict()), "auto_map": code, "custom_pipelines": {TASK: pipeline}}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A configuration from its fields.

        If this package is installed, its own pipeline is registered. `custom_pipelines` is then dropped, because
        transformers would otherwise ask whether to trust the code of the repository.

        Raises:
            ValueError: if a size is too large, or a field has a wrong type or value.
        """
        if not cls.__module__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}."):
            config_dict = {name: value for name, value in config_dict.items() if name != "custom_pipelines"}
        # Before anything is made of it: some configurations make lists as long as their number of layers.
        check_sizes(config_dict)
        check_implementations(config_dict)
        try:
            return super().from_dict(config_dict, **kwargs)
        except (StrictDataclassError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"the configuration of {cls.model_type} has a field of the wrong type "
                f"({' '.join(str(error).split())}); use the config.json that was saved with the model"
            ) from error


def _without_paths(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with local paths removed from the `_name_or_path` of sub-configurations."""
    parts = {name: _without_paths(value) for name, value in fields.items() if isinstance(value, dict)}
    for part in parts.values():
        if "_name_or_path" in part:
            part["_name_or_path"] = public_name(part["_name_or_path"]) or ""
    return {**fields, **parts}


SIZE_LIMITS = (
    (re.compile(r"layers?$"), 1_000),
    (re.compile(r"^d_|_d$|heads$|_dim$|hidden_size$|intermediate_size$"), 2**20),
    (re.compile(r"size$|sizes$|vocabulary$|^num_|history$"), 2**31 - 1),
)
"""Largest values of the fields of a configuration, by the first pattern that matches a field's name."""


def check_sizes(fields: Mapping[str, Any], parent: str = "") -> None:
    """Checks that no size in a configuration, including its sub-configurations, is beyond any real model.

    A model with a billion layers could not even be created to compare it with its weights, see `ChecksWeights`.

    Args:
        fields: fields of the configuration.
        parent: name of the sub-configuration with a dot, for the error message.

    Raises:
        ValueError: if a size is too large.

    >>> check_sizes({"decoder": {"num_layers": 10**9}})
    Traceback (most recent call last):
    ValueError: decoder.num_layers=1000000000 in the configuration is too large; the limit is 1000
    """
    for name, value in fields.items():
        if isinstance(value, Mapping):
            check_sizes(value, f"{parent}{name}.")
            continue
        limit = next((limit for pattern, limit in SIZE_LIMITS if pattern.search(str(name))), None)
        numbers = value if isinstance(value, list | tuple) else [value]
        if limit is not None and any(isinstance(number, int | float) and not number <= limit for number in numbers):
            raise ValueError(f"{parent}{name}={value} in the configuration is too large; the limit is {limit}")


def check_implementations(fields: Mapping[str, Any], parent: str = "") -> None:
    """Check that a configuration and its sub-configurations do not name code to load, such as attention kernels.

    transformers would download a kernel of that name from the Hub, and run it.

    Args:
        fields: fields of the configuration.
        parent: name of the sub-configuration with a dot, for the error message.

    Raises:
        ValueError: if it does.

    >>> check_implementations({"encoder": {"_attn_implementation": "org/kernel"}})
    Traceback (most recent call last):
    ValueError: encoder._attn_implementation='org/kernel' in the configuration names code of others; remove it
    """
    for name, value in fields.items():
        if not str(name).endswith("_implementation"):
            if isinstance(value, Mapping):
                check_implementations(value, f"{parent}{name}.")
            continue
        named = value.values() if isinstance(value, Mapping) else [value]
        if not all(re.fullmatch(r"[\w|]+", str(one)) for one in named):
            raise ValueError(f"{parent}{name}={value!r} in the configuration names code of others; remove it")


def check_whole_numbers(least: int = 1, parent: str = "", **numbers: Any) -> None:
    """Checks the type and the lower limit of sizes.

    Args:
        least: smallest value.
        parent: name of the sub-configuration with a dot, for the error message.
        **numbers: sizes by the name of their field.

    Raises:
        ValueError: if one is not a whole number, or is too small.

    >>> check_whole_numbers(num_items="3")
    Traceback (most recent call last):
    ValueError: num_items='3'; pass a whole number of at least 1
    """
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{parent}{name}={value!r}; pass a whole number of at least {least}")


def checked_removed(item_indices: Sequence[int], num_items: int) -> list[int]:
    """Indices of removed items, checked.

    Raises:
        ValueError: if one is not an item, or all items are removed.
    """
    check_whole_numbers(0, **{f"removed_items[{place}]": index for place, index in enumerate(item_indices)})
    if item_indices and (max(item_indices) >= num_items or len({*item_indices}) >= num_items):
        raise ValueError(f"removed_items has items that are not among the {num_items}, or all of them; keep some")
    return sorted({*item_indices})


class ItemStatesConfig(PreTrainedConfig):
    """Shape of an `ItemStatesEncoder`.

    Args:
        text_encoder: configuration of the encoder of preferences and titles, or its dictionary (with `model_type`).
        text_vocabulary: token ids below this are text; id `text_vocabulary + s` is row s of the state table.
        num_states: M, the rows of the state table over all items.
        pooled: whether a text is one vector (the mean of its states) or one state per token.
        max_history: number of distinct positions in the history, counted from the latest item; older items share the
            last one. 0 ignores the order.
        reference: where the weights of the text encoder are, if they were not saved: `name` and `commit` on the Hub and
            `sha256` of the file, see `encoder_reference`.

    Raises:
        ValueError: if a size is out of range, the reference is malformed, the text encoder has no padding token, or
            transformers does not have the text encoder.
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
        reference: Mapping[str, str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        text_encoder = encoder_config({} if text_encoder is None else text_encoder, default="bert")
        check_whole_numbers(text_vocabulary=text_vocabulary, num_states=num_states)
        check_whole_numbers(0, max_history=max_history)
        if getattr(text_encoder, "pad_token_id", None) is None:
            raise ValueError(f"{type(text_encoder).__name__} has no pad_token_id; set one, it marks the end of a text")
        # Set after the base class, which would otherwise copy the attention implementation of sub-configurations.
        super().__init__(**kwargs)
        self.text_encoder = text_encoder
        self.text_vocabulary = text_vocabulary
        self.num_states = num_states
        self.pooled = pooled
        self.max_history = max_history
        self.reference = None if reference is None else _checked_reference(reference)
        check_sizes(self.to_dict())

    @property
    def hidden_size(self) -> int:
        """Width of the states."""
        return self.text_encoder.hidden_size


def _checked_reference(reference: Any) -> dict[str, str | None]:
    """The reference to an encoder, with no more than its three fields."""
    fields = dict(reference) if isinstance(reference, Mapping) else {}
    name, commit, digest = (fields.get(field) for field in ("name", "commit", "sha256"))
    if (
        not (isinstance(name, str) and NAME.fullmatch(name))
        or not (commit is None or (isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit)))
        or not (isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest))
    ):
        raise ValueError(
            f"reference={reference!r} to a text encoder needs a name on the Hub, a commit of 40 hexadecimal digits or "
            "null, and the sha256 of model.safetensors"
        )
    return {"name": name, "commit": commit, "sha256": digest}


def encoder_config(config: PreTrainedConfig | dict[str, Any], default: str) -> PreTrainedConfig:
    """Configuration of a text encoder whose code is part of transformers.

    Args:
        config: the configuration, or its dictionary.
        default: `model_type` of a dictionary without one.

    Raises:
        ValueError: if transformers does not have the encoder, because its code was loaded from a repository.
    """
    fields = dict(config) if isinstance(config, dict) else None
    kind = config.model_type if fields is None else fields.pop("model_type", default)
    known = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else None
    if known is None or (fields is None and not isinstance(config, known)):
        raise ValueError(
            f"transformers has no such encoder of model_type {kind!r}; its code was loaded with "
            "trust_remote_code=True, and a model saved with it could not be loaded. Use an encoder that is part of "
            "transformers, or register this one (AutoConfig.register, AutoModel.register) before you create or load "
            "models with it"
        )
    return config if fields is None else known(**fields)


def reads_left_to_right(config: PreTrainedConfig) -> bool:
    """Whether an encoder with this configuration is a `LeftToRightEncoder`."""
    return config.model_type == "t5" and getattr(config, "left_to_right", False) is True


KINDS = ("stated", "inferred", "silent")
"""Kinds of request: with a typed preference, with a preference written from earlier reviews, or with a history only."""
BEHAVIOUR = ("popularity", "co_purchase", "transitions")
LANGUAGE = ("dense", "learned", "lexical", "terms", "history_text")
EXPERTS = (*BEHAVIOUR, *LANGUAGE)
GENERATOR = "generator"
"""Name of the generator among the weights of experts."""


class ExpertSumConfig(PreTrainedConfig):
    """Experts and their weights, see `experts.ExpertSum`.

    Args:
        num_items: N.
        experts: names from `EXPERTS`.
        num_neighbours: entries kept in each row of an item-item matrix.
        num_postings: entries of the lexical index.
        text_vocabulary: token ids below this are text; id `text_vocabulary + i` is item i of the history.
        padding: padding token id.
        width: of the encoder's states, for the experts "learned" and "terms"; that of the encoder, where there is one.
        reader_width: hidden units of the expert "learned".
        encoder: an `ItemStatesConfig` with `pooled=True` and `max_history=0`, or its dictionary, for a text encoder and
            item vectors of the experts' own. By default the experts use those of the model that they belong to.
        generator: whether the sum includes the log-probabilities of a generator.
        weights: the weight of each expert (and of "generator") by kind of request; default 1.
        avoid: weight of the penalty for phrases to avoid, see `experts.ExpertSum.penalty`.
        fit: coefficients of the probability that anything in the catalogue fits a request, see `request_fit`; `None`
            until they have been fitted.
        num_words: words of the lexical index that the tokenizer cuts into pieces, see `language_experts.Lexical`;
            models of earlier versions have none.

    Raises:
        ValueError: if an expert or a kind is unknown, or a weight or coefficient is not a finite number.
    """

    model_type = "mender_expert_sum"
    sub_configs = {"encoder": ItemStatesConfig}

    def __init__(
        self,
        num_items: int = 1,
        experts: Sequence[str] = ("popularity",),
        num_neighbours: int = 200,
        num_postings: int = 0,
        text_vocabulary: int = 1,
        padding: int = 0,
        width: int = 384,
        reader_width: int = 1024,
        encoder: ItemStatesConfig | dict[str, Any] | None = None,
        generator: bool = False,
        weights: Mapping[str, Mapping[str, float]] | None = None,
        avoid: float = 4.0,
        fit: Mapping[str, float] | None = None,
        num_words: int = 0,
        **kwargs: Any,
    ) -> None:
        check_whole_numbers(
            num_items=num_items, num_neighbours=num_neighbours, text_vocabulary=text_vocabulary, width=width
        )
        check_whole_numbers(0, num_postings=num_postings, reader_width=reader_width, num_words=num_words)
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
        self.num_neighbours, self.num_postings, self.num_words = num_neighbours, num_postings, num_words
        self.width, self.reader_width = width, reader_width
        self.text_vocabulary, self.padding = text_vocabulary, padding
        self.encoder, self.generator = encoder, generator
        self.set_weights(weights or {}, avoid)
        for name, value in (fit or {}).items():
            if not _is_finite(value):
                raise ValueError(f"fit[{name!r}]={value!r}; pass a finite number")
        self.fit = None if fit is None else dict(fit)

    @property
    def weighted(self) -> list[str]:
        """Names of all that is summed, the generator last."""
        return [*self.experts, *([GENERATOR] if self.generator else [])]

    def set_weights(self, weights: Mapping[str, Mapping[str, float]], avoid: float | None = None) -> None:
        """Replace the weights.

        Args:
            weights: by kind of request and expert; default 1.
            avoid: weight of the penalty for phrases to avoid; default: unchanged.

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
            (with `model_type`). Default: T5. A T5 with `left_to_right=True` is a `LeftToRightEncoder`.
        decoder: configuration of the T5 decoder, or the fields that differ from the paper's decoder.
        codebook_sizes: codes per level of a semantic ID, coarse to fine, the tie-breaking level last.
        num_items: N, removed items included.
        kinds: whether the decoder reads the kind of a request (one of `KINDS`), as one more learned state.
        experts: an `ExpertSumConfig`, or its dictionary: experts whose scores are added to the generator's.

    Raises:
        ValueError: if a size is out of range, or transformers does not have the encoder.

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
        check_whole_numbers(num_items=num_items)
        encoder = {} if encoder is None else encoder
        kind = encoder.get("model_type") if isinstance(encoder, dict) else encoder.model_type
        # Compared by name, because code loaded from a folder has its own copy of the class.
        if kind != ItemStatesConfig.model_type:
            encoder = encoder_config(encoder, default="t5")
        elif isinstance(encoder, dict):
            encoder = ItemStatesConfig(**{name: value for name, value in encoder.items() if name != "model_type"})
        if isinstance(decoder, PreTrainedConfig):
            decoder = decoder.to_dict()
        decoder = {**DECODER_DEFAULTS, **(decoder or {})}
        check_whole_numbers(
            parent="decoder.",
            **{name: value for name, value in decoder.items() if type(DECODER_DEFAULTS.get(name)) is int},
        )
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
        # Set after the base class, which would otherwise copy the attention implementation of sub-configurations; a
        # loaded encoder without one ignores padding masks.
        self.encoder = encoder
        self.decoder = T5Config(**decoder)
        self.codebook_sizes = codebook_sizes
        self.num_items = num_items
        self.kinds = kinds
        self.experts = ExpertSumConfig(**{**experts, "generator": True}) if isinstance(experts, dict) else experts
        # The base class fills these with defaults for text vocabularies.
        self.pad_token_id, self.eos_token_id, self.decoder_start_token_id = 0, None, 0
        self.tie_word_embeddings = tie_word_embeddings
        check_sizes(self.to_dict())

    @property
    def num_levels(self) -> int:
        """L, the length of a semantic ID."""
        return len(self.codebook_sizes)

    @property
    def left_to_right(self) -> bool:
        """Whether the encoder reads from left to right, see `LeftToRightEncoder`."""
        return reads_left_to_right(self.encoder)

    @property
    def hidden_size(self) -> int:
        """Width of the decoder."""
        return self.decoder.d_model
