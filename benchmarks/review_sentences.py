"""Preferences that are sentences of reviews: as they are, or one for each cluster of what a customer keeps saying.

Nothing is written here: a preference is a sentence of one of the customer's own reviews, cleaned as text from outside
is. It says what its customer thinks ("The vanilla scent is lovely"), not what to find. A sentence is negative where
VADER (Hutto & Gilbert 2014) finds it so, or where it has no tone and its item was rated badly.

Which sentences are taken is an option, since most of a review is about something else:

- "any": all that are left after cleaning,
- "opinions": those with a tone,
- "about the item": those that share a word with the text of their item, words that describe no item left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from sklearn.cluster import KMeans

from preference_benchmark.axes.examples import KEYS
from preference_benchmark.embedding import Embedder, positions
from preference_benchmark.preferences.llm.parsing import tidy
from preference_benchmark.preferences.polarity import NEGATIVE, POSITIVE, compound_scores, review_polarity
from preference_benchmark.preferences.words import plain
from preference_benchmark.tables import Tables
from preference_benchmark.tables.outside_text import REMOVED, broken_rule, for_a_model
from preference_benchmark.tables.stop_words import stop_words

__all__ = ["CHOICES", "ReviewClusters", "ReviewSentences", "sentences"]

CHOICES = ("any", "opinions", "about the item")
MOST = 5
# Marks within a word end nothing: "2.5 l", "www.shop.com".
_SENTENCE_END = r"([.!?])[.!?]*\s+"
_LEAST_WORDS, _MOST_WORDS = 2, 25
_POLAR = 0.05


def sentences(tables: Tables, choice: str = "about the item") -> pl.DataFrame:
    """The chosen sentences of all reviews.

    Args:
        tables: the data set.
        choice: one of `CHOICES`.

    Returns:
        user_id, step, place (in the review), text, sentiment, tone; sorted by user_id, step, place.

    Raises:
        ValueError: if the choice is unknown.
    """
    if choice not in CHOICES:
        raise ValueError(f"choice={choice!r} is not known; pass one of {CHOICES}.")
    rows = tables.interactions.sort(KEYS)
    rows = rows.select(*KEYS, "item_id", verdict=review_polarity(rows), review=for_a_model(pl.col("review")))
    found = rows.with_columns(text=pl.col("review").str.replace_all(_SENTENCE_END, "${1}\n").str.split("\n")).explode(
        "text"
    )
    found = found.with_columns(place=pl.int_range(pl.len()).over(KEYS), text=tidy(pl.col("text")))
    words = pl.col("text").str.count_matches(r"\S+")
    removed = pl.col("text").str.contains(REMOVED, literal=True)
    found = found.filter(words.is_between(_LEAST_WORDS, _MOST_WORDS) & ~removed & broken_rule(pl.col("text")).is_null())
    found = found.with_columns(tone=compound_scores(found["text"]))
    spoken = pl.when(pl.col("tone") < 0).then(pl.lit(NEGATIVE)).otherwise(pl.lit(POSITIVE))
    polar = pl.col("tone").abs() >= _POLAR
    found = found.with_columns(sentiment=pl.when(polar).then(spoken).otherwise("verdict"))
    if choice == "opinions":
        found = found.filter(polar)
    if choice == "about the item":
        found = found.filter(_shares_a_word(found, tables))
    return found.select(*KEYS, "place", "text", "sentiment", "tone")


def _shares_a_word(found: pl.DataFrame, tables: Tables) -> pl.Series:
    """Whether each text (item_id, text) has a word of its item's text that may describe an item."""
    bare = pl.select(plain(pl.lit(pl.Series(sorted(stop_words())))).str.strip_chars()).to_series()

    def words(column: str) -> pl.Expr:
        return plain(pl.col(column)).str.strip_chars().str.split("  ").list.set_difference(pl.lit(bare.to_list()))

    of_items = tables.items.select("item_id", own=words("text"))
    both = found.select("item_id", said=words("text")).join(of_items, on="item_id", how="left", maintain_order="left")
    return both.select(pl.col("said").list.set_intersection("own").list.len() > 0).to_series()


