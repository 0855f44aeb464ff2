"""Measure any saved model on all axes, with both ways of choosing preferences, in three steps.

    python examples/04_evaluate.py outputs/corner-shop/mender-fid-seed0/model
    python examples/04_evaluate.py org/some-mender --source steam --data path/to/steam --output outputs/some-mender

1. Load model, processor and benchmark.   2. Rank the catalogue for every test example, and again with the
preferences of other users.   3. Print the table; write it as PNG and JSON, and every rank for 05_compare.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from benchmark_data import add_data_arguments, encoder_path, load_benchmark_data
from five_axis_evaluation import measure_requests, provenance, score_model, write_results
from transformers import AutoModel, AutoProcessor

import modeling_mender  # noqa: F401 - registers the classes


def parse_arguments() -> argparse.Namespace:
    """Command line of an evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub name of a saved model")
    add_data_arguments(parser)
    parser.add_argument("--output", type=Path, help="default: the folder above the model's")
    parser.add_argument("--name", help="of the method, in tables; default: the folder's name")
    parser.add_argument("--eval-limit", type=int, help="test examples (or pairs) per axis at most; default: all")
    return parser.parse_args()


def main() -> None:
    """The three steps."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    try:
        data = load_benchmark_data(arguments, encoder_path(arguments.encoder))
        model = AutoModel.from_pretrained(arguments.model).eval()
        processor = AutoProcessor.from_pretrained(arguments.model)
        if processor.item_ids != data.items["item_id"][:]:
            raise ValueError(f"{arguments.model} was trained on other items than {data.source} has")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    output = arguments.output or Path(arguments.model).resolve().parent
    name = arguments.name or output.name
    scores, ranks = score_model(model, processor, data, name, arguments.eval_limit, seed=0)
    run = {
        **provenance(arguments.seed),
        "source": data.source,
        "method": name,
        "parameters": model.num_parameters(),
        **measure_requests(model, processor, data),
    }
    write_results(output, scores, ranks, run, f"{name} on {data.source}: {len(data.items):,} items")
    print(f"Saved under {output}/: five_axes.png, five_axes.json, ranks.parquet")


if __name__ == "__main__":
    main()
