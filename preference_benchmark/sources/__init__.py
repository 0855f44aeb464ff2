"""Public raw formats, one file each, all read into the same two tables.

`read_source` is the way in; a further format is one more file with one function, listed in `SOURCES`.

=============  =====================================================================================================
name           files it looks for (each also without `.gz`)
=============  =====================================================================================================
amazon2014     reviews_{category}_5.json.gz or reviews_{category}.json.gz; optional meta_{category}.json.gz
amazon2018     {category}_5.json.gz or {category}.json.gz; optional meta_{category}.json.gz
amazon2023     {category}.jsonl.gz or .parquet, or raw_review_{category}/*.parquet; optional meta_... or raw_meta_...
corner-shop    none: it is generated
movielens      ml-100k, ml-1m, ml-10m, ml-20m and later, ml-latest; packed (.zip) or unpacked
sequences      user_sequence.txt.gz; optional item_text.txt.gz
steam          australian_user_reviews.json.gz, steam_games.json.gz
steam-reviews  steam_reviews.json.gz or steam_new.json.gz, steam_games.json.gz
table          interactions.csv, .jsonl or .parquet, and items.csv, .jsonl or .parquet
yelp           yelp_academic_dataset_review.json, yelp_academic_dataset_business.json; or yelp_dataset.tar
=============  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path

from preference_benchmark.sources.amazon import read_amazon2014, read_amazon2018
from preference_benchmark.sources.amazon2023 import read_amazon2023
from preference_benchmark.sources.corner_shop import corner_shop
from preference_benchmark.sources.movielens import read_movielens
from preference_benchmark.sources.sequences import read_sequences
from preference_benchmark.sources.steam import read_steam, read_steam_reviews
from preference_benchmark.sources.table import read_table
from preference_benchmark.sources.yelp import read_yelp
from preference_benchmark.tables import Tables, prepare

__all__ = ["SOURCES", "read_source"]


def _read_corner_shop(
    path: str | Path | None, *, num_users: int = 1_500, num_items: int = 400, seed: int = 0, **options: object
) -> Tables:
    if path is not None:
        raise ValueError(f"path={str(path)!r}: the corner shop is generated, not read; pass path=None.")
    shop = corner_shop(num_users, num_items, seed, **options)
    return replace(shop.tables, truth=shop.truth)


SOURCES: dict[str, Callable[..., Tables]] = {
    "amazon2014": read_amazon2014,
    "amazon2018": read_amazon2018,
    "amazon2023": read_amazon2023,
    "corner-shop": _read_corner_shop,
    "movielens": read_movielens,
    "sequences": read_sequences,
    "steam": read_steam,
    "steam-reviews": read_steam_reviews,
    "table": read_table,
    "yelp": read_yelp,
}


def read_source(name: str, path: str | Path | None, **options: object) -> Tables:
    """Read a data set.

    Args:
        name: one of `SOURCES`.
        path: the folder that holds the files under their public names, or the file of interactions itself;
            None for "corner-shop", which needs no files.
        options: passed on to the source and to `prepare`: min_user, min_item, max_history, ...

    Raises:
        ValueError: if the source is unknown or its files cannot be used.
        FileNotFoundError: if a file is missing; says which names are expected where.

    >>> read_source("corner-shop", None, num_users=200, num_items=50).items.columns[:4]
    ['item_id', 'title', 'text', 'aspects']
    """
    if name not in SOURCES:
        raise ValueError(f"source {name!r} is not known; choose one of {sorted(SOURCES)}.")
    if path is None and name != "corner-shop":
        raise ValueError(f"source {name!r} reads files; pass the folder that holds them as path.")
    known = _options(SOURCES[name])
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(f"source {name!r} has no option {unknown[0]!r}; its options are {sorted(known)}.")
    return SOURCES[name](path, **options)


def _options(reader: Callable[..., Tables]) -> set[str]:
    """Names of the options of a reader: its own and, where it passes on others, those of `prepare`."""
    _, *parameters = signature(reader).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        parameters += signature(prepare).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY} - {"report"}
