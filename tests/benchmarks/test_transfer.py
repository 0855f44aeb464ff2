"""Transfer: what is drawn and held out, a changed catalogue, texts that are encoded once, and cells that are kept."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from doubles import WORDS, encoder_folder, shop_examples, shop_items, small_method

from mender import Recommender
from mender.data import BenchmarkData
from mender.evaluation import score_model
from modeling_mender.training.run import fit_without_gradient
from preference_benchmark.axes.examples import EXAMPLE_FEATURES

SCRIPT = "transfer"


@pytest.fixture
def lab(script):
    """What the script works with."""
    return sys.modules[script.Lab.__module__]


@pytest.fixture
def making(script):
    """What makes its cells."""
    return sys.modules[script.cells.__module__]


@pytest.fixture
def data(tmp_path):
    """A small shop."""
    examples = shop_examples()
    for split, rows in examples.items():
        for name, value in (("stratum", ""), ("avoided", [])):
            rows = rows.add_column(name, [value] * len(rows), feature=EXAMPLE_FEATURES[name])
        examples[split] = rows
    return BenchmarkData("shop", Dataset.from_dict(shop_items()), {"oracle": examples, "last": examples}, tmp_path)


def test_every_cell_has_a_folder_and_a_plan_of_its_own(script):
    cells = script.cells(0)
    assert len({cell.folder for cell in cells}) == len(cells)
    assert len({json.dumps(cell.plan) for cell in cells}) == len(cells)


def test_a_share_of_the_users(lab, data):
    few = lab.with_users(data, 0.2, seed=0)
    users = {*few.examples["oracle"]["train"]["user_id"][:], *few.examples["oracle"]["validation"]["user_id"][:]}
    everybody = {user for split in ("train", "validation") for user in data.examples["oracle"][split]["user_id"][:]}
    assert len(users) == max(lab.LEAST_USERS, round(0.2 * len(everybody)))
    assert few.examples["last"]["test"] is data.examples["last"]["test"]
    more = lab.with_users(data, 0.5, seed=0)
    assert users < {user for user in more.examples["oracle"]["train"]["user_id"][:]}


def test_items_that_were_never_there(making, data):
    gone = {"item-tea", "item-mug"}
    before = data.examples["oracle"]["train"]
    after = making.without_items(before, gone)
    assert after.features == before.features and 0 < len(after) < len(before)
    named = {item for name in ("history", "targets") for own in after[name][:] for item in own}
    assert named and not named & gone
    requests = making.cold_requests(data, gone, 0)["oracle"]["test"]
    for targets, stratum in zip(requests["targets"][:], requests["stratum"][:], strict=True):
        assert (targets[0] in gone) == (stratum == "cold")
    assert {*requests["stratum"][:]} == {"cold", "warm"}


def test_texts_are_encoded_once_with_the_same_result(lab, data, tmp_path, monkeypatch):
    model = small_method("text-search", encoder_folder(tmp_path)).model.eval()
    inputs = torch.tensor([[2, 7, 9, 3, 0], [2, 8, 3, 0, 0], [2, 7, 9, 3, 0]])
    plain, states = model.scores(inputs), lab.TextStates()
    states.serve(model)
    states.serve(model)
    encoded = []
    text_encoder = type(model.experts.vectors.text_encoder)
    forward = text_encoder.forward
    monkeypatch.setattr(
        text_encoder,
        "forward",
        lambda self, input_ids, **rest: encoded.append(len(input_ids)) or forward(self, input_ids=input_ids, **rest),
    )
    other = copy.deepcopy(model)
    for one in (model, model, other):
        assert torch.allclose(one.scores(inputs), plain, atol=0.05)
    assert sum(encoded) == len(states.known) == 2


def test_another_range_is_asked_as_if_it_had_always_been_there(lab, data, tmp_path):
    method = small_method("text-search", encoder_folder(tmp_path))
    fit_without_gradient(method, data.examples["oracle"])
    renamed = [f"new-{item}" for item in data.items["item_id"][:]]
    names = dict(zip(data.items["item_id"][:], renamed, strict=True))

    def rename(row):
        return {name: [names[item] for item in row[name]] for name in ("history", "targets", "avoided")}

    test = {"test": data.examples["oracle"]["test"].map(rename)}
    other = replace(data, items=data.items.map(lambda row: {"item_id": names[row["item_id"]]}))
    other = replace(other, examples={"oracle": test, "last": test})
    shop = lab.exchanged(Recommender(method.model, method.processor), other.items)
    assert [item["item_id"] for item in shop.items] == renamed
    asked = [(method, data), (shop, other)]
    before, after = (
        score_model(one.model, one.processor, own, "text", None, 0, shuffled=False)[1] for one, own in asked
    )
    # Units are numbered alike, though the new items have other indices.
    assert after["unit"].equals(before["unit"]) and after["unit"].n_unique() > len(WORDS) / 2
    assert after["rank"].equals(before["rank"])
