"""A training run: from a preset with changes to a saved and measured model."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

import transformers
from accelerate import PartialState
from transformers import T5Config
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from mender.cards import write_run_card
from mender.data import BenchmarkData, item_codes, item_vectors
from mender.evaluation import measure_requests, score_model
from mender.purchases import purchases_of
from mender.recommender import Recommender
from mender.report import in_order
from mender.runs import write_run
from mender.showcase import INVENTED, save_showcase
from modeling_mender import MenderTrainingArguments, Preset, build_method, load_preset, make_trainer
from modeling_mender.configuration_mender import public_name
from modeling_mender.training import catalogue_edits
from modeling_mender.training.methods import Method
from modeling_mender.training.presets import CONDITIONING
from modeling_mender.training.ranking import one_thread
from modeling_mender.training.run import fit_without_gradient, no_accelerator, training_arguments
from preference_benchmark.embedding import encoder_identity

__all__ = [
    "check_report_to",
    "choose_preset",
    "fit",
    "joined_processes",
    "new_method",
    "recommender_of",
    "save_and_measure",
]

logger = logging.getLogger(__name__)


# Training arguments with a separate option.
OPTIONS = {"output_dir": "--output", "seed": "--seed", "report_to": "--report-to"}
# Types of preset fields, and their names in messages.
KINDS = {
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": (int | float, "a number"),
}
MOST_LAYERS = 1_000


def joined_processes() -> PartialState:
    """The processes that torchrun started, or only this one.

    Without `cpu=True` on machines without an accelerator, each process would train by itself.
    """
    return PartialState(cpu=no_accelerator())


def choose_preset(
    name: str,
    conditioning: str = "both",
    changes: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Preset:
    """A preset with changes, checked before anything is computed.

    Args:
        name: of a preset, or a YAML file.
        conditioning: what the model may read, one of `CONDITIONING`.
        changes: fields of the preset.
        training: training arguments.

    Raises:
        ValueError: if one of them is unknown, has a wrong value, or they do not fit together.

    >>> choose_preset("tiger", changes={"max_history": 10}, training={"learning_rate": 3e-4}).max_history
    10
    """
    if conditioning not in CONDITIONING:
        raise ValueError(f"conditioning={conditioning!r} is unknown; pass one of {', '.join(CONDITIONING)}")
    _check_changes(changes or {})
    fields = {**CONDITIONING[conditioning], **(changes or {})}
    if training:
        fields["training"] = {**fields.get("training", {}), **training}
    preset = load_preset(name, **fields)
    _check_training(preset.training)
    training_arguments(preset, "unused")  # checks the values
    return preset


def _check_changes(changes: Mapping[str, Any]) -> None:
    """Check that fields of a preset have values of their kind; `load_preset` checks their names."""
    types = {field.name: str(field.type) for field in dataclass_fields(Preset)}
    for name, value in changes.items():
        if types.get(name, "").startswith("Mapping"):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name}={value!r} is not a mapping; write {name}={{name: value, ...}}")
        else:
            _check_value(name, value, types.get(name, ""), least=0)
    known = T5Config().to_dict()
    for name, value in changes.get("decoder", {}).items():
        if name not in known:
            raise ValueError(f"decoder has no field {name!r}{_suggestion(name, known)}; see T5Config")
        _check_value(f"decoder.{name}", value, type(known[name]).__name__, least=1 if type(known[name]) is int else 0)
    layers = changes.get("decoder", {}).get("num_layers", 1)
    if layers > MOST_LAYERS:
        raise ValueError(f"decoder.num_layers={layers} is out of range; pass {MOST_LAYERS:,} at most")


def _check_training(arguments: Mapping[str, Any]) -> None:
    """Check names and kinds of training arguments, which `TrainingArguments` accepts as they come."""
    types = {field.name: field.type for field in dataclass_fields(MenderTrainingArguments)}
    for name, value in arguments.items():
        if name not in types:
            raise ValueError(
                f"unknown training argument {name!r}{_suggestion(name, types)}; see MenderTrainingArguments"
            )
        if name in OPTIONS:
            raise ValueError(f"{name!r} cannot be a training argument here; pass {OPTIONS[name]}")
        positive = name.endswith("batch_size") or name in ("gradient_accumulation_steps", "top_k")
        _check_value(name, value, getattr(types[name], "__name__", types[name]), least=1 if positive else None)


def _check_value(name: str, value: Any, kind: str, least: int | None) -> None:
    """Check a value's kind, where that is one of `KINDS`, and that a number is finite and not below `least`."""
    if kind not in KINDS:
        return
    types, called = KINDS[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{name}={value!r} is not {called}")
    if kind in ("int", "float") and not (-inf if least is None else least) <= value < inf:
        raise ValueError(f"{name}={value!r} is out of range; pass {called}" + ("" if least is None else f" >= {least}"))


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=3)
    return f", did you mean {' or '.join(close)}" if close else ""


