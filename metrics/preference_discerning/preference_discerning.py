"""The metric of preference discerning: does a recommender listen to what a person asks for?

Recall, NDCG, MRR and MAP at k on every axis of the benchmark, and m@k on pairs of opposite sentiment, as in
"Preference Discerning with LLM-Enhanced Generative Retrieval" (Paischer et al. 2025, arXiv:2412.08604); each
figure with the number of examples and a bootstrap interval. Figures are averages over examples, never over
batches. The file stands alone, so that `evaluate.load` works on its folder as well as on the Hub.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

import datasets
import evaluate
import numpy as np

__all__ = [
    "AXES",
    "PreferenceDiscerning",
    "bootstrap_interval",
    "ndcg_at",
    "pair_ranks",
    "recall_at",
    "reciprocal_rank_at",
    "target_ranks",
]

AXES = (
    "recommendation",
    "fine_grained_steering",
    "coarse_grained_steering",
    "sentiment_following",
    "history_consolidation",
    "sentiment_following_with_history",
)
PAIRED_AXES = ("sentiment_following", "sentiment_following_with_history")
# Their targets are chosen by the benchmark, some of them again and again with the same text: no independent examples.
CHOSEN_AXES = ("fine_grained_steering", "coarse_grained_steering", *PAIRED_AXES)
SENTIMENTS = ("positive", "negative")

_DESCRIPTION = """\
Scores ranked lists of items on the axes of preference discerning: Recall, NDCG, MRR and MAP at any k,
and m@k on pairs of opposite sentiment, each with the number of examples and a bootstrap interval.
"""

_INPUTS = """\
Args:
    predictions: ranked item ids of every example, best first: lists of strings, or of integers (negative ones
        are padding). An item given twice counts once, at its better place. Lists shorter than k are scored as
        they are, with a warning.
    references: the target item id of every example.
    axes: the axis of every example, by name.                                  (configuration "default" only)
    sentiments: "positive", or "negative" where the target is to be kept out.  (configuration "default" only)
    pair_ids: joins the two examples of a sentiment pair; -1 on other axes.    (configuration "default" only)
    ks: cut-offs, default (5, 10).
    confidence: of the intervals, default 0.95.
    n_resamples: bootstrap resamples, default 1000; 0 leaves the intervals out.
    seed: of the bootstrap, default 0.
Returns:
    A flat dict. Per axis "<axis>/n" and, for every k, "<axis>/recall@k", "<axis>/ndcg@k", "<axis>/mrr@k",
    "<axis>/map@k", each with "<figure>/low" and "<figure>/high": of a bootstrap over examples, on the steering
    and sentiment axes over all examples of a target at a time. On the sentiment axes, n counts pairs;
    those four figures are of the positive texts; "avoid@k" is the share of negative texts that keep the
    target out of the top k, and "m@k" the share of pairs that do both. Configuration "ranking" has no axes:
    "n", "recall@k", "recall@k/low", ...
Examples:
    >>> metric = evaluate.load("metrics/preference_discerning", "ranking")
    >>> metric.compute(predictions=[["a", "b"], ["c", "d"]], references=["b", "x"], ks=[2], n_resamples=0)
    {'n': 2, 'recall@2': 0.5, 'ndcg@2': 0.31546487678572877, 'mrr@2': 0.25, 'map@2': 0.25}
