"""Files with random faults are read, or refused in one sentence; no line is lost, and no traceback comes of it.

Every source has a small valid data set. Either a few faults, of bytes, fields, quotes, types or lengths, are put into
one of its files; or many lines of its reviews get a fault each. Then the source is read. A ReadReport checks itself
when it is made, so a line that is not accounted for raises a RuntimeError here. Of many faulty lines it is checked as
well that the lines between them are read as if these were not there, and that what is read of a faulty line is what a
second parser reads in it. `tests/torture` does so with many more faults.
"""

from __future__ import annotations

import ast
import codecs
import csv
import gzip
import io
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from preference_benchmark.sources import SOURCES, read_source
from preference_benchmark.tables import Tables
from preference_benchmark.tables.columns import MISSING

USERS, MANY_USERS, ITEMS, PER_USER = 8, 400, 7, 5
DAY, FIRST, ITEM = 86_400, 1_400_000_000, 5_000  # ids of items are not odd values
Files = dict[str, bytes]


def purchases(users: int) -> list[tuple[int, int, int]]:
    """User, item and step of every purchase."""
    return [(user, ITEM + (user + step) % ITEMS, step) for user in range(users) for step in range(PER_USER)]


CATALOGUE = range(ITEM, ITEM + ITEMS + 2)


def lines(records: list, render: Callable = json.dumps) -> bytes:
    return "\n".join(render(record) for record in records).encode() + b"\n"


def amazon(year: int, users: int) -> Files:
    reviews = [
        {
            "reviewerID": f"A{user}",
            "asin": f"B{item}",
            "helpful": [0, 1],
            "reviewText": f'A "velvet" drum, café {user}.\nIt\'s fine',
            "overall": 1.0 + step,
            "summary": f"Drum {item}",
            "unixReviewTime": FIRST + DAY * step,
        }
        for user, item, step in purchases(users)
    ]
    kind = {"categories": [["Music", "Drums"]], "price": 9.5} if year == 2014 else {"category": ["Music", "Drums"]}
    metadata = [{"asin": f"B{n}", "title": f"Drum {n}", "brand": "", "feature": ["Oak"], **kind} for n in CATALOGUE]
    reviews_file = "reviews_Drums_5.json" if year == 2014 else "Drums_5.json"
    return {reviews_file: lines(reviews), "meta_Drums.json": lines(metadata, repr if year == 2014 else json.dumps)}


def amazon2023(users: int) -> Files:
    reviews = [
        {
            "rating": 1.0 + step,
            "title": "Good",
            "text": f"Velvet {user}",
            "parent_asin": f"B{item}",
            "user_id": f"A{user}",
            "timestamp": 1_000 * (FIRST + DAY * step),
        }
        for user, item, step in purchases(users)
    ]
    details = {"Material": "Maple"}
    metadata = [
        {"title": f"Drum {n}", "features": ["Oak"], "price": 9.99, "parent_asin": f"B{n}", "details": details}
        for n in CATALOGUE
    ]
    return {"Drums.jsonl": lines(reviews), "meta_Drums.jsonl": lines(metadata)}


def amazon2023_parquet(users: int) -> Files:
    files = {}
    for name, data in amazon2023(users).items():
        frame = pl.read_ndjson(data)
        if "details" in frame.columns:
            frame = frame.with_columns(pl.col("details").struct.json_encode(), pl.col("price").cast(pl.String))
        stream = io.BytesIO()
        frame.write_parquet(stream)
        files[name.replace("jsonl", "parquet")] = stream.getvalue()
    return files


def steam(users: int) -> Files:
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
                for other, item, step in purchases(users)
                if other == user
            ],
        }
        for user in range(users)
    ]
    return {"australian_user_reviews.json": lines(users, repr), "steam_games.json": games()}


def games() -> bytes:
    fields = {"genres": ["Indie", "Action"], "tags": ["Fun"], "specs": [], "price": 4.99, "publisher": "Loud & Co"}
    return lines([{"id": str(n), "app_name": f"Game {n}", **fields} for n in CATALOGUE], repr)


