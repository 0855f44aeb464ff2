"""A model measured on all axes and in both matching modes, with its own users' preferences and with other users'.

The rank of every target is kept beside the figures: two runs on the same examples can then be compared pair by pair,
which tells far smaller differences from noise than two separate intervals do.
"""

from __future__ import annotations

import importlib.util
import logging
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import evaluate
import numpy as np
import polars as pl
from datasets import Dataset

from mender.data import BenchmarkData
from mender.report import Score, in_order, row_name
from mender.runs import provenance, write_run
from modeling_mender import MenderProcessor
from modeling_mender.training.data import example_column, first_targets, select_axes, without_preferences
from modeling_mender.training.ranking import one_thread, rank_examples, request_speed

if TYPE_CHECKING:
    from mender.recommender import Recommender

__all__ = [
    "KS",
    "check_items",
    "evaluate_saved",
    "fit_to_history",
    "measure_requests",
    "metric_folder",
    "metric_module",
    "sample",
    "score_model",
    "shuffle_preferences",
]

logger = logging.getLogger(__name__)


INSTALLED = Path(__file__).parent / "metrics" / "preference_discerning"
IN_CHECKOUT = Path(__file__).parents[1] / "metrics" / "preference_discerning"


def metric_folder() -> str:
    """Folder of the metric `preference_discerning`, for `evaluate.load`.

    In a checkout it is next to the packages; when installed, it is inside this package.

    Raises:
        FileNotFoundError: if it is in neither place.

    >>> import evaluate
    >>> evaluate.load(metric_folder()).name
    'preference_discerning'
    """
    for folder in (INSTALLED, IN_CHECKOUT):
        if (folder / "preference_discerning.py").is_file():
            return str(folder)
    raise FileNotFoundError(f"the metric is neither in {INSTALLED} nor in {IN_CHECKOUT}; install mender again")


@cache
def metric_module() -> ModuleType:
    """The metric's file as a module, for the functions in it; `evaluate.load` gives the metric alone.

    Raises:
        FileNotFoundError: if it is not there.

    >>> metric_module().SENTIMENTS
    ('positive', 'negative')
    """
    file = Path(metric_folder()) / "preference_discerning.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KS = (5, 10)
SHUFFLED = "shuffled preferences"
SILENT = "silent"
"""Matching mode of recommendation examples that are asked without a preference."""


def score_model(
    model: Any,
    processor: MenderProcessor,
    data: BenchmarkData,
    name: str,
    limit: int | None,
    seed: int,
    exclude_seen: bool | None = None,
    split: str = "test",
    shuffled: bool = True,
) -> tuple[list[Score], pl.DataFrame]:
    """Scores by axis and matching mode, and the rank of every target.

    Recommendation examples are asked once more without a preference, as the matching mode "silent": what a model knows
    from the history alone.

    Args:
        model: any model with `recommend`.
        processor: renders its inputs.
        data: the benchmark.
        name: name of the method in tables.
        limit: maximum number of examples (or pairs) per axis; `None` uses all.
        seed: seed of the choice of examples and of the shuffling of preferences.
        exclude_seen: whether items of the history are left out of the ranking; default: unless items are bought again.
        split: split to use: "test", or "validation" to choose between models.
        shuffled: whether the model is also measured with the preferences of other users.

    Returns:
        Scores, and a table with one row per example and condition: matching (of the recommendation axis: oracle, last
        or silent; otherwise empty), condition (empty, or shuffled),
        axis, stratum, user_id, target, pair_id, sentiment, rank (0 if the target was not found), relevant (number
        of targets), found (ranks of those that were found), unit (equal for examples with the same targets).
    """
    metric = evaluate.load(metric_folder())
    exclude_seen = not data.repeats if exclude_seen is None else exclude_seen
    scores, tables = [], []
    for matching, test in _asked(data, split):
        test = sample(test, limit, seed)
        for condition in ("", SHUFFLED) if shuffled and matching != SILENT else ("",):
            asked = ", ".join(filter(None, (name, matching, condition)))
            logger.info("measuring %s: %s examples", asked, f"{len(test):,}")
            requests = test if not condition else shuffle_preferences(test, seed)
            ranked = rank_examples(model, processor, requests, max(KS), exclude_seen=exclude_seen)
            label = f"{name}, {condition}" if condition else name
            predictions = [processor.ids(rows) for rows in ranked]
            columns = {column: example_column(test, column) for column in _METRIC_COLUMNS.values()}
            groups = list(zip(test["axis"][:], example_column(test, "stratum"), strict=True))
            for axis, stratum in dict.fromkeys(groups):
                logger.info("computing the figures of %s: %s", asked, row_name(axis, stratum=stratum))
                rows = [row for row, group in enumerate(groups) if group == (axis, stratum)]
                own = {theirs: [columns[ours][row] for row in rows] for theirs, ours in _METRIC_COLUMNS.items()}
                figures = metric.compute(
                    predictions=[predictions[row] for row in rows], **own, catalogue=len(processor.item_ids), ks=KS
                )
                figures = {key.split("/", 1)[1]: value for key, value in figures.items()}
                if axis == "sentiment_following_with_history":
                    figures |= fit_to_history(ranked[rows], test.select(rows), data.items, processor)
                scores.append(Score(axis, matching if axis == "recommendation" else "", label, figures, stratum))
            tables.append(_ranks(ranked, test, processor, data.items, matching, condition))
    return in_order(scores), pl.concat(tables)


