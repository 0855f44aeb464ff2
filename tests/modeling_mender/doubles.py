"""Tiny stand-ins: small encoders with random weights, a word-level tokenizer, random catalogues."""

from __future__ import annotations

import datasets
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from modeling_mender import (
    MenderConfig,
    MenderForGenerativeRetrieval,
    SemanticIdCatalogue,
    build_method,
    load_preset,
)
from modeling_mender.training.methods import Method

WORDS = "instructions items find avoid gentle strong tea soap lamp mug rose mint green blue cotton glass".split()
VOCABULARY = 64


def random_catalogue(items: int, sizes: list[int], seed: int = 0, skewed: bool = False) -> SemanticIdCatalogue:
    """Distinct random codes; `skewed` crowds them under few prefixes."""
    generator = torch.Generator().manual_seed(seed)
    total = int(torch.tensor(sizes).prod())
    keys = torch.randperm(total, generator=generator)[:items]
    if skewed:
        keys = (torch.randperm(min(total, 2 * items), generator=generator)[:items]) % total
    codes = []
    for size in reversed(sizes):
        codes.append(keys % size)
        keys = keys // size
    return SemanticIdCatalogue(torch.stack(codes[::-1], dim=1), sizes)


def tiny_encoder(kind: str = "bert"):
    if kind == "t5":
        return T5Config(
            vocab_size=VOCABULARY, d_model=16, d_ff=24, d_kv=8, num_layers=2, num_heads=2, is_encoder_decoder=False
        )
    if kind == "llama":
        shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        return LlamaConfig(vocab_size=VOCABULARY, intermediate_size=32, pad_token_id=0, **shape)
    return BertConfig(
        vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )


def tiny_model(
    catalogue: SemanticIdCatalogue, encoder: str = "bert", seed: int = 0, **decoder
) -> MenderForGenerativeRetrieval:
    torch.manual_seed(seed)
    shape = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 3, **decoder}
    config = MenderConfig(
        encoder=tiny_encoder(encoder),
        decoder=shape,
        codebook_sizes=catalogue.codebook_sizes,
        num_items=catalogue.num_items,
    )
    model = MenderForGenerativeRetrieval(config)
    model.set_catalogue(catalogue)
    # Position biases and layer-norm gains start alike; make every parameter count.
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def random_inputs(users: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Token ids of mixed lengths, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, length + 1, (users,), generator=generator)
    lengths[0] = length
    mask = (torch.arange(length) < lengths[:, None]).long()
    return {
        "input_ids": torch.randint(5, VOCABULARY, (users, length), generator=generator) * mask,
        "attention_mask": mask,
    }


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Splits at white space and punctuation; BERT's special tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokens = special + WORDS + list(".,:")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def brute_force_scores(model, inputs, **shared) -> torch.Tensor:
    """Log-probability of every live item for every user, by the plain forward pass. Shape: (B, live).

    What is `shared` has one value for all rows.
    """
    rows = (model.item_codes[:, 0] >= 0).nonzero().squeeze(1)
    labels = model.item_tokens(rows)
    scores = []
    with torch.no_grad():
        for user in range(len(inputs["input_ids"])):
            one = {name: value[user : user + 1].expand(len(rows), -1) for name, value in inputs.items()}
            own = {name: value.expand(len(rows)) for name, value in shared.items()}
            logits = model(**one, labels=labels, **own).logits.float().log_softmax(-1)
            scores.append(logits.gather(2, labels[..., None]).squeeze(-1).sum(-1))
    return torch.stack(scores)


def encoder_folder(folder, kind: str = "bert") -> str:
    """A tiny encoder with random weights and its tokenizer, saved as the Hub would hold them."""
    torch.manual_seed(0)
    {"bert": BertModel, "llama": LlamaModel, "t5": T5EncoderModel}[kind](tiny_encoder(kind)).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def shop_items() -> dict[str, list[str]]:
    """One item per word, its text two words."""
    following = WORDS[1:] + WORDS[:1]
    return {
        "item_id": [f"item-{word}" for word in WORDS],
        "title": list(WORDS),
        "text": [f"{word} {other}" for word, other in zip(WORDS, following, strict=True)],
    }


