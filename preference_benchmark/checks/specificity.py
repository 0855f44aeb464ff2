"""How specific preferences are, and what follows: can an axis show whether a model uses them?

A preference may fit a hundred items as well as its target. A model that follows it to the letter then finds the target
by luck, and recall of one item says little about the model. So every axis of the test split is measured: how many items
fit a preference as well as its target does, what the preference alone can reach, and what popularity reaches, which
ignores it. Where the two are close, the axis cannot tell models apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import numpy as np
import polars as pl

from preference_benchmark.axes.attributes import Lists
from preference_benchmark.axes.build import BuiltExamples
from preference_benchmark.axes.examples import with_item_index
from preference_benchmark.axes.protocol import SENTIMENT_AXES, WISH_AXES, Protocol
from preference_benchmark.embedding import describe_items
from preference_benchmark.preferences.polarity import POSITIVE
from preference_benchmark.preferences.vocabulary import Vocabulary
from preference_benchmark.preferences.words import plain

__all__ = ["specificity", "tells_apart"]

_TOP = 10
# Examples of an axis that are measured at most, and at once: each needs a row as wide as the catalogue.
_MOST, _BLOCK = 1_000, 128
# The ceiling must be above the floor by so many half-widths of a 95 % interval, and by so much.
_HALF_WIDTHS, _LEAST = 2.0, 0.05
# Cosines of one text computed in blocks of different sizes differ by less than this.
_EQUAL = 1e-6


def specificity(built: BuiltExamples, protocol: Protocol) -> dict[str, dict]:
    """Measurements on at most 1,000 test examples of each axis, those with positive sentiment.

    Items of the history are left out, as in evaluation, unless things are bought again. What is reached is recall@10;
    on the axes of wishes, which ask for all items with some attributes, precision among the first min(10, all
    relevant).

    Args:
        built: the benchmark.
        protocol: the choices that it was made by.

    Returns:
        By axis (recommendation by matching mode, wishes by stratum):
        n: test examples with positive sentiment.
        fit_by_cosine, fit_by_aspects: how many items fit the preference as well as the target does, with the target
            (median); on wishes, how many are relevant.
        by_cosine, by_aspects: what a ranking by either reaches. Of items that fit equally well by aspects each is as
            likely to be first. Wishes are made of aspects, so a ranking by them finds all.
        popularity: what the most popular items reach; 0 on sentiment axes, whose pairs count only if the item is
            found for one half and left out for the other.
        in_titles: on wishes, share of the relevant items whose titles name the attribute; where something is to be
            avoided, of the items to avoid. None elsewhere, and where no text names an attribute as it is written.
        tells_apart: see there.
    """
    catalogue = _Catalogue(built, protocol)
    found = {}
    for name, frame in _groups(built):
        test = frame.filter((pl.col("split") == "test") & (pl.col("sentiment") == POSITIVE))
        if test.height:
            found[name] = catalogue.measure(test)
    return found


def tells_apart(measured: dict) -> bool:
    """Whether an axis can tell a model that uses preferences from one that does not.

    What the preference alone reaches must be above what popularity reaches: by a twentieth, and by twice the half-width
    of a 95 % interval of a share between them.

    Args:
        measured: of the axis, see `specificity`.

    >>> tells_apart({"n": 1000, "by_cosine": 0.31, "by_aspects": 0.52, "popularity": 0.04})
    True
    >>> tells_apart({"n": 12, "by_cosine": 0.31, "by_aspects": 0.52, "popularity": 0.04})
    False
    """
    ceiling, floor = max(measured["by_cosine"], measured["by_aspects"]), measured["popularity"]
    middle = (ceiling + floor) / 2
    half_width = 1.96 * sqrt(middle * (1 - middle) / measured["n"])
    return ceiling - floor > max(_HALF_WIDTHS * half_width, _LEAST)


def _groups(built: BuiltExamples) -> Iterator[tuple[str, pl.DataFrame]]:
    """Every axis once, but recommendation by mode and wishes by stratum."""
    for mode, frames in built.axes.items():
        if "recommendation" in frames:
            yield f"recommendation ({mode})", frames["recommendation"]
    for axis, frame in next(iter(built.axes.values())).items():
        if axis in WISH_AXES:
            for (stratum,), rows in frame.partition_by("stratum", as_dict=True, maintain_order=True).items():
                yield f"{axis} ({stratum})", rows
        elif axis != "recommendation":
            yield axis, frame


class _Catalogue:
    """The items' vectors, aspects and popularity in the training period, and measurements by them."""

    def __init__(self, built: BuiltExamples, protocol: Protocol) -> None:
        tables, self.protocol, self.embedder = built.tables, protocol, built.embedder
        self.size = tables.items.height
        self.vectors = np.asarray(self.embedder.encode(describe_items(tables.items, protocol.described_by)))
        vocabulary = Vocabulary.of(tables)
        index = tables.items.select("item_id", item=pl.int_range(pl.len()))
        pairs = vocabulary.of_items.join(index, on="item_id")
        aspect = pairs["aspect"].to_numpy().astype(np.int64)
        self.items_of_aspect = Lists.of(aspect, pairs["item"].to_numpy(), len(vocabulary.aspects)).series
        self.patterns = vocabulary.patterns().unique("pattern", keep="first", maintain_order=True)
        self.aspects, self.titles = vocabulary.aspects, tables.items["title"]
        trained = with_item_index(tables).filter(tables.split() == "train")["item"].to_numpy()
        self.by_popularity = np.argsort(-np.bincount(trained, minlength=self.size), kind="stable")

    def measure(self, test: pl.DataFrame) -> dict:
        """The measurements of one axis or stratum."""
        rng = np.random.default_rng(self.protocol.seed)
        chosen = np.sort(rng.choice(test.height, min(test.height, _MOST), replace=False))
        rows, axis = test[chosen], test["axis"][0]
        named = self._named(rows["preferences"])
        parts = [
            self._measure_block(rows[start : start + _BLOCK], named[start : start + _BLOCK], axis in WISH_AXES)
            for start in range(0, rows.height, _BLOCK)
        ]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        measured = {name: float(np.median(columns[name])) for name in ("fit_by_cosine", "fit_by_aspects")}
        measured |= {name: _rounded(columns[name].mean()) for name in ("by_cosine", "by_aspects", "popularity")}
        if axis in SENTIMENT_AXES:
            measured["popularity"] = 0.0
        in_titles = None
        if axis == "wish_and_avoid":
            in_titles = self._in_titles(self._named(rows["avoid"]), rows["avoided"])
        elif axis in WISH_AXES:
            in_titles = self._in_titles(named, rows["targets"])
        measured = {"n": test.height} | measured | {"in_titles": in_titles}
        return measured | {"tells_apart": tells_apart(measured)}

    def _measure_block(self, rows: pl.DataFrame, named: pl.Series, is_wish: bool) -> dict[str, np.ndarray]:
        """Each measurement of B examples. Shape: (B,) each; matrices have a column per item."""
        relevant, seen = (np.zeros((rows.height, self.size), dtype=bool) for _ in range(2))
        _mark(relevant, rows["targets"])
        if self.protocol.repeats == "drop":
            _mark(seen, rows["history"])
        num_relevant = relevant.sum(axis=1)
        cut = np.minimum(num_relevant, _TOP) if is_wish else np.full(rows.height, _TOP)
        most = cut if is_wish else num_relevant
        cosine = np.where(seen, -np.inf, self._vectors_of(rows["preferences"]) @ self.vectors.T)
        # The most popular items that are not seen are among the first ones.
        head = self.by_popularity[: _TOP + int(seen.sum(axis=1).max())]
        popular = head[np.argsort(seen[:, head], axis=1, kind="stable")[:, :_TOP]]
        reached = {
            "by_cosine": _hits(relevant, _largest(cosine), cut) / most,
            "popularity": _hits(relevant, popular, cut) / most,
        }
        if is_wish:
            every = {"fit_by_cosine": num_relevant, "fit_by_aspects": num_relevant}
            return reached | every | {"by_aspects": np.ones(rows.height)}
        target = relevant.argmax(axis=1)[:, None]
        near = np.take_along_axis(cosine, target, axis=1)
        count = np.where(seen, -1, self._named_by_item(named))
        own = np.take_along_axis(count, target, axis=1)
        better, equal = (count > own).sum(axis=1), (count == own).sum(axis=1)
        return reached | {
            "fit_by_cosine": (cosine >= near - _EQUAL).sum(axis=1),
            "fit_by_aspects": better + equal,
            "by_aspects": np.clip((_TOP - better) / equal, 0, 1),
        }

    def _vectors_of(self, preferences: pl.Series) -> np.ndarray:
        """The mean direction of each example's preferences. Shape: (B, D)."""
        lengths = preferences.list.len().to_numpy().astype(np.int64)
        vectors = np.asarray(self.embedder.encode(preferences.explode()))
        sums = np.add.reduceat(vectors, np.cumsum(lengths) - lengths, axis=0)
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)

    def _named(self, preferences: pl.Series) -> pl.Series:
        """The aspects that the texts of each example name, as lists of positions."""
        texts = preferences.to_frame("text").with_row_index("row").explode("text")
        found = pl.col("text").str.extract_many(self.patterns["pattern"].implode(), leftmost=True)
        pairs = texts.with_columns(text=plain(pl.col("text"))).select("row", pattern=found).explode("pattern")
        pairs = pairs.join(self.patterns, on="pattern").select("row", "aspect").unique()
        row, aspect = pairs["row"].to_numpy().astype(np.int64), pairs["aspect"].to_numpy().astype(np.int64)
        return Lists.of(row, aspect, len(preferences)).series

    def _named_by_item(self, named: pl.Series) -> np.ndarray:
        """How many of the named aspects each item has. Shape: (B, N)."""
        pairs = pl.DataFrame({"row": np.arange(len(named)), "aspect": named}).explode("aspect").drop_nulls()
        having = pairs.with_columns(item=self.items_of_aspect.gather(pairs["aspect"])).explode("item")
        having = having.drop_nulls()
        cell = having["row"].to_numpy() * self.size + having["item"].to_numpy()
        return np.bincount(cell, minlength=len(named) * self.size).reshape(-1, self.size)

    def _in_titles(self, named: pl.Series, items: pl.Series) -> float | None:
        """Share of the pairs of a named aspect and an item whose title has the words of the aspect."""
        pairs = pl.DataFrame({"aspect": named, "item": items}).explode("item").explode("aspect").drop_nulls().unique()
        texts = pl.DataFrame(
            {"aspect": self.aspects.gather(pairs["aspect"]), "title": self.titles.gather(pairs["item"])}
        )
        words = (plain(pl.col(name)).str.strip_chars().str.split("  ") for name in ("aspect", "title"))
        missing = next(words).list.set_difference(next(words)).list.len()
        return _rounded(texts.select((missing == 0).mean()).item()) if pairs.height else None


def _mark(matrix: np.ndarray, lists: pl.Series) -> None:
    """Set the entries of a matrix that are listed for each row."""
    rows = np.repeat(np.arange(len(lists)), lists.list.len().to_numpy())
    matrix[rows, lists.explode().drop_nulls().to_numpy()] = True


def _largest(values: np.ndarray) -> np.ndarray:
    """The `_TOP` columns of largest value in each row, largest first. Shape: (B, 10), or (B, N) where N is smaller."""
    found = np.argpartition(-values, min(_TOP, values.shape[1]) - 1, axis=1)[:, :_TOP]
    order = np.argsort(-np.take_along_axis(values, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def _hits(relevant: np.ndarray, ranked: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """How many of the first `cut` items of each row are relevant. Shape: (B,)."""
    found = np.take_along_axis(relevant, ranked, axis=1)
    return (found & (np.arange(ranked.shape[1]) < cut[:, None])).sum(axis=1)


def _rounded(value: float) -> float:
    return round(float(value), 4)
