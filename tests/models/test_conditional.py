"""Networks that know of classes, against the ones that do not, the papers' formulas and parameters counted by hand."""

import copy
import itertools

import pytest
import torch
from helpers import build, count, layers_of, paper_size
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrize

from models import CONDITIONAL, MODELS, folded
from models.conditional import Classifier, ConditionalBatchNorm, Embedding, Projection, one_hot, rows_of
from models.normalization import BatchNorm, weight_norm
from models.spectral_norm import norm_of, spectral_norm

K = 4
WITH_CLASSES = [name for name in CONDITIONAL if name != "none"]


def conditional(model, name, image_size=8, **settings):
    """A small pair in float64 that knows of K classes."""
    G, D = build(model, image_size, channels=1, num_classes=K, conditional=name, **settings)
    return G.double(), D.double()


def moved(network):
    """The network away from its initial values."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def labels_of(n=12):
    return torch.arange(n) % K


# ---- The layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 4, 4)])
def test_conditional_batch_norm_with_equal_tables_is_batch_norm(shape):
    torch.manual_seed(0)
    x = torch.randn(shape).double().requires_grad_()
    ours, theirs = ConditionalBatchNorm(5, K).double(), (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(5)
    theirs = theirs.double()
    assert torch.equal(ours(x, labels_of()), theirs(x))  # 1 and 0 at the start
    for table, parameter in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        nn.init.normal_(parameter)
        table.data = parameter.data.repeat(K, 1)
    weights = torch.randn(shape).double()
    (gradient,) = torch.autograd.grad((ours(x, labels_of()) * weights).sum(), x)
    (expected,) = torch.autograd.grad((theirs(x) * weights).sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    ours(x, labels_of())
    theirs(x)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.statistics.get_buffer(name), buffer)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x, labels_of()), theirs(x), rtol=1e-12, atol=1e-12)


def test_conditional_batch_norm_scales_and_shifts_by_class_and_its_statistics_are_of_all_classes():
    torch.manual_seed(0)
    x, norm, y = torch.randn(12, 5, 4, 4).double(), ConditionalBatchNorm(5, K).double(), labels_of()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    whole = F.batch_norm(x, None, None, training=True)
    expected = [norm.weight[k].view(5, 1, 1) * h + norm.bias[k].view(5, 1, 1) for h, k in zip(whole, y)]
    torch.testing.assert_close(norm(x, y), torch.stack(expected), rtol=1e-12, atol=1e-12)
    norm(x, y).sum().backward()
    torch.testing.assert_close(norm.bias.grad, torch.full((K, 5), 3 * 16.0).double())


def test_a_class_is_its_row_and_weights_of_classes_are_the_mean_row():
    table, y = torch.randn(K, 3).double(), torch.tensor([2, 0, 3])
    assert torch.equal(rows_of(table, y), table[y])
    assert torch.equal(one_hot(y, K, torch.float64), F.one_hot(y, K).double())
    half = torch.tensor([[0.5, 0, 0, 0.5]]).double()
    torch.testing.assert_close(rows_of(table, half), (table[:1] + table[3:]) / 2)
    assert torch.equal(one_hot(half, K, torch.float64), half)
    with pytest.raises(ValueError, match=r"labels must be from 0 to 3, not \[4\]"):
        rows_of(table, torch.tensor([K]))


def test_the_embedding_under_spectral_norm_is_divided_by_its_largest_singular_value():
    torch.manual_seed(0)
    layer = Embedding(K, 6).double()
    bound = (6 / (K + 6)) ** 0.5  # Xavier's
    assert 0.8 * bound < layer.weight.abs().max() <= bound
    before = layer.weight.detach().clone()
    spectral_norm(layer)
    for _ in range(100):
        layer(torch.tensor([0]))
    expected = before / torch.linalg.svdvals(before)[0]
    torch.testing.assert_close(layer(labels_of()), expected[labels_of()], rtol=1e-9, atol=1e-12)
    u = layer.parametrizations.weight[0].u.clone()
    layer.parametrizations.weight.original.data[0] += 1
    layer(one_hot(labels_of(), K, torch.float64))  # weights of classes advance u as labels do, and once
    assert not torch.equal(layer.parametrizations.weight[0].u, u)


def test_the_embedding_under_weight_norm_has_rows_of_norm_1():
    layer = weight_norm(Embedding(K, 6))
    torch.testing.assert_close(layer(labels_of()).norm(dim=1), torch.ones(12))


def test_projection_of_a_linear_D_has_its_closed_form_and_gradients():
    torch.manual_seed(0)
    x, y, psi = torch.randn(12, 3).double().requires_grad_(), labels_of(), torch.randn(12, 1).double()
    head = Projection(K, 3).double()
    logits = head.judged(psi, x, y, classify=False)
    e = head.embedding.weight
    torch.testing.assert_close(logits, psi + torch.stack([x[i] @ e[k] for i, k in enumerate(y)]).unsqueeze(1))
    gradients = torch.autograd.grad(logits.sum(), (x, e))
    torch.testing.assert_close(gradients[0], e[y])
    torch.testing.assert_close(gradients[1], torch.stack([x[y == k].sum(0) for k in range(K)]))
    maps = torch.randn(12, 3, 2, 2).double()
    pooled = head.judged(psi, maps.sum(dim=(2, 3)), y, classify=False)
    torch.testing.assert_close(head.judged(psi, maps, y, classify=False), pooled)


# ---- Pairs ---------------------------------------------------------------------------------------------------------


def test_the_authors_conditional_cifar10_networks_have_their_parameters():
    G, D = paper_size("resnet", 32, num_classes=10, conditional="projection")
    plain_G, plain_D = paper_size("resnet", 32)
    # Two norms in each of three blocks, of 256 channels, have ten scales and shifts in the place of one.
    assert count(G) == 4_276_739 + 3 * 2 * 9 * 2 * 256 == 4_304_387
    assert count(plain_G) == 4_276_739
    assert count(D) == count(plain_D) + 10 * 128  # the embedding; psi has no bias
    assert D.head.bias is None


@pytest.mark.parametrize(("model", "norms"), [("dcgan", 3), ("resnet", 2), ("mlp", 2)])
@pytest.mark.parametrize("name", WITH_CLASSES)
def test_the_last_batch_norm_of_G_does_not_know_the_class(model, norms, name):
    G, _ = conditional(model, name)
    of_classes = [module for module in G.modules() if isinstance(module, ConditionalBatchNorm)]
    plain = [module for module in G.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(of_classes) == (0 if name == "concat" else norms)
    assert len(plain) == (norms + 1 if name == "concat" else 1)


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])  # r3gan's G has the class beside z
@pytest.mark.parametrize("name", ["projection", "acgan"])
def test_at_the_start_G_and_a_D_with_a_zero_embedding_are_the_unconditional_ones(model, name):
    plain_G, plain_D = (net.double() for net in build(model, 8, channels=1, d_norm="spectral"))
    G, D = conditional(model, name, d_norm="spectral")
    if name == "projection":
        D.classes.embedding.parametrizations.weight.original.data.zero_()
    originals = {name: value for name, value in plain_D.state_dict().items() if not name.endswith((".0.u", ".0.v"))}
    assert all(torch.equal(value, D.state_dict()[name]) for name, value in originals.items())
    plain_D.load_state_dict({name: value for name, value in D.state_dict().items() if "classes" not in name})
    z, y = torch.randn(12, 5).double(), labels_of()
    images = G(z, y)
    torch.testing.assert_close(images, plain_G(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(D(images, y), plain_D(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", WITH_CLASSES)
def test_the_class_matters_weights_one_hot_equal_labels_and_gradients_reach_everything(model, name):
    G, D = (moved(net) for net in conditional(model, name, d_norm="spectral", g_sn=True))
    z, y = torch.randn(1, 5).double().expand(12, -1), labels_of()
    G.eval()
    D.eval()
    images, weights = G(z, y), F.one_hot(y, K).double()
    assert (images[0] - images[1]).abs().max() > 1e-3 and torch.allclose(images[0], images[K], atol=1e-12)
    torch.testing.assert_close(G(z, weights), images, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(D(images, weights), D(images, y), rtol=1e-9, atol=1e-12)
    between = G(z, (weights + weights.roll(1, 1)) / 2)  # a morph: no error, and neither end
    assert (between - images).abs().max() > 1e-6
    logits = D(images[:1].expand(12, -1, -1, -1), y)
    assert logits.shape == (12, 1) and torch.equal(logits[0], logits[1]) == (name == "acgan")
    G.train()
    D.train()
    z = torch.randn(12, 5).double()
    found = D(G(z, y), y, classify=True) if name == "acgan" else (D(G(z, y), y),)
    sum(part.square().sum() for part in found).backward()
    assert all(parameter.grad is not None for parameter in [*G.parameters(), *D.parameters()])


@pytest.mark.parametrize("model", MODELS)
def test_concat_sees_the_class_beside_z_and_as_constant_maps_beside_the_image(model):
    G, D = conditional(model, "concat", image_size=16)
    plain_G, plain_D = build(model, 16, channels=1)
    first_G, first_D = layers_of(G)[0], layers_of(D)[0]
    assert first_G.in_features == layers_of(plain_G)[0].in_features + K
    assert first_D.weight.size(1) == layers_of(plain_D)[0].weight.size(1) + K
    seen = []
    first_D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    D(torch.randn(3, 1, 16, 16).double(), torch.tensor([1, 0, 1]))
    assert (seen[0][:, -K:].flatten(2).std(dim=2).nan_to_num() if model != "mlp" else torch.zeros(1)).max() == 0
    classes = seen[0][:, -K:] if model == "mlp" else seen[0][:, -K:, 0, 0]
    assert classes.tolist() == F.one_hot(torch.tensor([1, 0, 1]), K).tolist()


@pytest.mark.parametrize("model", MODELS)
def test_acgans_second_head_has_the_features_of_the_first_and_no_share_in_the_logit(model):
    _, D = conditional(model, "acgan", d_norm="spectral")
    x, y = torch.randn(12, 1, 8, 8).double(), labels_of()
    D.eval()
    logits, class_logits = D(x, y, classify=True)
    assert class_logits.shape == (12, K) and torch.equal(logits, D(x, y))
    assert isinstance(D.classes, Classifier) and norm_of(D.classes.head)
    _, other = conditional(model, "projection")
    with pytest.raises(ValueError, match="only the D of acgan classifies"):
        other(x, y, classify=True)


@pytest.mark.parametrize(
    ("model", "d_norm"),
    [
        *itertools.product(["dcgan", "resnet", "mlp"], ["spectral", "weight", ("spectral", "batch"), "layer"]),
        ("r3gan", "spectral"),
    ],
)
def test_every_layer_of_a_conditional_D_is_normalised(model, d_norm):
    _, D = conditional(model, "projection", d_norm=d_norm)
    wrapped = {parametrize.is_parametrized(layer, "weight") for layer in layers_of(D)}
    assert wrapped == {d_norm != "layer"} and D.classes.embedding in layers_of(D)


# ---- What else is done with networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("g_sn", [False, True])
@pytest.mark.parametrize("name", WITH_CLASSES)
@pytest.mark.parametrize(("model", "left"), [("dcgan", 0), ("resnet", 1), ("mlp", 0)])
def test_a_folded_generator_draws_the_same_images_of_each_class(model, name, left, g_sn):
    G, y = moved(conditional(model, name, g_sn=g_sn)[0]), labels_of()
    for _ in range(3):
        G(torch.randn(12, 5).double(), y)
    fold, z = folded(G), torch.randn(12, 5).double()
    assert (fold(z, y) - G.eval()(z, y)).abs().max() < 1e-12
    norms = [module for module in fold.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    if name != "concat":
        assert len(norms) == left
        tables = [module for module in fold.modules() if isinstance(module, ConditionalBatchNorm)]
        assert tables and all(isinstance(table.statistics, BatchNorm) for table in tables)


@pytest.mark.parametrize("name", WITH_CLASSES)
@pytest.mark.parametrize(
    ("model", "settings"), [("dcgan", {"attention": 4}), ("resnet", {"attention": 4}), ("mlp", {}), ("r3gan", {})]
)
def test_an_exported_and_a_traced_conditional_generator_take_any_batch(model, settings, name):
    torch.manual_seed(0)
    G = folded(moved(conditional(model, name, g_sn=True, **settings)[0]))
    inputs = {n: (torch.randn(n, 5).double(), torch.randint(K, (n,))) for n in (1, 3, 130)}
    batch = torch.export.Dim("batch")
    shapes = {"z": {0: batch}, "labels": {0: batch}}
    exported = torch.export.export(G, inputs[3], dynamic_shapes=shapes).module()
    traced = torch.jit.trace(G, inputs[3])
    for given in inputs.values():
        for other in (exported, traced):
            assert (other(*given) - G(*given)).abs().max() <= 1e-9


@pytest.mark.parametrize("name", WITH_CLASSES)
@pytest.mark.parametrize(
    ("model", "settings"), [("dcgan", {"attention": 4}), ("resnet", {"attention": 4}), ("mlp", {}), ("r3gan", {})]
)
def test_per_image_gradients_of_torch_func_are_those_of_autograd(model, settings, name):
    _, D = conditional(model, name, d_norm="spectral", **settings)
    moved(D).eval()
    x, y = torch.randn(5, 1, 8, 8).double().requires_grad_(), labels_of(5)
    (expected,) = torch.autograd.grad(D(x, y).sum(), x)
    weights = {key: value.detach() for key, value in D.named_parameters()}
    found = vmap(grad(lambda x, y: functional_call(D, weights, (x[None], y[None])).squeeze()))(x.detach(), y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_deep_copy_shares_nothing_and_takes_labels():
    G, D = conditional("dcgan", "projection", d_norm="spectral")
    copies = copy.deepcopy(G), copy.deepcopy(D)
    own = {parameter.data_ptr() for net in (G, D) for parameter in net.parameters()}
    assert not own & {parameter.data_ptr() for net in copies for parameter in net.parameters()}
    z, y = torch.randn(12, 5).double(), labels_of()
    assert torch.equal(copies[1](copies[0](z, y), y), D(G(z, y), y))
