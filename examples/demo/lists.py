"""An answer as HTML: two lists side by side, lines between them, and what moved in words.

Every move has a symbol and a word in addition to its colour. All text that comes from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import exp

from comparison import RankedItem, kind_of, moves, summary
from page_model import Answer
from title_search import words_of

__all__ = ["AGAINST", "message", "render"]

ALONE, WISHED = "the history alone", "the wish without “avoid”"
AGAINST = (ALONE, WISHED)
"""What the list with everything written can be compared with."""


def message(text: str) -> str:
    """A line instead of lists."""
    return f'<p class="m-message" role="status">{escape(text)}</p>'


def render(answer: Answer, *, against: str = ALONE, unit: str = "log-probability", link: str = "") -> str:
    """Both lists of an answer, or the only one.

    Args:
        answer: of `PageModel.answer`.
        against: one of `AGAINST`.
        unit: what scores are, for the legend.
        link: address that leads back to this answer.
    """
    others = {ALONE: answer.alone, WISHED: answer.wished}
    title = next((name for name in (against, *others) if others[name]), ALONE)
    before = others[title]
    left, right = ([], []) if before is None else moves(before, answer.full)
    lists = _list("With everything you wrote" if before else "Ranked for you", answer.full, right, "m-after")
    if before is not None:
        lists += _lines(before, answer.full) + _list(f"By {title}", before, left, "m-before")
    beams = "every item scored" if answer.num_beams is None else f"{answer.num_beams} beams"
    count = 1 + sum(part is not None for part in (answer.alone, answer.wished))
    cost = f"{count} {'list' if count == 1 else 'lists'} in {1000 * answer.seconds:.0f} ms, {beams}. Scores: {unit}."
    link = f' <a href="{escape(link)}" target="_blank">Link to this result</a>' if link else ""
    shape = "" if before else " m-single"
    shape += "" if any(item.attributes for item in [*answer.full, *(before or [])]) else " m-plain"
    rows = max(len(answer.full), len(before or []))
    headline = f'<p class="m-summary">{escape(summary(right))}.</p>' if before else ""
    return (
        f'<div class="m-answer"><div role="status">{headline}{_kept_out(answer)}{_flat(before)}</div>'
        f'<div class="m-lists{shape}" style="--rows: {rows}">'
        f'{lists}</div><p class="m-cost">{escape(cost)}{link}</p></div>'
    )


def _list(title: str, items: Sequence[RankedItem], moved: Sequence[int | str], side: str) -> str:
    lines = []
    for place, item in enumerate(items):
        kind = kind_of(moved[place]) if moved else "same"
        bar = 100 * exp(item.score - items[0].score)
        score = f"{item.score:.2f}".replace("-", "−")
        lines.append(
            f'<li class="m-item m-{kind}" data-item="{escape(item.item_id)}"><span class="m-place">{place + 1}</span>'
            f'{_badge(moved[place]) if moved else ""}<div class="m-what">'
            f'<span class="m-title" title="{escape(item.title)}">{escape(item.title)}</span>{_attributes(item)}</div>'
            f'<span class="m-score">{score}<span class="m-bar" style="width: {bar:.0f}%" aria-hidden="true"></span>'
            "</span></li>"
        )
    return f'<section class="{side}"><h2>{escape(title)}</h2><ol>{"".join(lines)}</ol></section>'


def _attributes(item: RankedItem) -> str:
    """Attributes, marked where they mention what to avoid; a mention in the title alone comes first."""
    marked = [any(f" {word} " in f" {' '.join(words_of(text))} " for word in item.mentions) for text in item.attributes]
    lines = [
        f'<li class="m-mention">⚠ {escape(text)}</li>' if mark else f"<li>{escape(text)}</li>"
        for text, mark in zip(item.attributes, marked, strict=True)
    ]
    if item.mentions and not any(marked):
        lines.insert(0, f'<li class="m-mention">⚠ {escape(", ".join(item.mentions))}</li>')
    return f'<ul title="{escape(", ".join(item.attributes))}">{"".join(lines)}</ul>' if lines else ""


def _badge(move: int | str) -> str:
    """Symbol and words for a move; the words of an arrow are for screen readers alone."""
    kind = kind_of(move)
    if kind in ("up", "down"):
        symbol, places = "▲" if kind == "up" else "▼", abs(move)
        words = f"{kind} {places} {'place' if places == 1 else 'places'}"
        return f'<span class="m-move" aria-label="{words}" role="img">{symbol}&nbsp;{places}</span>'
    symbol, words = {"same": ("=", "unmoved"), "new": ("★&nbsp;new", "new"), "dropped": ("✕&nbsp;out", "dropped out")}[
        kind
    ]
    return f'<span class="m-move" aria-label="{words}" role="img">{symbol}</span>'


def _lines(before: Sequence[RankedItem], after: Sequence[RankedItem]) -> str:
    """One line per item that is in both lists, from its place on the left to its place on the right."""
    place_of = {item.index: place for place, item in enumerate(after)}
    _, moved = moves(before, after)
    lines = "".join(
        f'<line class="m-{kind_of(moved[place_of[item.index]])}" x1="0" x2="100" y1="{place + 0.5}" '
        f'y2="{place_of[item.index] + 0.5}"/>'
        for place, item in enumerate(before)
        if item.index in place_of
    )
    height = max(len(before), len(after))
    return f'<svg viewBox="0 0 100 {height}" preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'


def _kept_out(answer: Answer) -> str:
    """How many items of each list mention what to avoid, counted in titles and attributes."""
    if not answer.words:
        return ""
    lists = (("history alone", answer.alone), ("wish alone", answer.wished), ("with “avoid”", answer.full))
    counts = [
        f"{name} {sum(bool(item.mentions) for item in items)} of {len(items)}"
        for name, items in lists
        if items is not None
    ]
    return f'<p class="m-avoid">Items that mention {escape(", ".join(answer.words))}: {escape("; ".join(counts))}.</p>'


def _flat(before: Sequence[RankedItem] | None) -> str:
    if before is None or len(before) < 2 or len({item.score for item in before}) > 1:
        return ""
    return '<p class="m-avoid">Without a preference this model gives all items the same score.</p>'
