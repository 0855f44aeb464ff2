"""From a preset to a model and its processor: all methods of the comparison are built here from the same components."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from ..catalogue import SemanticIdCatalogue
from ..configuration_mender import (
    GENERATOR,
    KINDS,
    LANGUAGE,
    ExpertSumConfig,
    ItemStatesConfig,
    check_implementations,
    check_sizes,
)
from ..item_states import ItemStatesEncoder, encode_titles, text_encoder_class
from ..language_experts import Lexical, Role
from ..left_to_right import LeftToRightEncoder
from ..modeling_experts import ExpertsConfig, ExpertsRecommender
from ..modeling_mender import MenderForGenerativeRetrieval
from ..modeling_sasrec import SasRecConfig, SasRecForSequentialRecommendation
from ..processing_mender import MenderProcessor, add_code_tokens, first_code_token, vocabulary_of
from .closed_form import bm25_index, fill_lexical
from .lora import add_lora
from .presets import Preset

__all__ = [
    "Method",
    "build_method",
    "code_only_tokenizer",
    "init_from_codebooks",
    "word_roles",
    "word_tokenizer",
]

logger = logging.getLogger(__name__)


TEXT_LENGTH = 256
"""Maximum number of tokens of an item's text, special tokens included."""
ENDINGS = ("s", "es")
"""Of the plural. Texts of other languages lose little with them."""
LONG_PIECE = 4
"""Letters of a piece that says something about the word that it begins."""
WITHOUT_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""How names of letters begin in scripts without blanks between words."""
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def word_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer trained on texts, for encoders without pretraining.

    Its tokens are byte-pair merges (Sennrich et al. 2016, arXiv:1508.07909) of lower-cased text, which only depend on
    the texts. WordPiece training would number continuations in hash order, differently in every process.

    Args:
        texts: for instance titles and preferences; their order does not matter.
        vocabulary: maximum number of tokens, special tokens included.

    >>> word_tokenizer(["green tea", "black tea"], 100).tokenize("Green tea")
    ['green', 'tea']
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*SPECIAL.values()], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _with_end_token(tokenizer)


def word_roles(tokenizer: Any, vocabulary: int) -> Tensor:
    """What each token is to the words of a text, see `language_experts.Role`. Shape: (vocabulary,), uint8.

    Some vocabularies mark what continues a word (WordPiece: "##"), others what begins one (SentencePiece: "▁", bytes of
    GPT-2: "Ġ"). In those without marks, as in that of `word_tokenizer`, nothing continues a word.

    >>> tokenizer = word_tokenizer(["green tea"], 100)
    >>> word_roles(tokenizer, len(tokenizer)).bool().any().item()
    False
    """
    special = set(tokenizer.all_special_ids)
    known = {piece: token for piece, token in tokenizer.get_vocab().items() if token < vocabulary}
    marks = Counter(mark for piece in known for mark in ("##", "▁", "Ġ") if piece.startswith(mark))
    roles = torch.zeros(vocabulary, dtype=torch.uint8)
    if not marks:
        return roles
    mark = marks.most_common(1)[0][0]
    for piece, token in known.items():
        if token in special:
            continue
        marked = piece.startswith(mark)
        text = piece.removeprefix(mark)
        if mark == "Ġ":
            text = tokenizer.convert_tokens_to_string([text])
        if not text or not _joins_words(text[0]):
            continue
        if marked != (mark == "##"):
            roles[token] = Role.BEGINS if len(text) >= LONG_PIECE else Role.SHORT
        else:
            roles[token] = Role.ENDING if text in ENDINGS else Role.CONTINUES
    return roles


def _joins_words(letter: str) -> bool:
    """Whether it is part of words, in a script that has blanks between them."""
    name = unicodedata.name(letter, "")
    return unicodedata.category(letter)[0] in "LMN" and not name.startswith(WITHOUT_BLANKS)


def code_only_tokenizer(left_to_right: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer without words, for encoders that only read codes.

    Args:
        left_to_right: whether the special token, without which an empty history would be no input, comes first and not
            last, so that a longer history begins as a shorter one does.
    """
    vocabulary = {token: index for index, token in enumerate(SPECIAL.values())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    return _with_end_token(tokenizer, "{end} $A" if left_to_right else "$A {end}")


def _with_end_token(tokenizer: Tokenizer, template: str = "$A {end}") -> PreTrainedTokenizerFast:
    end = SPECIAL["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template.format(end=end), special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


@torch.no_grad()
def init_from_codebooks(
    embedding: nn.Embedding,
    codebooks: Sequence[Tensor] | Tensor,
    codebook_sizes: Sequence[int],
    first: int = 1,
    like: Tensor | None = None,
) -> None:
    """Initialise the embeddings of codes from the codebooks, as the paper's decoder does (arXiv:2412.08604).

    Codes of similar items then have similar embeddings from the start. Centroids are rotated to the width of the
    embedding, which preserves their distances, and scaled. The tie-breaking level has no centroids and gets sinusoids.

    Args:
        embedding: embedding of the decoder, or of an encoder with code tokens.
        codebooks: centroids of the quantizer's levels, each (K, C); further levels of the catalogue get sinusoids.
        codebook_sizes: codes per level of the catalogue, the tie-breaking level included.
        first: row of code 0 of the first level.
        like: embeddings whose mean and standard deviation the codes get, such as the words of a pretrained encoder.
            Default: mean 0 and standard deviation 1. Shape: (words, width).

    Raises:
        ValueError: if a codebook has more centroids than its level has codes.
    """
    width, start = embedding.weight.shape[1], first
    centre, spread = 0.0, 1.0
    if like is not None:
        centre = like.float().mean(0)
        spread = (like.float() - centre).std()
    for level, size in enumerate(codebook_sizes):
        if level < len(codebooks):
            book = torch.as_tensor(codebooks[level]).float()
            if len(book) > size:
                raise ValueError(f"level {level} has {size} codes but the codebook {len(book)} centroids")
            values = _at_width(book, width)
        else:
            values = _sinusoids(size, width)
        rows = slice(start, start + len(values))
        embedding.weight[rows] = (centre + spread * values.to(embedding.weight.device)).to(embedding.weight)
        start += size


def _at_width(book: Tensor, width: int) -> Tensor:
    """Centroids with mean 0 and unit variance, projected to or embedded in another width. Shape: (K, width)."""
    centred = book - book.mean(0)
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    components = (left * strength)[:, :width]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0))).Q
    rotated = components @ rotation[: components.shape[1]]
    return rotated / rotated.std().clamp(min=1e-6)


