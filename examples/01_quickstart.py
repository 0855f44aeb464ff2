"""From purchases to a recommender that listens, in five steps.

    python examples/01_quickstart.py                                          # the corner shop: nothing to download
    python examples/01_quickstart.py --source steam --data path/to/steam      # the same on public files
    python examples/01_quickstart.py --source table --data path/to/your/data  # or on yours

1. Read items and purchases; write preferences and examples on all axes.   2. Train a recommender.
3. Save it with its card, measured beside popularity and with the preferences of other users.
4. Steer it: the same history, three sentences, three lists.   5. Ask it for what is on your mind.

Everything is saved under outputs/quickstart/ (or --output): the model with its card, the table as PNG and JSON.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from mender import Recommender
from mender.cards import pick_request, steer
from mender.cli import options
from mender.data import load_benchmark_data
from mender.runs import provenance
from mender.terminal import new_console, run_script, user_errors
from mender.training import choose_preset, joined_processes, save_and_measure

EPOCHS = 2
WISHES = (
    "tea with a malty brew",
    "candels with a vanila scent",
    "herbal infusions without mint",
    "a board game for two",
)
"""What customers of the corner shop ask for, in their own words."""


@options.grouped
def main(
    tables: options.TableOptions,
    source: options.Source = "corner-shop",
    encoder: options.Encoder = None,
    preset: options.Preset = "mender",
    arguments: options.Train = None,
    eval_limit: options.EvalLimit = 200,
    seed: options.Seed = 0,
    output: options.Output = Path("outputs/quickstart"),
) -> None:
    """The five steps."""
    started, origin = time.perf_counter(), provenance(seed)
    with user_errors():
        training = {"num_train_epochs": EPOCHS, **options.assignments(arguments or [], "--train")}
        chosen = choose_preset(preset, training=training)
        if chosen.preference != "text":
            raise ValueError(
                f"--preset {preset} reads no preference; pass mender, mender-emb, mender-fid, mender-lite or mender-tok"
            )
        if joined_processes().num_processes > 1:
            raise ValueError("the quickstart runs in one process; for several, see docs/training.md")
        announce("1. The data", started)
        data = load_benchmark_data(source, tables.data, encoder, **tables.changes)
    counts = {split: len(examples) for split, examples in data.examples["oracle"].items()}
    print(f"{len(data.items):,} items; examples: {', '.join(f'{n:,} {split}' for split, n in counts.items())}")

    announce("2. Training", started)
    print(f"{chosen.name}: {chosen.summary}")
    how = {"encoder": encoder, "seed": seed, "validation_limit": 200}
    with tempfile.TemporaryDirectory(prefix="mender-") as scratch:
        shop = Recommender.train(data, preset=preset, training=training, output=scratch, **how)
        popularity = Recommender.train(data, preset="popularity", output=scratch, **how)

    announce("3. Measuring and saving", started)
    baselines = {"popularity": popularity}
    save_and_measure(shop, data, output, "Mender", origin=origin, limit=eval_limit, baselines=baselines)

    announce("4. Steering", started)
    test = data.examples.get("last", data.examples["oracle"])["test"]
    example = steer(shop, *pick_request(test, preferences=3))
    print("History, oldest first:", "; ".join(example.history))
    show("The same history, three sentences", example.lists)

    announce("5. Asking", started)
    if source == "corner-shop":
        found = shop.recommend_batch(WISHES, top_k=5)
        lists = zip(WISHES, found, strict=True)
        show("Wishes, misspelt as they are", {wish: [item["title"] for item in items] for wish, items in lists})
    print(f"Saved under {output}/: model/, five_axes.png, five_axes.json, ranks.parquet. What to do next:\n")
    print(f'  mender recommend {output / "model"} --preference "your own words" --avoid "what you do not like"')
    print(f'  Recommender.from_pretrained("{output / "model"}")   # in Python, see README.md')
    print(f"  make web MODEL={output / 'model'}   # a page to try it on, in a browser")
    print("  docs/own-data.md   # the same with your own items and purchases")
    announce("Done", started)


def announce(step: str, started: float) -> None:
    """A heading with the time so far."""
    new_console(width=120).rule(f"{step}  [{time.perf_counter() - started:.0f} s]", align="left")


def show(title: str, lists: Mapping[str, Sequence[str]]) -> None:
    """Lists of titles side by side."""
    table = Table(title=title, show_lines=True)
    for name in lists:
        table.add_column(f'"{name}"')
    for row in zip(*lists.values(), strict=False):
        table.add_row(*row)
    new_console(width=120).print(table)


if __name__ == "__main__":
    run_script(main, __doc__)
