"""Training and evaluation through the `Trainer`: predictions are ranked item lists."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.modelcard import TrainingSummary
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, TrainOutput

from ..configuration_mender import public_name
from ..hub.adapters import base_name, keeping_card, required_base, write_adapter_card
from ..hub.card import as_list, write_card
from ..item_scoring import ItemScoringModel
from .batches import EpochSetter, LengthSampler, MenderCollator
from .data import FOR_EXPERTS
from .losses import NEGATIVE_LOSSES, code_loss, text_loss
from .ranking import rank_batch

__all__ = ["MenderTrainer", "MenderTrainingArguments", "last_checkpoint"]

STATE_FILE = "trainer_state.json"
"""The Trainer writes this file last, so a checkpoint without a readable one is incomplete."""
FEATURES = (
    *("input_ids", "item", "seen", "negative", "kind", "length", "labels", "text_labels"),
    *("targets", "target_positions"),
    *FOR_EXPERTS,
)
"""Columns of features."""


def last_checkpoint(folder: str | os.PathLike) -> Path:
    """The newest finished checkpoint in a folder.

    Args:
        folder: the run's `output_dir`.

    Raises:
        ValueError: if there is none.
    """
    steps = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdecimal() and _is_finished(path):
            steps[int(step)] = path
    if not steps:
        raise ValueError(f"there is no finished checkpoint in {folder} to resume from; start again without resuming")
    return steps[max(steps)]


def _is_finished(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True


@dataclass
class MenderTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults retrieval needs.

    Attributes:
        top_k: items returned per example in evaluation.
        num_beams: prefixes kept per level in evaluation; `None` keeps max(30, 2 * top_k).
        negative_loss: loss of items that must not be recommended: "unlikelihood" or "subtracted" (the paper's).
        negative_weight: weight of that loss.
        text_weight: weight of the masked-text loss of alignment tasks.
    """

    top_k: int = field(default=10, metadata={"help": "Items returned per example in evaluation."})
    num_beams: int | None = field(default=None, metadata={"help": "Prefixes kept per level in evaluation."})
    negative_loss: str = field(default="unlikelihood", metadata={"help": f"One of {', '.join(NEGATIVE_LOSSES)}."})
    negative_weight: float = field(default=1.0, metadata={"help": "Weight of the loss of unwanted items."})
    text_weight: float = field(default=1.0, metadata={"help": "Weight of masked text in alignment tasks."})
    remove_unused_columns: bool = False
    train_sampling_strategy: str = "group_by_length"
    length_column_name: str = "length"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing_factor < 1:
            raise ValueError(
                f"label_smoothing_factor={self.label_smoothing_factor}; pass a share of at least 0 and below 1"
            )


