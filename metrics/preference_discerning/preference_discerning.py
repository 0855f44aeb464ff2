"""A metric for recommenders that take requests: ranked lists against what should and should not be in them.

Accuracy with one or several relevant items, items that must stay out, pairs of opposite sentiment as in
"Preference Discerning with LLM-Enhanced Generative Retrieval" (Paischer et al. 2025, arXiv:2412.08604), and what
the lists look like beside one another: coverage, overlap, hubs. Accuracy comes with bootstrap intervals. Figures
are averages over examples, never over batches. The file stands alone, so that `evaluate.load` works on its
folder as well as on the Hub.

Symbols: N examples, k cut-off, V distinct ids, M figures.
"""

from __future__ import annotations

import numbers
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain, count
from reprlib import repr as short
from typing import Any, NamedTuple

import datasets
import evaluate
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["AXES", "CHOSEN_AXES", "KINDS", "SENTIMENTS", "PreferenceDiscerning", "bootstrap_interval"]

AXES = (
    "recommendation",
    "fine_grained_steering",
    "coarse_grained_steering",
    "sentiment_following",
    "history_consolidation",
    "sentiment_following_with_history",
    "open_wishes",
    "wish_and_avoid",
)
"""Axes of the benchmark, in the order of its tables. Other names are groups of examples like any other."""

CHOSEN_AXES = (
    "fine_grained_steering",
    "coarse_grained_steering",
    "sentiment_following",
    "sentiment_following_with_history",
    "open_wishes",
    "wish_and_avoid",
)
"""Axes whose targets the benchmark chooses, some of them many times: their examples are not independent."""

SENTIMENTS = ("positive", "negative")
KINDS = ("stated", "inferred", "silent")

_DESCRIPTION = """\
Scores ranked lists of items: recall, NDCG, MRR, MAP, hit rate and R-precision at any k with one or several
relevant items; items that must stay out; m@k on pairs of opposite sentiment; coverage, overlap and hubness of
the lists. Accuracy comes with bootstrap intervals, by axis or kind of request where these are given.
"""

_INPUTS = """\
Args:
    predictions: ranked item ids of every example, best first. Ids are strings or integers of any size. None and
        negative integers are padding. Lists may be empty or differ in length.
    references: the relevant ids of every example: one id, a list of ids, or a mapping from id to grade.
    axes: optional name of the axis (or any other group) of every example; figures are given by axis.
    kinds: optional kind of every request, "stated", "inferred" or "silent"; figures are given by kind.
    sentiments: optional, "positive" (default) or "negative"; negative examples need a pair.
    pair_ids: optional, joins the positive and the negative example of a pair; None or -1 where there is no pair.
    avoided: optional ids that must stay out, for every example one id, a list of ids or None.
    catalogue: optional number of items that can be recommended, or their ids.
    ks: cut-offs, default (5, 10).
    confidence: of the intervals, default 0.95.
    n_resamples: bootstrap resamples, default 1000; 0 leaves the intervals out.
    seed: of the bootstrap, default 0.
Returns:
    A flat dict of numbers: "n", then for every k

    accuracy, mean over examples, each with "<figure>/low" and "<figure>/high":
        "recall@k": relevant items in the first k / all relevant items.
        "hit_rate@k": 1 if any relevant item is in the first k.
        "r_precision@k": relevant items in the first j / j, where j is the smaller of k and the number of
            relevant items; R-precision (Buckley and Voorhees 2005), cut at k.
        "mrr@k": 1 / rank of the first relevant item, 0 beyond k.
        "map@k": sum of the precision at the rank of every relevant item in the first k / all relevant items, as
            trec_eval's map_cut.
        "ndcg@k": sum of grade / log2(rank + 1) over the first k / the same sum of the best possible list
            (Jarvelin and Kekalainen 2002); without grades, every relevant item has grade 1.
    items that must stay out, over the "n_avoided" examples that name some, with intervals:
        "avoided@k": number of them in the first k.
        "avoid@k": 1 if none of them is in the first k.
    pairs, where pair ids are given; "n" then counts pairs and accuracy is that of the positive examples:
        "m@k": 1 if the positive example has a relevant item in the first k and the negative one has none
            (Paischer et al. 2025).
        "avoid@k": 1 if the negative example has none of the relevant items in the first k.
    all lists together, without intervals:
        "aggregate_diversity@k": distinct items in the first k of all lists (Adomavicius and Kwon 2012).
        "overlap@k": share of the first k that two lists have in common, mean over all pairs of lists; 1 minus
            the inter-list diversity of Zhou et al. (2010). Needs two lists.
        "hubness@k": share of the lists whose first k contain the most frequent item.
        With a catalogue also, over all of its items:
        "coverage@k": aggregate diversity / size of the catalogue (Ge et al. 2010).
        "gini@k": Gini index of how often items are recommended, 0 (all equally) to 1 (always the same one)
            (Shani and Gunawardana 2011).
        "skewness@k": skewness of the same counts, high if a few items are hubs (Radovanovic et al. 2010).

    With axes and kinds the names begin with those: "recommendation/recall@10", "stated/recall@10",
    "recommendation/stated/recall@10". Intervals are of a percentile bootstrap over examples; on the axes in
    `CHOSEN_AXES`, all examples with the same relevant items are drawn together.
Examples:
    >>> metric = evaluate.load("metrics/preference_discerning")
    >>> results = metric.compute(predictions=[["a", "b"], ["c", "d"]], references=["b", "x"], ks=[2])
    >>> results["n"], results["recall@2"]
    (2, 0.5)
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

# Ids are kept once per batch, as bytes of any length: fixed-width text would give every id the room of the longest.
# Integers begin with a byte that UTF-8 never uses, so 7 and "7" stay two ids.
INTEGER_MARK = b"\xff"
POSITIONS = datasets.LargeList(datasets.Value("int64"))
STORED = datasets.Features(
    {
        "ids": datasets.LargeList(datasets.Value("large_binary")),  # of a batch, all beside its first example
        "predictions": POSITIONS,  # in the ids of the batch
        "references": POSITIONS,
        "grades": datasets.LargeList(datasets.Value("float64")),
        "avoided": POSITIONS,
        "axes": datasets.Value("string"),
        "kinds": datasets.Value("string"),
        "sentiments": datasets.Value("string"),
        "pair_ids": datasets.Value("large_binary"),
    }
)
SCHEMA = STORED.arrow_schema
INPUTS = ("predictions", "references", "axes", "kinds", "sentiments", "pair_ids", "avoided")
MAX_GRADE = 1e9
MAX_K = 10**9
MAX_CATALOGUE = 10**15
MAX_RESAMPLES = 1_000_000


def bootstrap_interval(
    values: np.ndarray,
    *,
    units: np.ndarray | None = None,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap intervals of the means of several figures over the same examples.

    Examples are resampled with replacement, all figures of an example together, so differences between columns
    are paired; where `units` are given, all examples of a unit together. Equal rows are drawn by their number
    instead of one by one: the same distribution at a cost that hardly grows with N where figures take few values,
    and a result that does not depend on the order of examples.

    Args:
        values: one row per example, one column per figure. Shape: (N, M).
        units: label of the unit that is drawn as a whole; default: each example alone. Shape: (N,).
        confidence: probability that an interval covers the mean.
        n_resamples: number of resamples.
        seed: of the random numbers.

    Returns:
        Lower and upper ends. Shapes: (M,), (M,).
    """
    sums = np.column_stack([values, np.ones(len(values))])
    if units is not None:
        names, unit = np.unique(units, return_inverse=True)
        sums = np.stack([np.bincount(unit.reshape(-1), column, len(names)) for column in sums.T], axis=1)
    distinct, counts = _distinct_rows(sums)
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


