from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference_benchmark.preferences.llm.parsing import entries

TWO = ["Find a mug", "Avoid glass"]


@pytest.mark.parametrize(
    "answer",
    [
        '["Find a mug", "Avoid glass"]',
        '{"preferences": ["Find a mug", "Avoid glass"]}',
        '{"likes": ["Find a mug"], "dislikes": ["Avoid glass"]}',
        '[{"preference": "Find a mug"}, {"preference": "Avoid glass"}]',
        '{"1": "Find a mug", "2": "Avoid glass"}',
        'Sure! Here they are:\n```json\n["Find a mug", "Avoid glass"]\n```\nAnything else?',
        "As [requested]: {'preferences': ['Find a mug', 'Avoid glass',]}",
        '<think>["one", "two"]</think>["Find a mug", "Avoid glass"]',
        '["Find a mug", "Avoid glass",]',
        '["Find a mug" "Avoid glass"]',
        '{"preferences": ["Find a mug", "Avoid glass", "No th',
        '{"preferences": ["Find a mug", "Avoid glass"',
        "{“preferences”: [“Find a mug”, “Avoid glass”]}",
        "{preferences: ['Find a mug', 'Avoid glass']}",
        '["Find\\n a  mug", "Avoid glass"]',
        "1. Find a mug\n2) Avoid glass",
        "Here:\n- Find a mug\n* 'Avoid glass'",
        '{"note": []} {"preferences": ["Find a mug", "Avoid glass"]}',
    ],
)
def test_untidy_answers(answer):
    assert entries(answer) == TWO


@pytest.mark.parametrize("answer", ["", "   ", "I cannot do that.", "[]", "{}", "[1, 2]", "null", "[" * 50_000, "{'a"])
def test_nothing_to_find(answer):
    assert entries(answer) == []


def test_marks_inside_a_string_do_not_end_it():
    assert entries("['Find books that don't bore', 'Avoid O'Neill's style']") == [
        "Find books that don't bore",
        "Avoid O'Neill's style",
    ]
    assert entries('["Find \\"vintage\\" mugs", "Avoid 5\\" plates"]') == ['Find "vintage" mugs', 'Avoid 5" plates']


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp", "Zs")), min_size=1, max_size=30)


@given(st.lists(texts, min_size=1, max_size=6))
def test_well_formed_json_comes_back_as_it_was(wishes):
    for value in (wishes, {"preferences": wishes}):
        assert entries(json.dumps(value)) == wishes


@given(st.lists(st.from_regex(r"[A-Za-z][a-z ]{0,20}[a-z]", fullmatch=True), min_size=1, max_size=5), st.data())
def test_a_cut_answer_gives_a_head_of_the_whole(wishes, data):
    whole = json.dumps({"preferences": wishes})
    expected = [" ".join(wish.split()) for wish in wishes]
    found = entries(whole[: data.draw(st.integers(0, len(whole)))])
    assert found == expected[: len(found)]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('{"preferences"', []),
        ('{"preferences": ["Find a mug"], "reasons"', ["Find a mug"]),
        ('{"preferences": ["Find a mug", "Avoid glass"', ["Find a mug", "Avoid glass"]),
        ('{"Find a mug", "Avoid glass"}', ["Find a mug", "Avoid glass"]),
        ('{"wish": "Find a mug"', ["Find a mug"]),
    ],
)
def test_names_at_the_cut_are_no_entries(answer, found):
    assert entries(answer) == found


@given(st.text(max_size=300))
def test_any_text_is_survived(text):
    assert all(isinstance(entry, str) and entry for entry in entries(text))


def test_escapes_in_an_answer_that_was_cut_off_are_characters():
    assert entries('["Find caf\\u00e9 mugs", "Find \\ud83d\\ude00\\fmugs", "Find \\ud83d mugs", "Fi') == [
        "Find café mugs",
        "Find \U0001f600 mugs",
        "Find \ufffd mugs",
    ]


def test_escapes_mean_the_same_in_whole_and_in_cut_answers():
    whole = json.dumps(["Find\b \f\t\r\n\x7f mugs", "x"])
    assert entries(whole)[:1] == entries(whole[:-2]) == ["Find\b \x7f mugs"]


@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_code_fences_within_an_entry_are_part_of_it(fence):
    whole = json.dumps([f"Find{fence}x mugs", "Avoid glass"])
    for answer in (whole, whole[:-2], f"{fence}json\n{whole}\n{fence}", f"Sure: {fence}json {whole}{fence}"):
        assert entries(answer)[0] == f"Find{fence}x mugs"
    assert entries(f'["Find a mug", "Avoid\n{fence}\n') == ["Find a mug"]
