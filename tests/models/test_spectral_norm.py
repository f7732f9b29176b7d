"""Spectral normalization against the SVD, torch's own version and the paper's equations, in float64."""

import copy

import pytest
import torch
from helpers import LAYERS, make, original, vectors
from helpers import output_rows as matrix
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from models.spectral_norm import spectral_norm
from models.weights import weight_matrix


def sigma(layer):
    """The estimate u^T W v by hand."""
    u, v = vectors(layer)
    return u @ matrix(layer, original(layer)) @ v


@pytest.mark.parametrize("name", LAYERS)
def test_sigma_converges_to_the_largest_singular_value(name):
    layer, x = make(name, n_power_iterations=1000)
    layer(x)
    singular_values = torch.linalg.svdvals(matrix(layer, original(layer)))
    torch.testing.assert_close(sigma(layer), singular_values[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(layer.weight * singular_values[0], original(layer), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_weight_matrix_has_a_row_for_each_output_channel(name):
    layer, _ = make(name)
    transposed, groups = "transposed" in name, getattr(layer, "groups", 1)
    assert torch.equal(weight_matrix(original(layer), transposed, groups), matrix(layer, original(layer)))


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("name", ["linear", "conv2d", "grouped conv2d", "embedding"])
def test_equals_torchs_version_step_by_step(name, iterations):
    # torch updates u before v, the paper v before u: the two are one algorithm on transposed matrices.
    layer, x = make(name, n_power_iterations=iterations)
    weight = original(layer).detach()
    reference = nn.Linear(weight.size(0), weight[0].numel(), bias=False, dtype=torch.float64)
    reference.weight.data = weight.flatten(1).t().clone()
    parametrizations.spectral_norm(reference, n_power_iterations=iterations)
    reference.parametrizations.weight[0]._v, reference.parametrizations.weight[0]._u = vectors(layer)
    plain = LAYERS[name][0]().double()
    for _ in range(3):
        output, reference_weight = layer(x), reference.weight.t().view_as(weight)
        parameters = {"weight": reference_weight, **({"bias": layer.bias} if hasattr(layer, "bias") else {})}
        expected = torch.func.functional_call(plain, parameters, x)
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(output.square().sum(), original(layer))
        (expected,) = torch.autograd.grad(expected.square().sum(), reference.parametrizations.weight.original)
        torch.testing.assert_close(gradient.flatten(1), expected.t(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LAYERS if "grouped transposed" not in name])
def test_equals_torchs_version_once_both_have_converged(name):
    layer, x = make(name, n_power_iterations=1000)
    torch.manual_seed(0)
    reference = parametrizations.spectral_norm(LAYERS[name][0]().double(), n_power_iterations=1000)
    output, expected = layer(x), reference(x)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(original(layer).grad, original(reference).grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_is_that_of_the_papers_equations_9_to_12_and_autograds(name):
    layer, x = make(name)
    layer(x)
    weight, (u, v) = original(layer), vectors(layer)
    cotangent = torch.randn_like(weight)
    (found,) = torch.autograd.grad(layer.weight, weight, cotangent)
    (by_autograd,) = torch.autograd.grad(weight / (u @ matrix(layer, weight) @ v), weight, cotangent)
    torch.testing.assert_close(found, by_autograd, rtol=1e-12, atol=1e-13)
    G, W, gradient = (matrix(layer, tensor) for tensor in (cotangent, weight.detach(), found))
    sigma = u @ W @ v
    expected = (G - (G * W / sigma).sum() * torch.outer(u, v)) / sigma
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "grouped transposed conv1d"])
def test_first_and_second_derivatives_match_finite_differences(name):
    layer, _ = make(name)
    weight = original(layer).detach().requires_grad_()
    assert gradcheck(layer.parametrizations.weight[0], weight)
    assert gradgradcheck(layer.parametrizations.weight[0], weight)


@pytest.mark.parametrize("iterations", [1, 2])
def test_a_training_forward_advances_exactly_n_iterations_and_reading_the_weight_none(iterations):
    layer, x = make("conv2d", n_power_iterations=iterations)
    torch.nn.init.normal_(original(layer))  # another weight, so that an iteration moves u and v a long way
    W, (u, v) = original(layer).detach().flatten(1), vectors(layer)
    for _ in range(3):
        assert layer.weight.shape == original(layer).shape
    assert torch.equal(u, vectors(layer)[0]) and torch.equal(v, vectors(layer)[1])
    for _ in range(iterations):
        v = W.t() @ u / (W.t() @ u).norm()
        u = W @ v / (W @ v).norm()
    output = layer(x)
    for found, expected in zip(vectors(layer), (u, v), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    expected = F.conv2d(x, original(layer) / (u @ W @ v), layer.bias)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


def test_two_forwards_before_one_backward_give_each_its_own_u_and_v():
    layer, _ = make("linear")
    torch.nn.init.normal_(original(layer))
    W, (u, _) = original(layer).detach().clone().requires_grad_(), vectors(layer)
    loss, expected = 0, 0
    for sign, x in ((1, torch.randn(5, 6).double()), (-1, torch.randn(5, 6).double())):
        loss = loss + sign * layer(x).tanh().sum()
        v = F.normalize(W.detach().t() @ u, dim=0)
        u = F.normalize(W.detach() @ v, dim=0)
        expected = expected + sign * (x @ (W / (u @ W @ v)).t() + layer.bias.detach()).tanh().sum()
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(original(layer).grad, W.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("layer", [lambda: nn.Linear(128, 64), lambda: nn.Conv2d(16, 32, 3)])
def test_sigma_is_within_ten_percent_before_any_training_forward(layer, seed):
    torch.manual_seed(seed)
    layer = spectral_norm(layer()).eval()
    largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)  # of W / sigma
    assert 0.9999 < largest < 1.1


@pytest.mark.parametrize("wrap_first", [True, False])
def test_a_zero_weight_gives_finite_numbers_and_recovers(wrap_first):
    torch.manual_seed(0)
    layer = nn.Linear(6, 4).double()
    W, x = layer.weight.detach().clone(), torch.randn(3, 6).double()
    if wrap_first:
        original(spectral_norm(layer)).data.zero_()
    else:
        layer.weight.data.zero_()
        spectral_norm(layer)
    output = layer(x)
    output.square().sum().backward()
    assert torch.equal(output, layer.bias.expand(3, 4))
    assert original(layer).grad.isfinite().all()
    original(layer).data.copy_(W)
    for _ in range(300):
        layer(x)
    torch.testing.assert_close(sigma(layer), torch.linalg.svdvals(W)[0], rtol=1e-10, atol=0)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_scale_of_the_weight_does_not_matter(scale):
    layer, x = make("conv2d", torch.float32)
    expected = layer(x)
    layer, x = make("conv2d", torch.float32)
    original(layer).data.mul_(scale)
    torch.testing.assert_close(layer(x), expected)


def test_a_weight_that_changes_after_the_iteration_is_divided_by_its_own_sigma():
    layer, x = make("conv2d")
    layer(x)
    expected = layer.weight.detach()
    layer(x)
    with torch.no_grad():
        original(layer).mul_(3)
    assert torch.allclose(layer.weight, original(layer) / sigma(layer), atol=1e-14)
    assert torch.allclose(layer.weight, expected, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_weight_is_iterated_in_float32(dtype):
    torch.manual_seed(0)
    layer = nn.Linear(64, 64).to(dtype)
    nn.init.constant_(layer.weight, 32.0)  # sigma is 32 * 64; the squares of W u overflow in float16
    spectral_norm(layer)
    output = layer(torch.ones(2, 64, dtype=dtype))
    for vector in vectors(layer):
        assert vector.dtype == torch.float32
        torch.testing.assert_close(vector.abs(), torch.full((64,), 1 / 8))
    assert layer.weight.dtype == output.dtype == dtype
    torch.testing.assert_close(layer.weight, torch.full_like(layer.weight, 1 / 64))


def test_sigma_under_autocast_is_that_of_float32():
    layer, x = make("conv2d", torch.float32)
    twin = copy.deepcopy(layer)
    twin(x)
    with torch.autocast("cpu", torch.bfloat16):
        output, weight = layer(x), layer.weight
    assert output.dtype == torch.bfloat16 and weight.dtype == torch.float32
    assert torch.equal(weight, twin.weight)
    assert all(torch.equal(a, b) for a, b in zip(vectors(layer), vectors(twin), strict=True))
