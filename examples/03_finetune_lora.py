"""Teach a trained model's encoder new tricks: LoRA on its attention, everything else as it was, in four steps.

    python examples/02_train.py --preset mender-tok
    python examples/03_finetune_lora.py outputs/corner-shop/mender-tok-seed0/model

1. Load a saved model and the benchmark.   2. Put adapters on the encoder's attention.
3. Fine-tune on the training axes, keep the best weights by validation NDCG@10.   4. Merge, save, measure.

A frozen encoder's states can be cached, an adapted one's cannot: expect a sample to cost some twenty times as much.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import transformers
import typer

from mender import options
from mender.data import encoder_path, load_benchmark_data
from mender.errors import user_errors
from mender.evaluation import measure_requests, provenance, score_model, write_results
from mender.saved_models import load_saved
from mender.terminal import run_script
from modeling_mender import MenderForGenerativeRetrieval, Method, add_lora, load_preset, make_trainer


def main(
    model: options.Model,
    source: options.Source = "corner-shop",
    data: options.Data = None,
    users: options.Users = 600,
    items: options.Items = 240,
    seed: options.Seed = 0,
    output: Annotated[Path | None, typer.Option(show_default="beside the run it starts from, -lora")] = None,
    rank: int = 16,
    alpha: int = 16,
    learning_rate: float = 3e-4,
    epochs: float = 1,
    batch_size: int = 32,
    max_steps: Annotated[int, typer.Option(help="Stop after so many steps.", show_default="no limit")] = -1,
    bf16: Annotated[bool, typer.Option("--bf16", help="Mixed precision.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory for a slower step.")
    ] = False,
    eval_limit: options.EvalLimit = None,
) -> None:
    """The four steps."""
    transformers.set_seed(seed)
    torch.set_num_threads(1)
    recommender, processor = load_saved(model)
    with user_errors():
        if not isinstance(recommender, MenderForGenerativeRetrieval):
            raise ValueError(f"{model} holds a {type(recommender).__name__}; LoRA needs a Mender with an encoder")
        if processor.history in ("states", "vectors"):
            raise ValueError(f"{model} looks item states up that its frozen encoder made; take a mender-tok")
        benchmark = load_benchmark_data(source, data, encoder_path(None), users=users, items=items)
    run_before = Path(model).resolve().parent
    output = output or run_before.with_name(f"{run_before.name}-lora")
    name = f"{run_before.name}-lora"
    before, _ = score_model(recommender, processor, benchmark, "before", eval_limit, seed=0)

    recommender.requires_grad_(True)
    adapted = add_lora(recommender, rank=rank, alpha=alpha)
    method = Method(replace(load_preset("mender-tok"), encoder_training="lora"), adapted, processor)
    print(f"{method.parameters['trained']:,} of {method.parameters['parameters']:,} parameters are trained")
    trainer = make_trainer(
        method,
        benchmark.examples["oracle"],
        output / "checkpoints",
        seed=seed,
        cache=benchmark.cache,
        num_train_epochs=epochs,
        max_steps=max_steps,
        learning_rate=learning_rate,
        per_device_train_batch_size=batch_size,
        bf16=bf16,
        gradient_checkpointing=gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    done = trainer.train()

    merged = method.plain_model().eval()
    merged.save_pretrained(output / "model")
    processor.save_pretrained(output / "model")
    after, ranks = score_model(merged, processor, benchmark, name, eval_limit, seed=0)
    run = {
        **provenance(seed),
        "source": benchmark.source,
        "method": name,
        **method.parameters,
        "training": {
            "steps": trainer.state.global_step,
            "best_ndcg@10": trainer.state.best_metric,
            "samples_per_second": done.metrics["train_samples_per_second"],
        },
        **measure_requests(merged, processor, benchmark),
    }
    both = sorted([*before, *after], key=lambda score: [score.axis for score in before].index(score.axis))
    write_results(output, both, ranks, run, f"LoRA on {run_before.name}, {benchmark.source}")
    print(f"Saved under {output}/: model/, five_axes.png, five_axes.json, ranks.parquet")


if __name__ == "__main__":
    run_script(main, __doc__)
