"""How people word a wish: a grammar with one part for each split, and misspellings.

A wish names one to three attributes. The parts for training, validation and test share no template and no three words
in a row, an attribute counted as one word (`tests/preference_benchmark/axes/test_wordings.py` enumerates all of them).
So a wish of the test split is new in its wording, whatever it names.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from preference_benchmark.preferences.grammar import FORMS, with_article

__all__ = ["WORDINGS", "Style", "Wordings", "misspellings"]


@dataclass(frozen=True)
class Style:
    """One way to turn attributes into a phrase such as "something atmospheric with zombies".

    Attributes:
        head: what is asked for where no attribute says what the thing is.
        adjective: head and adjectives.
        kind: in place of the head, a kind of thing.
        kinds: the same in the plural.
        has: what follows for nouns, after one thing and after many.
        is_like: what follows for clauses, after one thing and after many.
        many: whether the head is in the plural.
    """

    head: str
    adjective: str
    kind: str
    kinds: str
    has: tuple[str, str]
    is_like: tuple[str, str]
    many: bool = False


@dataclass(frozen=True)
class Wordings:
    """The grammar of one split. "{x}" is an attribute or a list of them, "{thing}" a phrase made by a style.

    Attributes:
        bare: templates around attributes of any form.
        about: templates around nouns.
        frames: templates around a phrase.
        styles: the phrases; every frame goes with every style.
        joint: between attributes of one form.
        avoid: templates for what must stay out, by form.
    """

    bare: tuple[str, ...]
    about: tuple[str, ...]
    frames: tuple[str, ...]
    styles: tuple[Style, ...]
    joint: str
    avoid: Mapping[str, tuple[str, ...]]

    @property
    def templates(self) -> pl.DataFrame:
        """All templates: frame, style (null where the attributes stand bare), about (whether it takes nouns only)."""
        rows = [(frame, None, False) for frame in self.bare] + [(frame, None, True) for frame in self.about]
        rows += [(frame, style, False) for frame in self.frames for style in range(len(self.styles))]
        return pl.DataFrame(rows, schema={"frame": pl.String, "style": pl.Int64, "about": pl.Boolean}, orient="row")

    def wishes(self, attributes: pl.Series, forms: pl.Series, template: np.ndarray | Sequence[int]) -> pl.Series:
        """Wishes as text.

        Args:
            attributes: N lists of attributes.
            forms: N lists, the form of each attribute.
            template: which row of `templates` each takes. Shape: (N,).

        >>> tea, forms = pl.Series([["malty brew", "vegan"]]), pl.Series([["count", "adjective"]])
        >>> WORDINGS["test"].wishes(tea, forms, [19]).to_list()
        ["I'd be happy with anything vegan with a malty brew"]
        """
        chosen = self.templates[np.asarray(template)]
        rows = pl.DataFrame({"attribute": attributes, "form": forms}).hstack(chosen).with_row_index("row")
        styles = pl.DataFrame([vars(style) for style in self.styles]).with_row_index("style").cast({"style": pl.Int64})
        rows = rows.join(styles, on="style", how="left", maintain_order="left")
        by_form = (
            rows.select("row", "attribute", "form")
            .explode("attribute", "form")
            .group_by("row")
            .agg(pl.col("attribute").filter(pl.col("form") == form).alias(f"{form} list") for form in FORMS)
        )
        rows = rows.join(by_form, on="row", how="left", maintain_order="left")
        bare = pl.col("frame").str.replace("{x}", pl.col("attribute").list.join(self.joint), literal=True)
        framed = pl.col("frame").str.replace("{thing}", _thing(self.joint), literal=True)
        return rows.select(text=pl.when(pl.col("style").is_null()).then(bare).otherwise(framed))["text"]

    def avoided(self, attributes: pl.Series, forms: pl.Series, draw: np.ndarray) -> pl.Series:
        """What a person types to keep an attribute out.

        Args:
            attributes: N attributes.
            forms: the form of each.
            draw: numbers in [0, 1) that choose the template. Shape: (N,).
        """
        choices = {"form": list(self.avoid), "choices": [list(found) for found in self.avoid.values()]}
        rows = pl.DataFrame({"x": attributes, "form": forms, "draw": draw})
        rows = rows.join(pl.DataFrame(choices), on="form", how="left", maintain_order="left")
        place = (pl.col("draw") * pl.col("choices").list.len()).cast(pl.Int64)
        return rows.select(text=pl.col("choices").list.get(place).str.replace("{x}", pl.col("x"), literal=True))["text"]


def _thing(joint: str) -> pl.Expr:
    """The phrase of each row: a head or kind, adjectives around it, then nouns and clauses."""
    lists = {form: pl.col(f"{form} list") for form in FORMS}
    some = {form: found.list.len() > 0 for form, found in lists.items()}
    nouns = pl.concat_list(lists["count"].list.eval(with_article(pl.element())), lists["mass"])
    kinds = pl.concat_list(lists["kind"], lists["kinds"]).list.join(joint)
    adjectives, clauses = (lists[form].list.join(joint) for form in ("adjective", "clause"))
    described = pl.when(some["adjective"]).then(pl.concat_str(adjectives, pl.lit(" "))).otherwise(pl.lit(""))
    many = ~some["kind"] & (some["kinds"] | pl.col("many"))

    def filled(template: pl.Expr, words: pl.Expr) -> pl.Expr:
        return template.str.replace("{x}", words, literal=True)

    def after(relation: str, words: pl.Expr) -> pl.Expr:
        return filled(pl.when(many).then(pl.col(relation).list.last()).otherwise(pl.col(relation).list.first()), words)

    thing = (
        pl.when(some["kind"])
        .then(filled(pl.col("kind"), pl.concat_str(described, kinds)))
        .when(some["kinds"])
        .then(filled(pl.col("kinds"), pl.concat_str(described, kinds)))
        .when(some["adjective"])
        .then(filled(pl.col("adjective"), adjectives))
        .otherwise("head")
    )
    has_nouns, nothing = nouns.list.len() > 0, pl.lit("")
    has = pl.when(has_nouns).then(pl.concat_str(pl.lit(" "), after("has", nouns.list.join(joint)))).otherwise(nothing)
    comma = pl.when(has_nouns).then(pl.lit(", ")).otherwise(pl.lit(" "))
    is_like = pl.when(some["clause"]).then(pl.concat_str(comma, after("is_like", clauses))).otherwise(nothing)
    return pl.concat_str(thing, has, is_like)


_TRAIN = Wordings(
    bare=("{x} please", "mostly {x}", "ideas: {x}", "think {x}", "{x} is a must", "{x} above all"),
    about=("{x} recommendations", "all about {x}", "best {x}"),
    frames=(
        "{thing}",
        "find {thing}",
        "I am looking for {thing}",
        "Can you recommend {thing}?",
        "please show me {thing}",
        "I would like {thing}",
        "in the mood for {thing}",
        "Where can I get {thing}?",
        "my brother wants {thing}",
        "need {thing} before the weekend",
        "we always enjoy {thing}",
        "Today it should be {thing}.",
        "not sure what I want, maybe {thing}",
        "it is for a colleague, ideally {thing}",
        "just browsing, though {thing} could tempt me",
        "Which one should I take if I like {thing}?",
        "how about {thing}",
    ),
    styles=(
        Style(
            head="something",
            adjective="something {x}",
            kind="a good {x}",
            kinds="good {x}",
            has=("that has {x}", "that have {x}"),
            is_like=("that is {x}", "that are {x}"),
        ),
        Style(
            head="things",
            adjective="{x} things",
            kind="another {x}",
            kinds="other {x}",
            has=("that has {x}", "that have {x}"),
            is_like=("that is {x}", "that are {x}"),
            many=True,
        ),
        Style(
            head="something",
            adjective="something rather {x}",
            kind="a great {x}",
            kinds="great {x}",
            has=("featuring {x}", "featuring {x}"),
            is_like=("known to be {x}", "known to be {x}"),
        ),
    ),
    joint=" and ",
    avoid={
        "mass": ("whatever has {x}", "things that have {x}", "{x} please not"),
        "count": ("whatever has that {x}", "things that have a {x}", "{x} please not"),
        "adjective": ("whatever is {x}", "{x} things", "{x} please not"),
        "clause": ("whatever is {x}", "things that are {x}"),
        "kind": ("yet another {x}", "every kind of {x}"),
        "kinds": ("too many {x}", "all kinds of {x}"),
    },
)

_VALIDATION = Wordings(
    bare=("{x} only", "definitely {x}", "{x} if possible", "{x}, anyone?", "{x} matters most"),
    about=("keen on {x}", "mainly {x} this time", "top {x}"),
    frames=(
        "Do you sell {thing}?",
        "got {thing}?",
        "I could really use {thing}",
        "suggest {thing}, thanks",
        "somebody asked me for {thing}",
        "who makes {thing}?",
        "thinking of getting {thing}",
        "My flatmate keeps talking about {thing}.",
        "searching around for {thing}",
        "let us see {thing}",
        "hmm, perhaps {thing}",
        "Could there be {thing}?",
        "it has been a while since I had {thing}",
        "no idea really, I think {thing} might do",
        "a neighbour of mine owns {thing}",
        "on my list: {thing}",
        "It would make my day to find {thing}.",
    ),
    styles=(
        Style(
            head="items",
            adjective="{x} items",
            kind="a nice {x}",
            kinds="nice {x}",
            has=("which includes {x}", "which include {x}"),
            is_like=("which feels {x}", "which are {x}"),
            many=True,
        ),
        Style(
            head="one",
            adjective="one that feels {x}",
            kind="one solid {x}",
            kinds="a few {x}",
            has=("including {x}", "including {x}"),
            is_like=("which must be {x}", "which must be {x}"),
        ),
        Style(
            head="products",
            adjective="products described as {x}",
            kind="the right {x}",
            kinds="the right {x}",
            has=("offering {x}", "offering {x}"),
            is_like=("described as {x}", "described as {x}"),
            many=True,
        ),
    ),
    joint=" plus ",
    avoid={
        "mass": ("those having {x}", "{x} at all", "the ones including {x}"),
        "count": ("those having a {x}", "{x} at all", "the ones including a {x}"),
        "adjective": ("those which feel {x}", "overly {x}", "{x} ones"),
        "clause": ("those described as {x}", "the ones which are {x}"),
        "kind": ("a {x} again", "one of those {x} types"),
        "kinds": ("those {x}", "{x} at all"),
    },
)

_TEST = Wordings(
    bare=("{x}", "{x} would be lovely", "{x} or similar", "give me {x}", "more {x}", "just {x}!!"),
    about=("really into {x}", "love {x}", "crazy about {x}", "any {x}?"),
    frames=(
        "Any chance of {thing}?",
        "do you have {thing}",
        "is there {thing}?",
        "I'd be happy with {thing}",
        "my sister loves {thing}",
        "hoping to see {thing}",
        "What would you suggest if I want {thing}?",
        "after {thing} today",
        "I don't really know, {thing} I guess",
        "haven't tried much yet, so {thing}",
        "{thing} for a rainy evening",
        "Bored of the usual. Bring me {thing}.",
        "the kids are asking for {thing}",
        "surprise me, as long as it's {thing}",
        "recommend me {thing}",
        "Hi! I was wondering whether you carry {thing}.",
        "got paid, time for {thing}",
    ),
    styles=(
        Style(
            head="anything",
            adjective="anything {x}",
            kind="a proper {x}",
            kinds="proper {x}",
            has=("with {x}", "with {x}"),
            is_like=("that's {x}", "really {x}"),
        ),
        Style(
            head="stuff",
            adjective="{x} stuff",
            kind="a decent {x}",
            kinds="decent {x}",
            has=("coming with {x}", "coming with {x}"),
            is_like=("that's really {x}", "really {x}"),
        ),
        Style(
            head="sth",
            adjective="sth {x}",
            kind="sth like a lovely {x}",
            kinds="sth like {x}",
            has=("w/ {x}", "w/ {x}"),
            is_like=("thats {x}", "thats {x}"),
        ),
    ),
    joint=" & ",
    avoid={
        "mass": ("{x}", "with {x}", "no {x}"),
        "count": ("{x}", "with {x}", "no {x}"),
        "adjective": ("{x}", "too {x}", "not {x}"),
        "clause": ("{x}", "stuff that's {x}"),
        "kind": ("{x}", "no {x}"),
        "kinds": ("{x}", "no {x}"),
    },
)

WORDINGS: dict[str, Wordings] = {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST}


# Letters beside one another on a QWERTY keyboard.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    letter: "".join(
        other
        for shift, row in enumerate(_ROWS)
        for place, other in enumerate(row)
        if other != letter and abs(shift - at[0]) <= 1 and abs(place + shift / 2 - at[1] - at[0] / 2) <= 1
    )
    for at, letter in (((shift, place), row[place]) for shift, row in enumerate(_ROWS) for place in range(len(row)))
}
_WORD = re.compile(r"[a-z]{4,}")


def misspellings(attribute: str, split: str) -> list[str]:
    """An attribute with one slip of the fingers: a letter dropped, doubled, swapped with the next, or its neighbour.

    Words of four letters and more are misspelt, never in their first letter. Each misspelling belongs to one split.

    Args:
        attribute: in lower case.
        split: "train", "validation" or "test".

    Returns:
        Misspellings, sorted; none where no word is long enough.

    >>> [text for text in misspellings("oak wood", "test") if len(text) == len("oak wood") - 1]
    ['oak wod']
    """
    found = set()
    for word in _WORD.finditer(attribute):
        letters, before, after = word[0], attribute[: word.start()], attribute[word.end() :]
        for n in range(1, len(letters)):
            head, letter, tail = letters[:n], letters[n], letters[n + 1 :]
            slips = [head + tail, head + 2 * letter + tail, *(head + other + tail for other in _BESIDE[letter])]
            if tail:
                slips.append(head + tail[0] + letter + tail[1:])
            found |= {before + slip + after for slip in slips}
    splits = list(WORDINGS)
    own = splits.index(split)
    return sorted(text for text in found - {attribute} if zlib.crc32(text.encode()) % len(splits) == own)
