"""From purchase histories to a recommender that listens, in six steps.

    python examples/01_quickstart.py                                          # the corner shop: nothing to download
    python examples/01_quickstart.py --source steam --data path/to/steam      # the same job on real files
    python examples/01_quickstart.py --source table --data path/to/your/data  # or on yours

1. Build the benchmark: items, interactions, preferences, axes.   2. Give every item a semantic ID.
3. Train a preset.   4. Measure it against popularity and against itself with other users' preferences.
5. Save it.   6. Steer the recommendations for one history with three different sentences.

Everything is saved under outputs/quickstart/ (or --output): the model, the table as PNG and JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import evaluate
import numpy as np
import torch
import transformers
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from mender.cards import encoder_name, pick_request, steer
from mender.data import BenchmarkData, encoder_path, item_codes, load_benchmark_data
from mender.evaluation import KS, metric_folder, sample, shuffle_preferences
from mender.report import Score, in_order
from mender.runs import provenance, write_run
from mender.showcase import save_showcase
from mender.training import joined_processes
from modeling_mender import MenderProcessor, MenderTrainer, build_method, load_preset, make_trainer
from modeling_mender.hub.card import write_card
from modeling_mender.hub.results import SteeringExample
from modeling_mender.training.data import select_axes
from modeling_mender.training.methods import Method
from modeling_mender.training.presets import preset_names
from modeling_mender.training.ranking import rank_examples, request_speed
from modeling_mender.training.run import fit_without_gradient
from modeling_mender.training.trainer import MenderCollator, prepare_examples
from preference_benchmark.sources import SOURCES

# The presets that a preference steers; the others are for comparison (examples/02_train.py).
LEARNERS = tuple(name for name in preset_names() if name.startswith("mender-"))


def parse_arguments() -> argparse.Namespace:
    """Command line of the main job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="corner-shop", help=f"one of {', '.join(sorted(SOURCES))}")
    parser.add_argument("--data", type=Path, help="folder or file of the source; not needed for corner-shop")
    parser.add_argument("--users", type=int, default=600, help="users of the corner shop")
    parser.add_argument("--items", type=int, default=240, help="items of the corner shop")
    parser.add_argument("--output", type=Path, default=Path("outputs/quickstart"))
    parser.add_argument("--encoder", help="name or folder of a text encoder; default: all-MiniLM-L6-v2")
    parser.add_argument("--preset", default="mender-emb", choices=[*LEARNERS], help="how the model reads and trains")
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--eval-limit", type=int, default=200, help="test examples (or pairs) per axis at most")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """The six steps."""
    arguments = parse_arguments()
    transformers.set_seed(arguments.seed)
    started = time.perf_counter()
    if joined_processes().num_processes > 1:
        print("error: the quickstart runs in one process; for several, see docs/training.md", file=sys.stderr)
        sys.exit(2)

    announce("1. The benchmark", started)
    shop = {"num_users": arguments.users, "num_items": arguments.items, "seed": arguments.seed}
    try:
        benchmark = load_benchmark_data(
            arguments.source,
            arguments.data,
            arguments.encoder,
            options=shop if arguments.source == "corner-shop" else None,
            seed=arguments.seed,
        )
    except (ValueError, OSError) as error:  # what came, what was expected, what to do: no traceback needed
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    counts = {split: len(examples) for split, examples in benchmark.examples["oracle"].items()}
    print(f"{len(benchmark.items):,} items; examples: {', '.join(f'{n:,} {split}' for split, n in counts.items())}")
    encoder = encoder_path(arguments.encoder)

    announce("2. Semantic IDs", started)
    codes = item_codes(benchmark, encoder, arguments.seed)

    announce("3. Training", started)
    preset = load_preset(arguments.preset, training={"num_train_epochs": arguments.epochs})
    print(f"{preset.name}: {preset.summary}")
    method = build_method(
        preset, benchmark.item_columns, encoder=encoder, catalogue=codes.catalogue, codebooks=codes.codebooks
    )
    trainer = train(method, benchmark, arguments.seed)
    model, processor = method.plain_model().eval(), method.processor

    announce("4. Evaluation", started)
    scores = measure(trainer, processor, benchmark, arguments)
    title = f"{benchmark.source}: {len(benchmark.items):,} items"
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    settings |= {
        **provenance(arguments.seed),
        "preset": asdict(preset),
        "seconds": round(time.perf_counter() - started),
    }
    test = benchmark.examples["last"]["test"]
    settings |= request_speed(model, processor, select_axes(test, {"recommendation": 1.0}))
    record = write_run(arguments.output, scores, settings, title)

    announce("5. Saving", started)
    model.save_pretrained(arguments.output / "model")
    processor.save_pretrained(arguments.output / "model")
    save_showcase(arguments.output / "model", benchmark.items, benchmark.examples["last"]["test"])
    example = steer(model, processor, *pick_request(test, preferences=3))
    base = {"base_model": encoder_name(model)}
    write_card(arguments.output / "model", model, results=record, steering=[example], defaults=base, new_weights=True)

    announce("6. Steering", started)
    show(example)
    print(f"\nSaved under {arguments.output}/: model/, five_axes.png, five_axes.json")
    print(f"In a browser: make web MODEL={arguments.output / 'model'}")
    announce("Done", started)


def announce(step: str, started: float) -> None:
    """A heading with the time so far."""
    Console(width=120).rule(f"{step}  [{time.perf_counter() - started:.0f} s]", align="left")


def train(method: Method, benchmark: BenchmarkData, seed: int) -> MenderTrainer:
    """Train on every axis that the preset names; keep the weights with the best NDCG@10 on validation examples."""
    # The decoder's matrices are too small to share: on a busy machine two threads wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mender-") as scratch:
        trainer = make_trainer(method, benchmark.examples["oracle"], scratch, seed=seed, validation_limit=200)
        trainer.train()
    torch.set_num_threads(threads)
    # In these data sets nobody buys an item twice: neither Mender nor popularity returns what a history holds.
    trainer.data_collator = MenderCollator(method.processor, method.model, exclude_seen=True)
    return trainer


def measure(
    trainer: MenderTrainer,
    processor: MenderProcessor,
    benchmark: BenchmarkData,
    arguments: argparse.Namespace,
) -> list[Score]:
    """Mender, Mender with shuffled preferences and popularity on the axes of the test split."""
    metric = evaluate.load(metric_folder())
    popularity = build_method(load_preset("popularity"), benchmark.item_columns)
    fit_without_gradient(popularity, benchmark.examples["oracle"])
    scores = []
    for matching in ("oracle", "last"):
        test = benchmark.examples[matching]["test"]
        if matching == "last":  # the other axes do not depend on how the next item's preference is chosen
            test = select_axes(test, {"recommendation": 1.0})
        test = sample(test, arguments.eval_limit, arguments.seed)
        rankings = {
            "Mender": item_ids(trainer, processor, test),
            "Mender, shuffled preferences": item_ids(trainer, processor, shuffle_preferences(test, arguments.seed)),
            "popularity": ids_of(rank_examples(popularity.model, popularity.processor, test, max(KS)), processor),
        }
        columns = {
            "references": [targets[0] for targets in test["targets"]],
            "axes": test["axis"][:],
            "sentiments": test["sentiment"][:],
            "pair_ids": test["pair_id"][:],
        }
        for method, ranking in rankings.items():
            figures = metric.compute(predictions=ranking, **columns, ks=list(KS))
            for axis in dict.fromkeys(columns["axes"]):
                own = {name.split("/", 1)[1]: value for name, value in figures.items() if name.startswith(f"{axis}/")}
                scores.append(Score(axis, matching if axis == "recommendation" else "", method, own))
    return in_order(scores)


def item_ids(trainer: MenderTrainer, processor: MenderProcessor, examples: Dataset) -> list[list[str]]:
    """The ten best items of every example."""
    return ids_of(trainer.rank(prepare_examples(examples, processor)), processor)


def ids_of(ranked: np.ndarray, processor: MenderProcessor) -> list[list[str]]:
    """Item ids of ranked item indices."""
    return [processor.ids(item_indices) for item_indices in ranked]


def show(example: SteeringExample) -> None:
    """One history, three sentences: three different lists."""
    print("History, oldest first:", "; ".join(example.history))
    table = Table(title="The same history, three sentences", show_lines=True)
    for sentence in example.lists:
        table.add_column(f'"{sentence}"')
    for row in zip(*example.lists.values(), strict=False):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
