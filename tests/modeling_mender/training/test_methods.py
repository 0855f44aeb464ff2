"""Every preset, shrunk: built, trained, saved, loaded in its own right, and asked."""

from __future__ import annotations

import json
import random
from pathlib import Path

import datasets
import pytest
import torch
from doubles import CODEBOOKS, SMALL, WORDS, encoder_folder, random_catalogue, shop_examples, shop_items
from doubles import small_method as build
from transformers import AutoModel, AutoProcessor, AutoTokenizer, BertModel, BertTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from modeling_mender import build_method, load_preset, make_trainer
from modeling_mender.language_experts import Role
from modeling_mender.processing_mender import first_code_token
from modeling_mender.training import methods, reading, weights
from modeling_mender.training.methods import code_only_tokenizer, word_roles, word_tokenizer
from modeling_mender.training.presets import CONDITIONING, preset_names
from modeling_mender.training.ranking import rank_examples, request_speed
from modeling_mender.training.run import fit_without_gradient


@pytest.fixture(autouse=True)
def short_fits(monkeypatch):
    """Language experts and weights are fitted in a few steps: no test here looks at how good they are."""
    monkeypatch.setattr(reading, "LEAST_STEPS", 10)
    monkeypatch.setattr(weights, "LIKELIHOOD_STEPS", 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def examples():
    return shop_examples(6)


def fit(method, examples, tmp_path):
    if not method.preset.trained:
        return fit_without_gradient(method, examples)
    trainer = make_trainer(method, examples, tmp_path / "run", logging_strategy="no")
    trainer.train()
    return trainer


# Presets that are others with other settings.
LIKE_OTHERS = ("mender-emb", "vocabext-lm", "vocabext-rnd", "item-item", "text-search", "hybrid")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LIKE_OTHERS)) for name in preset_names()]
)
def test_method_trains_and_answers_the_same_after_loading(name, folder, examples, tmp_path):
    check_training(build(name, folder), examples, tmp_path)


@pytest.mark.parametrize(("name", "way"), [("mender-emb", "frozen"), ("mender-tok", "lora"), ("mender-tok", "full")])
def test_a_language_model_can_be_the_encoder(name, way, examples, tmp_path):
    folder = encoder_folder(tmp_path / "encoder", "llama")
    check_training(build(name, folder, encoder_training=way), examples, tmp_path)


def check_training(method, examples, tmp_path):
    fit(method, examples, tmp_path)
    model = method.plain_model().eval()
    ranked = rank_examples(model, method.processor, examples["test"])
    assert ranked.shape == (len(examples["test"]), 10)
    history = method.processor.item_indices(examples["test"][0]["history"])
    assert not set(ranked[0].tolist()) & set(history)
    model.save_pretrained(tmp_path / "model")
    method.processor.save_pretrained(tmp_path / "model")
    loaded = AutoModel.from_pretrained(tmp_path / "model").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    assert type(loaded) is type(model)
    again = rank_examples(loaded, processor, examples["test"])
    assert (again == ranked).mean() > 0.97  # a cached table is stored in half precision, and near ties may swap
    speed = request_speed(loaded, processor, examples["test"], repeats=1)
    assert speed["request_ms"] > 0 and speed["users_per_second"] > 0


@pytest.mark.parametrize("name", ["vocabext-lm", "lc-rec"])
@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_new_tokens_are_trained_and_old_ones_are_not(name, kind, examples, tmp_path):
    method = build(name, encoder_folder(tmp_path / "encoder", kind))
    before = method.model.get_base_model().encoder.get_input_embeddings()
    before = getattr(before, "base_layer", before).weight.detach().clone()
    decoder = method.model.get_base_model().decoder.modules_to_save["default"].embed_tokens.weight.clone()
    fit(method, examples, tmp_path)
    model = method.plain_model()
    after = model.encoder.get_input_embeddings().weight
    words = len(before) - sum(method.processor.codebook_sizes)
    assert torch.equal(after[:words], before[:words])
    moved = (after[words:] != before[words:]).any(1)
    assert moved.float().mean() > 0.8
    assert not torch.equal(model.decoder.embed_tokens.weight, decoder)


