"""Teach a trained model's encoder new tricks: LoRA on its attention, everything else as it was, in four steps.

    python examples/02_train.py --preset mender-tok
    python examples/03_finetune_lora.py outputs/corner-shop/mender-tok-seed0/model

1. Load a saved model and the benchmark.   2. Put adapters on the encoder's attention.
3. Fine-tune on the training axes, keep the best weights by validation NDCG@10.   4. Merge, save, measure.

A frozen encoder's states can be cached, an adapted one's cannot: expect a sample to cost some twenty times as much.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from benchmark_data import add_data_arguments, encoder_path, load_benchmark_data
from five_axis_evaluation import measure_requests, provenance, score_model, write_results
from transformers import AutoModel, AutoProcessor

from modeling_mender import MenderForGenerativeRetrieval, Method, add_lora, load_preset, make_trainer


def parse_arguments() -> argparse.Namespace:
    """Command line of a fine-tuning run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a saved Mender")
    add_data_arguments(parser)
    parser.add_argument("--output", type=Path, help="default: MODEL/../../NAME-lora, beside the run it starts from")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-steps", type=int, default=-1, help="stop after so many steps")
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory for a slower step")
    parser.add_argument("--eval-limit", type=int, help="test examples (or pairs) per axis at most; default: all")
    return parser.parse_args()


def main() -> None:
    """The four steps."""
    arguments = parse_arguments()
    transformers.set_seed(arguments.seed)
    torch.set_num_threads(1)
    try:
        data = load_benchmark_data(arguments, encoder_path(arguments.encoder))
        model = AutoModel.from_pretrained(arguments.model)
        processor = AutoProcessor.from_pretrained(arguments.model)
        if not isinstance(model, MenderForGenerativeRetrieval):
            raise ValueError(f"{arguments.model} holds a {type(model).__name__}; LoRA needs a Mender with an encoder")
        if processor.history in ("states", "vectors"):
            raise ValueError(f"{arguments.model} looks item states up that its frozen encoder made; take a mender-tok")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = arguments.model.resolve().parent
    output = arguments.output or source.with_name(f"{source.name}-lora")
    before, _ = score_model(model, processor, data, "before", arguments.eval_limit, seed=0)

    model.requires_grad_(True)
    adapted = add_lora(model, rank=arguments.rank, alpha=arguments.alpha)
    method = Method(replace(load_preset("mender-tok"), encoder_training="lora"), adapted, processor)
    print(f"{method.parameters['trained']:,} of {method.parameters['parameters']:,} parameters are trained")
    trainer = make_trainer(
        method,
        data.examples["oracle"],
        output / "checkpoints",
        seed=arguments.seed,
        cache=data.cache,
        num_train_epochs=arguments.epochs,
        max_steps=arguments.max_steps,
        learning_rate=arguments.learning_rate,
        per_device_train_batch_size=arguments.batch_size,
        bf16=arguments.bf16,
        gradient_checkpointing=arguments.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    done = trainer.train()

    merged = method.plain_model().eval()
    merged.save_pretrained(output / "model")
    processor.save_pretrained(output / "model")
    after, ranks = score_model(merged, processor, data, f"{source.name}-lora", arguments.eval_limit, seed=0)
    run = {
        **provenance(arguments.seed),
        "source": data.source,
        "method": f"{source.name}-lora",
        **method.parameters,
        "training": {
            "steps": trainer.state.global_step,
            "best_ndcg@10": trainer.state.best_metric,
            "samples_per_second": done.metrics["train_samples_per_second"],
        },
        **measure_requests(merged, processor, data),
    }
    both = sorted([*before, *after], key=lambda score: [score.axis for score in before].index(score.axis))
    write_results(output, both, ranks, run, f"LoRA on {source.name}, {data.source}")
    print(f"Saved under {output}/: model/, five_axes.png, five_axes.json, ranks.parquet")


if __name__ == "__main__":
    main()
