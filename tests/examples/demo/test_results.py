"""How an answer is shown: reasons, what was kept out, and nothing from outside as markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hostile import MARKUP, TRICKS
from page_model import Answer, RankedItem
from results import message, render

OURS = {"a", "del", "div", "h2", "h3", "li", "mark", "ol", "p", "section", "span", "ul"}


def item(rank, title="Assam", **fields):
    return RankedItem(f"item-{rank}", title, fields.pop("attributes", ()), fields.pop("parts", {}), rank, **fields)


def answer(**changes):
    fields = {"items": [item(1)], "removed": [], "wish": "tea", "avoided": [], "fit": None}
    return Answer(**fields | changes)


class Read(HTMLParser):
    """Tags, attributes, and the text between the tags, as a browser reads them."""

    def __init__(self, shown):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(shown)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("evil", [*MARKUP, "\n".join(TRICKS)])
def test_text_from_outside_is_shown_as_text(evil):
    one = RankedItem(evil, evil, (evil[:100],), {"words": 1.0, "avoid": -1.0}, 1, own=True, named=True)
    changes = {"items": [one], "removed": [one], "wish": evil, "avoided": [evil], "fit": 0.1}
    for shown in (render(answer(**changes), 9, link=f"?wish={evil}"), message(evil)):
        read = Read(shown)
        assert read.tags <= OURS and evil in read.text
        names = {name for name, _ in read.attributes}
        assert names <= {"aria-hidden", "aria-label", "class", "data-item", "href", "rel", "style", "target"}
        assert all(value.startswith("?") for name, value in read.attributes if name == "href")
        assert all(re.fullmatch(r"width: [\d.]+%", value) for name, value in read.attributes if name == "style")


def test_bars_are_as_long_as_what_speaks_for_an_item():
    strong = item(1, parts={"words": 6.0, "meaning": 2.0, "history": -1.0})
    weak = item(2, parts={"words": 3.0, "meaning": 1.0, "generator": 0.0})
    shown = render(answer(items=[strong, weak]), 9)
    assert re.findall(r"width: ([\d.]+)%", shown) == ["75.0", "25.0", "37.5", "12.5"]
    reasons = re.findall(r"</span>([a-z]+) ([+−][\d.]+)</li>", shown)
    assert reasons[:3] == [("words", "+6.0"), ("meaning", "+2.0"), ("history", "−1.0")]
    assert reasons[3:] == [("words", "+3.0"), ("meaning", "+1.0")]


def test_words_of_the_wish_are_marked_whatever_their_form():
    assam = item(1, "Malty teas & tea towels", attributes=("malty brew",))
    shown = render(answer(items=[assam], wish="find tea with a malty brew"), 9)
    assert re.findall("<mark>(.*?)</mark>", shown) == ["Malty", "teas", "tea", "malty", "brew"]
    assert "&amp;" in shown


def test_what_was_kept_out_says_where_it_was_and_why():
    mint = item(2, "Mint tea", parts={"avoid": -7.25})
    text = Read(render(answer(removed=[mint], avoided=["mint"]), 9)).text
    many = Read(render(answer(removed=[mint] * 7, avoided=["mint"]), 9)).text
    assert many.count("Mint tea") == 5 and "and 2 more" in many
    assert "Kept out by “mint”" in text and "Mint tea would be number 2, but loses 7.2" in text and "⚠" not in text


def test_what_was_not_kept_out_is_said():
    text = Read(render(answer(items=[item(1, named=True)], avoided=["mint", "rose"]), 9)).text
    assert "To be avoided: “mint” or “rose”" in text and "1 of 1 still name it" in text


@pytest.mark.parametrize(
    ("changes", "added", "words"),
    [
        ({}, False, "The best 1 of 9 items for “tea”."),
        ({"wish": ""}, False, "The best 1 of 9 items."),
        ({"fit": 0.2}, False, "Perhaps nothing here fits “tea”."),
        ({"items": [item(1, own=True)]}, True, "Yours is number 1."),
        ({}, True, "Yours is not among them."),
    ],
)
def test_a_sentence_says_what_the_list_is(changes, added, words):
    assert words in Read(render(answer(**changes), 9, added=added)).text
