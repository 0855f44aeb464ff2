"""What transfer.py works with: domains, cells, recommenders of the sources, and catalogues exchanged for others."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset, DatasetDict
from torch import Tensor

from mender import Recommender
from mender.data import BenchmarkData, encoder_path, load_benchmark_data
from mender.terminal import UserError
from mender.training import choose_preset, fit, new_method, recommender_of
from modeling_mender.training.methods import Method

RESULTS = Path(__file__).parent / "results" / "transfer"
LITE, GENERATOR = "mender-lite", "mender-emb"
WISHES = ("open_wishes", "wish_and_avoid")
SHARES = (0.01, 0.1)
LEAST_USERS = 3
"""Users of a share at least."""
COLD = 0.1
"""Share of the items that are held out."""
CELLS, REQUESTS, RANKS, QUANTIZERS = "cells", "requests.parquet", "ranks.parquet", "quantizers.json"
OWN = ["rank", "found"]
"""Columns of ranks that differ between cells of a domain; the others are kept once for all of them."""


@dataclass(frozen=True)
class Domain:
    """A data set.

    Attributes:
        source: as `mender train` names it.
        files: its folder under --data; none: the source is embedded.
        options: of the source.
        limit: test examples per axis at most; the same as in comparisons.yaml, so that runs can be compared.
    """

    source: str
    files: str | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    limit: int | None = None


DOMAINS = {
    "corner_shop": Domain("corner-shop", options={"num_users": 300, "num_items": 120}),
    "steam": Domain("steam", "steam", limit=300),
    "musical_instruments": Domain("amazon2014", "amazon2014_musical_instruments", limit=300),
    "gift_cards": Domain("amazon2018", "amazon2018_gift_cards"),
}
PAIRS = (
    ("steam", "corner_shop"),
    ("corner_shop", "steam"),
    ("steam", "gift_cards"),
    ("musical_instruments", "gift_cards"),
)
CODED = (("steam", "corner_shop"),)
"""Pairs of which generators are trained."""
PRESENT = ("corner_shop", "steam")
"""Domains whose baselines benchmarks/comparisons.py has measured on the same requests."""
BASELINES = ("text-search", "popularity", "item-item", LITE, "mender")
QUANTIZED = ("corner_shop", "steam", "gift_cards")
"""Domains that share a quantizer."""
COLD_IN = ("corner_shop", "steam")


@dataclass(frozen=True)
class Cell:
    """One row of a table.

    Attributes:
        part: of the benchmark.
        domain: in which it is asked.
        method: name in the table.
        how: name of what makes it, a key of `HOW`.
        arguments: of that function.
        seed: of everything drawn.
    """

    part: str
    domain: str
    method: str
    how: str
    arguments: Mapping[str, Any]
    seed: int

    @property
    def folder(self) -> str:
        """Where its figures are kept, under the results."""
        name = re.sub(r"[^a-z0-9.]+", "-", self.method.lower().replace("%", " percent")).strip("-")
        return f"{self.part}/{self.domain}/{name}-seed{self.seed}"

    @property
    def plan(self) -> dict[str, Any]:
        """All that it depends on but the code: it is made again when this changes."""
        plan = {"part": self.part, "domain": self.domain, "how": self.how, **self.arguments, "seed": self.seed}
        return json.loads(json.dumps(plan))


@dataclass(frozen=True)
class Made:
    """A recommender to measure.

    Attributes:
        model: the model.
        processor: its processor.
        record: what is to be known of how it was made.
        examples: to ask, in place of the test split of the domain.
    """

    model: Any
    processor: Any
    record: dict[str, Any] = field(default_factory=dict)
    examples: dict[str, DatasetDict] | None = None


class TextStates:
    """States of texts, which the frozen encoder computes once for all models of a run."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], Tensor] = {}

    def serve(self, model: Any) -> None:
        """Let the encoder of a model look its texts up here."""
        known = self.known

        def hook(encoder: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            return _look_up(encoder, arguments, keywords, known)  # copies of a model share what is known

        for encoder in (getattr(model, "encoder", None), getattr(getattr(model, "experts", None), "vectors", None)):
            if encoder is not None and hasattr(encoder, "text_encoder") and not encoder._forward_pre_hooks:
                encoder.register_forward_pre_hook(hook, with_kwargs=True)


@torch.no_grad()
def _look_up(
    encoder: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], known: dict[tuple[int, ...], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """A hook that passes states of texts on; those that are not known are computed."""
    input_ids = arguments[0] if arguments else keywords["input_ids"]
    if keywords.get("text_states") is not None:
        return None
    is_text = (input_ids < encoder.config.text_vocabulary) & (input_ids != encoder.config.text_encoder.pad_token_id)
    texts = [tuple(row[mask].tolist()) for row, mask in zip(input_ids, is_text, strict=True)]
    if not any(texts):
        return None
    new = sorted({text for text in texts if text and text not in known}, key=len)
    for start in range(0, len(new), 64):
        some = new[start : start + 64]
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in some], batch_first=True)
        mask = torch.arange(padded.shape[1]) < torch.tensor([len(text) for text in some])[:, None]
        states = encoder.text_encoder(input_ids=padded, attention_mask=mask.long()).last_hidden_state
        known.update((text, row[: len(text)].half()) for text, row in zip(some, states, strict=True))
    states = torch.zeros(len(texts), max(map(len, texts)), encoder.config.hidden_size)
    for row, text in enumerate(texts):
        if text:
            states[row, : len(text)] = known[text].float()
    return arguments, {**keywords, "text_states": states}


