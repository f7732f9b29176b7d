"""Folded generators draw what the trained ones draw."""

import copy

import pytest
import torch
from torch import nn

from models import build_models, folded
from models.spectral_norm import norm_of

# name -> (settings, batch norms that no layer to fold into stands before)
GENERATORS = {
    "dcgan": ({"model": "dcgan"}, 1),  # after the reshaping of the linear layer
    "dcgan of the paper": ({"model": "dcgan", "arch_variant": "paper"}, 0),
    "resnet": ({"model": "resnet"}, 3),  # at the start of the two blocks and after the last
    "mlp": ({"model": "mlp"}, 0),
    "r3gan": ({"model": "r3gan"}, 0),
}


def make(settings, g_sn):
    """A generator in float64 with statistics, scales and shifts unlike the initial ones."""
    torch.manual_seed(0)
    G, _ = build_models(**settings, image_size=16, channels=1, z_dim=8, base_channels=4, g_sn=g_sn)
    G = G.double()
    for module in G.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for _ in range(3):
        G(torch.randn(16, 8, dtype=torch.float64))
    return G


@pytest.mark.parametrize("g_sn", [False, True], ids=["plain", "spectral"])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_folded_generator_draws_the_same_images_and_leaves_the_trained_one_alone(name, g_sn):
    settings, left = GENERATORS[name]
    G = make(settings, g_sn)
    before = copy.deepcopy(G.state_dict())
    fold = folded(G)
    z = torch.randn(8, 8, dtype=torch.float64)
    assert G.training and not fold.training and not any(p.requires_grad for p in fold.parameters())
    assert (fold(z) - G.eval()(z)).abs().max() < 1e-12
    norms = [module for module in fold.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(norms) == left and not any(norm_of(module) for module in fold.modules())
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())
    G.train()(z).sum().backward()  # and it trains on: the copy took nothing from its original
