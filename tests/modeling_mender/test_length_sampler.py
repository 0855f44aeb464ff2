"""Every example once an epoch, little padding, and an order that nothing but seed and epoch decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_mender.training.data import LengthSampler, length_grouped_order


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=200),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_every_example_stands_once(lengths, batch_size, seed, epoch):
    order = length_grouped_order(lengths, batch_size, seed, epoch)
    assert sorted(order.tolist()) == list(range(len(lengths)))


def test_batches_hold_like_lengths():
    lengths = np.random.default_rng(0).lognormal(4.8, 0.6, 6400).astype(int).clip(1, 512)
    order = length_grouped_order(lengths, 64, seed=0, epoch=0)
    slots = lengths[order].reshape(-1, 64).max(1).sum() * 64
    assert slots / lengths.sum() < 1.05
    assert (lengths.reshape(-1, 64).max(1).sum() * 64) / lengths.sum() > 2


def test_order_depends_on_seed_and_epoch_alone():
    sampler = LengthSampler([3, 1, 2] * 50, batch_size=8, seed=1)
    first = list(sampler)
    torch.manual_seed(5)
    np.random.seed(5)
    assert list(sampler) == first and len(sampler) == 150
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(LengthSampler([3, 1, 2] * 50, batch_size=8, seed=2)) != first


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_short_batch_is_the_last(epoch):
    order = length_grouped_order([1] * 10 + [9], 4, seed=0, epoch=epoch)
    assert len(order) == 11