def shop_examples(users: int = 30) -> datasets.DatasetDict:
    """Users who walk through the items in order; the preference names the target. All axes, pairs included."""
    texts = datasets.List(datasets.Value("string"))
    features = datasets.Features(
        {
            "axis": datasets.Value("string"),
            "kind": datasets.Value("string"),
            "user_id": datasets.Value("string"),
            "history": texts,
            "preferences": texts,
            "avoid": texts,
            "sentiment": datasets.Value("string"),
            "targets": texts,
            "pair_id": datasets.Value("int64"),
        }
    )

    def example(axis, user, history, target, sentiment="positive", pair=-1, preferences=1):
        word = WORDS[target % len(WORDS)]
        return {
            "axis": axis,
            "kind": "inferred" if axis == "history_consolidation" else "stated",
            "user_id": f"user-{user}",
            "history": [f"item-{WORDS[row % len(WORDS)]}" for row in history],
            "preferences": [f"{'avoid' if sentiment == 'negative' else 'find'} {word}"] * preferences,
            "avoid": [],
            "sentiment": sentiment,
            "targets": [f"item-{word}"],
            "pair_id": pair,
        }

    def split(steps, pairs):
        rows = []
        for user in range(users):
            for step in steps:
                history = range(user, user + step)
                rows.append(example("recommendation", user, history, user + step))
                rows.append(example("history_consolidation", user, history, user + step, preferences=5))
                rows.append(example("fine_grained_steering", user, history, user + step + 1))
                rows.append(example("coarse_grained_steering", user, history, user + step + 7))
        for pair in pairs:
            rows += [
                example("sentiment_following", 0, (), pair, sentiment, pair) for sentiment in ("positive", "negative")
            ]
        return datasets.Dataset.from_list(rows, features=features)

    return datasets.DatasetDict(
        train=split((1, 2, 3), range(0, 10)), validation=split((4,), (10, 11)), test=split((5,), (12, 13, 14))
    )


def measured(value: float = 0.5, **settings) -> dict:
    """What five_axes.json holds of a method and a control on three axes."""
    scores = []
    for axis, matching in (("recommendation", "oracle"), ("recommendation", "last"), ("sentiment_following", "")):
        for method, figure in (("mine", value), ("mine, shuffled preferences", 0.1)):
            score = {"axis": axis, "matching": matching, "method": method, "n": 20}
            for name in ("recall", "ndcg", *(("m", "avoid") if axis.startswith("sentiment") else ())):
                score |= {f"{name}@10": figure, f"{name}@10/low": figure - 0.05, f"{name}@10/high": figure + 0.05}
            scores.append(score)
    return {"settings": {"source": "corner-shop", **settings}, "scores": scores}


SMALL = {
    "decoder": {"num_layers": 1, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "dropout_rate": 0.0},
    "training": {"num_train_epochs": 1, "per_device_train_batch_size": 32, "use_cpu": True, "disable_tqdm": True},
}
T5 = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2}
SHAPES = {"tiger": T5, "tiger-causal": T5, "vocabext-rnd": T5, "sasrec": {"hidden_size": 16}}
CODEBOOKS = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


def small_method(name: str, folder: str, **changes) -> Method:
    """A preset with tiny sizes for the items of `shop_items`; `folder` has an encoder."""
    settings = {**SMALL, "lora": {"rank": 2}, **changes}
    settings["encoder_shape"] = SHAPES.get(name, {})
    if name in ("sasrec", "popularity", "item-item", "text-search", "hybrid", "mender-lite"):
        settings.pop("decoder")
    torch.manual_seed(0)
    return build_method(
        load_preset(name, **settings),
        shop_items(),
        encoder=folder,
        catalogue=random_catalogue(len(WORDS), [3, 3, 3]),
        codebooks=CODEBOOKS,
        texts=[f"find {word}" for word in WORDS],
    )