def new_method(preset: Preset, data: BenchmarkData, encoder: str, seed: int) -> Method:
    """Model and processor of a preset for the items of a benchmark, with fresh weights where nothing is pretrained."""
    codes = None
    if preset.model == "mender":
        codes = item_codes(data, encoder, seed=0, quantizer=preset.quantizer, spread=preset.spread)
    transformers.set_seed(seed)
    method = build_method(
        preset,
        data.item_columns,
        encoder=encoder,
        catalogue=None if codes is None else codes.catalogue,
        codebooks=None if codes is None else codes.codebooks,
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
    """Train a method and keep the best weights by validation NDCG@10.

    Args:
        method: see `new_method`.
        data: its train and validation splits are used.
        folder: for checkpoints; those of an earlier run are removed unless this one resumes.
        seed: of data order, dropout and sampling.
        validation_limit: examples per axis that early stopping uses; `None` takes all.
        resume: whether to continue from the last checkpoint in the folder.
        **arguments: fields of `MenderTrainingArguments` that replace those of the preset.

    Returns:
        The record of the training, including `seconds`.
    """
    started = time.perf_counter()
    record = _fit(method, data, folder, seed, validation_limit, resume, arguments)
    return {**record, "seconds": round(time.perf_counter() - started, 1)}


def _fit(
    method: Method,
    data: BenchmarkData,
    folder: Path,
    seed: int,
    validation_limit: int | None,
    resume: bool,
    arguments: dict[str, Any],
) -> dict[str, Any]:
    if not method.preset.trained:
        examples = data.matched(method.preset.matching, seed)
        return fit_without_gradient(method, examples, seed=seed, exclude_seen=not data.repeats)
    trainer = make_trainer(
        method,
        data.matched(method.preset.matching, seed),
        folder,
        seed=seed,
        validation_limit=validation_limit,
        cache=data.cache,
        exclude_seen=not data.repeats,
        **arguments,
    )
    if not resume and trainer.is_world_process_zero():
        # A later --resume must not continue from checkpoints of an earlier run.
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    logger.info("training")
    with one_thread():
        done = trainer.train(resume_from_checkpoint=resume or None)
    ndcg = f"eval_ndcg@{trainer.args.top_k}"
    best = trainer.args.metric_for_best_model or ndcg
    fitted = {}
    if method.preset.experts:
        examples = data.matched(dict.fromkeys(data.examples, 1.0), seed)
        states = trainer.data_collator.states
        fitted = fit_without_gradient(method, examples, seed=seed, exclude_seen=not data.repeats, states=states)
    return {
        **fitted,
        "epochs": trainer.state.epoch,
        "steps": trainer.state.global_step,
        f"best_{best.removeprefix('eval_')}": trainer.state.best_metric,
        "samples_per_second": done.metrics["train_samples_per_second"],
        "curve": [entry for entry in trainer.state.log_history if ndcg in entry or "loss" in entry],
    }


def recommender_of(method: Method, data: BenchmarkData, record: Mapping[str, Any], encoder: str) -> Recommender:
    """A recommender from a trained method.

    Args:
        method: trained.
        data: what it was trained on.
        record: what `fit` returned.
        encoder: the text encoder that made semantic IDs.
    """
    parameters = method.parameters  # before adapters are merged into what they adapt
    model, processor = method.plain_model().eval(), method.processor
    described = {"item_id": processor.item_ids, "title": processor.titles, "text": data.items["text"][:]}
    if "aspects" in data.items.column_names and any(data.items["aspects"][:]):
        described["aspects"] = data.items["aspects"][:]
    if processor.codes:
        described["codes"] = processor.codes
    processor.set_items(described)
    vectors = None
    if hasattr(model, "set_catalogue") and not catalogue_edits.has_text_vectors(model):
        vectors = item_vectors(data, encoder).half()
    examples = data.examples["oracle"]
    settings = {
        "preset": method.preset.name,
        "encoder": {"name": public_name(encoder), "identity": encoder_identity(encoder)[1]},
        "trained_items": len(processor.item_ids),
        "purchases": record.get("purchases", 0),
    }
    if "ridge_penalty" in record:
        settings["ridge_penalty"] = record["ridge_penalty"]
    shop = Recommender(
        model, processor, settings=settings, vectors=vectors, purchases=purchases_of(examples, processor)
    )
    shop.training = {
        **parameters,
        "training": {key: value for key, value in record.items() if key != "seconds"},
        "seconds": record["seconds"],
        "preset": asdict(method.preset),
    }
    return shop


def save_and_measure(
    shop: Recommender,
    data: BenchmarkData,
    output: Path,
    name: str,
    *,
    origin: Mapping[str, Any],
    limit: int | None = None,
    baselines: Mapping[str, Recommender] | None = None,
    showcase_histories: bool = False,
) -> dict[str, Any]:
    """Save a recommender, measure it on all axes, and write the results to the run's folder and the card.

    Args:
        shop: trained in this process.
        data: its test split is used.
        output: folder of the run.
        name: of the method, in tables.
        origin: what `provenance` returned before training; a checkout may change meanwhile.
        limit: test examples (or pairs) per axis at most; `None` takes all.
        baselines: what to measure beside it, by name.
        showcase_histories: whether showcase.json may have histories of customers that are not invented.

    Returns:
        What five_axes.json holds.
    """
    logger.info("saving the model")
    shop.save_pretrained(output / "model")
    histories = showcase_histories or data.source in INVENTED
    test = data.examples.get("last", data.examples["oracle"])["test"]
    save_showcase(output / "model", data.items, test, source=data.source, histories=histories)
    scores, ranks = score_model(shop.model, shop.processor, data, name, limit, seed=0)
    for called, other in (baselines or {}).items():
        scores += score_model(other.model, other.processor, data, called, limit, seed=0, shuffled=False)[0]
    run = {
        **origin,
        "source": data.source,
        "method": name,
        **shop.training,
        "exclude_seen": not data.repeats,
        "repeats": "keep" if data.repeats else "drop",
        **measure_requests(shop.model, shop.processor, data),
    }
    title = f"{name} on {data.source}: {len(data.items):,} items, seed {origin['seed']}"
    record = write_run(output, in_order(scores), run, title, ranks)
    write_run_card(output / "model", shop, data, record, new_weights=True)
    return record


def check_report_to(names: Sequence[str]) -> None:
    """Check that the Trainer can log to these trackers.

    Args:
        names: as `TrainingArguments.report_to` takes them: "tensorboard", "trackio", "wandb", "all", "none", ...

    Raises:
        ValueError: if one is unknown, or its package is not installed.
    """
    for name in names:
        if name in ("all", "none"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"report_to={name!r} is unknown; pass one of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}, all, none"
            )
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:  # the message says what to install
            raise ValueError(f"report_to={name!r} cannot be used: {error}") from error
