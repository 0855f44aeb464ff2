"""Measure any saved model on all axes, with both ways of choosing preferences, in three steps.

    python examples/04_evaluate.py outputs/corner-shop/mender-seed0/model
    python examples/04_evaluate.py org/some-mender --source steam --data path/to/steam --output outputs/some-mender

1. Load the recommender and the benchmark.   2. Rank the catalogue for every test example, and again with the
preferences of other users.   3. Print the table; write it as PNG and JSON, every rank for 05_compare.py, and the
figures into the card of a model on this disk.
"""

from __future__ import annotations

from pathlib import Path

from mender import Recommender
from mender.cards import write_run_card
from mender.cli import options
from mender.data import load_benchmark_data
from mender.evaluation import check_items, evaluate_saved
from mender.runs import training_of
from mender.terminal import run_script, user_errors


@options.grouped
def main(
    model: options.Model,
    tables: options.TableOptions,
    source: options.Source = "corner-shop",
    output: options.Output = Path("outputs/evaluation"),
    eval_limit: options.EvalLimit = None,
) -> None:
    """The three steps."""
    with user_errors():
        shop = Recommender.from_pretrained(model)
        data = load_benchmark_data(source, tables.data, **tables.changes)
        check_items(shop.processor, data, model)
        run = training_of(model)
    record = evaluate_saved(shop, data, output, run.get("method", output.name), eval_limit, run=run)
    print(f"Saved under {output}/: five_axes.png, five_axes.json, ranks.parquet")
    if Path(model).is_dir():
        print(f"and in the model's card, {write_run_card(Path(model), shop, data, record)}")


if __name__ == "__main__":
    run_script(main, __doc__)
