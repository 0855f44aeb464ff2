"""Misspelt words become the nearest word of the catalogue; all others stay."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_mender.spelling import LONGEST, Speller, common_words, count_words

SHOP = {
    "candle": 5, "candles": 8, "vanilla": 3, "scent": 2, "scents": 2, "atmospheric": 4, "roguelike": 6, "glass": 3,
    "class": 1, "metal": 2, "medal": 9, "straße": 1, "свеча": 4, "tulips": 2,
}  # fmt: skip


@pytest.fixture
def speller():
    return Speller(SHOP, {"hello", "there", "Paris"}.__contains__)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("candels with a vanila scent", "candles with a vanilla scent"),  # swapped, missing
        ("vaniilla", "vanilla"),  # doubled
        ("roguelije", "roguelike"),  # the key beside it
        ("atmosferic", "atmospheric"),  # two errors in a long word
        ("Candels, VANILA; (scemt)!", "Candles, VANILLA; (scent)!"),
        ("acndles", "candles"),
        ("  candels\n\tscent  ", "  candles\n\tscent  "),
        ("свечя", "свеча"),
        ("metaal", "metal"),  # "medal" is more frequent but two errors away
        ("mexal", "medal"),  # as near as "metal", and more frequent
        ("mefal", "medal"),  # the key beside it
        ("meyal", "metal"),
        ("scentt", "scent"),  # doubled, rather than "scents" with another letter
    ],
)
def test_misspelt_words_become_the_nearest(speller, typed, read):
    assert speller.correct(typed) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "candles with vanilla scent",
        "medals straßes",  # the singular is in the catalogue
        "tulip",  # and the plural
        "hello there Paris",
        "can",  # too short
        "candels2 B0012 4k cand_els",
        "candel's",
        "CanDels VanilaScent",
        "andles",  # people rarely miss the first letter
        "红色蜡烛 キャンドル שלום नमस्ते",
        "\ud83d\udc80 🕯️",
        "c" * 41,
        "candle" + "s" * LONGEST,
        "elephant",
    ],
)
def test_what_stays(speller, text):
    assert speller.correct(text) == text


def test_words_of_scripts_without_capital_letters_stay():
    # "Red candle" is in the catalogue, "blue candle" is not a misspelling of it.
    assert Speller({"红色蜡烛": 1}).correct("蓝色蜡烛") == "蓝色蜡烛"


def test_capitals_never_change_the_word():
    assert Speller({"straße": 1}).correct("STRASE") in ("STRASE", "straße")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("for Sleping", "for Sleeping"),  # missing
        ("sleeeping", "sleeping"),  # doubled
        ("trimmed, slepeing", "trimmed, sleeping"),  # swapped
        ("sleepinh trimmer", "sleepinh trimmer"),  # replaced: it may be a rare word
        ("candls", "candles"),  # the catalogue first
        ("vanilas", "vanillas"),  # two letters from the word of the catalogue
        ("tagss", "tagss"),  # short
        ("leeping selping lseeping", "leeping selping lseeping"),  # not the first letter, two letters, too short
        ("commute tagging", "commute tagging"),  # the last letter may be missing on purpose
    ],
)
def test_common_words_are_corrected_where_the_catalogue_has_none(typed, read):
    common = {"sleeping": 3, "sleepings": 1, "tags": 5, "trimmed": 2, "vanillas": 9, "commuter": 4, "taggings": 1}
    speller = Speller(SHOP, common.__contains__, lambda: common)
    assert speller.correct(typed) == read
    assert speller.extended({"porcelain": 1}).correct(typed) == read


def test_words_that_need_no_correction_need_no_index_of_the_language():
    speller = Speller(SHOP, {"sleeping"}.__contains__, pytest.fail)
    assert speller.correct("sleeping candls, vanilla") == "sleeping candles, vanilla"


def test_common_words_are_those_that_a_tokenizer_has_whole():
    class Tokenizer:
        def __init__(self, *tokens):
            self.get_vocab = lambda: {token: place for place, token in enumerate(tokens)}

    assert common_words(Tokenizer("[PAD]", "The", "the", "sleep", "##ing", "4k")) == {"the": 5, "sleep": 3}
    assert common_words(Tokenizer("<s>", "▁the", "▁Sleep", "ing", "▁", "▁4k")) == {"the": 5, "sleep": 4}
    assert common_words(Tokenizer("<s>", "Ġthe", "sleep")) == {"the": 2}
    letters = [f"w{chr(97 + number)}" for number in range(20)]
    assert {"the", "wa"} <= {*common_words(Tokenizer("the", "Ġ", *letters))}  # a letter of Maltese marks nothing


def test_an_empty_catalogue_corrects_nothing():
    assert Speller({}).correct("candels") == "candels"


def test_codes_are_not_counted_as_words():
    assert count_words(["MFC-J450 ink, Ink & INK", "women's"]) == {"mfc": 1, "ink": 3, "women": 1, "s": 1}


@cache
def by_definition(first: str, second: str) -> int:
    """Damerau-Levenshtein distance in which no letter is edited twice, as it is defined."""
    if not first or not second:
        return len(first) + len(second)
    steps = [
        by_definition(first[1:], second) + 1,
        by_definition(first, second[1:]) + 1,
        by_definition(first[1:], second[1:]) + (first[0] != second[0]),
    ]
    if len(first) > 1 and len(second) > 1 and first[:2] == second[1::-1]:
        steps.append(by_definition(first[2:], second[2:]) + 1)
    return min(steps)


BESIDE = {"a": "s", "s": "ad", "d": "s"}
WORDS = st.text("asd", min_size=4, max_size=12)


def slips(word: str) -> set[str]:
    """What one slip of the finger makes of a word of the letters a, s and d."""
    found = set()
    for place, letter in enumerate(word):
        before, after = word[:place], word[place + 1 :]
        found |= {before + after, before + 2 * letter + after, *(before + other + after for other in BESIDE[letter])}
        found.add(before + after[:1] + letter + after[1:])
    return found


@given(st.dictionaries(WORDS, st.integers(1, 3), max_size=30), WORDS)
def test_nearest_agrees_with_brute_force(words, word):
    errors = 1 if len(word) < 9 else 2
    ranks = [
        (by_definition(word, other), other[0] != word[0], word not in slips(other), -count, other)
        for other, count in words.items()
        if by_definition(word, other) <= errors and other[0] in word[:2] and word[0] in other[:2]
    ]
    assert Speller(words).nearest(word) == (min(ranks)[-1] if ranks else None)


COUNTS = st.dictionaries(WORDS, st.integers(1, 3), max_size=12)


@given(COUNTS, st.lists(COUNTS, max_size=3), WORDS, st.booleans())
def test_words_that_came_one_after_the_other_correct_as_all_at_once(words, later, word, asked):
    total, speller = Counter(words), Speller(words)
    if asked:  # otherwise the index is made at the end
        speller.nearest(word)
    for more in later:
        total.update(more)
        speller = speller.extended(more)
    assert speller.words == total and speller.nearest(word) == Speller(total).nearest(word)
    assert speller.correct(word) == Speller(total).correct(word)


LETTERS = st.characters(codec="utf-8") | st.sampled_from("abcABC '’-ßİ")


@given(st.lists(st.text(LETTERS, max_size=10), max_size=10), st.text(LETTERS, max_size=60))
def test_a_corrected_text_stays(texts, text):
    speller = Speller(count_words(texts))
    once = speller.correct(text)
    assert speller.correct(once) == once
    for known in texts:
        assert speller.correct(known) == known
