"""What makes the recommenders of each cell of transfer.py: moved, trained on, with shared codes, with cold items."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
import transformers
from datasets import Dataset, DatasetDict
from transfer_lab import (
    CODED,
    COLD,
    COLD_IN,
    GENERATOR,
    LITE,
    PAIRS,
    PRESENT,
    QUANTIZED,
    SHARES,
    WISHES,
    Cell,
    Lab,
    Made,
    adopt,
    described,
)

from mender import Recommender
from mender.data import BenchmarkData, item_vectors
from mender.purchases import purchases_of
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
