"""Training and evaluation through the `Trainer`: predictions are ranked item lists.

`prepare_examples` turns benchmark examples into token ids and item rows, `MenderCollator` pads them (or looks up cached
encoder states), `MenderTrainer` returns the k best items of every example instead of logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from .encoder_states import EncoderStates
from .modeling_mender import MenderForGenerativeRetrieval
from .processing_mender import MenderProcessor

__all__ = ["MenderCollator", "MenderTrainer", "MenderTrainingArguments", "prepare_examples"]


def prepare_examples(examples: datasets.Dataset, processor: MenderProcessor) -> datasets.Dataset:
    """Model features of examples with the columns `preferences`, `history` and `target`.

    Args:
        examples: one row per example; `preferences` is a list of texts, `history` a list of item ids, `target` an id.
        processor: renders texts and knows the items.

    Returns:
        A data set with `input_ids` (list of int), `item` (row of the target), `seen` (rows of the history) and
        `length` (tokens), in the same order.

    Raises:
        ValueError: if an item is unknown, or an example has neither preference nor history.
    """

    def render(batch: Mapping[str, list]) -> dict[str, list]:
        inputs = processor(batch["preferences"], batch["history"], return_tensors=None)["input_ids"]
        return {
            "input_ids": inputs,
            "item": processor.rows(batch["target"]),
            "seen": [processor.rows(history) for history in batch["history"]],
            "length": [len(ids) for ids in inputs],
        }

    return examples.map(
        render,
        batched=True,
        remove_columns=examples.column_names,
        desc="Rendering examples",
        load_from_cache_file=False,
    )


@dataclass
class MenderCollator:
    """Pads features to the longest of the batch and looks up the labels of their targets.

    Args:
        processor: owner of the tokenizer that pads.
        model: owner of the item table.
        states: cached encoder states by token ids; where given, batches hold `encoder_outputs` instead of `input_ids`.
        exclude_seen: whether batches carry the items of each history, so that evaluation does not return them again.
    """

    processor: MenderProcessor
    model: MenderForGenerativeRetrieval
    states: EncoderStates | None = None
    exclude_seen: bool = False

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: `input_ids` or `encoder_outputs`, `attention_mask` (B, T), `labels` (B, L), perhaps `exclude`."""
        rows = torch.tensor([feature["item"] for feature in features], device=self.model.item_codes.device)
        batch: dict[str, Any] = {"labels": self.model.item_tokens(rows).cpu()}
        lengths = torch.tensor([len(feature["input_ids"]) for feature in features])
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        if self.states is not None:
            found = [self.states[feature["input_ids"]] for feature in features]
            batch["encoder_outputs"] = (pad_sequence(found, batch_first=True),)
        else:
            texts = [torch.tensor(feature["input_ids"]) for feature in features]
            batch["input_ids"] = pad_sequence(
                texts, batch_first=True, padding_value=self.processor.tokenizer.pad_token_id
            )
        if self.exclude_seen:
            seen = [torch.tensor(feature["seen"], dtype=torch.long) for feature in features]
            batch["exclude"] = pad_sequence(seen, batch_first=True, padding_value=-1)
        return batch


@dataclass
class MenderTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults retrieval needs.

    Attributes:
        top_k: items returned per example in evaluation.
        num_beams: prefixes kept per level in evaluation; `None` keeps max(30, 2 k).
    """

    top_k: int = field(default=10, metadata={"help": "Items returned per example in evaluation."})
    num_beams: int | None = field(default=None, metadata={"help": "Prefixes kept per level in evaluation."})
    remove_unused_columns: bool = False
    train_sampling_strategy: str = "group_by_length"
    length_column_name: str = "length"


class MenderTrainer(Trainer):
    """A `Trainer` whose predictions are ranked item rows (N, k) and whose label ids are target rows (N,).

    Pass no `processing_class`: the Trainer would write the text tokenizer's special tokens into the generation config,
    where they are codes of items.
    """

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss, the k best items (B, k) and the targets (B,) of a batch."""
        inputs = self._prepare_inputs(inputs)
        exclude = inputs.pop("exclude", None)
        mender = self.accelerator.unwrap_model(model)
        with torch.no_grad(), self.compute_loss_context_manager():
            if "encoder_outputs" not in inputs:
                # The encoder is the cost of a batch; run it once for both the loss and the search.
                text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
                inputs = {**inputs, "encoder_outputs": (mender.encoder(**text).last_hidden_state,)}
                inputs.pop("input_ids")
            loss = model(**inputs).loss.detach()
            if prediction_loss_only:
                return loss, None, None
            labels = inputs.pop("labels")
            k = self.args.top_k
            found = mender.recommend(**inputs, k=k, num_beams=self.args.num_beams, exclude=exclude).rows
        if found.shape[1] < k:
            found = torch.nn.functional.pad(found, (0, k - found.shape[1]), value=-1)
        return loss, found, mender.item_rows(labels)

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler | None:
        """Examples in order: grouping by length, as in training, would shuffle predictions."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def rank(self, features: datasets.Dataset) -> np.ndarray:
        """The `top_k` best item rows of every example, in the order of the examples.

        Batches are made of examples of equal length, so that little is spent on padding.

        Args:
            features: as `prepare_examples` makes them.

        Returns:
            Shape: (N, k), int64; -1 where the catalogue holds fewer items.
        """
        order = np.argsort(features["length"], kind="stable")
        predicted = self.predict(features.select(order), metric_key_prefix="rank").predictions
        ranked = np.empty_like(predicted)
        ranked[order] = predicted
        return ranked
