"""Spectral normalization against the SVD, torch's own version and the paper's equations, in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from models.spectral_norm import power_iteration, remove_spectral_norm, spectral_norm, weight_matrix

# name -> (layer, one input)
LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), torch.ones(2, 6)),
    "tall linear": (lambda: nn.Linear(3, 7), torch.ones(2, 3)),
    "embedding": (lambda: nn.Embedding(7, 3), torch.tensor([0, 6])),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), torch.ones(2, 4, 5)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), torch.ones(2, 4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), torch.ones(2, 2, 3, 3, 3)),
    "grouped conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2), torch.ones(2, 4, 5)),
    "grouped conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), torch.ones(2, 4, 5, 5)),
    "grouped conv3d": (lambda: nn.Conv3d(2, 4, 2, groups=2), torch.ones(2, 2, 3, 3, 3)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(4, 6, 3), torch.ones(2, 4, 5)),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(4, 6, 3), torch.ones(2, 4, 5, 5)),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(2, 3, 2), torch.ones(2, 2, 3, 3, 3)),
    "grouped transposed conv1d": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), torch.ones(2, 4, 5)),
    "grouped transposed conv2d": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), torch.ones(2, 4, 5, 5)),
    "grouped transposed conv3d": (lambda: nn.ConvTranspose3d(4, 4, 2, groups=2), torch.ones(2, 4, 3, 3, 3)),
}


def make(name, dtype=torch.float64, **settings):
    """A normalised layer of LAYERS with an input that it takes."""
    torch.manual_seed(0)
    layer, x = LAYERS[name][0]().to(dtype), LAYERS[name][1]
    return spectral_norm(layer, **settings), x.to(dtype) if x.is_floating_point() else x


def matrix(layer, weight):
    """The rows by hand: what output channel c of group g sees, which a transposed layer stores as [inputs of g, c]."""
    if "Transpose" not in type(layer).__name__:
        return torch.stack([row.flatten() for row in weight])
    size = layer.in_channels // layer.groups
    groups = [weight[g * size : (g + 1) * size] for g in range(layer.groups)]
    return torch.stack([group[:, c].flatten() for group in groups for c in range(weight.size(1))])


def original(layer):
    return layer.parametrizations.weight.original


def vectors(layer):
    """Copies of u and v."""
    return layer.parametrizations.weight[0].u.clone(), layer.parametrizations.weight[0].v.clone()


def sigma(layer):
    return layer.parametrizations.weight[0].sigma(original(layer))


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
def test_gradient_is_that_of_the_papers_equations_9_to_12(name):
    layer, x = make(name)
    layer(x)
    G, (u, v) = torch.randn_like(original(layer)), vectors(layer)
    (layer.weight * G).sum().backward()
    G, W, gradient = (matrix(layer, weight) for weight in (G, original(layer).detach(), original(layer).grad))
    sigma = u @ W @ v
    expected = (G - (G * W / sigma).sum() * torch.outer(u, v)) / sigma
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "grouped transposed conv1d"])
def test_first_and_second_derivatives_match_finite_differences(name):
    layer, _ = make(name)
    weight = original(layer).detach().requires_grad_()
    assert gradcheck(layer.parametrizations.weight[0], weight)
    assert gradgradcheck(layer.parametrizations.weight[0], weight)


@pytest.mark.parametrize("name", LAYERS)
def test_evaluation_changes_nothing_and_repeats_bit_for_bit(name):
    layer, x = make(name, torch.float32)
    layer(x)
    layer.eval()
    u, v = vectors(layer)
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(u, vectors(layer)[0]) and torch.equal(v, vectors(layer)[1])


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


def test_a_deepcopy_has_the_same_u_and_v_in_its_own_memory():
    layer, x = make("conv2d")
    layer(x)
    twin, before = copy.deepcopy(layer), vectors(layer)
    assert all(torch.equal(a, b) for a, b in zip(vectors(twin), before, strict=True))
    original(twin).data.normal_()
    twin(x)
    assert not torch.allclose(vectors(twin)[0], before[0])
    assert all(torch.equal(a, b) for a, b in zip(vectors(layer), before, strict=True))


def test_the_state_dict_carries_u_and_v():
    layer, x = make("conv2d")
    original(layer).data.normal_()
    layer(x)  # u and v lag behind the weight, so that the output depends on them
    torch.manual_seed(1)
    other = spectral_norm(nn.Conv2d(4, 6, 3).double())
    other.load_state_dict(layer.state_dict())
    prefix = "parametrizations.weight."
    assert set(layer.state_dict()) == {"bias", prefix + "original", prefix + "0.u", prefix + "0.v"}
    assert torch.equal(other.eval()(x), layer.eval()(x))
    assert all(torch.equal(a, b) for a, b in zip(vectors(other.train()), vectors(layer.train()), strict=True))
    assert torch.equal(other(x), layer(x))  # and both go on alike


@pytest.mark.parametrize("name", LAYERS)
def test_removal_keeps_the_output_and_leaves_nothing_behind(name):
    layer, x = make(name)
    layer(x)
    expected = layer.eval()(x)
    assert remove_spectral_norm(layer) is layer
    assert torch.equal(layer(x), expected) and torch.equal(layer.train()(x), expected)
    assert not parametrize.is_parametrized(layer) and not layer._forward_pre_hooks
    assert set(layer.state_dict()) == set(LAYERS[name][0]().state_dict())
    assert isinstance(layer.weight, nn.Parameter) and layer.weight.requires_grad


def test_removal_reaches_every_layer_of_a_network_and_spares_other_hooks():
    torch.manual_seed(0)
    network = nn.Sequential(spectral_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 5), spectral_norm(nn.Linear(5, 1)))
    calls, x = [], torch.randn(3, 4)
    network[0].register_forward_pre_hook(lambda module, inputs: calls.append(module))
    expected = network.eval()(x)
    remove_spectral_norm(network)
    assert torch.equal(network(x), expected)
    assert calls == [network[0]] * 2
    assert not any(parametrize.is_parametrized(layer) for layer in network)
    spectral_norm(network[0])  # as good as new


def test_removal_from_a_copy_leaves_the_original_as_it_was():
    layer, x = make("conv2d")
    expected = layer.eval()(x)
    copied = copy.deepcopy(layer)
    remove_spectral_norm(copied)
    assert torch.equal(copied(x), expected) and torch.equal(layer(x), expected)
    before = vectors(layer)
    layer.train()(x).sum().backward()
    assert original(layer).grad is not None and not torch.equal(before[0], vectors(layer)[0])


def test_a_weight_that_changes_after_the_iteration_is_divided_by_its_own_sigma():
    layer, _ = make("conv2d")
    layer.parametrizations.weight[0].iterate(original(layer))
    expected = layer.weight.detach()
    layer.parametrizations.weight[0].iterate(original(layer))
    with torch.no_grad():
        original(layer).mul_(3)
    assert torch.allclose(layer.weight, original(layer) / sigma(layer), atol=1e-14)
    assert torch.allclose(layer.weight, expected, atol=0.1)


@pytest.mark.parametrize("name", ["linear", "conv2d", "grouped conv2d", "embedding"])
def test_the_closed_form_of_the_gradient_is_autograds(name):
    layer, x = make(name)
    layer(x)
    torch.manual_seed(1)
    u, v = vectors(layer)
    weight = original(layer)
    cotangent = torch.randn_like(weight)
    expected = torch.autograd.grad(weight / torch.dot(u, weight.flatten(1) @ v), weight, cotangent)[0]
    found = torch.autograd.grad(layer.weight, weight, cotangent)[0]
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("module", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.ReLU()])
def test_removal_from_a_module_without_it_is_a_value_error(module):
    with pytest.raises(ValueError, match="no layer of this"):
        remove_spectral_norm(module)


def test_wrapping_twice_is_a_value_error():
    layer = spectral_norm(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="parametrized already"):
        spectral_norm(layer)


@pytest.mark.parametrize("module", [nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 2)), nn.Bilinear(2, 2, 2), nn.ReLU()])
def test_an_unsupported_module_is_a_type_error(module):
    with pytest.raises(TypeError, match=type(module).__name__):
        spectral_norm(module)


@pytest.mark.parametrize("iterations", [0, -1])
def test_fewer_than_one_iteration_is_a_value_error(iterations):
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="at least"):
        spectral_norm(layer, n_power_iterations=iterations)
    assert not parametrize.is_parametrized(layer)
    with pytest.raises(ValueError, match="at least"):
        power_iteration(torch.eye(2), torch.ones(2), iterations)


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
        output, found = layer(x), sigma(layer)
    assert output.dtype == torch.bfloat16 and found.dtype == torch.float32
    assert torch.equal(found, sigma(twin))
    assert all(torch.equal(a, b) for a, b in zip(vectors(layer), vectors(twin), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wrapped_network_can_be_cast_to_half_precision(dtype):
    layer = spectral_norm(nn.Linear(6, 5)).to(dtype)
    largest = torch.linalg.matrix_norm(layer.weight.float(), 2)
    layer(torch.ones(2, 6, dtype=dtype))
    assert layer.weight.dtype == dtype and abs(largest - 1) < 0.1