def test_codes_of_the_history_reach_the_encoder(folder):
    method = build("tiger", folder)
    inputs = method.processor("", ["item-tea", "item-mug"])["input_ids"][0].tolist()
    tokens = method.processor.tokenizer.convert_ids_to_tokens(inputs)
    codes = [method.processor.codes[row] for row in method.processor.item_indices(["item-tea", "item-mug"])]
    expected = [f"<{level}_{code}>" for item in codes for level, code in zip("abc", item, strict=True)]
    assert tokens == [*expected, "</s>"]
    assert method.processor("find soap", ["item-tea", "item-mug"])["input_ids"][0].tolist() == inputs


def test_a_longer_history_begins_as_a_shorter_one_where_it_is_read_from_left_to_right(folder):
    processor = build("tiger-causal", folder).processor
    histories = (["item-tea"], ["item-tea", "item-mug"])
    short, long = (processor("", history)["input_ids"][0].tolist() for history in histories)
    assert processor.tokenizer.convert_ids_to_tokens(long)[0] == "</s>" and long[: len(short)] == short


def test_methods_blind_to_preferences_do_not_change_with_them(folder, examples):
    for name in ("tiger", "sasrec", "popularity"):
        method = build(name, folder)
        history = examples["test"][0]["history"]
        found = [
            method.model.eval().recommend(**method.processor(text, history), top_k=5) for text in ("find soap", "")
        ]
        assert torch.equal(found[0].scores, found[1].scores)


@pytest.mark.parametrize("mode", CONDITIONING)
@pytest.mark.parametrize("name", ["mender-tok", "mender-fid"])
def test_conditioning_decides_what_is_read(name, mode, folder):
    method = build(name, folder, **CONDITIONING[mode])

    def answer(text, history):
        return method.model.eval().recommend(**method.processor([text], [history]), top_k=5).scores

    base = answer("find soap", ["item-tea"])
    reads_preference = not torch.equal(base, answer("avoid rose", ["item-tea"]))
    reads_history = not torch.equal(base, answer("find soap", ["item-mug", "item-lamp"]))
    assert reads_preference == (mode in ("preference", "both", "all"))
    assert reads_history == (mode in ("history", "both", "all"))


def test_text_search_finds_what_is_asked_for_and_falls_back_on_the_history(folder, examples):
    method = build("text-search", folder)
    weights = fit_without_gradient(method, examples)["weights"]
    assert weights == method.model.config.weights and max(weights["stated"].values()) > 0
    assert weights["silent"]["dense"] == weights["silent"]["lexical"] == 0
    found = method.model.recommend(**method.processor("soap lamp", []), top_k=1)
    own = method.processor.decode_items(found.item_indices[0])[0]["title"]
    assert own == "soap"  # its text is "soap lamp"
    answers = [
        method.model.recommend(**method.processor("", [item]), top_k=3).scores for item in ("item-tea", "item-mug")
    ]
    assert not torch.equal(*answers)


def codes_in_encoder(method):
    """Embeddings of words and of codes."""
    weights = method.plain_model().encoder.get_input_embeddings().weight
    return weights.tensor_split([first_code_token(method.processor.tokenizer, [3, 3, 3])])


def assert_from_codebooks(codes):
    centred = CODEBOOKS - CODEBOOKS.mean(1, keepdim=True)
    for level in range(2):
        ratio = torch.pdist(codes[3 * level : 3 * level + 3]) / torch.pdist(centred[level])
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=1e-4)


def test_decoder_starts_from_the_codebooks(folder):
    codes = build("mender-fid", folder).model.decoder.embed_tokens.weight[1:]
    assert_from_codebooks(codes)
    assert abs(codes[:6].std().item() - 1) < 0.3


