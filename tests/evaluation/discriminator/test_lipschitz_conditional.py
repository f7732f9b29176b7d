"""Audits of a D that knows of classes, and of one with attention: the bounds, the points, and why there is none."""

import itertools
import json

import pytest
import torch
from helpers import dense
from torch import nn
from torch.nn import functional as F

from evaluation.discriminator import lipschitz
from models import build_models

K = 3


def moved(model, name, d_norm="none", **settings):
    """A small D of K classes away from its initial values."""
    torch.manual_seed(0)
    _, D = build_models(model, 8, 1, base_channels=4, d_norm=d_norm, num_classes=K, conditional=name, **settings)
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return D


def given(count=20):
    """Images real and fake, and the labels of both."""
    images = torch.rand(2, count, 1, 8, 8) * 2 - 1
    return *images, torch.arange(count) % K


@pytest.mark.parametrize(
    ("model", "d_norm"),
    [
        *itertools.product(["dcgan", "resnet", "mlp"], ["none", "spectral", "weight"]),
        ("r3gan", "none"),
        ("r3gan", "spectral"),
    ],
)
@pytest.mark.parametrize("name", ["projection", "acgan", "concat"])
def test_the_bound_is_above_the_steepest_gradient_of_any_class(model, name, d_norm):
    D = moved(model, name, d_norm)
    real, fake, labels = given()
    found = lipschitz.audit(D, real, fake, labels)
    D.eval()
    for kind, images in (("real", real), ("fake", fake)):
        norms = lipschitz.input_gradient_norms(D, images, labels)
        assert found["gradient_norm"][kind]["max"] == pytest.approx(norms.max().item(), rel=1e-4)
    every = [lipschitz.input_gradient_norms(D, real, torch.full((20,), k)).max().item() for k in range(K)]
    assert 0 < max(*every, found["lower_bound"]) <= found["upper_bound"]
    with torch.no_grad():
        apart = (D(real, labels) - D(fake, labels)).abs().flatten() / (real - fake).flatten(1).norm(dim=1)
    assert apart.max() <= found["upper_bound"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found and "no_bound" not in found
    embeddings = [layer for layer in found["layers"] if layer["kind"] == "Embedding"]
    assert len(embeddings) == (name == "projection")
    for layer in embeddings:
        sigma = torch.linalg.svdvals(D.classes.embedding.weight.detach())[0].item()
        assert (layer["name"], layer["input"]) == ("classes.embedding", [K])
        assert layer["sigma_svd"] == layer["operator_norm"] == pytest.approx(sigma, rel=1e-5)


def test_projections_bound_has_the_largest_psi_and_row_of_the_classes():
    """With layers that pass each pixel on, D is linear in a positive image: its slope is |psi + e_y|."""
    _, D = build_models("mlp", 8, 1, base_channels=64, d_norm="none", num_classes=K, conditional="projection")
    first, _, second, _, _, psi = D.layers
    with torch.no_grad():
        for layer in (first, second, psi):
            layer.bias.zero_()
        first.weight.copy_(torch.eye(128, 64))
        second.weight.copy_(torch.eye(64, 128))
    rows = psi.weight + D.classes.embedding.weight
    real, fake, labels = given()
    found = lipschitz.audit(D, real.abs(), fake.abs(), labels)
    assert found["upper_bound"] == pytest.approx(rows.norm(dim=1).max().item(), rel=1e-5)
    assert found["lower_bound"] == pytest.approx(found["upper_bound"], rel=1e-5)
    assert rows.norm(dim=1).min() < 0.99 * found["upper_bound"]


def test_in_the_cnn_the_row_of_a_class_counts_at_each_pixel_of_the_last_map():
    _, D = build_models("dcgan", 16, 1, base_channels=1, d_norm="none", num_classes=K, conditional="projection")
    h = torch.rand(1, 8, 2, 2, requires_grad=True)
    slopes = []
    for k in range(K):
        logits = D.classes.judged(D.head(h.flatten(1)), h, torch.tensor([k]), classify=False)
        slopes.append(torch.autograd.grad(logits.sum(), h)[0].norm().item())
    unconditional = lipschitz.audit(D, *torch.rand(2, 4, 1, 16, 16), torch.zeros(4, dtype=torch.int64))
    layers = {layer["name"]: layer["operator_norm"] for layer in unconditional["layers"]}
    trunk = torch.tensor([norm for name, norm in layers.items() if name.startswith("layers")]).double().prod()
    assert unconditional["upper_bound"] == pytest.approx(trunk.item() * max(slopes), rel=1e-4)


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp", "r3gan"])
def test_concats_first_layers_are_bounded_by_what_the_image_may_change(model):
    D = moved(model, "concat")
    found = {layer["name"]: layer for layer in lipschitz.audit(D, *given())["layers"]}
    D.eval().double()
    names = {"resnet": ["blocks.0.conv1", "blocks.0.shortcut"], "r3gan": ["from_image"]}.get(model, ["layers.0"])
    for name in names:
        layer, shape = D.get_submodule(name), found[name]["input"]
        image = [shape[0] - K, *shape[1:]]

        def forward(x):
            classes = torch.zeros(1, K, *x.shape[2:], dtype=x.dtype)
            zero = torch.zeros(1, *shape, dtype=x.dtype)  # noqa: B023
            return layer(torch.cat([x, classes], dim=1)) - layer(zero)  # noqa: B023

        norm = torch.linalg.svdvals(dense(forward, image).detach())[0].item()
        assert found[name]["operator_norm"] == pytest.approx(norm, rel=1e-5)
    last = [layer for layer in found.values() if layer["name"] not in names][-1]
    assert last["operator_norm"] == pytest.approx(last["sigma_svd"], rel=1e-5)


def test_gradients_between_images_are_at_their_label():
    class LinearD(nn.Module):
        def __init__(self):
            super().__init__()
            self.slopes = nn.Embedding(K, 64)

        def forward(self, x, labels):
            return (self.slopes(labels) * x.flatten(1)).sum(1, keepdim=True)

    D, (real, fake, *_) = LinearD(), given(4)
    between = lipschitz._between(real, fake, torch.tensor([0, 0, 0, 1]))
    norms = lipschitz.input_gradient_norms(D, *between).view(lipschitz.FRACTIONS, 4)
    expected = D.slopes.weight.norm(dim=1)[torch.tensor([0, 0, 0, 1])]
    torch.testing.assert_close(norms, expected.expand(lipschitz.FRACTIONS, -1).detach())
    weights = F.one_hot(torch.tensor([0, 0, 0, 1]), K).float()
    assert lipschitz._between(real, fake, weights)[1].shape == (4 * lipschitz.FRACTIONS, K)


@pytest.mark.parametrize("model", ["dcgan", "resnet"])
@pytest.mark.parametrize("name", ["none", "projection"])
def test_attention_has_no_bound_and_still_sigmas_and_gradients(model, name):
    classes = K if name != "none" else 0
    _, D = build_models(model, 8, 1, base_channels=8, num_classes=classes, conditional=name, attention=4)
    found = lipschitz.audit(D, *given()[: 3 if classes else 2])
    assert found["upper_bound"] is None and found["upper_bound_reshaped"] is None
    assert "not Lipschitz (Kim et al. 2021" in found["no_bound"]
    attention = [layer for layer in found["layers"] if layer["name"].endswith((".query", ".key", ".value", ".output"))]
    assert len(attention) == 4 and found["lower_bound"] > 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    last = lipschitz.summary(found).splitlines()[-1]
    assert last.startswith("D's slope has no known bound: dot-product attention") and "seen at 220 points" in last
