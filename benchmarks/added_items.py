"""Items added after training: are they found by their aspects, and do the others stay where they were?

    python benchmarks/added_items.py
    python benchmarks/added_items.py --preset mender --epochs 3 --json benchmarks/results/added_items/mender.json

Items of the corner shop are taken out of its catalogue and of all histories. A model is trained on the rest, and the
items are added with `add_items`, as docs/serving.md says. Every wish names two aspects of an item, "Find something with
A and B"; any item that has both answers it. Old items are asked for before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from measuring import write_rows
from rich.console import Console
from rich.table import Table

FIRST = 5
"""Number of results that an item should be among."""
OLD = 100
"""Number of old items that are asked for."""


def main() -> None:
    """Hold items out, train, add them, ask for them, print how many were found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mender-lite")
    parser.add_argument("--added", type=int, default=100, help="items to add after training")
    parser.add_argument("--epochs", type=int, help="epochs of a generator; default: those of the preset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/added_items"), help="for tables and checkpoints")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    kept, added = split_shop(arguments.added, arguments.seed, arguments.folder / "shop")
    method = trained(arguments.preset, arguments.folder, arguments.seed, arguments.epochs)
    rows = measure(method.model, method.processor, kept, added, arguments.seed)
    rows = [{"preset": arguments.preset, "added": len(added), "seed": arguments.seed, **row} for row in rows]
    Console(width=120).print(table_of(rows))
    write_rows(rows, arguments.json)


def split_shop(added: int, seed: int, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The corner shop without some random items, written as tables of one's own; these items apart.

    Returns:
        The items that were kept and those to be added: item_id, title, text, aspects, ...
    """
    from preference_benchmark.sources import read_source

    tables = read_source("corner-shop", None)
    drawn = np.random.default_rng(seed).permutation(tables.items.height)[:added]
    new = tables.items[np.sort(drawn)]
    kept = tables.items.join(new, on="item_id", how="anti", maintain_order="left")
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_parquet(folder / "items.parquet")
    left = tables.interactions.join(new, on="item_id", how="anti", maintain_order="left").drop("step")
    left.write_parquet(folder / "interactions.parquet")
    return kept, new


def trained(preset: str, folder: Path, seed: int, epochs: int | None) -> Any:
    """A method trained on the tables that `split_shop` wrote."""
    from mender.data import encoder_path, load_benchmark_data
    from mender.training import choose_preset, fit, new_method

    data = load_benchmark_data("table", folder / "shop", min_user=5)
    method = new_method(choose_preset(preset), data, encoder_path(None), seed)
    arguments = {} if epochs is None else {"num_train_epochs": epochs}
    fit(method, data, folder / "checkpoints", seed=seed, **arguments)
    method.model.eval()
    return method


def measure(model: Any, processor: Any, kept: pl.DataFrame, added: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Add items to a model and ask for them, and for old items before and after."""
    from modeling_mender.training.catalogue_edits import add_items

    generator = np.random.default_rng(seed)
    aspects = dict(kept.select("item_id", "aspects").iter_rows())
    old = [processor.item_ids[place] for place in generator.permutation(len(processor.item_ids))[:OLD]]
    old_wishes = [two_aspects(aspects[item], generator) for item in old]
    new_wishes = [two_aspects(own, generator) for own in added["aspects"].to_list()]
    before = ranked(model, processor, old_wishes)
    items = {name: added[name].to_list() for name in ("item_id", "title", "text")}
    indices = add_items(model, processor, items)
    after = ranked(model, processor, old_wishes)
    aspects |= dict(added.select("item_id", "aspects").iter_rows())
    of_items = [set(aspects[item]) for item in processor.item_ids]
    old_indices = processor.item_indices(old)
    # Ranks among the old items alone: new ones that come before are left out.
    alone = [row[row < indices[0]] for row in after]
    rows = [
        {"items": "new", **figures(ranked(model, processor, new_wishes), new_wishes, indices, of_items)},
        {"items": "old, before", **figures(before, old_wishes, old_indices, of_items)},
        {"items": "old, after", **figures(after, old_wishes, old_indices, of_items)},
        {"items": "old, after, new ones left out", **figures(alone, old_wishes, old_indices, of_items)},
    ]
    for row, other in ((rows[2], after), (rows[3], alone)):
        pairs = zip(places(before, old_indices), places(other, old_indices), strict=True)
        row["moved"] = float(np.mean([first != second for first, second in pairs]))
    return rows


def two_aspects(aspects: Sequence[str], generator: np.random.Generator) -> tuple[str, str]:
    """Two different aspects of an item."""
    first, second = generator.choice(len(aspects), 2, replace=False)
    return aspects[first], aspects[second]


@torch.no_grad()
def ranked(model: Any, processor: Any, wishes: Sequence[tuple[str, str]]) -> list[np.ndarray]:
    """All items of the catalogue for every wish, best first."""
    found = []
    for first, second in wishes:
        inputs = processor([f"Find something with {first} and {second}"]).to(model.device)
        answer = model.recommend(**inputs, top_k=len(processor.item_ids), num_beams="exact")
        found.append(answer.item_indices[0].cpu().numpy())
    return found


def figures(
    lists: Sequence[np.ndarray], wishes: Sequence[tuple[str, str]], items: Sequence[int], aspects: Sequence[set[str]]
) -> dict[str, float]:
    """How soon items are found.

    Args:
        lists: ranked items of every wish.
        wishes: two aspects each.
        items: the item that each wish was made of.
        aspects: of every item.

    Returns:
        Shares of wishes that an item with both aspects, and the very item, answers among the first, and the median and
        mean rank of the item.
    """
    answered = [any({*wish} <= aspects[item] for item in row[:FIRST]) for wish, row in zip(wishes, lists, strict=True)]
    ranks = places(lists, items)
    return {
        "wishes": len(wishes),
        f"answered in the first {FIRST}": float(np.mean(answered)),
        f"the item in the first {FIRST}": float(np.mean(ranks <= FIRST)),
        "median rank": float(np.median(ranks)),
        "mean rank": float(ranks.mean()),
    }


def places(lists: Sequence[np.ndarray], items: Sequence[int]) -> np.ndarray:
    """Rank of an item in each list, from 1."""
    return np.array([int(np.flatnonzero(row == item)[0]) + 1 for row, item in zip(lists, items, strict=True)])


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """Figures of new and old items."""
    first = rows[0]
    table = Table(title=f"{first['preset']}, corner shop, {first['added']} items added after training")
    names = [name for name in rows[-1] if name not in ("preset", "added", "seed")]
    for name in names:
        table.add_column(name, justify="left" if name == "items" else "right")
    for row in rows:
        values = [row.get(name, "") for name in names]
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in values))
    return table


if __name__ == "__main__":
    main()
