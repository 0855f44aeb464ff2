"""Fine-tune a trained model with LoRA and leave its own weights as they are, in six steps.

    python examples/02_train.py --preset mender-tok
    python examples/03_finetune_lora.py outputs/corner-shop/mender-tok-seed0/model --train max_steps=40
    python examples/02_train.py --preset mender-tok --source steam --data path/to/steam
    python examples/03_finetune_lora.py outputs/steam/mender-tok-seed0/model --source steam --data path/to/steam

1. Load a saved model and the benchmark.   2. Put adapters on the encoder's attention and fine-tune.
3. Save the adapter alone, with its card.   4. Load it onto the base model again and continue training.
5. Merge: a complete model with the same results.   6. Save it with its card, compared with the model it comes from.

--train NAME=VALUE changes a training argument of both rounds. A frozen encoder's states can be cached, those of an
adapted one cannot: expect a sample to cost some twenty times as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import transformers
import typer
from datasets import Dataset
from peft import PeftModel

from mender.cards import write_run_card
from mender.cli import options
from mender.data import load_benchmark_data
from mender.evaluation import check_items, measure_requests, score_model
from mender.runs import provenance, write_run
from mender.saved_models import load_saved
from mender.terminal import run_script, user_errors
from mender.training import choose_preset, fit, joined_processes
from modeling_mender import MenderForGenerativeRetrieval, MenderProcessor, Preset, Recommendations, add_lora
from modeling_mender.hub.adapters import save_adapter, write_adapter_card
from modeling_mender.training.data import select_axes
from modeling_mender.training.methods import Method

TRAINING = {"num_train_epochs": 1, "learning_rate": 3e-4, "per_device_train_batch_size": 32}
"""Of each of the two rounds."""


@options.grouped
def main(
    model: options.Model,
    tables: options.TableOptions,
    source: options.Source = "corner-shop",
    seed: options.Seed = 0,
    output: options.Output = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the adapters.")] = 16,
    alpha: Annotated[int, typer.Option(min=1, help="Scale of the adapters.")] = 16,
    arguments: options.Train = None,
    eval_limit: options.EvalLimit = None,
) -> None:
    """The six steps."""
    origin = provenance(seed)
    transformers.set_seed(seed)
    base, processor = load_saved(model)
    with user_errors():
        if joined_processes().num_processes > 1:
            raise ValueError("this script saves and loads between its steps; run it in one process, not by torchrun")
        if not isinstance(base, MenderForGenerativeRetrieval):
            raise ValueError(f"{model} holds a {type(base).__name__}; LoRA needs a Mender with an encoder")
        if processor.history in ("states", "vectors"):
            raise ValueError(f"{model} looks item states up that its frozen encoder made; take a mender-tok")
        benchmark = load_benchmark_data(source, tables.data, **tables.changes)
        check_items(processor, benchmark, model)
        preset = lora_preset(processor, options.assignments(arguments or [], "--train"))
    run_before = Path(model).resolve().parent
    name = f"{run_before.name}-lora"
    output = output or run_before.with_name(name)
    some = select_axes(benchmark.examples.get("last", benchmark.examples["oracle"])["test"], {"recommendation": 1.0})[
        :16
    ]
    before, _ = score_model(base, processor, benchmark, run_before.name, eval_limit, seed=0)
    # 2. The weights of the base model are frozen; only the adapters are trained.
    adapted = add_lora(base, rank=rank, alpha=alpha)
    adapted.print_trainable_parameters()
    earlier = fit(Method(preset, adapted, processor), benchmark, output / "checkpoints" / "first", seed=seed)

    # 3. The adapter alone: small, and of use only together with the model it was trained on.
    save_adapter(adapted, output / "adapter")
    first = ask(adapted, processor, some)

    # 4. Another day, another process: the base model from its folder, the adapter on top, and training continues.
    base, _ = load_saved(model)
    adapted = PeftModel.from_pretrained(base, output / "adapter", is_trainable=True)
    compare("The adapter on a fresh base model", first, ask(adapted, processor, some))
    training = fit(Method(preset, adapted, processor), benchmark, output / "checkpoints" / "second", seed=seed)
    save_adapter(adapted, output / "adapter")
    second = ask(adapted, processor, some)

    # 5. Merged, it is a plain Mender again, as fast as before and loaded without peft.
    trained, total = adapted.get_nb_trainable_parameters()
    merged = adapted.merge_and_unload()
    compare("The merged model", second, ask(merged, processor, some))
    merged.save_pretrained(output / "model")
    processor.save_pretrained(output / "model")

    # 6. Measure it before and after.
    after, ranks = score_model(merged, processor, benchmark, name, eval_limit, seed=0)
    run = {
        **origin,
        "source": benchmark.source,
        "method": name,
        "parameters": total,
        "trained": trained,
        "training": {**training, "steps": earlier["steps"] + training["steps"]},
        **measure_requests(merged, processor, benchmark),
    }
    rows = [(score.axis, score.matching) for score in before]
    both = sorted([*after, *before], key=lambda score: rows.index((score.axis, score.matching)))
    record = write_run(output, both, run, f"LoRA on {run_before.name}, {benchmark.source}", ranks)
    write_run_card(output / "model", merged, processor, benchmark, record, new_weights=True)
    adapted = PeftModel.from_pretrained(load_saved(model)[0], output / "adapter")
    write_adapter_card(output / "adapter", adapted, results=record)
    print(f"Saved under {output}/: adapter/, model/, five_axes.png, five_axes.json, ranks.parquet")


def lora_preset(processor: MenderProcessor, training: Mapping[str, Any] | None = None) -> Preset:
    """The axes of mender-tok for adapters; without preferences, recommendation alone.

    Args:
        processor: of the model that gets the adapters.
        training: training arguments that differ from those below.
    """
    # Without a preference, nothing in the input tells the targets of the other axes.
    conditioning = "history" if processor.preference == "none" else "both"
    checkpointing = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
    changes = {"encoder_training": "lora"}
    return choose_preset("mender-tok", conditioning, changes, {**TRAINING, **checkpointing, **(training or {})})


def ask(model: Any, processor: MenderProcessor, users: Dataset) -> Recommendations:
    """What a model recommends to some users."""
    return model.eval().recommend(**processor(users["preferences"], users["history"]).to(model.device), top_k=10)


def compare(what: str, expected: Recommendations, found: Recommendations) -> None:
    """Say how far two models agree."""
    same = (expected.item_indices == found.item_indices).float().mean()
    gap = (expected.scores - found.scores).abs().max()
    print(f"{what}: {same:.1%} of {found.item_indices.numel()} recommendations the same, scores within {gap:.1e}")


if __name__ == "__main__":
    run_script(main, __doc__)
