"""The MLP: its widths, and where its D normalises."""

import pytest
from helpers import build, layers_of, paper_size
from torch import nn

from models.normalization import BatchNorm, LayerNorm
from models.precision import Tanh


def test_mlps_layers_have_the_documented_widths():
    G, D = paper_size("mlp", 8, channels=1)
    assert [tuple(layer.weight.shape) for layer in layers_of(G)] == [(256, 128), (512, 256), (1024, 512), (64, 1024)]
    assert [tuple(layer.weight.shape) for layer in layers_of(D)] == [(512, 64), (256, 512), (1, 256)]
    assert [type(layer) for layer in G.layers] == 3 * [nn.Linear, nn.BatchNorm1d, nn.ReLU] + [nn.Linear, Tanh]


@pytest.mark.parametrize(("name", "kind"), [("batch", BatchNorm), ("layer", LayerNorm)])
def test_mlps_d_normalises_its_second_hidden_layer(name, kind):
    _, D = build("mlp", 8, d_norm=name)
    linear, slope = nn.Linear, nn.LeakyReLU
    assert [type(layer) for layer in D.layers] == [linear, slope, linear, kind, slope, linear]
