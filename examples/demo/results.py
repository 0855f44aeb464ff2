"""An answer as HTML: the list, a bar of reasons for every item, and what avoiding kept out.

Bars have words and numbers beside their colours. All text that comes from outside is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from page_model import AVOID, PARTS, Answer, RankedItem
from title_search import words_of

__all__ = ["message", "render"]

DOUBTFUL = 0.5
"""Below this fit, nothing in the catalogue may fit."""
LITTLE = 0.05
"""Smaller parts of a score are not shown."""
MOST_REMOVED = 5
"""Items kept out that are named; more are counted."""
LONGEST = 150
"""Characters of an attribute that are shown."""
STOP_WORDS = frozenset(
    "a about an and any anything are as at avoid by exclude find for from in is it like more no not of on or other"
    " please search some something sth stuff that the things this to too very want with without".split()
)
"""Words of a wish that are not marked."""
SAID = {AVOID: "avoided"}


def message(text: str) -> str:
    """A line instead of a list."""
    return f'<p class="m-summary">{escape(text)}</p>'


def render(answer: Answer, num_items: int, link: str = "", *, added: bool = False) -> str:
    """The whole answer.

    Args:
        answer: of `PageModel.answer`.
        num_items: items of the catalogue.
        link: address that leads back to this answer.
        added: whether the visitor added items.
    """
    words = {_stem(word) for word in words_of(answer.wish)} - STOP_WORDS
    longest = max((_speaks_for(item) for item in answer.items), default=0.0)
    items = "".join(_item(item, words, longest) for item in answer.items)
    link = f' <a href="{escape(link)}" target="_blank" rel="noopener">Link to this list</a>' if link else ""
    note = "Bars show what speaks for an item, compared with a typical one of the catalogue."
    return (
        f'<div class="m-answer">{_summary(answer, num_items, added)}{_removed(answer)}<ol class="m-list">{items}</ol>'
        f'<p class="m-note">{note}{link}</p></div>'
    )


def _summary(answer: Answer, num_items: int, added: bool) -> str:
    """What the list is, in a sentence or two."""
    asked = f" for “{answer.wish}”" if answer.wish else ""
    said = f"The best {len(answer.items)} of {num_items:,} items{asked}."
    if answer.fit is not None and answer.fit < DOUBTFUL:
        said = f"Perhaps nothing here fits “{answer.wish}”. The closest {len(answer.items)} of {num_items:,} items:"
    if added:
        ranks = [str(item.rank) for item in answer.items if item.own]
        said += f" Yours is number {' and '.join(ranks)}." if ranks else " Yours is not among them."
    return f'<h2 class="m-summary">{escape(said)}</h2>'


def _removed(answer: Answer) -> str:
    """What is not in the list because of what is to be avoided, and what still names it."""
    if not answer.avoided:
        return ""
    named = " or ".join(f"“{phrase}”" for phrase in answer.avoided)
    still = sum(item.named for item in answer.items)
    lines = "".join(
        f'<li><del>{escape(item.title)}</del> <span class="m-was">would be number {item.rank}{_cost(item)}</span></li>'
        for item in answer.removed[:MOST_REMOVED]
    )
    if more := len(answer.removed[MOST_REMOVED:]):
        lines += f"<li>and {more} more</li>"
    lines = f"<ul>{lines}</ul>" if lines else ""
    said = f"Kept out by {named}" if lines else f"To be avoided: {named}"
    left = f"<p>⚠ {still} of {len(answer.items)} still name it.</p>" if still else ""
    return f'<section class="m-removed"><h3>{escape(said)}</h3>{lines}{left}</section>'


def _cost(item: RankedItem) -> str:
    cost = item.parts.get(AVOID, 0.0)
    return f", but loses {-cost:.1f}" if cost <= -LITTLE else ""


def _item(item: RankedItem, words: set[str], longest: float) -> str:
    badges = '<span class="m-badge m-own">yours</span>' if item.own else ""
    badges += '<span class="m-badge m-named">⚠ names what you avoid</span>' if item.named else ""
    attributes = "".join(f"<li>{_marked(text[:LONGEST], words)}</li>" for text in item.attributes)
    attributes = f'<ul class="m-attributes">{attributes}</ul>' if attributes else ""
    return (
        f'<li class="m-item{" m-mine" if item.own else ""}" data-item="{escape(item.item_id)}">'
        f'<span class="m-rank" aria-hidden="true">{item.rank}</span>'
        f'<div class="m-what"><p class="m-title">{_marked(item.title, words)}{badges}</p>'
        f"{attributes}{_reasons(item.parts, longest)}</div></li>"
    )


def _reasons(parts: Mapping[str, float], longest: float) -> str:
    """A bar of what speaks for an item, and all parts in words, those against it as well."""
    shown = {name: value for name, value in parts.items() if abs(value) >= LITTLE}
    if not shown:
        return ""
    bar = "".join(
        f'<span class="m-{name}" style="width: {100 * shown[name] / longest:.1f}%"></span>'
        for name in PARTS
        if shown.get(name, 0) > 0 and longest > 0
    )
    order = [name for name in (*PARTS, AVOID) if name in shown]
    numbers = {name: f"{value:+.1f}".replace("-", "−") for name, value in shown.items()}
    said = "".join(
        f'<li><span class="m-key m-{name}" aria-hidden="true"></span>{SAID.get(name, name)} {numbers[name]}</li>'
        for name in order
    )
    return f'<div class="m-bar" aria-hidden="true">{bar}</div><ul class="m-why" aria-label="Why">{said}</ul>'


def _speaks_for(item: RankedItem) -> float:
    return sum(value for name, value in item.parts.items() if name in PARTS and value > 0)


def _marked(text: str, words: set[str]) -> str:
    """Text with the words of the wish marked."""
    return "".join(
        f"<mark>{escape(piece)}</mark>" if _stems(piece) & words else escape(piece)
        for piece in re.split(r"(\w+)", text)
    )


def _stems(piece: str) -> set[str]:
    return {_stem(word) for word in words_of(piece)}


def _stem(word: str) -> str:
    """A word without the s of the plural."""
    return word.removesuffix("s")
