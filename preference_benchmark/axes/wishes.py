"""Two axes about what customers ask for: open wishes, and a wish together with something to avoid.

The other axes choose a preference for an item, by cosine or from a review. Here attributes are chosen, and relevant
are all items that have them: the items' own aspects, or what was mined from titles and reviews (`Vocabulary`). A wish
names one to three attributes in the wording of its split (`wordings`) and belongs to a stratum:

- known: one attribute that training wishes name as well, in other words.
- withheld: one attribute that no training wish names, nor any attribute that contains its words.
- composite: two or three known attributes that no training wish names together; relevant are items with all of them.
- misspelt: as known, with a slip of the fingers.
- contradictory: two attributes that no item has together; relevant are items with either.

Training also asks for spans: one to three words in a row of an item's title or text, which need not be an attribute.
From them a model learns to find what a text says, and to look past the wording of a wish; none holds the words of a
withheld attribute.

A wish comes without a history, or after the history of some user. Items of that history are not relevant: they cannot
be recommended where bought items are left out (the default of evaluation), and where they can, a wish is for something
new. Only where things are bought again (`Protocol.repeats`) they stay relevant. Items that the user holds out are no
targets of training wishes.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from preference_benchmark.axes.attributes import Attributes, random_of, spans
from preference_benchmark.axes.examples import as_examples, targets, with_item_index
from preference_benchmark.axes.protocol import SPLITS, Protocol
from preference_benchmark.axes.wordings import WORDINGS, misspellings
from preference_benchmark.preferences.grammar import NOUN_FORMS
from preference_benchmark.preferences.words import plain
from preference_benchmark.tables import Tables

__all__ = ["STRATA", "open_wishes", "wish_and_avoid"]

STRATA = ("known", "withheld", "composite", "misspelt", "contradictory")

# Shares of the strata among evaluated wishes; of wishes with something to avoid, known means that both are.
_OPEN_SHARES = {"known": 0.3, "withheld": 0.3, "composite": 0.2, "misspelt": 0.1, "contradictory": 0.1}
_AVOID_SHARES = {"known": 0.6, "withheld": 0.4}
# So many evaluated wishes of a stratum may ask for the same attribute.
_REPEATED = 10
# Shares of training wishes with the user's own history and next item, with the history of another user, with none;
# of those with one, two and three attributes; of misspelt ones; and of wishes that say little but their attributes.
_OWN, _FOREIGN = 0.25, 0.5
_NUMBERS = (0.6, 0.3, 0.1)
_MISSPELT, _BARE = 0.1, 0.33
# Share of the pairs of known attributes that no training wish names together.
_RESERVED = 0.3
# Draws for each wish of a pair of attributes; those that do not fit are left out.
_DRAWS = 8
# Training wishes for each training target at most, so that a small data set is not flooded with them.
_PER_TARGET = 4
# Share of open training wishes that ask for spans.
_SPANS = 1 / 3


def open_wishes(tables: Tables, attributes: Attributes, protocol: Protocol) -> pl.DataFrame:
    """Wishes for one to three attributes; the targets are all relevant items, one of them, drawn at random, first.

    Args:
        tables: the data set.
        attributes: of these tables, see `wish_attributes`.
        protocol: the choices.
    """
    steps = targets(tables)
    parts = []
    for split in SPLITS:
        rng = random_of(protocol, "open_wishes", split)
        own = steps.filter(pl.col("split") == split)
        if split == "train":
            wishes = _training_wishes(attributes, own, protocol, rng)
        else:
            wishes = _evaluated_wishes(attributes, own, split, protocol, rng)
        wishes = _with_targets(wishes.with_columns(_relevant(wishes, attributes)), own, split, tables, protocol, rng)
        parts.append(_worded(wishes, attributes, split, rng))
        if split == "train":
            parts.append(_span_wishes(tables, attributes, own, protocol))
    rows = pl.concat(parts)
    return as_examples(
        "open_wishes",
        rows,
        preferences=pl.concat_list("text"),
        targets=pl.col("targets"),
        stratum=pl.col("stratum"),
    )


def wish_and_avoid(tables: Tables, attributes: Attributes, protocol: Protocol) -> pl.DataFrame:
    """A wish for one attribute, and another one that must stay out although some items have both.

    Relevant are the items with the first and without the second; what must stay out are all items with the second.
    Half as many examples as open wishes. Stratum "withheld": one of the two attributes is, or both.

    Args:
        tables: the data set.
        attributes: of these tables, see `wish_attributes`.
        protocol: the choices.
    """
    steps = targets(tables)
    parts = []
    for split in SPLITS:
        rng = random_of(protocol, "wish_and_avoid", split)
        own = steps.filter(pl.col("split") == split)
        if split == "train":
            starts = _starts(attributes, own, protocol.train_wishes // 2, rng)
            wishes = _with_unwanted(starts, attributes, rng).filter(pl.col("stratum") == "known")
        else:
            wishes = _evaluated_pairs(attributes, own, protocol.evaluation_wishes // 2, rng)
        items = attributes.items.series
        wanted, unwanted = items.gather(wishes["first"]), items.gather(wishes["unwanted"])
        wishes = wishes.with_columns(
            attributes=pl.concat_list("first"), relevant=wanted.list.set_difference(unwanted), avoided=unwanted
        )
        wishes = _worded(_with_targets(wishes, own, split, tables, protocol, rng), attributes, split, rng)
        phrases, forms = (column.gather(wishes["unwanted"]) for column in (attributes.phrases, attributes.forms))
        parts.append(wishes.with_columns(avoid=WORDINGS[split].avoided(phrases, forms, rng.random(wishes.height))))
    return as_examples(
        "wish_and_avoid",
        pl.concat(parts),
        preferences=pl.concat_list("text"),
        avoid=pl.concat_list("avoid"),
        targets=pl.col("targets"),
        avoided=pl.col("avoided"),
        stratum=pl.col("stratum"),
    )


# While they are drawn, wishes are frames with the columns first (attribute), target (an item that has it), row (of the
# steps of the split: whose history is shown; -1: none), then attributes (list, the first one first) and stratum.


def _starts(attributes: Attributes, own: pl.DataFrame, most: int, rng: np.random.Generator) -> pl.DataFrame:
    """Known attributes with an item each, for training.

    A quarter of them are an attribute of a user's next item, after the user's history. The others name every attribute
    equally often, for a random item that has it: two thirds after the history of a random user, one third after none.
    """
    known = attributes.known_of_items
    total = min(most, _PER_TARGET * own.height) if len(known.values) else 0
    count_own, count_foreign = round(_OWN * total), round(_FOREIGN * total)
    row = np.sort(rng.permutation(own.height)[:count_own])
    target = own["target"].to_numpy()[row]
    first = known.draw(target, rng)
    other_first = _balanced(np.flatnonzero(~attributes.withheld), total - count_own, rng)
    other_row = np.full(len(other_first), -1)
    other_row[:count_foreign] = rng.integers(own.height, size=count_foreign) if count_foreign else 0
    starts = pl.DataFrame(
        {
            "first": np.concatenate([first, other_first]),
            "target": np.concatenate([target, attributes.items.draw(other_first, rng)]).astype(np.int32),
            "row": np.concatenate([row, other_row]),
        }
    )
    return starts.filter(pl.col("first") >= 0)


def _balanced(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Each value equally often, up to one, in random order. Shape: (count,)."""
    rounds = -(-count // max(len(values), 1))
    return np.concatenate([rng.permutation(values) for _ in range(rounds)] or [values])[:count].astype(np.int64)


def _training_wishes(
    attributes: Attributes, own: pl.DataFrame, protocol: Protocol, rng: np.random.Generator
) -> pl.DataFrame:
    starts = _starts(attributes, own, round((1 - _SPANS) * protocol.train_wishes), rng)
    number = 1 + np.searchsorted(np.cumsum(_NUMBERS)[:-1], rng.random(starts.height), side="right")
    wishes = _with_companions(starts, number, attributes, rng)
    # What no training wish may name together is named one at a time.
    alone = pl.col("attributes").list.head(1)
    wishes = wishes.with_columns(attributes=pl.when(_reserved(wishes, protocol)).then(alone).otherwise("attributes"))
    misspelt = pl.lit(rng.random(wishes.height) < _MISSPELT)
    single = pl.when(misspelt).then(pl.lit("misspelt")).otherwise(pl.lit("known"))
    return wishes.with_columns(
        stratum=pl.when(pl.col("attributes").list.len() > 1).then(pl.lit("composite")).otherwise(single)
    )


def _span_wishes(tables: Tables, attributes: Attributes, own: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """Training wishes for spans, every other one after the history of a random user."""
    rng = random_of(protocol, "spans")
    count = int(_SPANS * min(protocol.train_wishes, _PER_TARGET * own.height))
    found = spans(tables, attributes, count, protocol, rng)
    first = _balanced(np.arange(len(found)), count, rng)
    wishes = pl.DataFrame({"first": first, "target": found.items.draw(first, rng).astype(np.int32)})
    wishes = _with_histories(wishes.with_columns(attributes=pl.concat_list("first"), stratum=pl.lit("span")), own, rng)
    wishes = _with_targets(wishes.with_columns(_relevant(wishes, found)), own, "train", tables, protocol, rng)
    wishes = _with_text(wishes, found, attributes.phrases, "train", rng)
    return wishes.filter(~attributes.withheld_in(wishes["text"]))


def _evaluated_wishes(
    attributes: Attributes, own: pl.DataFrame, split: str, protocol: Protocol, rng: np.random.Generator
) -> pl.DataFrame:
    known = np.flatnonzero(~attributes.withheld)
    parts = []
    for stratum, share in _OPEN_SHARES.items():
        count = round(share * protocol.evaluation_wishes)
        if stratum == "composite":
            wishes = _composites(attributes, count, protocol, rng)
        elif stratum == "contradictory":
            wishes = _contradictory(attributes, count, rng)
        else:
            chosen = np.flatnonzero(attributes.withheld) if stratum == "withheld" else known
            if stratum == "misspelt":
                chosen = chosen[_can_be_misspelt(attributes.phrases.gather(chosen), split)]
            first = _balanced(chosen, min(count, _REPEATED * len(chosen)), rng)
            wishes = pl.DataFrame({"first": first, "target": attributes.items.draw(first, rng).astype(np.int32)})
            wishes = wishes.with_columns(attributes=pl.concat_list("first"))
        parts.append(wishes.head(count).with_columns(stratum=pl.lit(stratum)))
    return _with_histories(pl.concat(parts), own, rng)


def _with_histories(wishes: pl.DataFrame, own: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Wishes, every other one after the history of a random user."""
    row = rng.integers(own.height, size=wishes.height) if own.height else np.full(wishes.height, -1)
    return wishes.with_columns(row=pl.Series(np.where(np.arange(wishes.height) % 2, row, -1)))


def _with_companions(
    starts: pl.DataFrame, number: np.ndarray, attributes: Attributes, rng: np.random.Generator
) -> pl.DataFrame:
    """Wishes with `attributes`: the first one and others of the same item that training may name, `number` in all.

    An attribute whose words are in those of the first, or contain them, is none of the others.
    """
    known = attributes.known_of_items
    target = starts["target"].to_numpy()
    lengths = known.lengths[target]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    wish = np.repeat(np.arange(len(target)), lengths)
    others = pl.DataFrame(
        {
            "wish": wish,
            "first": starts["first"].to_numpy()[wish],
            "attribute": known.values[np.repeat(known.starts[target], lengths) + within],
            "key": rng.random(len(wish)),
            "number": number[wish],
        }
    )
    others = others.filter(~attributes.overlap(others["first"], others["attribute"]))
    others = others.sort("wish", "key").group_by("wish", maintain_order=True)
    others = others.agg(others=pl.col("attribute").head(pl.col("number").first() - 1))
    wishes = starts.with_columns(wish=pl.int_range(pl.len(), dtype=pl.Int64))
    wishes = wishes.join(others, on="wish", how="left", maintain_order="left")
    together = pl.concat_list("first", pl.col("others").fill_null([]))
    return wishes.with_columns(attributes=together).drop("wish", "others")


def _reserved(wishes: pl.DataFrame, protocol: Protocol) -> pl.Series:
    """Whether a wish names a pair of attributes that is reserved for evaluation."""
    names = [f"attribute {place}" for place in range(len(_NUMBERS))]
    places = wishes.select(
        pl.col("attributes").list.get(place, null_on_oob=True).fill_null(-1).alias(name)
        for place, name in enumerate(names)
    ).to_numpy()
    found = np.zeros(wishes.height, dtype=bool)
    for one in range(len(names)):
        for other in range(one):
            pair = places[:, [one, other]]
            found |= (pair >= 0).all(axis=1) & (_share_of_pair(pair, protocol.seed) < _RESERVED)
    return pl.Series("reserved", found)


def _share_of_pair(pairs: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each pair, the same in either order: splitmix64. Shape: (N, 2) -> (N,)."""
    low, high = pairs.min(axis=1).astype(np.uint64), pairs.max(axis=1).astype(np.uint64)
    with np.errstate(over="ignore"):
        bits = (high << np.uint64(32)) + low + np.uint64(seed % 2**31) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (bits ^ (bits >> np.uint64(31))).astype(np.float64) / 2.0**64


def _composites(attributes: Attributes, count: int, protocol: Protocol, rng: np.random.Generator) -> pl.DataFrame:
    """Wishes for two or three known attributes of an item, with a pair that no training wish names together."""
    known = attributes.known_of_items
    items = np.flatnonzero(known.lengths >= 2)
    target = items[rng.integers(len(items), size=_DRAWS * count)] if len(items) else items
    starts = pl.DataFrame({"first": known.draw(target, rng), "target": target.astype(np.int32)})
    wishes = _with_companions(starts, rng.integers(2, 4, size=len(target)), attributes, rng)
    wishes = wishes.filter((pl.col("attributes").list.len() > 1) & _reserved(wishes, protocol))
    wishes = wishes.with_columns(together=pl.col("attributes").list.sort())
    return wishes.unique("together", keep="first", maintain_order=True).drop("together")


def _contradictory(attributes: Attributes, count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Wishes for two known attributes that no item has together, although both go with a third: near substitutes."""
    first = _balanced(np.flatnonzero(~attributes.withheld), _DRAWS * count, rng)
    target = attributes.items.draw(first, rng)
    link = attributes.of_items.draw(target, rng)
    second = attributes.known_of_items.draw(attributes.items.draw(link, rng), rng)
    items = attributes.items.series
    pairs = pl.DataFrame({"first": first, "target": target.astype(np.int32), "second": second})
    pairs = pairs.filter(pl.col("second") >= 0)
    both = items.gather(pairs["first"]).list.set_intersection(items.gather(pairs["second"]))
    pairs = pairs.filter(~attributes.overlap(pairs["first"], pairs["second"]) & (both.list.len() == 0))
    pairs = pairs.with_columns(
        attributes=pl.concat_list("first", "second"), together=pl.concat_list("first", "second").list.sort()
    )
    return pairs.unique("together", keep="first", maintain_order=True).select("first", "target", "attributes")


def _evaluated_pairs(attributes: Attributes, own: pl.DataFrame, count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Wishes with something to avoid, each pair of attributes once."""
    first = _balanced(np.arange(len(attributes)), _DRAWS * count, rng)
    starts = pl.DataFrame({"first": first, "target": attributes.items.draw(first, rng).astype(np.int32)})
    pairs = _with_unwanted(starts, attributes, rng).unique(["first", "unwanted"], keep="first", maintain_order=True)
    parts = [
        pairs.filter(pl.col("stratum") == stratum).head(round(share * count))
        for stratum, share in _AVOID_SHARES.items()
    ]
    return _with_histories(pl.concat(parts), own, rng)


def _with_unwanted(starts: pl.DataFrame, attributes: Attributes, rng: np.random.Generator) -> pl.DataFrame:
    """Wishes with `unwanted`: an attribute that the target lacks and another item with the first attribute has."""
    first = starts["first"].to_numpy()
    unwanted = attributes.of_items.draw(attributes.items.draw(first, rng), rng)
    withheld = attributes.withheld[first] | attributes.withheld[unwanted]
    wishes = starts.with_columns(
        unwanted=pl.Series(unwanted),
        stratum=pl.when(pl.lit(pl.Series(withheld))).then(pl.lit("withheld")).otherwise(pl.lit("known")),
    )
    has_it = attributes.of_items.series.gather(wishes["target"]).list.contains(wishes["unwanted"])
    return wishes.filter(~has_it & ~attributes.overlap(wishes["first"], wishes["unwanted"]))


def _relevant(wishes: pl.DataFrame, attributes: Attributes) -> pl.Series:
    """The items with all attributes of each wish; of a contradictory one, with either."""
    items = attributes.items.series
    relevant = items.gather(wishes["first"])
    either = wishes["stratum"] == "contradictory"
    for place in range(1, len(_NUMBERS)):
        other = wishes["attributes"].list.get(place, null_on_oob=True)
        having = items.gather(other.fill_null(0))
        frame = pl.DataFrame({"all": relevant, "having": having, "either": either, "named": other.is_not_null()})
        joined = pl.when("either").then(pl.col("all").list.set_union("having"))
        joined = joined.otherwise(pl.col("all").list.set_intersection("having"))
        relevant = frame.select(all=pl.when("named").then(joined).otherwise("all"))["all"]
    return relevant.alias("relevant")


def _with_targets(
    wishes: pl.DataFrame,
    own: pl.DataFrame,
    split: str,
    tables: Tables,
    protocol: Protocol,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Wishes with user_id, step, history and targets; those for which nothing is left are dropped.

    Args:
        wishes: with row, target and relevant.
        own: the steps of the split, which `row` points to; there may be none.
        split: its name.
        tables: say what each user holds out.
        protocol: says whether bought items stay relevant.
        rng: draws the first target where the drawn item is not relevant after this history.
    """
    kept = [name for name in wishes.columns if name not in ("row", "relevant")]
    kept += ["user_id", "step", "split", "history"]
    shown = own.select("user_id", "step", "split", "history").with_row_index("row").cast({"row": pl.Int64})
    wishes = wishes.join(shown, on="row", how="left", maintain_order="left").with_columns(
        pl.col("user_id").fill_null(""),
        pl.col("step").fill_null(0),
        pl.col("history").fill_null(pl.lit([], dtype=pl.List(pl.Int32))),
        split=pl.lit(split),
    )
    never = pl.col("history") if protocol.repeats == "drop" else pl.lit([], dtype=pl.List(pl.Int32))
    if split == "train":
        held_out = with_item_index(tables).filter(tables.split() != "train").group_by("user_id").agg(held_out="item")
        wishes = wishes.join(held_out, on="user_id", how="left", maintain_order="left")
        never = never.list.set_union(pl.col("held_out").fill_null([]))
    left = pl.col("relevant").cast(pl.List(pl.Int32)).list.set_difference(never).list.sort()
    wishes = wishes.with_columns(left=left, draw=rng.random(wishes.height)).filter(pl.col("left").list.len() > 0)
    another = pl.col("left").list.get((pl.col("draw") * pl.col("left").list.len()).cast(pl.Int64))
    wishes = wishes.with_columns(
        target=pl.when(pl.col("left").list.contains(pl.col("target"))).then("target").otherwise(another)
    )
    rest = pl.col("left").list.set_difference(pl.concat_list("target")).list.sort()
    return wishes.with_columns(targets=pl.concat_list(pl.concat_list("target"), rest)).select(*kept, "targets")


def _worded(wishes: pl.DataFrame, attributes: Attributes, split: str, rng: np.random.Generator) -> pl.DataFrame:
    """Wishes with `text`, without those whose text names an attribute that is not theirs.

    Side by side "ballpoint" and "stainless steel" name "ballpoint stainless" as well, and a slip may make another
    attribute of one.
    """
    wishes = _with_text(wishes, attributes, attributes.phrases, split, rng)
    return wishes.filter(attributes.only_named_in(wishes["text"], wishes["attributes"]))


def _with_text(
    wishes: pl.DataFrame, attributes: Attributes, unnamed: pl.Series, split: str, rng: np.random.Generator
) -> pl.DataFrame:
    """Wishes with `text`; those that repeat the text of another after the same history are dropped.

    Args:
        wishes: with attributes and stratum.
        attributes: what they name.
        unnamed: phrases that no wording may name by its own words.
        split: whose wordings are used.
        rng: draws them.
    """
    lists = wishes.select(pl.int_range(pl.len()).alias("wish"), "attributes", "stratum").explode("attributes")
    lists = lists.with_columns(
        phrase=attributes.phrases.gather(lists["attributes"]), form=attributes.forms.gather(lists["attributes"])
    )
    lists = lists.with_columns(phrase=_slips(lists, split, rng))
    named = lists.group_by("wish", maintain_order=True).agg("phrase", "form")
    template = _templates(named["form"], unnamed, split, rng)
    text = WORDINGS[split].wishes(named["phrase"], named["form"], template)
    wishes = wishes.with_columns(text=text)
    keys = ["text", "user_id", "step", *(name for name in ("unwanted",) if name in wishes.columns)]
    return wishes.unique(keys, keep="first", maintain_order=True)


def _slips(lists: pl.DataFrame, split: str, rng: np.random.Generator) -> pl.Series:
    """Phrases, those of misspelt wishes with a slip."""
    draw = rng.random(lists.height)
    phrases = lists.filter(pl.col("stratum") == "misspelt")["phrase"].unique().sort()
    slips = pl.DataFrame(
        {"phrase": phrases, "slips": [misspellings(phrase, split) for phrase in phrases]},
        schema={"phrase": pl.String, "slips": pl.List(pl.String)},
    )
    found = lists.with_columns(draw=draw).join(slips, on="phrase", how="left", maintain_order="left")
    place = (pl.col("draw") * pl.col("slips").list.len()).cast(pl.Int64)
    slip = pl.when(pl.col("stratum") == "misspelt").then(pl.col("slips").list.get(place, null_on_oob=True))
    return found.select(phrase=pl.coalesce(slip, "phrase"))["phrase"]


def _can_be_misspelt(phrases: pl.Series, split: str) -> np.ndarray:
    return np.array([bool(misspellings(phrase, split)) for phrase in phrases], dtype=bool)


def _templates(forms: pl.Series, phrases: pl.Series, split: str, rng: np.random.Generator) -> np.ndarray:
    """A template for each wish, as a row of `Wordings.templates`; a third of them without a frame. Shape: (N,)."""
    table = WORDINGS[split].templates.with_row_index("row")
    usable = table.filter(~_names_attribute(split, phrases))
    usable = usable if usable.height else table
    nouns = forms.list.eval(pl.element().is_in(list(NOUN_FORMS))).list.all().to_numpy()
    bare = pl.col("style").is_null()
    chosen = np.zeros(len(forms), dtype=np.int64)
    draw, framed = rng.random(len(forms)), rng.random(len(forms)) >= _BARE
    for kind, rows in (
        (usable.filter(~bare), framed),
        (usable.filter(bare), ~framed & nouns),
        (usable.filter(bare & ~pl.col("about")), ~framed & ~nouns),
    ):
        kind = kind if kind.height else usable.filter(~pl.col("about"))
        chosen[rows] = kind["row"].to_numpy()[(draw[rows] * kind.height).astype(np.int64)]
    return chosen


def _names_attribute(split: str, phrases: pl.Series) -> pl.Series:
    """Whether the words of each template name an attribute themselves: gift cards are about birthdays."""
    templates = WORDINGS[split].templates
    styles = [
        " ".join([style.head, style.adjective, style.kind, style.kinds, *style.has, *style.is_like])
        for style in WORDINGS[split].styles
    ]
    words = pl.DataFrame({"style": range(len(styles)), "words": styles}, schema={"style": pl.Int64, "words": pl.String})
    templates = templates.join(words, on="style", how="left", maintain_order="left")
    own = pl.concat_str("frame", pl.lit(" "), pl.col("words").fill_null("")).str.replace_all(r"\{\w+\}", " ")
    named = phrases.to_frame("phrase").select(form=plain(pl.col("phrase")))["form"]
    return templates.select(named=plain(own).str.contains_any(named.implode()))["named"]
