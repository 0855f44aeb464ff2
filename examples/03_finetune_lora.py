"""Fine-tune a trained model with LoRA and leave its own weights as they are, in six steps.

    python examples/02_train.py --preset mender-tok
    python examples/03_finetune_lora.py outputs/corner-shop/mender-tok-seed0/model --train max_steps=40
    python examples/02_train.py --preset mender-tok --source steam --data path/to/steam
    python examples/03_finetune_lora.py outputs/steam/mender-tok-seed0/model --source steam --data path/to/steam

1. Load a saved recommender and the benchmark.   2. Put adapters on the encoder's attention and fine-tune.
3. Save the adapter alone, with its card.   4. Load it onto the base model again and continue training.
5. Merge: a recommender with the same results, saved and measured beside the one it comes from.   6. Ask both.

--train NAME=VALUE changes a training argument of both rounds. A frozen encoder's states can be cached, those of an
adapted one cannot: expect a sample to cost some twenty times as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from datasets import Dataset
from peft import PeftModel

from mender import Recommender
from mender.cards import pick_request, steer
from mender.cli import options
from mender.data import encoder_path, load_benchmark_data
from mender.evaluation import check_items
from mender.runs import provenance
from mender.terminal import run_script, user_errors
from mender.training import choose_preset, fit, joined_processes, recommender_of, save_and_measure
from modeling_mender import MenderForGenerativeRetrieval, MenderProcessor, Preset, add_lora
from modeling_mender.hub.adapters import save_adapter, write_adapter_card
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
    arguments: options.Train = None,
    eval_limit: options.EvalLimit = None,
) -> None:
    """The six steps."""
    origin = provenance(seed)
    transformers.set_seed(seed)
    with user_errors():
        if joined_processes().num_processes > 1:
            raise ValueError("this script saves and loads between its steps; run it in one process, not by torchrun")
        base = Recommender.from_pretrained(model)
        processor = base.processor
        if not isinstance(base.model, MenderForGenerativeRetrieval):
            raise ValueError(f"{model} holds a {type(base.model).__name__}; LoRA needs a Mender with an encoder")
        if processor.history in ("states", "vectors"):
            raise ValueError(f"{model} looks item states up that its frozen encoder made; take a mender-tok")
        data = load_benchmark_data(source, tables.data, **tables.changes)
        check_items(processor, data, model)
        preset = lora_preset(processor, options.assignments(arguments or [], "--train"))
    run_before = Path(model).resolve().parent
    name = f"{run_before.name}-lora"
    output = output or run_before.with_name(name)
    test = data.examples.get("last", data.examples["oracle"])["test"]

    # 2. The weights of the base model are frozen; only the adapters are trained.
    adapted = add_lora(base.model, rank=16)
    adapted.print_trainable_parameters()
    earlier = fit(Method(preset, adapted, processor), data, output / "checkpoints" / "first", seed=seed)

    # 3. The adapter alone: small, and of use only together with the model it was trained on.
    save_adapter(adapted, output / "adapter")
    first = ask(adapted, processor, test)

    # 4. Another day, another process: the base model from its folder, the adapter on top, and training continues.
    base = Recommender.from_pretrained(model)
    adapted = PeftModel.from_pretrained(base.model, output / "adapter", is_trainable=True)
    compare("The adapter on a fresh base model", first, ask(adapted, processor, test))
    method = Method(preset, adapted, processor)
    training = fit(method, data, output / "checkpoints" / "second", seed=seed)
    save_adapter(adapted, output / "adapter")
    second = ask(adapted, processor, test)

    # 5. Merged, it is a plain Mender again, as fast as before and loaded without peft.
    record = {**training, "steps": earlier["steps"] + training["steps"]}
    shop = recommender_of(method, data, record, encoder_path(base.settings.get("encoder", {}).get("name")))
    compare("The merged model", second, ask(shop.model, processor, test))
    before = Recommender.from_pretrained(model)
    baselines = {run_before.name: before}
    results = save_and_measure(shop, data, output, name, origin=origin, limit=eval_limit, baselines=baselines)
    adapted = PeftModel.from_pretrained(Recommender.from_pretrained(model).model, output / "adapter")
    write_adapter_card(output / "adapter", adapted, results=results)

    # 6. The same request, before and after.
    if processor.reads_preference:
        history, wishes = pick_request(test, preferences=1)
        for called, one in ((run_before.name, before), (name, shop)):
            print(f"{wishes[0]} ({called}): {'; '.join(steer(one, history, wishes).lists[wishes[0]])}")
    print(f"Saved under {output}/: adapter/, model/, five_axes.png, five_axes.json, ranks.parquet")


def lora_preset(processor: MenderProcessor, training: Mapping[str, Any]) -> Preset:
    """The axes of mender-tok, trained by adapters; for a model that reads no preferences, recommendation alone."""
    # Without a preference, nothing in the input tells the targets of the other axes.
    conditioning = "history" if processor.preference == "none" else "both"
    checkpointing = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
    changes = {"encoder_training": "lora"}
    return choose_preset("mender-tok", conditioning, changes, {**TRAINING, **checkpointing, **training})


def ask(model: Any, processor: MenderProcessor, examples: Dataset) -> list[list[dict[str, Any]]]:
    """What a model, adapted or not, recommends after the first histories."""
    histories = [history for history in examples["history"][:] if history][:16]
    return Recommender(model, processor).recommend_batch([{"history": history} for history in histories])


def compare(what: str, expected: list[list[dict[str, Any]]], found: list[list[dict[str, Any]]]) -> None:
    """Say how far two models agree."""
    pairs = [pair for lists in zip(expected, found, strict=True) for pair in zip(*lists, strict=True)]
    same = sum(one["item_id"] == other["item_id"] for one, other in pairs) / len(pairs)
    gap = max(abs(one["score"] - other["score"]) for one, other in pairs)
    print(f"{what}: {same:.1%} of {len(pairs)} recommendations the same, scores within {gap:.1e}")


if __name__ == "__main__":
    run_script(main, __doc__)
