from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
import pytest
from benchmark_doubles import random_tables, shuffled_users
from polars.testing import assert_frame_equal

from preference_benchmark.preferences import ExtractiveApproximator
from preference_benchmark.preferences.extractive import sentences
from preference_benchmark.preferences.polarity import inverted, preference_polarity
from preference_benchmark.sources import read_source
from preference_benchmark.sources.corner_shop import corner_shop
from preference_benchmark.tables import ReadReport, Tables

write = ExtractiveApproximator(progress=False)
# The approximator's own openings; "more" and "other" belong to no aspect.
OPENING = r"^(Find|Search for|Look for|Avoid|Exclude|No) "


def table(rows: list[tuple], aspects: dict[str, list[str]], **items) -> Tables:
    """Tables from rows of (user, item, rating, review), in order of time."""
    names = sorted(aspects)
    columns = {"item_id": names, "title": names, "text": names, "aspects": [aspects[name] for name in names]}
    catalogue = pl.DataFrame(columns | items, schema_overrides={"aspects": pl.List(pl.String)})
    schema = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "review": pl.String}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        step=pl.int_range(pl.len()).over("user_id"), timestamp=pl.int_range(pl.len())
    )
    return Tables(catalogue, frame.sort("user_id", "step"), ReadReport())


def after(preferences: pl.DataFrame, step: int, sentiment: str) -> str:
    """All texts of one polarity after a step."""
    return " | ".join(preferences.filter(step=step, sentiment=sentiment)["text"])


def assert_five_distinct(preferences: pl.DataFrame, tables: Tables) -> None:
    keys = tables.interactions.select("user_id", "step").sort("user_id", "step")
    each = preferences.group_by("user_id", "step", maintain_order=True).agg("rank", distinct=pl.col("text").n_unique())
    assert_frame_equal(each.select("user_id", "step"), keys)
    assert (each["rank"] == pl.Series([[0, 1, 2, 3, 4]] * each.height)).all()
    assert (each["distinct"] == 5).all()


def assert_well_formed(preferences: pl.DataFrame) -> None:
    text = preferences["text"]
    assert text.str.contains(OPENING).all()
    assert not text.str.contains(r"[{}]|  |\s$").any()
    assert preferences["sentiment"].equals(preference_polarity(text).rename("sentiment"))
    opposite = inverted(text.filter(preferences["sentiment"] == "negative"))
    assert opposite.null_count() == 0
    assert (preference_polarity(opposite) == "positive").all()


@pytest.fixture(scope="module")
def shop():
    return corner_shop(num_users=300, num_items=120)


@pytest.fixture(scope="module")
def shop_preferences(shop):
    return write(shop.tables)


def test_five_distinct_well_formed_preferences_after_every_step(shop, shop_preferences):
    assert_five_distinct(shop_preferences, shop.tables)
    assert_well_formed(shop_preferences)
    assert 0.05 < (shop_preferences["sentiment"] == "negative").mean() < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_random_tables_with_gaps_give_five_as_well(seed):
    tables = random_tables(seed)
    preferences = write(tables)
    assert_five_distinct(preferences, tables)
    assert_well_formed(preferences)


def test_preferences_agree_with_the_true_tastes(shop, shop_preferences):
    """Of the aspects said to be liked or disliked, the truth confirms far more than it contradicts."""
    known = shop.tables.items["aspects"].explode().unique().sort(descending=True).to_list()
    said = shop_preferences.with_columns(aspect=pl.col("text").str.extract_many(known, leftmost=True))
    said = said.explode("aspect").drop_nulls("aspect").join(shop.truth, on=["user_id", "step"])
    said = said.with_columns(
        liked=pl.col("likes").list.contains(pl.col("aspect")),
        disliked=pl.col("dislikes").list.contains(pl.col("aspect")),
    )
    positive, negative = said.filter(sentiment="positive"), said.filter(sentiment="negative")
    assert positive["disliked"].mean() < 0.02 and negative["liked"].mean() < 0.02
    first = positive.filter(pl.col("rank") == 0)
    assert first["liked"].mean() > 0.5 and negative["disliked"].mean() > 0.4


def test_later_interactions_change_nothing(shop, shop_preferences):
    tables = shop.tables
    cut = 3
    other = tables.interactions.sample(fraction=1.0, shuffle=True, seed=1)
    later = pl.col("step") > cut
    changed = tables.interactions.with_columns(
        item_id=pl.when(later).then(other["item_id"]).otherwise("item_id"),
        rating=pl.when(later).then(6 - pl.col("rating")).otherwise("rating"),
        review=pl.when(later).then(pl.lit("I hate the vanilla scent.")).otherwise("review"),
    )
    preferences = write(Tables(tables.items, changed, tables.report))
    upto = pl.col("step") <= cut
    assert_frame_equal(preferences.filter(upto), shop_preferences.filter(upto))
    assert not preferences.filter(~upto).equals(shop_preferences.filter(~upto))


