"""Pairs of networks, whichever model: images and logits, gradients, seeds, wrapping, and what cannot be built."""

import pytest
import torch
from helpers import build, layers_of
from torch import nn
from torch.nn.utils import parametrize

from losses import LOSSES, REGULARIZERS
from models import CONDITIONAL, MODELS, build_models, dcgan
from models.normalization import D_NORMS
from models.spectral_norm import norm_of
from settings.config import FIELDS

SIZES = (8, 16, 32, 48, 64, 128)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("model", MODELS)
def test_G_makes_images_in_range_and_D_a_logit_for_each(model, image_size, channels):
    G, D = build(model, image_size, channels=channels)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.mul_(100)  # far past where tanh saturates
        images = G(torch.randn(3, 5))
        logits = D(images)
    assert images.shape == (3, channels, image_size, image_size)
    assert images.min() < -0.99 and images.max() > 0.99
    assert (images.abs().max() <= 1) == (model != "r3gan")  # which ends without a tanh
    assert logits.shape == (3, 1) and logits.isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_Ds_logits_are_linear_in_its_last_layer(model):
    _, D = build(model, 8)
    head, x = layers_of(D)[-1], torch.randn(4, 3, 8, 8)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    before = D(x)
    head.weight.data.mul_(-1e9)
    assert before.abs().min() > 0
    torch.testing.assert_close(D(x), -1e9 * before, rtol=1e-5, atol=0)


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_gets_a_gradient(model):
    G, D = build(model, 16)
    for parameter in [*G.parameters(), *D.parameters()]:
        if parameter.dim() == 4 and not parameter.any():  # r3gan's blocks are the identity at the start
            nn.init.normal_(parameter)
    D(G(torch.randn(4, 5))).square().sum().backward()
    weights = [layer.weight for layer in layers_of(G) + layers_of(D)]
    assert all(parameter.grad is not None for parameter in [*G.parameters(), *D.parameters()])
    assert all(weight.grad.abs().sum() > 0 for weight in weights)


@pytest.mark.parametrize("model", ["dcgan", "resnet"])
def test_biases_start_at_zero_and_batch_norms_at_the_identity(model):
    for network in build(model):
        assert all((parameter == 0).all() for name, parameter in network.named_parameters() if name.endswith("bias"))
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all((module.weight == 1).all() for module in norms)


@pytest.mark.parametrize("model", MODELS)
def test_d_norm_is_spectral_by_default_and_g_sn_wraps_all_of_G(model):
    G, D = build_models(model, 16, base_channels=2)
    assert all(norm_of(layer) for layer in layers_of(D))
    assert not any(parametrize.is_parametrized(layer) for layer in layers_of(G))
    G, _ = build(model, 16, g_sn=True)
    assert layers_of(G) and all(norm_of(layer) for layer in layers_of(G))


@pytest.mark.parametrize("model", MODELS)
def test_wrapping_changes_no_initial_weight(model):
    plain, wrapped = build(model, 16), build(model, 16, d_norm="spectral", g_sn=True)
    for ours, theirs in zip(plain, wrapped, strict=True):
        pairs = zip(layers_of(ours), layers_of(theirs), strict=True)
        assert all(torch.equal(a.weight, b.parametrizations.weight.original) for a, b in pairs)


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(model):
    settings = {"d_norm": "spectral", "g_sn": True}
    for one, same, other in zip(*(build(model, 16, seed, **settings) for seed in (0, 0, 1)), strict=True):
        one, same, other = one.state_dict(), same.state_dict(), other.state_dict()
        assert all(torch.equal(one[key], same[key]) for key in one)
        drawn = [key for key in one if key.endswith("original") and one[key].any()]
        assert drawn and not any(torch.equal(one[key], other[key]) for key in drawn)


def test_build_models_makes_the_pair_that_the_table_names():
    for model, pair in MODELS.items():
        assert tuple(map(type, build(model, 16))) == pair


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "biggan"}, f"'biggan' is not one of {', '.join(MODELS)}"),
        ({"model": "dcgan", "arch_variant": "thesis"}, "'thesis' is not one of code, paper"),
        ({"model": "resnet", "arch_variant": "paper"}, "arch_variant paper is for --model dcgan"),
        ({"model": "mlp", "arch_variant": "paper"}, "arch_variant paper is for --model dcgan"),
        ({"model": "r3gan", "arch_variant": "paper"}, "arch_variant paper is for --model dcgan"),
        ({"model": "mlp", "groups": 2}, "groups 2 is for --model r3gan"),
        ({"model": "dcgan", "image_size": 30}, "multiple of 8, not 30"),
        ({"model": "dcgan", "image_size": 4}, "multiple of 8, not 4"),
        ({"model": "dcgan", "image_size": 0}, "multiple of 8, not 0"),
        ({"model": "resnet", "image_size": 24}, "8, 16, 32, 48, 64, 128 pixels, not 24"),
        ({"model": "resnet", "image_size": 256}, "8, 16, 32, 48, 64, 128 pixels, not 256"),
    ],
)
def test_unknown_names_and_impossible_sizes_are_value_errors(settings, reason):
    with pytest.raises(ValueError, match=reason):
        build(**settings)


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("model", MODELS),
        ("loss", LOSSES),
        ("regularizer", REGULARIZERS),
        ("d_norm", D_NORMS),
        ("arch_variant", dcgan.D_WIDTHS),
        ("conditional", CONDITIONAL),
        ("image_size", SIZES),
    ],
)
def test_the_settings_offer_exactly_what_there_is(setting, names):
    assert FIELDS[setting].metadata["choices"] == tuple(names)
