"""Transfer: train in one domain, ask in another, without training and with shares of its purchases.

    python benchmarks/transfer.py --data path/to/data                        # everything that is not there yet
    python benchmarks/transfer.py --data path/to/data --only gift_cards --only steam
    python benchmarks/transfer.py --data path/to/data --part pairs --method "text-search"
    python benchmarks/transfer.py --tables-only

Three parts. "pairs": `mender-lite` of a source domain is given the items of a target domain (`add_items`, then
`remove_items` of its own) and is asked the target's test requests; then some users of the target are drawn, and their
purchases are counted, or weights are fitted, or language experts trained, from the source's or from scratch. Single
experts are asked as well. "quantizers": codebooks fitted on the items of all domains against those of one domain, and
what `mender-emb` makes of either, at home and in another domain. "cold": a tenth of a domain's items is held out of
catalogue, histories and targets, and added after training.

Every cell leaves run.json and ranks.parquet under benchmarks/results/transfer; what all cells of a domain are asked,
users and items hashed, is kept once. A finished cell
is not repeated; models of the sources are kept under --scratch. Source and target have different items and customers;
what may have been seen is the text encoder's.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import torch
import transformers
import typer
from comparisons import RUNS, hashed, public_command
from datasets import Dataset, DatasetDict
from matched_training import kept
from measuring import shown, write_rows
from torch import Tensor

from mender import Recommender
from mender.comparison import Comparison, compare
from mender.data import BenchmarkData, encoder_path, item_vectors, load_benchmark_data
from mender.evaluation import score_model
from mender.purchases import purchases_of
from mender.report import save_figure
from mender.runs import provenance
from mender.terminal import UserError, run_script
from mender.training import choose_preset, fit, new_method, recommender_of
from modeling_mender import ResidualKMeans, SemanticIdCatalogue, build_method
from modeling_mender.configuration_mender import BEHAVIOUR, KINDS
from modeling_mender.semantic_ids.residual_kmeans import choose_codes, reconstruction_error
from modeling_mender.semantic_ids.tie_breaking import break_ties, report
from modeling_mender.training import catalogue_edits
from modeling_mender.training.data import select_axes
from modeling_mender.training.methods import Method
from modeling_mender.training.ranking import one_thread
from modeling_mender.training.reading import fit_language
from modeling_mender.training.weights import fit_experts
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.stages import write_atomically

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


# What makes the recommenders of cells


def trained_at_home(lab: Lab, domain: str, preset: str, share: float = 1.0) -> Made:
    """Trained on a share of the domain's users."""
    if share == 1 and preset == LITE:
        shop = lab.trained(domain)
        return Made(shop.model, shop.processor)
    method, data = lab.method(domain, preset), lab.share(domain, share) if share < 1 else lab.data(domain)
    record = fit(method, data, lab.scratch / "checkpoints", seed=lab.seed)
    return Made(method.model, method.processor, {**record, **counted(data)})


def without_training(lab: Lab, domain: str, source: str, unasked: str | None = None) -> Made:
    """Given the domain's items, and nothing else.

    Args:
        lab: has the models.
        domain: whose items.
        source: where the recommender was trained.
        unasked: the only expert of silent and inferred requests; default: the source's weights.
    """
    shop = lab.moved(source, domain)
    if unasked is None:
        return Made(shop.model, shop.processor)
    model = copy.deepcopy(shop.model)
    config = model.experts.config
    single = {name: float(name == unasked) for name in config.weighted}
    config.set_weights({kind: own if kind == "stated" else single for kind, own in config.weights.items()})
    return Made(model, shop.processor)


def observed(lab: Lab, domain: str, source: str, share: float) -> Made:
    """Given the domain's items, and told of the purchases of some users."""
    shop, data = lab.moved(source, domain), lab.share(domain, share)
    bought = purchases_of(data.examples["oracle"], shop.processor)
    ids = shop.processor.item_ids
    shop.observe([(user, ids[item]) for user, items in bought.items() for item in items])
    shop.refit_behaviour()
    return Made(shop.model, shop.processor, counted(data))


