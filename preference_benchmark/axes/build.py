"""The examples of all axes, from tables to frames: preferences, vectors, matches and axes, one stage after another.

Construction as in Preference Discerning (Paischer et al. 2025, arXiv:2412.08604); every choice is a field of
`Protocol`. Each stage is kept (`Stages`) under a digest of what it depends on, so that a build with another seed
repeats only the axes that draw: steering and wishes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import polars as pl

from preference_benchmark.axes.attributes import Attributes, wish_attributes
from preference_benchmark.axes.next_item import history_consolidation, match, recommendation
from preference_benchmark.axes.protocol import AXES, SENTIMENT_AXES, STEERING_AXES, WISH_AXES, Protocol
from preference_benchmark.axes.sentiment import sentiment_following, sentiment_following_with_history, sentiment_pairs
from preference_benchmark.axes.steering import (
    SteeringCandidates,
    coarse_grained_steering,
    fine_grained_steering,
    steering_candidates,
)
from preference_benchmark.axes.wishes import open_wishes, wish_and_avoid
from preference_benchmark.embedding import Embedder, VectorStore, describe_items
from preference_benchmark.preferences import Approximator
from preference_benchmark.preferences.files import check_preferences
from preference_benchmark.preferences.polarity import SentimentClassifier, review_polarity
from preference_benchmark.stages import Stages, digest_of, digest_of_code
from preference_benchmark.tables import Tables

__all__ = ["BuiltExamples", "Inputs", "build_examples"]

# Fields of the protocol that an axis depends on; those that say how tables are read are part of the tables' digest.
_STEERING_FIELDS = ("seed", "described_by", "train_ranks", "evaluation_ranks", "pool", "draw", "partner_of")
_SENTIMENT_FIELDS = ("sentiment_window", "distinct_pairs", "inversion", "classifier")
_WISH_FIELDS = (
    "seed",
    "repeats",
    "train_wishes",
    "evaluation_wishes",
    "attribute_items",
    "attribute_share",
    "withheld",
    "described_by",
)
_MATCHING_FIELDS = ("candidates", "described_by", "inversion")
_FIELDS = {
    "recommendation": _MATCHING_FIELDS,
    "history_consolidation": (),
    **dict.fromkeys(STEERING_AXES, _STEERING_FIELDS),
    **dict.fromkeys(SENTIMENT_AXES, _SENTIMENT_FIELDS),
    **dict.fromkeys(WISH_AXES, _WISH_FIELDS),
}


@dataclass(frozen=True)
class Inputs:
    """What examples are built from, with a digest of each part.

    Attributes:
        tables: the data set, with the users that get examples.
        approximate: writes the preferences.
        load_embedder: gives the embedder; called when a text has to be embedded.
        tables_key: digest of the tables.
        approximator_key: digest of the approximator.
        embedder_key: digest of the embedder.
    """

    tables: Tables
    approximate: Approximator
    load_embedder: Callable[[], Embedder]
    tables_key: str = ""
    approximator_key: str = ""
    embedder_key: str = ""


@dataclass(frozen=True)
class BuiltExamples:
    """The examples of a benchmark, and what they were made from.

    Attributes:
        tables: the data set.
        preferences: what the approximator wrote, sorted by user, step and rank.
        embedder: has the vectors of every text above.
        matches: by matching mode, the preference of every step and its similarity.
        axes: by matching mode, by axis, the examples; only the recommendation axis differs between modes.
    """

    tables: Tables
    preferences: pl.DataFrame
    embedder: Embedder
    matches: dict[str, pl.DataFrame]
    axes: dict[str, dict[str, pl.DataFrame]]


def build_examples(
    inputs: Inputs, protocol: Protocol, stages: Stages, *, device: str | None = None, progress: bool = True
) -> BuiltExamples:
    """Build the examples of every axis, each stage once.

    Args:
        inputs: tables, approximator and embedder.
        protocol: the choices.
        stages: where finished stages are kept.
        device: where a classifier runs.
        progress: whether to show progress bars.

    Raises:
        ValueError: if the preferences are not what an approximator gives, or an axis cannot be built from them.
    """
    tables = inputs.tables
    key = digest_of(inputs.tables_key, inputs.approximator_key, digest_of_code("preferences"))
    preferences = stages.frame("preferences", key, lambda: _written(inputs))
    classifier = None
    if protocol.classifier:
        classifier = cache(lambda: SentimentClassifier(protocol.classifier, device, progress=progress))
        key = digest_of(key, protocol.classifier)
        preferences = stages.frame("polarity", key, lambda: _classified(preferences, classifier()))
    vectors = stages.growing(
        "vectors", digest_of(key, inputs.embedder_key, protocol.described_by, digest_of_code("embedding"))
    )
    embedder = VectorStore(vectors, inputs.load_embedder, progress=progress)
    texts = [describe_items(tables.items, protocol.described_by), preferences["text"]]
    embedder.encode(pl.concat([column.unique() for column in texts]).unique())
    key = digest_of(key, inputs.embedder_key, digest_of_code("embedding"))

    def fields(names: tuple[str, ...]) -> dict[str, object]:
        return {name: getattr(protocol, name) for name in names}

    def matched(mode: str) -> pl.DataFrame:
        return stages.frame(
            f"matches-{mode}",
            digest_of(key, mode, fields(_MATCHING_FIELDS), digest_of_code("axes/next_item")),
            lambda: match(
                preferences,
                tables,
                embedder,
                mode,
                all_earlier_steps=protocol.candidates == "earlier_steps",
                described_by=protocol.described_by,
                inversion=protocol.inversion,
            ),
        )

    matches = {mode: matched(mode) for mode in protocol.matching}

    # What two axes share is computed when the first of them needs it, and not at all where both are finished.
    @cache
    def candidates() -> SteeringCandidates:
        return steering_candidates(tables, preferences, embedder, protocol)

    @cache
    def pairs() -> pl.DataFrame:
        judge = classifier().review_polarity if classifier else review_polarity
        return sentiment_pairs(tables, preferences, embedder, protocol, judge=judge)

    @cache
    def attributes() -> Attributes:
        return wish_attributes(tables, protocol)

    def examples(axis: str, mode: str) -> pl.DataFrame:
        if axis == "recommendation":
            return recommendation(tables, matches[mode], mode)
        if axis == "history_consolidation":
            return history_consolidation(tables, preferences)
        if axis == "fine_grained_steering":
            return fine_grained_steering(tables, preferences, candidates(), protocol)
        if axis == "coarse_grained_steering":
            return coarse_grained_steering(tables, preferences, candidates(), protocol)
        if axis == "sentiment_following":
            return sentiment_following(pairs())
        if axis == "sentiment_following_with_history":
            return sentiment_following_with_history(tables, pairs())
        if axis == "open_wishes":
            return open_wishes(tables, attributes(), protocol)
        return wish_and_avoid(tables, attributes(), protocol)

    def built(axis: str, mode: str = "") -> pl.DataFrame:
        axis_key = digest_of(key, axis, mode, fields(_FIELDS[axis]), digest_of_code("axes"))
        return stages.frame(f"{axis}-{mode}" if mode else axis, axis_key, lambda: examples(axis, mode))

    shared = {axis: built(axis) for axis in protocol.axes if axis != "recommendation"}
    axes = {}
    for mode in protocol.matching:
        own = {"recommendation": built("recommendation", mode)} if "recommendation" in protocol.axes else {}
        frames = own | shared
        axes[mode] = {axis: frames[axis] for axis in AXES if axis in frames}
    return BuiltExamples(tables, preferences, embedder, matches, axes)


def _written(inputs: Inputs) -> pl.DataFrame:
    preferences = inputs.approximate(inputs.tables)
    check_preferences(preferences)
    return preferences.sort("user_id", "step", "rank")


def _classified(preferences: pl.DataFrame, classifier: SentimentClassifier) -> pl.DataFrame:
    """Preferences with the classifier's sentiment in place of that of the rules."""
    return preferences.with_columns(sentiment=classifier.polarity(preferences["text"]).alias("sentiment"))
