"""What the demo page shows of a model's items and users: attributes, a few histories, wishes to try.

A small JSON file that is saved with a model, `showcase.json`:

    {"attributes": {item id: [phrases]}, "shoppers": [{"history": [item ids], "preference": text}],
     "sentences": [{"preference": text, "avoid": text}]}

The page opens with the first sentence; without one, it makes wishes of what several items have. Shoppers are customers
of the test split, without their ids. Their histories leave the house only if that is asked for (`mender train
--showcase-histories`), or if the customers are invented; otherwise the page makes up shoppers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from datasets import Dataset

from preference_benchmark.stages import write_atomically

__all__ = ["INVENTED", "SHOWCASE_FILE", "save_showcase", "showcase"]

SHOWCASE_FILE = "showcase.json"
INVENTED = ("corner-shop",)
"""Sources whose customers are invented."""
TYPED = {
    "corner-shop": (
        {"preference": "tea with a malty brew", "avoid": "mint"},
        {"preference": "candels with a vanila scent", "avoid": ""},
        {"preference": "a notebook, but not navy blue", "avoid": ""},
        {"preference": "a board game for two players, set in space", "avoid": ""},
    )
}
"""Wishes as a customer would type them, by source."""
MAX_ATTRIBUTES = 6


def save_showcase(
    folder: str | Path, items: Dataset, examples: Dataset, *, source: str = "", histories: bool = False
) -> Path:
    """Write `showcase.json` into the folder of a saved model, whole or not at all.

    Args:
        folder: where the model was saved.
        items: the benchmark's items.
        examples: the test split, preferably with target-blind matching ("last").
        source: where the items come from; for some there are wishes that people would type.
        histories: whether histories of customers may be written.
    """
    content = showcase(items, examples, source=source, histories=histories)
    target = Path(folder) / SHOWCASE_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, json.dumps(content, ensure_ascii=False).encode())
    return target


def showcase(
    items: Dataset,
    examples: Dataset,
    *,
    source: str = "",
    histories: bool = False,
    shoppers: int = 12,
) -> dict[str, Any]:
    """The content of the file.

    Args:
        items: the benchmark's items: item_id, and aspects where the source knows any.
        examples: of the test split.
        source: see `save_showcase`.
        histories: whether there may be shoppers, which have histories of customers.
        shoppers: users at most, with histories from long to short, no two with the same latest item or preference.
    """
    aspects = items["aspects"][:] if "aspects" in items.column_names else [[]] * len(items)
    return {
        "attributes": {
            item_id: list(phrases)[:MAX_ATTRIBUTES]
            for item_id, phrases in zip(items["item_id"][:], aspects, strict=True)
            if phrases
        },
        "shoppers": _shoppers(examples, shoppers) if histories else [],
        "sentences": list(TYPED.get(source, ())),
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


def _axis(examples: Dataset, name: str) -> pl.DataFrame:
    return examples.to_polars().filter(pl.col("axis") == name)


def _spread(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """At most `limit` rows, evenly spaced."""
    return rows.gather_every(max(1, len(rows) // max(1, limit))).head(limit)
