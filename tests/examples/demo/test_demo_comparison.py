"""Moves between two lists, and how they are shown."""

from __future__ import annotations

import random
import re

import pytest
from comparison import DROPPED, NEW, RankedItem, moves, summary
from lists import ALONE, WISHED, message, render
from page_model import Answer


def item(row, **fields):
    return RankedItem(row, f"item-{row}", fields.pop("title", f"Title {row}"), (), -1.0 - row, **fields)


@pytest.mark.parametrize("seed", range(5))
def test_moves_lead_from_one_list_to_the_other(seed):
    generator = random.Random(seed)
    before = [item(row) for row in generator.sample(range(15), 10)]
    after = [item(row) for row in generator.sample(range(15), 10)]
    left, right = moves(before, after)
    for place, (one, move) in enumerate(zip(before, left, strict=True)):
        assert one not in after if move == DROPPED else after[place - move] == one
    for place, (one, move) in enumerate(zip(after, right, strict=True)):
        assert one not in before if move == NEW else before[place + move] == one
    assert left.count(DROPPED) == right.count(NEW)


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        ([0, 0], "All 2 stayed where they were"),
        (["new", 0], "1 of 2 is new, 1 stayed"),
        ([1, -1], "1 moved up, 1 moved down"),
    ],
)
def test_summary(moved, words):
    assert summary(moved) == words


def answer(**changes):
    fields = {
        "alone": [item(1), item(2), item(3)],
        "wished": None,
        "full": [item(3), item(1), item(4)],
        "words": [],
        "read": "",
        "num_beams": 30,
        "seconds": 0.0123,
    }
    return Answer(**fields | changes)


def test_every_move_has_a_symbol_and_words():
    shown = render(answer())
    badges = re.findall(r'm-item m-(\w+)" data-item="item-(\d)".*?aria-label="([^"]+)" role="img">([^<]+)<', shown)
    assert [badge[:3] for badge in badges] == [
        ("up", "3", "up 2 places"),
        ("down", "1", "down 1 place"),
        ("new", "4", "new"),
        ("down", "1", "down 1 place"),
        ("dropped", "2", "dropped out"),
        ("up", "3", "up 2 places"),
    ]
    assert len({badge[3][0] for badge in badges}) == 4
    assert shown.count("<line") == 2 and "1 of 3 is new, 1 moved up, 1 moved down." in shown
    assert "2 lists in 12 ms, 30 beams" in shown


def test_text_from_outside_is_escaped():
    evil = '<img src=x onerror="alert(1)">'
    one = RankedItem(0, evil, evil, (evil,), -1.0, (evil,))
    shown = render(answer(full=[one], alone=[one], words=[evil]), link=f"?wish={evil}") + message(evil)
    assert "<img" not in shown and 'onerror="' not in shown


def test_a_single_list_has_no_moves():
    shown = render(answer(alone=None))
    assert "m-single" in shown and "<svg" not in shown and "m-move" not in shown and "1 list in" in shown


def test_against_the_wish_without_avoid_where_there_is_one():
    both = answer(wished=[item(3), item(4), item(1)])
    assert f"By {WISHED}" in render(both, against=WISHED) and f"By {ALONE}" in render(both, against=ALONE)
    assert f"By {ALONE}" in render(answer(), against=WISHED)
    assert f"By {WISHED}" in render(answer(alone=None, wished=[item(4)]), against=ALONE)


def test_what_should_stay_out_is_counted_in_every_list():
    marked = item(1, mentions=("rose",))
    shown = render(answer(alone=[marked, item(2)], wished=[marked, item(1)], full=[item(3), item(4)], words=["rose"]))
    assert "Items that mention rose: history alone 1 of 2; wish alone 1 of 2; with “avoid” 0 of 2." in shown


def test_scores_that_are_all_alike_are_called_so():
    alike = [RankedItem(row, str(row), "x", (), 0.0) for row in range(3)]
    assert "gives all items the same score" in render(answer(alone=alike))
    assert "gives all items the same score" not in render(answer())
