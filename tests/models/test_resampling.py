"""The fused resampling convolutions against their plain pairs, in float64: values and two orders of derivatives."""

import pytest
import torch
from torch import nn
from torch.autograd import gradgradcheck
from torch.nn import functional as F

from models.resampling import ConvAvgPool2d, UpsampleConv2d
from models.spectral_norm import spectral_norm


def upsample_then_conv(x, weight, bias):
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)


def conv_then_pool(x, weight, bias):
    return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)


UP, DOWN = (UpsampleConv2d, upsample_then_conv), (ConvAvgPool2d, conv_then_pool)
CASES = [
    *((UP, (n, h, w)) for n, h, w in [(1, 1, 1), (3, 2, 2), (5, 1, 4), (2, 3, 5), (3, 8, 8)]),
    *((DOWN, (n, h, w)) for n, h, w in [(1, 2, 2), (3, 4, 4), (5, 2, 6), (3, 8, 8)]),
]


@pytest.mark.parametrize(("pair", "shape"), CASES)
def test_the_fused_layer_and_its_derivatives_equal_the_plain_pair(pair, shape):
    torch.manual_seed(0)
    (fused, plain), (n, h, w) = pair, shape
    layer, x = fused(3, 5).double(), torch.randn(n, 3, h, w).double().requires_grad_()
    output, expected = layer(x), plain(x, layer.weight, layer.bias)
    assert output.shape == (n, 5, 2 * h, 2 * w) if fused is UpsampleConv2d else (n, 5, h // 2, w // 2)
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(output, expected, **close)

    inputs, direction = (x, layer.weight, layer.bias), torch.randn_like(output).requires_grad_()
    gradients = torch.autograd.grad(output, inputs, direction, create_graph=True)
    expected_gradients = torch.autograd.grad(expected, inputs, direction, create_graph=True)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, **close)

    again = (x, layer.weight, direction)
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), again)
    expected_second = torch.autograd.grad(sum(g.square().sum() for g in expected_gradients), again)
    for gradient, expected in zip(second, expected_second, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("fused", [UpsampleConv2d, ConvAvgPool2d])
def test_second_derivatives_match_finite_differences(fused):
    torch.manual_seed(0)
    layer = fused(1, 2).double()
    x, weight = torch.randn(1, 1, 2, 2).double().requires_grad_(), layer.weight.detach().clone().requires_grad_()
    assert gradgradcheck(lambda x, weight: torch.func.functional_call(layer, {"weight": weight}, x), (x, weight))


def test_spread_sums_the_kernel_over_four_positions():
    kernel = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    expected = torch.tensor([[1.0, 3, 5, 3], [5, 12, 16, 9], [11, 24, 28, 15], [7, 15, 17, 9]])
    assert torch.equal(UpsampleConv2d(1, 1).spread(kernel), expected)


@pytest.mark.parametrize(("fused", "plain"), [UP, DOWN])
def test_spectral_norm_acts_on_the_3x3_weight(fused, plain):
    torch.manual_seed(0)
    layer = fused(3, 5).double()
    reference = nn.Conv2d(3, 5, 3).double()
    reference.load_state_dict(layer.state_dict())
    expected = reference.weight / torch.linalg.matrix_norm(reference.weight.flatten(1), 2)
    spectral_norm(layer, n_power_iterations=1000)
    x = torch.randn(2, 3, 4, 4).double()
    output = layer(x)
    torch.testing.assert_close(layer.weight, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(output, plain(x, expected, layer.bias), rtol=1e-10, atol=1e-10)
