"""Files with random faults are read, or refused in one sentence; no line is lost, and no traceback comes of it.

Every source has a small valid data set. A mutation changes bytes, fields, quotes, types or lengths in one of its
files; then the source is read. A ReadReport checks itself when it is made, so a line that is not accounted for raises
a RuntimeError here. `pytest -m torture` runs it on 10^5 mutated lines.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from preference_benchmark.sources import SOURCES, read_source

USERS, ITEMS, PER_USER = 8, 7, 5
DAY, FIRST = 86_400, 1_400_000_000
Files = dict[str, bytes]
pairs = [(user, (user + step) % ITEMS, step) for user in range(USERS) for step in range(PER_USER)]


def lines(records: list, render: Callable = json.dumps) -> bytes:
    return "\n".join(render(record) for record in records).encode() + b"\n"


def amazon(year: int) -> Files:
    reviews = [
        {
            "reviewerID": f"A{user}",
            "asin": f"B{item:03d}",
            "helpful": [0, 1],
            "reviewText": f'A "velvet" drum, café {user}.\nIt\'s fine',
            "overall": 1.0 + step,
            "summary": f"Drum {item}",
            "unixReviewTime": FIRST + DAY * step,
        }
        for user, item, step in pairs
    ]
    kind = {"categories": [["Music", "Drums"]], "price": 9.5} if year == 2014 else {"category": ["Music", "Drums"]}
    metadata = [{"asin": f"B{n:03d}", "title": f"Drum {n}", "brand": "", "feature": ["Oak"], **kind} for n in range(9)]
    reviews_file = "reviews_Drums_5.json" if year == 2014 else "Drums_5.json"
    return {reviews_file: lines(reviews), "meta_Drums.json": lines(metadata, repr if year == 2014 else json.dumps)}


def amazon2023() -> Files:
    reviews = [
        {
            "rating": 1.0 + step,
            "title": "Good",
            "text": f"Velvet {user}",
            "parent_asin": f"B{item:03d}",
            "user_id": f"A{user}",
            "timestamp": 1_000 * (FIRST + DAY * step),
        }
        for user, item, step in pairs
    ]
    details = {"Material": "Maple"}
    metadata = [
        {"title": f"Drum {n}", "features": ["Oak"], "price": 9.99, "parent_asin": f"B{n:03d}", "details": details}
        for n in range(9)
    ]
    return {"Drums.jsonl": lines(reviews), "meta_Drums.jsonl": lines(metadata)}


def amazon2023_parquet() -> Files:
    files = {}
    for name, data in amazon2023().items():
        frame = pl.read_ndjson(data)
        if "details" in frame.columns:
            frame = frame.with_columns(pl.col("details").struct.json_encode(), pl.col("price").cast(pl.String))
        stream = io.BytesIO()
        frame.write_parquet(stream)
        files[name.replace("jsonl", "parquet")] = stream.getvalue()
    return files


def steam() -> Files:
    users = [
        {
            "user_id": f"u{user}",
            "reviews": [
                {
                    "item_id": str(item),
                    "posted": f"Posted July {step + 1}, 2014.",
                    "recommend": step > 0,
                    "review": 'It\'s "fun"',
                }
                for other, item, step in pairs
                if other == user
            ],
        }
        for user in range(USERS)
    ]
    return {"australian_user_reviews.json": lines(users, repr), "steam_games.json": games()}


def games() -> bytes:
    fields = {"genres": ["Indie", "Action"], "tags": ["Fun"], "specs": [], "price": 4.99, "publisher": "Loud & Co"}
    return lines([{"id": str(n), "app_name": f"Game {n}", **fields} for n in range(9)], repr)


def steam_reviews() -> Files:
    reviews = [
        {"username": f"Úser {user}", "product_id": str(item), "date": f"2017-12-0{step + 1}", "text": "nice"}
        for user, item, step in pairs
    ]
    return {"steam_reviews.json": lines(reviews, repr), "steam_games.json": games()}


def yelp() -> Files:
    reviews = [
        {
            "user_id": f"u{user}",
            "business_id": f"b{item}",
            "stars": 1.0 + step,
            "date": f"2019-0{step + 1}-07 22:09:11",
            "text": "Nice\n\nplace",
        }
        for user, item, step in pairs
    ]
    attributes = {"WiFi": "u'free'", "Ambience": "{'casual': True}"}
    businesses = [
        {
            "business_id": f"b{n}",
            "name": f"Diner {n}",
            "city": "Reno",
            "state": "NV",
            "attributes": attributes,
            "categories": "Burgers, Fast Food",
        }
        for n in range(9)
    ]
    return {
        "yelp_academic_dataset_review.json": lines(reviews),
        "yelp_academic_dataset_business.json": lines(businesses),
    }


def movielens(form: str) -> Files:
    ratings = [(user + 1, item + 1, step + 1, FIRST + DAY * step) for user, item, step in pairs]
    movies = [(n + 1, f"Heat, Part {n} (1995)", "Drama|War") for n in range(9)]
    tags = [(user, item, "slow burn", time) for user, item, _, time in ratings[::3]]
    if form == "latest":
        files = {}
        for name, names, rows in (
            ("ratings.csv", ["userId", "movieId", "rating", "timestamp"], ratings),
            ("movies.csv", ["movieId", "title", "genres"], movies),
            ("tags.csv", ["userId", "movieId", "tag", "timestamp"], tags),
        ):
            files[name] = pl.DataFrame(rows, schema=names, orient="row").write_csv().encode()
        return files
    if form == "100k":
        flags = "|".join("1" if n in (8, 17) else "0" for n in range(19))
        return {
            "u.data": lines(ratings, lambda row: "\t".join(map(str, row))),
            "u.item": lines(movies, lambda row: f"{row[0]}|{row[1]}|01-Jan-1995||http://x|{flags}"),
        }
    return {
        f"{name}.dat": lines(rows, lambda row: "::".join(map(str, row)))
        for name, rows in (("ratings", ratings), ("movies", movies), ("tags", tags))
    }


def movielens_zip() -> Files:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in movielens("1m").items():
            archive.writestr(f"ml-1m/{name}", data)
    return {"ml-1m.zip": stream.getvalue()}


def sequences() -> Files:
    histories = [
        " ".join([f"u{user}", *(f"i{item}" for other, item, _ in pairs if other == user)]) for user in range(USERS)
    ]
    texts = [f"i{n} acme red wool {n}" for n in range(9)]
    return {"user_sequence.txt": lines(histories, str), "item_text.txt": lines(texts, str)}


def own_tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    interactions = pl.DataFrame(
        [
            (
                f"u{user}",
                f"i{item}",
                f"2024-03-0{step + 1} 10:3{step}",
                str(1 + step),
                f'I "love" it, café {user}\nreally',
            )
            for user, item, step in pairs
        ],
        schema=["user_id", "item_id", "timestamp", "rating", "review"],
        orient="row",
    )
    items = pl.DataFrame(
        [(f"i{n}", f"Mug {n}", "red; oak" if n % 2 else "['blue', 'oak']", n) for n in range(9)],
        schema=["item_id", "title", "aspects", "stock"],
        orient="row",
    )
    return interactions, items


def own_csv(separator: str, encoding: str = "utf-8") -> Files:
    interactions, items = own_tables()
    return {
        "interactions.csv": interactions.write_csv(separator=separator).encode(encoding),
        "items.csv": items.write_csv(separator=separator).encode(encoding),
    }


def own_lines() -> Files:
    interactions, items = own_tables()
    return {"interactions.jsonl": interactions.write_ndjson().encode(), "items.jsonl": items.write_ndjson().encode()}


def own_parquet() -> Files:
    files = {}
    for name, frame in zip(("interactions", "items"), own_tables(), strict=True):
        stream = io.BytesIO()
        frame.write_parquet(stream)
        files[f"{name}.parquet"] = stream.getvalue()
    return files


DATA: dict[str, tuple[str, Callable[[], Files], dict]] = {
    "amazon2014": ("amazon2014", lambda: amazon(2014), {}),
    "amazon2018": ("amazon2018", lambda: amazon(2018), {}),
    "amazon2023": ("amazon2023", amazon2023, {}),
    "amazon2023-parquet": ("amazon2023", amazon2023_parquet, {}),
    "movielens-100k": ("movielens", lambda: movielens("100k"), {}),
    "movielens-1m": ("movielens", lambda: movielens("1m"), {}),
    "movielens-latest": ("movielens", lambda: movielens("latest"), {}),
    "movielens-zip": ("movielens", movielens_zip, {}),
    "sequences": ("sequences", sequences, {"unknown_items": "drop"}),
    "steam": ("steam", steam, {"undated": "last", "unlisted": "keep"}),
    "steam-reviews": ("steam-reviews", steam_reviews, {}),
    "table-csv": ("table", lambda: own_csv(","), {}),
    "table-semicolons": ("table", lambda: own_csv(";", "utf-16"), {}),
    "table-lines": ("table", own_lines, {}),
    "table-parquet": ("table", own_parquet, {}),
    "yelp": ("yelp", yelp, {"since": "2018-01-01"}),
}

ODD_VALUES = (
    *("", "null", "NaN", "N/A", "inf", "-inf", "1e400", "1e30", "99999999999999999999999", "-1", "0", "4,5", "1_0"),
    *(
        "true",
        "False",
        "None",
        "[]",
        "{}",
        "[1]",
        "[null]",
        '{"a": 1}',
        "['x']",
        '"x"',
        '"',
        "'",
        '""',
        "\\",
        "\\ud800",
    ),
    *("20231102", "45231", "2023", "1700000000000", "2023-11-14T22:13+02", "2023-02-30", "01/02/2023", "::", ";", "|"),
    *("\t", "\n", "\r", "\r\n", "\x00", "\x0b", "\ufeff", "\u2028", "é", "😀", "x" * 500, "[" * 60, "=1+1", "u''"),
)


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """A byte changed, taken out or put in; a piece doubled, taken out or moved; the end cut off."""
    start = draw.randrange(len(data) + 1)
    end = min(len(data), start + draw.choice((1, 1, 2, 8, 60)))
    junk = bytes(draw.randrange(256) for _ in range(draw.choice((1, 1, 2, 5))))
    return draw.choice(
        (
            lambda: data[:start] + junk + data[start + len(junk) :],
            lambda: data[:start] + junk + data[start:],
            lambda: data[:start] + data[end:],
            lambda: data[:end] + data[start:end] + data[end:],
            lambda: data[:start],
            lambda: data[:start] + draw.choice(ODD_VALUES).encode("utf-8", "surrogatepass") + data[start:],
        )
    )()


def mutate_fields(data: bytes, draw: random.Random) -> bytes:
    """A value of a line in place of another, or a line taken out, doubled, cut, joined or moved."""
    parts = data.split(b"\n")
    place = draw.randrange(len(parts))
    marks = [mark for mark in (b", ", b",", b";", b"\t", b"::", b"|", b": ", b" ", b"'", b'"') if mark in parts[place]]
    if marks and draw.random() < 0.7:
        mark = draw.choice(marks)
        fields = parts[place].split(mark)
        field = draw.randrange(len(fields))
        odd = draw.choice(ODD_VALUES).encode("utf-8", "surrogatepass")
        kept = draw.choice((odd, odd, odd, fields[draw.randrange(len(fields))], None))
        fields[field : field + 1] = [] if kept is None else [kept]
        parts[place] = mark.join(fields)
    else:
        other = parts[draw.randrange(len(parts))]
        parts[place : place + 1] = draw.choice(
            ([], [parts[place]] * 2, [parts[place][:7]], [parts[place] + other], [b"", other])
        )
    return b"\n".join(parts)


def mutate_record(data: bytes, draw: random.Random) -> bytes:
    """A value of a JSON record of any other type."""
    parts = data.split(b"\n")
    place = draw.randrange(len(parts))
    try:
        record = json.loads(parts[place])
        key = draw.choice(list(record))
    except (ValueError, TypeError, IndexError):
        return mutate_fields(data, draw)
    odd = (
        None,
        True,
        0,
        -1,
        10**26,
        1e30,
        float("nan"),
        float("inf"),
        "",
        "x",
        [],
        [1],
        [[]],
        {},
        {"a": [1]},
        "é\ud800",
    )
    record[key] = draw.choice(odd)
    parts[place] = json.dumps(record).encode()
    return b"\n".join(parts)


def mutated(files: Files, draw: random.Random) -> tuple[Files, int]:
    """The files with faults in one of them, and how many there are."""
    name = draw.choice(sorted(files))
    data, count = files[name], draw.choice((1, 1, 1, 2, 5))
    kinds = [mutate_bytes] if name.endswith((".parquet", ".zip")) else [mutate_bytes, mutate_fields, mutate_record]
    for _ in range(count):
        data = draw.choice(kinds)(data, draw)
    packed = not name.endswith((".parquet", ".zip")) and draw.random() < 0.05
    if packed:
        data = mutate_bytes(gzip.compress(data), draw) if draw.random() < 0.5 else gzip.compress(data)
    return files | {name: data}, count


def outcome(source: str, files: Files, folder: Path, options: dict) -> str:
    """What comes of reading the files: "read", or the kind of refusal; anything else is raised."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        tables = read_source(source, folder, min_user=1, min_item=1, **options)
    except (ValueError, OSError) as error:
        message = str(error)
        assert message and len(message) < 2_000 and "polars" not in message.lower(), message
        return "refused"
    report = tables.report
    total = sum(sum(counts.values()) for counts in (report.used, report.dropped, report.malformed))
    assert total == report.lines + report.added
    assert report.used["interactions"] == tables.interactions.height > 0
    return "read, with malformed lines" if report.malformed else "read"


