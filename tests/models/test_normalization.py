"""Weight, layer and batch normalization of D: row norms, torch's own functions, and where the layers stand."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.nn.utils import parametrize

from models import MODELS, build_models
from models.convolution import Conv2d
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
from models.spectral_norm import SUPPORTED, SpectralNorm

LAYERS = {
    "linear": lambda: nn.Linear(6, 4),
    "tall linear": lambda: nn.Linear(3, 7),
    "embedding": lambda: nn.Embedding(7, 3),
    "conv1d": lambda: nn.Conv1d(4, 6, 3, groups=2),
    "conv2d": lambda: nn.Conv2d(4, 6, 3),
    "conv3d": lambda: nn.Conv3d(2, 4, 2, groups=2),
    "transposed conv1d": lambda: nn.ConvTranspose1d(4, 6, 3),
    "transposed conv2d": lambda: nn.ConvTranspose2d(4, 6, 3),
    "transposed conv3d": lambda: nn.ConvTranspose3d(2, 3, 2),
    "grouped transposed conv1d": lambda: nn.ConvTranspose1d(4, 6, 3, groups=2),
    "grouped transposed conv2d": lambda: nn.ConvTranspose2d(6, 4, 3, groups=2),
    "grouped transposed conv3d": lambda: nn.ConvTranspose3d(4, 4, 2, groups=2),
}


def output_rows(layer):
    """The weight of each output channel, one row each; transposed layers store (d_in, d_out / groups, ...)."""
    weight = layer.weight
    if "Transpose" not in type(layer).__name__:
        return torch.stack([row.flatten() for row in weight])
    size = layer.in_channels // layer.groups
    groups = [weight[g * size : (g + 1) * size] for g in range(layer.groups)]
    return torch.stack([group[:, c].flatten() for group in groups for c in range(weight.size(1))])


@pytest.mark.parametrize("name", LAYERS)
def test_weight_norm_divides_every_row_by_its_norm(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    before = output_rows(layer).detach()
    rows = output_rows(weight_norm(layer))
    torch.testing.assert_close(rows, before / before.square().sum(1, keepdim=True).sqrt(), rtol=1e-12, atol=0)
    d_out = torch.tensor(float(len(before)), dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(rows).square().sum(), d_out, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["linear", "grouped transposed conv1d"])
def test_weight_norm_gradient_matches_finite_differences(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
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
        (("none", "spectral"), "none stands alone"),
        (("batch", "none"), "none stands alone"),
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
        layers = [layer for layer in network.modules() if isinstance(layer, SUPPORTED)]
        assert apply_weight_norm(network, (name, "batch")) is network
        assert layers and all(type(layer.parametrizations.weight[0]) is kind for layer in layers)


@pytest.mark.parametrize("name", ["none", "batch", "layer"])
def test_other_names_wrap_nothing(name):
    network = apply_weight_norm(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 3)), (name,))
    assert not any(parametrize.is_parametrized(layer) for layer in network)


@pytest.mark.parametrize("name", D_NORMS)
@pytest.mark.parametrize("model", MODELS)
def test_every_normalization_runs_forwards_and_backwards_in_every_model(model, name):
    torch.manual_seed(0)
    _, D = build_models(model, 16, base_channels=2, d_norm=name)
    logits = D(torch.randn(3, 3, 16, 16))
    logits.sum().backward()
    assert logits.shape == (3, 1) and logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in D.parameters())


@pytest.mark.parametrize(("name", "kind"), [("batch", BatchNorm), ("layer", LayerNorm)])
def test_dcgans_d_normalises_after_every_convolution_but_the_first(name, kind):
    _, D = build_models("dcgan", 32, base_channels=2, d_norm=name)
    conv, norm, slope = Conv2d, kind, nn.LeakyReLU
    assert [type(layer) for layer in D.layers] == [conv, slope] + [conv, norm, slope] * 6
    widths = [(layer.num_features if kind is BatchNorm else layer.num_channels) for layer in D.layers[3::3]]
    assert widths == [4, 4, 8, 8, 16, 16]


@pytest.mark.parametrize(("name", "kind"), [("batch", BatchNorm), ("layer", LayerNorm)])
def test_resnets_d_normalises_before_every_relu_but_not_in_the_first_block(name, kind):
    _, D = build_models("resnet", 32, base_channels=2, d_norm=name)
    found = [path for path, module in D.named_modules() if isinstance(module, kind)]
    assert found == [f"blocks.{i}.norm{k}" for i in (1, 2, 3) for k in (1, 2)] + ["norm"]


@pytest.mark.parametrize(("name", "kind"), [("batch", BatchNorm), ("layer", LayerNorm)])
def test_mlps_d_normalises_its_second_hidden_layer(name, kind):
    _, D = build_models("mlp", 8, base_channels=2, d_norm=name)
    linear, slope = nn.Linear, nn.LeakyReLU
    assert [type(layer) for layer in D.layers] == [linear, slope, linear, kind, slope, linear]


def test_a_zero_row_in_half_precision_stays_zero():
    layer = nn.Linear(3, 2).half()
    layer.weight.data[0] = 0
    weight = weight_norm(layer).weight
    assert torch.equal(weight[0], torch.zeros(3).half())
    assert weight[1].float().norm().item() == pytest.approx(1, abs=1e-2)
