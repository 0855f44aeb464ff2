"""What the encoder reads, and how rows become items again."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from doubles import random_catalogue, shop_items, tiny_model, word_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

from modeling_mender import MenderProcessor
from modeling_mender.configuration_mender import KINDS
from modeling_mender.processing_mender import add_code_tokens
from modeling_mender.request import Request
from modeling_mender.wording import avoid_sentence, split_exclusions
from preference_benchmark.embedding import TextEmbedder
from preference_benchmark.preferences.polarity import NEGATIVE, invert, preference_polarity

TITLES = ["green tea", "rose soap", "glass lamp", "blue mug"]
IDS = ["tea-1", "soap-1", "lamp-1", "mug-1"]


@pytest.fixture
def processor():
    return MenderProcessor(word_tokenizer(), {"item_id": IDS, "title": TITLES}, max_length=32)


def text(processor, input_ids):
    return processor.tokenizer.decode(input_ids, skip_special_tokens=True)


def test_prompt_names_preference_then_titles_oldest_first(processor):
    inputs = processor("find gentle soap", ["mug-1", "tea-1"])
    assert text(processor, inputs["input_ids"][0]) == "instructions : find gentle soap . items : blue mug , green tea"
    whole = processor.tokenizer("instructions: find gentle soap. items: blue mug, green tea", return_tensors="pt")
    assert torch.equal(inputs["input_ids"], whole["input_ids"])


def test_each_half_may_be_missing(processor):
    assert text(processor, processor(preference="find tea")["input_ids"][0]) == "instructions : find tea ."
    assert text(processor, processor(history=["tea-1"])["input_ids"][0]) == "items : green tea"
    assert text(processor, processor("  ", ["tea-1"])["input_ids"][0]) == "items : green tea"
    with pytest.raises(ValueError, match="user 0 has neither a preference nor a history"):
        processor("", [])
    with pytest.raises(ValueError, match="user 1 has neither"):
        processor(["find tea", " "], [[], []])


def test_batches_and_several_preferences(processor):
    both = processor([["find tea.", "avoid soap"], ["find lamp"]], [["mug-1"], []])
    assert text(processor, both["input_ids"][0]) == "instructions : find tea . avoid soap . items : blue mug"
    assert text(processor, both["input_ids"][1]) == "instructions : find lamp ."
    assert both["attention_mask"].sum(1).tolist() == [14, 7]
    same = processor(["find tea", "avoid soap"], ["mug-1"])
    assert text(processor, same["input_ids"][0]) == "instructions : find tea . avoid soap . items : blue mug"
    with pytest.raises(ValueError, match="2 preferences but 1 histories"):
        processor(["find tea", "find mug"], [["mug-1"]])


def test_an_empty_history_is_one_users(processor):
    wishes = ["find tea", "avoid soap"]
    for history in ([], ()):
        one = processor(wishes, history)
        assert [text(processor, ids) for ids in one["input_ids"]] == ["instructions : find tea . avoid soap ."]
    # Without a history, or with one each, the texts are those of as many users.
    for batch in (processor(wishes), processor(wishes, [[], []]), processor([[wish] for wish in wishes], [])):
        expected = ["instructions : find tea .", "instructions : avoid soap ."]
        assert [text(processor, ids) for ids in batch["input_ids"]] == expected
    with pytest.raises(ValueError, match="user 0 has neither a preference nor a history"):
        processor([], [])
    for lists in ([["find tea"], ["avoid soap"]], [None, "find tea"]):
        with pytest.raises(ValueError, match="2 preferences but one history of 1 items; pass a list of histories"):
            processor(lists, ["mug-1"])


FORMS = ["find tea", "find tea.", " find tea . ", ["find tea"], ["find tea.", " "], ("find tea...",)]


@pytest.mark.parametrize("history", ["titles", "codes", "states", "vectors", "none"])
def test_all_forms_of_a_preference_are_rendered_in_the_same_way(history):
    processor = in_mode(history)
    expected = processor("find tea", ["b"])["input_ids"]
    for preference in FORMS:
        assert torch.equal(processor(preference, ["b"])["input_ids"], expected)
        assert torch.equal(processor([preference], [["b"]])["input_ids"], expected)
        assert [processor.render(preference, [1])] == expected.tolist()


@pytest.mark.parametrize("history", ["titles", "codes", "states", "vectors", "none"])
@pytest.mark.parametrize("name", ["[PAD]", "[SEP]", "[CLS]", "<a_1>"])
def test_names_of_special_tokens_are_text(history, name):
    processor = in_mode(history)
    special = {*processor.tokenizer.all_special_ids, processor.tokenizer.convert_tokens_to_ids("<a_1>")}
    special.discard(processor.tokenizer.unk_token_id)
    plain = processor("find tea soap", [], return_tensors=None)["input_ids"][0]
    ids = processor(f"find {name} tea {name} soap", [], return_tensors=None)["input_ids"][0]
    assert [token for token in ids if token in special] == [token for token in plain if token in special]
    assert [token for token in ids if token != processor.tokenizer.unk_token_id] == [
        token for token in plain if token != processor.tokenizer.unk_token_id
    ]


def test_half_a_character_is_refused(processor):
    for request in (("find tea \ud83d", None), (["find tea", "\udc80"], ["tea-1"])):
        with pytest.raises(ValueError, match=r"contains the lone surrogate '\\ud\w+' at position \d+; remove it"):
            processor(*request)


AVOIDED = {
    "vanilla scent": "Avoid vanilla scent",
    "Vanilla": "Avoid Vanilla",
    "notebooks": "Avoid notebooks",
    "nothingness": "Avoid nothingness",
    "less-known brands": "Avoid less-known brands",
    "Avoid  strong\nsmells": "Avoid strong smells",
    "exclude candles": "exclude candles",
    "No wool": "No wool",
    "don't show me wool": "Avoid wool",
    "Please do not recommend us wool": "Avoid wool",
    "I don’t want to see wool": "Avoid wool",
    "I really don't like wool": "Avoid wool",
    "i can't stand wool": "Avoid wool",
    "I am not interested in wool": "Avoid wool",
    "The user hates wool": "Avoid wool",
    "never wool": "Avoid wool",
    "without sugar": "Avoid sugar",
    "please skip wool": "Avoid wool",
    "stay away from wool": "Avoid wool",
    "nothing with wool": "Avoid wool",
    "not too sweet": "Avoid too sweet",
    "without": "Avoid without",
    "": "",
    " \n": "",
}


@pytest.mark.parametrize("typed", AVOIDED)
def test_what_to_avoid_becomes_one_sentence(typed):
    assert avoid_sentence(typed) == AVOIDED[typed]
    assert avoid_sentence(avoid_sentence(typed)) == avoid_sentence(typed)


WISHES = {
    "herbal infusions without mint": ("herbal infusions", ["mint"]),
    "tea but not green": ("tea", ["green"]),
    "tea - no mint": ("tea", ["mint"]),
    "something sweet, no nuts please": ("something sweet", ["nuts"]),
    "shampoo without perfume or alcohol": ("shampoo", ["perfume", "alcohol"]),
    "a notebook, no spiral binding, in navy blue": ("a notebook, in navy blue", ["spiral binding"]),
    "a warm blanket that isn't made of wool": ("a warm blanket", ["wool"]),
    "scarf in orange, but nothing with stripes": ("scarf in orange", ["stripes"]),
    "coffee that is not too strong": ("coffee", ["strong"]),
    "I want a mug. Not blue, please.": ("I want a mug", ["blue"]),
    "I like tea, don't give me mint": ("I like tea", ["mint"]),
    "plants other than ferns": ("plants", ["ferns"]),
    "coffee, not decaf": ("coffee", ["decaf"]),
    "coffee, not decaf or instant, in a tin": ("coffee, in a tin", ["decaf", "instant"]),
    "tea - not green": ("tea", ["green"]),
    "tea, and not mint": ("tea", ["mint"]),
    "a gift, not for kids": ("a gift", ["for kids"]),
    "puzzle games instead of shooters": ("puzzle games", ["shooters"]),
    "a scarf rather than a hat": ("a scarf", ["a hat"]),
    "tea without that bitter taste": ("tea", ["that bitter taste"]),
}
KEPT = (
    *("a no nonsense notebook", "a game without end", "not sure, maybe tea", "Dr. No and other films", "without sugar"),
    *(
        "tea but not tea",
        "a gift for somebody who has no time",
        "headphones, no need for a case",
        "strong coffee, not necessarily dark",
        "shoes, not to be worn outside",
        "a game, not that hard",
        "not only tea, but also coffee",
        "strong and not bitter coffee",
        "games that do not need a screen",
        "",
    ),
)


@pytest.mark.parametrize("typed", [*WISHES, *KEPT])
def test_what_a_wish_excludes(typed):
    wish, phrases = split_exclusions(typed)
    assert (wish, phrases) == WISHES.get(typed, (typed, []))
    assert split_exclusions(wish) == (wish, [])


def test_a_request_with_an_exclusion_is_the_request_with_avoid():
    items = {"item_id": ["a", "b"], "title": ["Dress without sleeves", "Fragrance-free soap"]}
    processor = MenderProcessor(word_tokenizer(), items, experts=True, history="vectors")

    def read(preference, **fields):
        request = processor.understood(Request(preference=preference, **fields))
        return request.preference, request.avoid

    assert read("tea without mint", avoid="soap") == (("tea",), ("soap", "mint"))
    assert read({"tea, no mint": 2, "lamp": 1}) == ({"tea": 2.0, "lamp": 1.0}, ("mint",))
    # Items are described in these words, so they ask for a property.
    assert read("dress without sleeves") == (("dress without sleeves",), ())
    assert read("soap without fragrance or blue") == (("soap, fragrance-free",), ("blue",))
    one, two = Request(preference="tea without mint"), Request(preference="tea", avoid="mint")
    assert processor.features(one) == processor.features(two) and processor.avoided(one) == ["mint"]
    paper = MenderProcessor(word_tokenizer(), items)
    assert paper.understood(one) is one


def test_the_benchmark_reads_these_sentences_as_negative():
    sentences = pl.Series([avoid_sentence(typed) for typed in AVOIDED if typed.strip()])
    assert set(preference_polarity(sentences, rules="paper")) == {NEGATIVE}
    # Whatever the benchmark reads as negative says the same after it: the opposites agree in all but their verb.
    negative = [typed for typed in AVOIDED if typed.strip() and invert(typed, rules="extended")]
    assert len(negative) > 10
    for typed in negative:
        wanted = invert(typed, rules="extended").split()[-1], invert(avoid_sentence(typed)).split()[-1]
        assert wanted[0] == wanted[1]


def test_what_to_avoid_comes_after_the_preferences(processor):
    expected = processor(["find tea", "Avoid soap", "No lamp"], ["mug-1"])["input_ids"]
    for avoid in (["soap", "No lamp."], ["not soap", "No lamp"]):
        assert torch.equal(processor("find tea.", ["mug-1"], avoid=avoid)["input_ids"], expected)
        assert torch.equal(processor(["find tea"], [["mug-1"]], avoid=[avoid])["input_ids"], expected)
    assert text(processor, processor(avoid="soap")["input_ids"][0]) == "instructions : avoid soap ."
    both = processor(["find tea", None], [["mug-1"], ["tea-1"]], avoid=[None, ["soap", "lamp"]])["input_ids"]
    assert text(processor, both[0]) == "instructions : find tea . items : blue mug"
    assert text(processor, both[1]) == "instructions : avoid soap . avoid lamp . items : green tea"
    with pytest.raises(ValueError, match="1 texts to avoid but 2 histories"):
        processor(["find tea", None], [["mug-1"], ["tea-1"]], avoid=["soap"])
    with pytest.raises(ValueError, match="1 texts to avoid for 2 users"):
        processor(["find tea", "find mug"], avoid=[["soap"]])


def test_long_histories_lose_their_oldest_titles(processor):
    processor.max_length = 16
    inputs = processor("find gentle tea", ["tea-1", "soap-1", "lamp-1", "mug-1"])
    assert text(processor, inputs["input_ids"][0]) == "instructions : find gentle tea . items : glass lamp , blue mug"
    assert inputs["input_ids"].shape[1] == 15
    processor.max_length = 6
    long = processor("find " + "gentle " * 50, ["tea-1"])["input_ids"]
    assert long.shape[1] == 6 and long[0, -1] == processor.tokenizer.sep_token_id
    processor.max_length = 5
    assert text(processor, processor(history=["tea-1"])["input_ids"][0]) == "items : green"


def test_unknown_items(processor):
    with pytest.raises(ValueError, match="item 'tea-2' is not among the 4 items"):
        processor("find tea", ["tea-2"])
    kept = processor("find tea", ["tea-2", "mug-1"], unknown_items="skip")
    assert text(processor, kept["input_ids"][0]) == "instructions : find tea . items : blue mug"
    with pytest.raises(ValueError, match="unknown_items='drop'"):
        processor("find tea", unknown_items="drop")


def test_rows_become_items(processor):
    assert processor.item_indices(["mug-1", "tea-1"]) == [3, 0]
    assert processor.ids(torch.tensor([3, 0, -1])) == ["mug-1", "tea-1"]
    assert processor.decode_items([1, -1]) == [{"item_id": "soap-1", "title": "rose soap"}]


def test_rows_without_an_item_say_what_to_call(processor):
    for read in (processor.ids, processor.decode_items):
        with pytest.raises(IndexError, match="item index 4 is out of range.*call set_items with all items"):
            read(torch.tensor([3, 4, -1]))
    processor.set_items({"item_id": [*IDS, "rose-1"], "title": [*TITLES, "rose"]})
    assert processor.ids([4, -1]) == ["rose-1"]


def test_items_are_checked(processor):
    with pytest.raises(ValueError, match="2 item ids but 1 titles"):
        processor.set_items({"item_id": ["a", "b"], "title": ["x"]})
    with pytest.raises(ValueError, match="item id 'a' occurs more than once"):
        processor.set_items({"item_id": ["a", "b", "a"], "title": ["x", "y", "z"]})


def test_saved_processor_reads_the_same(processor, tmp_path):
    tiny_model(random_catalogue(4, [2, 2])).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    for loaded in (AutoProcessor.from_pretrained(tmp_path), MenderProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, MenderProcessor)
        assert (loaded.item_ids, loaded.titles, loaded.max_length) == (IDS, TITLES, 32)
        again = loaded("find gentle soap", ["mug-1"])
        assert torch.equal(again["input_ids"], processor("find gentle soap", ["mug-1"])["input_ids"])


MISSPELT = {"find galss": "find glass", "a vanila scent": "a vanilla scent"}
"""The first word is in a title, the second in a text only."""


@pytest.fixture(params=["titles", "vectors", "states"])
def correcting(request):
    items = {"item_id": IDS, "title": TITLES, "text": ["Vanilla tea"] * 4}
    return MenderProcessor(word_tokenizer(), items, history=request.param, experts=request.param == "vectors")


def test_misspelt_requests_are_corrected(correcting):
    for typed, meant in MISSPELT.items():
        assert correcting.corrected(typed) == meant
        for name in ("preference", "inferred", "avoid"):
            given = {"preference": "tea"} if name == "avoid" else {}
            found, expected = (correcting(**{**given, name: text}, history=["tea-1"]) for text in (typed, meant))
            assert {key: value.tolist() for key, value in found.items()} == {
                key: value.tolist() for key, value in expected.items()
            }


def test_words_that_the_tokenizer_has_are_not_misspelt(processor):
    processor.set_items({"item_id": ["a"], "title": ["gentler findings"]})
    assert processor.corrected("gentle find") == "gentle find"
    assert processor.corrected("gentlor find") == "gentler find"


def test_saved_words_correct_in_the_same_way(correcting, tmp_path):
    correcting.save_pretrained(tmp_path / "on")
    loaded = MenderProcessor.from_pretrained(tmp_path / "on")
    assert {typed: loaded.corrected(typed) for typed in MISSPELT} == MISSPELT
    correcting.correct_spelling = False
    correcting.save_pretrained(tmp_path / "off")
    assert (tmp_path / "off" / "items.json").read_bytes() == (tmp_path / "on" / "items.json").read_bytes()
    loaded = MenderProcessor.from_pretrained(tmp_path / "off")
    assert {typed: loaded.corrected(typed) for typed in MISSPELT} == {typed: typed for typed in MISSPELT}


def test_words_of_added_items_are_known(correcting):
    assert correcting.corrected("a procelain teapod") == "a procelain teapod"
    titles = [*TITLES, "porcelain"]
    correcting.set_items({"item_id": [*IDS, "new"], "title": titles, "text": [*TITLES, "a teapot"]}, new_states=True)
    assert correcting.corrected("a procelain teapod") == "a porcelain teapot"
    assert {typed: correcting.corrected(typed) for typed in MISSPELT} == MISSPELT


def test_words_are_counted_alike_at_every_edit_and_when_loaded(correcting, tmp_path):
    correcting.corrected("galss")
    titles, texts = ["plum mug", *TITLES[1:]], ["Sweet plum", *["Vanilla tea"] * 3]
    correcting.set_items({"item_id": IDS, "title": titles, "text": texts}, new_states=True)
    grown = {"item_id": [*IDS, "new"], "title": [*titles, "plums"], "text": [*texts, "plums"]}
    correcting.set_items(grown, new_states=True)
    correcting.save_pretrained(tmp_path)
    loaded = MenderProcessor.from_pretrained(tmp_path)
    loaded.corrected("galss")
    assert correcting._speller.words == loaded._speller.words
    assert correcting.corrected("a pulm muug") == loaded.corrected("a pulm muug") == "a plum muug"


def test_what_is_not_read_is_not_corrected():
    processor = MenderProcessor(word_tokenizer(), {"item_id": IDS, "title": TITLES}, preference="none")
    assert processor.corrected("find galss") == "find galss"


def test_a_misspelt_wish_to_want_and_avoid_the_same_is_refused():
    processor = MenderProcessor(word_tokenizer(), {"item_id": IDS, "title": TITLES}, experts=True)
    with pytest.raises(ValueError, match="user 0 wants 'glass' and wants to avoid it"):
        processor("galss", avoid="glass")


def test_an_encoder_saved_from_a_model_is_an_encoder_like_any_other(processor, tmp_path):
    model = tiny_model(random_catalogue(4, [2, 2]))
    expected = processor.tokenizer("find gentle soap")["input_ids"]
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded = AutoProcessor.from_pretrained(tmp_path / "model")
    for name, tokenizer in (("own", processor.tokenizer), ("loaded", loaded.tokenizer)):
        model.encoder.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        assert AutoTokenizer.from_pretrained(tmp_path / name)("find gentle soap")["input_ids"] == expected
        assert TextEmbedder(str(tmp_path / name)).encode(["find gentle soap"]).shape == (1, 24)


def test_a_missing_items_file_is_an_error(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    (tmp_path / "items.json").unlink()
    with pytest.raises(OSError, match="items.json"):
        MenderProcessor.from_pretrained(tmp_path)


CODE_SIZES = [3, 3]


def in_mode(history, preference="text", **kwargs):
    tokenizer = word_tokenizer()
    add_code_tokens(tokenizer, CODE_SIZES)
    items = {"item_id": ["a", "b", "c"], "title": ["green tea", "mint", "rose"], "codes": [[0, 1], [2, 0], [1, 1]]}
    return MenderProcessor(
        tokenizer, items, history=history, preference=preference, codebook_sizes=CODE_SIZES, **kwargs
    )


def words(processor, inputs):
    return processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())


def test_histories_are_written_as_codes():
    processor = in_mode("codes")
    expected = "[CLS] instructions : find soap . items : <a_2> <b_0> <a_0> <b_1> [SEP]".split()
    assert words(processor, processor("find soap", ["b", "a"])) == expected
    processor = in_mode("codes", max_history=1)
    assert words(processor, processor("", ["b", "a"])) == "[CLS] items : <a_0> <b_1> [SEP]".split()
    assert (
        words(in_mode("codes", "none"), in_mode("codes", "none")("find soap", ["b"]))
        == "[CLS] <a_2> <b_0> [SEP]".split()
    )


@pytest.mark.parametrize("history", ["titles", "codes", "states", "vectors", "indices"])
def test_the_latest_items_are_read_and_none_if_none_is_wanted(history):
    read = [in_mode(history, max_history=most)("find soap", ["a", "b", "c"])["input_ids"].tolist() for most in range(3)]
    assert read[0] == in_mode(history)("find soap", [])["input_ids"].tolist()
    for most in (1, 2):
        assert read[most] == in_mode(history)("find soap", ["a", "b", "c"][-most:])["input_ids"].tolist()


@pytest.mark.parametrize("most", [1, 2, 3])
def test_an_input_without_room_for_text_has_its_special_tokens(most):
    processor = in_mode("titles", max_length=most)
    assert words(processor, processor("find soap", ["a"])) == ["[CLS]", *["instructions"] * (most - 2), "[SEP]"]


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="the batch is empty"):
        in_mode("titles")([])


def test_signs_belong_to_the_letters_that_they_stand_at():
    items = {"item_id": ["a", "b"], "title": ["\u0926\u093f\u0932", "caf\u00e9 noir"]}
    processor = MenderProcessor(word_tokenizer(), items)
    assert processor.items_naming(["\u0926\u093e\u0932"]) == []  # of the same consonants
    assert processor.items_naming(["\u0926\u093f\u0932"]) == [0]
    assert processor.items_naming(["cafe\u0301"]) == [1] and processor.items_naming(["cafe"]) == []


def test_what_a_long_text_excludes_is_read_in_a_moment():
    blanks = " " * 200_000  # hours, if a pattern tries the rest of the blanks from each of them
    assert split_exclusions(f"tea{blanks}without mint") == ("tea", ["mint"])
    assert split_exclusions(f"tea{blanks}please") == (f"tea{blanks}please", [])


def test_items_alone_are_numbers_after_a_start_token():
    processor = in_mode("indices", "none")
    assert processor("find soap", ["b", "a"])["input_ids"].tolist() == [[4, 2, 1]]
    assert processor("find soap", [])["input_ids"].tolist() == [[4]]


@pytest.mark.parametrize("history", ["titles", "states"])
def test_what_people_write_is_not_kept(history):
    processor = in_mode(history)
    processor([f"find tea {number}" for number in range(50)], [["a", "b", "c"]] * 50)
    # Per title one entry with a comma behind it and one without, and the heading.
    assert len(processor._title_tokens) <= 2 * 3 + 1
    processor.set_items({"item_id": ["d"], "title": ["lamp"]}, new_states=True)
    assert not processor._title_tokens


def test_what_a_method_cannot_read_may_be_missing():
    assert words(in_mode("none"), in_mode("none")("", ["a"])) == ["[CLS]", "[SEP]"]
    assert words(in_mode("codes", "none"), in_mode("codes", "none")("find", [])) == ["[CLS]", "[SEP]"]
    with pytest.raises(ValueError, match="neither a preference nor a history"):
        in_mode("codes")("", [])


def test_a_preference_is_one_vector():
    processor = in_mode("vectors")
    inputs = processor(["find soap", ""], [["b", "a"], ["c"]])
    base = len(processor.tokenizer)
    assert inputs["input_ids"][0, 4:].tolist() == [base + 1, base]
    assert inputs["attention_mask"].tolist() == [[1, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0]]


def test_vectors_need_no_tokens_of_titles(monkeypatch):
    processor = in_mode("vectors")
    monkeypatch.setattr(processor, "title_inputs", None)
    base = len(processor.tokenizer)
    assert processor("", ["c", "a"])["input_ids"].tolist() == [[base + 2, base]]


@pytest.mark.parametrize("history", ["codes", "states", "vectors", "indices"])
def test_modes_survive_saving(history, tmp_path):
    processor = in_mode(history)
    processor.save_pretrained(tmp_path)
    loaded = MenderProcessor.from_pretrained(tmp_path)
    for name in ("input_ids", "attention_mask"):
        expected = processor(["find soap"], [["b", "a"]])[name]
        assert loaded(["find soap"], [["b", "a"]])[name].tolist() == expected.tolist()


def test_bad_modes_are_refused():
    with pytest.raises(ValueError, match="history='pictures'"):
        in_mode("pictures")
    with pytest.raises(ValueError, match="needs the codebook_sizes"):
        MenderProcessor(word_tokenizer(), history="codes")
    with pytest.raises(ValueError, match="the codes of all 1 items, got 0"):
        MenderProcessor(word_tokenizer(), {"item_id": ["a"], "title": ["a"]}, history="codes", codebook_sizes=[2])
    with pytest.raises(ValueError, match="call add_code_tokens first"):
        MenderProcessor(
            word_tokenizer(), {"item_id": ["a"], "title": ["a"], "codes": [[0]]}, history="codes", codebook_sizes=[2]
        )("", ["a"])
    with pytest.raises(ValueError, match="already has 6 of the 6 code tokens"):
        add_code_tokens(in_mode("codes").tokenizer, CODE_SIZES)


def expert_processor(history: str = "vectors") -> MenderProcessor:
    items = shop_items()
    return MenderProcessor(word_tokenizer(), items, max_length=16, history=history, kinds=True, experts=True)


def words_of(processor: MenderProcessor, input_ids) -> list[str]:
    special = {"[CLS]", "[SEP]", "[PAD]"}
    tokens = processor.tokenizer.convert_ids_to_tokens(
        [int(ids) for ids in input_ids if ids < len(processor.tokenizer)]
    )
    return [token for token in tokens if token not in special]


def test_what_to_avoid_stays_out_of_the_text_that_experts_read():
    processor = expert_processor()
    found = processor(["find tea", "find mug"], [["item-soap"], []], avoid=[["Avoid mint.", "no green"], None])
    assert words_of(processor, found["input_ids"][0]) == ["find", "tea"]
    assert found["avoid_input_ids"].shape[:2] == (2, 2) and "expert_input_ids" not in found
    assert [words_of(processor, phrase) for phrase in found["avoid_input_ids"][0]] == [["mint"], ["green"]]
    assert not words_of(processor, found["avoid_input_ids"][1].flatten())
    assert "avoid_input_ids" not in processor("find tea", ["item-soap"], avoid=["", " "])
    with pytest.raises(ValueError, match="'mint' and wants to avoid it"):
        processor("Mint.", avoid="mint")


def test_a_negation_typed_as_preference_reaches_experts_as_what_to_avoid():
    processor = expert_processor()
    found = processor(["avoid mint", "find tea"], [["item-soap"], ["item-mug"]])
    assert words_of(processor, found["input_ids"][0]) == ["avoid", "mint"]  # the generator was trained on it
    assert words_of(processor, found["expert_input_ids"][0]) == []
    assert words_of(processor, found["expert_input_ids"][1]) == ["find", "tea"]
    assert words_of(processor, found["avoid_input_ids"][0, 0]) == ["mint"]


def test_kinds_are_told_by_how_a_preference_comes():
    processor = expert_processor()
    found = processor(["find tea", None, None], [["item-mug"]] * 3, inferred=[None, "find soap", None])
    assert [KINDS[kind] for kind in found["kind"].tolist()] == ["stated", "inferred", "silent"]
    with pytest.raises(ValueError, match="one of the two"):
        processor("find tea", inferred="find soap")


def test_dial_and_weights_make_conditions():
    processor = expert_processor()
    found = processor([["find tea", "rose"], None], [["item-mug"], ["item-mug"]], dial=2.0)
    assert found["input_ids"].shape[:2] == (2, 2) and found["condition_weights"].tolist() == [[2.0, -1.0], [1.0, 0.0]]
    assert found["kind"].tolist() == [[0, 2], [2, 2]]
    assert words_of(processor, found["input_ids"][0, 0]) == ["find", "tea", ".", "rose"]
    assert words_of(processor, found["input_ids"][0, 1]) == []
    found = processor({"tea": 3, "rose": 1}, ["item-mug"])
    assert found["condition_weights"].tolist() == [[0.75, 0.25]]
    assert [words_of(processor, ids) for ids in found["input_ids"][0]] == [["tea"], ["rose"]]
    with pytest.raises(ValueError, match="dial=inf"):
        processor("tea", ["item-mug"], dial=float("inf"))


def test_experts_read_inputs_of_their_own_beside_titles():
    processor = expert_processor("titles")
    found = processor(["find tea", ""], [["item-mug"], ["item-rose", "item-tea"]])
    own, first = found["expert_input_ids"], len(processor.tokenizer)
    assert words_of(processor, own[0]) == ["find", "tea"] and words_of(processor, own[1]) == []
    indices = [[int(ids) - first for ids in row if ids >= first] for row in own]
    assert indices == [processor.item_indices(["item-mug"]), processor.item_indices(["item-rose", "item-tea"])]


@pytest.mark.parametrize("text", ["No mint", "Avoid mint.", "please don't show me mint", "I do not want mint"])
def test_typed_negations_are_phrases_to_avoid(text):
    found = expert_processor()(text, ["item-mug"])
    assert words_of(expert_processor(), found["avoid_input_ids"][0, 0]) == ["mint"]


@pytest.mark.parametrize(
    "text", ["no idea really, maybe mint", "not sure, mint?", "never tried mint, find some", "note"]
)
def test_hesitation_is_no_negation(text):
    assert "avoid_input_ids" not in expert_processor()(text, ["item-mug"])


def test_token_ids_with_gaps_are_text():
    tokens = {"[PAD]": 0, "[UNK]": 1, "tea": 7, "soap": 90}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    gaps = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    items = {"item_id": ["a", "b"], "title": ["tea", "soap"]}
    processor = MenderProcessor(gaps, items, history="vectors")
    (ids,) = processor("soap tea", ["b"])["input_ids"].tolist()
    assert len(gaps) == 4 and processor.text_vocabulary == 91
    assert processor.text_part(ids) == [90, 7] and ids[-1] == 91 + 1
