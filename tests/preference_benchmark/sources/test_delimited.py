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
    text = 'user_id,item_id,review\nu1,i1,fine\nu1,i2,"Great\nu2,i2,so so\nu2,i3,bad\nu3,i4,good"\nu4,i2,bad\n'
    with pytest.raises(ValueError, match=r"field that opens in line 3 of .* holds 4 lines that .*quote=''"):
        read(tmp_path, text)
    assert len(rows_of(read(tmp_path, text, quote=""))) == 6
    prose = 'user_id,item_id,review\nu1,i1,fine\nu2,i2,"Well\nsoft, light, warm\nand so on"\n'
    assert rows_of(read(tmp_path, prose))[1] == ("u2", "i2", "Well\nsoft, light, warm\nand so on")


def test_a_table_that_somebody_wrote_into_a_review_is_read_as_text(tmp_path):
    text = 'user_id,item_id,review\nu1,i1,fine\nu1,i2,"Mine:\nu2,i2,so so"\n'
    raw = read(tmp_path, text)
    assert rows_of(raw)[1] == ("u1", "i2", "Mine:\nu2,i2,so so")
    what = "quoted fields of which every line reads as a row, taken as text"
    assert raw.count.notes == {what: 1} and raw.count.examples[what] == ("t.csv:3",)
    # No CSV writer leaves quotation marks in unquoted fields, so here they may be ordinary characters.
    with pytest.raises(ValueError, match="field that opens in line 3 of .* holds 2 lines"):
        read(tmp_path, text + 'u3,i3,5" or 6"\n')


PURCHASES = ["user_id", "item_id", "day", "rating", "review"]
pieces = st.lists(st.sampled_from(["u1", "i2", "2024-01-02", "5", "so so", ",", ",", "\n", "\n", '"']), max_size=12)
purchases = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "x y"]),
        st.sampled_from(["i1", "i2", "a, b"]),
        st.sampled_from(["2024-01-01", "2024-01-02"]),
        st.sampled_from(["4", "5", ""]),
        pieces.map("".join),
    ),
    min_size=1,
    max_size=12,
)


def written(rows, quoting=csv.QUOTE_MINIMAL) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n", quoting=quoting).writerows([PURCHASES, *rows])
    return stream.getvalue()


def read_purchases(folder, text: str, **options) -> list[tuple]:
    raw = read(folder, text, lambda found: {name: name for name in found}, **options)
    return [tuple(value or "" for value in row) for row in raw.frame.select(PURCHASES).iter_rows()]


def is_row(line: str) -> bool:
    return re.fullmatch(r"(u[12]|x y),i[12],2024-01-0[12],[45]?,[^,]*", line) is not None


@given(rows=purchases, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
def test_reviews_that_hold_lines_of_the_table_are_text(tmp_path_factory, rows, quoting):
    # Only a review all of whose later lines are rows leaves the same file as two stray marks around these rows.
    assume(not any("\n" in row[-1] and all(is_row(line) for line in row[-1].split("\n")[1:]) for row in rows))
    assert read_purchases(tmp_path_factory.mktemp("csv"), written(rows, quoting)) == rows


@given(rows=purchases, place=st.integers(0, 10_000), remove=st.booleans())
def test_one_stray_or_missing_mark_loses_no_row(tmp_path_factory, rows, place, remove):
    rows = [(*row[:-1], row[-1].replace("\n", " ")) for row in rows]
    text = written(rows)
    start = text.index("\n") + 1
    marks = [at for at, character in enumerate(text) if character == '"']
    assume(marks or not remove)
    at = marks[place % len(marks)] if remove else start + place % (len(text) + 1 - start)
    text = text[:at] + text[at + 1 :] if remove else f'{text[:at]}"{text[at:]}'
    folder = tmp_path_factory.mktemp("csv")
    try:
        found = read_purchases(folder, text)
    except ValueError as error:
        assert "quotation mark" in str(error) or "are malformed" in str(error)
    else:
        assert len(found) == len(rows)
        assert sum(one != other for one, other in zip(found, rows, strict=True)) == 1


@given(rows=purchases, ends=st.tuples(st.integers(0, 20), st.integers(1, 20)), column=st.sampled_from([0, 1, 4]))
def test_rows_between_two_stray_marks_are_not_lost(tmp_path_factory, rows, ends, column):
    rows = [tuple(re.sub(r"[\n\",]", " ", cell) for cell in row) for row in rows]
    rows = [("u1", "i1", "2024-01-01", "4", "fine"), *rows, ("u2", "i2", "2024-01-02", "5", "good")]
    first = 1 + ends[0] % (len(rows) - 2) if len(rows) < 4 else ends[0] % (len(rows) - 1)
    last = min(first + ends[1], len(rows) - 1)
    cells = [list(row) for row in rows]
    cells[first][column] = '"' + cells[first][column]
    cells[last][column] += '"'
    text = "\n".join(",".join(row) for row in [PURCHASES, *cells]) + "\n"
    folder = tmp_path_factory.mktemp("csv")
    with pytest.raises(ValueError, match=rf"quoted field that opens in line {first + 2} of .* holds"):
        read_purchases(folder, text)
    assert len(read_purchases(folder, text, quote="")) == len(rows)


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
