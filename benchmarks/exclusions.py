"""Wishes that say in their own words what is not wanted ("herbal infusions without mint"), beside the field `avoid`.

    python benchmarks/exclusions.py outputs/quickstart/model --json benchmarks/results/exclusions.json

The examples are the test examples "wish and avoid" of the benchmark that the model was trained on: wish and phrase are
put into one text in one of six ways, at random. It is asked as two fields, as one text, and as one text that is read as
a wish from its first to its last word.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import typer

from mender import Recommender
from mender.cli import options
from mender.data import load_benchmark_data
from mender.terminal import run_script
from modeling_mender import MenderProcessor
from modeling_mender.training.data import select_axes
from modeling_mender.wording import avoided_phrase, split_exclusions

WAYS = (
    *("{wish}, but no {phrase}", "{wish} without {phrase}", "{wish}, nothing with {phrase}"),
    *("{wish} except {phrase}", "{wish}. Please no {phrase}.", "{wish}; I don't want {phrase}"),
)
TOP_K, DRAWS = 10, 2_000


@options.grouped
def main(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    tables: options.TableOptions,
    source: options.Source = "corner-shop",
    encoder: options.Encoder = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
) -> None:
    """Measure and print."""
    shop = Recommender.from_pretrained(model)
    test = load_benchmark_data(source, tables.data, encoder, **tables.changes).examples["oracle"]["test"]
    rows = [
        row for row in select_axes(test, {"wish_and_avoid": 1.0}) if len(row["preferences"]) == 1 == len(row["avoid"])
    ]
    chosen, asked = random.Random(0), {"two fields": [], "one text": []}
    for row in rows:
        wish, phrase = row["preferences"][0].rstrip("."), avoided_phrase(row["avoid"][0])
        asked["two fields"].append({"preference": wish, "avoid": phrase, "history": row["history"]})
        text = chosen.choice(WAYS).format(wish=wish, phrase=phrase)
        asked["one text"].append({"preference": text, "history": row["history"]})
    found = {name: measured(shop, requests, rows) for name, requests in asked.items()}
    with mock.patch.object(MenderProcessor, "understood", lambda processor, request: request):
        found["one text, read as a wish"] = measured(shop, asked["one text"], rows)
    texts = {text for row in test for text in row["preferences"]}
    split = sum(split_exclusions(text)[0] != text for text in texts)
    print(f"n = {len(rows)}; {split} of {len(texts)} preferences of the test split are read as excluding something")
    for name, figures in found.items():
        print(f"{name:26} found {figures['found']}  to avoid, of {TOP_K} {figures['to avoid']}")
    if json_file is not None:
        record = {"source": source, "n": len(rows), "preferences": len(texts), "split": split, "figures": found}
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def measured(shop: Recommender, requests: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Share of relevant items found and number of items to avoid, each with a bootstrap 95% interval."""
    found = []
    for row, items in zip(rows, shop.recommend_batch(requests, top_k=TOP_K), strict=True):
        ids = {item["item_id"] for item in items}
        found.append((len(ids & set(row["targets"])) / min(TOP_K, len(row["targets"])), len(ids & set(row["avoided"]))))
    values = np.array(found)
    drawn = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    means = values[drawn].mean(1)
    return {
        name: [
            round(float(value), 3)
            for value in (values[:, column].mean(), *np.quantile(means[:, column], (0.025, 0.975)))
        ]
        for column, name in enumerate(("found", "to avoid"))
    }


if __name__ == "__main__":
    run_script(main, __doc__)