def _distinct_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows in lexicographic order and how often each occurs, as `np.unique(axis=0)`, by hashing."""
    names = [str(column) for column in range(values.shape[1])]
    table = pa.table([np.ascontiguousarray(column) for column in values.T], names=names)
    groups = table.group_by(names, use_threads=False).aggregate([([], "count_all")])
    distinct = np.stack([groups[name].to_numpy() for name in names], axis=1)
    order = np.lexsort(distinct.T[::-1])
    return distinct[order], groups["count_all"].to_numpy()[order]


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class PreferenceDiscerning(evaluate.Metric):
    """The `evaluate` module."""

    def _info(self) -> evaluate.MetricInfo:
        # What `evaluate.combine` passes on. Everything else is optional and goes to `add_batch` or `compute`.
        columns = {"default": (), "axes": ("axes", "sentiments", "pair_ids")}
        if self.config_name not in columns:
            raise ValueError(
                f"unknown configuration {self.config_name!r}; load the metric without one (or 'axes' to have "
                "evaluate.combine pass on axes, sentiments and pair_ids)."
            )
        text = datasets.Value("string")
        names = dict.fromkeys(columns[self.config_name], text)
        info = evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.List(text), "references": text, **names}),
            reference_urls=["https://arxiv.org/abs/2412.08604"],
        )
        info.format = "arrow"  # set afterwards: the constructor allows no format for lists
        return info

    def add_batch(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> None:
        """Add examples; `compute` scores all that were added.

        Raises:
            ValueError: naming the argument and the value that is not as described.
        """
        if unknown := [name for name in columns if name not in INPUTS]:
            hint = "cut-offs are ks=[5, 10]" if unknown[0] in ("k", "top_k") else f"known are {', '.join(INPUTS)}"
            raise ValueError(f"unknown argument {unknown[0]}={short(columns[unknown[0]])}; {hint}.")
        given = {"predictions": predictions, "references": references, **columns}
        batch = {name: _as_column(name, column) for name, column in given.items() if column is not None}
        if missing := [name for name in ("predictions", "references") if name not in batch]:
            raise ValueError(f"{missing[0]} is None; pass predictions and references, one value per example.")
        lengths = {name: len(column) for name, column in batch.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the inputs differ in length: {lengths}; pass one value per example to each.")
        if not lengths["predictions"] and self.num_process == 1:
            raise ValueError("predictions is empty, there are no examples; pass at least one.")
        table = _as_table(batch)
        if self.writer is None:
            self.selected_feature_format = STORED
            self._init_writer()
        self.writer.write_table(table)

    def add(self, *, prediction: Any = None, reference: Any = None, **columns: Any) -> None:
        """Add one example; optional columns keep their names and take one value: `axes="recommendation"`.

        Raises:
            ValueError: naming the argument and the value that is not as described.
        """
        one = {name: None if value is None else [value] for name, value in columns.items()}
        self.add_batch(predictions=[prediction], references=[reference], **one)

    def compute(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        catalogue: Any = None,
        ks: Sequence[int] | int = (5, 10),
        confidence: float = 0.95,
        n_resamples: int = 1000,
        seed: int = 0,
        **columns: Any,
    ) -> dict[str, float | int] | None:
        """Score what is given and what was added before; `None` in processes other than the first.

        Raises:
            ValueError: naming the argument and the value that is not as described.
        """
        settings = {
            "ks": _checked_ks(ks),
            "catalogue": _checked_catalogue(catalogue),
            "resampling": _checked_resampling(confidence, n_resamples, seed),
        }
        if predictions is not None or references is not None or columns:
            self.add_batch(predictions=predictions, references=references, **columns)
        elif self.writer is None and self.num_process > 1:
            self.add_batch(predictions=[], references=[])  # the other processes wait for this one's file
        elif self.writer is None:
            raise ValueError("no examples were given; pass predictions and references, or call add_batch before.")
        try:
            return super().compute(**settings)
        except ValueError:
            # Examples that are refused only now would keep their file locked, and the next metric waiting.
            for lock in self.filelocks or ():
                lock.release()
            raise

    def _compute(
        self,
        predictions: Any,
        references: Any,
        *,
        ks: tuple[int, ...],
        catalogue: int | pa.Array | None,
        resampling: dict[str, Any],
        **columns: Any,
    ) -> dict[str, float | int]:
        examples = _read(self.data[:], catalogue, ks[-1])
        figures, avoided = _ranking_figures(examples, ks), _avoided_figures(examples, ks)
        has_avoided = np.bincount(examples.avoided.rows, minlength=examples.size) > 0
        result: dict[str, float | int] = {}
        for prefix, axis, rows in examples.groups:
            units = examples.relevant_sets if axis in CHOSEN_AXES else None
            scored, negative = _split_pairs(examples, rows, prefix)
            own = {name: values[scored] for name, values in figures.items()}
            if negative is not None:
                own = _pair_figures(own, {name: values[negative] for name, values in figures.items()}, ks) | own
            result |= _summary(own, prefix, "n", None if units is None else units[scored], **resampling)
            scored = rows[has_avoided[rows]]
            if scored.size and negative is not None:
                raise ValueError(
                    f"avoided names items for example {scored[0]}, which has a pair; there, what must stay out is the "
                    "reference of the negative example, so pass None in avoided."
                )
            if scored.size:
                own = {name: values[scored] for name, values in avoided.items()}
                result |= _summary(own, prefix, "n_avoided", None if units is None else units[scored], **resampling)
            result |= _list_figures(examples, rows, ks, prefix)
        return result


# From the arguments to the stored columns.


def _as_table(batch: dict[str, Sequence[Any]]) -> pa.Table:
    """Columns as given, checked and encoded as `STORED` describes; null where a column was not given."""
    size = len(batch["predictions"])
    columns: dict[str, pa.Array] = {}
    vocabulary, seen = defaultdict(count().__next__), {}
    for name in ("predictions", "references", "avoided"):
        if name not in batch:
            continue
        lists = _as_lists(name, batch[name])
        offsets = np.concatenate([[0], np.cumsum(np.fromiter(map(len, lists), np.int64, size))])
        found = seen[name] = _positions(name, list(chain.from_iterable(lists)), offsets, vocabulary)
        grades = np.ones(len(found))
        if name == "references" and any(issubclass(kind, Mapping) for kind in set(map(type, batch[name]))):
            grades = _checked_grades(list(chain.from_iterable(value.values() for value in batch[name])), offsets)
        kept = (found >= 0) & (grades > 0)
        offsets = np.concatenate([[0], np.cumsum(kept)])[offsets]
        columns[name] = _list_array(found[kept], offsets)
        if name == "references":
            columns["grades"] = _list_array(grades[kept], offsets)
            if (empty := np.flatnonzero(np.diff(offsets) == 0)).size:
                raise ValueError(
                    f"references[{empty[0]}] is {short(batch[name][empty[0]])}, without a relevant item; leave out "
                    "examples that have none."
                )
    _refuse_two_types(list(vocabulary), seen)
    columns["ids"] = _list_array(_encoded(vocabulary), np.minimum(np.arange(size + 1), 1) * len(vocabulary))
    for name, allowed in (("axes", None), ("kinds", KINDS), ("sentiments", SENTIMENTS)):
        if name in batch:
            columns[name] = _encoded_names(name, batch[name], allowed)
    if "pair_ids" in batch:
        vocabulary = defaultdict(count().__next__)
        found = _positions("pair_ids", batch["pair_ids"], np.arange(size + 1), vocabulary)
        columns["pair_ids"] = _encoded(vocabulary).take(pa.array(found, mask=found < 0))
    arrays = [columns[field.name] if field.name in columns else pa.nulls(size, field.type) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def _list_array(values: pa.Array | np.ndarray, offsets: np.ndarray) -> pa.LargeListArray:
    """A list per example: `values` from `offsets[i]` up to `offsets[i + 1]`."""
    return pa.LargeListArray.from_arrays(offsets, values)


def _is_list(value: Any) -> bool:
    """Whether a value holds several values; text does not, nor do arrays and tensors without dimensions."""
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 1) != 0


def _as_list(values: Any) -> Sequence[Any]:
    """Lists, arrays, tensors, series and columns of a data set as plain sequences."""
    for convert in ("tolist", "to_pylist", "to_list"):
        if hasattr(values, convert):
            return getattr(values, convert)()
    return values if isinstance(values, (list, tuple)) else list(values)


def _as_column(name: str, column: Any) -> Sequence[Any]:
    """One value per example as a plain sequence."""
    if isinstance(column, (Mapping, Set)) or not _is_list(column):
        raise ValueError(f"{name} is {short(column)}; expected a list with one value per example.")
    return _as_list(column)


def _as_lists(name: str, column: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """Every example's ids as a plain sequence; but for `predictions`, an id may stand alone."""
    types = set(map(type, column))
    if types <= {list, tuple}:
        return column
    mappings = any(issubclass(kind, Mapping) for kind in types)
    if name != "predictions" and all(issubclass(kind, (str, int)) for kind in types):
        return [(value,) for value in column]
    expected = {
        "predictions": "a ranked list of ids, best first",
        "references": "a mapping from id to grade, as others are",
        "avoided": "an id or a list of ids",
    }
    for at, value in enumerate(column):
        mapping = isinstance(value, Mapping)
        unranked = name == "predictions" and value is not None and (isinstance(value, Set) or not _is_list(value))
        if unranked or mapping != (mappings and name == "references"):
            raise ValueError(f"{name}[{at}] is {short(value)}; expected {expected[name]}.")
    return [() if value is None else _as_list(value) if _is_list(value) else (value,) for value in column]


