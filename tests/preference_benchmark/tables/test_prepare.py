"""The preparation agrees with a plain implementation of its definition, and refuses what it cannot use."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from preference_benchmark.tables import ReadReport, Tables, prepare
from preference_benchmark.tables.prepare import k_core

pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=120)


def interactions(rows: list[tuple], **columns: list) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [str(u) for u, *_ in rows], "item_id": [str(i) for _, i, *_ in rows], **columns})


def catalogue(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("item_id", title=pl.format("Item {}", "item_id")).unique("item_id")


def brute_force_core(rows: list[tuple[str, str]], min_user: int, min_item: int) -> list[tuple[str, str]]:
    while True:
        users, items = Counter(u for u, _ in rows), Counter(i for _, i in rows)
        kept = [(u, i) for u, i in rows if users[u] >= min_user and items[i] >= min_item]
        if len(kept) == len(rows):
            return rows
        # One side at a time, unlike the implementation: the core does not depend on the order of removal.
        rows = [(u, i) for u, i in rows if users[u] >= min_user]
        items = Counter(i for _, i in rows)
        rows = [(u, i) for u, i in rows if items[i] >= min_item]


@given(pairs, st.integers(1, 4), st.integers(1, 4))
def test_k_core_is_the_largest_fixed_point(rows, min_user, min_item):
    table = interactions(rows)
    core = k_core(table, min_user=min_user, min_item=min_item)
    assert core.rows() == brute_force_core(table.rows(), min_user, min_item)


def brute_force_histories(rows: list[tuple[int, int, int]], max_history: int) -> dict[str, list[str]]:
    histories: dict[str, list[str]] = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):  # stable: ties keep their order in the file
        history = histories.setdefault(str(user), [])
        if str(item) not in history:
            history.append(str(item))
    return {user: history[-max_history:] for user, history in histories.items()}


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=80),
    st.integers(3, 8),
)
def test_histories_are_stable_in_time_without_repeats_and_end_with_the_latest(rows, max_history):
    table = interactions(rows, timestamp=[t for *_, t in rows])
    tables = prepare(catalogue(table), table, min_user=1, min_item=1, max_history=max_history)
    found = tables.interactions.group_by("user_id", maintain_order=True).agg("item_id", "step")
    assert dict(zip(found["user_id"], found["item_id"].to_list(), strict=True)) == brute_force_histories(
        rows, max_history
    )
    assert all(steps == list(range(len(steps))) for steps in found["step"].to_list())
    assert tables.interactions["user_id"].is_sorted() and tables.items["item_id"].is_sorted()


@tries(25)
@given(st.permutations(range(24)))
def test_the_order_of_rows_does_not_matter_where_times_differ(order):
    rows = [(n % 3, n % 8, n) for n in range(24)]
    table = interactions(rows, timestamp=[t for *_, t in rows], rating=[1.0 + t % 5 for *_, t in rows])
    expected = prepare(catalogue(table), table, min_user=2, min_item=2)
    shuffled = prepare(catalogue(table), table[list(order)], min_user=2, min_item=2)
    assert shuffled.interactions.equals(expected.interactions)
    assert shuffled.items.equals(expected.items)
    assert shuffled.report.after == expected.report.after


def ten_by_ten(**columns) -> pl.DataFrame:
    rows = [(u, i) for u in range(6) for i in range(6)]
    return interactions(rows, **columns)


def test_items_are_those_of_the_core_and_keep_their_metadata():
    table = pl.concat([ten_by_ten(), interactions([(0, 99)])])
    items = catalogue(table).with_columns(aspects=pl.lit(["warm"]), colour=pl.lit("red"))
    tables = prepare(items, table)
    assert tables.items["item_id"].to_list() == [str(i) for i in range(6)]
    assert tables.items.columns == ["item_id", "title", "text", "aspects", "colour"]
    assert tables.items["text"].to_list() == tables.items["title"].to_list()
    assert tables.report.before.items == 7 and tables.report.after.items == 6


def test_a_user_with_one_interaction_falls_out_and_is_counted():
    table = pl.concat([ten_by_ten(), interactions([("lone", 0)])])
    tables = prepare(catalogue(table), table)
    assert "lone" not in tables.interactions["user_id"]
    assert (tables.report.before.users, tables.report.after.users) == (7, 6)


def test_the_training_period_leaves_out_the_last_two():
    tables = prepare(catalogue(ten_by_ten()), ten_by_ten())
    training = tables.training_period()
    assert training["step"].to_list() == [0, 1, 2, 3] * 6


def test_rows_without_a_time_are_dropped_and_counted():
    times = [None, None, *range(34)]
    tables = prepare(catalogue(ten_by_ten()), ten_by_ten(timestamp=times), min_user=1, min_item=1)
    assert tables.report.dropped["interactions without a timestamp"] == 2
    assert tables.report.before.interactions == 34
    assert "2 interactions without a timestamp" in str(tables.report)


def test_missing_columns_are_named_with_those_found():
    table = ten_by_ten().rename({"user_id": "customer"})
    with pytest.raises(ValueError, match=r"interactions table lacks the columns \['user_id'\].*'customer'"):
        prepare(catalogue(table), table)
    with pytest.raises(ValueError, match=r"items table lacks the columns \['title'\]"):
        prepare(catalogue(table).select("item_id"), ten_by_ten())


def test_unknown_items_are_named_or_dropped_on_request():
    table = pl.concat([ten_by_ten(), interactions([(0, "ghost"), (1, "ghost")])])
    items = catalogue(ten_by_ten())
    with pytest.raises(ValueError, match=r"'ghost'.*unknown_items=\"drop\".*2 interactions"):
        prepare(items, table)
    tables = prepare(items, table, unknown_items="drop")
    assert tables.report.dropped["interactions with items that the items table lacks"] == 2
    assert tables.report.after.interactions == 36
    with pytest.raises(ValueError, match='\'keep\'.*"error" or "drop"'):
        prepare(items, table, unknown_items="keep")


def test_a_catalogue_of_other_items_is_refused_even_where_unknown_items_may_be_dropped():
    other = pl.DataFrame({"item_id": ["5", *"abcde"], "title": "Other"})
    met = pl.concat([ten_by_ten(), interactions([(0, f"n{n}") for n in range(30)])])
    with pytest.raises(ValueError, match=r"only 1 of the 36 items.*'0'.*'5', 'a'.*another\s+category"):
        prepare(other, met, unknown_items="drop")


def test_nothing_left_names_the_thresholds_what_came_in_and_what_would_keep_more():
    with pytest.raises(ValueError, match=r"min_user=7, min_item=2: 6 users, 6 items, 36.*--min-user 3.* would keep 6"):
        prepare(catalogue(ten_by_ten()), ten_by_ten(), min_user=7, min_item=2)
    timeless = ten_by_ten(timestamp=["NA"] * 36)
    with pytest.raises(ValueError, match="no interaction is left.*36 interactions without a timestamp"):
        prepare(catalogue(timeless), timeless)


def test_where_most_users_are_dropped_the_report_says_how_to_keep_more():
    few = interactions([(f"few{n}", i) for n in range(20) for i in range(3)])
    table = pl.concat([ten_by_ten(), few])
    report = prepare(catalogue(table), table).report
    assert report.after.users == 6
    assert report.advice == (
        "only 6 of 26 users have min_user=5 interactions or more with items of min_item=5 or more; min_user=3, "
        "min_item=1 (--min-user 3 --min-item 1) would keep 26."
    )
    assert report.advice in str(report)
    assert not prepare(catalogue(table), table, min_user=3, min_item=1).report.advice


def test_repeats_are_dropped_or_kept():
    rows = [("a", i, t) for t, i in enumerate("xyxzx")] + [("b", i, t) for t, i in enumerate("zyx")]
    table = interactions(rows, timestamp=[t for *_, t in rows])
    dropped = prepare(catalogue(table), table, min_user=3, min_item=1)
    assert dropped.interactions.filter(user_id="a")["item_id"].to_list() == ["x", "y", "z"]
    assert dropped.report.dropped["repeated purchases of an item by the same user"] == 2
    kept = prepare(catalogue(table), table, min_user=3, min_item=1, repeats="keep", max_history=4)
    assert kept.interactions.filter(user_id="a").select("item_id", "step").rows() == [
        *(("y", 0), ("x", 1), ("z", 2), ("x", 3))
    ]
    assert kept.report.dropped["interactions older than the latest 4 of their user"] == 1
    with pytest.raises(ValueError, match='repeats=\'all\' is not known; pass "drop" or "keep"'):
        prepare(catalogue(table), table, repeats="all")


def test_items_without_an_interaction_are_dropped_by_name_or_kept_and_counted():
    new = pl.DataFrame({"item_id": ["n1", "n2"], "title": ["New kettle", "New pot"]})
    items = pl.concat([catalogue(ten_by_ten()), new])
    dropped = prepare(items, ten_by_ten()).report
    assert dropped.dropped["items without an interaction"] == 2
    assert dropped.examples["items without an interaction"] == ("New kettle (n1)", "New pot (n2)")
    assert "2 items without an interaction (New kettle (n1), New pot (n2))" in str(dropped)
    kept = prepare(items, ten_by_ten(), unbought="keep")
    assert kept.items["item_id"].to_list() == [*"012345", "n1", "n2"]
    assert kept.report.notes["items without an interaction, kept in the catalogue"] == 2
    assert kept.report.after.items == 6


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.none() | st.integers(0, 9)), min_size=1, max_size=60),
    *(st.sampled_from(choices) for choices in ((1, 3), (1, 2), ("drop", "keep"), ("drop", "keep"))),
)
def test_every_row_is_accounted_for(rows, min_user, min_item, repeats, unbought):
    table = interactions(rows, timestamp=pl.Series([t for *_, t in rows], dtype=pl.Int64))
    items = pl.DataFrame({"item_id": [*"0123456789", "0"], "title": "Thing"})
    try:
        tables = prepare(items, table, min_user=min_user, min_item=min_item, repeats=repeats, unbought=unbought)
    except ValueError as error:
        assert "no interaction is left" in str(error)
        return
    report = tables.report
    assert report.lines == len(rows) + 11
    assert report.used == {"interactions": tables.interactions.height, "items": tables.items.height}
    assert sum(report.used.values()) + sum(report.dropped.values()) == report.lines


def test_a_source_that_hands_over_other_rows_than_it_reports_is_found_out():
    report = ReadReport(lines=41, used={"interactions": 35, "items": 6})
    with pytest.raises(RuntimeError, match="reports .*35.* and hands over .*36.* defect of the reader"):
        prepare(catalogue(ten_by_ten()), ten_by_ten(), report=report)


def test_tables_written_and_read_are_the_same(tmp_path):
    tables = replace(prepare(catalogue(ten_by_ten()), ten_by_ten()), noun="lamps", aspects_from="titles")
    tables.write(tmp_path)
    again = Tables.read(tmp_path)
    assert again.items.equals(tables.items) and again.interactions.equals(tables.interactions)
    assert (again.report, again.noun, again.aspects_from) == (tables.report, "lamps", "titles")


def test_values_that_cannot_be_used_are_shown_with_their_row():
    for columns, message in (
        ({"rating": [1.0] * 35 + [9.0]}, "column 'rating': row 35 holds 9.0, which is outside 1-5; rescale"),
        ({"timestamp": ["yesterday"] * 36}, "column 'timestamp': row 0 holds 'yesterday' .and 35 more.*ISO 8601"),
        ({"review": [3] * 36}, "'review' has type Int64; pass strings"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(catalogue(ten_by_ten()), ten_by_ten(**columns))


def test_ids_are_strings_or_integers():
    table = ten_by_ten().with_columns(user_id=pl.col("user_id").cast(pl.Float64))
    with pytest.raises(ValueError, match="'user_id' has type Float64; pass strings or integers"):
        prepare(catalogue(ten_by_ten()), table)


def test_rows_without_an_id_are_dropped_and_counted():
    table = ten_by_ten().with_columns(
        user_id=pl.when(pl.col("item_id") != "3").then("user_id"),
        item_id=pl.when(pl.col("item_id") != "4").then("item_id").otherwise(pl.lit("")),
    )
    items = pl.concat([catalogue(ten_by_ten()), pl.DataFrame({"item_id": [None], "title": ["nothing"]})])
    report = prepare(items, table, min_user=3, min_item=3).report
    assert report.dropped["interactions without a user id"] == 6
    assert report.dropped["interactions without an item id"] == 6
    assert report.dropped["items without an id"] == 1
    assert report.after.interactions == 24


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="max_history=2: pass at least 1, 1 and 3"):
        prepare(catalogue(ten_by_ten()), ten_by_ten(), max_history=2)


def test_lazy_frames_and_integer_ids_give_the_same_tables():
    table = ten_by_ten()
    whole = table.with_columns(pl.col("user_id", "item_id").cast(pl.Int64))
    tables = prepare(catalogue(whole).lazy(), whole.lazy())
    assert tables.interactions.equals(prepare(catalogue(table), table).interactions)


def test_a_lazy_file_gives_the_same_tables_as_the_frame(tmp_path):
    table = ten_by_ten(timestamp=[n % 7 for n in range(36)], review=[f"review {n}" for n in range(36)])
    table = table.sample(36, shuffle=True, seed=1).with_columns(other=pl.lit("not needed"))
    table.write_parquet(tmp_path / "t.parquet", row_group_size=5)
    tables = prepare(catalogue(table), pl.scan_parquet(tmp_path / "t.parquet"), max_history=4)
    assert tables.interactions.equals(prepare(catalogue(table), table, max_history=4).interactions)
    assert tables.interactions.height == 24 and tables.report.after.interactions == 36


def test_titles_are_never_empty():
    items = catalogue(ten_by_ten()).with_columns(
        title=pl.when(pl.col("item_id") == "2").then(pl.lit(" ")).otherwise("title")
    )
    tables = prepare(items, ten_by_ten())
    assert tables.items["title"][2] == "untitled item"
    assert tables.report.notes["items without a title of their own"] == 1


DAY = 86_400


def dated(seed: int, **options) -> Tables:
    rng = np.random.default_rng(seed)
    rows = rng.integers([30, 40], size=(300, 2)).tolist()
    table = interactions(rows, timestamp=(1_600_000_000 + DAY * rng.integers(200, size=300)).tolist())
    return prepare(catalogue(table), table, min_user=3, min_item=1, **options)


def test_leave_last_two_holds_out_the_end_of_every_history():
    tables = dated(0)
    rows = tables.interactions.with_columns(split=tables.split())
    for user in rows.partition_by("user_id"):
        splits = user.sort("step")["split"].to_list()
        assert splits == ["train"] * (len(splits) - 2) + ["validation", "test"]


@pytest.mark.parametrize("seed", range(3))
def test_a_split_by_time_holds_out_what_comes_first_after_two_points(seed):
    tables = dated(seed, split="time", time_quantiles=(0.6, 0.8))
    first, second = tables.points
    times = tables.interactions["timestamp"].sort()
    assert (times <= first).mean() >= 0.6 - 1 / len(times) and (times < first).mean() <= 0.6
    assert (times <= second).mean() >= 0.8 - 1 / len(times) and (times < second).mean() <= 0.8
    rows = tables.interactions.with_columns(split=tables.split()).sort("user_id", "step")
    seen: Counter = Counter()
    for user, time, split in rows.select("user_id", "timestamp", "split").iter_rows():
        period = "train" if time <= first else "validation" if time <= second else "test"
        expected = period if period == "train" or not seen[user, period] else "later"
        assert split == expected
        seen[user, period] += 1
    assert {"train", "validation", "test", "later"} == set(rows["split"])
    assert tables.training_period()["timestamp"].max() <= first


def test_the_order_of_rows_does_not_change_the_split():
    tables = dated(1, split="time")
    mixed = replace(tables, interactions=tables.interactions.sample(fraction=1.0, shuffle=True, seed=0))
    keys = ["user_id", "step", "split"]
    one, other = (
        found.interactions.with_columns(split=found.split()).sort(keys).select(keys) for found in (tables, mixed)
    )
    assert one.equals(other)


def test_the_points_in_time_are_kept_on_disk(tmp_path):
    tables = dated(2, split="time")
    tables.write(tmp_path)
    assert Tables.read(tmp_path).points == tables.points and dated(2).points is None


def test_a_split_by_time_needs_times_and_two_different_points():
    rows = [(user, item) for user in range(4) for item in range(6)]
    without = interactions(rows)
    with pytest.raises(
        ValueError, match='needs the times of the interactions, but there are none; add a column "timestamp"'
    ):
        prepare(catalogue(without), without, split="time", min_user=1, min_item=1)
    order = interactions(rows, timestamp=list(range(len(rows))))
    with pytest.raises(ValueError, match="needs the times of the interactions"):
        prepare(catalogue(order), order, split="time", min_user=1, min_item=1)
    same = interactions(rows, timestamp=[1_600_000_000] * len(rows))
    with pytest.raises(ValueError, match="no time lies between"):
        prepare(catalogue(same), same, split="time", min_user=1, min_item=1)
    with pytest.raises(ValueError, match="two shares between 0 and 1"):
        prepare(catalogue(same), same, split="time", time_quantiles=(0.9, 0.8), min_user=1)
    with pytest.raises(ValueError, match="split='random' is not known"):
        prepare(catalogue(same), same, split="random")
