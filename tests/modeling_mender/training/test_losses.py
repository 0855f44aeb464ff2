"""The loss: plain cross-entropy without negatives, bounded with them, exact under accumulation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from modeling_mender.training.losses import code_loss, text_loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, 11, generator=generator)
    labels = torch.randint(11, (6, 4), generator=generator)
    labels[2] = -100
    return logits, labels, torch.tensor([False, True, False, False, True, False])


def test_without_negatives_it_is_the_cross_entropy(batch):
    logits, labels, _ = batch
    nothing = torch.zeros(6, dtype=torch.bool)
    for form in ("unlikelihood", "subtracted"):
        loss = code_loss(logits, labels, nothing, form=form)
        torch.testing.assert_close(loss, functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))


def test_terms_are_those_of_the_formulas(batch):
    logits, labels, negative = batch
    probability = logits.softmax(-1).gather(2, labels.clamp(min=0)[..., None]).squeeze(-1)
    real = labels != -100
    wanted = -(probability.log() * (real & ~negative[:, None])).sum()
    unlikely = -((1 - probability).log() * (real & negative[:, None])).sum()
    subtracted = (probability.log() * (real & negative[:, None])).sum()
    expected = (wanted + 0.5 * unlikely) / real.sum()
    torch.testing.assert_close(code_loss(logits, labels, negative, weight=0.5), expected)
    expected = (wanted + 0.5 * subtracted) / real.sum()
    torch.testing.assert_close(code_loss(logits, labels, negative, form="subtracted", weight=0.5), expected)


def test_smoothed_labels_are_those_of_torch_and_spare_the_negatives(batch):
    logits, labels, negative = batch
    smoothed = code_loss(logits, labels, torch.zeros(6, dtype=torch.bool), label_smoothing=0.2)
    expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.2)
    torch.testing.assert_close(smoothed, expected)
    real, unwanted = labels != -100, negative[:, None]
    wanted = torch.where(unwanted, -100, labels).flatten()
    smooth = functional.cross_entropy(logits.flatten(0, 1), wanted, label_smoothing=0.2, reduction="sum")
    plain = functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="sum")
    expected = code_loss(logits, labels, negative) + (smooth - plain) / real.sum()
    torch.testing.assert_close(code_loss(logits, labels, negative, label_smoothing=0.2), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_accumulated_parts_add_up(batch, smoothing):
    logits, labels, negative = batch
    count = int((labels != -100).sum())
    parts = [
        code_loss(logits[part], labels[part], negative[part], label_smoothing=smoothing, num_items_in_batch=count)
        for part in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(sum(parts), code_loss(logits, labels, negative, label_smoothing=smoothing))


@pytest.mark.parametrize("count", [None, 0, torch.tensor(0.0)])
def test_a_batch_without_labels_changes_nothing(batch, count):
    logits, labels, negative = batch
    logits.requires_grad_()
    loss = code_loss(logits, torch.full_like(labels, -100), negative, num_items_in_batch=count)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_unlikelihood_is_bounded_where_subtraction_is_not():
    labels, negative = torch.zeros(1, 1, dtype=torch.long), torch.tensor([True])
    losses = {form: [] for form in ("unlikelihood", "subtracted")}
    for form, found in losses.items():
        for scale in (0.0, 10.0, 100.0, 1000.0):
            logits = torch.tensor([[[-scale, 0.0]]], requires_grad=True)
            loss = code_loss(logits, labels, negative, form=form)
            loss.backward()
            assert torch.isfinite(logits.grad).all()
            found.append(loss.item())
    assert min(losses["unlikelihood"]) >= 0 and losses["unlikelihood"] == sorted(losses["unlikelihood"], reverse=True)
    assert losses["subtracted"][-1] < -900
    certain = code_loss(torch.tensor([[[1000.0, 0.0]]]), labels, negative)
    assert torch.isfinite(certain) and certain > 10


def test_masked_text_is_predicted_at_its_own_positions():
    words, states = torch.eye(5) * 10, torch.eye(5)[None, :3] * 10
    assert text_loss(states, words, torch.tensor([[0, -100, 2]])) < 1e-3
    assert text_loss(states, words, torch.tensor([[1, -100, 1]])) > 1
    assert text_loss(states, words, torch.full((1, 3), -100)) == 0


def test_unknown_forms_are_refused(batch):
    with pytest.raises(ValueError, match="negative_loss='hinge'; pass one of unlikelihood, subtracted"):
        code_loss(*batch, form="hinge")