def _positions(name: str, flat: Sequence[Any], offsets: np.ndarray, vocabulary: defaultdict[Any, int]) -> np.ndarray:
    """Where ids stand in a vocabulary, which takes up new ones; -1 for padding.

    Args:
        name: of the argument, for errors.
        flat: ids of all examples one after another; `None` and negative integers are padding.
        offsets: where the ids of every example begin.
        vocabulary: position by id.

    Raises:
        ValueError: if a value is neither text nor an integer, or several negative integers occur.
    """
    if any(hasattr(kind, "item") for kind in set(map(type, flat))):  # scalars of numpy and torch
        flat = [value.item() if hasattr(value, "item") and not _is_list(value) else value for value in flat]
    wrong = {kind for kind in set(map(type, flat)) if kind is bool or not issubclass(kind, (str, int, type(None)))}
    if wrong:
        at = next(i for i, value in enumerate(flat) if type(value) in wrong)
        raise ValueError(
            f"{name}{_index(offsets, at)} holds {short(flat[at])}, a {type(flat[at]).__name__}; expected text or an "
            "integer, or None where there is no id."
        )
    found = np.fromiter(map(vocabulary.__getitem__, flat), np.int64, len(flat))
    known = list(vocabulary)
    negative = np.array([isinstance(value, int) and value < 0 for value in known], bool)
    if len(used := np.flatnonzero((np.bincount(found, minlength=len(known)) > 0) & negative)) > 1:
        raise ValueError(
            f"{name} holds the negative integers {short(known[used[0]])} and {short(known[used[1]])}; a negative value "
            "is read as padding, two of them may be ids. Pass ids as text or as integers >= 0."
        )
    return np.where((negative | np.array([value is None for value in known], bool))[found], -1, found)


