"""Small doubles for the benchmark's tests: an embedder without a model, tables and preferences drawn by chance."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import polars as pl

from preference_benchmark.axes.build import BuiltExamples, Inputs, build_examples
from preference_benchmark.axes.protocol import Protocol
from preference_benchmark.preferences.polarity import preference_polarity
from preference_benchmark.stages import Stages
from preference_benchmark.tables import Tables, prepare

OPENINGS = ("Find ", "Avoid ", "no ", "Search for ", "EXCLUDE ", "Look for ")


class HashEmbedder:
    """A random direction per text, the same in every process. Counts what it is asked for."""

    def __init__(self, width: int = 16) -> None:
        self.width = width
        self.asked: list[str] = []

    def encode(self, texts) -> np.ndarray:
        texts = list(texts)
        self.asked += texts
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
        rows = [np.random.default_rng(seed).normal(size=self.width) for seed in seeds]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), self.width)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_tables(seed: int, users: int = 12, items: int = 15, rows: int = 140, **options) -> Tables:
    """Histories by chance, with ratings (some unknown) and short reviews (some empty); options: of `prepare`."""
    rng = np.random.default_rng(seed)
    colours, shapes = ("red", "green", "blue", "old rose", "lime"), ("round handle", "flat lid", "deep base")
    catalogue = pl.DataFrame(
        {
            "item_id": [f"item-{n:02d}" for n in range(items)],
            "title": [f"{colours[n % 5].title()} cup number {n}" for n in range(items)],
            "aspects": [[colours[n % 5], shapes[n % 3]] for n in range(items)],
        }
    )
    reviews = ("", "I love the flat lid.", "The red is awful, but I like the deep base!", "Fine.", "I hate lime.")
    ratings = rng.choice([1.0, 2.0, 3.0, 4.0, 5.0, np.nan], size=rows)
    interactions = pl.DataFrame(
        {
            "user_id": [f"user-{n:02d}" for n in rng.integers(users, size=rows)],
            "item_id": [f"item-{n:02d}" for n in rng.integers(items, size=rows)],
            "timestamp": 1_600_000_000 + rng.integers(1_000, size=rows),
            "rating": pl.Series(ratings).fill_nan(None),
            "review": [reviews[n] for n in rng.integers(len(reviews), size=rows)],
        }
    )
    return prepare(catalogue, interactions, **{"min_user": 3, "min_item": 1} | options)


def random_preferences(tables: Tables, seed: int, vocabulary: int = 60, openings=OPENINGS) -> pl.DataFrame:
    """Five preferences by chance after every step; texts repeat between users and steps."""
    rng = np.random.default_rng(seed)
    keys = tables.interactions.select("user_id", "step").join(pl.DataFrame({"rank": range(5)}), how="cross")
    words = rng.integers(vocabulary, size=keys.height)
    texts = [
        openings[a] + f"cups of kind {b}"
        for a, b in zip(rng.integers(len(openings), size=keys.height), words, strict=True)
    ]
    column = pl.Series("text", texts)
    return keys.with_columns(text=column, sentiment=preference_polarity(column))


def shuffled_users(tables: Tables, seed: int) -> Tables:
    """The same tables with the rows of the interactions in another order."""
    return replace(tables, interactions=tables.interactions.sample(fraction=1.0, shuffle=True, seed=seed))


def histories(tables: Tables) -> dict[str, list[dict]]:
    """Rows per user, in order of steps."""
    found: dict[str, list[dict]] = {}
    for row in tables.interactions.sort("user_id", "step").iter_rows(named=True):
        found.setdefault(row["user_id"], []).append(row)
    return found


def split_of(step: int, length: int) -> str:
    return {1: "test", 2: "validation"}.get(length - step, "train")


def examples_of(tables: Tables, approximate, folder, protocol: Protocol | None = None, embedder=None) -> BuiltExamples:
    """Examples of all axes, with stages in a folder."""
    inputs = Inputs(tables, approximate, lambda: embedder or HashEmbedder())
    return build_examples(inputs, protocol or Protocol(), Stages(folder), progress=False)


def named(rows: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Examples with item ids in place of item indices, and their one target as `target`."""
    ids = tables.items["item_id"]
    history = pl.col("history").list.eval(pl.lit(ids).gather(pl.element()))
    return rows.with_columns(history, target=ids.gather(rows["targets"].list.first()))


def all_targets(tables: Tables) -> list[tuple[str, str, list[str], str]]:
    """(split, user, history, target) of every step, one at a time."""
    return [
        (split_of(step, len(rows)), user, [row["item_id"] for row in rows[:step]], rows[step]["item_id"])
        for user, rows in histories(tables).items()
        for step in range(1, len(rows))
    ]