def _sinusoids(count: int, width: int) -> Tensor:
    """Sinusoidal position encodings. Shape: (count, width)."""
    position = torch.arange(count)[:, None]
    rate = torch.exp(-torch.arange(0, width, 2) * (torch.log(torch.tensor(10_000.0)) / width))
    values = torch.zeros(count, width)
    values[:, 0::2] = torch.sin(position * rate)
    values[:, 1::2] = torch.cos(position * rate)[:, : width // 2]
    return values


@dataclass
class Method:
    """A method, ready to be trained.

    Attributes:
        preset: the preset it was built from.
        model: a model with `recommend`; with LoRA, a `peft.PeftModel` around a Mender.
        processor: renders the inputs of the model.
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
        """The model to save and serve, with adapters merged into its weights."""
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
    """Create the model and the processor of a preset.

    Args:
        preset: see `load_preset`.
        items: `{"item_id": [...], "title": [...]}` and, for presets with `item_text: text`, `"text"`.
        encoder: name or folder of a text encoder; not needed by presets without a pretrained encoder.
        catalogue: semantic IDs of the items; not needed by presets that do not generate codes.
        codebooks: centroids of the quantizer, for presets with `codebook_embeddings`.
        texts: texts to train the tokenizer on, in addition to titles, for presets with a `vocabulary`.
        device: device for encoding titles, for presets with item states; the model itself is created on the CPU.

    Raises:
        ValueError: if an argument is missing that the preset needs.
    """
    for name, needed, given in (
        ("encoder", preset.encoder == "pretrained", encoder),
        ("catalogue", preset.model == "mender", catalogue),
        ("codebooks", preset.codebook_embeddings, codebooks),
    ):
        if needed and given is None:
            raise ValueError(f"preset {preset.name} needs {name}=; pass it to build_method")
    logger.info("making the model")
    tokenizer = _tokenizer(preset, encoder, [*items["title"], *texts])
    text_encoder = _text_encoder(preset, encoder, tokenizer)
    codes: dict[str, Any] = {}
    if preset.history == "codes":
        add_code_tokens(tokenizer, catalogue.codebook_sizes, text_encoder)
        codes = {"codes": catalogue.codes.tolist()}
    # Requests are corrected to words of the items' texts, whatever the model reads of the items.
    item_texts = {"text": items["text"]} if preset.preference == "text" and "text" in items else {}
    processor = MenderProcessor(
        tokenizer,
        {"item_id": items["item_id"], "title": items["title"], **item_texts, **codes},
        max_length=preset.max_length,
        history=preset.history,
        preference=preset.preference,
        max_history=preset.max_history,
        title_length=preset.title_length,
        codebook_sizes=catalogue.codebook_sizes if codes else None,
        kinds=preset.reads_kinds,
        experts=bool(preset.experts),
    )
    if preset.model == "sasrec":
        shape = {"num_items": len(items["item_id"]), "max_history": preset.max_history, **preset.encoder_shape}
        return Method(preset, SasRecForSequentialRecommendation(SasRecConfig(**shape)), processor)
    if preset.model == "experts":
        return Method(preset, _experts(preset, text_encoder, processor, items, device).eval(), processor)
    text_encoder.requires_grad_(preset.encoder_training == "full")
    if preset.history in ("states", "vectors"):
        text_encoder = _with_item_states(preset, text_encoder, processor, items, device, preset.history == "vectors")
    model = MenderForGenerativeRetrieval.from_encoder(
        text_encoder, catalogue, decoder=dict(preset.decoder), kinds=preset.reads_kinds
    )
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
    if preset.experts:
        _add_experts(preset, model, encoder, processor, items, device)
    return Method(preset, model, processor)


def _experts(
    preset: Preset,
    text_encoder: PreTrainedModel | None,
    processor: MenderProcessor,
    items: Mapping[str, Sequence[str]],
    device: torch.device | str,
) -> ExpertsRecommender:
    """A sum of experts. Language experts get the texts of the catalogue here; `fit_experts` fits the others."""
    names, count = list(preset.experts), len(items["item_id"])
    if not any(name in LANGUAGE for name in names):
        return ExpertsRecommender(ExpertsConfig(count, names))
    text_encoder.requires_grad_(False)
    encoder = _with_item_states(preset, text_encoder, processor, items, device, pooled=True)
    index = _lexical_index(preset, processor, items)
    model = ExpertsRecommender(ExpertsConfig(count, names, encoder=encoder.config, **_index_size(index)), encoder)
    if index is not None:
        model.experts.lexical.load_state_dict(index.state_dict())
    return model


def _add_experts(
    preset: Preset,
    model: Any,
    encoder: str | None,
    processor: MenderProcessor,
    items: Mapping[str, Sequence[str]],
    device: torch.device | str,
) -> None:
    """Add experts to a Mender. Their weights are 0 until `fit_experts` chooses others."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = None
    if any(name in LANGUAGE for name in preset.experts) and not model.shares_vectors:
        text_encoder = _text_encoder(preset, encoder, processor.tokenizer).requires_grad_(False)
        own = _with_item_states(preset, text_encoder, processor, items, device, pooled=True)
    index = _lexical_index(preset, processor, items)
    config = ExpertSumConfig(
        len(items["item_id"]),
        list(preset.experts),
        **_index_size(index),
        text_vocabulary=processor.text_vocabulary,
        padding=processor.tokenizer.pad_token_id,
        encoder=None if own is None else own.config,
        generator=True,
        weights={kind: {**dict.fromkeys(preset.experts, 0.0), GENERATOR: 1.0} for kind in KINDS},
    )
    model.set_experts(config, own)
    if index is not None:
        model.experts.lexical.load_state_dict(index.state_dict())


def _lexical_index(preset: Preset, processor: MenderProcessor, items: Mapping[str, Sequence[str]]) -> Lexical | None:
    """Postings of the items' texts, where an expert wants them."""
    if not {"lexical", "terms"} & set(preset.experts):
        return None
    texts = list(items["text" if preset.item_text == "text" else "title"])
    logger.info("indexing the words of %s items", f"{len(texts):,}")
    vocabulary = processor.text_vocabulary
    marks = word_roles(processor.tokenizer, vocabulary)
    roles = marks if bool(marks.any()) else None
    index = bm25_index(processor.text_tokens(texts), vocabulary, roles)
    num_words = 0 if roles is None else len(index[-1])
    found = Lexical(vocabulary, len(texts), len(index[1]), num_words)
    fill_lexical(found, index, roles)
    return found


def _index_size(index: Lexical | None) -> dict[str, int]:
    """Settings of an `ExpertSumConfig` for an index."""
    if index is None:
        return {}
    return {"num_postings": len(index.items), "num_words": 0 if index.words is None else len(index.words)}


def _tokenizer(preset: Preset, encoder: str | None, texts: list[str]) -> Any:
    if preset.encoder == "pretrained":
        return AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
    return word_tokenizer(texts, preset.vocabulary) if preset.vocabulary else code_only_tokenizer(preset.left_to_right)


def _text_encoder(preset: Preset, encoder: str | None, tokenizer: Any) -> PreTrainedModel | None:
    if preset.encoder == "pretrained":
        # Before anything is made of it: that of a stranger may describe a billion layers, or name code to load.
        fields = PreTrainedConfig.get_config_dict(encoder)[0]
        check_sizes(fields)
        check_implementations(fields)
        config = AutoConfig.from_pretrained(encoder, trust_remote_code=False)
        return text_encoder_class(config).from_pretrained(encoder, trust_remote_code=False)
    if preset.encoder == "scratch":
        shape = {"is_encoder_decoder": False, **preset.encoder_shape}
        shape |= {"vocab_size": vocabulary_of(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": None}
        return (LeftToRightEncoder if preset.left_to_right else T5EncoderModel)(T5Config(**shape))
    return None


def _with_item_states(
    preset: Preset,
    text_encoder: PreTrainedModel,
    processor: MenderProcessor,
    items: Mapping[str, Sequence[str]],
    device: torch.device | str,
    pooled: bool,
) -> ItemStatesEncoder:
    """The text encoder with the table of item states: one state per item if `pooled`, else one per token of titles."""
    before, after = processor.margins
    inputs = processor.title_inputs()
    if pooled and preset.item_text == "text":
        if "text" not in items:
            raise ValueError(f'preset {preset.name} needs items["text"]; pass it, or item_text="title"')
        inputs = processor.text_inputs(items["text"], max_length=TEXT_LENGTH)
    text_encoder.to(device)
    logger.info("encoding the texts of %s items", f"{len(inputs):,}")
    states, first = encode_titles(text_encoder, inputs, pooled=pooled, inner=(len(before), len(after)))
    text_encoder.to("cpu")
    config = ItemStatesConfig(
        text_encoder=text_encoder.config,
        text_vocabulary=processor.text_vocabulary,
        num_states=len(states),
        pooled=pooled,
        max_history=preset.max_history if preset.model == "mender" else 0,
    )
    encoder = ItemStatesEncoder(config, text_encoder)
    encoder.set_item_states(states, first)
    return encoder
