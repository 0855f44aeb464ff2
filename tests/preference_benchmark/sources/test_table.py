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
        ("interactions.csv", b'user_id,item_id\n1,2\n"3,4,5\n6,7,8,9\n', "cannot be read as its ending says"),
        ("interactions.csv.gz", gzip.compress(b"user_id,item_id\n" * 999)[:40], "truncated gzip"),
        (
            "interactions.csv",
            b"user_id,item_id,review\n1,01,fine\n1,02,caf\xe9\n",
            r"line 3 of .*interactions.csv is not utf-8 \(byte 0xe9\); convert .*iconv",
        ),
        (
            "interactions.jsonl",
            b'{"user_id": "1", "item_id": "01"}\n{"user_id": "caf\xe9", "item_id": "01"}\n',
            r"1 of 2 lines .*\(first: \[2\]\).*1 of them are not UTF-8; convert",
        ),
        (
            "interactions.csv",
            b"user_id,item_id,timestamp\n1,01,1400000000\n1,02,1400086400000\n",
            r"'timestamp' mixes units: row 0 holds 1400000000 \(2014-05-13 in seconds\), row 1 .*Bring all",
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


def sequences(folder: Path, texts: bool) -> Path:
    (folder / "user_sequence.txt").write_text("\n".join(f"u{u} b c a d e" for u in range(6)) + "\n")
    if texts:
        (folder / "item_text.txt").write_text("".join(f"{i} acme{i} red wool {i}{i}{i}\n" for i in "abcd") + "e\n")
    return folder


def test_sequences_keep_their_order_and_their_words(tmp_path):
    tables = read_source("sequences", sequences(tmp_path, texts=True))
    assert tables.interactions["item_id"].to_list() == list("bcade") * 6
    assert tables.items["title"].to_list()[::4] == ["acmea red wool aaa", "untitled item"]
    assert tables.report.lines == 6 + 5


def test_sequences_without_texts_are_titled_by_their_ids(tmp_path):
    tables = read_source("sequences", sequences(tmp_path, texts=False) / "user_sequence.txt")
    assert tables.items["title"].to_list() == list("abcde")


def test_lines_that_are_not_utf8_are_malformed(tmp_path):
    folder = sequences(tmp_path, texts=False)
    with (folder / "user_sequence.txt").open("ab") as stream:
        stream.write(b"caf\xe9 b c a d e\n")
    with pytest.raises(ValueError, match=r"1 of 7 lines .*\[7\].*1 of them are not UTF-8"):
        read_source("sequences", folder)
    tables = read_source("sequences", folder, max_malformed=0.2)
    assert tables.report.malformed_lines == ("user_sequence.txt:7",)


def test_words_that_titles_share_are_aspects_but_brands_are_not(tmp_path):
    items = [f"i{n:02d}" for n in range(12)]
    (tmp_path / "user_sequence.txt").write_text("\n".join(f"u{u} " + " ".join(items) for u in range(5)))
    (tmp_path / "item_text.txt").write_text("".join(f"{i} acme red wool good x{i}\n" for i in items))
    aspects = read_source("sequences", tmp_path).items["aspects"].to_list()
    assert aspects == [["red", "wool"]] * 12
