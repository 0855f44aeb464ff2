"""Amazon files: with metadata, without it, and with nothing of the evaluated reviews in an item's text."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from preference_benchmark.sources import item_text as item_terms
from preference_benchmark.sources import read_source

NOUNS = "cable strap pedal tuner stand drum bow reed mute case string pick".split()


def review(user: int, item: int, day: int, summary: str, text: str, **more: object) -> dict:
    return {
        "reviewerID": f"U{user}",
        "asin": f"B{item:03d}",
        "overall": 1.0 + (user + item) % 5,
        "unixReviewTime": 1_400_000_000 + day * 86_400,
        "summary": summary,
        "reviewText": text,
        **more,
    }


def reviews(users: int = 12, items: int = 12, per_user: int = 8) -> list[dict]:
    """Every review holds one word that no other review has, so that a leak shows."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        for day, item in enumerate(rng.permutation(items)[:per_user]):
            noun, only = NOUNS[item], "".join(rng.choice(list("abcdefghijklmnop"), 9))
            rows.append(review(user, int(item), day, f"Sum{only} {noun}", f"The velvet {noun} of{only} and {noun}."))
    return rows


def write(path: Path, records: list, render=json.dumps) -> Path:
    path.write_bytes(gzip.compress("\n".join(render(r) for r in records).encode()))
    return path


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_an_item_without_metadata_is_described_by_the_training_period_alone(tmp_path):
    write(tmp_path / "reviews_Tools_5.json.gz", reviews())
    tables = read_source("amazon2014", tmp_path, min_user=3, min_item=3)
    training = tables.training_period()
    assert 0 < training.height == tables.interactions.height - 2 * 12
    for item in tables.items.iter_rows(named=True):
        known = words(" ".join(training.filter(pl.col("item_id") == item["item_id"])["review"]))
        said = words(" ".join([item["title"], item["text"], *item["aspects"]]))
        assert said <= known
        summaries = {word for word in known if word.startswith("sum") and word != "sum"}
        assert summaries <= words(item["text"])  # the training period is used in full


@pytest.mark.parametrize("chunk", [1, 7, 50_000])
def test_terms_do_not_depend_on_how_many_texts_are_held_at_a_time(monkeypatch, chunk):
    said = [f"A {NOUNS[n % 12]} and warm {NOUNS[n % 5]} {NOUNS[n % 7]}. Fender {NOUNS[n % 3]}?" for n in range(60)]
    texts = pl.DataFrame({"item_id": [f"B{n % 6}" for n in range(60)], "text": said})
    expected = item_terms.term_counts(texts).sort("item_id", "term")
    monkeypatch.setattr(item_terms, "_CHUNK", chunk)
    assert item_terms.term_counts(texts).sort("item_id", "term").equals(expected) and expected.height > 20
    assert item_terms.term_counts(texts.clear()).is_empty()


def test_real_items_are_described_by_the_training_period_alone(real_data):
    tables = read_source("amazon2014", real_data / "amazon2014_musical_instruments")
    known = dict(tables.training_period().group_by("item_id").agg(pl.col("review").str.join(" ")).iter_rows())
    unreviewed = 0
    for item in tables.items.iter_rows(named=True):
        assert 0 < len(item["title"].split()) <= 8
        if item["item_id"] not in known:
            unreviewed += 1
            assert (item["title"], item["aspects"]) == ("Item without reviews", [])
            continue
        assert words(" ".join([item["title"], item["text"], *item["aspects"]])) <= words(known[item["item_id"]])
    assert unreviewed == tables.report.notes["of these without a review in the training period"] == 9
    shared = tables.items["aspects"].explode().drop_nulls().value_counts()
    assert shared["count"].median() >= 2  # aspects generalise over items
    assert not {"great", "love", "good", "fender", "the"} & set(shared["aspects"])


