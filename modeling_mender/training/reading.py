"""Teaches the expert "learned" what preferences mean: see `experts.Reader`.

Its inputs are vectors of a frozen encoder, computed once, so that an epoch over tens of thousands of preferences takes
seconds. Every relevant item of a preference counts alike. What somebody wants to avoid is a lesson too: the phrase
speaks for the items that have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..experts import TEMPERATURE, Reader
from ..item_states import ItemStatesEncoder
from ..processing_mender import MenderProcessor
from .data import example_column, prepare_examples
from .weights import axis_and_stratum, mean_log_ndcg

__all__ = ["fit_reader"]

EPOCHS, LEAST_STEPS, BATCH, RATE, DECAY, DROPOUT = 10, 300, 256, 1e-3, 0.05, 0.1
ROUNDS = 10
"""Parts of the training, after each of which validation is asked."""
ITEMS_AT_ONCE = 16_384
"""Of larger catalogues, a step compares its relevant items with a random sample of the others."""
TEXTS_AT_ONCE = 256
VALIDATION = 2_000
"""Validation preferences that are asked."""


@dataclass(frozen=True)
class _Lessons:
    """Preferences and the items that fit them.

    Attributes:
        vectors: of the preferences. Shape: (M, D).
        relevant: items of all preferences, one list after the other. Shape: (R,).
        starts: where each list begins, and where the last one ends. Shape: (M + 1,).
        groups: axis and stratum of each; "avoided" for what is to be avoided. Length M.
    """

    vectors: Tensor
    relevant: Tensor
    starts: Tensor
    groups: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.vectors)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Relevant items of some preferences, and which of these each belongs to. Shape of each: (R',)."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        owner = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        place = torch.arange(len(owner)) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        return self.relevant[self.starts[rows][owner] + place], owner


def fit_reader(
    model: Any, processor: MenderProcessor, examples: datasets.DatasetDict, *, seed: int = 0
) -> dict[str, Any]:
    """Train the expert "learned" of a model; what ranks best on validation stays.

    Without stated preferences to learn from, it stays the encoder's own cosine.

    Args:
        model: with an expert "learned", whose items' vectors are in place.
        processor: renders preferences.
        examples: `train` and `validation` splits of a benchmark.
        seed: of order, dropout and samples of items.

    Returns:
        How many preferences it was shown, and the steps until the best.
    """
    experts = model.experts
    encoder = model.encoder if experts.vectors is None else experts.vectors
    reader, items = experts.reader, encoder.item_states.float()
    reader.reset()
    train, validation = (
        _lessons(model, encoder, examples[split], processor, limit, seed)
        for split, limit in (("train", None), ("validation", VALIDATION))
    )
    record: dict[str, Any] = {"preferences": len(train), "steps": 0}
    if not len(train) or not len(validation):
        return record
    kept = {name: value.clone() for name, value in reader.state_dict().items()}
    reached = _value(reader, validation, items)
    devices = [items.device] if items.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        reader.requires_grad_(True)
        decayed = [parameter for parameter in reader.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in reader.parameters() if parameter.dim() < 2]
        groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=RATE)
        per_epoch = -(-len(train) // BATCH)
        every = -(-max(EPOCHS * per_epoch, LEAST_STEPS) // ROUNDS)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROUNDS * every)
        batches: list[Tensor] = []
        for step in tqdm(range(1, ROUNDS * every + 1), desc="Teaching what wishes mean"):
            batches = batches or list(torch.randperm(len(train)).split(BATCH))
            optimizer.zero_grad()
            _loss(reader, train, batches.pop(), items).backward()
            optimizer.step()
            schedule.step()
            if step % every == 0 and (found := _value(reader, validation, items)) > reached:
                reached, record["steps"] = found, step
                kept = {name: value.clone() for name, value in reader.state_dict().items()}
        reader.requires_grad_(False)
    reader.load_state_dict(kept)
    return record


def _loss(reader: Reader, lessons: _Lessons, rows: Tensor, items: Tensor) -> Tensor:
    """Mean cross-entropy of preferences, each uniform over its relevant items."""
    relevant, owner = (part.to(items.device) for part in lessons.of(rows))
    if len(items) > ITEMS_AT_ONCE:
        drawn = torch.randint(len(items), (ITEMS_AT_ONCE,), device=items.device)
        compared = torch.cat([relevant, drawn]).unique()
        relevant, items = torch.searchsorted(compared, relevant), items[compared]
    log_probs = (reader(lessons.vectors[rows], DROPOUT) @ items.T / TEMPERATURE).log_softmax(-1)
    share = 1.0 / torch.bincount(owner, minlength=len(rows)).clamp(min=1)
    return -(log_probs[owner, relevant] * share[owner]).sum() / len(rows)


@torch.no_grad()
def _value(reader: nn.Module, lessons: _Lessons, items: Tensor) -> float:
    """How well the first relevant item of every preference is ranked, see `mean_log_ndcg`."""
    scores = (reader(lessons.vectors) @ items.T).cpu()
    nothing = torch.empty(len(lessons), 0, dtype=torch.int64)
    return mean_log_ndcg(scores, lessons.relevant[lessons.starts[:-1], None], nothing, lessons.groups)


def _lessons(
    model: Any,
    encoder: ItemStatesEncoder,
    examples: datasets.Dataset,
    processor: MenderProcessor,
    limit: int | None,
    seed: int,
) -> _Lessons:
    """What a split teaches: its stated preferences, and what its wishes want to avoid."""
    kind, sentiment = (np.array(example_column(examples, name)) for name in ("kind", "sentiment"))
    said = np.array([any(texts) for texts in example_column(examples, "preferences")], dtype=bool)
    rows = np.flatnonzero((kind == "stated") & (sentiment == "positive") & said)
    if not len(rows):
        return _Lessons(torch.empty(0, 0), *torch.zeros(2, 1, dtype=torch.int64), [])
    if limit is not None and len(rows) > limit:
        rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
    examples = examples.select(rows)
    features = prepare_examples(examples, processor)
    pairs = zip(features["expert_input_ids"][:], features["input_ids"][:], strict=True)
    texts = [own or ids for own, ids in pairs]
    relevant = [processor.item_indices(targets) for targets in example_column(examples, "targets")]
    groups = axis_and_stratum(examples)
    avoided = example_column(examples, "avoided")
    for phrases, items in zip(features["avoid_input_ids"][:], avoided, strict=True):
        if phrases and len(phrases) == 1 and items:
            texts.append(phrases[0])
            relevant.append(processor.item_indices(items))
            groups.append(("avoided", ""))
    texts = [_text_tokens(model, ids) for ids in texts]
    kept = [row for row, (ids, items) in enumerate(zip(texts, relevant, strict=True)) if ids and items]
    texts, relevant, groups = ([column[row] for row in kept] for column in (texts, relevant, groups))
    lengths = torch.tensor([len(items) for items in relevant], dtype=torch.int64)
    return _Lessons(
        vectors=_vectors(encoder, texts, model.experts.config.padding),
        relevant=torch.tensor([item for items in relevant for item in items], dtype=torch.int64),
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        groups=groups,
    )


def _text_tokens(model: Any, input_ids: Sequence[int]) -> tuple[int, ...]:
    """The text part of an input."""
    config = model.experts.config
    return tuple(i for i in input_ids if i < config.text_vocabulary and i != config.padding)


@torch.no_grad()
def _vectors(encoder: ItemStatesEncoder, texts: Sequence[tuple[int, ...]], padding: int) -> Tensor:
    """Vectors of texts, each distinct one encoded once, beside others of its length. Shape: (M, D)."""
    distinct = sorted(set(texts), key=lambda ids: (len(ids), ids))
    place = {ids: row for row, ids in enumerate(distinct)}
    parts = []
    for start in tqdm(range(0, len(distinct), TEXTS_AT_ONCE), desc="Reading preferences"):
        batch = [torch.tensor(ids) for ids in distinct[start : start + TEXTS_AT_ONCE]]
        padded = nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=padding)
        parts.append(encoder(padded.to(encoder.device)).last_hidden_state[:, 0].float())
    table = torch.cat(parts)
    return table[torch.tensor([place[ids] for ids in texts], dtype=torch.int64, device=table.device)]
