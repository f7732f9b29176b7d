"""The fast ways of convolving against torch's own, in float64, with first and second derivatives."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import convolution
from models.convolution import Conv2d, ConvTranspose2d, channels_last

# name: (the way, output channels, side of the map, kernel); a kernel of 4 has stride 2
WAYS = {
    "rows": (convolution.winograd_rows, 5, (3, 12), 3),
    "rows of one tile": (convolution.winograd_rows, 5, (2, 4), 3),
    "squares": (convolution.winograd_squares, 5, (8, 4), 3),
    "a single square": (convolution.winograd_squares, 5, (4, 4), 3),
    "strided squares": (convolution.winograd_squares, 5, (16, 8), 4),
    "a single strided square": (convolution.winograd_squares, 5, (8, 8), 4),
    "few outputs": (convolution.few_outputs_conv2d, 3, (5, 7), 3),
    "one output": (convolution.few_outputs_conv2d, 1, (8, 8), 3),
}


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def derivatives(function, x, weight):
    """The output, its gradients for a fixed cotangent, and the gradients of a function of those gradients."""
    y = function(x, weight)
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).sin()
    first = torch.autograd.grad((y.square() * cotangent).sum(), (x, weight), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight))
    return [y, *first, *second]


@pytest.mark.parametrize("name", WAYS)
def test_each_way_is_the_convolution_with_its_first_and_second_derivatives(name):
    way, outputs, side, kernel = WAYS[name]
    torch.manual_seed(0)
    x = torch.randn(2, 4, *side, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(outputs, 4, kernel, kernel, dtype=torch.float64, requires_grad=True)
    expected = derivatives(lambda x, weight: F.conv2d(x, weight, stride=kernel - 2, padding=1), x, weight)
    for mine, torchs in zip(derivatives(way, x, weight), expected, strict=True):
        assert mine.shape == torchs.shape and relative(mine, torchs) < 1e-12


@pytest.mark.parametrize("name", WAYS)
def test_each_way_takes_images_in_either_layout_and_gives_channels_last(name):
    way, outputs, side, kernel = WAYS[name]
    x, weight = torch.randn(2, 4, *side), torch.randn(outputs, 4, kernel, kernel)
    y = way(x, weight)
    assert torch.allclose(y, way(channels_last(x), weight), atol=1e-4)
    assert y.is_contiguous(memory_format=torch.channels_last)


# (layer, its arguments, side of the map): what models/ has, at sizes where one way or another is taken.
LAYERS = [
    (Conv2d, (5, 7, 3, 1, 1), 1),
    (Conv2d, (5, 7, 3, 1, 1), 2),
    (Conv2d, (5, 7, 4, 2, 1), 2),
    (Conv2d, (5, 7, 4, 2, 1), 3),
    (Conv2d, (5, 7, 4, 2, 1), 8),
    (Conv2d, (5, 7, 1), 1),
    (Conv2d, (5, 7, 1), 4),
    (Conv2d, (64, 3, 3, 1, 1), 8),
    (Conv2d, (64, 1, 3, 1, 1), 8),
    (Conv2d, (128, 130, 3, 1, 1), 8),
    (Conv2d, (128, 130, 3, 1, 1), 16),
    (Conv2d, (128, 130, 3, 1, 1), 6),
    (Conv2d, (256, 256, 3, 1, 1), 4),
    (Conv2d, (256, 256, 3, 1, 1), 8),
    (ConvTranspose2d, (5, 7, 4, 2, 1), 1),
    (ConvTranspose2d, (5, 7, 4, 2, 1), 2),
]


@pytest.mark.parametrize(("layer", "arguments", "side"), LAYERS, ids=str)
def test_a_layer_is_torchs_at_every_size_with_its_gradients(layer, arguments, side):
    torch.manual_seed(0)
    mine = layer(*arguments).double()
    torchs = layer.__bases__[0](*arguments).double()
    torchs.load_state_dict(mine.state_dict())
    x = torch.randn(2, arguments[0], side, side, dtype=torch.float64, requires_grad=True)
    y, expected = mine(x), torchs(x)
    assert y.shape == expected.shape and relative(y, expected) < 1e-12
    cotangent = torch.randn_like(expected)
    found = torch.autograd.grad(y, (x, *mine.parameters()), cotangent)
    for own, its in zip(found, torch.autograd.grad(expected, (x, *torchs.parameters()), cotangent), strict=True):
        assert relative(own, its) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "side", "taken"),
    [
        ((128, 128, 3, 1, 1), 16, "winograd_rows"),
        ((256, 256, 4, 2, 1), 8, "winograd_squares"),
        ((256, 256, 4, 2, 1), 16, None),
        ((255, 256, 4, 2, 1), 8, None),
        ((128, 127, 3, 1, 1), 16, None),
        ((128, 128, 3, 1, 1), 4, None),
        ((256, 256, 3, 1, 1), 8, "winograd_squares"),
        ((256, 256, 3, 1, 1), 12, "winograd_rows"),
        ((64, 3, 3, 1, 1), 32, "few_outputs_conv2d"),
        ((64, 4, 3, 1, 1), 32, None),
        ((256, 256, 1), 8, None),
    ],
    ids=str,
)
def test_the_way_that_was_measured_to_be_the_fastest_is_taken(monkeypatch, arguments, side, taken):
    called = []
    for name in ("winograd_rows", "winograd_squares", "few_outputs_conv2d"):
        way = getattr(convolution, name)
        monkeypatch.setattr(convolution, name, lambda *args, way=way, name=name: called.append(name) or way(*args))
    Conv2d(*arguments)(torch.randn(128, arguments[0], side, side))
    assert called == ([taken] if taken else [])


def test_float32_errors_are_a_few_times_those_of_the_direct_sum():
    torch.manual_seed(0)
    x, weight = torch.randn(4, 128, 8, 8), torch.randn(128, 128, 3, 3) / (9 * 128) ** 0.5
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    for way in (convolution.winograd_rows, convolution.winograd_squares):
        assert relative(way(x, weight), exact) < 3e-5


def test_a_stride_pays_from_128_images_on():
    layer = Conv2d(256, 256, 4, 2, 1)
    assert layer._way(127, 8, 8) is None and layer._way(128, 8, 8) is convolution.winograd_squares


def test_what_inference_mode_drew_first_can_be_trained_after():
    layer = Conv2d(128, 128, 3, 1, 1)
    x = torch.randn(1, 128, 8, 44)  # a width that no other test has used: its matrices are made here
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_keeps_the_values_and_decides_the_layout_of_what_follows(channels):
    x = torch.randn(4, channels, 8, 8)
    y = channels_last(x)
    assert torch.equal(x, y) and y.stride() == (64 * channels, 1, 8 * channels, channels)
    after = nn.Conv2d(channels, 16, 3, padding=1)(y)
    assert after.is_contiguous(memory_format=torch.channels_last) and not after.is_contiguous()


@pytest.mark.parametrize("layer", [Conv2d(3, 4, 3, 1, 1), ConvTranspose2d(3, 4, 4, 2, 1)], ids=["conv", "transposed"])
def test_state_dicts_and_copies_are_those_of_torchs_layers(layer):
    torchs = type(layer).__bases__[0](3, 4, layer.kernel_size)
    assert {name: p.shape for name, p in layer.state_dict().items()} == {
        name: p.shape for name, p in torchs.state_dict().items()
    }
    x = torch.randn(2, 3, 1, 1)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
