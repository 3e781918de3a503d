"""Pooling and losses against cases worked out by hand."""

import math

import torch

from elsa.model.heads import next_token_loss, pool

HIDDEN = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [9.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def test_pooling_skips_padding() -> None:
    assert pool(HIDDEN, MASK, "mean").flatten().tolist() == [2.0, 5.0]
    assert pool(HIDDEN, MASK, "last").flatten().tolist() == [3.0, 9.0]
    assert pool(HIDDEN, MASK, "cls").flatten().tolist() == [1.0, 2.0]
    assert pool(HIDDEN[1:], None, "mean").item() == 5.0
    assert pool(HIDDEN[1:], None, "last").item() == 9.0


def test_each_token_is_the_label_of_the_one_before() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 2] = 50.0
    labels = torch.tensor([[1, 2, 3]])
    # Sure of the second token; the third is a guess among four; the last logits have no label.
    expected = math.log(4) / 2
    assert math.isclose(next_token_loss(logits, labels).item(), expected, rel_tol=1e-6)
    ignored = torch.tensor([[1, 2, -100]])
    assert next_token_loss(logits, ignored).item() < 1e-6


def test_nothing_to_predict_costs_nothing() -> None:
    logits = torch.zeros(1, 1, 4, requires_grad=True)
    loss = next_token_loss(logits, torch.tensor([[1]]))
    loss.backward()
    assert loss.item() == 0.0