def test_other_users_change_nothing(shop, shop_preferences):
    tables = shop.tables
    users = tables.interactions["user_id"].unique().sort()[::3]
    some = pl.col("user_id").is_in(users.implode())
    alone = write(Tables(tables.items, tables.interactions.filter(some), tables.report))
    assert_frame_equal(alone, shop_preferences.filter(some))


def test_the_order_of_rows_changes_nothing(shop, shop_preferences):
    assert_frame_equal(write(shuffled_users(shop.tables, 1)), shop_preferences)


def test_ratings_speak_for_the_aspects_of_items():
    aspects = {"a": ["light texture"], "b": ["strong smell"], "c": ["glass jar"], "d": ["pump bottle"]}
    preferences = write(table([("u", "a", 5.0, ""), ("u", "b", 1.0, ""), ("u", "c", 5.0, "")], aspects))
    assert "light texture" in after(preferences, 0, "positive") and not after(preferences, 0, "negative")
    assert "strong smell" in after(preferences, 1, "negative")
    assert "strong smell" not in after(preferences, 2, "positive")
    assert not preferences["text"].str.contains("pump bottle").any()


def test_the_tone_of_the_clause_outweighs_the_rating():
    aspects = {"a": ["light texture", "strong smell"], "b": ["glass jar"], "c": ["pump bottle"]}
    review = "I love the light texture, but the strong smell is awful."
    preferences = write(table([("u", "a", 5.0, review)], aspects))
    assert "light texture" in after(preferences, 0, "positive")
    assert "strong smell" in after(preferences, 0, "negative")


def test_a_matching_word_inside_another_is_no_mention():
    aspects = {"a": ["rose scent"], "b": ["rich"], "c": ["glass jar"], "d": ["pump bottle"]}
    preferences = write(table([("u", "a", 5.0, "Awful for ostriches, not enriching.")], aspects))
    assert not after(preferences, 0, "negative")


def test_without_evidence_against_anything_nothing_is_avoided():
    aspects = {"a": ["light texture"], "b": ["glass jar"]}
    preferences = write(table([("u", "a", 5.0, ""), ("u", "b", None, "")], aspects))
    assert (preferences["sentiment"] == "positive").all()


def test_recent_tastes_come_first():
    aspects = {f"{kind}{n}": [f"{kind} flavour"] for kind in ("mint", "lemon") for n in range(8)}
    rows = [("u", f"lemon{n}", 5.0, "") for n in range(8)] + [("u", f"mint{n}", 5.0, "") for n in range(8)]
    preferences = write(table(rows, aspects)).filter(rank=0)
    assert "lemon" in preferences["text"][7] and "mint" in preferences["text"][15]


@pytest.mark.parametrize("aspects", [[], ["vegan"], ["vegan", "rose scent"], ["glass jar", "rose scent", "vegan"]])
def test_thin_evidence_still_gives_five(aspects):
    catalogue = {"a": aspects, "b": ["mint flavour"], "c": ["lemon flavour"], "d": ["cherry flavour"]}
    for rating in (5.0, 1.0, None):
        tables = table([("u", "a", rating, "")], catalogue)
        preferences = write(tables)
        assert_five_distinct(preferences, tables)
        assert_well_formed(preferences)


def test_titles_are_mined_where_items_have_no_aspects():
    makers = ("Acme", "Bolt", "Cado", "Dune")
    scents, kinds = ("argan oil", "mint leaf", "sea salt", "rose hip"), ("shampoo", "lotion", "soap", "lip balm")
    titles = [f"{maker} {scent} {kind}" for scent in scents for kind in kinds for maker in makers]
    names = [f"i{n:02d}" for n in range(len(titles))]
    tables = table([("u", names[0], 5.0, ""), ("u", names[5], 5.0, "")], {name: [] for name in names}, title=titles)
    preferences = write(tables)
    assert_five_distinct(preferences, tables)
    words = " ".join(preferences["text"])
    assert "shampoos with argan oil" in words and "lotions with argan oil" in words
    assert not re.search(r"shampoos? with [^.]*shampoo", words.split(" Find ")[0])
    assert not any(maker.lower() in words.lower() for maker in makers)