def test_reviews_without_any_text_still_make_a_table(tmp_path):
    silent = [{**row, "summary": None, "reviewText": None} for row in reviews()]
    write(tmp_path / "reviews_Tools_5.json.gz", silent)
    tables = read_source("amazon2014", tmp_path, min_user=3, min_item=3)
    assert set(tables.items["title"]) == {"Item without reviews"}
    assert set(tables.interactions["review"]) == {""}


def test_2014_metadata_are_literals_with_nested_categories(tmp_path):
    write(tmp_path / "reviews_Tools_5.json.gz", reviews())
    metadata = [
        {
            "asin": f"B{n:03d}",
            "title": f"Acme {NOUNS[n]} &amp;amp; &quot;more&quot;",
            "price": 9.5,
            "brand": "Acme",
            "categories": [["Instruments", "Acme Gear", "Loud" if n % 2 else "Quiet"]],
        }
        for n in range(11)  # the last item has none
    ]
    write(tmp_path / "meta_Tools.json.gz", metadata, repr)
    tables = read_source("amazon2014", tmp_path, min_user=3, min_item=3)
    first = tables.items.row(0, named=True)
    assert first["title"] == 'Acme cable & "more"'
    assert first["text"] == (
        'Title: Acme cable & "more". Price: $9.5. Brand: Acme. Categories: Instruments, Acme Gear, Quiet'
    )
    # No brands, and nothing that (nearly) every item has.
    assert first["aspects"] == ["quiet"]
    assert tables.report.notes["items without metadata"] == 1
    last = tables.items.row(11, named=True)
    assert last["title"].lower().startswith("pick") or "pick" in last["text"].lower()


def test_2018_metadata_are_json_with_what_is_absent_left_empty(tmp_path):
    write(tmp_path / "Tools_5.json.gz", [{**r, "style": {"Size:": " S"}, "verified": True} for r in reviews()])
    metadata = [
        {
            "asin": f"B{n:03d}",
            "title": f"{NOUNS[n]}",
            "price": "$1.00" if n % 2 else ".a-box{color:red}",
            "brand": "",
            "category": ["Instruments", "Loud" if n % 2 else "Quiet"],
            "feature": ["Free shipping", "Solid oak"] if n < 4 else [],
        }
        for n in range(12)
    ]
    write(tmp_path / "meta_Tools.json.gz", metadata)
    items = read_source("amazon2018", tmp_path, min_user=3, min_item=3).items
    assert items["aspects"][:2].to_list() == [["quiet", "solid oak"], ["loud", "solid oak"]]
    assert items["text"][0] == "Title: cable. Categories: Instruments, Quiet. Features: Free shipping; Solid oak"
    assert items["price"][:2].to_list() == [None, "$1.00"]


def test_reviews_are_unescaped_and_joined_with_their_summary(tmp_path):
    rows = reviews()
    rows[0] = review(0, 0, 0, "Don&#39;t", "It&amp;#34;s <br />  bad &eacute;")
    rows = [r for r in rows[1:] if (r["reviewerID"], r["asin"]) != ("U0", "B000")] + [rows[0]]
    write(tmp_path / "reviews_Tools_5.json.gz", rows)
    tables = read_source("amazon2014", tmp_path / "reviews_Tools_5.json.gz", min_user=3, min_item=3)
    mine = tables.interactions.filter(pl.col("user_id") == "U0", pl.col("item_id") == "B000")
    assert mine["review"].to_list() == ["Don't. It\"s bad é"]


def test_metadata_of_another_category_are_refused(tmp_path):
    write(tmp_path / "reviews_Tools_5.json.gz", reviews())
    other = write(tmp_path / "meta_Other.json.gz", [{"asin": "X1", "title": "x"}], repr)
    with pytest.raises(ValueError, match=r"meta_Other.*about any of the 12 ids.*another category"):
        read_source("amazon2014", tmp_path, metadata=other)