def _encoded(ids: Iterable[int | str | None]) -> pa.LargeBinaryArray:
    """Ids as bytes, null for padding."""
    return pa.array([_as_bytes(value) for value in ids], pa.large_binary())


def _as_bytes(value: int | str | None) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")  # unpaired surrogates are not UTF-8, but ids like any other
    if value is None or value < 0:
        return None
    return INTEGER_MARK + f"{value:x}".encode()  # in hexadecimal, as Python limits the length of decimal text


def _decode(encoded: bytes) -> int | str:
    """The id that was encoded."""
    if encoded.startswith(INTEGER_MARK):
        return int(encoded.removeprefix(INTEGER_MARK), 16)
    return encoded.decode("utf-8", "surrogatepass")


def _refuse_two_types(ids: Sequence[int | str | None], positions: Mapping[str, np.ndarray]) -> None:
    """Refuse a mix of integers and text: whether 7 is "7" or "007", only the user knows.

    Args:
        ids: by position.
        positions: of the ids in every argument.
    """
    first: dict[bool, int] = {}
    for at, value in enumerate(ids):
        if isinstance(value, str) or (value is not None and value >= 0):  # others are padding
            first.setdefault(isinstance(value, str), at)
    if len(first) == 2:
        number, text = (
            next(f"{name} holds {short(ids[at])}" for name in positions if at in positions[name])
            for at in (first[False], first[True])
        )
        raise ValueError(f"{number} (an integer) and {text} (text); pass ids of one type everywhere.")


