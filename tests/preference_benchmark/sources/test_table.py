"""Your own data and sequence files: the same content in any format gives the same tables."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from preference_benchmark.sources import read_source

INTERACTIONS = pl.DataFrame(
    {
        "user_id": [f"00{u}" for u in range(6) for _ in range(6)],
        "item_id": [f"0{(u + n) % 6}" for u in range(6) for n in range(6)],
        "timestamp": [1_400_000_000 + 86_400 * n for _ in range(6) for n in range(6)],
        "rating": [1.0 + (u + n) % 5 for u in range(6) for n in range(6)],
        "review": [f"10, said {u}" for u in range(6) for n in range(6)],
    }
)
ITEMS = pl.DataFrame(
    {
        "item_id": [f"0{n}" for n in range(6)],
        "title": [f"Lamp {n}" for n in range(6)],
        "aspects": [["warm light"], ["warm light", "brass foot"], [], ["brass foot"], [], []],
        "shelf": list(range(6)),
    }
)


def write(frame: pl.DataFrame, path: Path) -> None:
    name = path.name.removesuffix(".gz")
    if name.endswith("parquet"):
        frame.write_parquet(path)
        return
    if name.endswith("csv"):
        if "aspects" in frame.columns:
            frame = frame.with_columns(pl.col("aspects").list.join(" | ").str.to_titlecase())
        text = frame.write_csv()
    else:
        text = frame.write_ndjson()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_every_format_gives_the_same_tables(tmp_path, ending):
    write(INTERACTIONS, tmp_path / f"interactions.{ending}")
    write(ITEMS, tmp_path / f"items.{ending}")
    tables = read_source("table", tmp_path)
    assert tables.items.select("item_id", "title", "aspects", "shelf").equals(ITEMS)
    assert tables.interactions.drop("step").equals(INTERACTIONS.select(tables.interactions.drop("step").columns))
    assert tables.report.files == (f"interactions.{ending}", f"items.{ending}")


def test_two_named_files_with_only_what_is_required(tmp_path):
    write(INTERACTIONS.select("user_id", "item_id"), tmp_path / "clicks.csv")
    write(ITEMS.select("item_id", "title"), tmp_path / "goods.parquet")
    tables = read_source("table", tmp_path / "clicks.csv", items=tmp_path / "goods.parquet")
    assert tables.interactions["timestamp"].to_list() == list(range(36))
    assert tables.interactions["rating"].null_count() == 36
    assert tables.items["text"].to_list() == ITEMS["title"].to_list()


def test_iso_dates_in_csv(tmp_path):
    dated = INTERACTIONS.with_columns(pl.from_epoch("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S"))
    write(dated, tmp_path / "interactions.csv")
    write(ITEMS, tmp_path / "items.csv")
    assert read_source("table", tmp_path).interactions["timestamp"].equals(INTERACTIONS["timestamp"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("interactions.csv", b"", "interactions.csv is empty"),
        ("interactions.jsonl", b"user,item\n1,2\n", "of another format.*'user,item'"),
        ("interactions.parquet", b"user,item\n1,2\n", "interactions.parquet cannot be read as Parquet"),
        ("interactions.csv", b"PAR1 and so on", "interactions.csv is a Parquet file"),
        ("interactions.csv", b"customer,item_id\n1,2\n", r"lacks the columns \['user_id'\].*'customer'"),
        (
            "interactions.csv",
            b'user_id,item_id\n1,2\n"3,4,5\n6,7,8,9\n',
            "row that begins in line 3 of .*has a quotation mark .*out of place",
        ),
        ("interactions.csv.gz", gzip.compress(b"user_id,item_id\n" * 999, mtime=0)[:40], "truncated gzip"),
        (
            "interactions.csv",
            b"user_id,item_id,review\n1,01,fine\n1,02,caf\xe9\n",
            r"line 3 of .*interactions.csv is not utf-8 \(byte 0xe9\); convert .*iconv",
        ),
        (
            "interactions.jsonl",
            b'{"user_id": "1", "item_id": "01"}\n{"user_id": "caf\xe9", "item_id": "01"}\n',
            r"1 of 2 lines .*1 lines that are not UTF-8 \(first: \[2\]\).*Convert",
        ),
        (
            "interactions.csv",
            b"user_id,item_id,timestamp\n1,01,1400000000\n1,02,1400086400000\n",
            r"'timestamp' mixes units: line 2 of interactions.csv holds 1400000000 .2014-05-13 in sec.*line 3 .*Bring",
        ),
        ("interactions.csv", b"user_id,item_id\n1,01\n", r"no interaction is left.*1 users, 1 items, 1 interactions"),
        ("interactions.csv", b"user_id,item_id\n1,77\n", r"not in the items table.*'77'.*unknown_items"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    write(ITEMS, tmp_path / "items.csv")
    with pytest.raises(ValueError, match=message):
        read_source("table", tmp_path)


def test_csv_of_another_encoding_is_read_when_it_is_named(tmp_path):
    named = INTERACTIONS.with_columns(user_id=pl.format("André {}", "user_id"))
    (tmp_path / "interactions.csv").write_bytes(named.write_csv().encode("latin-1"))
    write(ITEMS, tmp_path / "items.csv")
    with pytest.raises(ValueError, match=r"line 2 of .*byte 0xe9.*name its encoding"):
        read_source("table", tmp_path)
    tables = read_source("table", tmp_path, encoding="latin-1")
    assert tables.interactions["user_id"].equals(named["user_id"])


def test_an_unknown_ending_is_answered_with_the_known_ones(tmp_path):
    (tmp_path / "clicks.xlsx").write_bytes(b"x")
    write(ITEMS, tmp_path / "items.csv")
    with pytest.raises(ValueError, match=r"clicks.xlsx has an unknown ending; expected one of \['.csv'"):
        read_source("table", tmp_path / "clicks.xlsx")


def shop(folder: Path, interactions: str | bytes, items: str | None = None, **options: object):
    """The tables of a folder with these files; every interaction is kept."""
    folder.mkdir(exist_ok=True)
    content = interactions.encode() if isinstance(interactions, str) else interactions
    (folder / options.pop("name", "interactions.csv")).write_bytes(content)
    if items is None:
        write(ITEMS, folder / "items.csv")
    else:
        (folder / "items.csv").write_text(items)
    return read_source("table", folder, **{"min_user": 1, **options})


def test_own_tables_keep_users_with_three_purchases_and_every_item(tmp_path):
    rows = "user_id,item_id\n" + "".join(f"u{u},0{n}\n" for u, count in enumerate((2, 3, 4)) for n in range(count))
    tables = shop(tmp_path, rows, min_user=3)
    assert tables.interactions["user_id"].unique().sort().to_list() == ["u1", "u2"]
    assert tables.items["item_id"].to_list() == ITEMS["item_id"].to_list()
    assert tables.report.notes["items without an interaction, kept in the catalogue"] == 2
    assert read_source("table", tmp_path, unbought="drop").items.height == 4
    assert read_source("table", tmp_path, min_user=4).report.advice.endswith(
        "(--min-user 3 --min-item 1) would keep 2."
    )


def test_columns_of_other_names_are_named(tmp_path):
    rows = "customer;sku;when\n" + "".join(f"u1;0{n};2024-01-0{n + 1}\n" for n in range(4))
    items = "sku,name,colour\n" + "".join(f"0{n},Lamp {n},red\n" for n in range(4))
    columns = {"user_id": "customer", "item_id": "sku", "timestamp": "when", "title": "name"}
    tables = shop(tmp_path, rows, items, columns=columns)
    assert tables.interactions["item_id"].to_list() == ["00", "01", "02", "03"]
    assert tables.items.columns == ["item_id", "title", "text", "aspects", "colour"]
    assert tables.items["title"][1] == "Lamp 1"
    # One table may have our name already.
    same = shop(tmp_path / "same", rows, items.replace("sku", "item_id"), columns=columns)
    assert same.items.equals(tables.items) and same.interactions.equals(tables.interactions)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_named_column_that_is_not_there_is_answered_with_those_that_are(tmp_path, ending):
    write(INTERACTIONS.rename({"user_id": "customer"}), tmp_path / f"interactions.{ending}")
    write(ITEMS, tmp_path / f"items.{ending}")
    found = r"interactions\.\w+ has \['customer', 'item_id'"
    with pytest.raises(ValueError, match=f"no column is called 'custmer' .user_id.; {found}"):
        read_source("table", tmp_path, columns={"user_id": "custmer"})
    with pytest.raises(
        ValueError, match=r"lacks the columns \['user_id'\]; found \['customer', .*--columns user_id=cust"
    ):
        read_source("table", tmp_path)
    with pytest.raises(ValueError, match=r"'buyer' is not one of our columns, which are \['aspects', 'item_id'"):
        read_source("table", tmp_path, columns={"buyer": "customer"})
    assert read_source("table", tmp_path, columns={"user_id": "customer"}).interactions.height == 36


def test_two_files_of_one_table_must_be_told_apart(tmp_path):
    for ending in ("csv", "jsonl", "parquet"):
        write(INTERACTIONS, tmp_path / f"interactions.{ending}")
    write(ITEMS, tmp_path / "items.csv")
    with pytest.raises(
        ValueError, match=r"several files of interactions: \['interactions.csv', 'interactions.jsonl', 'int"
    ):
        read_source("table", tmp_path)
    assert read_source("table", tmp_path / "interactions.jsonl").interactions.height == 36


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_exports_of_spreadsheets_are_read(tmp_path, encoding, end, separator):
    named = INTERACTIONS.with_columns(user_id=pl.format("André {}", "user_id"))
    text = named.write_csv(separator=separator).replace("\n", end)
    tables = shop(tmp_path, text.encode(encoding), encoding=encoding)
    assert tables.interactions["user_id"].equals(named["user_id"])
    assert tables.interactions["review"].equals(named["review"])


@pytest.mark.parametrize("compress", [False, True])
def test_tab_separated_files_have_endings_of_their_own(tmp_path, compress):
    data = INTERACTIONS.write_csv(separator="\t").encode()
    name = "interactions.tsv" + ".gz" * compress
    tables = shop(tmp_path, gzip.compress(data) if compress else data, name=name)
    assert tables.interactions.height == 36 and tables.report.files[0] == name


@pytest.mark.parametrize(
    "aspects",
    [
        "\"['Black', 'loose']\"",
        '"[""Black"", ""loose""]"',
        "\"['Black' 'loose']\"",
        "\"['Black'\n 'loose']\"",
        "\"['Black', None, 'loose',]\"",
        "Black; loose",
        "Black|loose",
        "Black | loose |",
    ],
)
def test_lists_in_a_field_are_read_as_they_are_written(tmp_path, aspects):
    items = f"item_id,title,aspects\n00,Lamp,{aspects}\n01,Other,NA\n02,Third,\n03,Fourth,[]\n04,Fifth,steel\n"
    rows = "user_id,item_id\n" + "".join(f"u,0{n}\n" for n in range(5))
    expected = [["black", "loose"], [], [], [], ["steel"]]
    assert shop(tmp_path, rows, items).items["aspects"].to_list() == expected


@pytest.mark.parametrize(
    ("aspects", "message"),
    [
        ('"soft, warm"', r"line 2 of items.csv holds 'soft, warm', which may be one entry or several; pass list_separ"),
        ("soft;warm|red", "may be one entry or several"),
        ("\"['soft', 'warm'\"", r"line 2 of items.csv holds .*not a list of text as JSON or Python"),
        ("\"[['soft']]\"", "not a list of text"),
        ("\"[__import__('os')]\"", "not a list of text"),
    ],
)
def test_lists_with_two_readings_are_refused(tmp_path, aspects, message):
    with pytest.raises(ValueError, match=message):
        shop(tmp_path, "user_id,item_id\nu,00\n", f"item_id,title,aspects\n00,Lamp,{aspects}\n")


def test_an_option_says_what_separates_lists_and_decimals(tmp_path):
    items = 'item_id,title,aspects\n00,Lamp,"soft, warm"\n'
    rows = 'user_id,item_id,rating\nu,00,"4,5"\nv,00,N/A\n'
    with pytest.raises(ValueError, match=r"'rating': line 2 of interactions.csv holds '4,5'.*pass decimal=\",\""):
        shop(tmp_path, rows, items, list_separator=",")
    tables = shop(tmp_path, rows, items, list_separator=",", decimal=",")
    assert tables.items["aspects"].to_list() == [["soft", "warm"]]
    assert tables.interactions["rating"].to_list() == [4.5, None]
    assert shop(tmp_path, rows, items, list_separator="|", decimal=",").items["aspects"].to_list() == [["soft, warm"]]


def dated(*times: str, lines: bool = False) -> str:
    if lines:
        return "\n".join(f'{{"user_id": "u", "item_id": "0{n}", "timestamp": {time}}}' for n, time in enumerate(times))
    return "user_id,item_id,timestamp\n" + "".join(f"u,0{n},{time}\n" for n, time in enumerate(times))


@pytest.mark.parametrize(
    ("times", "order"),
    [
        (("2026-03-01 14:02", "2025-03-01", "2026-03-01T14:01:59"), "102"[::-1]),
        (("2023-11-14T22:13+02", "2023-11-14T21:13Z", "2023-11-14T22:13:00+0100"), "021"),
        (("20231102", "20231101", "20240101"), "102"),
        (("1700000002", "1700000001", "NA"), "10"),
    ],
)
def test_times_as_shops_write_them_order_histories(tmp_path, times, order):
    found = shop(tmp_path, dated(*times)).interactions["item_id"].to_list()
    assert sorted(found) == sorted(f"0{n}" for n in order)
    as_read = dict(zip([f"0{n}" for n in range(3)], times, strict=True))
    assert len({as_read[item] for item in found}) == len(found)


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(
    ("times", "message"),
    [
        (('"20231102"', '"2023-11-01"'), 'mixes forms: line 2 of .*20231102.*line 3 .*dates="iso"'),
        (("45231", "45232"), 'line 2 of .*45231.*dates="excel"'),
        (("2023", "2024"), 'line 2 of .*2023.*dates="%Y"'),
        (('"01/02/2023"', '"13/02/2023"'), 'line 2 of .*01/02/2023.*dates="%d/%m/%Y"'),
        (("1700000000000", "1700000001000"), "dates='milliseconds'"),
    ],
)
def test_times_with_two_readings_are_refused_with_their_line(tmp_path, times, message, lines):
    name = "interactions.jsonl" if lines else "interactions.csv"
    message = message.replace("line 3", "line 2").replace("line 2", "line 1", 1) if lines else message
    with pytest.raises(ValueError, match=message):
        shop(tmp_path, dated(*times, lines=lines), name=name)


def test_an_option_says_how_times_are_read(tmp_path):
    tables = shop(tmp_path, dated("02/01/2023", "01/02/2023"), dates="%d/%m/%Y")
    assert tables.interactions["item_id"].to_list() == ["00", "01"]
    tables = shop(tmp_path, dated("02/01/2023", "01/02/2023"), dates="%m/%d/%Y")
    assert tables.interactions["item_id"].to_list() == ["01", "00"]


def test_json_lines_of_any_types_are_read_by_our_types(tmp_path):
    rows = [
        '{"user_id": 7, "item_id": "00", "rating": "4.5", "timestamp": 1700000000.0, "review": null}',
        "",
        '{"user_id": "7", "item_id": "01", "rating": null, "timestamp": "1700000001", "extra": {"a": 1}}',
        '{"user_id": "7", "item_id": "02", "rating": NaN, "timestamp": 1700000002, "review": "ok"}',
    ]
    (tmp_path / "items.jsonl").write_text(
        '{"item_id": "00", "title": "A", "aspects": ["Soft", null], "stock": 3, "tags": ["x"]}\n'
        '{"item_id": "01", "title": "B", "aspects": "soft; warm", "stock": null}\n'
        '{"item_id": "02", "title": "C", "stock": 4, "tags": []}\n'
    )
    (tmp_path / "interactions.jsonl").write_text("\n".join(rows))
    tables = read_source("table", tmp_path, min_user=1)
    assert tables.interactions["rating"].to_list() == [4.5, None, None]
    assert tables.interactions["user_id"].unique().to_list() == ["7"]
    assert tables.items["aspects"].to_list() == [["soft"], ["soft", "warm"], []]
    assert tables.items["stock"].to_list() == [3, None, 4]
    assert tables.items["tags"].to_list() == [["x"], None, []]
    (tmp_path / "interactions.jsonl").write_text("\n".join([*rows, rows[0].replace("4.5", "good")]))
    with pytest.raises(ValueError, match="'rating': line 5 of interactions.jsonl holds 'good', which is not a number"):
        read_source("table", tmp_path, min_user=1)


def test_columns_of_ones_own_have_the_type_of_their_text(tmp_path):
    items = "item_id,title,stock,price,code,sold,kind\n00,A,3,2.5,007,true,mug\n01,B,,1,8,false,\n"
    frame = shop(tmp_path, "user_id,item_id\nu,00\nu,01\n", items).items
    assert frame.select("stock", "price", "code", "sold", "kind").rows() == [
        (3, 2.5, "007", True, "mug"),
        (None, 1.0, "8", False, None),
    ]


def test_a_damaged_parquet_file_is_named(tmp_path):
    write(INTERACTIONS, tmp_path / "interactions.parquet")
    write(ITEMS, tmp_path / "items.parquet")
    whole = (tmp_path / "interactions.parquet").read_bytes()
    (tmp_path / "interactions.parquet").write_bytes(whole[:10] + b"\xff" * 60 + whole[70:])
    with pytest.raises(ValueError, match="interactions.parquet .*cannot be read as Parquet"):
        read_source("table", tmp_path)


def sequences(folder: Path, texts: bool) -> Path:
    (folder / "user_sequence.txt").write_text("\n".join(f"u{u} b c a d e" for u in range(6)) + "\n")
    if texts:
        (folder / "item_text.txt").write_text("".join(f"{i} acme{i} red wool {i}{i}{i}\n" for i in "abcd") + "e\n")
    return folder


def test_sequences_keep_their_order_and_their_words(tmp_path):
    tables = read_source("sequences", sequences(tmp_path, texts=True))
    assert tables.interactions["item_id"].to_list() == list("bcade") * 6
    assert tables.items["title"].to_list()[::4] == ["acmea red wool aaa", "untitled item"]
    assert tables.report.lines == 6 * 5 + 5


def test_sequences_without_texts_are_titled_by_their_ids(tmp_path):
    tables = read_source("sequences", sequences(tmp_path, texts=False) / "user_sequence.txt")
    assert tables.items["title"].to_list() == list("abcde")


def test_lines_that_are_not_utf8_are_malformed(tmp_path):
    folder = sequences(tmp_path, texts=False)
    with (folder / "user_sequence.txt").open("ab") as stream:
        stream.write(b"caf\xe9 b c a d e\n")
    with pytest.raises(ValueError, match=r"1 of 7 lines .*1 lines that are not UTF-8 .*\[7\]"):
        read_source("sequences", folder)
    tables = read_source("sequences", folder, max_malformed=0.2)
    assert tables.report.examples["lines that are not UTF-8"] == ("user_sequence.txt:7",)


def test_words_that_titles_share_are_aspects_but_brands_are_not(tmp_path):
    items = [f"i{n:02d}" for n in range(12)]
    (tmp_path / "user_sequence.txt").write_text("\n".join(f"u{u} " + " ".join(items) for u in range(5)))
    (tmp_path / "item_text.txt").write_text("".join(f"{i} acme red wool good x{i}\n" for i in items))
    aspects = read_source("sequences", tmp_path).items["aspects"].to_list()
    assert aspects == [["red", "wool"]] * 12


def test_a_first_line_that_is_no_json_names_no_columns(tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu,i\nu,j\nu,k\n")
    lines = ['{"item_id": "i", "ti\x06tle": "Mug"}', *(f'{{"item_id": "{name}", "title": "Cup"}}' for name in "ijk")]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    tables = read_source("table", tmp_path, max_malformed=0.5)
    assert tables.items["item_id"].to_list() == ["i", "j", "k"]
    assert tables.report.malformed == {"lines that are not records": 1}


def test_errors_show_the_beginning_of_long_names_and_values(tmp_path):
    names = ";".join(["user_id", "x" * 5_000, *(f"column {n}" for n in range(300))])
    (tmp_path / "interactions.csv").write_text(f"{names}\n")
    (tmp_path / "items.csv").write_text("item_id,title\ni,Mug\n")
    with pytest.raises(ValueError, match=r"and 282 more\) and no rows") as error:
        read_source("table", tmp_path)
    assert len(str(error.value)) < 1_000
    (tmp_path / "interactions.csv").write_text("user_id,item_id,rating\nu,i," + "9" * 5_000 + "\n")
    with pytest.raises(ValueError, match="holds '9999.*999...', which") as error:
        read_source("table", tmp_path)
    assert len(str(error.value)) < 400
