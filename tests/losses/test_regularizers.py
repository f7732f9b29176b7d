"""Penalties and clipping on discriminators whose gradients are known in closed form."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from losses import REGULARIZERS
from losses.regularizers import (
    clip_weights,
    finite_difference,
    gradient_penalty,
    input_gradient,
    lecam,
    orthonormal,
    r1,
    r1_r2,
    r2,
)
from models import build_models
from models.spectral_norm import spectral_norm
from settings.config import DOUBLE, PENALTIES

SHAPE = (3, 2, 2, 2)  # (N, C, H, W)


def batch(seed=0):
    """real, fake and alpha in float64."""
    generator = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    return real, fake, torch.rand(SHAPE[0], 1, 1, 1, generator=generator, dtype=torch.float64)


def linear_D(length):
    """D(x) = w x + b with |w| = length: its input gradient is w everywhere. Returns (D, w)."""
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(8, 1).double())
    D[1].weight.data *= length / D[1].weight.norm()
    return D, D[1].weight


def quadratic_D(x):
    """Its gradient at x is x."""
    return x.flatten(1).square().sum(1, keepdim=True) / 2


def test_input_gradient_is_per_image_and_leaves_the_images_alone():
    real, *_ = batch()
    torch.testing.assert_close(input_gradient(quadratic_D, real), real, rtol=1e-12, atol=0)
    assert not real.requires_grad and real.grad is None


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_D_and_its_derivative(length, alpha):
    real, fake, _ = batch()
    D, w = linear_D(length)
    penalty = gradient_penalty(D, real, fake, torch.full((3, 1, 1, 1), alpha).double())
    penalty.backward()
    torch.testing.assert_close(penalty.item(), (length - 1) ** 2, rtol=0, atol=1e-12)
    torch.testing.assert_close(w.grad, 2 * (length - 1) * w.detach() / length, rtol=0, atol=1e-12)


def test_gradient_penalty_looks_at_the_points_between_real_and_fake():
    real, fake, alpha = batch()
    for a in (alpha, torch.ones_like(alpha), torch.zeros_like(alpha)):
        points = torch.stack([a[i, 0, 0, 0] * real[i] + (1 - a[i, 0, 0, 0]) * fake[i] for i in range(len(real))])
        expected = ((points.flatten(1).norm(dim=1) - 1) ** 2).mean()
        torch.testing.assert_close(gradient_penalty(quadratic_D, real, fake, a), expected, rtol=1e-12, atol=0)


def test_gradient_penalty_of_a_flat_D_is_one_with_a_finite_derivative():
    D, w = linear_D(0.0)
    penalty = gradient_penalty(D, *batch())
    penalty.backward()
    assert penalty.item() == 1 and w.grad.isfinite().all()


@pytest.mark.parametrize("length", [0.5, 3.0])
def test_r1_of_a_linear_D_and_its_derivative(length):
    D, w = linear_D(length)
    penalty = r1(D, *batch())
    penalty.backward()
    torch.testing.assert_close(penalty.item(), length**2 / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(w.grad, w.detach(), rtol=1e-12, atol=1e-12)


def test_r1_looks_at_the_real_images_alone():
    real, fake, alpha = batch()
    expected = real.square().sum() / len(real) / 2
    torch.testing.assert_close(r1(quadratic_D, real, fake, alpha), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(r1(quadratic_D, real, None, None), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("step", [0.01, 1.0])
def test_a_finite_difference_of_a_linear_D_is_its_slope_along_the_noise(step):
    real, noise, _ = batch()
    D, w = linear_D(3.0)
    along = noise.flatten(1) @ w.detach().t()  # (3, 1)
    penalty = finite_difference(D, real, noise, step=step)
    penalty.backward()
    torch.testing.assert_close(penalty.item(), along.square().mean().item() / 2, rtol=1e-10, atol=0)
    torch.testing.assert_close(w.grad, (along * noise.flatten(1)).mean(0, keepdim=True), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(finite_difference(D, real, noise, D(real), step), penalty, rtol=1e-12, atol=0)


def test_the_mean_of_finite_differences_over_noise_of_unit_covariance_is_R1():
    D, _ = linear_D(3.0)
    real = torch.randn(8, 2, 2, 2, dtype=torch.float64)
    noise = 8**0.5 * torch.eye(8, dtype=torch.float64).view(8, 2, 2, 2)  # the mean of e e^T is I
    torch.testing.assert_close(finite_difference(D, real, noise), r1(D, real, None, None), rtol=1e-10, atol=0)


def test_a_finite_difference_has_a_known_bias_and_becomes_the_derivative_along_the_noise():
    real, noise, _ = batch()
    along, squared = (real * noise).flatten(1).sum(1), noise.flatten(1).square().sum(1)
    expected = (along + 0.05 * squared).square().mean() / 2  # (|x + s e|^2 - |x|^2) / 2 s, for s = 0.1
    torch.testing.assert_close(finite_difference(quadratic_D, real, noise, step=0.1), expected, rtol=1e-10, atol=0)
    torch.manual_seed(0)
    D = nn.Sequential(nn.Conv2d(2, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(2, 1)).double()
    _, slope = torch.autograd.functional.jvp(D, real, noise)
    expected = slope.square().mean() / 2
    torch.testing.assert_close(finite_difference(D, real, noise, step=1e-6), expected, rtol=1e-5, atol=0)


def differences(D, real, fake, noise):
    return finite_difference(D, real, noise) + finite_difference(D, fake, noise)


@pytest.mark.parametrize("penalty", [gradient_penalty, r1, differences])
def test_derivatives_in_the_parameters_match_finite_differences(penalty):
    torch.manual_seed(0)
    D, images = nn.Sequential(nn.Conv2d(2, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(2, 1)).double(), batch()
    names = [name for name, _ in D.named_parameters() if name.endswith("weight")]

    def of_weights(*weights):
        parameters = dict(zip(names, weights, strict=True))
        return penalty(lambda x: torch.func.functional_call(D, parameters, x), *images)

    assert gradcheck(of_weights, [D.get_parameter(name) for name in names])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 0], [0, 1]], 0),
        ([[2.0, 0], [0, 1]], 9),
        ([[1.0, 2, 0], [0, 1, 0]], 16 + 2 * 4 + 0),  # W W^T = [[5, 2], [2, 1]]
        ([[1.0, 0], [0, 1], [0, 0]], 0),  # tall: the columns are orthonormal
        ([[1.0, 0], [2, 1], [0, 0]], 16 + 2 * 4 + 0),  # W^T W = [[5, 2], [2, 1]]
    ],
)
def test_orthonormal_by_hand(rows, expected):
    layer = nn.Linear(len(rows[0]), len(rows))
    layer.weight.data = torch.tensor(rows)
    assert orthonormal(layer, None, None, None).item() == expected


def test_orthonormal_sums_over_layers_what_their_singular_values_miss():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(2, 20, 1), nn.Linear(4, 1)).double()
    nn.init.constant_(D[1].weight, 7.0)  # of no account: it is no matrix
    expected = sum((torch.linalg.svdvals(D[i].weight.flatten(1)) ** 2 - 1).square().sum() for i in (0, 2, 3))
    torch.testing.assert_close(orthonormal(D, None, None, None), expected, rtol=1e-12, atol=0)


def test_orthonormal_derivative_is_four_times_the_excess():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    orthonormal(layer, None, None, None).backward()
    W = layer.weight.detach()
    expected = 4 * (W @ W.t() - torch.eye(3, dtype=torch.float64)) @ W
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-12, atol=1e-12)


def test_orthonormal_under_spectral_norm_takes_the_parameter_and_does_not_advance_u():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    expected = orthonormal(layer, None, None, None)
    spectral_norm(layer)
    layer.parametrizations.weight[0].u.copy_(torch.tensor([1.0, 0, 0]))
    found = orthonormal(layer, None, None, None)
    found.backward()
    assert torch.equal(found, expected)
    assert layer.parametrizations.weight.original.grad.abs().sum() > 0
    assert layer.parametrizations.weight[0].u.tolist() == [1, 0, 0]


def test_clip_weights_clamps_every_parameter_in_place():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Linear(20, 20), nn.BatchNorm1d(20))
    before = [parameter.detach().clone() for parameter in D.parameters()]
    clip_weights(D, 0.1)
    for parameter, old in zip(D.parameters(), before, strict=True):
        assert torch.equal(parameter, old.clamp(-0.1, 0.1)) and parameter.requires_grad
    assert D[0].weight.abs().max() == D[1].weight.min() == torch.tensor(0.1)


@pytest.mark.parametrize("length", [0.5, 3.0])
def test_r2_of_a_linear_D_is_r1_and_both_are_their_sum(length):
    real, fake, alpha = batch()
    D, w = linear_D(length)
    penalty = r1_r2(D, real, fake, alpha)
    penalty.backward()
    torch.testing.assert_close(r2(D, real, fake, alpha).item(), length**2 / 2, rtol=0, atol=1e-12)
    torch.testing.assert_close(penalty.item(), length**2, rtol=0, atol=1e-12)
    torch.testing.assert_close(w.grad, 2 * w.detach(), rtol=0, atol=1e-12)


def test_r2_looks_at_the_samples_and_at_their_labels():
    real, fake, alpha = batch()
    expected = fake.flatten(1).square().sum(1).mean() / 2
    torch.testing.assert_close(r2(quadratic_D, real, fake, alpha), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        r1_r2(quadratic_D, real, fake, alpha), expected + r1(quadratic_D, real, fake, alpha), rtol=1e-12, atol=0
    )

    def scaled(x, labels):  # its gradient at x is labels * x
        return labels.view(-1, 1) * quadratic_D(x)

    labels, real_labels = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 2.0])
    squares = fake.flatten(1).square().sum(1)
    torch.testing.assert_close(
        r2(scaled, real, fake, alpha, real_labels, labels), (labels**2 * squares).mean() / 2, rtol=1e-7, atol=0
    )


def test_lecam_counts_what_has_not_crossed_the_average_of_the_other_side():
    real, fake = torch.tensor([[3.0], [0.0]]), torch.tensor([[-1.0], [4.0]])
    # real above the samples' average 1: (2, 0); the real images' average 2 above the samples: (3, 0)
    assert lecam(real, fake, torch.tensor(2.0), torch.tensor(1.0)).item() == (4 + 0) / 2 + (9 + 0) / 2
    real, fake = torch.randn(2, 6, 1, dtype=torch.float64, requires_grad=True)
    averages = torch.tensor([0.3, -0.2], dtype=torch.float64)
    assert gradcheck(lecam, (real.detach().requires_grad_(), fake.detach().requires_grad_(), *averages))


@pytest.mark.parametrize("name", [name for name, regularizer in REGULARIZERS.items() if regularizer.penalty])
@pytest.mark.parametrize("d_norm", ["none", "spectral"])
def test_penalties_reach_D_and_neither_G_nor_the_images(name, d_norm):
    torch.manual_seed(0)
    G, D = build_models("dcgan", 8, base_channels=2, z_dim=4, d_norm=d_norm)
    real, fake = torch.randn(3, 3, 8, 8, requires_grad=True), G(torch.randn(3, 4))
    fake.retain_grad()
    penalty = REGULARIZERS[name].penalty(D, real, fake, torch.rand(3, 1, 1, 1))
    assert all(parameter.grad is None for parameter in [*G.parameters(), *D.parameters()])
    penalty.backward()
    assert penalty.shape == () and real.grad is None and fake.grad is None
    assert all(parameter.grad is None for parameter in G.parameters())
    layers = [layer for layer in D.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    weights = [layer.weight if d_norm == "none" else layer.parametrizations.weight.original for layer in layers]
    assert all(weight.grad.abs().sum() > 0 for weight in weights)


def test_the_table_says_what_each_regularizer_does_and_the_papers_weights():
    assert REGULARIZERS["none"] == (0, None, None, None, None, False)
    assert REGULARIZERS["weight_clipping"] == (0.01, None, clip_weights, None, None, False)
    penalties = {"gradient_penalty": gradient_penalty, "r1": r1, "r2": r2, "r1_r2": r1_r2}
    assert all(REGULARIZERS[name] == (10, penalty, None, None, None, True) for name, penalty in penalties.items())
    assert REGULARIZERS["approximate_r1"] == (10, None, None, None, "real", True)
    assert REGULARIZERS["approximate_r2"] == (10, None, None, None, "fake", True)
    assert REGULARIZERS["lecam"] == (0.3, None, None, lecam, None, False)
    assert REGULARIZERS["orthonormal"] == (1e-4, orthonormal, None, None, None, False)
    assert tuple(name for name, found in REGULARIZERS.items() if found.on_gradient) == PENALTIES
    assert tuple(name for name in PENALTIES if not REGULARIZERS[name].near) == DOUBLE