def _encoded_names(name: str, column: Sequence[Any], allowed: tuple[str, ...] | None) -> pa.Array:
    """Names as text, null where there is none."""
    for at, value in enumerate(column):
        if value is not None and (not isinstance(value, str) or (allowed and value not in allowed)):
            expected = " or ".join(map(repr, allowed)) if allowed else "a name such as 'recommendation'"
            raise ValueError(f"{name}[{at}] is {short(value)}; expected {expected}.")
    try:
        return pa.array(column, pa.string())
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds {short(error.object)}, which is not valid Unicode text.") from None


def _checked_grades(grades: list[Any], offsets: np.ndarray) -> np.ndarray:
    """Grades of relevance as numbers."""
    refused = {kind for kind in set(map(type, grades)) if not issubclass(kind, numbers.Real)}
    for at, grade in enumerate(grades):
        if type(grade) in refused or not 0 <= grade <= MAX_GRADE:
            raise ValueError(
                f"references{_index(offsets, at)} has the grade {short(grade)}; expected a number from 0 (not "
                f"relevant) to {MAX_GRADE:g}."
            )
    return np.array(grades, np.float64)


def _checked_ks(ks: Any) -> tuple[int, ...]:
    """Distinct cut-offs, ascending."""
    values = list(_as_list(ks)) if _is_list(ks) else [ks]
    if not values or not all(_is_integer(k) and 1 <= k <= MAX_K for k in values):
        raise ValueError(f"ks={short(ks)}; expected integers from 1 to {MAX_K:,}, for example [5, 10].")
    return tuple(sorted({int(k) for k in values}))


def _checked_catalogue(catalogue: Any) -> int | pa.Array | None:
    """Number of items, or their ids, encoded."""
    if catalogue is None or (_is_integer(catalogue) and 1 <= catalogue <= MAX_CATALOGUE):
        return None if catalogue is None else int(catalogue)
    vocabulary = defaultdict(count().__next__)
    ids = _as_list(catalogue) if _is_list(catalogue) else []
    if not len(ids) or (_positions("catalogue", ids, np.arange(len(ids) + 1), vocabulary) < 0).any():
        raise ValueError(f"catalogue={short(catalogue)}; expected the number of items, or a list of all their ids.")
    return _encoded(vocabulary)


def _checked_resampling(confidence: Any, n_resamples: Any, seed: Any) -> dict[str, Any]:
    """Settings of the bootstrap."""
    if not isinstance(confidence, numbers.Real) or not 0 < confidence < 1:
        raise ValueError(f"confidence={short(confidence)}; expected a number between 0 and 1, for example 0.95.")
    if not _is_integer(n_resamples) or not 0 <= n_resamples <= MAX_RESAMPLES:
        raise ValueError(f"n_resamples={short(n_resamples)}; expected an integer from 0 to {MAX_RESAMPLES:,}.")
    if not _is_integer(seed) or seed < 0:
        raise ValueError(f"seed={short(seed)}; expected an integer >= 0.")
    return {"confidence": float(confidence), "n_resamples": int(n_resamples), "seed": int(seed)}


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _index(offsets: np.ndarray, at: int) -> str:
    """Index of the example that an id belongs to, as in `references[3]`."""
    return f"[{int(np.searchsorted(offsets, at, side='right')) - 1}]"


# From what is stored to figures.


class _Entries(NamedTuple):
    """Items of all examples one after another: id as an integer in [0, V), and the example it belongs to."""

    items: np.ndarray
    rows: np.ndarray

    def keys(self, width: int) -> np.ndarray:
        """One number per item and example, in the order of examples, then ids."""
        return self.rows * width + self.items


