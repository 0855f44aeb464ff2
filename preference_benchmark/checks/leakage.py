"""Does an example give its target away? Every finished benchmark is searched for the ways in which it could.

The search starts from the finished examples and the tables, not from the code that made them. A leak stops the build
(`LeakageError`), unless the protocol says that leaks are to be flagged: the paper's own protocol has some (Paischer et
al. 2025, arXiv:2412.08604). What an axis reveals on purpose, such as a negative preference that was written about its
own item, is counted as "by design".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import polars as pl

from preference_benchmark.axes.examples import KEYS, last_step_of_split, with_item_index
from preference_benchmark.axes.protocol import SENTIMENT_AXES, STEERING_AXES, WISH_AXES, Protocol
from preference_benchmark.axes.steering import steering_pool
from preference_benchmark.preferences.polarity import NEGATIVE, inverted
from preference_benchmark.preferences.vocabulary import Vocabulary
from preference_benchmark.preferences.words import plain
from preference_benchmark.tables import Tables

__all__ = [
    "Finding",
    "LeakageError",
    "LeakageReport",
    "check_leakage",
]


# Many reviews have the same short sentences, so only longer ones count. A small share of held-out reviews may have one
# in common with a product description by chance, because one quotes the other; item text made of reviews has one in
# common with nearly all.
_FEWEST_WORDS, _TOLERATED = 6, 0.02


class LeakageError(ValueError):
    """Examples give away their targets."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one search.

    Attributes:
        rule: what must not be the case.
        axis: the axis that was searched; "items" for the items' text.
        found: number of examples for which it is the case.
        searched: number of examples.
        by_design: whether the axis is made that way, so that it is not a leak.
        first: the first such example, for people.
    """

    rule: str
    axis: str
    found: int
    searched: int
    by_design: bool = False
    first: str = ""

    @property
    def is_leak(self) -> bool:
        """Whether this stops a build."""
        return self.found > 0 and not self.by_design

    def __str__(self) -> str:
        state = "ok" if not self.found else "by design" if self.by_design else "LEAK"
        shown = f", such as {self.first}" if self.is_leak else ""
        return f"{state:<9} {self.axis}: {self.rule}: {self.found:,} of {self.searched:,}{shown}"


@dataclass(frozen=True)
class LeakageReport:
    """All findings; `print` it."""

    findings: tuple[Finding, ...]

    @property
    def leaks(self) -> list[Finding]:
        """The findings that stop a build."""
        return [finding for finding in self.findings if finding.is_leak]

    def enforce(self, leaks: str = "error") -> None:
        """Raise a LeakageError if there are leaks and `leaks` is "error"."""
        if self.leaks and leaks == "error":
            raise LeakageError(
                "\n".join(["examples give away their targets:", *map(str, self.leaks)])
                + '\nRepair the tables or preferences, or build with leaks="flag" to have leaks counted on the card.'
            )

    def records(self) -> list[dict]:
        """The findings as plain dicts."""
        return [asdict(finding) for finding in self.findings]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def check_leakage(
    tables: Tables,
    preferences: pl.DataFrame,
    axes: Mapping[str, Mapping[str, pl.DataFrame]],
    protocol: Protocol,
) -> LeakageReport:
    """Search finished examples.

    Args:
        tables: the data set.
        preferences: what the approximator wrote.
        axes: by matching mode, by axis, the examples.
        protocol: the choices that they were made by.
    """
    steps = with_item_index(tables).sort(KEYS).select(*KEYS, "item", "timestamp", split=tables.split())
    written = preferences.group_by("user_id", "text").agg(written=pl.min("step"))
    with_inversions = _with_inversions(written, protocol.inversion)
    frames: dict[str, pl.DataFrame] = {}
    for found in axes.values():
        for axis, frame in found.items():
            frames[axis] = frame if axis not in frames or frames[axis] is frame else pl.concat([frames[axis], frame])
    findings = []
    # Where things are bought again, a user's next item may be one that the history holds; steering never asks for one.
    again = protocol.repeats == "keep"
    for axis, frame in frames.items():
        rows = frame.with_row_index("example").with_columns(
            step=pl.col("history").list.len().cast(pl.Int64),
            target_id=tables.items["item_id"].gather(frame["targets"].list.first()),
        )
        shown = pl.col("history").list.set_intersection("targets").list.len() > 0
        bought_again = again and axis not in STEERING_AXES
        findings += [
            _finding("a target is in its own history", axis, rows, shown, by_design=bought_again),
            *_histories(axis, rows, steps),
            *_targets(axis, rows, steps, bought_again=bought_again),
        ]
        if tables.points is not None:
            findings.append(_times(axis, rows, steps, tables.points[0]))
        if axis in STEERING_AXES:
            findings += _steering(axis, rows, written, steering_pool(tables, preferences, Protocol()))
            if axis == "coarse_grained_steering":
                findings.append(_spread(axis, rows, protocol))
        elif axis in SENTIMENT_AXES:
            findings += _sentiment(axis, rows, preferences, steps)
        elif axis in WISH_AXES:
            findings += _wishes(axis, rows, tables)
        else:
            findings += _written_before(axis, rows, with_inversions)
    withheld = _withheld_attributes(frames, tables)
    findings += [_naming(axis, frame, withheld, axis in WISH_AXES) for axis, frame in frames.items() if withheld]
    findings.append(_item_text(tables))
    return LeakageReport(tuple(findings))


def _finding(rule: str, axis: str, rows: pl.DataFrame, broken: pl.Expr, *, by_design: bool = False) -> Finding:
    wrong = rows.filter(broken.fill_null(False))
    return Finding(rule, axis, wrong.height, rows.height, by_design, _shown(wrong))


def _shown(wrong: pl.DataFrame) -> str:
    if wrong.is_empty():
        return ""
    row = wrong.row(0, named=True)
    known = ("split", "user_id", "target_id", "item_id", "preferences", "text")
    return ", ".join(f"{name}={row[name]!r}" for name in known if name in row)


def _histories(axis: str, rows: pl.DataFrame, steps: pl.DataFrame) -> Iterator[Finding]:
    """A history is the beginning of what its user bought, and no longer than its split allows."""
    if axis == "sentiment_following":
        yield _finding("there is a history", axis, rows, pl.col("step") > 0)
        return
    if axis in WISH_AXES:
        rows = rows.filter((pl.col("user_id") != "") | (pl.col("step") > 0))
    bought = steps.group_by("user_id", maintain_order=True).agg(bought="item")
    last = steps.group_by("user_id", "split").agg(last=pl.max("step"))
    known = rows.join(bought, on="user_id", how="left", maintain_order="left")
    known = known.join(last, on=["user_id", "split"], how="left", maintain_order="left")
    prefix = pl.col("bought").list.head(pl.col("step"))
    yield _finding(
        "the history is not the beginning of what its user bought", axis, known, prefix.ne_missing(pl.col("history"))
    )
    beyond = pl.col("step") > pl.col("last").fill_null(-1)
    yield _finding("the history reaches beyond its split", axis, known, beyond)


def _times(axis: str, rows: pl.DataFrame, steps: pl.DataFrame, point: int) -> Finding:
    """In a split by time no training example shows or asks for what its user bought after the first point."""
    trained = rows.filter(pl.col("split") == "train")
    bought = steps.select("user_id", "step", "timestamp")
    shown = trained.with_columns(step=pl.col("step") - 1).join(bought, on=KEYS, how="left", maintain_order="left")
    asked = trained.select("example", "user_id", item="targets").explode("item").join(steps, on=["user_id", "item"])
    earliest = asked.group_by("example").agg(asked=pl.min("timestamp"))
    shown = shown.join(earliest, on="example", how="left", maintain_order="left")
    after = (pl.col("timestamp") > point).fill_null(False) | (pl.col("asked") > point).fill_null(False)
    return _finding("a training example knows what was bought after the first point in time", axis, shown, after)


def _targets(axis: str, rows: pl.DataFrame, steps: pl.DataFrame, *, bought_again: bool) -> Iterator[Finding]:
    """No target that is trained on is held out of the same user, and evaluated ones are."""
    asked = rows.select("example", "split", "user_id", target="targets").explode("target")
    own = steps.select("user_id", target="item", own="split").unique()
    known = asked.join(own, on=["user_id", "target"], how="left").group_by("example").agg("own")
    known = rows.join(known, on="example", how="left", maintain_order="left")
    held_out = pl.col("own").list.set_intersection(["validation", "test", "later"]).list.len() > 0
    trained = pl.col("split") == "train"
    rule = "a training target is held out of the same user"
    yield _finding(rule, axis, known, trained & held_out, by_design=bought_again)
    if axis in STEERING_AXES:
        of_others = steps.select("split", target="item").unique()
        strange = asked.join(of_others, on=["split", "target"], how="anti")["example"]
        strange = known.with_columns(strange=pl.col("example").is_in(strange.implode()))
        yield _finding("a target is not a target of any user in its split", axis, strange, pl.col("strange"))
        yield _finding("an evaluated target is held out of the same user", axis, known, ~trained & held_out)
    elif axis not in WISH_AXES:  # a wish asks for all items that have something, also those that the user buys later
        elsewhere = pl.col("own").list.drop_nulls()
        other = (elsewhere.list.len() > 0) & ~elsewhere.list.contains(pl.col("split"))
        yield _finding("a target is the user's in another split", axis, known, other)


def _with_inversions(written: pl.DataFrame, inversion: str) -> pl.DataFrame:
    """The same table, in which every author of a negative text has written its inversion too."""
    distinct = written["text"].unique()
    opposites = pl.DataFrame({"text": distinct, "inverse": inverted(distinct, inversion)}).drop_nulls()
    turned = written.join(opposites, on="text").select("user_id", "written", text="inverse")
    both = pl.concat([written, turned.select(written.columns)])
    return both.group_by("user_id", "text").agg(pl.min("written"))


def _with_dates(rows: pl.DataFrame, written: pl.DataFrame) -> pl.DataFrame:
    """One row per example and preference, with the step at which its user first wrote it."""
    texts = rows.select("example", "split", "user_id", "step", "targets", "target_id", text="preferences").explode(
        "text"
    )
    return texts.join(written, on=["user_id", "text"], how="left", maintain_order="left")


def _written_before(axis: str, rows: pl.DataFrame, written: pl.DataFrame) -> Iterator[Finding]:
    texts = _with_dates(rows, written)
    future = pl.col("written").is_null() | (pl.col("written") >= pl.col("step"))
    yield _finding("the preference was not written before its step", axis, texts, future)


def _steering(axis: str, rows: pl.DataFrame, written: pl.DataFrame, pool: pl.Series) -> Iterator[Finding]:
    texts = _with_dates(rows, written).with_columns(known=pl.col("text").is_in(pool.implode()))
    yield _finding(
        "the preference was first written by this user at or after this step",
        axis,
        texts,
        pl.col("written") >= pl.col("step"),
    )
    yield _finding("the preference was not written in the training period", axis, texts, ~pl.col("known"))
    pair = pl.struct("targets", "text")
    evaluated = texts.filter(pl.col("split") != "train")
    seen = evaluated.with_columns(
        seen=pair.is_in(texts.filter(pl.col("split") == "train").select(pair.alias("pair"))["pair"].unique().implode())
    )
    # An item's second-nearest preference asks for it in training where the first is taken by its partner.
    yield _finding("the pair of preference and target was trained on", axis, seen, pl.col("seen"), by_design=True)


def _spread(axis: str, rows: pl.DataFrame, protocol: Protocol) -> Finding:
    """Few items are not most of the targets: recommending them would look like following preferences.

    Every item is asked for once for itself, and once for each item that it is the partner of. Without a limit on
    partners what exceeds the default one is counted.
    """
    most = 1 + (protocol.partner_of or Protocol().partner_of)
    often = pl.len().over("split", "target_id") > most
    rule = f"a target is asked for more than {most} times in its split"
    return _finding(rule, axis, rows, often, by_design=not protocol.partner_of)


def _sentiment(axis: str, rows: pl.DataFrame, preferences: pl.DataFrame, steps: pl.DataFrame) -> Iterator[Finding]:
    negative = rows.filter(pl.col("sentiment") == NEGATIVE).with_columns(
        text=pl.col("preferences").list.first(), target=pl.col("targets").list.first()
    )
    at = steps.select("user_id", "split", target="item", at="step", until=last_step_of_split())
    at = at.unique(["user_id", "split", "target"], keep="first", maintain_order=True)
    pairs = negative.join(at, on=["user_id", "split", "target"], how="left", maintain_order="left")
    times = preferences.select("user_id", "text", written="step")
    later = (
        pairs.join(times, on=["user_id", "text"])
        .filter(pl.col("written") >= pl.col("at"))
        .group_by("example")
        .agg(pl.min("written"))
    )
    pairs = pairs.join(later, on="example", how="left", maintain_order="left")
    yield _finding(
        "the negative preference was written by another user or before its item was bought",
        axis,
        pairs,
        pl.col("written").is_null(),
    )
    yield _finding(
        "the negative preference knows its item", axis, pairs, pl.col("written") >= pl.col("at"), by_design=True
    )
    yield _finding(
        "the negative preference knows items of a later split", axis, pairs, pl.col("written") > pl.col("until")
    )
    trained = pairs.filter(pl.col("split") == "train")["text"].unique()
    evaluated = pairs.filter(pl.col("split") != "train")
    yield _finding("an evaluated text was trained on", axis, evaluated, pl.col("text").is_in(trained.implode()))


def _wishes(axis: str, rows: pl.DataFrame, tables: Tables) -> Iterator[Finding]:
    """Evaluated wishes are new in their words, and what must stay out is not a target."""
    said = pl.concat_list("preferences", "avoid").list.eval(pl.element().str.to_lowercase())
    rows = rows.with_columns(said=said)
    trained = rows.filter(pl.col("split") == "train")["said"].list.first().unique()
    evaluated = rows.filter(pl.col("split") != "train")
    repeated = pl.col("said").list.first().is_in(trained.implode())
    yield _finding("an evaluated wish was trained on", axis, evaluated, repeated)
    both = pl.col("targets").list.set_intersection("avoided").list.len() > 0
    yield _finding("a target must stay out", axis, rows, both)


def _withheld_attributes(frames: Mapping[str, pl.DataFrame], tables: Tables) -> list[str]:
    """The attributes that open wishes of the stratum "withheld" name, in plain form: the one that all targets have."""
    if "open_wishes" not in frames:
        return []
    rows = frames["open_wishes"].filter(pl.col("stratum") == "withheld")
    vocabulary = Vocabulary.of(tables)
    forms = vocabulary.aspects.to_frame("phrase").select(form=plain(pl.col("phrase"))).with_row_index("aspect")
    index = tables.items.select("item_id", target=pl.int_range(pl.len(), dtype=pl.Int32))
    pairs = vocabulary.of_items.join(index, on="item_id").join(forms, on="aspect").select("target", "form")
    asked = rows.select("targets", text=plain(pl.col("preferences").list.first()), target="targets").explode("target")
    named = asked.join(pairs, on="target").filter(pl.col("text").str.contains(pl.col("form"), literal=True))
    shared = named.group_by("text", "form").agg(targets=pl.col("targets").first(), having=pl.len())
    named = shared.filter(pl.col("having") >= pl.col("targets").list.len())
    # The longest of them: "turn-based strategy", although the items have "strategy" as well.
    named = named.sort(pl.col("form").str.len_chars(), "form", descending=True).unique("text", keep="first")
    return named["form"].unique().sort().to_list()


def _naming(axis: str, frame: pl.DataFrame, withheld: list[str], is_wish: bool) -> Finding:
    """Training examples that name a withheld attribute: no wish may; preferences from reviews do, and are counted."""
    trained = frame.filter(pl.col("split") == "train")
    said = trained.select("split", "user_id", "preferences", text=pl.concat_list("preferences", "avoid"))
    distinct = said.select(text=pl.col("text").explode()).unique().drop_nulls()
    distinct = distinct.with_columns(names=plain(pl.col("text")).str.contains_any(withheld))
    naming = distinct.filter("names")["text"]
    names = pl.col("text").list.eval(pl.element().is_in(naming.implode())).list.any()
    rule = "a training example names an attribute that is withheld from training wishes"
    return _finding(rule, axis, said.with_columns(names=names), pl.col("names"), by_design=not is_wish)


def _item_text(tables: Tables) -> Finding:
    """Item text may quote reviews of the training period only."""
    reviews = tables.interactions.with_columns(split=tables.split())
    written = _sentences(reviews.select("item_id", "split", *KEYS, words="review"))
    described = _sentences(tables.items.select("item_id", words="text")).select("item_id", "sentence").unique()
    held_out = written.filter(pl.col("split") != "train")
    known = written.filter(pl.col("split") == "train").select("item_id", "sentence").unique()
    quoted = held_out.join(described, on=["item_id", "sentence"], how="semi").join(
        known, on=["item_id", "sentence"], how="anti"
    )
    searched = held_out.select(KEYS).unique().height
    found = quoted.select(KEYS).unique().height
    first = _shown(quoted.sort(KEYS).with_columns(text="sentence"))
    by_chance = found <= _TOLERATED * searched
    return Finding("the item's text quotes a held-out review", "items", found, searched, by_chance, first)


def _sentences(frame: pl.DataFrame) -> pl.DataFrame:
    """Sentences of a column `words` that are long enough to count, one per row, in lower case."""
    parts = pl.col("words").str.to_lowercase().str.replace_all(r"[.!?]+(\s|$)", "\n").str.split("\n")
    rows = frame.with_columns(sentence=parts).drop("words").explode("sentence")
    rows = rows.with_columns(pl.col("sentence").str.strip_chars())
    return rows.filter(pl.col("sentence").str.count_matches(r"\S+") >= _FEWEST_WORDS)