def steam_reviews(users: int) -> Files:
    reviews = [
        {"username": f"Úser {user}", "product_id": str(item), "date": f"2017-12-0{step + 1}", "text": "nice"}
        for user, item, step in purchases(users)
    ]
    return {"steam_reviews.json": lines(reviews, repr), "steam_games.json": games()}


def yelp(users: int) -> Files:
    reviews = [
        {
            "user_id": f"u{user}",
            "business_id": f"b{item}",
            "stars": 1.0 + step,
            "date": f"2019-0{step + 1}-07 22:09:11",
            "text": "Nice\n\nplace",
        }
        for user, item, step in purchases(users)
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
        for n in CATALOGUE
    ]
    return {
        "yelp_academic_dataset_review.json": lines(reviews),
        "yelp_academic_dataset_business.json": lines(businesses),
    }


def movielens(form: str, users: int) -> Files:
    ratings = [(user + 1, item, step + 1, FIRST + DAY * step) for user, item, step in purchases(users)]
    movies = [(n, f"Heat, Part {n} (1995)", "Drama|War") for n in CATALOGUE]
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


def movielens_zip(users: int) -> Files:
    return {"ml-1m.zip": zipped(movielens("1m", users))}


def zipped(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"ml-1m/{name}", data)
    return stream.getvalue()


def sequences(users: int) -> Files:
    histories = [
        " ".join([f"u{user}", *(f"i{item}" for other, item, _ in purchases(users) if other == user)])
        for user in range(users)
    ]
    texts = [f"i{n} acme red wool {n}" for n in CATALOGUE]
    return {"user_sequence.txt": lines(histories, str), "item_text.txt": lines(texts, str)}