def _asked(data: BenchmarkData, split: str) -> Iterator[tuple[str, Dataset]]:
    """Matching modes with their examples; only the first mode has the axes beside recommendation."""
    first = next(iter(data.examples))
    everything = data.examples[first][split]
    yield first, everything
    if "recommendation" in everything.unique("axis"):
        recommendation = {mode: select_axes(own[split], {"recommendation": 1.0}) for mode, own in data.examples.items()}
        yield from list(recommendation.items())[1:]
        yield SILENT, without_preferences(recommendation[first])


# Arguments of the metric, and the columns of examples that they take.
_METRIC_COLUMNS = {
    "references": "targets",
    "axes": "axis",
    "sentiments": "sentiment",
    "pair_ids": "pair_id",
    "avoided": "avoided",
}


def _ranks(
    ranked: np.ndarray,
    examples: Dataset,
    processor: MenderProcessor,
    items: Dataset,
    matching: str,
    condition: str,
) -> pl.DataFrame:
    """The table of `score_model` for one list of examples."""
    axis, targets = examples["axis"][:], example_column(examples, "targets")
    lists = pl.DataFrame({"targets": targets}).with_row_index("row")
    flat = lists.explode("targets")
    flat = flat.with_columns(item=pl.Series(processor.item_indices(flat["targets"].to_list())))
    # Units are numbered by the benchmark's items: a recommender that also had others gets those of everybody else.
    rows = pl.DataFrame({"targets": items["item_id"][:]}).with_row_index("number")
    flat = flat.join(rows, on="targets", how="left", maintain_order="left")
    place = pl.DataFrame(
        {
            "row": np.repeat(np.arange(len(ranked)), ranked.shape[1]),
            "item": ranked.ravel(),
            "rank": np.tile(np.arange(1, ranked.shape[1] + 1), len(ranked)),
        },
        schema_overrides={"row": pl.UInt32},
    )
    flat = flat.join(place, on=["row", "item"], how="left", maintain_order="left")
    by_row = flat.group_by("row", maintain_order=True).agg(
        rank=pl.col("rank").first().fill_null(0),
        relevant=pl.len(),
        found=pl.col("rank").drop_nulls().sort(),
        items=pl.col("number").sort().cast(pl.String).str.join(" "),
    )
    return pl.DataFrame(
        {
            "matching": [matching if name == "recommendation" else "" for name in axis],
            "condition": [condition] * len(examples),
            "axis": axis,
            "stratum": example_column(examples, "stratum"),
            "user_id": examples["user_id"][:],
            "target": first_targets(examples),
            "pair_id": example_column(examples, "pair_id"),
            "sentiment": example_column(examples, "sentiment"),
            "rank": by_row["rank"],
            "relevant": by_row["relevant"],
            "found": by_row["found"],
            "unit": by_row["items"].rank("dense"),
        }
    )


_COMMON = 0.1  # aspects of more than this share of the catalogue do not describe a taste


def fit_to_history(
    ranked: np.ndarray, examples: Dataset, items: Dataset, processor: MenderProcessor
) -> dict[str, float]:
    """How well the lists for unwanted items fit the histories before them.

    A model that answers every negative preference with the same bestsellers leaves the unwanted item out. What it
    recommends instead should still be what such a customer buys. An item fits a history if it has an aspect that two
    items of the history have, and at most a tenth of the catalogue.

    Args:
        ranked: item indices, best first, -1 where there are fewer. Shape: (N, k).
        examples: N examples; those with negative sentiment count, if their history has such an aspect.
        items: the catalogue, with aspects.
        processor: knows the items.

    Returns:
        "fit@k" for each k of `KS`: share of the first k that fit, mean over the "n_fit" examples; empty without any.
    """
    if "aspects" not in items.column_names:
        return {}
    aspects = pl.DataFrame({"item": processor.item_indices(items["item_id"][:]), "aspect": items["aspects"][:]})
    aspects = aspects.explode("aspect")
    aspects = aspects.drop_nulls().filter(pl.len().over("aspect") <= _COMMON * len(items))
    negative = np.flatnonzero(np.array(examples["sentiment"][:]) == "negative")
    histories = [processor.item_indices(examples[int(row)]["history"]) for row in negative]
    bought = pl.DataFrame({"row": np.arange(len(negative)), "item": histories}, schema_overrides=_LISTED)
    tastes = bought.explode("item").drop_nulls().join(aspects, on="item").group_by("row", "aspect").len()
    tastes = tastes.filter(pl.col("len") >= 2)
    shown = pl.DataFrame({"row": np.arange(len(negative)), "item": ranked[negative].tolist()}, schema_overrides=_LISTED)
    shown = shown.with_columns(place=pl.int_ranges(1, pl.col("item").list.len() + 1)).explode("item", "place")
    shown = shown.join(tastes, on="row", how="semi")
    fitting = shown.join(aspects, on="item").join(tastes, on=["row", "aspect"], how="semi").unique(["row", "place"])
    count = tastes["row"].n_unique()
    if not count:
        return {}
    shares = {f"fit@{k}": fitting.filter(pl.col("place") <= k).height / (k * count) for k in KS}
    return shares | {"n_fit": count}


