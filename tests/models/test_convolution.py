"""Convolutions of small maps against torch's own, in float64, with first and second derivatives; layouts in memory."""

import copy

import pytest
import torch
from torch import nn

from models.convolution import Conv2d, ConvTranspose2d, channels_last


def derivatives(layer, x):
    """The output, its gradients for a fixed cotangent, and the gradients of a function of those gradients."""
    y, inputs = layer(x), (x, *layer.parameters())
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).sin()
    first = torch.autograd.grad((y.square() * cotangent).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
    return [y, *first, *second]


@pytest.mark.parametrize(
    ("mine", "arguments", "sides"),
    [
        (lambda: Conv2d(5, 7, 3), (3, 1, 1), [(1, 1), (1, 3), (2, 2), (8, 8)]),
        (lambda: Conv2d(5, 7, 4, 2), (4, 2, 1), [(2, 2), (3, 3), (2, 4), (4, 2), (8, 8)]),
        (lambda: ConvTranspose2d(5, 7), (4, 2, 1), [(1, 1), (1, 2), (2, 2)]),
    ],
    ids=["3x3", "4x4", "transposed"],
)
def test_a_layer_is_torchs_at_every_size_with_its_derivatives(mine, arguments, sides):
    torch.manual_seed(0)
    layer = mine().double()
    torchs = type(layer).__bases__[0](5, 7, *arguments).double()
    torchs.load_state_dict(layer.state_dict())
    for side in sides:
        for images in (2, 0):
            x = torch.randn(images, 5, *side, dtype=torch.float64, requires_grad=True)
            for found, expected in zip(derivatives(layer, x), derivatives(torchs, x), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("layer", "side"), [(Conv2d(3, 4, 3), 1), (Conv2d(3, 4, 4, 2), 2)], ids=["3x3", "4x4"])
def test_the_taps_that_meet_padding_alone_get_no_gradient(layer, side):
    layer(torch.randn(2, 3, side, side)).sum().backward()
    met = torch.zeros(layer.kernel_size)
    met[1 : 1 + side, 1 : 1 + side] = 1
    assert torch.equal((layer.weight.grad != 0).any(0).any(0).float(), met)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_keeps_the_values_and_decides_the_layout_of_what_follows(channels):
    x = torch.randn(4, channels, 8, 8)
    y = channels_last(x)
    assert torch.equal(x, y) and y.stride() == (64 * channels, 1, 8 * channels, channels)
    assert channels_last(y).data_ptr() == y.data_ptr()  # what lies so already is not copied
    after = nn.Conv2d(channels, 16, 3, padding=1)(y)
    assert after.is_contiguous(memory_format=torch.channels_last) and not after.is_contiguous()


@pytest.mark.parametrize("layer", [Conv2d(3, 4, 3), ConvTranspose2d(3, 4)], ids=["conv", "transposed"])
def test_state_dicts_and_copies_are_those_of_torchs_layers(layer):
    torchs = type(layer).__bases__[0](3, 4, layer.kernel_size)
    assert {name: p.shape for name, p in layer.state_dict().items()} == {
        name: p.shape for name, p in torchs.state_dict().items()
    }
    x = torch.randn(2, 3, 1, 1)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
