"""The CNN against the paper's table 3 and the authors' code: parameters counted by hand, widths, initial weights."""

import itertools
import math

import pytest
import torch
from helpers import bn, build, conv, count, layers_of, linear, paper_size, shapes
from torch import nn

from models import dcgan
from models.convolution import Conv2d, ConvTranspose2d
from models.normalization import BatchNorm, LayerNorm
from models.precision import Tanh


def dcgan_D(*widths):
    kernels = (3, 4, 3, 4, 3, 4, 3)
    return sum(conv(i, o, k) for (i, o), k in zip(itertools.pairwise(widths), kernels, strict=True))


DCGAN = {  # G and D without their linear layers
    "code": (
        bn(512)
        + conv(512, 256, 4)
        + bn(256)
        + conv(256, 128, 4)
        + bn(128)
        + conv(128, 64, 4)
        + bn(64)
        + conv(64, 3, 3),
        dcgan_D(3, 64, 128, 128, 256, 256, 512, 512),
    ),
    "paper": (
        conv(512, 256, 4) + bn(256) + conv(256, 128, 4) + bn(128) + conv(128, 64, 4) + bn(64) + conv(64, 3, 3),
        dcgan_D(3, 64, 64, 128, 128, 256, 256, 512),
    ),
}


@pytest.mark.parametrize(("image_size", "bottom"), [(32, 4), (48, 6)])
@pytest.mark.parametrize("variant", dcgan.D_WIDTHS)
def test_dcgan_has_as_many_parameters_as_table_3_and_the_authors_code(variant, image_size, bottom):
    G, D = paper_size("dcgan", image_size, arch_variant=variant)
    expected_G, expected_D = DCGAN[variant]
    assert count(G) == linear(128, bottom**2 * 512) + expected_G
    assert count(D) == expected_D + linear(bottom**2 * 512, 1)


@pytest.mark.parametrize(
    ("variant", "widths"),
    [("code", (64, 128, 128, 256, 256, 512, 512)), ("paper", (64, 64, 128, 128, 256, 256, 512))],
)
def test_dcgans_layers_have_the_widths_and_sizes_of_table_3(variant, widths):
    G, D = paper_size("dcgan", 48, arch_variant=variant)
    z, images = torch.empty(2, 128, device="meta"), torch.empty(2, 3, 48, 48, device="meta")
    sizes = [(256, 12, 12), (128, 24, 24), (64, 48, 48), (3, 48, 48)]
    assert shapes(G, z, (nn.ConvTranspose2d, nn.Conv2d)) == sizes
    sizes = (48, 24, 24, 12, 12, 6, 6)
    assert shapes(D, images, nn.Conv2d) == [(c, s, s) for c, s in zip(widths, sizes, strict=True)]
    kernels = [layer.kernel_size[0] for layer in layers_of(D)[:-1]]
    assert kernels == [3, 4, 3, 4, 3, 4, 3] and D.layers[1].negative_slope == 0.1


@pytest.mark.parametrize("variant", dcgan.D_WIDTHS)
def test_only_the_authors_code_normalises_after_dcgans_linear_layer(variant):
    G, _ = build("dcgan", arch_variant=variant)
    bn_relu = [nn.BatchNorm2d, nn.ReLU]
    start = bn_relu if variant == "code" else []
    assert [type(layer) for layer in G.layers] == start + 3 * [ConvTranspose2d, *bn_relu] + [Conv2d, Tanh]


@pytest.mark.parametrize(("name", "kind"), [("batch", BatchNorm), ("layer", LayerNorm)])
def test_dcgans_d_normalises_after_every_convolution_but_the_first(name, kind):
    _, D = build("dcgan", d_norm=name)
    slope = nn.LeakyReLU
    assert [type(layer) for layer in D.layers] == [Conv2d, slope] + [Conv2d, kind, slope] * 6
    widths = [(layer.num_features if kind is BatchNorm else layer.num_channels) for layer in D.layers[3::3]]
    assert widths == [4, 4, 8, 8, 16, 16]


def test_dcgans_D_starts_from_a_normal_distribution_of_deviation_002():
    _, D = build("dcgan", base_channels=16)
    for layer in layers_of(D):
        n = layer.weight.numel()
        assert abs(layer.weight.std() / 0.02 - 1) < 4 / math.sqrt(n)
        assert abs(layer.weight.mean()) < 4 * 0.02 / math.sqrt(n)


def test_widths_that_are_added_reach_the_head_or_are_refused_in_words(monkeypatch):
    monkeypatch.setitem(dcgan.D_WIDTHS, "paper", (1, 1, 2, 2, 4, 4, 8, 8, 8))
    _, D = build("dcgan", 16, arch_variant="paper")
    assert D(torch.zeros(2, 3, 16, 16)).shape == (2, 1) and D.head.in_features == 16
    with pytest.raises(ValueError, match="paper"):
        build("dcgan", 8, arch_variant="paper")
