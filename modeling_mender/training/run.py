"""Train a method on the examples of a benchmark: features, cached states, the Trainer, the best checkpoint.

The weights with the best NDCG@10 (`top_k`) on validation examples of all trained axes are kept. Items of the history
are left out of the ranking.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate.utils import broadcast
from transformers import EarlyStoppingCallback
from transformers.utils import (
    is_torch_cuda_available,
    is_torch_mps_available,
    is_torch_npu_available,
    is_torch_xpu_available,
)

from ..processing_mender import MenderProcessor
from .alignment_tasks import alignment_features
from .batches import MenderCollator, SequenceCollator, UserCollator
from .data import (
    FOR_EXPERTS,
    example_column,
    prepare_examples,
    repeated,
    select_axes,
    sequence_features,
    user_features,
    without_preferences,
)
from .encoder_states import EncoderStates
from .methods import Method
from .presets import Preset
from .ranking import one_thread, ranking_metrics
from .reading import fit_language
from .trainer import MenderTrainer, MenderTrainingArguments
from .weights import fit_experts

__all__ = [
    "fit_without_gradient",
    "make_trainer",
    "no_accelerator",
    "training_arguments",
]

logger = logging.getLogger(__name__)


def make_trainer(
    method: Method,
    examples: datasets.DatasetDict,
    output_dir: str | Path,
    *,
    seed: int = 0,
    validation_limit: int | None = 400,
    cache: str | Path | None = None,
    exclude_seen: bool = True,
    **arguments: Any,
) -> MenderTrainer:
    """A Trainer for a method; call `.train()`, then `method.plain_model()` is the best model found.

    Args:
        method: what to train, see `build_method`.
        examples: `train` and `validation` splits of a benchmark.
        output_dir: folder for checkpoints.
        seed: seed of data order, dropout and sampling.
        validation_limit: random examples per axis for early stopping, the same in every evaluation; `None` uses all.
        cache: folder for the states of a frozen encoder, which several runs may share; default: `output_dir`.
        exclude_seen: whether validation leaves items of the history out of the ranking; set it to False if items are
            bought repeatedly.
        **arguments: fields of `MenderTrainingArguments` that replace those of the preset.

    Raises:
        ValueError: if the method is not trained by gradient, there are no examples of its axes, or for the reasons
            given in `training_arguments`.
    """
    preset, processor = method.preset, method.processor
    if not preset.trained:
        raise ValueError(f"{preset.name} is not trained by gradient; call fit_without_gradient")
    args = training_arguments(preset, output_dir, seed=seed, **arguments)
    logger.info("rendering examples")
    recommendations = select_axes(examples["train"], {"recommendation": 1.0})
    if preset.model == "sasrec":
        train = sequence_features(recommendations, processor)
    elif preset.left_to_right:
        train = user_features(recommendations, processor)
    else:
        chosen = select_axes(examples["train"], preset.axes, negatives=preset.negatives != "none", seed=seed)
        train = _trained_features(chosen, processor)
        if preset.silent:
            kept = repeated(_with_history(recommendations), preset.silent, np.random.default_rng(seed))
            silent = _trained_features(without_preferences(recommendations.select(kept)), processor)
            train = datasets.concatenate_datasets([train, silent])
        if preset.alignment:
            train = _with_text_labels(train)
            tasks = alignment_features(processor, recommendations, preset.alignment, seed)
            train = datasets.concatenate_datasets([train, tasks.cast(train.features)])
    validation, stopping = None, []
    if args.eval_strategy != "no":
        chosen = _validation_examples(examples["validation"], _validation_axes(preset), validation_limit, seed)
        validation = _trained_features(chosen, processor)
        if preset.silent:
            shown = _validation_examples(examples["validation"], ["recommendation"], validation_limit, seed)
            silent = _trained_features(without_preferences(shown.select(_with_history(shown))), processor)
            validation = datasets.concatenate_datasets([validation, silent])
        stopping = [EarlyStoppingCallback(preset.patience)] if preset.patience else []
    method.model.to(args.device)  # before the Trainer does it, because the states of a frozen encoder are computed now
    if args.world_size > 1:  # see ddp_broadcast_buffers
        for table in method.model.buffers():
            first = broadcast(table.clone())
            if not torch.equal(first, table):
                table.copy_(first)
    features = [split for split in (train, validation) if split]
    return MenderTrainer(
        model=method.model,
        args=args,
        data_collator=_collator(method, features, Path(cache or output_dir), args, exclude_seen),
        train_dataset=train,
        eval_dataset=validation,
        compute_metrics=ranking_metrics,
        callbacks=stopping,
    )


def training_arguments(
    preset: Preset, output_dir: str | Path, *, seed: int = 0, **arguments: Any
) -> MenderTrainingArguments:
    """Checked training arguments: those given, then those of the preset, then defaults that keep the best weights.

    Weights are saved at each evaluation, unless `save_strategy` or `save_steps` are set. Without evaluation or without
    saving, the last weights are kept.

    Args:
        preset: preset of the method.
        output_dir: folder for checkpoints.
        seed: seed of data order, dropout and sampling.
        **arguments: fields of `MenderTrainingArguments`.

    Raises:
        ValueError: if a value is invalid, or the best weights would not be saved.
    """
    given = {**preset.training, **arguments}
    evaluated = given.get("eval_strategy", "epoch")
    saved = given.get("save_strategy", "epoch" if evaluated == "no" else evaluated)
    settings = {
        "eval_strategy": evaluated,
        "save_strategy": saved,
        "load_best_model_at_end": saved != "no",
        "metric_for_best_model": f"eval_ndcg@{given.get('top_k', 10)}",
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,  # else a resumed run waits a whole patience again
        "logging_strategy": "epoch",
        "per_device_eval_batch_size": 128,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": no_accelerator(),  # otherwise, several processes on CPUs would each train by themselves
        # Tables of items never change in training: make_trainer sends them once, not before every forward pass.
        "ddp_broadcast_buffers": False,
        "negative_loss": "unlikelihood" if preset.negatives == "none" else preset.negatives,
        "negative_weight": preset.negative_weight,
    }
    if evaluated == saved == "steps":
        # Without eval_steps, the Trainer uses logging_steps.
        steps = given.get("eval_steps") or given.get("logging_steps")
        settings |= {"save_steps": steps} if steps else {}
    settings |= given
    if evaluated == "no":  # then there is no best checkpoint either
        settings |= {"load_best_model_at_end": False, "metric_for_best_model": None}
    times = ("no", "epoch", "steps")
    if settings["load_best_model_at_end"] and evaluated in times and saved in times and evaluated != saved:
        raise ValueError(
            f"save_strategy={saved!r} with eval_strategy={evaluated!r} may not save the weights with the best result; "
            "pass the same for both, save_strategy='best', or load_best_model_at_end=False"
        )
    return MenderTrainingArguments(output_dir=str(output_dir), seed=seed, **settings)


def no_accelerator() -> bool:
    """Whether this machine only has CPUs to train on."""
    checks = (is_torch_cuda_available, is_torch_mps_available, is_torch_npu_available, is_torch_xpu_available)
    return not any(is_available() for is_available in checks)


def _validation_axes(preset: Preset) -> list[str]:
    """Axes to choose the weights by: all trained axes that the model has the input for.

    With recommendation only, training would stop too early, because steering takes longer to learn.
    """
    trained = (
        ["recommendation"] if preset.model == "sasrec" else [axis for axis, weight in preset.axes.items() if weight]
    )
    ignores_preferences = preset.preference == "none" and "recommendation" in trained
    return ["recommendation"] if ignores_preferences else trained


def _validation_examples(examples: datasets.Dataset, axes: list[str], limit: int | None, seed: int) -> datasets.Dataset:
    """Positive examples of axes, at most `limit` of each."""
    axis, sentiment = (np.array(example_column(examples, name)) for name in ("axis", "sentiment"))
    generator = np.random.default_rng(seed)
    kept = []
    for name in axes:
        rows = np.flatnonzero((axis == name) & (sentiment == "positive"))
        kept.append(rows if limit is None or len(rows) <= limit else generator.choice(rows, limit, replace=False))
    if not sum(map(len, kept)):
        raise ValueError(f"the validation split has no example of the axes {', '.join(axes)}; add some")
    return examples.select(np.sort(np.concatenate(kept)))


def _collator(
    method: Method, splits: list[datasets.Dataset], cache: Path, args: MenderTrainingArguments, exclude_seen: bool
) -> MenderCollator:
    """A collator; if the text encoder is frozen, with the cached states of all texts in the splits."""
    model, processor = method.model, method.processor
    if method.preset.model == "sasrec":
        return SequenceCollator(processor, model, exclude_seen=exclude_seen)
    if method.preset.left_to_right:
        return UserCollator(processor, model, exclude_seen=exclude_seen)
    states = None
    if method.preset.encoder == "pretrained" and method.preset.encoder_training == "frozen":
        texts = [processor.text_part(ids) for features in splits for ids in features["input_ids"]]
        if any(texts):
            cache.mkdir(parents=True, exist_ok=True)
            with args.main_process_first(desc="encoding of inputs"):  # the other processes read the file
                states = EncoderStates.build(model, texts, cache)
    return MenderCollator(processor, model, states, exclude_seen=exclude_seen)


def _with_history(examples: datasets.Dataset) -> np.ndarray:
    """Rows of the examples that have a history."""
    return np.flatnonzero([bool(history) for history in examples["history"][:]])


def _trained_features(examples: datasets.Dataset, processor: MenderProcessor) -> datasets.Dataset:
    """Features of examples without what only experts read, which are fitted after the training."""
    features = prepare_examples(examples, processor)
    return features.remove_columns([name for name in FOR_EXPERTS if name in features.column_names])


def _with_text_labels(features: datasets.Dataset) -> datasets.Dataset:
    return features.add_column("text_labels", [[]] * len(features), feature=datasets.List(datasets.Value("int64")))


@torch.no_grad()
def fit_without_gradient(
    method: Method,
    examples: datasets.DatasetDict,
    *,
    seed: int = 0,
    exclude_seen: bool = True,
    states: EncoderStates | None = None,
) -> dict[str, Any]:
    """Fit the experts of a method and their weights; see `fit_experts`.

    A method with a generator is trained first: its weight is chosen beside the others.

    Args:
        method: a method whose preset has experts.
        examples: `train` and `validation` splits of a benchmark.
        seed: of the language experts' training, and of the choice of validation examples.
        exclude_seen: whether validation leaves items of the history out of the ranking.
        states: cached states of the model's encoder, see `fit_language`.

    Returns:
        The result of `fit_experts`.

    Raises:
        ValueError: if the method has no experts.
    """
    if not method.preset.experts:
        raise ValueError(f"{method.preset.name} has no experts and is trained by gradient; call make_trainer")
    model = method.model.get_base_model() if hasattr(method.model, "get_base_model") else method.model
    model.eval()
    record = {}
    if model.experts.reader is not None or model.experts.term_weights is not None:
        record["learned"] = fit_language(model, method.processor, examples, seed=seed, states=states)
    start = record.get("learned", {}).get("weights")
    with one_thread():
        return record | fit_experts(
            model, method.processor, examples, seed=seed, exclude_seen=exclude_seen, start=start
        )
