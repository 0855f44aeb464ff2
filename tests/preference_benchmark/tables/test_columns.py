"""Values of raw columns: what people export is read, and what has two readings is refused with its option."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference_benchmark.tables.columns import identifiers, numbers, ratings, text_lists, times

NIGHT = 1_700_000_000  # 2023-11-14T22:13:20Z


def of(*values: object, name: str = "timestamp") -> pl.Series:
    return pl.Series(name, list(values), strict=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-14T22:13:20Z", NIGHT),
        ("2023-11-14 22:13:20 UTC", NIGHT),
        ("2023-11-14t22:13:20.999z", NIGHT),
        ("2023-11-14 22:13:20,5", NIGHT),
        ("2023-11-14 22:13", NIGHT - 20),
        ("2023-11-14T23:13+01", NIGHT - 20),
        ("2023-11-14T23:13:20+0100", NIGHT),
        ("2023-11-14T23:13:20 +01:00", NIGHT),
        ("2023-11-14T16:43:20-05:30", NIGHT),
        ("20231114T221320Z", NIGHT),
        ("20231114T2213", NIGHT - 20),
        ("2023-11-14", NIGHT - 80_000),
        (" 2023-11-14 ", NIGHT - 80_000),
        ("20231114", NIGHT - 80_000),
        ("1700000000", NIGHT),
        ("1700000000.9", NIGHT),
        ("1.7e9", NIGHT),
        ("-86400", -86_400),
    ],
)
def test_times_as_programs_write_them(text, seconds):
    assert times(of(text, None, "N/A", "")).to_list() == [seconds, None, None, None]


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
    st.none() | st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["T", " "]),
    st.sampled_from(["seconds", "minutes"]),
)
def test_iso_times_agree_with_the_standard_library(moment, offset, separator, precision):
    zone = timezone.utc if offset is None else timezone(timedelta(minutes=offset))
    moment = moment.replace(microsecond=0, tzinfo=zone)
    text = moment.isoformat(sep=separator, timespec=precision)
    expected = datetime.fromisoformat(text).timestamp()
    assert times(of(text)).to_list() == [int(expected)]
    plain = text[:-6]
    assert times(of(plain)).to_list() == [int(datetime.fromisoformat(plain).replace(tzinfo=timezone.utc).timestamp())]


def test_typed_times_are_taken_as_they_are():
    moment = datetime(2023, 11, 14, 22, 13, 20)
    assert times(of(moment, None)).to_list() == [NIGHT, None]
    assert times(of(moment).dt.replace_time_zone("Asia/Tokyo")).to_list() == [NIGHT - 9 * 3_600]
    assert times(of(moment).dt.date()).to_list() == [NIGHT - 80_000]
    assert times(of(NIGHT, None)).to_list() == times(of(NIGHT + 0.5, float("nan"))).to_list() == [NIGHT, None]
    assert times(of(None, None)).to_list() == [None, None]


def test_days_without_marks_are_days_where_all_are():
    assert times(of(20231114, 20231115)).to_list() == [NIGHT - 80_000, NIGHT + 6_400]
    assert times(of("20231114", "NA")).to_list() == [NIGHT - 80_000, None]
    assert times(of(20231114, 20231115), dates="seconds").to_list() == [20231114, 20231115]
    assert times(of(20231114, 20231399, 7)).to_list() == [20231114, 20231399, 7]  # an order: one is not a day


def test_numbers_that_only_order_are_kept():
    assert times(of(*range(3_000))).to_list() == list(range(3_000))
    assert times(of(0, 5, 25_000, 90_000)).to_list() == [0, 5, 25_000, 90_000]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("2023-11-14", "20231102"), r"mixes forms: row 1 holds '20231102', a number.*dates=\"iso\" reads"),
        (("2023-11-14", "1700000000"), r"mixes forms: row 1 holds '1700000000', a number, and row 0"),
        ((NIGHT, 20231102), "mixes forms: row 1 holds 20231102, row 0 holds 1700000000"),
        ((NIGHT, 45_231), "mixes forms: row 1 holds 45231"),
        ((NIGHT, 2_023), "mixes forms: row 1 holds 2023"),
        ((7, 20231102), "mixes forms: row 1 holds 20231102, row 0 holds 7"),
        ((45_231, 45_232), 'row 0 holds 45231 .and 1 more.*spreadsheets.*dates="excel" or dates="seconds"'),
        (("45231.58",), 'spreadsheets count it.*dates="excel"'),
        ((2_023, 2_024), 'may be a year or a second of 1970; pass dates="%Y" or dates="seconds"'),
        ((1_700_000_000_000,), "2023-11-14 in milliseconds; pass dates='milliseconds'"),
        ((1_700_000_000_000_000_000,), "2023-11-14 in nanoseconds; pass dates='nanoseconds'"),
        (
            (None, NIGHT, NIGHT * 1_000),
            "mixes units: row 1 holds 1700000000 .2023-11-14 in sec.*row 2 .* in milli.*one",
        ),
        (("2023-11-14T22:13Z", "2023-11-14T22:13"), 'with and without a zone: row 0 .*row 1 .*dates="iso"'),
        (("14/11/2023", "NA"), r"row 0 holds '14/11/2023', which is neither.*dates=\"%d/%m/%Y\""),
        (("2023-02-30",), "'2023-02-30', which is neither"),
        (("2023-11-14T25:00",), "neither Unix seconds nor ISO 8601"),
        (("2023-11-14T22:13+99",), "neither Unix seconds nor ISO 8601"),
        ((float("inf"), 1.0), "holds inf, which is not a time"),
        ((1e30,), "which is not a time"),
        (("yesterday", "2023-11-14"), "'yesterday', which is neither"),
        ((True,), "'timestamp' has type Boolean"),
    ],
)
def test_times_with_two_readings_are_refused_with_the_option(values, message):
    with pytest.raises(ValueError, match=message):
        times(of(*values))


@pytest.mark.parametrize(
    ("dates", "value", "seconds"),
    [
        ("iso", "20231114", NIGHT - 80_000),
        ("iso", 20231114, NIGHT - 80_000),
        ("iso", "2023-11-14T22:13:20", NIGHT),
        ("milliseconds", NIGHT * 1_000 + 999, NIGHT),
        ("microseconds", str(NIGHT * 1_000_000), NIGHT),
        ("nanoseconds", NIGHT * 1_000_000_000, NIGHT),
        ("excel", 45_244, NIGHT - 80_000),
        ("excel", "45244.925925926", NIGHT),
        ("seconds", 45_244, 45_244),
        ("%d/%m/%Y", "14/11/2023", NIGHT - 80_000),
        ("%d.%m.%Y %H:%M", "14.11.2023 22:13", NIGHT - 20),
        ("%m/%d/%Y %I:%M %p", "11/14/2023 10:13 PM", NIGHT - 20),
        ("%b %Y", "Nov 2023", 1_698_796_800),
        ("%Y", "2023", 1_672_531_200),
        ("%Y", 2_023, 1_672_531_200),
    ],
)
def test_an_option_says_which_reading_is_meant(dates, value, seconds):
    assert times(of(value, None), dates=dates).to_list() == [seconds, None]


def test_what_does_not_follow_the_option_is_refused():
    with pytest.raises(ValueError, match="row 1 holds '13/25/2023', which does not have the form dates='%d/%m/%Y'"):
        times(of("14/11/2023", "13/25/2023"), dates="%d/%m/%Y")
    with pytest.raises(ValueError, match="'2023-11-14', which is not a number, as dates='excel' asks"):
        times(of("2023-11-14"), dates="excel")
    with pytest.raises(ValueError, match="dates='swatch' is not known; pass one of .*'iso'"):
        times(of("x"), dates="swatch")


def test_numbers_and_what_stands_for_none():
    assert numbers(of("4", "+2.5", ".5", "1e1", "NaN", "n/a", "null", "-", " ", None)).to_list() == [
        *(4.0, 2.5, 0.5, 10.0),
        *[None] * 6,
    ]
    assert numbers(of(4, None)).to_list() == [4.0, None]
    assert numbers(of("4,5", "3"), decimal=",").to_list() == [4.5, 3.0]
    assert numbers(of(4.0, float("nan"))).to_list() == [4.0, None]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (("4,5",), {}, "row 0 holds '4,5', which has a decimal comma.*pass decimal=\",\""),
        (("4.5",), {"decimal": ","}, "'4.5', which is not a number"),
        (("5", "good"), {}, "row 1 holds 'good', which is not a number"),
        (("1_0",), {}, "'1_0', which is not a number"),
        (("0x10",), {}, "not a number"),
        (("٣",), {}, "not a number"),
        (("inf",), {}, "not a number"),
        (("1e999",), {}, "not a finite number"),
        ((float("inf"),), {}, "not a finite number"),
        (([1],), {}, "has type List"),
    ],
)
def test_what_is_no_number_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        numbers(of(*values, name="rating"), **options)


def test_ratings_go_from_one_to_five():
    assert ratings(of(1, 5.0, None)).to_list() == [1.0, 5.0, None]
    for value in (0, 5.1, -1, 10**26):
        with pytest.raises(ValueError, match="outside 1-5; rescale"):
            ratings(of(float(value)))


def test_an_empty_id_is_no_id():
    assert identifiers(of("a", "", None, "NA")).to_list() == ["a", None, None, "NA"]
    assert identifiers(of(7, None)).to_list() == ["7", None]
    assert identifiers(of("a", "b").cast(pl.Categorical)).to_list() == ["a", "b"]


def test_lists_of_text_are_tidied():
    assert text_lists(pl.Series("a", [["Soft ", "soft", "", None], None, []])).to_list() == [["soft"], [], []]
    with pytest.raises(ValueError, match="has type String; pass lists"):
        text_lists(of("a"))
