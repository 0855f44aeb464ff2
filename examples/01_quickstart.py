"""From purchase histories to a recommender that is steered by preferences, in five steps.

    python examples/01_quickstart.py                                          # the corner shop: nothing to download
    python examples/01_quickstart.py --source steam --data path/to/steam      # the same on public files
    python examples/01_quickstart.py --source table --data path/to/your/data  # or on yours

1. Build the benchmark: items, preferences, examples on all axes.   2. Give every item a semantic ID and build a model.
3. Train it.   4. Compare it with popularity, and with the preferences of other users.
5. Save it, steer the recommendations for one history with three different sentences, and ask for what is on your mind.

Everything is saved under outputs/quickstart/ (or --output): the model with its card, the table as PNG and JSON.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mender.cards import pick_request, steer, write_run_card
from mender.cli import options
from mender.data import encoder_path, load_benchmark_data
from mender.evaluation import measure_requests, score_model
from mender.report import in_order
from mender.runs import provenance, write_run
from mender.showcase import INVENTED, save_showcase
from mender.terminal import run_script, user_errors
from mender.training import choose_preset, fit, joined_processes, new_method
from modeling_mender import MenderProcessor
from modeling_mender.hub.results import SteeringExample

EPOCHS = 6
WISHES = (
    ("Find tea with a malty brew", ""),
    ("candels with a vanila scent", ""),
    ("herbal infusions", "mint"),
    ("something cosy for a rainy evening", ""),
)
"""What customers of the corner shop ask for, and what they want to avoid."""


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
        if chosen.model != "mender" or chosen.preference != "text":
            raise ValueError(
                f"--preset {preset} reads no preference; pass mender, mender-emb, mender-fid or mender-tok"
            )
        if joined_processes().num_processes > 1:
            raise ValueError("the quickstart runs in one process; for several, see docs/training.md")
        announce("1. The benchmark", started)
        benchmark = load_benchmark_data(source, tables.data, encoder, **tables.changes)
        encoder = encoder_path(encoder)
    counts = {split: len(examples) for split, examples in benchmark.examples["oracle"].items()}
    print(f"{len(benchmark.items):,} items; examples: {', '.join(f'{n:,} {split}' for split, n in counts.items())}")

    announce("2. Semantic IDs and the model", started)
    print(f"{chosen.name}: {chosen.summary}")
    method = new_method(chosen, benchmark, encoder, seed)

    announce("3. Training", started)
    with tempfile.TemporaryDirectory(prefix="mender-") as scratch:
        record = fit(method, benchmark, Path(scratch), seed=seed, validation_limit=200)
    model, processor = method.plain_model().eval(), method.processor

    announce("4. Evaluation", started)
    popularity = new_method(choose_preset("popularity"), benchmark, encoder, seed)
    fit(popularity, benchmark, output)
    scores, ranks = score_model(model, processor, benchmark, "Mender", eval_limit, seed)
    counted, _ = score_model(
        popularity.model, popularity.processor, benchmark, "popularity", eval_limit, seed, shuffled=False
    )
    settings = {
        **origin,
        "source": benchmark.source,
        "method": "Mender",
        "exclude_seen": not benchmark.repeats,
        "repeats": "keep" if benchmark.repeats else "drop",
        **method.parameters,
        "training": record,
        "preset": asdict(chosen),
        **measure_requests(model, processor, benchmark),
    }
    title = f"{benchmark.source}: {len(benchmark.items):,} items"
    results = write_run(output, in_order([*scores, *counted]), settings, title, ranks)

    announce("5. Saving and steering", started)
    model.save_pretrained(output / "model")
    processor.save_pretrained(output / "model")
    test = benchmark.examples.get("last", benchmark.examples["oracle"])["test"]
    # Histories of customers are for the page to try the model on, and written only if the customers are invented.
    save_showcase(output / "model", benchmark.items, test, histories=benchmark.source in INVENTED)
    example = steer(model, processor, *pick_request(test, preferences=3))
    write_run_card(output / "model", model, processor, benchmark, results, steering=[example], new_weights=True)
    show(example)
    if source == "corner-shop":
        answer(model, processor)
    print(f"\nSaved under {output}/: model/, five_axes.png, five_axes.json, ranks.parquet")
    print(f"In a browser: make web MODEL={output / 'model'}")
    announce("Done", started)


def announce(step: str, started: float) -> None:
    """A heading with the time so far."""
    Console(width=120).rule(f"{step}  [{time.perf_counter() - started:.0f} s]", align="left")


def show(example: SteeringExample) -> None:
    """One history, three sentences: three different lists."""
    print("History, oldest first:", "; ".join(example.history))
    table = Table(title="The same history, three sentences", show_lines=True)
    for sentence in example.lists:
        table.add_column(f'"{sentence}"')
    for row in zip(*example.lists.values(), strict=False):
        table.add_row(*row)
    Console(width=120).print(table)


def answer(model: Any, processor: MenderProcessor) -> None:
    """What somebody gets who comes in and says what they want."""
    table, lists = Table(title="Wishes, misspelt as they are", show_lines=True), []
    for wish, avoided in WISHES:
        inputs = processor([wish], avoid=[[avoided] if avoided else []])
        found = model.recommend(**inputs, top_k=5)
        table.add_column(f'"{wish}"' + (f', avoid "{avoided}"' if avoided else ""))
        lists.append([item["title"] for item in processor.decode_items(found.item_indices[0])])
    for row in zip(*lists, strict=True):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    run_script(main, __doc__)
