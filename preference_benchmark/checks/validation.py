"""Measurements of how good a benchmark itself is.

On any data: does a preference fit its target better than another item, and how much of the text is repeated? On the
corner shop, where the tastes of all customers are known: does a matched preference state a true like, does a steering
target have the stated attribute, does an inversion flip the polarity and nothing else? Every share is given together
with the share that chance would reach.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from preference_benchmark.axes.build import BuiltExamples
from preference_benchmark.axes.examples import KEYS, with_item_index
from preference_benchmark.axes.protocol import STEERING_AXES, Protocol
from preference_benchmark.embedding import cosines, describe_items
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE, preference_polarity
from preference_benchmark.preferences.words import plain

__all__ = [
    "aspects_named",
    "duplicates",
    "margins",
    "similarities",
    "truth_rates",
    "validate",
]


_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def validate(built: BuiltExamples, protocol: Protocol) -> dict:
    """All measurements, as plain values for JSON.

    Args:
        built: the benchmark.
        protocol: the choices that it was made by.

    Returns:
        "margins" (without the single values), "duplicates", and "truth" (empty where the tastes are not known).
    """
    return {
        "margins": {
            name: {key: value for key, value in found.items() if key != "values"}
            for name, found in margins(built, protocol).items()
        },
        "duplicates": duplicates(built),
        "truth": {} if built.tables.truth is None else truth_rates(built, protocol.seed, protocol.inversion),
    }


def margins(built: BuiltExamples, protocol: Protocol) -> dict[str, dict]:
    """How much closer a preference is to its target than to another item, on the evaluated examples.

    The other item is, on the steering axes, the one that the history itself continues with; elsewhere, a random item
    of the catalogue. On the sentiment axis the text is the positive one.

    Returns:
        By axis (the recommendation axis once per matching mode): n, target and other (mean cosines), margin (their
        difference), closer (share of examples whose target is closer), quantiles of the margin, and its values.
    """
    about = describe_items(built.tables.items, protocol.described_by)
    rng = np.random.default_rng(protocol.seed)
    found = {}
    for name, frame in _named_axes(built):
        rows = frame.filter((pl.col("split") != "train") & (pl.col("sentiment") == POSITIVE))
        if rows.is_empty():
            continue
        if name in STEERING_AXES:
            rows = _with_next_item(rows, built)
        else:
            rows = rows.with_columns(other=pl.Series(rng.integers(len(about), size=rows.height)))
        text = rows["preferences"].list.first()
        near, far = (
            cosines(text, about.gather(items), built.embedder).to_numpy()
            for items in (rows["targets"].list.first(), rows["other"])
        )
        found[name] = {
            "n": rows.height,
            "target": _rounded(near.mean()),
            "other": _rounded(far.mean()),
            "margin": _rounded((near - far).mean()),
            "closer": _rounded((near > far).mean()),
            "quantiles": [_rounded(value) for value in np.quantile(near - far, _QUANTILES)],
            "values": near - far,
        }
    return found


def similarities(built: BuiltExamples, protocol: Protocol) -> dict[str, float]:
    """Mean cosine of target and matched preference.

    Returns:
        By matching mode, and, as "random", with the preferences exchanged between the targets.
    """
    about = describe_items(built.tables.items, protocol.described_by)
    steps = with_item_index(built.tables).select(*KEYS, "item")
    means = {}
    for mode, matches in built.matches.items():
        rows = matches.join(steps, on=KEYS, how="left", maintain_order="left")
        described = about.gather(rows["item"])
        means[mode] = _mean(cosines(rows["text"], described, built.embedder))
    other = rows["text"].gather(np.random.default_rng(protocol.seed).permutation(rows.height))
    return means | {"random": _mean(cosines(other, described, built.embedder))}


def duplicates(built: BuiltExamples) -> dict:
    """How much is repeated: among preferences, items, and examples.

    Returns:
        preferences (written, distinct, most_common: its text and share), items (with the title, and with the text,
        of another), and by axis: repeated (examples equal to an earlier one in all but the user) and trained_on
        (evaluated examples whose preferences and targets are those of a training example).
    """
    texts = built.preferences["text"]
    common = texts.value_counts(sort=True).sort("count", "text", descending=[True, False]).row(0)
    items = built.tables.items
    asked = ["history", "preferences", "avoid", "sentiment", "targets"]
    axes = {}
    for name, frame in _named_axes(built):
        keys = frame.select(
            "split",
            pair=pl.struct("preferences", "avoid", "targets", "sentiment").hash(),
            whole=pl.struct(asked).hash(),
        )
        evaluated = keys.filter(pl.col("split") != "train")
        trained = keys.filter(pl.col("split") == "train").select("pair").unique()
        axes[name] = {
            "n": frame.height,
            "repeated": frame.height - keys["whole"].n_unique(),
            "evaluated": evaluated.height,
            "trained_on": evaluated.join(trained, on="pair", how="semi").height,
        }
    return {
        "preferences": {
            "written": len(texts),
            "distinct": texts.n_unique(),
            "most_common": {"text": common[0], "share": _rounded(common[1] / len(texts))},
        },
        "items": {
            "n": items.height,
            "with the title of another": items.filter(pl.len().over("title") > 1).height,
            "with the text of another": items.filter(pl.len().over("text") > 1).height,
        },
        "axes": axes,
    }


def truth_rates(built: BuiltExamples, seed: int = 0, inversion: str = "paper") -> dict[str, dict]:
    """How often the benchmark is right, where the tastes of the users are known.

    An aspect is one of the items' own; a text names an aspect if it contains its words. Texts that name none are left
    out; "named" is the share of the others.

    Args:
        built: the benchmark, of tables with `truth`.
        seed: of the random examples for chance.
        inversion: the rules by which negative preferences were inverted.

    Returns:
        By question: rate, chance (the same question about another example's preference), n, named.
    """
    steps = with_item_index(built.tables).select(*KEYS, "item").join(built.tables.truth, on=KEYS)
    aspects = built.tables.items.select(target=pl.int_range(pl.len(), dtype=pl.Int32), carried="aspects")
    rng = np.random.default_rng(seed)
    rates = {}

    def ask(question: str, rows: pl.DataFrame, text: str, of: str) -> None:
        """Share of rows whose text names an aspect of the list column `of`."""
        named = aspects_named(rows[text], aspects["carried"])
        other = named.gather(rng.permutation(len(named)))
        table = rows.select(of=pl.col(of).fill_null([])).with_columns(named=named, other=other)
        table = table.with_columns(
            hit=pl.col("named").list.set_intersection("of").list.len() > 0,
            chance=pl.col("other").list.set_intersection("of").list.len() > 0,
        )
        naming, drawn = (table.filter(pl.col(name).list.len() > 0) for name in ("named", "other"))
        if naming.is_empty():
            return
        rates[question] = {
            "rate": _rounded(naming["hit"].mean()),
            "chance": _rounded(drawn["chance"].mean()),
            "n": naming.height,
            "named": _rounded(naming.height / table.height),
        }

    for mode in built.matches:
        if "recommendation" not in built.axes[mode]:
            continue
        rows = _first_text(built.axes[mode]["recommendation"]).with_columns(step=pl.col("history").list.len())
        rows = rows.with_columns(pl.col("step").cast(pl.Int64)).join(steps, on=["user_id", "step"])
        ask(f"matched preference ({mode}) states a true like", rows, "text", "likes")
        rows = rows.join(aspects, on="target", how="left", maintain_order="left")
        ask(f"target carries what the matched preference ({mode}) states", rows, "text", "carried")
    for axis in STEERING_AXES:
        if axis in built.axes[_first_mode(built)]:
            rows = _first_text(built.axes[_first_mode(built)][axis])
            rows = rows.join(aspects, on="target", how="left", maintain_order="left")
            ask(f"target of {axis.replace('_', ' ')} carries what is stated", rows, "text", "carried")
    if "sentiment_following" in built.axes[_first_mode(built)]:
        _ask_pairs(built, steps, aspects, inversion, ask, rates)
    return rates


def _first_mode(built: BuiltExamples) -> str:
    """The first matching mode; axes other than recommendation are the same in all."""
    return next(iter(built.axes))


def _ask_pairs(
    built: BuiltExamples, steps: pl.DataFrame, aspects: pl.DataFrame, inversion: str, ask: Callable, rates: dict
) -> None:
    """The questions about sentiment pairs."""
    rows = _first_text(built.axes[_first_mode(built)]["sentiment_following"])
    negative, positive = (rows.filter(pl.col("sentiment") == value) for value in (NEGATIVE, POSITIVE))
    if negative.is_empty():
        return
    own = steps.select("user_id", "dislikes", target="item").unique(["user_id", "target"], keep="first")
    pairs = negative.join(own, on=["user_id", "target"], how="left", maintain_order="left")
    ask("negative preference states a true dislike", pairs, "text", "dislikes")
    pairs = negative.join(aspects, on="target", how="left", maintain_order="left")
    ask("disliked item carries what the negative preference states", pairs, "text", "carried")
    pairs = negative.select("pair_id", negative="text").join(positive.select("pair_id", positive="text"), on="pair_id")
    polarities = [preference_polarity(pairs[name], inversion) for name in ("negative", "positive")]
    named = [aspects_named(pairs[name], aspects["carried"]).list.sort() for name in ("negative", "positive")]
    flipped = (polarities[0] == NEGATIVE) & (polarities[1] == POSITIVE)
    same = pl.select(same=pl.lit(named[0]).eq_missing(pl.lit(named[1]))).to_series()
    rates["inversion flips the polarity and keeps the aspects"] = {
        "rate": _rounded((flipped & same).mean()),
        "chance": 0.0,
        "n": pairs.height,
        "named": _rounded((named[0].list.len() > 0).mean()),
    }


def aspects_named(texts: pl.Series, aspects: pl.Series) -> pl.Series:
    """The aspects that each text names: those whose words it contains, whatever their number and case.

    Args:
        texts: N texts.
        aspects: lists of aspects, such as those of the items.

    Returns:
        N lists, of different aspects in no order.

    >>> aspects_named(pl.Series(["Find a Mint Tea"]), pl.Series([["mint"], ["mint tea", "jar"]])).to_list()
    [['mint tea']]
    """
    phrases = aspects.explode().drop_nulls().unique()
    known = phrases.rename("aspect").to_frame().with_columns(pattern=plain(pl.col("aspect")))
    # Of phrases that begin at the same place the longest counts.
    known = known.sort(pl.col("pattern").str.len_chars(), "aspect", descending=[True, False]).unique(
        "pattern", keep="first", maintain_order=True
    )
    distinct = texts.rename("text").to_frame().unique()
    found = distinct.with_columns(
        pattern=plain(pl.col("text")).str.extract_many(known["pattern"].implode(), leftmost=True)
    )
    lists = found.explode("pattern").join(known, on="pattern").group_by("text").agg(named=pl.col("aspect").unique())
    joined = texts.rename("text").to_frame().join(lists, on="text", how="left", maintain_order="left")
    return joined["named"].fill_null([])


def _named_axes(built: BuiltExamples) -> list[tuple[str, pl.DataFrame]]:
    """Every distinct axis: recommendation once per mode, the others once."""
    modes = [(f"recommendation ({mode})", frames) for mode, frames in built.axes.items()]
    named = [(name, frames["recommendation"]) for name, frames in modes if "recommendation" in frames]
    return named + [found for found in built.axes[_first_mode(built)].items() if found[0] != "recommendation"]


def _first_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Examples with their first preference as `text` and their first target as `target`."""
    return frame.with_columns(text=pl.col("preferences").list.first(), target=pl.col("targets").list.first())


def _with_next_item(rows: pl.DataFrame, built: BuiltExamples) -> pl.DataFrame:
    """Examples with the item that their history continues with, as `other`."""
    step = pl.col("history").list.len().cast(pl.Int64)
    bought = with_item_index(built.tables).select(*KEYS, other="item")
    return rows.with_columns(step=step).join(bought, on=KEYS, how="left", maintain_order="left")


def _mean(values: pl.Series) -> float:
    return _rounded(values.mean() or 0.0)


def _rounded(value: float) -> float:
    return round(float(value), 4)
