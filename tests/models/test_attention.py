"""Self-attention against a loop over pixels; where it stands in the networks, and where it cannot."""

import math

import pytest
import torch
from helpers import build, count, layers_of, shapes
from torch.func import vmap
from torch.nn import functional as F

from models import dcgan, resnet
from models.attention import SelfAttention
from models.spectral_norm import norm_of


def test_attention_is_what_a_loop_over_the_pixels_gives():
    torch.manual_seed(0)
    layer, x = SelfAttention(16).double(), torch.randn(2, 16, 4, 6).double()
    layer.scale.data.fill_(0.7)
    query, key, value, output = (getattr(layer, name).weight.flatten(1) for name in ("query", "key", "value", "output"))
    assert (len(query), len(key), len(value), len(output)) == (2, 2, 8, 16)
    expected = x.clone()
    for n in range(2):
        keys, values = F.max_pool2d((key @ x[n].flatten(1)).view(1, 2, 4, 6), 2)[0], []
        values = F.max_pool2d((value @ x[n].flatten(1)).view(1, 8, 4, 6), 2)[0]
        for i in range(4):
            for j in range(6):
                asked = query @ x[n, :, i, j]
                scores = [math.exp(asked @ keys[:, a, b]) for a in range(2) for b in range(3)]
                seen = sum(s * values[:, k // 3, k % 3] for k, s in enumerate(scores)) / sum(scores)
                expected[n, :, i, j] += 0.7 * output @ seen
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_attention_is_the_identity_at_the_start_and_its_scale_moves_first():
    layer, x = SelfAttention(4), torch.randn(2, 4, 5, 5)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.scale.grad.abs() > 0 and not layer.query.weight.grad.any()
    assert count(SelfAttention(4)) == 4 * (1 + 1 + 2 + 2) + 1  # C/8, but one channel at least


def test_attention_goes_through_vmap_and_second_derivatives():
    torch.manual_seed(0)
    layer, x = SelfAttention(4).double(), torch.randn(3, 4, 4, 4).double()
    layer.scale.data.fill_(0.5)
    torch.testing.assert_close(vmap(lambda x: layer(x[None])[0])(x), layer(x))
    assert torch.autograd.gradgradcheck(lambda x: layer(x), x[:1, :, :2, :2].clone().requires_grad_())


@pytest.mark.parametrize(
    ("model", "image_size", "sides"),
    [
        ("dcgan", 32, [4, 8, 16, 32]),
        ("dcgan", 8, [1, 2, 4, 8]),
        ("resnet", 8, [4]),
        ("resnet", 16, [8]),
        ("resnet", 32, [8, 16]),
        ("resnet", 48, [6, 12, 24]),
        ("resnet", 64, [4, 8, 16, 32]),
        ("resnet", 128, [4, 8, 16, 32, 64]),
    ],
)
def test_one_attention_stands_on_the_maps_of_each_side_that_both_networks_have(model, image_size, sides):
    assert {"dcgan": dcgan, "resnet": resnet}[model].attention_sides(image_size) == sides
    for side in (side for side in sides if side > 1):
        G, D = build(model, image_size, attention=side)
        with torch.no_grad():
            images = torch.zeros(2, 3, image_size, image_size)
            for network, x in ((G, torch.randn(2, 5)), (D, images)):
                ((_, height, width),) = shapes(network, x, SelfAttention)
                assert (height, width) == (side, side)


@pytest.mark.parametrize("model", ["dcgan", "resnet"])
def test_attention_stands_under_the_norm_of_its_network(model):
    G, D = build(model, 16, attention=8, d_norm="spectral", g_sn=True)
    for network in (G, D):
        (attention,) = (module for module in network.modules() if isinstance(module, SelfAttention))
        assert [norm_of(layer) is not None for layer in layers_of(attention)] == [True] * 4
    assert not any(isinstance(module, SelfAttention) for network in build(model, 16) for module in network.modules())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "resnet", "attention": 4}, "attention 4: .* resnet has feature maps of 8, 16 pixels a side in both"),
        ({"model": "dcgan", "attention": 1, "image_size": 8}, "dcgan has feature maps of 2, 4, 8 pixels"),
        ({"model": "dcgan", "attention": 64}, "dcgan has feature maps of 4, 8, 16, 32 pixels"),
        ({"model": "mlp", "attention": 8}, "attention 8 is for --model dcgan or resnet, not mlp"),
    ],
)
def test_a_side_that_does_not_occur_is_refused_with_those_that_do(settings, reason):
    with pytest.raises(ValueError, match=reason):
        build(**settings)
