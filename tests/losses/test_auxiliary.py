"""AC-GAN's cross-entropy by hand."""

from math import exp, log

import pytest
import torch
from torch.autograd import gradcheck

from losses import class_cross_entropy


def test_the_cross_entropy_of_the_classes_by_hand():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, -1.0]]).double()
    expected = (log(1 + exp(1) + exp(2)) - 1 + log(exp(3) + 1 + exp(-1)) - 3) / 2
    assert class_cross_entropy(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-12)
    assert class_cross_entropy(torch.zeros(5, 7), torch.arange(5)).item() == pytest.approx(log(7))
    weights = torch.tensor([[0, 1, 0], [1, 0, 0]]).double()
    assert class_cross_entropy(logits, weights).item() == pytest.approx(expected, rel=1e-12)


def test_its_gradient_is_the_softmax_less_the_label():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3).double().requires_grad_(), torch.tensor([0, 2, 1, 1])
    class_cross_entropy(logits, labels).backward()
    expected = (logits.softmax(1) - torch.eye(3).double()[labels]) / 4
    torch.testing.assert_close(logits.grad, expected.detach())
    assert gradcheck(lambda x: class_cross_entropy(x, labels), logits)
