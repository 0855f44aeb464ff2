"""From tables to examples: preferences, vectors, matches, axes, one stage after another.

The in-memory `build_benchmark` and the resumable build of a folder are this one function; only `Stages` differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from preference_benchmark.axes.build import build_axis
from preference_benchmark.axes.matching import match
from preference_benchmark.axes.protocol import AXES, SENTIMENT_AXES, STEERING_AXES, Protocol
from preference_benchmark.axes.sentiment import sentiment_pairs
from preference_benchmark.axes.steering import Closest, closest_preferences
from preference_benchmark.embedding import CachedEmbedder, Embedder, VectorStore, describe_items
from preference_benchmark.preferences.files import check_preferences
from preference_benchmark.preferences.polarity import SentimentClassifier, review_polarity
from preference_benchmark.stages import Stages, digest_of, digest_of_code
from preference_benchmark.tables import Tables

__all__ = ["EXAMPLES_CODE", "Approximator", "Parts", "assemble", "ask_every", "stage_names"]

Approximator = Callable[[Tables], pl.DataFrame]

# Whose source a stage depends on, beyond the stages before it.
_PREFERENCES_CODE = ("preferences",)
_VECTORS_CODE = ("embedding",)
_MATCHES_CODE = ("axes/matching", "embedding", "preferences/candidates", "preferences/polarity")
_AXES_CODE = ("axes", "preferences/polarity", "preferences/vader")
# And whose source the examples depend on, beyond the tables.
EXAMPLES_CODE = (*_PREFERENCES_CODE, *_VECTORS_CODE, *_MATCHES_CODE, *_AXES_CODE, "assemble")
# What of the protocol an axis depends on.
_CHOICES = {
    "recommendation": (),
    "history_consolidation": (),
    "fine_grained_steering": ("seed", "described_by", "train_ranks", "evaluation_ranks", "pool", "draw"),
    "coarse_grained_steering": ("seed", "described_by", "train_ranks", "evaluation_ranks", "pool", "draw"),
    "sentiment_following": ("sentiment_window", "distinct_pairs", "inversion", "classifier"),
    "sentiment_following_with_history": ("sentiment_window", "distinct_pairs", "inversion", "classifier"),
}


@dataclass(frozen=True)
class Parts:
    """All that a benchmark is made of.

    Attributes:
        tables: the data set, cut to the users that are asked.
        preferences: what the approximator wrote, sorted by user, step and rank.
        embedder: remembers the vectors of every text above.
        matches: by matching mode, the preference of every step and how similar it is.
        axes: by matching mode, by axis, the examples; only the recommendation axis differs between modes.
        key: digest of all that the examples depend on.
    """

    tables: Tables
    preferences: pl.DataFrame
    embedder: Embedder
    matches: dict[str, pl.DataFrame]
    axes: dict[str, dict[str, pl.DataFrame]]
    key: str


def assemble(
    tables: Tables,
    load_embedder: Callable[[], Embedder],
    protocol: Protocol,
    approximate: Approximator,
    stages: Stages | None = None,
    *,
    tables_key: str = "",
    embedder_key: str = "",
    approximator_key: str = "",
    device: str | None = None,
    progress: bool = True,
) -> Parts:
    """Everything up to the examples, each stage made once.

    Args:
        tables: the data set.
        load_embedder: gives the embedder; called when a text has to be embedded.
        protocol: the choices.
        approximate: writes the preferences.
        stages: where finished stages are kept; default: nowhere.
        tables_key: digest of what the tables were made from.
        embedder_key: digest of the embedder.
        approximator_key: digest of the approximator.
        device: where a classifier runs.
        progress: whether to show progress bars.

    Raises:
        ValueError: if the preferences are not what an approximator gives, or an axis cannot be built from them.
    """
    stages = stages or Stages(None)
    tables = ask_every(tables, protocol.user_stride)
    key = digest_of(tables_key, protocol.user_stride, approximator_key, digest_of_code(*_PREFERENCES_CODE))
    preferences = stages.frame("preferences", key, lambda: _written(approximate, tables))
    classifier = _classifier(protocol, device, progress)
    if classifier is not None:
        judged = digest_of(key, protocol.classifier, digest_of_code("preferences/polarity"))
        preferences = stages.frame("polarity", judged, lambda: _judged(preferences, classifier()))
    embedder = _remembering(stages, load_embedder, digest_of(key, embedder_key, protocol.described_by), progress)
    texts = [describe_items(tables.items, protocol.described_by), preferences["text"]]
    embedder.encode(pl.concat([column.unique() for column in texts]).unique())

    base = digest_of(key, embedder_key, protocol.classifier)
    matched_by = (protocol.candidates, protocol.described_by, protocol.inversion)
    matches = {
        mode: stages.frame(
            f"matches-{mode}",
            digest_of(base, mode, *matched_by, digest_of_code(*_MATCHES_CODE)),
            lambda mode=mode: match(
                preferences,
                tables,
                embedder,
                mode,
                all_earlier_steps=protocol.candidates == "earlier_steps",
                described_by=protocol.described_by,
                inversion=protocol.inversion,
            ),
        )
        for mode in protocol.matching
    }

    # What two axes share is made when the first of them asks for it, and not where both are finished.
    @cache
    def closest() -> Closest:
        return closest_preferences(tables, preferences, embedder, protocol)

    @cache
    def pairs() -> pl.DataFrame:
        judge = review_polarity if classifier is None else classifier().judge
        return sentiment_pairs(tables, preferences, embedder, protocol, judge=judge)

    def examples(axis: str, mode: str) -> pl.DataFrame:
        return build_axis(
            axis,
            tables,
            preferences,
            embedder,
            protocol,
            mode=mode,
            matches=matches[mode],
            closest=closest() if axis in STEERING_AXES else None,
            pairs=pairs() if axis in SENTIMENT_AXES else None,
        )

    def stage(axis: str, mode: str) -> pl.DataFrame:
        choices = {name: getattr(protocol, name) for name in _CHOICES[axis]}
        own = (mode, *matched_by) if axis == "recommendation" else ()
        name = f"{axis}-{mode}" if axis == "recommendation" else axis
        axis_key = digest_of(base, axis, choices, own, digest_of_code(*_AXES_CODE))
        return stages.frame(name, axis_key, lambda: examples(axis, mode))

    shared = {axis: stage(axis, protocol.matching[0]) for axis in protocol.axes if axis != "recommendation"}
    axes = {}
    for mode in protocol.matching:
        own = {"recommendation": stage("recommendation", mode)} if "recommendation" in protocol.axes else {}
        frames = own | shared
        axes[mode] = {axis: frames[axis] for axis in AXES if axis in frames}
    whole = digest_of(base, protocol, digest_of_code(*_MATCHES_CODE, *_AXES_CODE, *_VECTORS_CODE, "assemble"))
    return Parts(tables, preferences, embedder, matches, axes, whole)


def stage_names(protocol: Protocol) -> list[str]:
    """The stages of `assemble`, in order."""
    judged = ["polarity"] if protocol.classifier else []
    modes = [f"matches-{mode}" for mode in protocol.matching]
    axes = [axis for axis in protocol.axes if axis != "recommendation"]
    own = [f"recommendation-{mode}" for mode in protocol.matching if "recommendation" in protocol.axes]
    return ["preferences", *judged, "vectors", *modes, *axes, *own]


def ask_every(tables: Tables, stride: int) -> Tables:
    """The tables with every `stride`-th user only, in the order of user ids; all items stay."""
    if stride == 1:
        return tables
    users = tables.interactions["user_id"].unique().sort().gather_every(stride)
    kept = tables.interactions.filter(pl.col("user_id").is_in(users.implode()))
    return Tables(tables.items, kept, tables.report)


def _written(approximate: Approximator, tables: Tables) -> pl.DataFrame:
    preferences = approximate(tables)
    check_preferences(preferences)
    return preferences.sort("user_id", "step", "rank")


def _judged(preferences: pl.DataFrame, classifier: SentimentClassifier) -> pl.DataFrame:
    """Preferences with the classifier's sentiment in place of the rules'."""
    return preferences.with_columns(sentiment=classifier.polarity(preferences["text"]).alias("sentiment"))


def _classifier(protocol: Protocol, device: str | None, progress: bool) -> Callable[[], SentimentClassifier] | None:
    """A function that gives the classifier, loading it when it is first needed; None where the protocol has none."""
    if protocol.classifier is None:
        return None
    return cache(lambda: SentimentClassifier(protocol.classifier, device, progress=progress))


def _remembering(stages: Stages, load: Callable[[], Embedder], key: str, progress: bool) -> Embedder:
    if stages.folder is None:
        stages.announce("vectors", False)
        return CachedEmbedder(load())
    folder: Path = stages.growing("vectors", digest_of(key, digest_of_code(*_VECTORS_CODE)))
    return VectorStore(folder, load, progress=progress)
