"""Trains the language experts "learned" and "terms" on preferences: see `experts.Reader` and `experts.TermWeights`.

Both are trained together, and with the fixed cosine of "dense" if the model has it: the loss is that of the sum, so
each learns what the others do not say. Texts are encoded once, so that an epoch over tens of thousands of preferences
takes seconds. Every relevant item of a preference counts alike. Phrases to avoid are training examples too: their
relevant items are those that have what is to be avoided.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..experts import TEMPERATURE, ExpertSum
from ..item_states import ItemStatesEncoder
from ..language_experts import Lexical
from ..processing_mender import MenderProcessor
from .data import example_column, prepare_examples
from .encoder_states import EncoderStates
from .ranking import one_thread
from .scored_requests import ScoredRequests, axis_and_stratum

__all__ = ["fit_language", "scores_of_items"]

logger = logging.getLogger(__name__)

EPOCHS, LEAST_STEPS, BATCH, RATE, DECAY, DROPOUT = 5, 300, 256, 1e-3, 0.05, 0.4
ROUNDS = 10
"""Parts of the training; validation is measured after each of them."""
NOISE = 0.01
"""Share of NDCG on validation that the weights kept may be below the best: later ones, of a lower rate, vary less."""
MOST_EXAMPLES = 50_000
"""Training preferences at most; of more, a random part is used."""
ITEMS_AT_ONCE = 16_384
"""In larger catalogues, a step compares a random sample of items, and some that are relevant for its preferences."""
RELEVANT_AT_ONCE = 64
"""Relevant items of each preference that such a step draws."""
SCORES_AT_ONCE = 2**24
"""Scores in memory at most, of a batch or of all validation examples; batches have 16 examples at least."""
TEXTS_AT_ONCE = 256
VALIDATION = 2_000
"""Validation preferences at most."""
DENSE_SCALE = 0.25
"""Weight of the cosine before training."""


@dataclass(frozen=True)
class _Texts:
    """Distinct texts, encoded.

    Attributes:
        tokens: token ids, padded with -1. Shape: (D, T).
        vectors: of the texts, of unit length. Shape: (D, width).
        states: of the tokens of all texts, one text after the other, float16. Shape: (S, width).
        starts: where the states of each text start. Shape: (D,).
    """

    tokens: Tensor
    vectors: Tensor
    states: Tensor
    starts: Tensor

    def states_of(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and their states, padded. Shapes: (B, T'), (B, T', width)."""
        tokens = self.tokens[texts]
        tokens = tokens[:, : max(1, int((tokens >= 0).sum(1).max()))]
        place = self.starts[texts][:, None] + torch.arange(tokens.shape[1])
        return tokens, self.states[place.masked_fill(tokens < 0, 0)].float()


