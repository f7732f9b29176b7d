"""Networks and normalized weights under export, tracing and torch.func: what eager calls give, at any batch size."""

import copy

import pytest
import torch
from helpers import build
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.utils import parametrizations, parametrize

from models import folded, spectral_norm
from models.spectral_norm import norm_of

PAPER = {"base_channels": None, "z_dim": 128}
SIZES = [("dcgan", 8, {}), ("dcgan", 32, PAPER), ("resnet", 8, PAPER), ("resnet", 48, {}), ("mlp", 8, {})]
SIZES += [("r3gan", 8, {}), ("r3gan", 48, {"base_channels": 16})]
ALL = [(model, size, PAPER) for model in ("dcgan", "resnet", "mlp") for size in (8, 16, 32, 48, 64, 128)]


@pytest.mark.parametrize(
    ("model", "size", "settings"), [*SIZES, *(pytest.param(*each, marks=pytest.mark.slow) for each in ALL)], ids=str
)
def test_an_exported_and_a_traced_generator_take_any_batch_and_draw_the_same(model, size, settings):
    G, _ = build(model, size, g_sn=True, **settings)
    G = folded(G)
    z = {count: torch.randn(count, G.z_dim) for count in (1, 3, 130 if size <= 32 else 5)}
    exported = torch.export.export(G, (z[3],), dynamic_shapes={"z": {0: torch.export.Dim("batch")}}).module()
    traced = torch.jit.trace(G, z[3])
    for latents in z.values():
        expected = G(latents)
        for other in (exported, traced):
            assert (other(latents) - expected).abs().max() <= 1e-5


def pair():
    """A layer under spectral norm and the same one under torch's, in eval mode, in float64."""
    torch.manual_seed(0)
    ours = nn.Conv2d(3, 4, 3).double()
    theirs = parametrizations.spectral_norm(copy.deepcopy(ours), n_power_iterations=50).eval()
    theirs.parametrizations.weight[0].train()
    assert theirs.weight.shape == (4, 3, 3, 3)  # read once, in which torch's iterates
    spectral_norm(ours, n_power_iterations=50)
    for _ in range(10):
        ours(torch.ones(1, 3, 5, 5).double())
    return ours.eval(), theirs.eval()


def test_transforms_of_torch_func_agree_with_torchs_own_normalization():
    results = []
    for layer in pair():
        name, weight = "parametrizations.weight.original", layer.parametrizations.weight.original.detach()
        x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double()

        def output(weight, x, layer=layer, name=name):
            return functional_call(layer, {name: weight}, (x,))

        results.append(
            [
                grad(lambda w, f=output, x=x: f(w, x).square().sum())(weight),
                jacrev(lambda w, f=output, x=x: f(w, x[:1]).sum(dim=(0, 2, 3)))(weight),
                vmap(output, in_dims=(0, None))(torch.stack([weight, 2 * weight]), x),
                vmap(grad(lambda w, x, f=output: f(w, x).square().sum()), in_dims=(None, 0))(weight, x.unsqueeze(1)),
            ]
        )
    for ours, theirs in zip(*results):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_batched_gradients_are_the_single_ones():
    layer, _ = pair()
    x = torch.randn(2, 3, 5, 5).double()
    y = layer(x).sum(dim=(0, 2, 3))  # (4,)
    weight = layer.parametrizations.weight.original
    batched = torch.autograd.grad(y, weight, torch.eye(4).double(), is_grads_batched=True, retain_graph=True)[0]
    single = [torch.autograd.grad(y[i], weight, retain_graph=True)[0] for i in range(4)]
    assert torch.allclose(batched, torch.stack(single), atol=1e-12)


def test_after_torchs_remove_parametrizations_a_layer_is_a_plain_one():
    layer, _ = pair()
    layer.train()
    x = torch.randn(2, 3, 5, 5).double()
    parametrize.remove_parametrizations(layer, "weight")
    assert not norm_of(layer) and type(layer) is nn.Conv2d
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))


def test_a_training_forward_within_grad_advances_u_and_v_once():
    layer, _ = pair()
    layer.train()
    twin, x = copy.deepcopy(layer), torch.randn(2, 3, 5, 5).double()
    name, weight = "parametrizations.weight.original", layer.parametrizations.weight.original
    weight.data.normal_()
    twin.parametrizations.weight.original.data.copy_(weight)
    found = grad(lambda w: functional_call(layer, {name: w}, (x,)).square().sum())(weight.detach())
    (expected,) = torch.autograd.grad(twin(x).square().sum(), twin.parametrizations.weight.original)
    assert torch.allclose(found, expected, atol=1e-12)
    for buffer, moved in zip(layer.buffers(), twin.buffers()):
        assert torch.equal(buffer, moved)


def test_a_cached_weight_still_advances_u_and_v_in_each_forward():
    layer, _ = pair()
    layer.train().parametrizations.weight.original.data.normal_()
    u = layer.parametrizations.weight[0].u.clone()
    with parametrize.cached():
        first, second = (layer(torch.ones(1, 3, 5, 5).double()) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(layer.parametrizations.weight[0].u, u)
    assert not layer.parametrizations.weight[0].due


class ReadsNothing(nn.Linear):
    """A layer whose forward does not read its weight, or breaks off."""

    broken = False

    def forward(self, x):
        if self.broken:
            raise ValueError("broken off")
        return x


@pytest.mark.parametrize("broken", [False, True])
def test_no_reading_depends_on_what_a_forward_left_behind(broken):
    layer = spectral_norm(ReadsNothing(4, 4)).train()
    layer.broken = broken
    try:
        layer(torch.ones(1, 4))
    except ValueError:
        assert broken
    original = layer.parametrizations.weight.original
    original.data.mul_(3).add_(torch.eye(4))
    norm = layer.parametrizations.weight[0]
    sigma = norm.u @ original @ norm.v
    assert torch.allclose(layer.weight, original / sigma) and torch.equal(layer.weight, layer.weight)
    assert torch.allclose(copy.deepcopy(layer).weight, original / sigma)