def adopted(
    lab: Lab, domain: str, source: str, share: float = 0.0, *, train: bool = False, weights: bool = False
) -> Made:
    """A new model for the domain's items with the language experts of the source.

    Args:
        lab: has the models.
        domain: whose items and purchases.
        source: whose language experts and weights.
        share: of the users whose purchases are known; 0: only wishes made of the items' texts.
        train: whether the language experts are trained further, on what is known.
        weights: whether the weights are fitted again.
    """
    method = lab.method(domain, LITE)
    model, processor = method.model.eval(), method.processor
    adopt(model, lab.trained(source).model)
    if not train and not weights:
        return Made(model, processor)
    data = lab.share(domain, share) if share else wishes_alone(lab.data(domain))
    examples, record = data.matched(method.preset.matching, lab.seed), counted(data)
    if train:
        record["learned"] = fit_language(model, processor, examples, seed=lab.seed, fresh=False)
    if weights:
        with one_thread():
            start = record.get("learned", {}).get("weights") or model.experts.config.weights["stated"]
            record |= fit_experts(model, processor, examples, exclude_seen=not data.repeats, start=start)
    return Made(model, processor, record)


def alone(lab: Lab, domain: str, expert: str, source: str | None = None) -> Made:
    """One expert of a recommender of the domain, or of one of another domain that was given its items."""
    shop = lab.trained(domain) if source is None else lab.moved(source, domain)
    model = copy.deepcopy(shop.model)
    config = model.experts.config
    config.set_weights({kind: {name: float(name == expert) for name in config.weighted} for kind in KINDS})
    return Made(model, shop.processor)


def wishes_alone(data: BenchmarkData) -> BenchmarkData:
    """A benchmark of which only wishes are trained on, without histories: what a shop without customers can make."""

    def chosen(examples: Dataset) -> Dataset:
        wishes = select_axes(examples, dict.fromkeys(WISHES, 1.0))
        return wishes.map(lambda row: {"history": [], "user_id": ""}, load_from_cache_file=False)

    examples = {
        mode: DatasetDict({split: chosen(rows) if split != "test" else rows for split, rows in own.items()})
        for mode, own in data.examples.items()
    }
    return replace(data, examples=examples)


def counted(data: BenchmarkData) -> dict[str, int]:
    """How many users and examples are trained on."""
    train = data.examples["oracle"]["train"]
    return {"users": len({user for user in train["user_id"][:] if user}), "examples": len(train)}


# Quantizers


def quantizer_of(lab: Lab, domains: Sequence[str]) -> ResidualKMeans:
    """A quantizer fitted on the item vectors of some domains."""
    vectors = torch.cat([item_vectors(lab.data(domain), lab.encoder) for domain in domains])
    return lab.once(("quantizer", *domains), lambda: ResidualKMeans(seed=0).fit(vectors))