@pytest.mark.parametrize("name", ["tiger", "vocabext-rnd", "vocabext-lm", "lc-rec"])
def test_encoders_of_codes_start_from_the_codebooks(name, folder):
    words, codes = codes_in_encoder(build(name, folder))
    assert_from_codebooks(codes)
    if name in ("tiger", "vocabext-rnd"):
        assert abs(codes[:6].std().item() - 1) < 0.3
    else:  # like the words that the encoder was trained with
        torch.testing.assert_close(codes[:6].mean(0), words.mean(0), rtol=1e-4, atol=1e-4)
        assert 0.7 < (codes[:6] - words.mean(0)).std() / (words - words.mean(0)).std() < 1.3


@pytest.mark.parametrize("name", ["tiger", "lc-rec"])
def test_without_codebooks_all_codes_start_differently(name, folder):
    _, codes = codes_in_encoder(build(name, folder, codebook_embeddings=False))
    assert torch.pdist(codes).min() > 0.2 * torch.pdist(codes).mean()


@pytest.mark.parametrize(
    ("name", "left_out"), [("mender-tok", "encoder"), ("mender-tok", "codebooks"), ("tiger", "catalogue")]
)
def test_what_is_missing_is_named(name, left_out, folder):
    given = {"encoder": folder, "catalogue": random_catalogue(len(WORDS), [3, 3, 3]), "codebooks": CODEBOOKS}
    with pytest.raises(ValueError, match=f"preset {name} needs {left_out}="):
        build_method(load_preset(name, **SMALL), shop_items(), **{**given, left_out: None})


@pytest.mark.parametrize("name", ["mender-fid", "text-search"])
def test_titles_are_encoded_where_that_is_asked_for(name, folder, monkeypatch):
    events = []
    monkeypatch.setattr(BertModel, "to", lambda self, device: events.append(device) or self)
    monkeypatch.setattr(methods, "encode_titles", lambda *given, **more: events.append("encode") or table)
    table = torch.zeros(len(WORDS), 24), torch.ones(len(WORDS), dtype=torch.bool)
    settings = {"encoder": folder, "catalogue": random_catalogue(len(WORDS), [3, 3, 3]), "codebooks": CODEBOOKS}
    build_method(load_preset(name), shop_items(), **settings, device="cuda:1")
    assert events == ["cuda:1", "encode", "cpu"]


def test_unfit_uses_are_refused(folder, examples, tmp_path):
    with pytest.raises(ValueError, match="popularity is not trained by gradient"):
        make_trainer(build("popularity", folder), examples, tmp_path)
    with pytest.raises(ValueError, match=r'needs items\["text"\]'):
        items = {name: column for name, column in shop_items().items() if name != "text"}
        build_method(load_preset("text-search"), items, encoder=folder)


def test_features_without_text_labels_join_alignment_tasks(folder, examples, tmp_path):
    trainer = make_trainer(build("lc-rec", folder), examples, tmp_path)
    data = trainer.train_dataset
    assert isinstance(data, datasets.Dataset)
    asks_for_text = [bool(labels) for labels in data["text_labels"]]
    assert sum(asks_for_text) == len(WORDS)
    assert all((item == -1) == text for item, text in zip(data["item"], asks_for_text, strict=True))


