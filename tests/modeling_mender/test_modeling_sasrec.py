"""SASRec: causal, blind to padding, able to learn, honest about what it is given."""

from __future__ import annotations

import pytest
import torch

from modeling_mender import SasRecForSequentialRecommendation
from modeling_mender.modeling_sasrec import SasRecConfig


@pytest.fixture
def model():
    torch.manual_seed(0)
    subject = SasRecForSequentialRecommendation(SasRecConfig(num_items=12, hidden_size=16, max_history=6, dropout=0.0))
    for parameter in subject.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return subject.eval()


def test_padding_and_the_rest_of_the_batch_change_nothing(model):
    alone = model(torch.tensor([[13, 4, 7]])).logits
    batch = model(torch.tensor([[13, 4, 7, 0, 0], [13, 1, 2, 3, 4]])).logits
    torch.testing.assert_close(batch[:1], alone)


def test_earlier_positions_never_see_later_items(model):
    one, other = torch.tensor([[13, 4, 7, 2]]), torch.tensor([[13, 4, 7, 9]])
    torch.testing.assert_close(model._hidden(one)[:, :3], model._hidden(other)[:, :3])
    assert not torch.allclose(model._hidden(one)[:, 3], model._hidden(other)[:, 3])


def test_loss_is_the_cross_entropy_at_labelled_positions(model):
    inputs, labels = torch.tensor([[13, 4, 7], [13, 2, 0]]), torch.tensor([[3, -100, 5], [1, 0, -100]])
    scores = model._hidden(inputs) @ model.items.weight[1:13].T
    chosen = scores.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None]).squeeze(-1)
    expected = -chosen[labels != -100].mean()
    torch.testing.assert_close(model(inputs, labels=labels).loss, expected)
    parts = [model(inputs[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=4).loss for i in range(2)]
    torch.testing.assert_close(sum(parts), expected)
    assert model.item_indices(labels).tolist() == [5, 0]


def test_last_label_alone_reads_the_last_item(model):
    inputs = torch.tensor([[13, 4, 7], [13, 2, 0]])
    loss = model(inputs, labels=model.item_tokens(torch.tensor([3, 8]))).loss
    expected = torch.nn.functional.cross_entropy(model(inputs).logits, torch.tensor([3, 8]))
    torch.testing.assert_close(loss, expected)


def test_recommend_excludes_and_ranks(model):
    inputs = torch.tensor([[13, 4, 7]])
    found = model.recommend(inputs, top_k=12, exclude=[[3, 6]])
    scores = model(inputs).logits[0]
    assert found.item_indices[0].tolist() == [
        row for row in scores.argsort(descending=True).tolist() if row not in (3, 6)
    ]


@pytest.mark.parametrize("negatives", [0, 4])
def test_a_cycle_is_learned(negatives):
    torch.manual_seed(0)
    config = SasRecConfig(num_items=12, hidden_size=32, max_history=6, dropout=0.0, num_negatives=negatives)
    model = SasRecForSequentialRecommendation(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rows = (torch.arange(12)[:, None] + torch.arange(6)) % 12
    inputs, labels = torch.cat([torch.full((12, 1), 13), rows[:, :-1] + 1], 1), rows
    for _ in range(150):
        optimizer.zero_grad()
        model(inputs, labels=labels).loss.backward()
        optimizer.step()
    model.eval()
    assert model.recommend(inputs, top_k=1).item_indices.squeeze(1).tolist() == rows[:, -1].tolist()


def test_bad_shapes_are_refused(model):
    with pytest.raises(ValueError, match="num_heads=3 does not divide hidden_size=16"):
        SasRecConfig(hidden_size=16, num_heads=3)
    with pytest.raises(ValueError, match="7 items, but max_history=6"):
        model(torch.ones(1, 8, dtype=torch.long))
