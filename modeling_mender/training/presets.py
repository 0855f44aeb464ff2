"""Presets: every method of the comparison as a short file of settings, read into one checked dataclass.

The methods of the paper (arXiv:2412.08604) are the same parts put together differently; a preset says how. The files
`presets/*.yaml` ship with the package, and a file of your own is read the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..configuration_mender import EXPERTS, LANGUAGE
from ..processing_mender import HISTORIES, PREFERENCES
from .losses import NEGATIVE_LOSSES

__all__ = [
    "Preset",
    "load_preset",
    "preset_names",
]


FOLDER = Path(__file__).parent / "presets"
CHOICES = {
    "model": ("mender", "sasrec", "experts"),
    "encoder": ("pretrained", "scratch", "none"),
    "encoder_training": ("frozen", "lora", "full"),
    "history": HISTORIES,
    "preference": PREFERENCES,
    "item_text": ("title", "text"),
    "quantizer": ("residual-kmeans", "rq-vae"),
    "negatives": ("none", *NEGATIVE_LOSSES),
}
MATCHING = ("oracle", "last")
PROSE = ("summary", "cost", "source")  # descriptions, which do not change the method
# Without a preference, the input does not determine the targets of the other axes.
WITHOUT_PREFERENCE = {"preference": "none", "axes": {"recommendation": 1.0}, "negatives": "none", "silent": 0.0}
CONDITIONING = {
    "none": {"history": "none", **WITHOUT_PREFERENCE},
    "preference": {"history": "none", "silent": 0.0},
    "history": WITHOUT_PREFERENCE,
    "both": {},
    "all": {"axes": {"history_consolidation": 1.0}},
}
"""Fields that change in conditioning ablations. "all" uses all five preferences of a step instead of one."""


@dataclass(frozen=True)
class Preset:
    """One method, ready to be built and trained.

    Attributes:
        name: name of the method.
        summary: one line that describes the method.
        cost: one line on the cost of training and of a request, compared to other methods.
        source: the paper it comes from.
        model: "mender" (encoder and code-writing decoder), "sasrec" or "experts".
        encoder: "pretrained" (any text encoder of the Hub), "scratch" (a new T5 encoder), or "none".
        encoder_training: "frozen", "lora" (new tokens in full), or "full".
        history: how the processor writes items of the history, see `MenderProcessor`.
        preference: "text", or "none" for methods that do not read it.
        item_text: what an item's vector is made of where `history` is "vectors": its "title" or its whole "text".
        experts: what is added up, see `configuration_mender.EXPERTS`: by a model "experts" alone, by a Mender beside
            its generator.
        kinds: whether the decoder of a Mender that reads preferences also reads the kind of a request: stated, inferred
            or silent.
        silent: how often an epoch shows each recommendation example without its preference (0.5: half of them).
        vocabulary: words of the tokenizer that an encoder from scratch gets; 0 for codes alone.
        encoder_shape: fields of `T5Config` for an encoder from scratch, of `SasRecConfig` for SASRec. With
            `left_to_right: true` the encoder is a `LeftToRightEncoder`, trained on a row per user with all next items.
        decoder: fields of `T5Config` in which the decoder differs from the paper's.
        quantizer: what makes codes of item vectors: "residual-kmeans", or "rq-vae" (the paper's). `build_method`
            expects the codes.
        spread: whether the last level's codes are shared out among items that would have equal ones, as in LC-Rec.
        codebook_embeddings: whether embeddings of codes start from the quantizer's codebooks: the decoder's, as in the
            paper, and those of an encoder that reads codes.
        lora: rank, alpha and dropout of the adapters.
        max_length: tokens of an input.
        max_history: items of the history that are read.
        title_length: tokens of a title where states are cached.
        axes: axes to train on, and how often an epoch shows each of their examples (0.5: half of them).
        matching: how the preferences of recommendation examples are chosen in training, and how often an epoch shows
            those of each way: "oracle" (the preference closest to the target) and "last" (never looks at it). The
            examples that `make_trainer` is given follow it (`mender.data.BenchmarkData.matched`); alignment tasks made
            from recommendation examples do as well.
        negatives: what negative examples do: "none" leaves them out; "unlikelihood"; "subtracted" (the paper's).
        negative_weight: weight of that term.
        alignment: LC-Rec's auxiliary tasks and how often an epoch shows each example, see `alignment_tasks`.
        training: fields of `MenderTrainingArguments`.
        patience: evaluations without a better validation NDCG@10 before training stops; 0 never stops early.

    Raises:
        ValueError: if a field has a value that is not among its choices, a weight is not a number or negative, matching
            is set where no preference is read, an encoder is to be trained whose item states are cached, or one is to
            read from left to right that reads more than codes.
    """

    name: str
    summary: str
    cost: str = ""
    source: str = ""
    model: str = "mender"
    encoder: str = "pretrained"
    encoder_training: str = "frozen"
    history: str = "titles"
    preference: str = "text"
    item_text: str = "title"
    experts: Sequence[str] = ()
    kinds: bool = True
    silent: float = 0.0
    vocabulary: int = 0
    encoder_shape: Mapping[str, Any] = field(default_factory=dict)
    decoder: Mapping[str, Any] = field(default_factory=dict)
    quantizer: str = "residual-kmeans"
    spread: bool = False
    codebook_embeddings: bool = False
    lora: Mapping[str, Any] = field(default_factory=dict)
    max_length: int = 256
    max_history: int = 20
    title_length: int = 32
    axes: Mapping[str, float] = field(default_factory=lambda: {"recommendation": 1.0})
    matching: Mapping[str, float] = field(default_factory=lambda: {"oracle": 1.0})
    negatives: str = "none"
    negative_weight: float = 1.0
    alignment: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    patience: int = 0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} in preset {self.name}; pass one of {choices}")
        for name in ("axes", "matching", "alignment"):
            wrong = {key: value for key, value in getattr(self, name).items() if not _is_weight(value)}
            if wrong:
                raise ValueError(f"{name} of preset {self.name} has the weights {wrong}; pass numbers >= 0")
        unknown = [mode for mode in self.matching if mode not in MATCHING]
        if unknown or not any(self.matching.values()):
            raise ValueError(
                f"matching={dict(self.matching)} in preset {self.name}; give weight to one of {', '.join(MATCHING)}"
            )
        if self.preference == "none" and dict(self.matching) != {"oracle": 1.0}:
            raise ValueError(
                f"matching={dict(self.matching)} in preset {self.name}, which reads no preference; leave it out"
            )
        unknown = [name for name in self.experts if name not in EXPERTS]
        misplaced = not self.experts if self.model == "experts" else self.experts and self.model != "mender"
        if unknown or misplaced:
            raise ValueError(
                f"experts={list(self.experts)} in preset {self.name}, whose model is {self.model!r}; a model 'experts' "
                f"needs some of {', '.join(EXPERTS)}, a model 'mender' may have them, others have none"
            )
        reading = [name for name in self.experts if name in LANGUAGE]
        if reading and (self.encoder != "pretrained" or (self.model, self.history) == ("experts", "indices")):
            raise ValueError(
                f"expert {reading[0]!r} in preset {self.name} reads text; pass encoder: pretrained and history: vectors"
            )
        if not _is_weight(self.silent) or (self.silent and self.preference == "none"):
            raise ValueError(
                f"silent={self.silent} in preset {self.name}; pass a number >= 0, and 0 where no preference is read"
            )
        smoothing = self.training.get("label_smoothing_factor")
        if smoothing and self.model != "mender":
            raise ValueError(
                f"label_smoothing_factor={smoothing} in preset {self.name}, whose labels are not codes; leave it out"
            )
        if self.left_to_right and not (
            (self.encoder, self.history, self.preference) == ("scratch", "codes", "none")
            and dict(self.axes) == {"recommendation": 1.0}
            and self.negatives == "none"
            and not self.alignment
        ):
            raise ValueError(
                f"encoder_shape.left_to_right in preset {self.name}: all next items of a user are trained in one pass "
                "where only codes of a history are read; pass encoder: scratch, history: codes, preference: none, "
                "axes: {recommendation: 1.0} and neither negatives nor alignment"
            )
        if self.history in ("states", "vectors") and self.encoder_training != "frozen":
            raise ValueError(
                f"encoder_training={self.encoder_training!r} in preset {self.name}: cached item states belong to a "
                'frozen encoder; pass "frozen", or history="titles"'
            )

    @property
    def left_to_right(self) -> bool:
        """Whether all next items of a user are trained in one pass, by an encoder that reads from left to right."""
        return self.model == "mender" and self.encoder_shape.get("left_to_right", False) is True

    @property
    def reads_kinds(self) -> bool:
        """Whether the decoder reads the kind of a request."""
        return self.kinds and self.model == "mender" and self.preference == "text"

    @property
    def trained(self) -> bool:
        """Whether the method is trained by gradient."""
        return self.model in ("mender", "sasrec")


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < float("inf")


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_preset(name_or_path: str | Path, **changes: Any) -> Preset:
    """A preset by name, or from a YAML file of your own.

    Args:
        name_or_path: one of `preset_names()`, or a path.
        **changes: fields to replace; mappings are merged into the preset's.

    Raises:
        ValueError: if there is no such preset, or a field is unknown.

    >>> load_preset("mender-tok", training={"num_train_epochs": 3}).training["num_train_epochs"]
    3
    """
    path = FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"no preset {str(name_or_path)!r}; pass one of {', '.join(preset_names())}, or a YAML file")
    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not plain YAML ({reason}); expected lines such as 'history: titles'") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no settings; expected lines such as 'history: titles'")
    known = {item.name: item for item in fields(Preset)}
    for key, value in changes.items():
        merge = isinstance(value, Mapping) and key not in ("axes", "matching", "alignment")
        settings[key] = {**settings.get(key, {}), **value} if merge else value
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"{path.name}: unknown field {unknown[0]!r} of a preset; known fields: {', '.join(known)}")
    missing = [name for name, item in known.items() if item.default is item.default_factory is MISSING]
    missing = [name for name in missing if name not in settings]
    if missing:
        raise ValueError(f"{path.name} lacks {missing[0]!r}")
    return Preset(**settings)
