"""Recommenders with random weights for the items of `shop_items`."""

from __future__ import annotations

import torch
from doubles import WORDS, encoder_folder, shop_examples, shop_items, small_method

from mender import Recommender
from modeling_mender.configuration_mender import KINDS
from modeling_mender.training import closed_form
from modeling_mender.training.data import training_histories

IDS = shop_items()["item_id"]


def shop_of(name: str, folder) -> Recommender:
    """A recommender with random weights, all experts with weight 1 and fitted on the shop's purchases."""
    method = small_method(name, encoder_folder(folder))
    model, processor = method.model.eval(), method.processor
    experts, settings_ = getattr(model, "experts", None), {"preset": name}
    examples = shop_examples(users=12)
    histories = training_histories(examples["train"], examples["validation"])
    bought = {f"user-{place}": processor.item_indices(own) for place, own in enumerate(histories)}
    if experts is not None:
        experts.config.set_weights({kind: dict.fromkeys(experts.config.weighted, 1.0) for kind in KINDS})
        fit_counts(experts, list(bought.values()))
        settings_ |= {"ridge_penalty": 2.0, "purchases": sum(map(len, bought.values()))}
    vectors = torch.randn(len(WORDS), 24, generator=torch.Generator().manual_seed(0)) if name == "mender-tok" else None
    return Recommender(model, processor, settings=settings_, purchases=bought, vectors=vectors)


def fit_counts(experts, bought) -> None:
    items = len(WORDS)
    if experts.popularity is not None:
        experts.popularity.counts = closed_form.popularity(bought, items)
    if experts.transitions is not None:
        experts.transitions.set_matrix(closed_form.transitions(bought, items))
    if experts.co_purchase is not None:
        experts.co_purchase.set_matrix(*closed_form.ease(bought, items, 2.0))