class _Examples(NamedTuple):
    """Everything that was added.

    Attributes:
        lists: recommended items in order, without repeats, up to the largest k.
        ranks: of the recommended items, from 1. Shape: (L,).
        relevant: relevant items, ordered by example, then id.
        grades: of the relevant items. Shape: (R,).
        avoided: items that must stay out, ordered by example, then id.
        relevant_sets: label of an example's relevant items, equal where these are equal. Shape: (N,).
        negative: whether the sentiment is negative. Shape: (N,).
        pairs: label of an example's pair, -1 without one. Shape: (N,).
        pair_ids: encoded, by label.
        groups: prefix of the figures' names, name of the axis ("" without one), and examples, of every group.
        width: V.
        catalogue_size: how many items can be recommended, `None` if that was not given.
    """

    lists: _Entries
    ranks: np.ndarray
    relevant: _Entries
    grades: np.ndarray
    avoided: _Entries
    relevant_sets: np.ndarray
    negative: np.ndarray
    pairs: np.ndarray
    pair_ids: pa.Array
    groups: list[tuple[str, str, np.ndarray]]
    width: int
    catalogue_size: int | None

    @property
    def size(self) -> int:
        """N."""
        return len(self.pairs)


def _read(table: pa.Table, catalogue: int | pa.Array | None, longest: int) -> _Examples:
    """Examples from the columns in `STORED`; `longest` is the largest k.

    Raises:
        ValueError: if there are none, or they contradict one another or the catalogue.
    """
    size = table.num_rows
    if not size:
        raise ValueError("no examples were given in any process; pass at least one.")
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    entries, width, catalogue_size = _as_entries(columns, catalogue)
    lists, ranks = _without_repeats(entries["predictions"], width, size, longest)
    # np.unique also orders by example, then id, which `_hits` relies on.
    keys, first = np.unique(entries["references"].keys(width), return_index=True)
    avoided = np.unique(entries["avoided"].keys(width))
    if (both := np.intersect1d(keys, avoided)).size:
        raise ValueError(
            f"references and avoided name the same item for example {both[0] // width}; it cannot be both."
        )
    relevant = _Entries(keys % width, keys // width)
    pairs = columns["pair_ids"].dictionary_encode()
    return _Examples(
        lists=lists,
        ranks=ranks,
        relevant=relevant,
        grades=columns["grades"].flatten().to_numpy()[first],
        avoided=_Entries(avoided % width, avoided // width),
        relevant_sets=_set_labels(relevant, size),
        negative=pc.equal(columns["sentiments"], "negative").fill_null(False).to_numpy(zero_copy_only=False),
        pairs=pairs.indices.fill_null(-1).to_numpy(),
        pair_ids=pairs.dictionary,
        groups=_groups(columns),
        width=width,
        catalogue_size=catalogue_size,
    )


def _as_entries(
    columns: Mapping[str, pa.Array], catalogue: int | pa.Array | None
) -> tuple[dict[str, _Entries], int, int | None]:
    """Recommended, relevant and avoided items, numbered in the same way in all batches; V; catalogue size."""
    listed = catalogue if isinstance(catalogue, pa.Array) else pa.array([], pa.large_binary())
    lengths = columns["ids"].value_lengths().to_numpy()
    encoded = pa.concat_arrays([columns["ids"].flatten(), listed]).dictionary_encode()
    numbered, width = encoded.indices.fill_null(0).to_numpy().astype(np.int64), len(encoded.dictionary)
    # The first example of a batch carries the ids of the batch; they begin where those of the batches before end.
    begin = np.maximum.accumulate(np.where(lengths > 0, np.cumsum(lengths) - lengths, 0))
    entries = {}
    for name in ("predictions", "references", "avoided"):
        rows = np.repeat(np.arange(len(lengths)), columns[name].value_lengths().fill_null(0).to_numpy())
        entries[name] = _Entries(numbered[columns[name].flatten().to_numpy() + begin[rows]], rows)
    items = {name: own.items for name, own in entries.items()}
    items["catalogue"] = numbered[len(numbered) - len(listed) :]
    integers = pc.starts_with(encoded.dictionary, INTEGER_MARK).to_numpy(zero_copy_only=False)
    if integers.any() and not integers.all():  # each batch has one type, but not the same one
        _refuse_two_types([_decode(value) for value in encoded.dictionary.to_pylist()], items)
    if not isinstance(catalogue, pa.Array):
        return entries, width, catalogue
    known = np.bincount(items["catalogue"], minlength=width) > 0
    if (outside := items["predictions"][~known[items["predictions"]]]).size:
        unknown = _decode(encoded.dictionary[int(outside[0])].as_py())
        raise ValueError(f"predictions holds {short(unknown)}, which catalogue does not list.")
    return entries, width, int(known.sum())


def _without_repeats(lists: _Entries, width: int, size: int, longest: int) -> tuple[_Entries, np.ndarray]:
    """Recommended items up to rank `longest`, each once at its best rank, and the ranks; warns of odd lists."""
    given = np.bincount(lists.rows, minlength=size)
    if short_lists := int((given < longest).sum()):
        warnings.warn(
            f"{short_lists} of {size} ranked lists hold fewer than k={longest} items; missing places count as misses.",
            stacklevel=2,
        )
    keys = lists.keys(width)
    ordered = np.sort(keys)
    if (ordered[1:] == ordered[:-1]).any():
        first = np.sort(np.unique(keys, return_index=True)[1])
        lists = _Entries(lists.items[first], lists.rows[first])
        repeated = int((np.bincount(lists.rows, minlength=size) < given).sum())
        warnings.warn(
            f"{repeated} of {size} ranked lists name an item more than once; it counts once, at its best rank.",
            stacklevel=2,
        )
    ranks = _ordinals(lists.rows)
    inside = ranks <= longest
    return _Entries(lists.items[inside], lists.rows[inside]), ranks[inside]


def _ordinals(rows: np.ndarray) -> np.ndarray:
    """1, 2, 3 ... within every run of equal values; `rows` ascends."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(1, len(rows) + 1) - np.repeat(starts, np.diff(starts, append=len(rows)))


def _set_labels(relevant: _Entries, size: int) -> np.ndarray:
    """A label per example, equal where the sets of relevant items are equal: their ids as one string of bytes."""
    offsets = np.searchsorted(relevant.rows, np.arange(size + 1)) * relevant.items.itemsize
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(relevant.items))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), size, buffers).dictionary_encode().indices.to_numpy()


def _groups(columns: Mapping[str, pa.Array]) -> list[tuple[str, str, np.ndarray]]:
    """Prefix, axis and examples of every group: by axis, by kind, by both, or all in one; known names first."""
    size = len(columns["axes"])
    labels, names = np.zeros(size, np.int64), [()]
    given = [name for name in ("axes", "kinds") if columns[name].null_count < size]
    for name in given:
        encoded = columns[name].dictionary_encode()
        if encoded.null_count:
            at = np.argmax(columns[name].is_null().to_numpy(zero_copy_only=False))
            raise ValueError(f"{name} is missing for example {at}, but not for others; pass it for all or for none.")
        labels = labels * len(encoded.dictionary) + encoded.indices.to_numpy()
        names = [(*before, name) for before in names for name in encoded.dictionary.to_pylist()]
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=len(names)))[:-1])
    known = {name: place for place, name in enumerate((*AXES, *KINDS))}
    order = sorted(range(len(names)), key=lambda i: [(known.get(name, len(known)), name) for name in names[i]])
    prefixes = ["".join(f"{name}/" for name in parts) for parts in names]
    return [(prefixes[i], names[i][0] if "axes" in given else "", members[i]) for i in order if len(members[i])]


def _split_pairs(examples: _Examples, rows: np.ndarray, prefix: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Positive and negative examples of a group in the same order; all examples and `None` if it has no pairs.

    Raises:
        ValueError: if a pair is not one positive and one negative example with the same relevant items.
    """
    pairs, negative = examples.pairs[rows], examples.negative[rows]
    alone = pairs < 0
    if (alone & negative).any():
        raise ValueError(
            f"sentiments is 'negative' for example {rows[alone & negative][0]}, which has no pair; pass pair_ids, or "
            "name what must stay out in avoided."
        )
    if alone.all():
        return rows, None
    if alone.any():
        raise ValueError(
            f"pair_ids is missing for example {rows[alone][0]}, but not for others of its group {prefix!r}."
        )
    labels, counts = np.unique(pairs, return_counts=True)

    def refuse(wrong: np.ndarray, problem: str) -> None:
        if wrong.any():
            pair = short(_decode(examples.pair_ids[int(labels[np.argmax(wrong)])].as_py()))
            raise ValueError(
                f"pair_ids: pair {pair} {problem}; a pair is one positive and one negative example with the same "
                "references."
            )

    refuse(counts != 2, "does not have two examples")
    order = np.lexsort([negative, pairs])
    first, second = rows[order[::2]], rows[order[1::2]]
    refuse(examples.negative[first] == examples.negative[second], "has two examples of one sentiment")
    refuse(examples.relevant_sets[first] != examples.relevant_sets[second], "has different references")
    return first, second


def _hits(examples: _Examples, wanted: _Entries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where recommended items are among `wanted`: index in `wanted`, example and rank, by example and rank."""
    keys, asked = wanted.keys(examples.width), examples.lists.keys(examples.width)
    place = np.searchsorted(keys, asked)
    found = np.flatnonzero(keys[np.minimum(place, len(keys) - 1)] == asked) if len(keys) else place[:0]
    return place[found], examples.lists.rows[found], examples.ranks[found]


def _ranking_figures(examples: _Examples, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Accuracy of every example. Shape: (N,) each."""
    place, rows, ranks = _hits(examples, examples.relevant)
    size, n_relevant = examples.size, np.bincount(examples.relevant.rows, minlength=examples.size)
    gains, ordinals = examples.grades[place] / np.log2(ranks + 1), _ordinals(rows)
    best_first = np.lexsort([-examples.grades, examples.relevant.rows])
    best_ranks = _ordinals(examples.relevant.rows)
    best_gains = examples.grades[best_first] / np.log2(best_ranks + 1)

    def total(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
        return np.bincount(rows[kept], values[kept], size)

    figures = {}
    for k in ks:
        inside, best = ranks <= k, best_ranks <= k
        ideal = np.bincount(examples.relevant.rows[best], best_gains[best], size)
        figures[f"recall@{k}"] = np.bincount(rows[inside], minlength=size) / n_relevant
        figures[f"ndcg@{k}"] = total(gains, inside) / ideal
        figures[f"mrr@{k}"] = total(1 / ranks, inside & (ordinals == 1))
        figures[f"map@{k}"] = total(ordinals / ranks, inside) / n_relevant
    for k in ks:
        depth = np.minimum(k, n_relevant)
        figures[f"hit_rate@{k}"] = (figures[f"recall@{k}"] > 0).astype(np.float64)
        figures[f"r_precision@{k}"] = np.bincount(rows[ranks <= depth[rows]], minlength=size) / depth
    return figures


def _pair_figures(
    positive: dict[str, np.ndarray], negative: dict[str, np.ndarray], ks: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """m@k and its negative half of every pair, from the hit rates of its two examples. Shape: (P,) each."""
    figures = {}
    for k in ks:
        avoided = 1 - negative[f"hit_rate@{k}"]
        figures |= {f"m@{k}": positive[f"hit_rate@{k}"] * avoided, f"avoid@{k}": avoided}
    return figures


def _avoided_figures(examples: _Examples, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """How many items that must stay out came, and whether none did. Shape: (N,) each."""
    _, rows, ranks = _hits(examples, examples.avoided)
    figures = {}
    for k in ks:
        count = np.bincount(rows[ranks <= k], minlength=examples.size).astype(np.float64)
        figures |= {f"avoided@{k}": count, f"avoid@{k}": (count == 0).astype(np.float64)}
    return figures


def _list_figures(examples: _Examples, rows: np.ndarray, ks: tuple[int, ...], prefix: str) -> dict[str, float | int]:
    """What the lists of a group look like together; definitions stand in `_INPUTS`."""
    member = np.zeros(examples.size, bool)
    member[rows] = True
    own = member[examples.lists.rows]
    items, ranks = examples.lists.items[own], examples.ranks[own]
    figures: dict[str, float | int] = {}
    for k in ks:
        inside = ranks <= k
        counts = np.bincount(items[inside])
        counts = np.sort(counts[counts > 0]).astype(np.float64)
        lengths = np.sort(np.bincount(examples.lists.rows[own][inside], minlength=examples.size)[rows])[::-1]
        figures[f"{prefix}aggregate_diversity@{k}"] = len(counts)
        if len(rows) > 1:
            # Of all pairs of lists: items in common, and as many as the shorter one could share.
            shared, possible = counts @ (counts - 1) / 2, lengths @ np.arange(len(lengths))
            figures[f"{prefix}overlap@{k}"] = float(shared / possible) if possible else 0.0
        figures[f"{prefix}hubness@{k}"] = float(counts[-1] / len(rows)) if len(counts) else 0.0
        if examples.catalogue_size is not None:
            figures |= _catalogue_figures(counts, examples.catalogue_size, k, prefix)
    return figures


def _catalogue_figures(counts: np.ndarray, size: int, k: int, prefix: str) -> dict[str, float]:
    """Coverage, Gini index and skewness over a catalogue of `size` items; `counts` of the recommended ones ascend."""
    if len(counts) > size:
        raise ValueError(f"catalogue={size:,}, but predictions holds {len(counts):,} different items in the first {k}.")
    total, absent = counts.sum(), size - len(counts)
    places = absent + 1.0 + np.arange(len(counts))  # among all items, the least recommended one first
    gini = (2 * places - size - 1) @ counts / ((size - 1) * total) if size > 1 and total else 0.0
    mean = total / size
    second, third = ((((counts - mean) ** n).sum() + absent * (-mean) ** n) / size for n in (2, 3))
    return {
        f"{prefix}coverage@{k}": len(counts) / size,
        f"{prefix}gini@{k}": float(gini),
        f"{prefix}skewness@{k}": float(third / second**1.5) if second > 0 else 0.0,
    }


def _summary(
    figures: dict[str, np.ndarray],
    prefix: str,
    count: str,
    units: np.ndarray | None,
    *,
    confidence: float,
    n_resamples: int,
    seed: int,
) -> dict[str, float | int]:
    """Number of examples, and mean, lower and upper end of every figure, under flat keys."""
    values = np.stack(list(figures.values()), axis=1)
    result: dict[str, float | int] = {f"{prefix}{count}": len(values)}
    means = values.mean(axis=0)
    result |= {f"{prefix}{name}": float(mean) for name, mean in zip(figures, means, strict=True)}
    if n_resamples:
        ends = bootstrap_interval(values, units=units, confidence=confidence, n_resamples=n_resamples, seed=seed)
        for name, low, high in zip(figures, *ends, strict=True):
            result |= {f"{prefix}{name}/low": float(low), f"{prefix}{name}/high": float(high)}
    return result