def run(name: str, mutations: int, seed: int, folder: Path) -> Counter[str]:
    """Outcomes of so many mutated data sets; a failure shows the seed that repeats it."""
    source, make, options = DATA[name]
    files, found = make(), Counter()
    assert outcome(source, files, folder, options) == "read"
    for number in range(mutations):
        draw = random.Random(f"{name}-{seed}-{number}")
        changed, faults = mutated(files, draw)
        allowed = {"max_malformed": draw.choice((0.0, 0.01, 0.5, 1.0))}
        try:
            found[outcome(source, changed, folder, options | allowed)] += 1
        except BaseException as error:
            error.add_note(f"data {name}, seed {seed}, mutation {number}")
            raise
        found["lines with a fault"] += faults
    return found


def test_every_source_is_covered():
    assert {source for source, *_ in DATA.values()} == set(SOURCES) - {"corner-shop"}


@pytest.mark.parametrize("name", sorted(DATA))
def test_faults_are_counted_or_refused(tmp_path, name):
    found = run(name, 15, 0, tmp_path)
    assert found.total() - found["lines with a fault"] == 15


@pytest.mark.torture
@pytest.mark.parametrize("name", sorted(DATA))
def test_a_hundred_thousand_faults_are_counted_or_refused(tmp_path, name, capsys):
    found = run(name, 3_200, 1, tmp_path)
    with capsys.disabled():
        print(f"\n{name}: {dict(found)}")
    assert found["lines with a fault"] >= 100_000 / len(DATA)