"""

_CITATION = """\
@article{paischer2025preference,
  title={Preference Discerning with LLM-Enhanced Generative Retrieval},
  author={Paischer, Fabian and others},
  journal={Transactions on Machine Learning Research},
  year={2025},
  url={https://arxiv.org/abs/2412.08604}
}
"""


def target_ranks(predictions: Sequence[Sequence[Any]], references: Sequence[Any]) -> np.ndarray:
    """Place of every target in its ranked list, counting distinct items only.

    Args:
        predictions: N ranked lists of item ids, best first; of any lengths. Negative integers are padding.
        references: N target ids, of the same type.

    Returns:
        1 for the first place, 0 where the target is absent. Shape: (N,), int64.

    Raises:
        ValueError: if ids are neither strings nor integers, or the two arguments differ in that.

    >>> target_ranks([["a", "a", "b"], ["a"]], ["b", "c"]).tolist()
    [2, 0]
    """
    (flat, row), targets = _flatten(predictions), np.array(references)
    if not flat.size:
        return np.zeros(len(targets), np.int64)
    if (flat.dtype.kind == "U") != (targets.dtype.kind == "U"):
        raise ValueError(f"ranked items are {flat.dtype} but targets {targets.dtype}; pass ids of one type.")
    hits = np.flatnonzero(flat == targets[row])
    found, first = np.unique(row[hits], return_index=True)
    # Repeats matter only ahead of a target, so only those items are looked at.
    last_place = np.full(len(targets), -1)
    last_place[found] = hits[first]
    ahead = np.flatnonzero(np.arange(len(flat)) <= last_place[row])
    item = np.unique(flat[ahead], return_inverse=True)[1].reshape(-1)
    width = item.max(initial=0) + 1
    return np.bincount(np.unique(row[ahead] * width + item) // width, minlength=len(targets))


def pair_ranks(
    ranks: np.ndarray, references: Sequence[Any], sentiments: Sequence[str], pair_ids: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the same target for the positive and for the negative text of every pair.

    Args:
        ranks: output of `target_ranks` for the paired examples. Shape: (2P,).
        references: target ids; the two of a pair must agree.
        sentiments: "positive" or "negative"; one of each in a pair.
        pair_ids: what joins two examples.

    Returns:
        Positive and negative ranks, by ascending pair id. Shapes: (P,), (P,).

    Raises:
        ValueError: if a pair has not exactly two examples, twice the same sentiment, or two targets.
    """
    ids, targets = np.asarray(pair_ids), np.asarray(references)
    negative = np.asarray(sentiments) == "negative"
    pairs, counts = np.unique(ids, return_counts=True)
    if pairs.size and pairs[0] < 0:
        raise ValueError(f"pair_id {pairs[0]} on a sentiment axis: every example there needs one >= 0.")
    _refuse(counts != 2, pairs, counts, "has {value} example(s); a pair is one positive and one negative")
    order = np.lexsort([negative, ids])
    first, second = order[::2], order[1::2]
    same = negative[first] == negative[second]
    twice = np.where(negative[first], "negative", "positive")
    _refuse(same, pairs, twice, "has two {value} examples; a pair is one positive and one negative")
    _refuse(targets[first] != targets[second], pairs, targets[second], "has two targets, one is {value!r}")
    return ranks[first], ranks[second]


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the one target is among the first k, else 0. Shape as `ranks`."""
    return ((ranks >= 1) & (ranks <= k)).astype(np.float64)


def ndcg_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain with one target: 1 / log2(rank + 1) in the first k, else 0."""
    return recall_at(ranks, k) / np.log2(np.maximum(ranks, 1) + 1)


def reciprocal_rank_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / rank within the first k, else 0. With one target this is the average precision as well."""
    return recall_at(ranks, k) / np.maximum(ranks, 1)


def bootstrap_interval(
    values: np.ndarray,
    *,
    units: np.ndarray | None = None,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap intervals of the means of several figures over the same examples.

    Examples are resampled with replacement, all figures of an example together; where `units` are given, all
    examples of a unit together. As few of them differ (figures depend on a rank), the counts of the distinct ones
    are drawn instead of the examples: the same distribution at a cost that hardly grows with N, and a result that
    does not depend on their order.

    Args:
        values: one row per example, one column per figure. Shape: (N, M).
        units: what is drawn at a time, by label; default: each example alone. Shape: (N,).
        confidence: probability that the interval shall cover.
        n_resamples: number of resamples.
        seed: of the random numbers.

    Returns:
        Lower and upper ends. Shapes: (M,), (M,).
    """
    sums = np.column_stack([values, np.ones(len(values))])
    if units is not None:
        names, unit = np.unique(units, return_inverse=True)
        sums = np.stack([np.bincount(unit.reshape(-1), column, len(names)) for column in sums.T], axis=1)
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    generator, drawn = np.random.default_rng(seed), len(sums)
    means = np.empty((n_resamples, values.shape[1]))
    block = max(1, 2**22 // len(distinct))  # else the draws of a large benchmark fill the memory
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        totals = generator.multinomial(drawn, counts / drawn, size=size) @ distinct
        means[start : start + size] = totals[:, :-1] / totals[:, -1:]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class PreferenceDiscerning(evaluate.Metric):
    """The `evaluate` module around the functions above."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "ranking"):
            raise ValueError(
                f"unknown configuration {self.config_name!r}; load 'default' (axes) or 'ranking' (no axes)."
            )
        extra = {}
        if self.config_name == "default":
            text = datasets.Value("string")
            extra = {"axes": text, "sentiments": text, "pair_ids": datasets.Value("int64")}
        identifiers = (datasets.Value("string"), datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": datasets.List(item), "references": item, **extra})
                for item in identifiers
            ],
            reference_urls=["https://arxiv.org/abs/2412.08604"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> None:
        """Add examples; `compute` scores all that were added.

        Args:
            predictions: ranked item ids, one list per example.
            references: target item ids.
            **columns: `axes`, `sentiments` and `pair_ids` in configuration "default".

        Raises:
            ValueError: if columns differ in length or hold something else than described.
        """
        batch = {"predictions": predictions, "references": references, **columns}
        missing = [name for name in self._feature_names() if batch.get(name) is None]
        if missing:
            raise ValueError(f"missing inputs {missing}; configuration {self.config_name!r} needs them.")
        batch = {name: _as_list(column) for name, column in batch.items()}
        lengths = {name: len(column) for name, column in batch.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the inputs differ in length: {lengths}; pass one value per example to each.")
        if not lengths["predictions"]:
            raise ValueError("no examples were given; pass at least one.")
        if self.config_name == "default":
            _check_names(batch["axes"], "axes", AXES)
            _check_names(batch["sentiments"], "sentiments", SENTIMENTS)
        batch["predictions"] = _checked_rankings(batch["predictions"])
        _check_ids(batch["predictions"], batch["references"])
        super().add_batch(**batch)

    def add(self, *, prediction: Any = None, reference: Any = None, **columns: Any) -> None:
        """Add one example, see `add_batch`.

        Args:
            prediction: ranked item ids.
            reference: target item id.
            **columns: `axes`, `sentiments` and `pair_ids` of the example in configuration "default".
        """
        one = {name: None if value is None else [value] for name, value in columns.items()}
        self.add_batch(predictions=[prediction], references=[reference], **one)

    def compute(self, *, predictions: Any = None, references: Any = None, **arguments: Any) -> dict | None:
        """Score what is given and what was added before; `None` in processes other than the first.

        Args:
            predictions: ranked item ids, one list per example.
            references: target item ids.
            **arguments: the other columns, and `ks`, `confidence`, `n_resamples`, `seed`.

        Raises:
            ValueError: if there are no examples, or they are not as described.
        """
        if predictions is None and references is None and self.writer is None:
            raise ValueError("no examples were given; pass predictions and references, or call add_batch before.")
        return super().compute(predictions=predictions, references=references, **arguments)

    def _compute(
        self,
        predictions: list[list[Any]],
        references: list[Any],
        axes: list[str] | None = None,
        sentiments: list[str] | None = None,
        pair_ids: list[int] | None = None,
        ks: Sequence[int] | int = (5, 10),
        confidence: float = 0.95,
        n_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, float | int]:
        ks = _checked_ks(ks)
        if not 0 < confidence < 1:
            raise ValueError(f"confidence={confidence} must lie between 0 and 1, for example 0.95.")
        if n_resamples < 0:
            raise ValueError(f"n_resamples={n_resamples} must be >= 0; 0 leaves the intervals out.")
        given, distinct = _lengths(predictions)
        short = int((given < ks[-1]).sum())
        if short:
            warnings.warn(
                f"{short} of {len(predictions)} ranked lists hold fewer than k={ks[-1]} items; "
                "what they lack counts as a miss.",
                stacklevel=2,
            )
        ranks = target_ranks(predictions, references)
        repeated = int((given > distinct).sum())
        if repeated:
            warnings.warn(
                f"{repeated} of {len(predictions)} ranked lists name an item more than once; "
                "it counts once, at its better place.",
                stacklevel=2,
            )
        resampling = {"confidence": confidence, "n_resamples": n_resamples, "seed": seed}
        if axes is None:
            return _summary(_ranking_figures(ranks, ks), "", **resampling)
        _check_names(axes, "axes", AXES)
        _check_names(sentiments, "sentiments", SENTIMENTS)
        axis_of, sentiment_of = np.array(axes), np.array(sentiments)
        target_of, pair_of = np.array(references), np.array(pair_ids)
        result: dict[str, float | int] = {}
        for axis in (axis for axis in AXES if (axis_of == axis).any()):
            rows = axis_of == axis
            if axis in PAIRED_AXES:
                pairs = pair_ranks(ranks[rows], target_of[rows], sentiment_of[rows], pair_of[rows])
                figures = _pair_figures(*pairs, ks)
                units = target_of[rows][np.unique(pair_of[rows], return_index=True)[1]]
            else:
                stray = rows & ((pair_of != -1) | (sentiment_of == "negative"))
                if stray.any():
                    row = int(np.flatnonzero(stray)[0])
                    raise ValueError(
                        f"example {row} on axis {axis} has pair_id {pair_of[row]} and sentiment "
                        f"'{sentiment_of[row]}'; only {', '.join(PAIRED_AXES)} have pairs: expected -1, 'positive'."
                    )
                figures = _ranking_figures(ranks[rows], ks)
                units = target_of[rows] if axis in CHOSEN_AXES else None
            result |= _summary(figures, f"{axis}/", units=units, **resampling)
        return result


def _ranking_figures(ranks: np.ndarray, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Every ranking figure of every example; N values each."""
    figures = {}
    for k in ks:
        figures |= {f"recall@{k}": recall_at(ranks, k), f"ndcg@{k}": ndcg_at(ranks, k)}
        figures |= dict.fromkeys((f"mrr@{k}", f"map@{k}"), reciprocal_rank_at(ranks, k))
    return figures


def _pair_figures(positive: np.ndarray, negative: np.ndarray, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """m@k, its two halves, and the ranking figures of the positive texts; one value per pair each."""
    figures = {}
    for k in ks:
        avoided = 1 - recall_at(negative, k)
        figures |= {f"m@{k}": recall_at(positive, k) * avoided, f"avoid@{k}": avoided}
    return figures | _ranking_figures(positive, ks)


def _summary(
    figures: dict[str, np.ndarray],
    prefix: str,
    *,
    confidence: float,
    n_resamples: int,
    seed: int,
    units: np.ndarray | None = None,
) -> dict[str, float | int]:
    """Mean, lower and upper end of every figure under flat keys."""
    values = np.stack(list(figures.values()), axis=1)
    result: dict[str, float | int] = {f"{prefix}n": len(values)}
    means = values.mean(axis=0)
    result |= {f"{prefix}{name}": float(mean) for name, mean in zip(figures, means, strict=True)}
    if n_resamples:
        ends = bootstrap_interval(values, units=units, confidence=confidence, n_resamples=n_resamples, seed=seed)
        for name, low, high in zip(figures, *ends, strict=True):
            result |= {f"{prefix}{name}/low": float(low), f"{prefix}{name}/high": float(high)}
    return result


def _checked_ks(ks: Sequence[int] | int) -> tuple[int, ...]:
    """Distinct cut-offs, ascending."""
    values = [ks] if np.ndim(ks) == 0 else list(ks)
    wrong = [k for k in values if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1]
    if wrong or not values:
        raise ValueError(f"ks={ks} must name whole numbers >= 1, for example [5, 10].")
    return tuple(sorted({int(k) for k in values}))


def _as_list(column: Any) -> list[Any]:
    """Arrays, tensors and columns of a data set as plain lists, which is what the features check."""
    return column.tolist() if hasattr(column, "tolist") else list(column)


def _lengths(predictions: Sequence[Sequence[Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Items and distinct items of every ranked list, padding left out. Shapes: (N,), (N,)."""
    flat, row = _flatten(predictions)
    item = np.unique(flat, return_inverse=True)[1].reshape(-1)
    width = item.max(initial=0) + 1
    distinct = np.unique(row * width + item) // width
    return np.bincount(row, minlength=len(predictions)), np.bincount(distinct, minlength=len(predictions))


def _checked_rankings(predictions: list[Any]) -> list[list[Any]]:
    """Every ranked list as a plain list.

    Raises:
        ValueError: if one is no list.
    """
    for ranking in predictions:
        if isinstance(ranking, (str, bytes, dict, set)) or not hasattr(ranking, "__iter__"):
            raise ValueError(f"predictions holds {ranking!r}; expected a ranked list of ids per example.")
    return [_as_list(ranking) for ranking in predictions]


def _check_ids(predictions: Sequence[Sequence[Any]], references: Sequence[Any]) -> None:
    """Refuse whatever is no id, and ids of two types.

    Raises:
        ValueError: naming the first value that is neither text nor a whole number.
    """
    columns = {"predictions": list(chain.from_iterable(predictions)), "references": list(references)}
    texts = {}
    for name, values in columns.items():
        # Types are few where values are many.
        kinds = set(map(type, values))
        whole = {kind for kind in kinds if issubclass(kind, (int, np.integer)) and kind is not bool}
        text = {kind for kind in kinds if issubclass(kind, str)}
        if wrong := kinds - whole - text:
            value = next(value for value in values if type(value) in wrong)
            raise ValueError(
                f"{name} holds {value!r}, a {type(value).__name__}; expected strings or integers, no gaps or fractions."
            )
        if whole and text:
            raise ValueError(f"{name} mixes strings and integers; pass ids of one type.")
        if kinds:
            texts[name] = bool(text)
    if len(set(texts.values())) > 1:
        raise ValueError("predictions and references hold ids of different types; pass strings or integers to both.")


def _check_names(column: Sequence[Any], name: str, allowed: tuple[str, ...]) -> None:
    """Refuse names that the benchmark does not know."""
    unknown = set(column) - set(allowed)
    if unknown:
        raise ValueError(
            f"{name} holds {sorted(unknown, key=str)[0]!r}; expected names out of {', '.join(allowed)}. "
            "Class labels become names by `dataset.features[column].int2str`."
        )


def _flatten(predictions: Sequence[Sequence[Any]]) -> tuple[np.ndarray, np.ndarray]:
    """All ranked items one after another, padding left out, and the example each belongs to."""
    flat = np.array(list(chain.from_iterable(predictions)))
    lengths = np.fromiter(map(len, predictions), np.int64, len(predictions))
    row = np.repeat(np.arange(len(predictions)), lengths)
    if flat.size and flat.dtype.kind not in "Ui":
        raise ValueError("ranked lists hold something else than ids; expected strings or integers, no gaps.")
    kept = flat >= 0 if flat.dtype.kind == "i" else slice(None)
    return flat[kept], row[kept]


def _refuse(wrong: np.ndarray, pairs: np.ndarray, values: np.ndarray, reason: str) -> None:
    """Raise with the first pair that is wrong."""
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        found = reason.format(value=values[at].item())
        raise ValueError(f"pair_id {pairs[at]} {found} ({wrong.sum()} such pair(s)).")