@dataclass(frozen=True)
class _Preferences:
    """Preferences and the items that fit them.

    Attributes:
        texts: the text of each, as a row of `_Texts`. Shape: (M,).
        relevant: items of all preferences, one list after the other. Shape: (R,).
        starts: where each list starts, and where the last one ends. Shape: (M + 1,).
        groups: axis and stratum of each; "avoided" for phrases to avoid. Length M.
    """

    texts: Tensor
    relevant: Tensor
    starts: Tensor
    groups: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.texts)

    def items_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Relevant items of some preferences, and the position in `rows` of each. Shape of each: (R',)."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        owner = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        place = torch.arange(len(owner)) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        return self.relevant[self.starts[rows][owner] + place], owner

    def drawn_items_of(self, rows: Tensor, count: int) -> Tensor:
        """Relevant items of some preferences, `count` of each at random, with replacement. Shape: (B, count)."""
        starts, lengths = self.starts[rows, None], self.starts.diff()[rows, None]
        return self.relevant[starts + (torch.rand(len(rows), count) * lengths).long()]

    @property
    def targets(self) -> Tensor:
        """Relevant items of each, -1 for padding. Shape: (M, R)."""
        lists = self.relevant.split(self.starts.diff().tolist())
        return nn.utils.rnn.pad_sequence(lists, batch_first=True, padding_value=-1)

    @cached_property
    def chances(self) -> Tensor:
        """How often each is drawn: with 16 times the examples of another, an axis is drawn 8 times as often."""
        axes, owner = np.unique([axis for axis, _ in self.groups], return_inverse=True)
        return torch.from_numpy(np.bincount(owner, minlength=len(axes)) ** -0.25)[torch.from_numpy(owner)]


class _Language(nn.Module):
    """The sum that is trained: the experts of a model, and a scale for each of the others.

    Args:
        experts: of a model; "learned" and "terms" are trained, as far as there.
        items: vectors of all items. Shape: (N, D).
        texts: what preferences say.
    """

    def __init__(self, experts: ExpertSum, items: Tensor, texts: _Texts) -> None:
        super().__init__()
        self.reader, self.term_weights = experts.reader, experts.term_weights
        self.items, self.texts, self.index = items, texts, experts.lexical
        self.log_dense = nn.Parameter(torch.tensor(math.log(DENSE_SCALE), device=items.device))
        self.log_terms = nn.Parameter(torch.zeros((), device=items.device))
        self.dense = "dense" in experts.config.experts

    def forward(self, texts: Tensor, compared: Tensor | None = None) -> Tensor:
        """Scores of items for texts.

        Args:
            texts: rows of `texts`. Shape: (B,).
            compared: indices of items; default: all. Shape: (N',).

        Returns:
            Shape: (B, N').
        """
        items = self.items if compared is None else self.items[compared]
        vectors, query = self.texts.vectors[texts], 0.0
        if self.dense:
            query = self.log_dense.exp() * vectors
        if self.reader is not None:
            query = query + self.reader(vectors, DROPOUT if self.training else 0.0)
        found = query @ items.T / TEMPERATURE if torch.is_tensor(query) else 0.0
        if self.term_weights is not None:
            tokens, states = (part.to(items.device) for part in self.texts.states_of(texts.cpu()))
            found = found + self.log_terms.exp() * self._lexical(tokens, self.term_weights(states), compared)
        return found

    def _lexical(self, tokens: Tensor, weights: Tensor, compared: Tensor | None) -> Tensor:
        terms = self.index.terms(tokens)
        return self.index(terms, weights) if compared is None else scores_of_items(self.index, compared, terms, weights)

    @property
    def weights(self) -> dict[str, float]:
        """The weights of experts in this sum."""
        found = {"dense": float(self.log_dense.exp())} if self.dense else {}
        found |= {"learned": 1.0} if self.reader is not None else {}
        return found | ({"terms": float(self.log_terms.exp())} if self.term_weights is not None else {})


def fit_language(
    model: Any,
    processor: MenderProcessor,
    examples: datasets.DatasetDict,
    *,
    seed: int = 0,
    states: EncoderStates | None = None,
    fresh: bool = True,
) -> dict[str, Any]:
    """Train the experts "learned" and "terms" of a model, and keep the latest that rank about best on validation.

    Without stated preferences in both splits, they stay as they are; before any training, that is the encoder's cosine,
    and equal weights.

    Args:
        model: with one or both of these experts, and with item vectors and lexical index in place.
        processor: renders preferences.
        examples: `train` and `validation` splits of a benchmark.
        seed: of order, dropout and samples.
        states: cached states of the model's encoder, so that the texts among them are not encoded again.
        fresh: whether to start as the experts were made; else from what they have learned, such as in another shop.

    Returns:
        How many preferences were used, the steps of what was kept, and the "weights" of the trained sum.
    """
    logger.info("training language experts")
    experts = model.experts
    encoder = model.encoder if experts.vectors is None else experts.vectors
    items = encoder.item_states.float()
    for part in (experts.reader, experts.term_weights):
        if part is not None and fresh:
            part.reset()
    most = min(VALIDATION, max(1, SCORES_AT_ONCE // len(items)))
    rendered = [
        _rendered(model, examples[split], processor, limit, seed)
        for split, limit in (("train", MOST_EXAMPLES), ("validation", most))
    ]
    record: dict[str, Any] = {"preferences": len(rendered[0][0]), "steps": 0}
    if not all(texts for texts, *_ in rendered):
        return record
    if experts.vectors is not None:  # an encoder of their own
        states = None
    distinct = {ids for texts, *_ in rendered for ids in texts}
    distinct = sorted(distinct, key=lambda ids: (states is not None and ids in states, len(ids), ids))
    place = {ids: row for row, ids in enumerate(distinct)}
    train, validation = (_preferences([place[ids] for ids in texts], *rest) for texts, *rest in rendered)
    trained = _Language(experts, items, _encoded(encoder, distinct, experts.config.padding, states)).eval()
    rounds = [(_value(trained, validation), 0, _copied(trained))]
    devices = [items.device] if items.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices), one_thread():
        torch.manual_seed(seed)
        trained.requires_grad_(True)
        decayed = [parameter for parameter in trained.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in trained.parameters() if parameter.dim() < 2]
        groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=RATE)
        size = min(BATCH, max(16, SCORES_AT_ONCE // len(items)))
        every = -(-max(EPOCHS * -(-len(train) // size), LEAST_STEPS) // ROUNDS)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROUNDS * every)
        for step in tqdm(range(1, ROUNDS * every + 1), desc="Training language experts"):
            trained.train()
            optimizer.zero_grad()
            _loss(trained, train, torch.multinomial(train.chances, size, replacement=True)).backward()
            optimizer.step()
            schedule.step()
            if step % every == 0:
                rounds.append((_value(trained.eval(), validation), step, _copied(trained)))
        trained.requires_grad_(False)
    least = max(value for value, *_ in rounds) + math.log(1 - NOISE)
    record["steps"], kept = next((step, state) for value, step, state in reversed(rounds) if value >= least)
    trained.load_state_dict(kept, strict=False)
    return record | {"weights": trained.weights}


def scores_of_items(index: Lexical, item_indices: Tensor, terms: Tensor, weights: Tensor) -> Tensor:
    """BM25 of the same items for all queries, where these share many terms that many items have.

    The posting list of each distinct term is read once; a matrix product adds them up.

    Args:
        index: the inverted index of the items.
        item_indices: distinct ones. Shape: (M,).
        terms: see `Lexical.forward`. Shape: (B, T).
        weights: of the terms. Shape: (B, T).

    Returns:
        Shape: (B, M).
    """
    query, term, weights = index.distinct(terms, weights)
    distinct, row = term.unique(return_inverse=True)
    column = torch.full((index.num_items,), -1, device=terms.device)
    column[item_indices] = torch.arange(len(item_indices), device=terms.device)
    rows = torch.arange(len(distinct), device=terms.device)
    owner, item, gains = index.postings(rows, distinct, torch.ones_like(rows))
    place = column[item]
    gained = torch.zeros(len(distinct), len(item_indices), device=terms.device)
    gained[owner[place >= 0], place[place >= 0]] = gains[place >= 0]
    asked = torch.zeros(len(terms), len(distinct), device=terms.device)
    return asked.index_put((query, row), weights) @ gained


def _copied(module: nn.Module) -> dict[str, Tensor]:
    """What is trained of a module; its buffers, such as the index of all words, stay as they are."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def _loss(trained: _Language, preferences: _Preferences, rows: Tensor) -> Tensor:
    """Mean cross-entropy of preferences, each uniform over its relevant items."""
    relevant, owner = (part.to(trained.items.device) for part in preferences.items_of(rows))
    compared = None
    if len(trained.items) > ITEMS_AT_ONCE:
        own = preferences.drawn_items_of(rows, RELEVANT_AT_ONCE).to(relevant.device).flatten()
        drawn = torch.randint(len(trained.items), (ITEMS_AT_ONCE,), device=relevant.device)
        compared = torch.cat([own, drawn]).unique()
        place = torch.searchsorted(compared, relevant).clamp(max=len(compared) - 1)
        there = compared[place] == relevant
        relevant, owner = place[there], owner[there]
    log_probs = trained(preferences.texts[rows], compared).log_softmax(-1)
    share = 1.0 / torch.bincount(owner, minlength=len(rows)).clamp(min=1)
    return -(log_probs[owner, relevant] * share[owner]).sum() / len(rows)


@torch.no_grad()
def _value(trained: _Language, preferences: _Preferences) -> float:
    """How well the relevant items of every preference are ranked, see `ScoredRequests.reached`."""
    scores = torch.cat([trained(texts).cpu() for texts in preferences.texts.split(BATCH)])
    nothing = torch.empty(len(preferences), 0, dtype=torch.int64)
    requests = ScoredRequests({"language": scores}, preferences.targets, nothing, preferences.groups)
    return requests.reached({"language": 1.0})


def _rendered(
    model: Any, examples: datasets.Dataset, processor: MenderProcessor, limit: int, seed: int
) -> tuple[list[tuple[int, ...]], list[list[int]], list[tuple[str, str]]]:
    """Texts, relevant items and groups of the stated preferences of a split, and of phrases to avoid."""
    kind, sentiment = (np.array(example_column(examples, name)) for name in ("kind", "sentiment"))
    said = np.array([any(texts) for texts in example_column(examples, "preferences")], dtype=bool)
    rows = np.flatnonzero((kind == "stated") & (sentiment == "positive") & said)
    if not len(rows):
        return [], [], []
    if len(rows) > limit:
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
    return tuple([column[row] for row in kept] for column in (texts, relevant, groups))


def _preferences(
    texts: Sequence[int], relevant: Sequence[Sequence[int]], groups: list[tuple[str, str]]
) -> _Preferences:
    lengths = torch.tensor([len(items) for items in relevant], dtype=torch.int64)
    return _Preferences(
        texts=torch.tensor(texts, dtype=torch.int64),
        relevant=torch.tensor([item for items in relevant for item in items], dtype=torch.int64),
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        groups=groups,
    )


def _text_tokens(model: Any, input_ids: Sequence[int]) -> tuple[int, ...]:
    """The text part of an input."""
    config = model.experts.config
    return tuple(i for i in input_ids if i < config.text_vocabulary and i != config.padding)


@torch.no_grad()
def _encoded(
    encoder: ItemStatesEncoder, texts: Sequence[tuple[int, ...]], padding: int, cached: EncoderStates | None
) -> _Texts:
    """Texts: first those without cached states, then those with, each ordered by length so that padding is short."""
    new = sum(cached is None or ids not in cached for ids in texts)
    lengths = torch.tensor([len(ids) for ids in texts])
    tokens = torch.full((len(texts), int(lengths.max())), -1)
    vectors, states = [], []
    parts = [*range(0, new, TEXTS_AT_ONCE), *range(new, len(texts), TEXTS_AT_ONCE), len(texts)]
    for start, end in tqdm(list(pairwise(parts)), desc="Encoding preferences"):
        batch = [torch.tensor(ids) for ids in texts[start:end]]
        padded = nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=padding)
        known = [cached[ids] for ids in texts[start:end]] if start >= new else None
        known = known and nn.utils.rnn.pad_sequence(known, batch_first=True).to(encoder.device)
        output = encoder(padded.to(encoder.device), text_states=known)
        vectors.append(output.last_hidden_state[:, 0].float())
        present = torch.arange(padded.shape[1]) < lengths[start : start + len(batch), None]
        states.append(output.text_states.cpu()[present].half())
        tokens[start : start + len(batch), : padded.shape[1]] = padded.masked_fill(~present, -1)
    return _Texts(tokens, torch.cat(vectors), torch.cat(states), lengths.cumsum(0) - lengths)
