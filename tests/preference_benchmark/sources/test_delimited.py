"""Separated fields: what other programs write is read as they mean it, and no row is lost in silence."""

from __future__ import annotations

import csv
import io
import re

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from preference_benchmark.sources import raw_files
from preference_benchmark.sources.delimited import read_csv, scan_parquet
from preference_benchmark.sources.raw_lines import LINE

NAMES = ["user_id", "item_id", "review"]
cells = st.text(st.sampled_from(list("ab1,;|\t\"'\n\r \\é")), max_size=6)


def every(found: list[str]) -> dict[str, str]:
    return {name: name for name in found if name in NAMES}


def read(tmp_path, text: str | bytes, select=every, **options):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_csv(path, select, keys=("user_id", "item_id"), **options)


def rows_of(raw) -> list[tuple]:
    return [tuple(value or "" for value in row) for row in raw.frame.select(NAMES).iter_rows()]


@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    block=st.sampled_from([1 << 26, 30]),
)
def test_what_the_csv_module_writes_is_read_as_it_was(tmp_path_factory, rows, separator, end, quoting, block):
    # The csv module does not quote a lone carriage return where rows end with a line feed.
    assume(quoting == csv.QUOTE_ALL or not any("\r" in cell for row in rows for cell in row))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerows([NAMES, *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_files, "_BLOCK", block)
        raw = read(tmp_path_factory.mktemp("csv"), stream.getvalue(), separator=separator, max_malformed=1)
    # Line ends inside fields become those of the block, and so does a lone carriage return at the very end.
    plain = [tuple(cell.replace("\r\n", "\n") for cell in row) for row in rows]
    assert rows_of(raw) == plain
    assert raw.count.lines == len(rows) and not raw.count.malformed


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_that_finds_the_columns(tmp_path, separator):
    text = "\n".join(separator.join(row) for row in (NAMES, ("u1", "i1", "fine"), ("u2", "i2", "")))
    raw = read(tmp_path, text)
    assert rows_of(raw) == [("u1", "i1", "fine"), ("u2", "i2", "")]
    assert raw.frame["review"].to_list() == ["fine", None]
    assert raw.frame[LINE].to_list() == [2, 3]


def test_blank_lines_names_with_blanks_and_the_index_of_pandas_are_no_columns(tmp_path):
    raw = read(tmp_path, '\n, user_id ,item_id,"review"\n0,u1,i1,"two\nlines"\n\n1,u2,i2,fine\n  \n')
    assert rows_of(raw) == [("u1", "i1", "two\nlines"), ("u2", "i2", "fine")]
    assert raw.frame[LINE].to_list() == [3, 6] and raw.count.lines == 2


def test_quotation_marks_inside_plain_fields_are_characters(tmp_path):
    raw = read(tmp_path, 'user_id,item_id,review\nu1,i1,a 12" disc\nu2,i2,"said ""hi"""\nu3,i3,5" or 6"\n')
    assert rows_of(raw) == [("u1", "i1", 'a 12" disc'), ("u2", "i2", 'said "hi"'), ("u3", "i3", '5" or 6"')]


def test_rows_of_another_length_are_refused_or_counted_by_line(tmp_path):
    text = 'user_id,item_id,review\nu1,i1,"a\nb"\nu2,i2\nu3,i3,c,d\nu4,i4,e\n,,\n'
    with pytest.raises(
        ValueError, match=r"2 of 5 lines .*1 rows with too few fields \(first: \[4\]\); 1 rows with too many .*\[5\]"
    ):
        read(tmp_path, text)
    raw = read(tmp_path, text, max_malformed=0.5)
    assert rows_of(raw) == [("u1", "i1", "a\nb"), ("u4", "i4", "e"), ("", "", "")]
    assert raw.count.malformed == {"rows with too few fields": 1, "rows with too many fields": 1}
    assert raw.count.examples["rows with too few fields"] == ("t.csv:4",)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("place", [0, 35, 69])
def test_a_stray_quotation_mark_swallows_no_row(tmp_path, place, others):
    rows = [["u1", f"i{n}", "fine" if n % 2 else '"fine, really"'] for n in range(70)]
    if not others:
        rows = [[user, item, "fine"] for user, item, _ in rows]
    rows[place][2] = '"Great product'
    text = "\n".join(",".join(row) for row in (NAMES, *rows)) + "\n"
    with pytest.raises(ValueError, match=rf"begins in line {place + 2} of .*'u1,i{place},\"Great.*quote=''"):
        read(tmp_path, text, max_malformed=1)
    plain = text.replace(", really", " really")
    assert rows_of(read(tmp_path, plain, quote=""))[place] == ("u1", f"i{place}", '"Great product')


def test_rows_inside_a_quoted_field_are_found(tmp_path):
    text = 'user_id,item_id,review\nu1,i1,fine\nu1,i2,"Great\nu2,i2,so so\nu3,i4,good"\nu4,i2,bad\n'
    with pytest.raises(ValueError, match=r"line 4 of .* reads as a row of its own .'u2,i2,so so'.*opens in line 3"):
        read(tmp_path, text)
    assert len(rows_of(read(tmp_path, text, quote=""))) == 5
    prose = 'user_id,item_id,review\nu1,i1,fine\nu2,i2,"Well\nsoft, light, warm\nand so on"\n'
    assert rows_of(read(tmp_path, prose))[1] == ("u2", "i2", "Well\nsoft, light, warm\nand so on")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("user_id,item_id,item_id\nu,i,j\n", {}, r"names \['item_id'\] more than once; rename or remove"),
        ("user_id,item_id,review\n", {}, r"has a header .*'review'.* and no rows"),
        ("\n \n", {}, "is empty"),
        (b"user_id,item_id,review\nu1,i1,x\nu1,i1,caf\xe9\n", {}, r"line 3 of .* is not utf-8 \(byte 0xe9\).*encoding"),
        ("user_id,item_id\nu,i\n", {"required": ("day",)}, r"lacks the columns \['day'\]; found \['user_id',"),
        ("user_id,item_id\nu,i\n", {"separator": "::"}, "separator='::': pass one ASCII character"),
        ("user_id,item_id\nu,i\n", {"quote": "«"}, "quote='«': pass one ASCII character"),
        ('user_id,item_id\nu,"i" x\n', {}, r"row that begins in line 2 of .*out of place"),
        ("user_id,item_id\nu,i\rv,j\n", {"quote": '"', "max_malformed": 1}, "row that begins in line 2|too many"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        raise_if_read(read(tmp_path, text, **options))


def raise_if_read(raw) -> None:
    """A carriage return among line feeds is part of a field, or its row is malformed; either way it is seen."""
    text = raw.frame["item_id"].to_list()
    if raw.count.malformed or any("\r" in item for item in text):
        raise ValueError("too many")


def test_a_long_line_is_read(tmp_path):
    long = "x" * 300_000
    raw = read(tmp_path, f'user_id,item_id,review\nu1,i1,"{long}\n"\nu2,i2,{long}"\n', max_malformed=1)
    assert [len(row[2]) for row in rows_of(raw)] == [300_001, 300_001]


def test_parquet_columns_have_the_type_that_is_asked_for(tmp_path):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"id": [1, 2], "rating": [4, 5], "tags": [["a"], None]}).write_parquet(path)
    fields = {"id": pl.String, "rating": pl.Float64, "tags": pl.List(pl.String), "other": pl.Int64}
    frame = scan_parquet(path, fields, ("id",)).collect()
    assert frame.rows() == [("1", 4.0, ["a"], None), ("2", 5.0, None, None)]
    pl.DataFrame({"id": [1.5], "rating": ["x"]}).write_parquet(path)
    for wanted, message in (
        ({"id": pl.String}, "column 'id' of .* has type Float64, expected String"),
        ({"rating": pl.Float64}, "column 'rating' of .* has type String, expected Float64"),
    ):
        with pytest.raises(ValueError, match=message):
            scan_parquet(path, wanted, ("id",))
    with pytest.raises(ValueError, match=re.escape("lacks the columns ['day']; found ['id', 'rating']")):
        scan_parquet(path, {}, ("day",))