def texts(count: int = 400) -> list[str]:
    """Sentences of made-up words, many of them equally frequent."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefgh", k=chance.randint(2, 9))) for _ in range(300)]
    return [" ".join(chance.choices(words, k=6)) for _ in range(count)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 .* is too large"),
        ({"_attn_implementation": "org/kernel"}, "names code of others"),
    ],
)
def test_encoders_of_strangers_are_looked_at_before_anything_is_made_of_them(change, message, tmp_path):
    encoder = Path(encoder_folder(tmp_path))
    fields = json.loads((encoder / "config.json").read_text("utf-8"))
    (encoder / "config.json").write_text(json.dumps(fields | change), "utf-8")
    with pytest.raises(ValueError, match=message):
        build("mender-tok", str(encoder))


def test_the_same_texts_give_the_same_words_whatever_their_order():
    own = texts()
    first = word_tokenizer(own, 200)
    chance = random.Random(1)
    for _ in range(4):
        again = word_tokenizer(chance.sample(own, len(own)), 200)
        assert again.get_vocab() == first.get_vocab()
        assert again(own[:20])["input_ids"] == first(own[:20])["input_ids"]


def test_a_vocabulary_has_at_most_the_tokens_asked_for():
    assert len(word_tokenizer(texts(), 200)) == 200
    assert len(word_tokenizer(["tea"], 200)) < 20


def test_special_tokens_frame_every_text(tmp_path):
    for tokenizer in (word_tokenizer(texts(), 200), code_only_tokenizer()):
        tokenizer.save_pretrained(tmp_path)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        for each in (tokenizer, loaded):
            assert each.pad_token_id == 0
            assert each("")["input_ids"] == [each.eos_token_id]
            assert each("Ω")["input_ids"] == [each.unk_token_id, each.eos_token_id]


@pytest.mark.parametrize(
    ("mark", "pieces"),
    [
        ("WordPiece", ["[PAD]", "in", "rogue", "##fusion", "##s", "##", ",", "茶", "▁"]),
        ("SentencePiece", ["[PAD]", "▁in", "▁rogue", "fusion", "s", "▁", ",", "▁茶", "##"]),
        ("bytes of GPT-2", ["[PAD]", "Ġin", "Ġrogue", "fusion", "s", "Ġ", ",", "Ġèī¶", "##", "âĢ"]),
        ("no mark", ["[PAD]", "in", "rogue", "fusion", "s", ","]),
    ],
)
def test_vocabularies_say_what_tokens_are_to_words(mark, pieces):
    class Vocabulary:
        all_special_ids = (0,)

        def get_vocab(self):
            # A gap in the ids, and one that is no text.
            return {piece: token + 5 * (token > 2) for token, piece in enumerate(pieces)} | {"beyond": 99}

        def convert_tokens_to_string(self, tokens):
            letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
            return bytes(letters[letter] for letter in "".join(tokens)).decode(errors="replace")

    found = word_roles(Vocabulary(), 20).tolist()
    known = {piece: Role(found[token + 5 * (token > 2)]).name for token, piece in enumerate(pieces)}
    words = {piece: role for piece, role in known.items() if role != "OTHER"}
    expected = ["SHORT", "BEGINS", "CONTINUES", "ENDING"]
    assert words == ({} if mark == "no mark" else dict(zip(pieces[1:5], expected, strict=True)))
    assert sum(found) == sum(map(Role.__getitem__, words.values()))


def test_plurals_and_pieces_are_looked_up_as_the_word(tmp_path):
    vocabulary = "[PAD] [UNK] [CLS] [SEP] [MASK] in mug tea to write ##fusion ##s".split()
    tokenizer = BertTokenizer(vocab={piece: token for token, piece in enumerate(vocabulary)})
    folder = encoder_folder(tmp_path)
    tokenizer.save_pretrained(folder)
    titles = ["infusion", "mug", "tea infusions", "mugs"]
    items = {"item_id": list("abcd"), "title": titles, "text": titles}
    method = build_method(load_preset("text-search"), items, encoder=folder)
    lexical = method.model.experts.lexical

    def scores(text: str) -> list[int]:
        tokens = torch.tensor(method.processor.text_tokens([text]))
        return lexical(lexical.terms(tokens))[0].nonzero().flatten().tolist()

    found = {text: scores(text) for text in ("to write in", "infusion", "infusions", "mugs", "mug")}
    assert found == {"to write in": [], "infusion": [0, 2], "infusions": [0, 2], "mugs": [1, 3], "mug": [1, 3]}