class MenderTrainer(Trainer):
    """A `Trainer` whose predictions are ranked item indices (N, top_k) and whose label ids are targets (N,).

    Works for every model with `recommend`, `item_tokens` and `item_indices`, on features that `prepare_examples` makes,
    with a `MenderCollator`. Plain `TrainingArguments` are accepted. Do not pass a `processing_class`: the Trainer would
    write the special tokens of the text tokenizer into the generation config, where the same ids are codes of items.
    """

    current_gradient_accumulation_steps = 1  # forward passes of an update; the Trainer sets it before each
    _size: int | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train; with `resume_from_checkpoint=True`, from the newest complete checkpoint.

        Args:
            resume_from_checkpoint: as for every Trainer.
            *args: as for every Trainer.
            **kwargs: as for every Trainer.

        Raises:
            ValueError: if there is no finished checkpoint to resume from, or label smoothing is used with labels that
                are not codes.
        """
        smoothing = self.args.label_smoothing_factor
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        model = model.get_base_model() if isinstance(model, PeftModel) else model
        if smoothing and isinstance(model, ItemScoringModel):
            raise ValueError(
                f"label_smoothing_factor={smoothing} is only supported for labels that are codes; "
                f"{type(model).__name__} scores whole items, pass 0"
            )
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_checkpoint(self.args.output_dir))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """The Trainer's estimate of operations per step, but with the parameters counted only once.

        The Trainer would iterate over all modules at every step.

        Args:
            inputs: a batch.
        """
        if self._size is None:
            self._size = self.model.num_parameters(exclude_embeddings=True)
        return 6 * inputs["input_ids"].numel() * self._size if "input_ids" in inputs else 0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The loss of the model, or `code_loss` and `text_loss` for unwanted items, masked text and smoothed labels.

        A `compute_loss_func` replaces all of them, as for every Trainer. The model still gets the labels, because they
        are the inputs of its decoder.

        Raises:
            ValueError: if a batch has unwanted items or masked text, which a `compute_loss_func` cannot see.
        """
        inputs = dict(inputs)
        negative, text_labels = inputs.pop("negative", None), inputs.pop("text_labels", None)
        smoothing, own = self.args.label_smoothing_factor, self.compute_loss_func
        if own is not None and not (negative is None and text_labels is None):
            raise ValueError(
                "compute_loss_func only gets outputs and labels, but this batch has unwanted items or masked text; "
                "train without such examples (negatives: none, no alignment) or without compute_loss_func"
            )
        if own is None and negative is None and text_labels is None and not smoothing:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs)
        labels = inputs["labels"]
        if own is not None:
            loss = own(outputs, labels, num_items_in_batch=num_items_in_batch)
        else:
            labels = labels.flatten(0, -2)  # a user may have several targets
            if negative is None:
                negative = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
            loss = code_loss(
                outputs.logits.flatten(0, -3),
                labels,
                negative,
                form=self._setting("negative_loss"),
                weight=self._setting("negative_weight"),
                label_smoothing=smoothing,
                num_items_in_batch=num_items_in_batch,
            )
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The loss was divided by the labels of all processes, but gradients are also averaged over processes.
            loss = loss * self.accelerator.num_processes
        if text_labels is not None:
            words = self.accelerator.unwrap_model(model).get_input_embeddings().weight
            text = text_loss(outputs.encoder_last_hidden_state, words, text_labels)
            if num_items_in_batch is not None:
                # This is a mean over one forward pass, and an update sums several. The Trainer divides by their number
                # only if labels are not counted.
                text = text / self.current_gradient_accumulation_steps
            loss = loss + self._setting("text_weight") * text
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss, the `top_k` best items (B, top_k) and the targets (B,) of a batch."""
        inputs = self._prepare_inputs(inputs)
        recommender = self.accelerator.unwrap_model(model)
        with torch.no_grad(), self.compute_loss_context_manager():
            if "encoder_outputs" not in inputs and hasattr(recommender, "encoder"):
                # The encoder is the most expensive part of a batch; run it once for both the loss and the search.
                names = ("input_ids", "attention_mask", "text_states")
                text = {name: inputs[name] for name in names if name in inputs}
                inputs = {name: value for name, value in inputs.items() if name not in ("input_ids", "text_states")}
                inputs["encoder_outputs"] = (recommender.encoder(**text).last_hidden_state,)
                if getattr(recommender, "experts", None) is not None:  # they read the input itself
                    inputs.setdefault("expert_input_ids", text["input_ids"])
            loss = model(**{name: inputs[name] for name in inputs if name not in ("exclude", "negative")}).loss.detach()
            if prediction_loss_only:
                return loss, None, None
            ranked = rank_batch(recommender, inputs, self._setting("top_k"), self._setting("num_beams"))
        return loss, ranked, recommender.item_indices(inputs["labels"])

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model with its card and, if the collator has one, the processor.

        Args:
            output_dir: default: that of the arguments.
            _internal_call: as for every Trainer.
        """
        folder, adapted = output_dir or self.args.output_dir, self._adapted()
        with keeping_card(folder) if adapted is not None and self.args.should_save else nullcontext():
            super().save_model(output_dir, _internal_call)
        if not self.args.should_save:
            return
        processor = getattr(self.data_collator, "processor", None)
        if adapted is not None:  # an adapter uses the processor of the base model
            # Checkpoints use the name of the base model in the card of the run, which the user may have corrected.
            self._write_card(folder, base_model=base_name(adapted, folder, self.args.output_dir))
            return
        if processor is not None:
            processor.save_pretrained(folder)
        self._write_card(folder)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository on the Hub, except for adapters whose base model has no name on the Hub.

        Args:
            token: as for every Trainer.
            private: as for every Trainer.

        Raises:
            ValueError: before the training, if the name of the base model on the Hub is not known.
        """
        adapted = self._adapted()
        if adapted is not None and self.args.push_to_hub and self.args.hub_strategy != HubStrategy.END:
            required_base(adapted, None, self.args.output_dir)
        super().init_hf_repo(token, private)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Upload the model, or the adapter, with its card.

        Args:
            *args: as for every Trainer.
            **kwargs: as for every Trainer, those of `create_model_card` included; `finetuned_from` names the base model
                of an adapter that was loaded from a folder.

        Raises:
            ValueError: if the name of an adapter's base model on the Hub is not known.
        """
        adapted = self._adapted()
        if adapted is not None:
            required_base(adapted, kwargs.get("finetuned_from"), self.args.output_dir)
        return super().push_to_hub(*args, **kwargs)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write the card of the model or the adapter to the output folder, with training settings and losses.

        Edits of an existing card are kept, see `write_card`.

        Args:
            language: language of texts and titles.
            license: license of the model; default: that of the base encoder.
            tags: added to the tags of every model of this library.
            model_name: name of the model; default: name of the repository or the folder.
            finetuned_from: base model; default: the one in the card, or the name that the model or its encoder was
                loaded by.
            tasks: not used, all models here have the same task.
            dataset_tags: names of data sets on the Hub.
            dataset: the same; used without `dataset_tags`.
            dataset_args: not used.
        """
        if not self.is_world_process_zero():
            return
        metadata = {
            "language": as_list(language),
            "license": license,
            "tags": [*as_list(tags), "generated_from_trainer"],
            "datasets": as_list(dataset_tags or dataset),
            "base_model": finetuned_from,
            "model_name": model_name,
        }
        metadata = {name: value for name, value in metadata.items() if value}
        repo_id = self.hub_model_id or self.args.hub_model_id
        self._write_card(self.args.output_dir, training=_training_section(self), repo_id=repo_id, **metadata)

    def _write_card(self, folder: str, **card: Any) -> None:
        """Write the card of the model or adapter; after training, without the results of earlier weights."""
        step, adapted = self.state.global_step, self._adapted()
        card["new_weights"] = self._step_of_card.get(folder, 0) != step
        self._step_of_card[folder] = step
        if adapted is not None:
            write_adapter_card(folder, adapted, **card)
            return
        model = self.accelerator.unwrap_model(self.model)
        write_card(folder, model, defaults={"base_model": public_name(model.config._name_or_path)}, **card)

    @cached_property
    def _step_of_card(self) -> dict[str, int]:
        """The training step at which the card in each folder was last written."""
        return {}

    def _setting(self, name: str) -> Any:
        """A field of `MenderTrainingArguments`, or its default if the arguments are plain `TrainingArguments`."""
        return getattr(self.args, name, MenderTrainingArguments.__dataclass_fields__[name].default)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # The collator reads these columns; with plain TrainingArguments, the Trainer would remove them.
        self._signature_columns += [name for name in FEATURES if name not in self._signature_columns]

    def _adapted(self) -> PeftModel | None:
        model = self.accelerator.unwrap_model(self.model)
        return model if isinstance(model, PeftModel) else None

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.data_collator, MenderCollator):  # worker processes cannot see the model move to a device
            self.data_collator.item_labels.refresh(self.data_collator.model)
        return super()._get_dataloader(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        data = self.train_dataset if train_dataset is None else train_dataset
        column = self.args.length_column_name
        if self.args.train_sampling_strategy != "group_by_length" or column not in getattr(data, "column_names", ()):
            return super()._get_train_sampler(train_dataset)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler = LengthSampler(data[column][:], size, seed)
        self.remove_callback(EpochSetter)  # of an earlier training
        self.add_callback(EpochSetter(sampler))
        return sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler | None:
        """Examples in their order; grouping by length, as in training, would shuffle predictions."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None


def _training_section(trainer: Trainer) -> str:
    """The training section of the Trainer's own card, as Markdown: settings, losses by epoch, versions."""
    # With `finetuned_from=None` it would query the Hub for the license of the model.
    card = TrainingSummary.from_trainer(trainer, finetuned_from="", tasks=[]).to_model_card()
    heading = "## Training procedure\n"
    text = heading + card.partition(heading)[2]
    if best := trainer.state.best_metric:
        text += f"\nBest {trainer.args.metric_for_best_model}: {best:.4f}, at step {trainer.state.best_global_step}\n"
    return text
