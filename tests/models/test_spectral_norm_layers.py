"""Layers under spectral normalization: evaluated, copied, saved, cast and unwrapped, and what is refused."""

import copy

import pytest
import torch
from helpers import LAYERS, make, original, vectors
from torch import nn
from torch.nn.utils import parametrize

from models.spectral_norm import remove_spectral_norm, spectral_norm


def same(layer, vectors_before):
    """Whether u and v are these, to the bit."""
    return all(torch.equal(a, b) for a, b in zip(vectors(layer), vectors_before, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_evaluation_changes_nothing_and_repeats_bit_for_bit(name):
    layer, x = make(name, torch.float32)
    layer(x)
    layer.eval()
    before = vectors(layer)
    assert torch.equal(layer(x), layer(x))
    assert same(layer, before)


def test_a_deepcopy_has_the_same_u_and_v_in_its_own_memory():
    layer, x = make("conv2d")
    layer(x)
    twin, before = copy.deepcopy(layer), vectors(layer)
    assert same(twin, before)
    original(twin).data.normal_()
    twin(x)
    assert not torch.allclose(vectors(twin)[0], before[0])
    assert same(layer, before)


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
    assert same(other.train(), vectors(layer.train()))
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wrapped_network_can_be_cast_to_half_precision(dtype):
    layer = spectral_norm(nn.Linear(6, 5)).to(dtype)
    largest = torch.linalg.matrix_norm(layer.weight.float(), 2)
    layer(torch.ones(2, 6, dtype=dtype))
    assert layer.weight.dtype == dtype and abs(largest - 1) < 0.1


@pytest.mark.parametrize("module", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.ReLU()])
def test_removal_from_a_module_without_it_is_a_value_error(module):
    with pytest.raises(ValueError, match="no layer of this"):
        remove_spectral_norm(module)


@pytest.mark.parametrize(
    ("module", "error", "words"),
    [
        (spectral_norm(nn.Linear(2, 2)), ValueError, "parametrized already"),
        *(
            (module, TypeError, type(module).__name__)
            for module in (nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 2)), nn.Bilinear(2, 2, 2), nn.ReLU())
        ),
    ],
)
def test_a_layer_that_is_wrapped_already_or_unsupported_is_refused(module, error, words):
    with pytest.raises(error, match=words):
        spectral_norm(module)


@pytest.mark.parametrize("iterations", [0, -1])
def test_fewer_than_one_iteration_is_a_value_error(iterations):
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="at least"):
        spectral_norm(layer, n_power_iterations=iterations)
    assert not parametrize.is_parametrized(layer)