_LISTED = {"row": pl.Int64, "item": pl.List(pl.Int64)}


def shuffle_preferences(examples: Dataset, seed: int = 0) -> Dataset:
    """The same examples with preferences exchanged between them, within each axis and sentiment.

    Every example gets what another user wants and wants to avoid. The two halves of a sentiment pair get those of one
    other pair, because both sentiments are shuffled in the same way.

    Args:
        examples: examples of any axes.
        seed: seed of the exchange.
    """
    table = examples.to_polars().with_row_index("row")
    source = np.arange(len(examples))
    order = ["pair_id", "row"]
    for group in table.sort(order).partition_by("axis", "sentiment", maintain_order=True):
        rows = group["row"].to_numpy()
        # One random cycle: no example keeps its preferences, and groups of equal size are shuffled in the same way.
        cycle = np.random.default_rng(seed).permutation(len(rows))
        source[rows[cycle]] = rows[np.roll(cycle, 1)]
    wishes = [name for name in ("preferences", "avoid") if name in table.columns]
    shuffled = table.with_columns(table.select(wishes)[source]).drop("row")
    return Dataset.from_polars(shuffled, features=examples.features)


def sample(examples: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most `limit` examples of each axis, whatever other axes there are; pairs stay whole."""
    if limit is None:
        return examples
    axis, pair = np.array(examples["axis"][:]), np.array(examples["pair_id"][:])
    kept = []
    for value in np.unique(axis):
        generator = np.random.default_rng([seed, zlib.crc32(value.encode())])
        rows = np.flatnonzero(axis == value)
        units = np.where(pair[rows] >= 0, pair[rows], -1 - np.arange(len(rows)))
        distinct = np.unique(units)
        chosen = generator.choice(distinct, min(limit, len(distinct)), replace=False)
        kept.append(rows[np.isin(units, chosen)])
    return examples.select(np.sort(np.concatenate(kept)))


def evaluate_saved(
    shop: Recommender,
    data: BenchmarkData,
    output: Path,
    name: str,
    limit: int | None = None,
    run: Mapping[str, Any] | None = None,
    exclude_seen: bool | None = None,
    split: str = "test",
    baselines: Mapping[str, Recommender] | None = None,
) -> dict[str, Any]:
    """Measure a saved recommender on all axes and write the results.

    Args:
        shop: the recommender.
        data: the benchmark.
        output: folder for the results.
        name: name of the method in tables.
        limit: maximum number of examples (or pairs) per axis; `None` uses all.
        run: what is known of the model's training, see `mender.runs.training_of`; it goes into the record.
        exclude_seen: whether items of the history are left out of the ranking; default: unless items are bought again.
        split: split to use: "test", or "validation" to choose between models.
        baselines: what to measure beside it, by name.

    Returns:
        What five_axes.json holds.
    """
    origin = provenance(seed=0)
    exclude_seen = not data.repeats if exclude_seen is None else exclude_seen
    scores, ranks = score_model(shop.model, shop.processor, data, name, limit, 0, exclude_seen, split)
    for called, other in (baselines or {}).items():
        asked = (other.model, other.processor, data, called, limit, 0, exclude_seen, split)
        scores += score_model(*asked, shuffled=False)[0]
    run = {
        **origin,
        **(run or {}),
        "source": data.source,
        "method": name,
        "parameters": shop.model.num_parameters(),
        "exclude_seen": exclude_seen,
        "repeats": "keep" if data.repeats else "drop",
        "split": split,
        **measure_requests(shop.model, shop.processor, data),
    }
    title = f"{name} on {data.source}: {len(data.items):,} items{'' if exclude_seen else ', including seen ones'}"
    title += "" if split == "test" else f", {split} split"
    return write_run(output, in_order(scores), run, title, ranks)


def check_items(processor: MenderProcessor, data: BenchmarkData, name: str) -> None:
    """Check that a model's items are those of a benchmark.

    Raises:
        ValueError: if they are not.
    """
    if processor.item_ids != data.items["item_id"][:]:
        raise ValueError(
            f"{name} was trained on other items than {data.source} has ({len(processor.item_ids):,} and "
            f"{len(data.items):,}); pass the --source, --data and reading options that it was trained with"
        )


def measure_requests(model: Any, processor: MenderProcessor, data: BenchmarkData) -> dict[str, float]:
    """Milliseconds of one request and users per second, on recommendation examples of the test split."""
    test = select_axes(data.examples["oracle"]["test"], {"recommendation": 1.0})
    logger.info("timing requests")
    with one_thread():  # so that times of several runs can be compared
        return request_speed(model, processor, test)
