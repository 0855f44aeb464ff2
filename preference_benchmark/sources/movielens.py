"""MovieLens (Harper & Konstan 2016) in all its forms, packed or unpacked: 100K, 1M, 10M, 20M and later, latest.

100K has `u.data` and `u.item` (tabs and bars, Latin-1), 1M and 10M have `ratings.dat` and `movies.dat` (two colons;
Latin-1 or UTF-8), the others `ratings.csv`, `movies.csv` and `tags.csv`. There are no reviews: the tags a
user gave a movie replace one. Tags also describe the movies, but only those that were given in the training
period, so that nothing of the interactions to be predicted leaks into a movie's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from preference_benchmark.sources.delimited import read_csv, read_delimited, typed
from preference_benchmark.sources.item_text import as_aspects, clean_text, shared_aspects
from preference_benchmark.sources.raw_files import RawFile, find_dataset
from preference_benchmark.sources.raw_lines import SECONDS, Field, Number, RawLines, read_report
from preference_benchmark.tables import Tables, labelled, prepare

__all__ = ["read_movielens"]

_HOME = "https://grouplens.org/datasets/movielens/"
_RATINGS = {"user_id": pl.String, "item_id": pl.String, "rating": Number(0.5, 5), "timestamp": SECONDS}
_TAGS = {"user_id": pl.String, "item_id": pl.String, "tag": pl.String, "timestamp": SECONDS}
_MOVIES = {"item_id": pl.String, "title": pl.String, "genres": pl.String}
_CSV_NAMES = {"user_id": "userId", "item_id": "movieId"}
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
).split("|")
_NO_GENRE = ("(no genres listed)", "unknown")
_FEWEST_USERS = 2  # a tag that only one user gave is that user's word, not the movie's
_MOST_TAGS = 10
_DAY = 86_400


@dataclass(frozen=True)
class _Form:
    """How the files of one form are called."""

    ratings: str
    movies: str
    tags: str | None


_FORMS = (
    _Form("ratings.csv", "movies.csv", "tags.csv"),
    _Form("ratings.dat", "movies.dat", "tags.dat"),
    _Form("u.data", "u.item", None),
)


def read_movielens(path: str | Path, *, max_malformed: float = 0.01, **options: object) -> Tables:
    """Tables from one MovieLens release.

    Ratings of half a star count as one star, since ratings go from 1 to 5 here; the report says how many there are.

    Args:
        path: the archive (`ml-1m.zip`), the folder it unpacks to, or a folder that holds either.
        max_malformed: share of malformed lines above which a file is refused.
        options: passed on to `prepare`.

    Raises:
        FileNotFoundError: if there is no such release; lists the names that would have been taken.
        ValueError: if a file cannot be used.
    """
    markers = tuple(form.ratings for form in _FORMS)
    files = find_dataset(path, markers, ("ml-*.zip", "ml-*"), "MovieLens release", _HOME)
    form = next(form for form in _FORMS if form.ratings in files)
    if form.movies not in files:
        raise FileNotFoundError(
            f"{path} has {form.ratings} but no {form.movies}, which belongs beside it; found {sorted(files)[:10]}. "
            f"The public files are described at {_HOME}."
        )
    ratings = _read(files[form.ratings], _RATINGS, max_malformed)
    movies = _read_movies(files[form.movies], max_malformed)
    raw = [ratings, movies]
    tags = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "tag": pl.String, "timestamp": pl.Int64})
    if form.tags in files:
        raw.append(_read(files[form.tags], _TAGS, max_malformed))
        tags = raw[-1].frame.with_columns(clean_text("tag"))
    worded = tags.filter(pl.col("tag") != "")
    distinct = worded.unique(["user_id", "item_id", "tag"], keep="first", maintain_order=True)
    rows = ratings.frame.drop_nulls("rating")
    attached = distinct.join(rows, on=["user_id", "item_id"], how="semi", maintain_order="left")
    reviews = attached.group_by("user_id", "item_id").agg(review=pl.col("tag").str.join(". "), tagged="timestamp")
    tagged = rows.join(reviews, on=["user_id", "item_id"], how="left", maintain_order="left")
    late = pl.col("tagged").list.max() > pl.col("timestamp") + _DAY
    report = read_report(
        "movielens",
        [part.count for part in raw],
        used={"interactions": rows.height, "items": movies.frame.height, "tags": attached.height},
        dropped={
            "ratings without a value": ratings.frame.height - rows.height,
            "tags without a word": tags.height - worded.height,
            "tags that their user gave a movie more than once": worded.height - distinct.height,
            "tags of movies that their user did not rate": distinct.height - attached.height,
        },
        notes={
            "ratings of half a star, taken as one": rows.filter(pl.col("rating") < 1).height,
            "ratings whose tags were given more than a day later": tagged.filter(late).height,
        },
    )
    tagged = tagged.drop("tagged").with_columns(pl.col("rating").clip(lower_bound=1), pl.col("review").fill_null(""))
    tables = prepare(movies.frame, tagged, report=report, **{"unknown_items": "drop", **options})
    return replace(shared_aspects(_with_tags(tables, worded)), noun="movies")


def _read(file: RawFile, fields: Mapping[str, Field], max_malformed: float) -> RawLines:
    if file.name.endswith(".csv"):
        named = {field: _CSV_NAMES.get(field, field) for field in fields}
        keys = tuple(name for name in ("user_id", "item_id") if name in fields)
        raw = read_csv(
            file,
            lambda found: {field: name for field, name in named.items() if name in found},
            required=tuple(named.values()),
            keys=keys,
            separator=",",
            max_malformed=max_malformed,
        )
        frame = typed(raw.frame, fields, raw.count).select(list(fields))
        raw.count.refuse_many(max_malformed, f"the columns {list(named.values())}")
        return replace(raw, frame=frame)
    separator = "\t" if file.name == "u.data" else "::"
    return read_delimited(file, fields, separator, encodings=("utf-8", "latin-1"), max_malformed=max_malformed)


def _read_movies(file: RawFile, max_malformed: float) -> RawLines:
    """item_id, title, year, genres, and text and aspects from these."""
    if file.name != "u.item":
        raw = _read(file, _MOVIES, max_malformed)
    else:
        fields = dict.fromkeys(("item_id", "title", "released", "video", "url"), pl.String)
        fields |= dict.fromkeys(_GENRES_100K, pl.Int8)
        raw = read_delimited(file, fields, "|", encodings=("utf-8", "latin-1"), max_malformed=max_malformed)
        flags = (pl.when(pl.col(genre) == 1).then(pl.lit(genre)) for genre in _GENRES_100K)
        frame = raw.frame.with_columns(genres=pl.concat_str(flags, separator="|", ignore_nulls=True))
        raw = replace(raw, frame=frame)
    genres = pl.col("genres").fill_null("").str.split("|")
    genres = genres.list.eval(pl.element().filter((pl.element() != "") & ~pl.element().is_in(_NO_GENRE)))
    frame = raw.frame.with_columns(clean_text("title"), genres=genres)
    frame = frame.with_columns(year=pl.col("title").str.extract(r"\((\d{4})\)$").cast(pl.Int32))
    items = frame.select(
        "item_id",
        "title",
        "year",
        "genres",
        text=labelled(Title="title", Genres=pl.col("genres").list.join(", ")),
        aspects=as_aspects(frame.select(phrases="genres")),
    )
    return replace(raw, frame=items)


def _with_tags(tables: Tables, tags: pl.DataFrame) -> Tables:
    """The movies with the tags that several users gave them in the training period, most given first."""
    training = tags.join(tables.training_period(), on=["user_id", "item_id"], how="semi", maintain_order="left")
    counts = training.with_columns(pl.col("tag").str.to_lowercase()).group_by("item_id", "tag")
    counts = counts.agg(users=pl.col("user_id").n_unique()).filter(pl.col("users") >= _FEWEST_USERS)
    counts = counts.sort("item_id", "users", "tag", descending=[False, True, False])
    lists = counts.group_by("item_id", maintain_order=True).agg(tags=pl.col("tag").head(_MOST_TAGS))
    items = tables.items.join(lists, on="item_id", how="left", maintain_order="left")
    items = items.with_columns(pl.col("tags").fill_null([]))
    tagged = pl.concat_str(pl.col("text"), pl.lit(". Tags: "), pl.col("tags").list.join(", "))
    aspects = as_aspects(items.select(phrases=pl.concat_list("aspects", "tags")))
    items = items.with_columns(aspects, text=pl.when(pl.col("tags").list.len() > 0).then(tagged).otherwise("text"))
    return replace(tables, items=items)
