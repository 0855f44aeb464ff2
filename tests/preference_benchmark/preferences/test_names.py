from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import random_tables

from preference_benchmark.preferences.names import Names


def with_reviews(review: str, **items: object):
    tables = random_tables(0)
    rows = tables.interactions.with_columns(review=pl.lit(review))
    columns = {name: pl.lit(value) for name, value in items.items()}
    return replace(tables, interactions=rows, items=tables.items.with_columns(**columns))


def test_words_capitalised_inside_sentences_are_brands():
    names = Names.of(
        with_reviews("My old Zorblax works. Great tone on my bridge, says the Zorblax site. Bridge is fine.")
    )
    assert [brand.strip() for brand in names.brands] == ["zorblax"]
    assert names.named(pl.Series(["Find zorblax pens", "Find Zorblax's pens", "Find a bridge", ""])).to_list() == [
        *(True, True),
        *(False, False),
    ]


def test_the_brand_column_counts_unless_people_use_the_word():
    names = Names.of(with_reviews("it is a simple mug", brand="Simple", publisher="Quux Games"))
    assert [brand.strip() for brand in names.brands] == ["quux  game"]


@pytest.mark.parametrize(
    "text", ["Find the SM57", "Find a TU-3 tuner", "Find strings like EXL110", "Find a 1010LT card"]
)
def test_model_numbers_are_names(text):
    assert Names.of(random_tables(0)).named(pl.Series([text])).to_list() == [True]


@pytest.mark.parametrize(
    "text", ["Find 10 ft cables", "Find 9V adapters", "Find size 42 shoes", "Find USB mics", "Find 4K TVs"]
)
def test_measures_are_not(text):
    assert Names.of(random_tables(0)).named(pl.Series([text])).to_list() == [False]


def test_whole_titles_are_products():
    title = random_tables(0).items["title"][0]
    assert Names.of(random_tables(0)).named(pl.Series([f"Find {title.lower()}", "Find cups"])).to_list() == [
        True,
        False,
    ]


def test_only_the_training_period_is_read():
    tables = with_reviews("plain words")
    last = pl.col("step") + 2 >= pl.len().over("user_id")
    review = pl.when(last).then(pl.lit("this is my Zorblax and my Zorblax")).otherwise("review")
    assert Names.of(replace(tables, interactions=tables.interactions.with_columns(review=review))).brands.is_empty()