def own_tables(users: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    # A fault in a line is one of a row only where rows are lines.
    rest = 'I "love" it, café\nreally' if users == USERS else "love it café"
    interactions = pl.DataFrame(
        [
            (
                f"u{user}",
                f"i{item}",
                f"2024-03-0{step + 1} 10:3{step}",
                str(1 + step),
                f"{rest} {user}",
            )
            for user, item, step in purchases(users)
        ],
        schema=["user_id", "item_id", "timestamp", "rating", "review"],
        orient="row",
    )
    items = pl.DataFrame(
        [(f"i{n}", f"Mug {n}", "red; oak" if n % 2 else "['blue', 'oak']", n) for n in CATALOGUE],
        schema=["item_id", "title", "aspects", "stock"],
        orient="row",
    )
    return interactions, items


def own_csv(separator: str, encoding: str, users: int) -> Files:
    interactions, items = own_tables(users)
    return {
        "interactions.csv": interactions.write_csv(separator=separator).encode(encoding),
        "items.csv": items.write_csv(separator=separator).encode(encoding),
    }


def own_lines(users: int) -> Files:
    interactions, items = own_tables(users)
    return {"interactions.jsonl": interactions.write_ndjson().encode(), "items.jsonl": items.write_ndjson().encode()}


def own_parquet(users: int) -> Files:
    files = {}
    for name, frame in zip(("interactions", "items"), own_tables(users), strict=True):
        stream = io.BytesIO()
        frame.write_parquet(stream)
        files[f"{name}.parquet"] = stream.getvalue()
    return files


@dataclass(frozen=True)
class Data:
    """A small valid data set of a source.

    Attributes:
        source: its name.
        make: the files, for a number of users.
        options: with which they are read.
        reviews: the file whose lines are interactions.
        parse: by a second hand, the purchases that a line of this file states: user, item and rating, the latter as
            it is written (None: missing) or `ANY`.
    """

    source: str
    make: Callable[[int], Files]
    options: dict = field(default_factory=dict)
    reviews: str = ""
    parse: Callable[[str], list[tuple]] | None = None


ANY = object()


def json_line(user: str, item: str, rating: str | None) -> Callable[[str], list[tuple]]:
    def parse(line: str) -> list[tuple]:
        try:
            record = json.loads(line)
        except ValueError:
            record = ast.literal_eval(line.strip())
        return [(record.get(user), record.get(item), record.get(rating) if rating else ANY)]

    return parse


def steam_line(line: str) -> list[tuple]:
    record = ast.literal_eval(line.strip())
    return [
        (record.get("user_id"), review.get("item_id"), ANY) for review in record["reviews"] if isinstance(review, dict)
    ]


def separated(mark: str) -> Callable[[str], list[tuple]]:
    return lambda line: [tuple(line.split(mark)[:3])]


def words(line: str) -> list[tuple]:
    user, *items = [word for word in re.split(r"[ \t\x0b\x0c\r]+", line) if word]
    return [(user, item, ANY) for item in items]


def csv_line(separator: str) -> Callable[[str], list[tuple]]:
    def parse(line: str) -> list[tuple]:
        user, item, _, rating, _ = next(csv.reader([line], delimiter=separator, strict=True))
        return [(user, item, rating)]

    return parse


DATA: dict[str, Data] = {
    "amazon2014": Data(
        "amazon2014",
        partial(amazon, 2014),
        {},
        "reviews_Drums_5.json",
        json_line("reviewerID", "asin", "overall"),
    ),
    "amazon2018": Data(
        "amazon2018", partial(amazon, 2018), {}, "Drums_5.json", json_line("reviewerID", "asin", "overall")
    ),
    "amazon2023": Data("amazon2023", amazon2023, {}, "Drums.jsonl", json_line("user_id", "parent_asin", "rating")),
    "amazon2023-parquet": Data("amazon2023", amazon2023_parquet, {}, "Drums.parquet"),
    "movielens-100k": Data("movielens", partial(movielens, "100k"), {}, "u.data", separated("\t")),
    "movielens-1m": Data("movielens", partial(movielens, "1m"), {}, "ratings.dat", separated("::")),
    "movielens-latest": Data("movielens", partial(movielens, "latest"), {}, "ratings.csv", separated(",")),
    "movielens-zip": Data("movielens", movielens_zip, {}, "ratings.dat", separated("::")),
    "sequences": Data("sequences", sequences, {"unknown_items": "drop"}, "user_sequence.txt", words),
    "steam": Data("steam", steam, {"undated": "last", "unlisted": "keep"}, "australian_user_reviews.json", steam_line),
    "steam-reviews": Data(
        "steam-reviews", steam_reviews, {}, "steam_reviews.json", json_line("username", "product_id", None)
    ),
    "table-csv": Data("table", partial(own_csv, ",", "utf-8"), {}, "interactions.csv", csv_line(",")),
    "table-lines": Data("table", own_lines, {}, "interactions.jsonl", json_line("user_id", "item_id", "rating")),
    "table-parquet": Data("table", own_parquet, {}, "interactions.parquet"),
    "table-utf-16": Data("table", partial(own_csv, ";", "utf-16"), {}, "interactions.csv", csv_line(";")),
    "yelp": Data(
        "yelp",
        yelp,
        {"since": "2018-01-01"},
        "yelp_academic_dataset_review.json",
        json_line("user_id", "business_id", "stars"),
    ),
}
PACKED = (".parquet", ".zip")

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

ODD_OBJECTS = (
    *(None, True, 0, -1, 10**26, 1e30, float("nan"), float("inf"), "", "x", "5", "é\ud800"),
    *([], [1], [[]], {}, {"a": [1]}),
)


def fault_in_bytes(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A byte or a piece changed, put in, taken out or doubled; the end cut off."""
    start = draw.randrange(len(data) + 1)
    end = min(len(data), start + draw.choice((1, 1, 2, 8, 60)))
    junk = bytes(draw.randrange(256) for _ in range(draw.choice((1, 1, 2, 5))))
    odd = draw.choice(ODD_VALUES).encode("utf-8", "surrogatepass")
    return draw.choice(
        (
            ("bytes changed", data[:start] + junk + data[start + len(junk) :]),
            ("bytes put in", data[:start] + junk + data[start:]),
            ("bytes taken out", data[:start] + data[end:]),
            ("bytes doubled", data[:end] + data[start:end] + data[end:]),
            ("end cut off", data[:start]),
            ("text put in", data[:start] + odd + data[start:]),
        )
    )


def fault_in_line(line: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A value in place of another, or taken out; of a JSON record also one of another type."""
    if draw.random() < 0.3:
        try:
            record = json.loads(line)
            record[draw.choice(list(record))] = draw.choice(ODD_OBJECTS)
            return "value of another type", json.dumps(record).encode()
        except (ValueError, TypeError, IndexError):
            pass
    marks = [mark for mark in (b", ", b",", b";", b"\t", b"::", b"|", b": ", b" ", b"'", b'"') if mark in line]
    if not marks or draw.random() < 0.2:
        return fault_in_bytes(line, draw)
    mark = draw.choice(marks)
    values = line.split(mark)
    place = draw.randrange(len(values))
    odd = draw.choice(ODD_VALUES).encode("utf-8", "surrogatepass")
    kind, kept = draw.choice(
        (
            *[("odd value", [odd])] * 3,
            ("value of another field", [values[draw.randrange(len(values))]]),
            ("field taken out", []),
        )
    )
    return kind, mark.join(values[:place] + kept + values[place + 1 :])


def fault_in_free_field(line: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A fault for which a line is read or left out, not its file refused: of the length of a row, or of free text."""
    odd = draw.choice([value for value in ODD_VALUES if not set(value) & set("\"',;[{\r\n\x00\\")])
    try:
        record = json.loads(line)
        record[draw.choice(("user_id", "item_id", "review"))] = draw.choice(ODD_OBJECTS)
        return "value of another type", json.dumps(record).encode()
    except ValueError:
        values = re.split(rb"[,;]", line)
        mark = b";" if b";" in line else b","
    kind, values = draw.choice(
        (
            ("odd value", [odd.encode("utf-8", "surrogatepass"), *values[1:]]),
            ("odd value", [*values[:-1], odd.encode("utf-8", "surrogatepass")]),
            ("field taken out", values[1:]),
            ("field too many", [*values, b"x"]),
        )
    )
    return kind, mark.join(values)


def fault_in_lines(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A fault in one of the lines, or a line taken out, doubled, cut, joined or moved."""
    parts = data.split(b"\n")
    place = draw.randrange(len(parts))
    if draw.random() < 0.7:
        kind, parts[place] = fault_in_line(parts[place], draw)
        return kind, b"\n".join(parts)
    other = parts[draw.randrange(len(parts))]
    kind, parts[place : place + 1] = draw.choice(
        (
            ("line taken out", []),
            ("line doubled", [parts[place]] * 2),
            ("line cut", [parts[place][:7]]),
            ("lines joined", [parts[place] + other]),
            ("line moved", [b"", other]),
        )
    )
    return kind, b"\n".join(parts)


def fault_in_column(frame: pl.DataFrame, draw: random.Random) -> tuple[str, pl.DataFrame]:
    """A column of a Parquet file gone, renamed or of another type; odd values in it."""
    name = draw.choice(frame.columns)
    odd = [draw.choice(ODD_VALUES).encode("utf-8", "replace").decode() for _ in range(frame.height)]
    some = pl.Series([draw.random() < 0.5 for _ in range(frame.height)])
    text = frame[name] if frame[name].dtype == pl.String else pl.Series([None] * frame.height, dtype=pl.String)
    mixed = pl.select(pl.when(some).then(pl.Series(odd)).otherwise(text))
    numbers = pl.Series([draw.choice((-1.0, 0.0, 1e30, float("nan"), float("inf"))) for _ in range(frame.height)])
    return draw.choice(
        (
            ("column taken out", frame.drop(name)),
            ("column renamed", frame.rename({name: f"{name} "})),
            ("column of numbers", frame.with_columns(numbers.alias(name))),
            ("column of lists", frame.with_columns(pl.concat_list(name).alias(name))),
            ("column of nulls", frame.with_columns(pl.lit(None).alias(name))),
            *[("column of odd values", frame.with_columns(mixed.to_series().alias(name)))] * 3,
        )
    )


def with_faults(files: Files, draw: random.Random) -> tuple[Files, list[str]]:
    """The files with one to five faults in one of them, and their kinds."""
    name = draw.choice(sorted(files))
    data, kinds = files[name], []
    if name.endswith(".parquet") and draw.random() < 0.5:
        frame = pl.read_parquet(io.BytesIO(data))
        kind, frame = fault_in_column(frame, draw)
        stream = io.BytesIO()
        frame.write_parquet(stream)
        return files | {name: stream.getvalue()}, [kind] * frame.height
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        fault = fault_in_bytes if name.endswith(PACKED) or draw.random() < 0.3 else fault_in_lines
        kind, data = fault(data, draw)
        kinds.append(kind)
    if not name.endswith(PACKED) and draw.random() < 0.05:
        data = gzip.compress(data)
        if draw.random() < 0.5:
            data = fault_in_bytes(data, draw)[1]
            kinds = ["damaged gzip"] * len(kinds)
    return files | {name: data}, kinds


def with_faulty_lines(
    data: bytes, draw: random.Random, header: bool, free: Callable
) -> tuple[bytes, bytes, list[bytes], list[str]]:
    """A file with faults in many of its lines, the file without these lines, the lines, and the kinds of faults."""
    parts = data.removesuffix(b"\n").split(b"\n")
    share, fault = draw.choice((0.3, 0.6, 0.9)), draw.choice((fault_in_line, free))
    kinds, faulty, whole = [], [], []
    for place, line in enumerate(parts):
        if (place == 0 and header) or draw.random() > share:
            whole.append(line)
            continue
        kind, changed = fault(line, draw)
        changed = re.sub(rb"[\r\n]", b" ", changed)
        faulty.append(changed)
        kinds.append(kind)
        parts[place] = changed
    return b"\n".join(parts) + b"\n", b"\n".join(whole) + b"\n", faulty, kinds


def outcome(data: Data, files: Files, folder: Path, **options: object) -> tuple[str, Tables | None]:
    """What comes of reading the files: "read", or the kind of refusal; anything else is raised."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        tables = read_source(data.source, folder, min_user=1, min_item=1, **(data.options | options))
    except (ValueError, OSError) as error:
        message = str(error)
        assert message and len(message) < 2_000 and "polars" not in message.lower(), message
        return "refused", None
    report = tables.report
    total = sum(sum(counts.values()) for counts in (report.used, report.dropped, report.malformed))
    assert total == report.lines + report.added
    assert report.used["interactions"] == tables.interactions.height > 0
    known = tables.interactions["rating"].drop_nulls()
    assert known.is_between(1, 5).all()
    return "read, some lines left out" if report.malformed else "read", tables


def rows_of(tables: Tables) -> Counter[tuple]:
    """Purchases with what is known of them; times only where they are not the places of rows."""
    times = pl.col("timestamp") >= FIRST
    rows = tables.interactions.select("user_id", "item_id", "rating", pl.when(times).then("timestamp"), "review")
    return Counter(rows.iter_rows())


def spellings(value: object) -> set[str]:
    """The texts that a value of a record may become."""
    if isinstance(value, bool):
        return {str(value).lower()}
    if isinstance(value, float):
        return {np.format_float_positional(value, trim="-")}
    text = str(value).encode("utf-8", "replace").decode()
    return {text, text.strip()}


def is_stated(row: tuple, stated: list[tuple]) -> bool:
    """Whether a purchase is one that a line states."""
    user, item, rating = row
    for whose, what, rated in stated:
        if user in spellings(whose) and item in spellings(what):
            if rated is ANY or (rating is None and str(rated).strip().lower() in {"", *MISSING, "none"}):
                return True
            try:
                if rating is not None and float(rated) == rating:
                    return True
            except (TypeError, ValueError):
                pass
    return False


def check_faulty_lines(data: Data, files: Files, draw: random.Random, folder: Path) -> tuple[list[str], str]:
    """Read reviews of which many lines are faulty: the rest is read as without them, and they say what is read."""
    options = {"max_malformed": 1.0, "repeats": "keep", "max_history": 10**6, "unknown_items": "drop"}
    archive = next((name for name in files if name.endswith(".zip")), "")
    if archive:
        with zipfile.ZipFile(io.BytesIO(files[archive])) as packed:
            files = {Path(name).name: packed.read(name) for name in packed.namelist()}
    encoding = "utf-16" if files[data.reviews].startswith(codecs.BOM_UTF16) else "utf-8"
    content = files[data.reviews].decode(encoding).encode()
    header = data.reviews.endswith(".csv")
    free = fault_in_free_field if data.source == "table" or header else fault_in_line
    changed, whole, faulty, kinds = with_faulty_lines(content, draw, header, free)
    if encoding != "utf-8":
        changed, whole = (part.decode("utf-8", "replace").encode(encoding) for part in (changed, whole))
    changed, whole = ({**files, data.reviews: part} for part in (changed, whole))
    if archive:
        changed, whole = ({archive: zipped(part)} for part in (changed, whole))
    found, tables = outcome(data, changed, folder, **options)
    if tables is None:
        return kinds, found
    reference, expected = outcome(data, whole, folder, **options)
    assert expected is not None, reference
    rows, before = rows_of(tables), rows_of(expected)
    assert not before - rows, f"lines without a fault were read otherwise: {list(before - rows)[:3]}"
    stated = []
    for line in [line.decode(name, "replace") for line in faulty for name in ("utf-8", "latin-1")]:
        try:
            stated += data.parse(line)
        except (ValueError, SyntaxError, TypeError, AttributeError, KeyError, MemoryError, csv.Error, IndexError):
            continue
    for row in rows - before:
        assert is_stated(row[:3], [entry for entry in stated if len(entry) == 3]), f"no line says {row}"
    return kinds, found


def run(name: str, faults: int, seed: int, folder: Path) -> dict[str, Counter[str]]:
    """Outcomes by kind of fault, of at least so many faults; a failure shows what repeats it."""
    data = DATA[name]
    small, large = data.make(USERS), data.make(MANY_USERS)
    found: dict[str, Counter[str]] = {}
    assert outcome(data, small, folder)[0] == "read"
    number = 0
    while sum(counts.total() for counts in found.values()) < faults:
        draw = random.Random(f"{name}-{seed}-{number}")
        try:
            if data.parse is not None and draw.random() < 0.1:
                kinds, result = check_faulty_lines(data, large, draw, folder)
            else:
                files = large if data.reviews.endswith(".parquet") and draw.random() < 0.2 else small
                changed, kinds = with_faults(files, draw)
                result, _ = outcome(data, changed, folder, max_malformed=draw.choice((0.0, 0.01, 0.5, 1.0)))
        except BaseException as error:
            error.add_note(f"data {name}, seed {seed}, number {number}")
            raise
        for kind in kinds:
            found.setdefault(kind, Counter())[result] += 1
        number += 1
    return found


def test_every_source_is_covered():
    assert {data.source for data in DATA.values()} == set(SOURCES) - {"corner-shop"}


@pytest.mark.parametrize("name", sorted(DATA))
def test_faults_are_counted_or_refused(tmp_path, name):
    assert sum(counts.total() for counts in run(name, 200, 0, tmp_path).values()) >= 200
