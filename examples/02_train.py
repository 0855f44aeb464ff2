"""Train any method of the comparison on any benchmark, in four steps.

    python examples/02_train.py --preset mender                                  # on the corner shop
    python examples/02_train.py --preset mender-tok --source steam --data path/to/steam
    torchrun --nproc_per_node 2 examples/02_train.py --preset tiger                  # two processes

1. Load the benchmark.   2. Train the preset, keep the best weights by validation NDCG@10.   3. Save it, and measure it
on all axes.   4. Ask it.

Training arguments are changed by --train name=value. `mender train` does the same with every option there is.
"""

from __future__ import annotations

from pathlib import Path

from mender import Recommender
from mender.cards import pick_request
from mender.cli import options
from mender.data import load_benchmark_data
from mender.runs import provenance
from mender.terminal import run_script, user_errors
from mender.training import choose_preset, joined_processes, save_and_measure


@options.grouped
def main(
    tables: options.TableOptions,
    preset: options.Preset = "mender",
    source: options.Source = "corner-shop",
    seed: options.Seed = 0,
    arguments: options.Train = None,
    eval_limit: options.EvalLimit = None,
) -> None:
    """The four steps."""
    origin = provenance(seed)
    with user_errors():
        training = options.assignments(arguments or [], "--train")
        chosen = choose_preset(preset, training=training)
        with joined_processes().main_process_first():  # under torchrun, one process builds and the others read
            data = load_benchmark_data(source, tables.data, **tables.changes)
    print(f"{chosen.name}: {chosen.summary}")

    output = Path("outputs") / data.source / f"{chosen.name}-seed{seed}"
    shop = Recommender.train(data, preset=preset, seed=seed, training=training, output=output)
    if not joined_processes().is_main_process:
        return
    save_and_measure(shop, data, output, chosen.name, origin=origin, limit=eval_limit)

    history, wishes = pick_request(data.examples["oracle"]["test"], preferences=1)
    asked = {"preference": wishes[0]} if shop.processor.reads_preference else {"history": history}
    print(f"Recommendations for {asked}:")
    for item in shop.recommend(**asked, exclude=history, top_k=5):
        print(f"{item['score']:8.2f}  {item['title']}")
    print(f"Saved under {output}/: model/, five_axes.png, five_axes.json, ranks.parquet")


if __name__ == "__main__":
    run_script(main, __doc__)
