"""Search as you type finds what a scan finds, in any catalogue."""

from __future__ import annotations

import random

import pytest
from title_search import TitleSearch, words_of

WORDS = "tea teapot green greenhouse mug muggle rose prose 500 crème brûlée 茶".split()


def scan(titles, query):
    """Rows of titles that have, for each word typed, one that begins so."""
    beginnings = words_of(query)
    return {
        row
        for row, title in enumerate(titles)
        if beginnings and all(any(word.startswith(start) for word in words_of(title)) for start in beginnings)
    }


@pytest.mark.parametrize("seed", range(5))
def test_finds_what_a_scan_finds(seed):
    generator = random.Random(seed)
    titles = [" ".join(generator.choices(WORDS, k=generator.randint(1, 4))) for _ in range(200)]
    search = TitleSearch(titles)
    for _ in range(100):
        typed = " ".join(
            word[: generator.randint(1, 4)] for word in generator.choices(WORDS, k=generator.randint(1, 3))
        )
        found = search.find(typed, limit=1000)
        assert len(found) == len(set(found)) and set(found) == scan(titles, typed), typed


def test_titles_that_begin_so_come_first_then_the_shortest():
    titles = ["Big green tea", "Tea in a tin", "Tea", "Steam", "Teapot"]
    assert TitleSearch(titles).find("tea") == [2, 4, 1, 0]


def test_limit_and_exclusion():
    search = TitleSearch([f"tea {number}" for number in range(50)])
    assert search.find("te", limit=3, exclude=[0, 1]) == [2, 3, 4]


@pytest.mark.parametrize("query", ["", "  ", "?!", "zzz", "tea zzz"])
def test_nothing_to_find(query):
    assert TitleSearch(["tea", ""]).find(query) == []
    assert TitleSearch([]).find(query) == []


def test_case_and_accents_do_not_matter():
    assert TitleSearch(["Crème Brûlée", "茶 tea"]).find("BRULEE") == [0]
    assert TitleSearch(["Crème Brûlée", "茶 tea"]).find("茶") == [1]