def quantizer_rows(lab: Lab) -> list[dict[str, Any]]:
    """Collisions and reconstruction error of every domain's items, with codebooks of its own and of all domains."""
    domains, rows = QUANTIZED, []
    every = torch.cat([item_vectors(lab.data(domain), lab.encoder) for domain in domains])
    for domain in domains:
        own = item_vectors(lab.data(domain), lab.encoder)
        others = torch.cat([item_vectors(lab.data(other), lab.encoder) for other in domains if other != domain])
        few, many = choose_codes(len(own)), choose_codes(len(every))
        for fitted_on, vectors, codes in (
            ("its own items", own, few),
            ("its own items", own, min(many, len(own) // 2)),
            ("all domains", every, few),
            ("all domains", every, many),
            ("the other domains", others, many),
        ):
            quantizer = ResidualKMeans(seed=0, codes=codes).fit(vectors)
            found = report(break_ties(quantizer.encode(own)), quantizer.codebook_sizes)
            rows.append(
                {
                    "domain": domain,
                    "items": len(own),
                    "codebooks of": fitted_on,
                    "codes per level": codes,
                    "codes used": list(found.codes_used),
                    "collisions": round(found.collision_rate, 4),
                    "largest tie": found.largest_tie,
                    "variance lost": round(reconstruction_error(quantizer, own), 4),
                }
            )
    return rows


def generator_method(lab: Lab, domain: str, fitted_on: Sequence[str], epochs: int) -> Method:
    """A new generator whose items have codes of a quantizer; its shape depends on the quantizer alone."""
    data, quantizer = lab.data(domain), quantizer_of(lab, fitted_on)
    codes = break_ties(quantizer.encode(item_vectors(data, lab.encoder)))
    room = max(quantizer.codebook_sizes[0], int(codes[:, -1].max()) + 1)

    def make() -> Method:
        transformers.set_seed(lab.seed)
        return build_method(
            choose_preset(GENERATOR, training={"num_train_epochs": epochs}),
            data.item_columns,
            encoder=lab.encoder,
            catalogue=SemanticIdCatalogue(codes, [*quantizer.codebook_sizes, room]),
            codebooks=quantizer.codebooks,
            texts=data.texts,
        )

    method = copy.deepcopy(lab.once(("generator", domain, *fitted_on, epochs), make))
    lab.texts.serve(method.model)
    transformers.set_seed(lab.seed)
    return method


def generator_at_home(lab: Lab, domain: str, fitted_on: Sequence[str]) -> Made:
    """A generator trained on the domain."""
    shop = lab.saved(f"{domain}-{GENERATOR}-{'-'.join(fitted_on)}", lambda: _generator(lab, domain, fitted_on))
    return Made(shop.model, shop.processor)


def _generator(lab: Lab, domain: str, fitted_on: Sequence[str]) -> Recommender:
    method, data = generator_method(lab, domain, fitted_on, lab.epochs), lab.data(domain)
    record = fit(method, data, lab.scratch / "checkpoints", seed=lab.seed)
    return recommender_of(method, data, record, lab.encoder)


def generator_moved(lab: Lab, domain: str, source: str, fitted_on: Sequence[str], *, quantized: bool) -> Made:
    """A generator of another domain with the items of this one in place of its own.

    Args:
        lab: has the models.
        domain: whose items.
        source: where it was trained.
        fitted_on: domains of its quantizer.
        quantized: whether the items get the quantizer's codes; else those of the most similar items, as in a
            `Recommender`.
    """
    home = generator_at_home(lab, source, fitted_on)
    model, processor = copy.deepcopy(home.model), copy.copy(home.processor)
    data, own = lab.data(domain), list(range(len(processor.item_ids)))
    codes = quantizer_of(lab, fitted_on).encode(item_vectors(data, lab.encoder)) if quantized else None
    columns = {name: [row[name] for row in described(data.items)] for name in ("item_id", "title", "text")}
    catalogue_edits.add_items(model, processor, columns, codes=codes)
    catalogue_edits.remove_items(model, own)
    return Made(model, processor)


def generator_continued(
    lab: Lab, domain: str, share: float, fitted_on: Sequence[str], source: str | None = None
) -> Made:
    """A generator trained on a share of the domain's users, from scratch or from another domain's weights."""
    epochs = lab.epochs * 4  # a tenth of the users has few steps in an epoch
    method, data = generator_method(lab, domain, fitted_on, epochs), lab.share(domain, share)
    if source is not None:
        own, other = method.model.state_dict(), generator_at_home(lab, source, fitted_on).model.state_dict()
        same = {name: value for name, value in other.items() if name in own and own[name].shape == value.shape}
        tables = ("item_codes", "item_states", "first_state", "catalogue")
        same = {name: value for name, value in same.items() if not any(table in name for table in tables)}
        method.model.load_state_dict(same, strict=False)
    record = fit(method, data, lab.scratch / "checkpoints", seed=lab.seed)
    return Made(method.model, method.processor, {**record, **counted(data)})


# Cold items


def cold_items(lab: Lab, domain: str) -> tuple[BenchmarkData, set[str]]:
    """The benchmark without a tenth of its items, and the ids of these."""
    return lab.once(("cold", domain), lambda: _cold_items(lab, domain))


def _cold_items(lab: Lab, domain: str) -> tuple[BenchmarkData, set[str]]:
    data = lab.data(domain)
    ids = data.items["item_id"][:]
    drawn = np.sort(np.random.default_rng(lab.seed).permutation(len(ids))[: round(COLD * len(ids))])
    gone = {ids[place] for place in drawn}
    warm = np.setdiff1d(np.arange(len(ids)), drawn)
    cache = data.cache / f"without-a-tenth-seed{lab.seed}"
    cache.mkdir(exist_ok=True)
    np.save(cache / "item_vectors.npy", item_vectors(data, lab.encoder)[warm].numpy(), allow_pickle=False)
    examples = {
        mode: DatasetDict({split: without_items(rows, gone) for split, rows in own.items() if split != "test"})
        for mode, own in data.examples.items()
    }
    return replace(data, items=data.items.select(warm), examples=examples, cache=cache), gone


def without_items(examples: Dataset, gone: set[str]) -> Dataset:
    """Examples as if some items had never been there: not in histories, not as targets."""
    table = examples.to_polars()
    lists = [name for name in ("history", "targets", "avoided") if name in table.columns]
    left = table.with_columns(pl.col(name).list.filter(~pl.element().is_in(list(gone))) for name in lists)
    had, has = table["history"].list.len() > 0, left["history"].list.len() > 0
    some = (left["targets"].list.len() > 0) & (has | ~had)
    return Dataset.from_polars(left.filter(some), features=examples.features)


def cold_requests(data: BenchmarkData, gone: set[str], seed: int) -> dict[str, DatasetDict]:
    """Test requests for cold items, and as many for others, each with one target, told apart by their stratum."""
    axes = ("recommendation", "fine_grained_steering", "coarse_grained_steering")
    found = {}
    for mode, own in data.examples.items():
        table = own["test"].to_polars().with_row_index("row")
        table = table.with_columns(cold=pl.col("targets").list.first().is_in(list(gone)))
        rows = []
        for axis in axes:
            cold, warm = (
                table.filter(pl.col("axis") == axis, pl.col("cold") == value)["row"] for value in (True, False)
            )
            places = np.random.default_rng(seed).permutation(len(warm))[: len(cold)]
            rows += [*cold.to_list(), *warm[places.tolist()].to_list()]
        chosen = table.filter(pl.col("row").is_in(rows))
        chosen = chosen.with_columns(stratum=pl.when("cold").then(pl.lit("cold")).otherwise(pl.lit("warm")))
        test = Dataset.from_polars(chosen.drop("row", "cold"), features=own["test"].features)
        found[mode] = DatasetDict({"test": test})
    return found


def borrow(experts: Any, new: Sequence[int], similar: int) -> None:
    """Give new items the purchases of those items that are most like them, by their vectors.

    Args:
        experts: of a model; its counts and item-item rows are replaced.
        new: indices of the new items.
        similar: how many others each new item borrows from.
    """
    vectors = torch.nn.functional.normalize(experts.vectors.item_states.float(), dim=-1)
    likeness = vectors[new] @ vectors.T
    likeness[:, new] = -torch.inf
    nearest = likeness.topk(similar).indices
    counts = experts.popularity.counts
    counts[new] = counts[nearest].mean(1)
    for part in (experts.co_purchase, experts.transitions):
        known = part.neighbours >= 0
        matrix = torch.zeros(len(known), len(known) + 1)
        matrix.scatter_(1, part.neighbours.long().where(known, len(known)), part.strengths.float())
        matrix = matrix[:, :-1].contiguous()
        matrix[:, new] = matrix[:, nearest].mean(2)
        matrix[new] = matrix[nearest].mean(1)
        part.set_matrix(matrix)


def cold(
    lab: Lab,
    domain: str,
    preset: str,
    popularity: str = "none",
    weights: Mapping[str, float] | None = None,
    similar: int = 0,
) -> Made:
    """Trained without a tenth of the items, which were then added.

    Args:
        lab: has the data.
        domain: whose items.
        preset: what is trained.
        popularity: "median" counts as many purchases of each added item as the median item has; "none" counts none.
        weights: factors of the experts' weights.
        similar: see `borrow`; 0: an added item has no purchases.
    """
    warm, gone = cold_items(lab, domain)
    data = lab.data(domain)

    def make() -> Recommender:
        training = {"num_train_epochs": lab.epochs} if preset == GENERATOR else {}
        method = new_method(choose_preset(preset, training=training), warm, lab.encoder, lab.seed)
        lab.texts.serve(method.model)
        record = fit(method, warm, lab.scratch / "checkpoints", seed=lab.seed)
        shop = recommender_of(method, warm, record, lab.encoder)
        new = np.flatnonzero([item in gone for item in data.items["item_id"][:]])
        shop.add_items(described(data.items.select(new)))
        return shop

    shop = lab.saved(f"{domain}-{preset}-cold", make)
    model = copy.deepcopy(shop.model)
    if similar:
        borrow(model.experts, shop.processor.item_indices(sorted(gone)), similar)
    if popularity == "median":
        counts = model.experts.popularity.counts
        counts[shop.processor.item_indices(sorted(gone))] = counts[: len(warm.items)].median()
    if weights:
        config = model.experts.config
        own = {
            kind: {name: value * weights.get(name, 1.0) for name, value in known.items()}
            for kind, known in config.weights.items()
        }
        config.set_weights(own)
    return Made(model, shop.processor, {"cold": len(gone)}, cold_requests(data, gone, lab.seed))


HOW: dict[str, Callable[..., Made]] = {
    own.__name__: own
    for own in (
        adopted,
        alone,
        cold,
        generator_at_home,
        generator_continued,
        generator_moved,
        observed,
        trained_at_home,
        without_training,
    )
}


def cells(seed: int) -> list[Cell]:
    """All cells, those that are wanted most first."""
    found: list[tuple[int, Cell]] = []

    def add(turn: int, part: str, domain: str, method: str, how: Callable[..., Made], **arguments: Any) -> None:
        cell = Cell(part, domain, method, how.__name__, arguments, seed)
        if cell.folder not in {other.folder for _, other in found}:
            found.append((turn, cell))

    for later, (source, domain) in zip((0, 0, 0, 10), PAIRS, strict=True):
        add(later, "pairs", domain, f"{source}, no training", without_training, source=source)
        label = f"{source}, no training, history by its texts"
        add(later, "pairs", domain, label, without_training, source=source, unasked="history_text")
        add(later, "pairs", domain, f"{source}, own word counts", adopted, source=source)
        for expert in ("learned", "terms"):
            add(later, "pairs", domain, f"{source}, {expert} alone", alone, expert=expert, source=source)
        for share in SHARES:
            known = f"{share:.0%}"
            add(later + 1, "pairs", domain, f"{source}, {known} observed", observed, source=source, share=share)
            few = 2 if share < 0.1 else 0
            add(later + few + 3, "pairs", domain, f"{LITE}, {known}", trained_at_home, preset=LITE, share=share)
            own = {"source": source, "share": share, "weights": True}
            add(later + few + 4, "pairs", domain, f"{source}, {known} weights", adopted, **own)
            add(later + few + 3, "pairs", domain, f"{source}, {known} trained on", adopted, train=True, **own)
        add(later + 3, "pairs", domain, f"{source}, wishes trained on", adopted, source=source, train=True)
        if domain not in PRESENT:
            for preset in ("text-search", "popularity", LITE):
                add(later + 1, "pairs", domain, preset, trained_at_home, preset=preset)
        for expert in ("dense", "learned", "terms", "history_text", "co_purchase"):
            add(later + 4 if domain in PRESENT else 6, "pairs", domain, f"{expert} alone", alone, expert=expert)
    for later, domain in zip((2, 7), COLD_IN, strict=True):
        for preset in (LITE, "item-item", "text-search"):
            add(later, "cold", domain, preset, cold, preset=preset)
        add(later, "cold", domain, f"{LITE}, median purchases", cold, preset=LITE, popularity="median")
        label = f"{LITE}, purchases of similar items"
        add(later, "cold", domain, label, cold, preset=LITE, similar=5)
        none = dict.fromkeys(BEHAVIOUR, 0.0)
        add(later, "cold", domain, f"{LITE}, without behaviour", cold, preset=LITE, weights=none)
        add(later + 5, "cold", domain, GENERATOR, cold, preset=GENERATOR)
    every = QUANTIZED
    for source, domain in CODED:
        for name, fitted_on in (("own codes", (source,)), ("codes of all domains", every)):
            add(7, "quantizers", source, f"{GENERATOR}, {name}", generator_at_home, fitted_on=fitted_on)
            moved = {"source": source, "fitted_on": fitted_on}
            add(7, "quantizers", domain, f"{source}, {name}, no training", generator_moved, quantized=True, **moved)
            label = f"{source}, {name} of similar items, no training"
            add(7, "quantizers", domain, label, generator_moved, quantized=False, **moved)
        for name, fitted_on in (("own codes", (domain,)), ("codes of all domains", every)):
            add(7, "quantizers", domain, f"{GENERATOR}, {name}", generator_at_home, fitted_on=fitted_on)
        add(7, "quantizers", domain, f"{GENERATOR}, 10%", generator_continued, share=0.1, fitted_on=every)
        label = f"{source}, 10% trained on"
        add(7, "quantizers", domain, label, generator_continued, share=0.1, fitted_on=every, source=source)
    return [cell for _, cell in sorted(found, key=lambda pair: pair[0])]


def main(
    data: Annotated[Path | None, typer.Option(help="Folder that holds the folders of raw files.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A domain to ask in; may be given several times.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="pairs, cold or quantizers; may be given several times.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="A name in the tables; may be given several times.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of the generators.")] = 8,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Make no cell.")] = False,
    results: Annotated[Path, typer.Option(help="Where cells, tables and picture are kept.")] = RESULTS,
    scratch: Annotated[Path, typer.Option(help="Folder for models and checkpoints.")] = Path("outputs/transfer"),
) -> None:
    """Make the cells that are missing, write the tables."""
    every = cells(seed)
    chosen = every
    for name, asked in (("domain", only), ("part", part), ("method", method)):
        known = dict.fromkeys(getattr(cell, name) for cell in every)
        if unknown := {*(asked or [])} - {*known}:
            raise UserError(f"{min(unknown)!r} is none of {'; '.join(known)}")
        if asked:  # in the order given, so that what is wanted most is there first
            chosen = [cell for value in asked for cell in chosen if getattr(cell, name) == value]
    missing = [cell for cell in chosen if kept(results / CELLS / cell.folder).get("plan") != cell.plan]
    if missing and not tables_only:
        lab = Lab(data, scratch, epochs, seed)
        if not (results / QUANTIZERS).exists():
            write_rows(quantizer_rows(lab), results / QUANTIZERS)
        for cell in missing:
            make(cell, lab, results / CELLS / cell.folder)
    write_tables(results, every)


def make(cell: Cell, lab: Lab, folder: Path) -> None:
    """Make and measure one cell, and keep what is needed to compare it."""
    origin, started = provenance(cell.seed), time.process_time()
    origin["command"] = public_command(origin["command"])
    print(f"{time.strftime('%H:%M')} {cell.folder}: begins", flush=True)
    made = HOW[cell.how](lab, cell.domain, **cell.arguments)
    trained = time.process_time() - started
    data, limit = lab.data(cell.domain), DOMAINS[cell.domain].limit
    if made.examples is not None:
        data, limit = replace(data, examples=made.examples), None
    lab.texts.serve(made.model)
    _, ranks = score_model(made.model.eval(), made.processor, data, cell.method, limit, 0, shuffled=False)
    if made.examples is not None:  # a comparison names one group of an axis, not two
        both = pl.format("{}, {}", "matching", "stratum")
        ranks = ranks.with_columns(matching=pl.when(pl.col("matching") != "").then(both).otherwise("matching"))
    content = {
        **origin,
        "source": lab.data(cell.domain).source,
        "method": cell.method,
        "plan": cell.plan,
        "record": {name: value for name, value in made.record.items() if name != "curve"},
        "processor_seconds": {"making": round(trained, 1), "all": round(time.process_time() - started, 1)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    ranks = ranks.with_columns(hashed(ranks[name]) for name in ("user_id", "target"))
    asked = folder.parent / REQUESTS
    if not asked.exists():
        write_table(asked, ranks.drop(OWN))
    elif not pl.read_parquet(asked).equals(ranks.drop(OWN)):
        raise UserError(f"{cell.folder} was asked otherwise than {asked} says; remove the cells of that folder")
    write_table(folder / RANKS, ranks.select(OWN))
    write_atomically(folder / "run.json", (json.dumps(content, indent=1) + "\n").encode())
    print(f"{time.strftime('%H:%M')} {cell.folder}: done after {content['processor_seconds']} s", flush=True)


def write_table(path: Path, rows: pl.DataFrame) -> None:
    """Write a table, whole or not at all."""
    table = BytesIO()
    rows.write_parquet(table, compression="zstd")
    write_atomically(path, table.getvalue())


# Tables


COLUMNS = {
    "pairs": (
        "recommendation (oracle)",
        "recommendation (silent)",
        "fine steering",
        "coarse steering",
        "sentiment following",
        "history consolidation",
        "open wishes (known)",
        "open wishes (withheld)",
        "wish and avoid (known)",
    ),
    "cold": tuple(
        f"{row}{group})"
        for row in ("recommendation (oracle, ", "recommendation (silent, ", "fine steering (", "coarse steering (")
        for group in ("cold", "warm")
    ),
}
COLUMNS["quantizers"] = COLUMNS["pairs"]
REFERENCES = {"pairs": "text-search", "cold": LITE, "quantizers": f"{GENERATOR}, own codes"}
TITLES = {
    "pairs": "Asked in {domain}",
    "cold": "Items added after training: {domain}",
    "quantizers": "Generators asked in {domain}",
}


def write_tables(results: Path, every: Sequence[Cell]) -> None:
    """Compare the cells that are there: table.md, and transfer.png of the pairs."""
    parts, comparisons = [], {}
    for part in COLUMNS:
        for domain in dict.fromkeys(cell.domain for cell in every if cell.part == part):
            comparison = compared(results, [cell for cell in every if (cell.part, cell.domain) == (part, domain)])
            if comparison is not None:
                comparisons[part, domain] = comparison
                parts += [
                    f"## {TITLES[part].format(domain=domain.replace('_', ' '))}",
                    table(comparison, COLUMNS[part]),
                ]
    quantizers = results / QUANTIZERS
    if quantizers.exists():
        rows = json.loads(quantizers.read_text("utf-8"))
        header = list(rows[0])
        cells_of = [[", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in row.values()] for row in rows]
        parts += ["## Codebooks", markdown_table(header, cells_of)]
    if parts:
        write_atomically(results / "table.md", ("\n\n".join(part.rstrip() for part in parts) + "\n").encode())
        draw(comparisons, results / "transfer.png")
        print(f"Saved table.md and transfer.png under {results}")


def compared(results: Path, every: Sequence[Cell]) -> Comparison | None:
    """The comparison of some cells that are there with their reference; `None` without that."""
    folders = {cell.method: results / CELLS / cell.folder for cell in every}
    records = {method: record for method, folder in folders.items() if (record := kept(folder))}
    part, domain = every[0].part, every[0].domain
    if not records:
        return None
    requests = pl.read_parquet(folders[next(iter(records))].parent / REQUESTS)
    with tempfile.TemporaryDirectory() as place:
        runs = baselines(domain, requests, Path(place)) if part == "pairs" else {}
        for method, record in records.items():
            folder = Path(place) / "cells" / folders[method].name
            folder.mkdir(parents=True)
            both = pl.concat([requests, pl.read_parquet(folders[method] / RANKS)], how="horizontal")
            both.write_parquet(folder / RANKS)
            runs[folder] = {"settings": record}
        if not any(run["settings"]["method"] == REFERENCES[part] for run in runs.values()):
            return None
        return compare(runs, reference=REFERENCES[part])


def baselines(domain: str, requests: pl.DataFrame, place: Path) -> dict[Path, dict[str, Any]]:
    """Runs on all of a domain that benchmarks/comparisons.py made of the same requests, copied to a folder."""
    found, names = {}, ["matching", "axis", "stratum", "user_id", "target", "unit", "pair_id"]
    for method in BASELINES if domain in PRESENT else ():
        folder = RUNS / domain / f"{method}-seed0"
        ranks = pl.read_parquet(folder / RANKS).filter(pl.col("condition") == "")  # not with shuffled preferences
        if ranks.select(names).sort(names).equals(requests.select(names).sort(names)):
            (place / method).mkdir()
            ranks.write_parquet(place / method / RANKS)
            settings = json.loads((folder / "five_axes.json").read_text("utf-8"))["settings"]
            found[place / method] = {"settings": settings}
    return found


def table(comparison: Comparison, columns: Sequence[str]) -> str:
    """One line per method."""
    columns = [label for label in columns if label in comparison.cells]
    header = ["", *(f"{label}, n = {next(iter(comparison.cells[label].values())).n:,}" for label in columns)]
    rows = [[method, *(shown(comparison.cells[label][method]) for label in columns)] for method in comparison.methods]
    return markdown_table(header, rows)


DRAWN = ("recommendation (silent)", "recommendation (oracle)", "fine steering", "open wishes (known)")


def draw(comparisons: Mapping[tuple[str, str], Comparison], path: Path) -> None:
    """For every pair, what a source is worth at 0, 1, 10 and 100 % of the users; baselines are lines."""
    pairs = [(source, domain) for source, domain in PAIRS if ("pairs", domain) in comparisons]
    if not pairs:
        return
    figure, grid = plt.subplots(
        len(pairs), len(DRAWN), figsize=(15, 3.1 * len(pairs) + 0.8), squeeze=False, sharex=True, layout="constrained"
    )
    shares = [0.0, *SHARES, 1.0]
    for row, (source, domain) in zip(grid, pairs, strict=True):
        cells_of = comparisons["pairs", domain].cells
        curves = {
            "from scratch": [None, *(f"{LITE}, {share:.0%}" for share in SHARES), LITE],
            "moved, purchases counted": [
                f"{source}, no training",
                *(f"{source}, {share:.0%} observed" for share in SHARES),
            ],
            "moved and trained on": [
                f"{source}, wishes trained on",
                *(f"{source}, {share:.0%} trained on" for share in SHARES),
            ],
        }
        for axes, label in zip(row, DRAWN, strict=True):
            own = cells_of[label]
            for (name, methods), colour in zip(curves.items(), ("0.3", "tab:blue", "tab:orange"), strict=True):
                there = [(place, own[method]) for place, method in enumerate(methods) if method in own]
                y = np.array([cell.value for _, cell in there])
                ends = np.array([[cell.low, cell.high] for _, cell in there]).T if there else np.zeros((2, 0))
                axes.errorbar(
                    [place for place, _ in there],
                    y,
                    np.maximum(np.abs(ends - y), 0),
                    color=colour,
                    marker="o",
                    label=name,
                    markersize=5,
                    linewidth=1.4,
                    elinewidth=0.7,
                    capsize=2,
                )
            for name, style in (("text-search", "--"), ("popularity", ":")):
                if name in own:
                    axes.axhline(own[name].value, color="tab:green", linestyle=style, linewidth=1.2, label=name)
            axes.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
            axes.set_ylim(0, None)
            axes.grid(alpha=0.3)
            axes.set_title(f"{label}, n = {next(iter(own.values())).n:,}", fontsize=10)
        row[0].set_ylabel(f"{source.replace('_', ' ')} to\n{domain.replace('_', ' ')}")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=5, frameon=False)
    figure.supxlabel("share of the target's users whose purchases are known")
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main, __doc__)