@dataclass
class Lab:
    """Data and models that several cells use, each made once.

    Attributes:
        data_folder: see --data.
        scratch: for models and checkpoints.
        epochs: of the generators.
        seed: of everything drawn.
    """

    data_folder: Path | None
    scratch: Path
    epochs: int
    seed: int = 0

    def __post_init__(self) -> None:
        self.encoder = encoder_path(None)
        self.texts = TextStates()
        self._kept: dict[tuple[Any, ...], Any] = {}

    def once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What was made under a key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def data(self, domain: str) -> BenchmarkData:
        """The benchmark of a domain."""
        own = DOMAINS[domain]
        if own.files and not (self.data_folder and (self.data_folder / own.files).is_dir()):
            raise UserError(f"pass --data with the folder that holds {own.files}/")
        folder = None if own.files is None else self.data_folder / own.files
        changes = {"options": dict(own.options)} if own.options else {}
        return self.once(("data", domain), lambda: load_benchmark_data(own.source, folder, None, **changes))

    def share(self, domain: str, share: float) -> BenchmarkData:
        """The benchmark with a share of its users in training and validation."""
        return self.once(("share", domain, share), lambda: with_users(self.data(domain), share, self.seed))

    def method(self, domain: str, preset: str) -> Method:
        """A new method for the items of a domain."""

        def make() -> Method:
            return new_method(choose_preset(preset), self.data(domain), self.encoder, self.seed)

        method = copy.deepcopy(self.once(("method", domain, preset), make))
        self.texts.serve(method.model)
        transformers.set_seed(self.seed)
        return method

    def trained(self, domain: str, preset: str = LITE) -> Recommender:
        """A recommender trained on all of a domain; it is kept on disk."""

        def make() -> Recommender:
            method, data = self.method(domain, preset), self.data(domain)
            record = fit(method, data, self.scratch / "checkpoints", seed=self.seed)
            return recommender_of(method, data, record, self.encoder)

        return self.saved(f"{domain}-{preset}", make)

    def moved(self, source: str, domain: str, preset: str = LITE) -> Recommender:
        """A recommender of another domain that was given the items of this one in place of its own."""
        return self.saved(
            f"{source}-{preset}-in-{domain}", lambda: exchanged(self.trained(source, preset), self.data(domain).items)
        )

    def saved(self, name: str, make: Callable[[], Recommender]) -> Recommender:
        """A saved recommender, made the first time. Each call returns a copy, which the caller may edit."""
        folder = self.scratch / "models" / f"{name}-seed{self.seed}"

        def load() -> Recommender:
            if not folder.exists():
                make().save_pretrained(folder, purchases=True)
            return Recommender.from_pretrained(folder, device="cpu")

        return copy.copy(self.once(("saved", name), load))


def with_users(data: BenchmarkData, share: float, seed: int) -> BenchmarkData:
    """A benchmark whose training and validation have a random share of the users; the test split stays."""
    known = (data.examples["oracle"][split]["user_id"][:] for split in ("train", "validation"))
    users = sorted({user for own in known for user in own if user})
    count = max(LEAST_USERS, round(share * len(users)))
    drawn = {users[place] for place in np.random.default_rng(seed).permutation(len(users))[:count]}

    def chosen(examples: Dataset) -> Dataset:
        return examples.select(np.flatnonzero([user in drawn for user in examples["user_id"][:]]))

    examples = {
        mode: DatasetDict({split: rows if split == "test" else chosen(rows) for split, rows in own.items()})
        for mode, own in data.examples.items()
    }
    return replace(data, examples=examples)


def exchanged(shop: Recommender, items: Dataset) -> Recommender:
    """A recommender with other items than it was trained with, as a shop that changes its range would do it."""
    shop, own = copy.copy(shop), [item["item_id"] for item in shop.items]
    shop.add_items(described(items))
    shop.remove_items(own)
    return shop


def described(items: Dataset) -> Iterable[dict[str, Any]]:
    """Items as `Recommender.add_items` takes them."""
    names = [name for name in ("item_id", "title", "text", "aspects") if name in items.column_names]
    for row in items.select_columns(names):
        yield {**row, "title": row["title"].strip() or row["item_id"]}


def adopt(model: Any, other: Any) -> None:
    """Give a model of experts what those of another domain have learned of language, and their weights."""
    for name in ("reader", "term_weights"):
        getattr(model.experts, name).load_state_dict(getattr(other.experts, name).state_dict())
    config = other.experts.config
    model.experts.config.set_weights(config.weights, config.avoid)
