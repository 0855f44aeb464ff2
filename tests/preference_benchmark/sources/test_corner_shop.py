"""The corner shop's truth is true: it drives what people buy, how they rate it and what they write."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from preference_benchmark.sources.corner_shop import corner_shop
from preference_benchmark.sources.corner_shop_goods import BRANDS, DEPARTMENTS, FACETS


@pytest.fixture(scope="module")
def shop():
    return corner_shop(num_users=600, num_items=300, seed=1)


@pytest.fixture(scope="module")
def rated(shop) -> pl.DataFrame:
    """Interactions with the tastes in force and how many of them the item meets."""
    rows = shop.tables.interactions.join(shop.truth, on=["user_id", "step"]).join(
        shop.tables.items.select("item_id", "aspects", "department", "kind"), on="item_id", maintain_order="left"
    )
    return rows.with_columns(
        liked=pl.col("aspects").list.set_intersection("likes").list.len(),
        disliked=pl.col("aspects").list.set_intersection("dislikes").list.len(),
    )


def test_the_same_seed_gives_the_same_shop_and_another_seed_another(shop):
    again, other = corner_shop(600, 300, seed=1), corner_shop(600, 300, seed=2)
    assert again.tables.items.equals(shop.tables.items)
    assert again.tables.interactions.equals(shop.tables.interactions)
    assert again.truth.equals(shop.truth)
    assert not other.tables.interactions["item_id"].head(50).equals(shop.tables.interactions["item_id"].head(50))


def test_every_choice_has_its_tastes_in_the_words_of_the_items(shop):
    assert shop.truth.select("user_id", "step").equals(shop.tables.interactions.select("user_id", "step"))
    vocabulary = {aspect for facet in FACETS.values() for aspect in facet.aspects}
    tastes = set(shop.truth["likes"].explode()) | set(shop.truth["dislikes"].explode())
    assert tastes <= vocabulary and set(shop.tables.items["aspects"].explode()) <= vocabulary
    assert (shop.truth["likes"].list.len() == 5).all() and (shop.truth["dislikes"].list.len() == 4).all()
    both = shop.truth["likes"].list.concat(shop.truth["dislikes"])
    assert (both.list.n_unique() == 9).all()


def test_tastes_drift_slowly(shop):
    lost = shop.truth.with_columns(before=pl.col("likes").shift(1).over("user_id")).drop_nulls("before")
    changed = lost.select(pl.col("before").list.set_difference("likes").list.len()).to_series()
    assert 0.01 < (changed > 0).mean() < 0.1
    assert changed.max() <= 1


def test_titles_are_unique_and_name_no_brand(shop):
    items = shop.tables.items
    assert items["title"].is_unique().all()
    assert not items["title"].str.contains_any(list(BRANDS)).any()
    assert (items["aspects"].list.n_unique() == 4).all()
    for title, aspects in items.select("title", "aspects").iter_rows():
        assert sum(a.rpartition(" ")[0] in title.lower() or a in title.lower() for a in aspects) >= 2


def test_titles_stay_unique_when_the_shop_is_large():
    items = corner_shop(num_users=3_000, num_items=20_000, min_user=1, min_item=1).tables.items
    assert items.height > 5_000 and items["title"].is_unique().all()


def test_every_phrase_is_plain_lower_case_text():
    phrases = [a for facet in FACETS.values() for a in facet.aspects]
    phrases += [kind for department in DEPARTMENTS.values() for kind in department.kinds]
    assert all(p == p.lower().strip() and "- " not in p and "  " not in p for p in phrases)
    assert all(len(set(facet.aspects)) == len(facet.aspects) for facet in FACETS.values())
    assert {name for d in DEPARTMENTS.values() for name in d.facets} == set(FACETS)


def test_people_buy_what_they_like_far_more_often_than_chance(shop, rated):
    chance = rated.with_columns(pl.col("aspects").shuffle(seed=0))
    by_chance = chance.select(pl.col("aspects").list.set_intersection("likes").list.len().mean()).item()
    assert rated["liked"].mean() > 4 * by_chance


def test_ratings_follow_the_tastes(rated):
    assert rated.select(pl.corr("liked", "rating")).item() > 0.4
    assert rated.select(pl.corr("disliked", "rating")).item() < -0.4
    share = (rated["rating"] <= 2).mean()
    assert 0.05 < share < 0.25


def test_reviews_follow_the_rating(rated):
    sample = rated.filter(pl.col("rating") != 3).sample(800, seed=0)
    score = SentimentIntensityAnalyzer().polarity_scores
    tone = np.array([score(review)["compound"] for review in sample["review"]])
    rating = sample["rating"].to_numpy()
    assert (tone[rating >= 4] > 0.05).mean() > 0.95
    assert (tone[rating == 1] < -0.05).mean() > 0.8
    assert tone[rating == 2].mean() < tone[rating >= 4].mean() - 0.5


def test_reviews_mention_likes_and_dislikes_and_little_else(rated):
    named = rated.select("review", "likes", "dislikes", "liked", "disliked", aspect="aspects").explode("aspect")
    named = named.with_columns(
        mentioned=pl.col("review").str.contains(pl.col("aspect"), literal=True),
        attitude=pl.when(pl.col("likes").list.contains(pl.col("aspect")))
        .then(pl.lit("like"))
        .when(pl.col("dislikes").list.contains(pl.col("aspect")))
        .then(pl.lit("dislike"))
        .otherwise(pl.lit("neither")),
    )
    share = dict(named.group_by("attitude").agg(pl.col("mentioned").mean()).iter_rows())
    assert share["like"] > 0.85 and share["dislike"] > 0.85 and share["neither"] < 0.15
    assert not rated["review"].str.contains(r"[{}]|  ").any()


def test_reviews_are_varied(shop):
    reviews = shop.tables.interactions["review"]
    assert reviews.n_unique() > 0.85 * len(reviews)


def test_what_was_bought_last_and_what_is_popular_say_something(shop, rated):
    order = [kind for department in DEPARTMENTS.values() for kind in department.kinds]
    after = {kind: n for d in DEPARTMENTS.values() for kind, n in zip(d.kinds, (*d.kinds[1:], d.kinds[0]), strict=True)}
    assert len(order) == len(set(order))
    steps = rated.with_columns(last=pl.col("kind").shift(1).over("user_id")).drop_nulls("last")
    expected = steps["last"].replace_strict(after)
    by_chance = (steps["kind"].shuffle(seed=0) == expected).mean()
    assert (steps["kind"] == expected).mean() > 3 * by_chance
    counts = shop.tables.interactions["item_id"].value_counts()["count"].sort(descending=True)
    assert counts.head(30).sum() > 2 * 30 * counts.mean()


def test_a_big_shop_keeps_its_properties():
    big = corner_shop(num_users=4_000, num_items=1_200, seed=0)
    rows = big.tables.interactions.join(big.truth, on=["user_id", "step"]).join(big.tables.items, on="item_id")
    met = rows.select(pl.col("aspects").list.set_intersection("likes").list.len()).to_series()
    assert big.tables.items.height > 1_000
    assert met.mean() > 0.5


def test_sizes_too_small_are_refused():
    with pytest.raises(ValueError, match="num_users=0: pass a whole number, at least 1"):
        corner_shop(num_users=0)
    with pytest.raises(ValueError, match="no interaction is left after filtering with min_user=5, min_item=5"):
        corner_shop(num_users=2, num_items=100)
