"""Every source gives the same two tables, with the counts that are known of the public data sets."""

from __future__ import annotations

import polars as pl
import pytest

from preference_benchmark.sources import SOURCES, read_source
from preference_benchmark.tables import Tables

REAL = {
    "amazon2014": ("amazon2014_musical_instruments", {}, (1_429, 900, 10_261)),
    "amazon2018": ("amazon2018_gift_cards", {}, (453, 147, 2_941)),
    "sequences": ("amazon2014_beauty_sequences", {}, (22_363, 12_101, 198_502)),
    "steam": ("steam", {"undated": "last", "unlisted": "keep"}, (2_513, 582, 15_938)),
}


def check_contract(tables: Tables, max_history: int = 20) -> None:
    items, rows = tables.items, tables.interactions
    assert items.columns[:4] == ["item_id", "title", "text", "aspects"]
    assert items.dtypes[:4] == [pl.String, pl.String, pl.String, pl.List(pl.String)]
    assert rows.schema == {
        "user_id": pl.String,
        "step": pl.Int64,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "rating": pl.Float64,
        "review": pl.String,
    }
    assert items["item_id"].is_sorted() and items["item_id"].is_unique().all()
    assert items.select(pl.col("title", "text").str.strip_chars().str.len_chars().min()).row(0) > (0, 0)
    assert items.null_count().select("item_id", "title", "text", "aspects").sum_horizontal().item() == 0
    assert rows.drop("rating").null_count().sum_horizontal().item() == 0
    assert rows.select("user_id", "step").equals(rows.select("user_id", "step").sort("user_id", "step"))
    assert rows["step"].max() < max_history
    assert rows.join(items, on="item_id", how="anti").is_empty()
    assert rows.select("user_id", "item_id").is_unique().all()
    late = rows.filter(pl.col("timestamp") < pl.col("timestamp").shift(1).over("user_id"))
    assert late.is_empty()
    assert rows["rating"].drop_nulls().is_between(1, 5).all()
    aspects = items["aspects"].explode().drop_nulls()
    assert (aspects == aspects.str.to_lowercase()).all()
    assert (aspects.str.len_chars() > 0).all()
    assert items.height == tables.report.after.items
    assert rows["user_id"].n_unique() == tables.report.after.users
    assert tables.report.used["interactions"] == rows.height and tables.report.used["items"] == items.height


@pytest.mark.parametrize("source", sorted(REAL))
def test_real_files_give_the_known_counts(real_data, source):
    folder, options, counts = REAL[source]
    tables = read_source(source, real_data / folder, **options)
    check_contract(tables)
    after = tables.report.after
    assert (after.users, after.items, after.interactions) == counts
    assert not tables.report.malformed
    assert f"{counts[2]:,} interactions" in str(tables.report)


def test_steam_drops_what_has_no_place_in_time_or_in_the_games_file_and_says_so(real_data):
    tables = read_source("steam", real_data / "steam")
    check_contract(tables)
    after = tables.report.after
    assert (after.users, after.items, after.interactions) == (1_301, 330, 7_663)
    assert tables.report.dropped["interactions without a timestamp"] == 10_091
    assert tables.report.dropped["interactions with items that the items table lacks"] == 4_434
    assert set(tables.interactions["rating"].unique()) == {1.0, 5.0}


def test_the_corner_shop_is_a_source_like_any_other():
    tables = read_source("corner-shop", None, num_users=150, num_items=60, seed=3, max_history=8)
    check_contract(tables, max_history=8)
    with pytest.raises(ValueError, match="path='somewhere'.*generated, not read"):
        read_source("corner-shop", "somewhere")


def test_an_unknown_source_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="source 'netflix' is not known; choose one of .*'amazon2014'.*'table'"):
        read_source("netflix", "x")


@pytest.mark.parametrize("source", sorted(set(SOURCES) - {"corner-shop"}))
def test_missing_files_are_answered_with_the_expected_names(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=r"expected a file named .*; found \[\]"):
        read_source(source, tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_source(source, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"source '{source}' reads files; pass the folder"):
        read_source(source, None)


def test_several_candidates_must_be_told_apart(tmp_path):
    for category in ("Toys", "Beauty"):
        (tmp_path / f"reviews_{category}_5.json.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"several files .*reviews_Beauty_5.*reviews_Toys_5.*pass the path"):
        read_source("amazon2014", tmp_path)


@pytest.mark.parametrize("source", ["steam", "corner-shop", "table"])
def test_unknown_options_are_named_before_anything_is_read(source, tmp_path):
    path = None if source == "corner-shop" else tmp_path
    with pytest.raises(ValueError, match=rf"source '{source}' has no option 'min_users'; its options are .*'min_user'"):
        read_source(source, path, min_users=3)