def test_metadata_that_describe_nearly_nothing_are_refused(tmp_path):
    many = [r | {"asin": f"{r['asin']}{r['unixReviewTime'] % 7}"} for r in reviews(users=40)]
    ids = sorted({r["asin"] for r in many})
    write(tmp_path / "reviews_Tools_5.json.gz", many)
    metadata = [{"asin": asin, "title": "x"} for asin in (*ids[:2], "other")]
    write(tmp_path / "meta_Tools.json.gz", metadata, repr)
    with pytest.raises(ValueError, match=rf"meta_Tools.* describes only 2 of the {len(ids)} items.*another category"):
        read_source("amazon2014", tmp_path, min_user=1, min_item=1)


@pytest.mark.parametrize(("source", "prefix"), [("amazon2014", "reviews_"), ("amazon2018", "")])
def test_complete_files_are_read_where_there_is_no_five_core(tmp_path, source, prefix):
    render = repr if source == "amazon2014" else json.dumps
    write(tmp_path / f"{prefix}Tools.json.gz", reviews())
    write(tmp_path / "meta_Tools.json.gz", [{"asin": f"B{n:03d}", "title": f"Tool {n}"} for n in range(12)], render)
    tables = read_source(source, tmp_path, min_user=3, min_item=3)
    assert tables.report.files == (f"{prefix}Tools.json.gz", "meta_Tools.json.gz")
    assert tables.items["title"][0] == "Tool 0"


@pytest.mark.parametrize("render", [json.dumps, repr])
def test_bytes_that_are_not_utf8_are_counted_as_malformed(tmp_path, render):
    write(tmp_path / "reviews_Tools_5.json.gz", reviews())
    lines = [render({"asin": f"B{n:03d}", "title": f"Tool {n}"}).encode() for n in range(12)]
    lines[4] = lines[4].replace(b"Tool", b"T\xf6\xf6l")
    (tmp_path / "meta_Tools.json").write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"1 of 12 lines of .*meta_Tools.*1 lines that are not UTF-8 .*\[5\].*Convert"):
        read_source("amazon2014", tmp_path, min_user=3, min_item=3)
    tables = read_source("amazon2014", tmp_path, min_user=3, min_item=3, max_malformed=0.1)
    assert tables.report.examples["lines that are not UTF-8"] == ("meta_Tools.json:5",)
    assert tables.report.notes["items without metadata"] == 1


def test_lines_without_ids_are_counted(tmp_path):
    write(tmp_path / "reviews_Tools_5.json.gz", [*reviews(), {"overall": 3.0}, {"reviewerID": "U1", "overall": 3.0}])
    dropped = read_source("amazon2014", tmp_path, min_user=3, min_item=3).report.dropped
    assert (dropped["interactions without a user id"], dropped["interactions without an item id"]) == (1, 1)


def test_values_that_make_no_sense_are_counted_by_line(tmp_path):
    odd = [
        {"overall": "x"},
        {"overall": 1e26},
        {"overall": float("nan")},
        {"overall": [5]},
        {"unixReviewTime": 1e30},
        {"unixReviewTime": float("inf")},
        {"unixReviewTime": "yesterday"},
        {"reviewerID": ["U1"]},
        {"asin": None},
    ]
    rows = [review(0, n, 3, "sum", "text") | change for n, change in enumerate(odd)]
    write(tmp_path / "reviews_Tools_5.json.gz", [*reviews(), *rows])
    report = read_source("amazon2014", tmp_path, min_user=3, min_item=3, max_malformed=0.2).report
    assert report.malformed == {
        "lines whose overall is not a number": 2,
        "lines whose overall is outside 1-5": 1,
        "lines whose unixReviewTime is outside 1e+08-1e+11": 2,
        "lines whose unixReviewTime is not a number": 1,
        "lines whose reviewerID is neither text nor a number": 1,
    }
    assert report.dropped["interactions without an item id"] == 1
    assert report.examples["lines whose overall is outside 1-5"] == ("reviews_Tools_5.json.gz:98",)
