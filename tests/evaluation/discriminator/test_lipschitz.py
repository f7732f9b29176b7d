"""Spectra, bounds and gradients of D against dense matrices, the Fourier transform and finite differences."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import dense
from torch import nn
from torch.nn import Conv2d

from evaluation.discriminator import lipschitz
from models import build_models
from models.normalization import LayerNorm
from models.resampling import ConvAvgPool2d
from models.resnet import DownBlock


def without_bias(layer):
    layer.bias = None
    return layer.double()


def fourier_singular_values(kernel, size):
    """All singular values of a circular convolution of size x size maps (Sedghi, Gupta and Long 2019, theorem 6)."""
    padded = np.zeros((*kernel.shape[:2], size, size))
    padded[:, :, : kernel.shape[2], : kernel.shape[3]] = kernel
    matrices = np.fft.fft2(padded).transpose(2, 3, 0, 1)  # (size, size, C', C): one for each frequency
    return np.sort(np.linalg.svd(matrices, compute_uv=False).ravel())[::-1]


# ---- Layers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 0), (3, 1), (4, 1), (5, 2)])
def test_the_norm_of_a_convolution_is_that_of_its_dense_matrix(kernel, padding, stride):
    layer = without_bias(nn.Conv2d(3, 4, kernel, stride, padding))
    expected = torch.linalg.svdvals(dense(layer, (3, 7, 6)))[0].item()
    assert lipschitz.operator_norm(layer, (3, 7, 6)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (ConvAvgPool2d(3, 5), (3, 8, 6)),
        (Conv2d(2, 6, 4, 2, 1), (2, 8, 8)),
        (nn.Linear(11, 6), (11,)),
        (nn.Linear(4, 1), (4,)),
        (nn.Linear(1, 4), (1,)),
        (nn.Conv2d(1, 1, 1), (1, 1, 1)),
    ],
    ids=["ConvAvgPool2d", "Conv2d", "Linear", "Linear to 1", "Linear from 1", "a number"],
)
def test_the_norm_of_a_layer_is_that_of_its_dense_matrix(layer, shape):
    layer = without_bias(layer)
    expected = torch.linalg.svdvals(dense(layer, shape))[0].item()
    assert lipschitz.operator_norm(layer, shape) == pytest.approx(expected, rel=1e-6)


def test_the_norms_of_maps_that_are_known():
    assert lipschitz.operator_norm(lambda x: 0 * x, (5,)) == 0
    assert lipschitz.operator_norm(lambda x: -3 * x, (2, 4, 4)) == pytest.approx(3)
    assert lipschitz.operator_norm(lambda x: nn.functional.avg_pool2d(x, 2), (2, 6, 4)) == pytest.approx(
        lipschitz.POOLING
    )
    assert lipschitz.operator_norm(lambda x: x.sum(dim=(2, 3)), (2, 3, 5)) == pytest.approx(math.sqrt(15))
    diagonal = torch.arange(1.0, 41.0, dtype=torch.float64)
    assert lipschitz.operator_norm(lambda x: diagonal * x, (40,)) == pytest.approx(40)
    close = torch.linspace(0.9999, 1, 300, dtype=torch.float64)  # where power iteration all but stands still
    assert lipschitz.operator_norm(lambda x: close * x, (300,)) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("kernel", "size"), [(3, 6), (4, 5)])
def test_circular_convolutions_have_the_singular_values_of_the_fourier_transform(kernel, size):
    def circular(x):
        return layer(nn.functional.pad(x, (0, kernel - 1, 0, kernel - 1), mode="circular"))

    layer = without_bias(nn.Conv2d(3, 4, kernel))
    expected = fourier_singular_values(layer.weight.detach().numpy(), size)
    assert lipschitz.operator_norm(circular, (3, size, size)) == pytest.approx(expected[0], rel=1e-6)
    found = torch.linalg.svdvals(dense(circular, (3, size, size))).numpy()
    assert len(expected) == 3 * size**2
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_zero_padding_costs_no_norm():
    """A zero-padded convolution is a block of the circular one on a map large enough: its norm is at most that."""
    layer = without_bias(nn.Conv2d(3, 4, 3, padding=1))
    whole = fourier_singular_values(layer.weight.detach().numpy(), 8 + 2)[0]
    assert 0.8 * whole < lipschitz.operator_norm(layer, (3, 8, 8)) <= whole


def test_a_strided_convolution_that_tiles_the_image_has_the_norm_of_its_reshaped_weight():
    layer = without_bias(nn.Conv2d(3, 4, 2, stride=2))
    sigma = lipschitz.singular_values(layer.weight)[0].item()
    assert lipschitz.operator_norm(layer, (3, 8, 8)) == pytest.approx(sigma, rel=1e-6)


def test_singular_values_of_a_weight_are_those_it_was_made_of():
    U, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(12, 4, dtype=torch.float64))
    values = torch.tensor([5.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    weight = ((U * values) @ V.t()).view(4, 3, 2, 2)
    assert lipschitz.singular_values(nn.Parameter(weight)).tolist() == pytest.approx(values.tolist())


# ---- Gradients -----------------------------------------------------------------------------------------------------


def test_a_linear_discriminator_has_the_gradient_of_its_weight_everywhere():
    D = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    D[1].weight.data = torch.full((1, 12), 0.5)
    norms = lipschitz.input_gradient_norms(D, torch.randn(lipschitz.BATCH + 3, 3, 2, 2))
    assert norms.shape == (lipschitz.BATCH + 3,) and not norms.requires_grad
    assert norms.tolist() == pytest.approx([3**0.5] * len(norms))
    assert all(parameter.grad is None for parameter in D.parameters())


def test_gradient_norms_are_those_of_finite_differences():
    _, D = build_models("dcgan", image_size=8, channels=1, base_channels=2, d_norm="layer")
    D.double().eval()
    images, step = torch.randn(3, 1, 8, 8, dtype=torch.float64), 1e-6
    with torch.no_grad():
        moves = step * torch.eye(64, dtype=torch.float64).view(64, 1, 1, 8, 8)
        slopes = [(D(images + move) - D(images - move)).squeeze(1) / (2 * step) for move in moves]
    expected = torch.stack(slopes).norm(dim=0)
    assert lipschitz.input_gradient_norms(D, images).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


# ---- Bounds --------------------------------------------------------------------------------------------------------


def images(count=20, channels=1, size=8):
    return torch.rand(2, count, channels, size, size) * 2 - 1


def test_the_bound_of_a_linear_discriminator_is_its_slope():
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    D[1].weight.data = torch.full((1, 64), 0.25)
    found = lipschitz.audit(D, *images())
    for name in ("upper_bound", "upper_bound_reshaped", "lower_bound"):
        assert found[name] == pytest.approx(2)


def test_the_bound_of_a_hidden_layer_is_reached_where_it_is_on():
    """D(x) = 3 * LeakyReLU(2 x_0 + 100): of slope 6 where that is above 0, as it is on every image."""
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.LeakyReLU(0.2), nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.zero_()
        D[1].weight[0, 0], D[1].bias[0], D[3].weight[0, 0] = 2, 100, 3
        real, fake = images()
        found = lipschitz.audit(D, real, fake)
        assert (found["upper_bound"], found["lower_bound"]) == pytest.approx((6, 6))
        D[1].bias[0] = -100  # off: the slope is 0.2 of it, and the bound the same
        found = lipschitz.audit(D, real, fake)
        assert (found["upper_bound"], found["lower_bound"]) == pytest.approx((6, 1.2))


def test_a_linear_resnet_block_is_within_its_bound_and_a_bound_of_parts_is_tight_alone():
    """With biases that keep every ReLU on, the block is linear: its Jacobian at zero is its matrix."""
    block = DownBlock(2, 3, down=True, first=True).double()
    with torch.no_grad():
        block.conv1.bias.fill_(1e3)
    zero = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    constant = block(zero).detach()
    jacobian = torch.linalg.svdvals(dense(lambda x: block(x) - constant, (2, 4, 4)))[0].item()

    def bound():
        layers = {"conv1": (2, 4, 4), "conv2": (3, 4, 4), "shortcut": (2, 2, 2)}
        norms = {}
        for name, shape in layers.items():
            layer = getattr(block, name)
            at_zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
            norms[layer] = torch.linalg.svdvals(dense(lambda x: layer(x) - at_zero, shape))[0].item()  # noqa: B023
        return lipschitz.lipschitz(block, norms, {})

    assert 0.3 * bound() < jacobian <= bound()
    with torch.no_grad():
        block.conv2.weight.zero_()  # the shortcut alone, of pooling and a 1x1 convolution
    sigma = lipschitz.singular_values(block.shortcut.weight)[0].item()
    jacobian = torch.linalg.svdvals(dense(lambda x: block(x) - block(zero), (2, 4, 4)))[0].item()
    assert bound() == pytest.approx(jacobian, rel=1e-9) and jacobian == pytest.approx(sigma / 2, rel=1e-9)


def test_a_resnets_bound_counts_its_sum_over_the_map():
    """Without residual paths, a ResNet of ones sums its pixels: a slope of 1/4 for each of 64 at a positive image."""
    _, D = build_models("resnet", image_size=8, channels=1, base_channels=1, d_norm="none")
    with torch.no_grad():
        for name, parameter in D.named_parameters():
            parameter.fill_(float(name in ("blocks.0.shortcut.weight", "head.weight")))
    found = lipschitz.audit(D, torch.rand(4, 1, 8, 8) + 0.1, torch.rand(4, 1, 8, 8) + 0.1)
    assert found["upper_bound"] == pytest.approx(2) and found["lower_bound"] == pytest.approx(2)


def test_normalizations_scale_by_what_their_statistics_and_gains_say():
    _, D = build_models("mlp", image_size=8, channels=1, base_channels=2, d_norm="batch")
    norm = D.layers[3]
    norm.running_var.copy_(torch.tensor([4.0, 0.25]) - norm.eps)
    norm.weight.data = torch.tensor([-6.0, 1.0])
    (found,) = lipschitz.audit(D, *images())["normalizations"]
    assert found == {"name": "layers.3", "lipschitz": pytest.approx(3)}
    _, D = build_models("mlp", image_size=8, channels=1, base_channels=2, d_norm="layer")
    D.layers[3].weight.data = torch.tensor([-6.0, 1.0])
    (found,) = lipschitz.audit(D, *images())["normalizations"]
    assert found["lipschitz"] == pytest.approx(6 / math.sqrt(1e-5))


def test_the_bound_of_a_layer_norm_is_its_slope_at_a_constant_input():
    norm = LayerNorm(3).double()
    norm.weight.data = torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: norm(x[None]).flatten(), torch.ones(3).double())
    slope = torch.linalg.svdvals(jacobian)[0].item()
    assert lipschitz.lipschitz(norm, {}, {}) == pytest.approx(slope, rel=1e-9)


def test_an_audit_needs_float64_and_is_of_a_CPU_where_the_device_may_have_none():
    D = build_models("dcgan", 8, 1, 8, 4)[1]
    real, fake = images()
    expected = lipschitz.audit(D, real, fake)
    # Its parameters say that they are elsewhere: what is moved there raises here.
    D.parameters = lambda: iter([SimpleNamespace(device=torch.device("mps"), requires_grad_=lambda needed: None)])
    assert lipschitz.audit(D, real, fake) == expected


@pytest.mark.parametrize(
    ("D", "words", "layers"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Softplus(), nn.Linear(4, 1)), "activation.Softplus", 2),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 1)), "statistics", 1),
    ],
    ids=["Softplus", "BatchNorm1d"],
)
def test_where_no_bound_is_known_the_layers_and_gradients_are_and_it_is_said_why(D, words, layers):
    found = lipschitz.audit(D, *images())
    assert found["upper_bound"] is None and found["upper_bound_reshaped"] is None and words in found["no_bound"]
    assert len(found["layers"]) == layers and found["lower_bound"] > 0
    assert f"D's slope has no known bound: {found['no_bound']}" in lipschitz.summary(found)
