"""Classes that do not fit: labels that a network does not take, and pairs that cannot be built."""

import pytest
import torch
from helpers import build

from models import CONDITIONAL, MODELS

K = 4
WITH_CLASSES = [name for name in CONDITIONAL if name != "none"]


@pytest.mark.parametrize("model", MODELS)
def test_labels_that_are_missing_or_of_no_use_are_value_errors(model):
    z, x = torch.randn(3, 5), torch.randn(3, 1, 8, 8)
    for network, given in zip(build(model, 8, channels=1), (z, x)):
        assert network.num_classes == 0
        with pytest.raises(ValueError, match="without classes takes no labels"):
            network(given, torch.tensor([0, 1, 2]))
    for name in WITH_CLASSES:
        for network, given in zip(build(model, 8, channels=1, num_classes=K, conditional=name), (z, x)):
            assert network.num_classes == K
            with pytest.raises(ValueError, match="of 4 classes takes labels"):
                network(given)
            with pytest.raises(ValueError, match=r"not \(3, 1\) torch.int64"):
                network(given, torch.zeros(3, 1, dtype=torch.int64))
            with pytest.raises(ValueError, match=r"labels must be a tensor of \(N,\) integers .*, not 7$"):
                network(given, 7)
            with pytest.raises(ValueError, match=r"\(N, 4\) weights of the classes, not \(3, 5\) torch.float32"):
                network(given, torch.ones(3, 5) / 5)


@pytest.mark.parametrize("model", MODELS)
def test_labels_of_no_class_and_a_z_of_another_length_are_value_errors(model):
    for name in WITH_CLASSES:
        G, _ = build(model, 8, channels=1, num_classes=K, conditional=name)
        for label in (K, -1):
            with pytest.raises(ValueError, match=rf"labels must be from 0 to 3, not \[0, {label}, 1\]"):
                G(torch.randn(3, 5), torch.tensor([0, label, 1]))
    for wrong in ((3, 6), (5,), (3, 5, 1)):
        with pytest.raises(ValueError, match=r"z must be \(N, 5\), such as torch.randn\(16, G.z_dim\), not \("):
            build(model, 8, channels=1)[0](torch.randn(*wrong))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"conditional": "cgan", "num_classes": 3}, "'cgan' is not one of none, projection, acgan, concat"),
        ({"conditional": "projection"}, "projection needs two classes or more, not 0"),
        ({"conditional": "concat", "num_classes": 1}, "concat needs two classes or more, not 1"),
        ({"num_classes": 10}, "num_classes 10 needs conditional: one of projection, acgan, concat"),
    ],
)
def test_classes_without_a_way_and_a_way_without_classes_are_value_errors(settings, reason):
    with pytest.raises(ValueError, match=reason):
        build("dcgan", 8, **settings)
