"""A training run, from the name of a preset to a saved and measured model.

The processes of a run: those that torchrun started, or this one alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import transformers
import yaml
from accelerate import PartialState
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from mender.cards import write_run_card
from mender.data import BenchmarkData, item_codes
from mender.evaluation import measure_requests, score_model, write_results
from modeling_mender import (
    MenderTrainingArguments,
    Method,
    Preset,
    build_method,
    fit_without_gradient,
    load_preset,
    make_trainer,
)
from modeling_mender.training.presets import CONDITIONING
from modeling_mender.training.run import no_accelerator, training_arguments
from preference_benchmark.showcase import save_showcase

__all__ = [
    "assignments",
    "check_report_to",
    "choose_preset",
    "fit",
    "joined_processes",
    "new_method",
    "save_and_measure",
]


def joined_processes() -> PartialState:
    """What torchrun started, joined. Without an accelerator they must be told to use the CPU, or each runs alone."""
    return PartialState(cpu=no_accelerator())


def choose_preset(
    name: str, conditioning: str = "both", changes: Sequence[str] = (), training: Sequence[str] = ()
) -> Preset:
    """A preset with changes as they are written on a command line.

    Args:
        name: of a preset, or a YAML file.
        conditioning: what the model may read, one of `CONDITIONING`.
        changes: `field=value` for fields of the preset.
        training: `name=value` for training arguments.

    Raises:
        ValueError: if one of them is unknown or no assignment, or they do not go together.

    >>> choose_preset("tiger", changes=["max_history=10"], training=["learning_rate=3e-4"]).training["learning_rate"]
    0.0003
    """
    if conditioning not in CONDITIONING:
        raise ValueError(f"conditioning={conditioning!r}; pass one of {', '.join(CONDITIONING)}")
    fields = {**CONDITIONING[conditioning], **assignments(changes)}
    arguments = assignments(training)
    for key in ("axes", "matching", "alignment", "training", "decoder", "encoder_shape", "lora"):
        if key in fields and not isinstance(fields[key], Mapping):
            raise ValueError(f"{key}={fields[key]!r} has no names; write {key}={{name: value, ...}}")
    preset = load_preset(name, **fields, **({"training": arguments} if arguments else {}))
    known = [field.name for field in dataclass_fields(MenderTrainingArguments)]
    for argument in preset.training:
        if argument not in known:
            close = get_close_matches(argument, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "see MenderTrainingArguments"
            raise ValueError(f"{argument!r} is no training argument; {hint}")
    for argument, option in (("output_dir", "--output"), ("seed", "--seed")):
        if argument in preset.training:
            raise ValueError(f"{argument!r} is no training argument here; pass {option}")
    for argument, value in preset.training.items():
        default = next(field.default for field in dataclass_fields(MenderTrainingArguments) if field.name == argument)
        if type(default) in (int, float) and isinstance(value, str):
            raise ValueError(f"{argument}={value!r} is no number")
    training_arguments(preset, "unused")  # checks the values
    return preset


def new_method(preset: Preset, data: BenchmarkData, encoder: str, seed: int) -> Method:
    """Model and processor of a preset for the items of a benchmark, with fresh weights where nothing is pretrained."""
    codes = item_codes(data, encoder, seed=0)
    transformers.set_seed(seed)
    method = build_method(
        preset,
        data.item_columns,
        encoder=encoder,
        catalogue=codes.catalogue,
        codebooks=codes.codebooks,
        texts=data.texts,
        device=training_arguments(preset, "unused").device,
    )
    print(f"{method.parameters['parameters']:,} parameters, {method.parameters['trained']:,} trained")
    return method


def fit(
    method: Method,
    data: BenchmarkData,
    folder: Path,
    *,
    seed: int = 0,
    validation_limit: int | None = 400,
    resume: bool = False,
    **arguments: Any,
) -> dict[str, Any]:
    """Train a method, keep the best weights by validation NDCG@10.

    Args:
        method: see `new_method`.
        data: its train and validation splits are used.
        folder: for checkpoints; those of an earlier run are removed unless this one resumes.
        seed: of data order, dropout and draws.
        validation_limit: examples of each axis that early stopping looks at; `None` takes all.
        resume: whether to go on from the last checkpoint in the folder.
        **arguments: fields of `MenderTrainingArguments`, over those of the preset.

    Returns:
        What happened, for the record.
    """
    if not method.preset.trained:
        return fit_without_gradient(method, data.matched(method.preset.matching, seed))
    trainer = make_trainer(
        method,
        data.matched(method.preset.matching, seed),
        folder,
        seed=seed,
        validation_limit=validation_limit,
        cache=data.cache,
        **arguments,
    )
    if not resume and trainer.is_world_process_zero():
        # A later --resume must not go on from checkpoints of an earlier run.
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    done = trainer.train(resume_from_checkpoint=resume or None)
    ndcg = f"eval_ndcg@{trainer.args.top_k}"
    best = trainer.args.metric_for_best_model or ndcg
    return {
        "epochs": trainer.state.epoch,
        "steps": trainer.state.global_step,
        f"best_{best.removeprefix('eval_')}": trainer.state.best_metric,
        "samples_per_second": done.metrics["train_samples_per_second"],
        "curve": [entry for entry in trainer.state.log_history if ndcg in entry or "loss" in entry],
    }


def save_and_measure(
    method: Method,
    data: BenchmarkData,
    output: Path,
    name: str,
    *,
    training: dict[str, Any],
    seconds: float,
    origin: Mapping[str, Any],
    limit: int | None = None,
) -> dict[str, Any]:
    """Save the best model of a run, measure it on all axes, write the results beside it and into its card.

    Args:
        method: trained.
        data: its test split is used.
        output: folder of the run.
        name: of the method, in tables.
        training: what `fit` returned.
        seconds: that training took.
        origin: of the run, see `provenance`: asked for before training, since a checkout may change meanwhile.
        limit: test examples (or pairs) per axis at most; `None` takes all.

    Returns:
        What five_axes.json holds.
    """
    parameters = method.parameters  # before adapters are merged into what they adapt
    model = method.plain_model().eval()
    model.save_pretrained(output / "model")
    method.processor.save_pretrained(output / "model")
    save_showcase(output / "model", data.items, data.examples.get("last", data.examples["oracle"])["test"])
    scores, ranks = score_model(model, method.processor, data, name, limit, seed=0)
    run = {
        **origin,
        "source": data.source,
        "method": name,
        **parameters,
        "training": training,
        "seconds": round(seconds, 1),
        **measure_requests(model, method.processor, data),
        "preset": asdict(method.preset),
    }
    title = f"{name} on {data.source}: {len(data.items):,} items, seed {origin['seed']}"
    record = write_results(output, scores, ranks, run, title)
    write_run_card(output / "model", model, method.processor, data, record)
    return record


def check_report_to(names: Sequence[str]) -> None:
    """Checks that the Trainer can log to these trackers.

    Args:
        names: as `TrainingArguments.report_to` takes them: "tensorboard", "trackio", "wandb", "all", "none", ...

    Raises:
        ValueError: if one is unknown, or its package is not installed.
    """
    for name in names:
        if name in ("all", "none"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(f"report_to={name!r}; pass one of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}, all, none")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:  # it says what to install
            raise ValueError(f"report_to={name!r} cannot be used: {error}") from error


def assignments(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` pairs, values read as YAML.

    Raises:
        ValueError: if one has no "=".
    """
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no assignment; pass name=value")
    return {name: _value_of(text) for name, text in (pair.split("=", 1) for pair in pairs)}


def _value_of(text: str) -> Any:
    """A value as YAML writes it; but 3e-4, which YAML takes for a word, is a number, and "no" is a word."""
    if text.lower() in ("no", "yes", "off", "on"):  # save_strategy=no
        return text
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