def _ranked(rows: pl.DataFrame) -> pl.DataFrame:
    """The first rows of each user and step, each text once, as a table of preferences: positive ones first."""
    rows = rows.with_columns(form=plain(pl.col("text")))
    rows = rows.unique([*KEYS, "form"], keep="first", maintain_order=True)
    kept = rows.filter(pl.int_range(pl.len()).over(KEYS) < MOST).with_row_index("order")
    kept = kept.sort(*KEYS, "sentiment", "order", descending=[False, False, True, False])
    rank = pl.int_range(pl.len()).over(KEYS)
    return kept.select("user_id", "step", rank.alias("rank"), "text", "sentiment")


@dataclass(frozen=True)
class ReviewSentences:
    """Sentences of the latest reviews, as they are; of one review those with the strongest tone first.

    Attributes:
        choice: one of `CHOICES`.
        reviews: of how many of the latest steps sentences are taken.
    """

    choice: str = "about the item"
    reviews: int = 5

    def __call__(self, tables: Tables) -> pl.DataFrame:
        """Preferences after every step, see `preference_benchmark.preferences.Approximator`."""
        rows = sentences(tables, self.choice).with_columns(age=pl.int_ranges(0, self.reviews)).explode("age")
        rows = rows.with_columns(step=pl.col("step") + pl.col("age"), strength=pl.col("tone").abs())
        rows = rows.join(tables.interactions.select(KEYS), on=KEYS, how="semi")
        order = [*KEYS, "age", "strength", "place"]
        return _ranked(rows.sort(order, descending=[False, False, False, True, False]))


@dataclass(frozen=True)
class ReviewClusters:
    """A sentence for each cluster of what a customer has said so far, the clusters with most sentences first.

    Sentences of the training period, of all customers, are clustered by k-means of their vectors. Encoders hardly see
    negation, so praise and blame of one cluster are kept apart.

    Attributes:
        embedder: of sentences.
        choice: one of `CHOICES`.
        clusters: how many.
        own: whether a preference is the customer's own sentence nearest the centroid; else the nearest of all.
        seed: of k-means.
    """

    embedder: Embedder
    choice: str = "about the item"
    clusters: int = 64
    own: bool = True
    seed: int = 0

    def __call__(self, tables: Tables) -> pl.DataFrame:
        """Preferences after every step, see `preference_benchmark.preferences.Approximator`."""
        found = sentences(tables, self.choice)
        texts = found["text"].unique().sort()
        vectors = self.embedder.encode(texts)
        known = found.join(tables.training_period().select(KEYS), on=KEYS, how="semi")
        learned = np.unique(positions(known["text"], texts))
        means = KMeans(min(self.clusters, len(learned)), n_init=1, random_state=self.seed).fit(vectors[learned])
        away = means.transform(vectors)
        cluster = away.argmin(axis=1)
        near = pl.DataFrame({"text": texts, "cluster": cluster, "distance": away.min(axis=1)})
        rows = found.join(near, on="text", how="left", maintain_order="left")
        group = ["cluster", "sentiment"]
        if not self.own:
            central = rows.join(tables.training_period().select(KEYS), on=KEYS, how="semi")
            central = central.sort("distance", "text").unique(group, keep="first").select(*group, central="text")
            rows = rows.join(central, on=group, how="left").with_columns(text=pl.coalesce("central", "text"))
        steps = tables.interactions.select("user_id", now="step")
        so_far = rows.join(steps, on="user_id").filter(pl.col("step") <= pl.col("now"))
        so_far = so_far.sort(
            "user_id", "now", "distance", "step", "text", descending=[False, False, False, True, False]
        )
        each = so_far.group_by("user_id", "now", *group, maintain_order=True).agg(
            said=pl.len(), latest=pl.col("step").max(), text=pl.col("text").first()
        )
        each = each.rename({"now": "step"})
        order = [*KEYS, "said", "latest", "text"]
        return _ranked(each.sort(order, descending=[False, False, True, True, False]))
