"""Aspects that are mined from titles: terms within one part of a title, and what a thing is."""

from __future__ import annotations

import polars as pl

from preference_benchmark.preferences.vocabulary import mine_aspects

COLOURS = ("Black", "Blue", "Assorted Colors", "Heavy Duty")
KINDS = ("Fountain Pen", "Hanging File Folder", "Desk Organizer")


def shop() -> pl.DataFrame:
    """Thirty-six titles as shops write them: name, kind, then more after commas, dashes and brackets."""
    titles = [
        f"Maker{n} {KINDS[n % 3]}, {COLOURS[n % 4]}{' - Medium Nib &reg; (Kraft Paper) / Steel' * (n % 5 == 0)}"
        for n in range(36)
    ]
    return pl.DataFrame({"item_id": [str(n) for n in range(36)], "title": titles})


def test_the_kind_stands_last_before_the_first_comma():
    found = mine_aspects(shop())
    expected = [KINDS[n % 3].lower() + "s" for n in range(36)]
    assert all(noun and kind.endswith(noun) for noun, kind in zip(found["noun"], expected, strict=True))


def test_no_pair_of_words_lies_on_both_sides_of_a_mark():
    aspects = mine_aspects(shop())["aspects"].explode().unique().to_list()
    for apart in ("pen black", "folder blue", "colors medium", "duty medium", "nib kraft", "paper steel", "nib reg"):
        assert apart not in aspects
    assert {"medium nib", "kraft paper", "steel"} <= set(aspects) and "reg" not in aspects


def test_adjectives_are_no_kind():
    items = shop().with_columns(title=pl.col("title").str.replace(",.*", ""))
    ends = pl.when(pl.int_range(pl.len()) < 12).then(pl.lit(" White")).otherwise(pl.lit(""))
    found = mine_aspects(items.with_columns(title=pl.col("title") + ends))
    assert "white" in found["aspects"].explode().to_list() and "white" not in found["noun"].to_list()


def test_what_few_things_are_is_no_kind():
    items = shop().with_columns(
        title=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("Maker0 Kraft Paper")).otherwise("title")
    )
    more = pl.DataFrame({"item_id": [f"m{n}" for n in range(8)], "title": ["Maker Fountain Pen, Kraft Paper"] * 8})
    found = mine_aspects(items.vstack(more))
    assert found["noun"][0] is None and "kraft paper" in found["aspects"][0]


def test_items_with_and_without_terms_keep_their_order():
    items = shop().vstack(pl.DataFrame({"item_id": ["none", "empty"], "title": ["Zzyzx", ""]}))
    found = mine_aspects(items)
    assert found["item_id"].to_list() == items["item_id"].to_list()
    assert found["aspects"].drop_nulls().len() == items.height
