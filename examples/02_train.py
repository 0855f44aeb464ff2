"""Train any method of the comparison on any benchmark, in five steps.

    python examples/02_train.py --preset mender-fid                                  # on the corner shop
    python examples/02_train.py --preset mender-tok --source steam --data path/to/steam
    python examples/02_train.py --preset sasrec --source steam --data path/to/built/benchmark
    torchrun --nproc_per_node 2 examples/02_train.py --preset tiger                  # two processes
    python examples/02_train.py --preset mender-fid --resume                         # go on after an interruption

1. Load the benchmark.   2. Give every item a semantic ID.   3. Build the method from its preset.
4. Train it, keep the best weights by validation NDCG@10.   5. Measure it on all axes and save everything.

Fields of a preset are changed by --set field=value (YAML), training arguments by --train name=value:
    --set max_history=10 --set "axes={recommendation: 1.0}" --train learning_rate=3.0e-4 --train bf16=true
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from accelerate import PartialState
from benchmark_data import add_data_arguments, encoder_path, item_codes, load_benchmark_data
from five_axis_evaluation import measure_requests, provenance, score_model, write_results

from modeling_mender import build_method, fit_without_gradient, load_preset, make_trainer, preset_names
from modeling_mender.presets import CONDITIONING
from preference_benchmark.showcase import save_showcase


def parse_arguments() -> argparse.Namespace:
    """Command line of a training run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mender-fid", help=f"one of {', '.join(preset_names())}, or a YAML file")
    add_data_arguments(parser)
    parser.add_argument("--output", type=Path, help="default: outputs/SOURCE/PRESET-seedSEED")
    parser.add_argument("--conditioning", choices=list(CONDITIONING), default="both", help="what the model may read")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a preset's field")
    parser.add_argument("--train", action="append", default=[], metavar="NAME=VALUE", help="change a training argument")
    parser.add_argument("--eval-limit", type=int, help="test examples (or pairs) per axis at most; default: all")
    parser.add_argument("--validation-limit", type=int, default=400, help="examples that early stopping looks at")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint under --output")
    return parser.parse_args()


def main() -> None:
    """The five steps."""
    arguments = parse_arguments()
    try:
        changes = {**CONDITIONING[arguments.conditioning], **assignments(arguments.set)}
        training = assignments(arguments.train)
        preset = load_preset(arguments.preset, **changes, **({"training": training} if training else {}))
        encoder = encoder_path(arguments.encoder)
        with PartialState().main_process_first():  # under torchrun, one process builds and the others read
            data = load_benchmark_data(arguments, encoder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    name = preset.name if arguments.conditioning == "both" else f"{preset.name}-{arguments.conditioning}"
    output = arguments.output or Path("outputs") / arguments.source / f"{name}-seed{arguments.seed}"
    print(f"{preset.name}: {preset.summary}\n{' ' * len(preset.name)}  {preset.cost}")

    codes = item_codes(data, encoder, seed=0)
    transformers.set_seed(arguments.seed)
    method = build_method(
        preset,
        data.item_columns,
        encoder=encoder,
        catalogue=codes.catalogue,
        codebooks=codes.codebooks,
        texts=data.texts,
    )
    print(f"{method.parameters['parameters']:,} parameters, {method.parameters['trained']:,} trained")

    run = {**provenance(arguments.seed), "source": data.source, "method": name, **method.parameters}
    # These matrices are too small to share: on a busy machine two threads wait for each other.
    torch.set_num_threads(1)
    started = time.perf_counter()
    if preset.trained:
        trainer = make_trainer(
            method,
            data.examples["oracle"],
            output / "checkpoints",
            seed=arguments.seed,
            validation_limit=arguments.validation_limit,
            cache=data.cache,
        )
        done = trainer.train(resume_from_checkpoint=arguments.resume or None)
        run["training"] = {
            "epochs": trainer.state.epoch,
            "steps": trainer.state.global_step,
            "best_ndcg@10": trainer.state.best_metric,
            "samples_per_second": done.metrics["train_samples_per_second"],
            "curve": [entry for entry in trainer.state.log_history if "eval_ndcg@10" in entry or "loss" in entry],
        }
        if not trainer.is_world_process_zero():
            return
    else:
        run["training"] = fit_without_gradient(method, data.examples["oracle"])
    run["seconds"] = round(time.perf_counter() - started, 1)

    model = method.plain_model().eval()
    model.save_pretrained(output / "model")
    method.processor.save_pretrained(output / "model")
    examples = data.examples.get("last", data.examples["oracle"])
    save_showcase(output / "model", data.items, examples["test"])
    scores, ranks = score_model(model, method.processor, data, name, arguments.eval_limit, seed=0)
    run |= measure_requests(model, method.processor, data) | {"preset": asdict(preset)}
    title = f"{name} on {data.source}: {len(data.items):,} items, seed {arguments.seed}"
    write_results(output, scores, ranks, run, title)
    print(f"Saved under {output}/: model/, five_axes.png, five_axes.json, ranks.parquet")


def assignments(pairs: list[str]) -> dict[str, Any]:
    """`name=value` pairs, values read as YAML.

    Raises:
        ValueError: if one has no "=".
    """
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no assignment; pass name=value")
    return {name: value_of(text) for name, text in (pair.split("=", 1) for pair in pairs)}


def value_of(text: str) -> Any:
    """A value as YAML writes it, and numbers such as 3e-4, which YAML takes for a word."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


if __name__ == "__main__":
    main()