def said_of(aspects: list[str], rating: float, noun: str = "products", **items) -> set[str]:
    """What is said of one purchase, without the openings."""
    tables = table([("u", "a", rating, "")], {"a": aspects, "b": ["mint flavour"], "c": ["oak wood"]}, **items)
    text = write(replace(tables, noun=noun)).filter(sentiment="positive" if rating > 3 else "negative")["text"]
    return set(text.str.replace(r"^(?:Find|Search for|Look for|Avoid|Exclude|No) (?:more |other )?", ""))


@pytest.mark.parametrize(
    ("aspects", "noun", "said"),
    [
        (["glass jar"], "products", "products with a glass jar"),
        (["airtight lid", "organic cotton"], "products", "products with an airtight lid and organic cotton"),
        (["easy to clean"], "products", "products that are easy to clean"),
        (["great for kids"], "games", "games that are great for kids"),
        (["lasts long"], "products", "products that last long"),
        (["does not fade"], "textiles", "textiles that do not fade"),
        (["gluten-free"], "snacks", "gluten-free snacks"),
        (["massively multiplayer", "captions"], "games", "massively multiplayer games with captions"),
        (["strategy", "trading"], "games", "strategy and trading games"),
        (["card game"], "games", "card games"),
        (["action rpg", "open world"], "games", "open world action rpg games"),
        (["glass jar", "easy to open"], "products", "products with a glass jar that are easy to open"),
    ],
)
def test_sentences_are_english(aspects, noun, said):
    found = said_of(aspects, 5.0, noun)
    in_any_order = [sorted(re.split(r" and | ", text)) for text in found]
    assert sorted(re.split(r" and | ", said)) in in_any_order


@pytest.mark.parametrize(
    ("aspects", "said"),
    [
        (["breaks easily"], "products that break easily"),
        (["hard to clean"], "products that are hard to clean"),
        (["strong smell"], "products with a strong smell"),
    ],
)
def test_what_is_avoided_keeps_its_polarity(aspects, said):
    assert said in said_of(aspects, 1.0)


def test_several_things_to_avoid_are_avoided_each():
    rows = pl.DataFrame(
        {
            "row": [0, 0],
            "adjectives": [["gory", "violent"]] * 2,
            "kinds": [["strategy"]] * 2,
            "nouns": [["a level editor", "captions"]] * 2,
            "clauses": [["are hard to learn"]] * 2,
            "noun": [None, "card games"],
            "negative": [True, False],
            "variant": [0, 0],
            "repeat": [-1, -1],
        },
        schema_overrides={"noun": pl.String},
    )
    assert sentences(rows, "games").to_list() == [
        "Avoid gory, violent or strategy games with a level editor or captions that are hard to learn",
        "Find gory violent strategy card games with a level editor and captions that are hard to learn",
    ]


def test_kinds_in_titles_are_what_their_first_part_ends_with():
    colours, tips = ("blue", "red", "green", "black"), ("Fine Tip", "Chisel Tip", "Bullet Tip")
    kinds = ("Permanent Marker", "Gel Pen", "Desk Calendar")
    titles = [f"Acme {kind}, {tip}, {colour}, 12 Count" for kind in kinds for tip in tips for colour in colours]
    names = [f"i{n:02d}" for n in range(len(titles))]
    tables = table([("u", name, 5.0, "") for name in names[::7]], {name: [] for name in names}, title=titles)
    words = " ".join(write(tables)["text"])
    assert "permanent markers" in words and "gel pens with a bullet tip" in words
    assert "count" not in words and "tips" not in words


def test_titles_without_a_common_word_still_give_five():
    tables = table([("u", "Aaa", 5.0, "Fine."), ("u", "Bbb", 1.0, "Bad.")], {"Aaa": [], "Bbb": [], "Ccc": []})
    assert_five_distinct(write(tables), tables)


def test_price_is_no_preference():
    aspects = {"a": ["free to play", "open world"], "b": ["strategy", "free to play"], "c": ["cheap"]}
    preferences = write(table([("u", "a", 5.0, ""), ("u", "b", 5.0, ""), ("u", "c", 5.0, "")], aspects))
    assert not preferences["text"].str.contains("free to play|cheap").any()
    assert preferences["text"].str.contains("open world").any()


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("steam", "steam"),
        pytest.param("amazon2014", "amazon2014_musical_instruments", marks=pytest.mark.slow),
        ("amazon2018", "amazon2018_gift_cards"),
    ],
)
def test_real_files(real_data, source, folder):
    tables = read_source(source, real_data / folder)
    preferences = write(tables)
    assert_five_distinct(preferences, tables)
    assert_well_formed(preferences)
    assert 0 < (preferences["sentiment"] == "negative").mean() < 0.5
