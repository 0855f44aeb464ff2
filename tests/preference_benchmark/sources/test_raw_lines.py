"""Raw files are read whole or refused with their fault named; malformed lines are found by number."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import polars as pl
import pytest

from preference_benchmark.sources import raw_files
from preference_benchmark.sources.raw_lines import LINE, Number, field_names, read_records, read_words

SCHEMA = {"name": pl.String, "price": pl.Float64, "tags": pl.List(pl.String)}


def records(count: int) -> list[dict]:
    return [{"name": f"n{n}", "price": n / 2, "tags": ["a", f"t{n}"], "other": None} for n in range(count)]


def write(path: Path, lines: list[str], compress: bool) -> Path:
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if compress else data)
    return path


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("render", [json.dumps, repr])
@pytest.mark.parametrize("block", [1 << 26, 100])
def test_json_and_literals_plain_and_compressed_give_the_same_rows(tmp_path, monkeypatch, compress, render, block):
    monkeypatch.setattr(raw_files, "_BLOCK", block)
    raw = read_records(write(tmp_path / "f", [render(r) for r in records(20)], compress), SCHEMA, ("name",))
    assert raw.frame.to_dicts() == [{k: r[k] for k in SCHEMA} for r in records(20)]
    assert (raw.count.lines, raw.count.malformed.total()) == (20, 0)


@pytest.mark.parametrize("render", [json.dumps, repr])
@pytest.mark.parametrize("block", [1 << 26, 100])
def test_malformed_lines_are_left_out_counted_and_named(tmp_path, monkeypatch, render, block):
    monkeypatch.setattr(raw_files, "_BLOCK", block)
    lines = [render(r) for r in records(300)]
    lines[7], lines[150] = lines[7][:12], "[1, 2]"
    lines.insert(3, "")
    raw = read_records(write(tmp_path / "f.json.gz", lines, True), SCHEMA, ("name",))
    assert raw.frame["name"].to_list() == [f"n{n}" for n in range(300) if n not in (7, 150)]
    assert raw.count.malformed == {"lines that are not records": 2} and raw.count.lines == 300
    assert raw.count.examples == {"lines that are not records": ("f.json.gz:9", "f.json.gz:152")}


def test_records_put_on_disk_are_the_same_in_the_same_order(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "_BLOCK", 700)
    lines = [json.dumps(r) for r in records(300)]
    lines[30] = lines[30][:9]
    path, spool = write(tmp_path / "f.json", lines, False), tmp_path / "spool"
    spool.mkdir()
    whole = read_records(path, SCHEMA, ("name",))
    raw = read_records(path, SCHEMA, ("name",), spool=spool)
    assert isinstance(raw.frame, pl.LazyFrame) and raw.frame.collect().equals(whole.frame)
    assert (raw.count.lines, raw.count.examples) == (whole.count.lines, whole.count.examples)
    assert len(list(spool.iterdir())) > 5


def test_too_many_malformed_lines_are_refused(tmp_path):
    path = write(tmp_path / "f.json", [json.dumps(r) for r in records(50)] + ["{broken"] * 2, False)
    with pytest.raises(
        ValueError, match=r"2 of 52 lines .*max_malformed=0.01: 2 lines that are not records .*\[51, 52\]"
    ):
        read_records(path, SCHEMA, ("name",))
    assert read_records(path, SCHEMA, ("name",), max_malformed=0.1).count.malformed.total() == 2


def test_literals_are_never_executed(tmp_path):
    lines = [repr(r) for r in records(3)] + ["{'name': __import__('os').getcwd()}"]
    raw = read_records(write(tmp_path / "f", lines, False), SCHEMA, ("name",), max_malformed=0.5)
    assert raw.count.examples == {"lines that are not records": ("f:4",)}


def test_values_of_another_type_are_read_where_they_have_one_reading(tmp_path):
    lines = [
        '{"name": "a", "price": "2.5"}',
        '{"name": 3, "price": 1}',
        '{"name": 4.0, "price": "N/A", "tags": "one"}',
        '{"name": true, "price": NaN, "tags": ""}',
        '{"name": "half \\ud800", "tags": ["x", 1, null]}',
    ]
    frame = read_records(write(tmp_path / "f", lines, False), SCHEMA, ("name",)).frame
    assert frame["name"].to_list() == ["a", "3", "4", "true", "half ?"]
    assert frame["price"].to_list() == [2.5, 1.0, None, None, None]
    assert frame["tags"].to_list() == [None, None, ["one"], [], ["x", "1", None]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"name": "a", "price": "x"}', "lines whose price is not a number"),
        ('{"name": "a", "price": [1]}', "lines whose price is not a number"),
        ('{"name": "a", "price": true}', "lines whose price is not a number"),
        ('{"name": "a", "price": 1e26}', "lines whose price is outside 0-1000"),
        ('{"name": "a", "price": 1e999}', "lines whose price is outside 0-1000"),
        ('{"name": "a", "price": -1}', "lines whose price is outside 0-1000"),
        ('{"name": "a", "when": 1.5}', "lines whose when is not a whole number"),
        ('{"name": "a", "when": Infinity}', "lines whose when is outside 0-1e+11"),
        ('{"name": ["a"]}', "lines whose name is neither text nor a number"),
        ('{"name": {"a": 1}}', "lines whose name is neither text nor a number"),
        ('{"name": "a", "name": "b"}', "lines that are not records"),
        ('{"name": "a", "tags": {"b": 1}}', "lines whose tags is not a list"),
        ('{"name": "a", "tags": 5}', "lines whose tags is not a list"),
        ('{"name": "a", "sold": "yes"}', "lines whose sold is neither true nor false"),
        ('{"name": "a"} trailing', "lines that are not records"),
        ("null", "lines that are not records"),
        ('["name", "a"]', "lines that are not records"),
        ('{"name": "caf\udce9"}', "lines that are not UTF-8"),
    ],
)
@pytest.mark.parametrize("before", [0, 200])
def test_a_value_without_a_reading_makes_its_line_malformed(tmp_path, line, reason, before):
    schema = SCHEMA | {"price": Number(0, 1_000), "when": Number(0, 1e11, whole=True), "sold": pl.Boolean}
    lines = [json.dumps({"name": f"n{n}", "price": 1, "when": n, "sold": True}) for n in range(before)]
    path = tmp_path / "f.json"
    path.write_bytes("\n".join([*lines, line, '{"name": "last"}']).encode("utf-8", "surrogateescape"))
    raw = read_records(path, schema, ("name",), max_malformed=1)
    assert raw.frame["name"].to_list() == [*(f"n{n}" for n in range(before)), "last"]
    assert raw.count.malformed == {reason: 1} and raw.count.lines == before + 2
    assert raw.count.examples == {reason: (f"f.json:{before + 1}",)}
    with pytest.raises(ValueError, match=rf"1 {re.escape(reason)} \(first: \[{before + 1}\]\)"):
        read_records(path, schema, ("name",), max_malformed=0)


def test_malformed_entries_of_a_list_are_left_out_and_counted(tmp_path):
    schema = {"user": pl.String, "reviews": pl.List(pl.Struct({"item": pl.String, "liked": pl.Boolean}))}
    lines = [
        '{"user": "a", "reviews": [{"item": 1, "liked": true}, {"item": "2", "liked": "yes"}, 7, null]}',
        '{"user": "b", "reviews": "none"}',
        '{"user": "c", "reviews": [{"item": "3"}]}',
    ]
    raw = read_records(write(tmp_path / "f", lines, False), schema, ("user",), max_malformed=1)
    assert raw.frame["reviews"].to_list() == [
        [{"item": "1", "liked": True}, None, None, None],
        [{"item": "3", "liked": None}],
    ]
    assert raw.count.malformed == {
        "reviews whose liked is neither true nor false": 1,
        "reviews that are not records": 1,
        "lines whose reviews is not a list": 1,
    }
    assert raw.count.entries == 2


@pytest.mark.parametrize("block", [1 << 26, 100])
def test_lines_are_numbered_on_request(tmp_path, monkeypatch, block):
    monkeypatch.setattr(raw_files, "_BLOCK", block)
    lines = [json.dumps({"name": f"n{n}"}) for n in range(90)]
    lines[4:4], lines[50] = ["", "  "], "{broken"
    raw = read_records(write(tmp_path / "f", lines, True), SCHEMA, max_malformed=0.1, numbered=True)
    numbers = dict(raw.frame.select("name", LINE).iter_rows())
    assert numbers == {json.loads(line)["name"]: n + 1 for n, line in enumerate(lines) if line.startswith('{"')}


def test_all_fields_of_any_record_are_named(tmp_path):
    lines = ['{"a": 1}', '{"b": [2], "a": "x"}', "{broken", '{"c": {"d": 1}}']
    assert sorted(field_names(write(tmp_path / "f", lines, False))) == ["a", "b", "c"]
    assert sorted(field_names(write(tmp_path / "f", lines[:2], False))) == ["a", "b"]
    assert sorted(field_names(write(tmp_path / "f", ["{'a': True}", "{'b': None}"], False))) == ["a", "b"]


@pytest.mark.parametrize("read", [lambda p: read_records(p, SCHEMA), lambda p: read_words(p, fewest=2)])
def test_empty_truncated_and_damaged_files(tmp_path, read):
    empty = tmp_path / "empty.json"
    for content in (b"", b"\n \n", gzip.compress(b"")):
        empty.write_bytes(content)
        with pytest.raises(ValueError, match=r"empty\.json is empty; download it again"):
            read(empty)
    whole = gzip.compress("\n".join(json.dumps(r) for r in records(2000)).encode())
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.json\.gz is a truncated gzip file.*download it again"):
        read(cut)
    cut.write_bytes(whole[:200] + b"\xff" * 200 + whole[400:])
    with pytest.raises(ValueError, match=r"cut\.json\.gz is a damaged gzip file.*download it again"):
        read(cut)


@pytest.mark.parametrize("read", [lambda p: read_records(p, SCHEMA), lambda p: read_words(p, fewest=2)])
def test_binary_files_are_named_for_what_they_are(tmp_path, read):
    parquet = tmp_path / "reviews.json.gz"
    pl.DataFrame({"a": [1]}).write_parquet(parquet)
    with pytest.raises(ValueError, match="reviews.json.gz is a Parquet file; expected"):
        read(parquet)
    parquet.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(ValueError, match="is a zip archive"):
        read(parquet)
    parquet.write_bytes(b"abc\x00\x01\x02\n" * 9)
    with pytest.raises(ValueError, match="is a binary file"):
        read(parquet)


def test_csv_given_as_json_lines_shows_what_was_found(tmp_path):
    path = write(tmp_path / "reviews.json", ["user_id,item_id,rating", "u1,i1,5"], False)
    with pytest.raises(ValueError, match=r"another format: expected one JSON object.*'user_id,item_id,rating'"):
        read_records(path, SCHEMA)


def test_a_file_of_other_records_is_refused_with_its_fields(tmp_path):
    path = write(tmp_path / "f", ['{"title": "x", "brand": "y"}'], False)
    with pytest.raises(ValueError, match=r"no record .* has the field 'name'.*\['title', 'brand'\]"):
        read_records(path, SCHEMA, ("name",))


@pytest.mark.parametrize("render", [json.dumps, repr])
def test_lines_about_other_ids_are_skipped(tmp_path, render):
    lines = [render(r) for r in records(30)] + ["{no id here"]
    only = (r"""['"]name['"]: ['"](\w+)['"]""", pl.Series(["n3", "n12"]))
    raw = read_records(write(tmp_path / "f", lines, True), SCHEMA, ("name",), only=only, max_malformed=0.1)
    assert raw.frame["name"].to_list() == ["n3", "n12"]
    assert raw.count.examples == {"lines that are not records": ("f:31",)}
    assert (raw.count.lines, raw.count.others) == (31, 28)


def test_short_lines_of_words_are_malformed(tmp_path):
    path = write(tmp_path / "s.txt.gz", ["u1 a b", "", "u2", "u3\tc"], True)
    with pytest.raises(ValueError, match=r"1 of 3 lines .*1 lines with fewer than 2 words .*\[3\]"):
        read_words(path, fewest=2)
    raw = read_words(path, fewest=2, max_malformed=0.5)
    assert raw.frame["words"].to_list() == [["u1", "a", "b"], ["u3", "c"]]
    path.write_text('{"json": 1}\n')
    with pytest.raises(ValueError, match="holds JSON records; expected lines of words"):
        read_words(path, fewest=2)
