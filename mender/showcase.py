"""What the demo page shows of a model's items and users: attributes, a few histories, sentences to try.

A small JSON file that is saved with a model, `showcase.json`:

    {"attributes": {item id: [phrases]}, "shoppers": [{"history": [item ids], "preference": text}],
     "sentences": [{"preference": text, "avoid": text}]}

Shoppers are customers of the test split, without their ids. Their histories leave the house only if that is asked for
(`mender train --showcase-histories`), or if the customers are invented; otherwise the page makes up shoppers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from datasets import Dataset

from preference_benchmark.preferences.polarity import NEGATIVE, preference_polarity
from preference_benchmark.stages import write_atomically

__all__ = ["INVENTED", "SHOWCASE_FILE", "save_showcase", "showcase"]

SHOWCASE_FILE = "showcase.json"
INVENTED = ("corner-shop",)
"""Sources whose customers are invented."""
MAX_ATTRIBUTES = 6


def save_showcase(folder: str | Path, items: Dataset, examples: Dataset, *, histories: bool = False) -> Path:
    """Write `showcase.json` into the folder of a saved model, whole or not at all.

    Args:
        folder: where the model was saved.
        items: the benchmark's items.
        examples: the test split, preferably with target-blind matching ("last").
        histories: whether histories of customers may be written.
    """
    target = Path(folder) / SHOWCASE_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, json.dumps(showcase(items, examples, histories=histories), ensure_ascii=False).encode())
    return target


def showcase(
    items: Dataset, examples: Dataset, *, histories: bool = False, shoppers: int = 12, sentences: int = 6
) -> dict[str, Any]:
    """The content of the file.

    Args:
        items: the benchmark's items: item_id, and aspects where the source knows any.
        examples: of the test split.
        histories: whether there may be shoppers, which have histories of customers.
        shoppers: users at most, with histories from long to short, no two with the same latest item or preference.
        sentences: preferences to try, at most; half of them with what the same user wants to avoid.
    """
    aspects = items["aspects"][:] if "aspects" in items.column_names else [[]] * len(items)
    return {
        "attributes": {
            item_id: list(phrases)[:MAX_ATTRIBUTES]
            for item_id, phrases in zip(items["item_id"][:], aspects, strict=True)
            if phrases
        },
        "shoppers": _shoppers(examples, shoppers) if histories else [],
        "sentences": _sentences(examples, sentences),
    }


def _shoppers(examples: Dataset, limit: int) -> list[dict[str, Any]]:
    length = pl.col("history").list.len()
    rows = _axis(examples, "recommendation").filter(length > 0)
    rows = rows.sort(length, "user_id", descending=[True, False], maintain_order=True)
    latest, text = pl.col("history").list.last(), pl.col("preferences").list.first()
    rows = rows.select("history", latest=latest, preference=text)
    for column in ("latest", "preference"):
        rows = rows.unique(column, keep="first", maintain_order=True)
    return _spread(rows, limit).select("history", "preference").to_dicts()


def _sentences(examples: Dataset, limit: int) -> list[dict[str, str]]:
    """Wishes for other items than the usual ones, evenly spread; half of them with something to avoid."""
    wishes = _axis(examples, "coarse_grained_steering")["preferences"].list.first().unique().sort()
    both = _wishes_with_something_to_avoid(_axis(examples, "history_consolidation")["preferences"])
    pairs = both.head(min(limit // 2, both.height)).to_dicts()
    alone = limit - len(pairs)
    spread = _spread(wishes.to_frame("text"), alone)["text"]
    return [{"preference": text, "avoid": ""} for text in spread] + pairs


def _wishes_with_something_to_avoid(written: pl.Series) -> pl.DataFrame:
    """Pairs of what one user wants and wants to avoid; those with most words in common first."""
    texts = written.to_frame("text").with_row_index("user").explode("text").drop_nulls().unique(maintain_order=True)
    texts = texts.with_columns(
        negative=preference_polarity(texts["text"]) == NEGATIVE,
        words=pl.col("text").str.to_lowercase().str.extract_all(r"\w{4,}").list.unique(),
    )
    wanted, unwanted = texts.filter(~pl.col("negative")), texts.filter("negative")
    pairs = wanted.join(unwanted, on="user", suffix="_unwanted").with_columns(
        shared=pl.col("words").list.set_intersection("words_unwanted").list.sort()
    )
    order = [pl.col("shared").list.len(), "text", "text_unwanted"]
    pairs = pairs.sort(order, descending=[True, False, False], maintain_order=True)
    pairs = pairs.with_columns(pl.col("shared").list.join(" "))
    for column in ("shared", "text", "text_unwanted"):
        pairs = pairs.unique(column, keep="first", maintain_order=True)
    return pairs.select(preference="text", avoid="text_unwanted")


def _axis(examples: Dataset, name: str) -> pl.DataFrame:
    return examples.to_polars().filter(pl.col("axis") == name)


def _spread(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """At most `limit` rows, evenly spaced."""
    return rows.gather_every(max(1, len(rows) // max(1, limit))).head(limit)
