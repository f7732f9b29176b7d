"""Weight, layer and batch normalization of D: row norms, torch's own functions, and what may stand together."""

import pytest
import torch
from helpers import LAYERS, layers_of, output_rows
from torch import nn
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.nn.utils import parametrize

from models import MODELS, build_models
from models.normalization import (
    D_NORMS,
    BatchNorm,
    LayerNorm,
    WeightNorm,
    apply_weight_norm,
    check_d_norm,
    feature_norm,
    weight_norm,
)
from models.spectral_norm import SpectralNorm


@pytest.mark.parametrize("name", LAYERS)
def test_weight_norm_divides_every_row_by_its_norm(name):
    torch.manual_seed(0)
    layer = LAYERS[name][0]().double()
    before = output_rows(layer, layer.weight).detach()
    rows = output_rows(layer, weight_norm(layer).weight)
    torch.testing.assert_close(rows, before / before.square().sum(1, keepdim=True).sqrt(), rtol=1e-12, atol=0)
    d_out = torch.tensor(float(len(before)), dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(rows).square().sum(), d_out, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["linear", "grouped transposed conv1d"])
def test_weight_norm_gradient_matches_finite_differences(name):
    torch.manual_seed(0)
    layer = LAYERS[name][0]().double()
    assert gradcheck(WeightNorm(layer), layer.weight.detach().requires_grad_())


def test_weight_norm_of_a_zero_row_is_zero_with_a_finite_gradient():
    layer = weight_norm(nn.Linear(3, 2))
    original = layer.parametrizations.weight.original
    original.data = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]])
    layer(torch.ones(1, 3)).sum().backward()
    torch.testing.assert_close(layer.weight, torch.tensor([[0.0, 0.0, 0.0], [0.6, 0.0, 0.8]]))
    assert original.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 5), (3, 4, 1, 1)])
def test_layer_norm_is_torchs_over_all_but_the_batch_then_a_gain_and_bias_per_channel(shape):
    torch.manual_seed(0)
    x, layer = torch.randn(shape).double(), LayerNorm(4).double()
    torch.testing.assert_close(layer(x), F.layer_norm(x, shape[1:]), rtol=1e-12, atol=1e-12)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    gain, bias = (parameter.view(-1, *[1] * (len(shape) - 2)) for parameter in (layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), F.layer_norm(x, shape[1:]) * gain + bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 5)])
def test_batch_norm_is_torchs_in_training_and_evaluation(shape):
    torch.manual_seed(0)
    x, layer = torch.randn(shape), BatchNorm(4)
    reference = nn.BatchNorm1d(4) if len(shape) == 2 else nn.BatchNorm2d(4)
    assert torch.equal(layer(x), reference(x))
    assert torch.equal(layer.eval()(x), reference.eval()(x))
    with pytest.raises(ValueError, match="expected"):
        layer(torch.randn(3, 4, 5))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("spectral", "weight"), "both rescale the weights"),
        (("batch", "layer"), "both normalise the features"),
        (("spectral", "layer", "batch"), "both normalise the features"),
        (("none", "spectral"), "none cannot be combined"),
        (("batch", "none"), "none cannot be combined"),
        (("spectral", "spectral"), "one or more different names"),
        ((), "one or more different names"),
        (("instance",), "'instance' is not one of none, spectral, weight, batch, layer"),
        ("spectra", "'spectra' is not one of"),
    ],
)
def test_senseless_combinations_are_refused_with_the_reason(names, reason):
    with pytest.raises(ValueError, match=reason):
        check_d_norm(names)
    with pytest.raises(ValueError, match=reason):
        build_models("mlp", 8, base_channels=2, d_norm=names)


def test_sensible_combinations_come_back_as_a_tuple():
    for name in D_NORMS:
        assert check_d_norm(name) == check_d_norm([name]) == (name,)
    for pair in [("spectral", "batch"), ("spectral", "layer"), ("weight", "batch"), ("layer", "weight")]:
        assert check_d_norm(pair) == pair


def test_feature_norm_picks_the_layer_or_the_identity():
    assert isinstance(feature_norm(("spectral", "batch"), 3), BatchNorm)
    assert isinstance(feature_norm(("layer",), 3), LayerNorm)
    assert isinstance(feature_norm(("spectral",), 3), nn.Identity)
    assert isinstance(feature_norm(("none",), 3), nn.Identity)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("name", "kind"), [("spectral", SpectralNorm), ("weight", WeightNorm)])
def test_weight_norms_wrap_every_layer_of_every_network(name, kind, model):
    G, D = build_models(model, 16, base_channels=2, d_norm="none")
    for network in (G, D):
        layers = layers_of(network)
        assert apply_weight_norm(network, (name, "batch")) is network
        assert layers and all(type(layer.parametrizations.weight[0]) is kind for layer in layers)


@pytest.mark.parametrize("name", ["none", "batch", "layer"])
def test_other_names_wrap_nothing(name):
    network = apply_weight_norm(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 3)), (name,))
    assert not any(parametrize.is_parametrized(layer) for layer in network)


FITTING = [(model, name) for model in MODELS for name in D_NORMS if model != "r3gan" or name in ("none", "spectral")]


@pytest.mark.parametrize(("model", "name"), FITTING)
def test_every_normalization_runs_forwards_and_backwards_in_every_model(model, name):
    torch.manual_seed(0)
    _, D = build_models(model, 16, base_channels=2, d_norm=name)
    logits = D(torch.randn(3, 3, 16, 16))
    logits.sum().backward()
    assert logits.shape == (3, 1) and logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in D.parameters())


def test_a_zero_row_in_half_precision_stays_zero():
    layer = nn.Linear(3, 2).half()
    layer.weight.data[0] = 0
    weight = weight_norm(layer).weight
    assert torch.equal(weight[0], torch.zeros(3).half())
    assert weight[1].float().norm().item() == pytest.approx(1, abs=1e-2)
