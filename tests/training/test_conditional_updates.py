"""The updates of conditional networks: closed forms, AC-GAN's two cross-entropies, parts, half precision and ranks."""

import pytest
import torch
from torch import nn

import train
from losses import LOSSES, REGULARIZERS
from models import CONDITIONAL, build_models
from models.conditional import Projection, rows_of
from settings.config import Config
from training.ema import EMA
from training.objective import Batch, Objective
from utils.precision import Precision

K, N = 3, 6
WITH_CLASSES = [name for name in CONDITIONAL if name != "none"]


class TableG(nn.Module):
    """G(z, y) = z + a row of each class."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(K, 4, dtype=torch.float64))

    def forward(self, z, labels):
        return z + rows_of(self.table, labels)


class LinearD(nn.Module):
    """D(x, y) = (w + e_y) . x; its class logits are C x."""

    def __init__(self):
        super().__init__()
        self.w, self.C = (nn.Linear(4, out, bias=False).double() for out in (1, K))
        self.classes = Projection(K, 4).double()

    def forward(self, x, labels, classify=False):
        logits = self.classes.judged(self.w(x), x, labels, classify=False)
        return (logits, self.C(x)) if classify else logits


@pytest.fixture
def pair():
    torch.manual_seed(0)
    G, D = TableG(), LinearD()
    z, real = torch.randn(2, N, 4, dtype=torch.float64)
    return G, D, Batch(z, real, labels=torch.tensor([0, 2, 2, 1, 0, 2]), real_labels=torch.tensor([1, 1, 0, 2, 1, 0]))


def values(*networks):
    return {name: parameter.detach().clone() for net in networks for name, parameter in net.named_parameters()}


def sums(x, labels):
    """The sum of the rows of x of each class: (K, d)."""
    return torch.stack([x[labels == k].sum(0) for k in range(K)])


def test_a_wasserstein_update_of_a_linear_D_moves_each_class_by_its_own_images(pair):
    G, D, batch = pair
    before, fake = values(G, D), G(batch.z, batch.labels).detach()
    optimizer = torch.optim.SGD(D.parameters(), lr=0.5)
    objective = Objective(*LOSSES["wasserstein"])
    loss, real_logits, fake_logits = train.discriminator_step(G, D, optimizer, batch, objective)
    w, e = before["w.weight"], before["classes.embedding.weight"]
    torch.testing.assert_close(real_logits, ((w + e[batch.real_labels]) * batch.real).sum(1, keepdim=True))
    torch.testing.assert_close(fake_logits, ((w + e[batch.labels]) * fake).sum(1, keepdim=True))
    torch.testing.assert_close(loss, fake_logits.mean() - real_logits.mean())
    torch.testing.assert_close(D.w.weight, w + 0.5 * (batch.real.mean(0) - fake.mean(0)))
    moved = e + 0.5 * (sums(batch.real, batch.real_labels) - sums(fake, batch.labels)) / N
    torch.testing.assert_close(D.classes.embedding.weight.detach(), moved)
    assert G.table.grad is None and torch.equal(D.C.weight, before["C.weight"])


def test_a_hinge_update_of_a_linear_G_moves_each_class_by_what_D_knows_of_it(pair):
    G, D, batch = pair
    before = values(G, D)
    batch = batch._replace(real=None, real_labels=None)
    train.generator_step(G, D, torch.optim.SGD(G.parameters(), lr=0.5), batch, Objective(*LOSSES["hinge"]))
    counts = torch.bincount(batch.labels, minlength=K).unsqueeze(1)
    slope = before["w.weight"] + before["classes.embedding.weight"]
    torch.testing.assert_close(G.table.detach(), before["table"] + 0.5 * counts / N * slope)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in D.parameters())


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_acgans_cross_entropy_moves_D_by_real_images_alone(pair, joint, accumulate):
    G, D, batch = pair
    before = values(D)
    acgan = Objective(
        *LOSSES["wasserstein"],
        joint=joint,
        accumulate=accumulate,
        classifies=True,
        acgan_weight_D=0.7,
        acgan_weight_G=9.0,
    )
    loss, real, fake = train.discriminator_step(G, D, torch.optim.SGD(D.parameters(), lr=0.5), batch, acgan)
    logits = batch.real @ before["C.weight"].t()
    errors = logits.softmax(1) - torch.eye(K, dtype=torch.float64)[batch.real_labels]
    torch.testing.assert_close(D.C.weight.detach(), before["C.weight"] - 0.5 * 0.7 * errors.t() @ batch.real / N)
    cross_entropy = nn.functional.cross_entropy(logits, batch.real_labels)
    torch.testing.assert_close(loss, fake.mean() - real.mean() + 0.7 * cross_entropy)


def test_acgans_cross_entropy_moves_G_by_its_samples(pair):
    G, D, batch = pair
    before = values(G, D)
    fake = G(batch.z, batch.labels).detach()
    acgan = Objective(*LOSSES["hinge"], classifies=True, acgan_weight_D=9.0, acgan_weight_G=0.7)
    loss = train.generator_step(G, D, torch.optim.SGD(G.parameters(), lr=0.5), batch._replace(real=None), acgan)
    errors = (fake @ before["C.weight"].t()).softmax(1) - torch.eye(K, dtype=torch.float64)[batch.labels]
    slope = 0.7 * errors @ before["C.weight"] - before["w.weight"] - before["classes.embedding.weight"][batch.labels]
    torch.testing.assert_close(G.table.detach(), before["table"] - 0.5 * sums(slope, batch.labels) / N)
    logits = ((before["w.weight"] + before["classes.embedding.weight"][batch.labels]) * fake).sum(1)
    cross_entropy = nn.functional.cross_entropy(fake @ before["C.weight"].t(), batch.labels)
    torch.testing.assert_close(loss, -logits.mean() + 0.7 * cross_entropy)
    assert torch.equal(D.C.weight, before["C.weight"]) and D.C.weight.grad is None


def test_finite_differences_are_at_the_labels_of_their_images(pair):
    G, D, batch = pair
    noise = torch.randn(N, 4, dtype=torch.float64)
    batch = batch._replace(fake=G(batch.z, batch.labels).detach(), noise=noise)
    for name, labels in (("approximate_r1", batch.real_labels), ("approximate_r2", batch.labels)):
        slopes = (D.w.weight + D.classes.embedding.weight[labels]).detach()
        expected = 0.3 * 0.5 * (slopes * noise).sum(1).square().mean()
        found = Objective(*LOSSES["wasserstein"], ((REGULARIZERS[name], 0.3),)).penalty(D, batch)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["r1", "gradient_penalty"])
def test_a_penalty_is_at_the_labels_of_the_real_images(pair, name):
    G, D, batch = pair
    before, alpha = values(D), torch.rand(N, 1, dtype=torch.float64)
    slopes = before["w.weight"] + before["classes.embedding.weight"][batch.real_labels]  # (N, 4): D's gradient
    norms = slopes.norm(dim=1, keepdim=True)
    factor = {"r1": 1, "gradient_penalty": 2 * (norms - 1) / norms}[name]
    objective = Objective(*LOSSES["wasserstein"], ((REGULARIZERS[name], 0.3),))
    fake = G(batch.z, batch.labels).detach()
    optimizer = torch.optim.SGD(D.parameters(), lr=0.5)
    train.discriminator_step(G, D, optimizer, batch._replace(alpha=alpha), objective)
    pulled = 0.3 * sums(factor * slopes, batch.real_labels) / N
    moved = (sums(batch.real, batch.real_labels) - sums(fake, batch.labels)) / N - pulled
    torch.testing.assert_close(
        D.classes.embedding.weight.detach(), before["classes.embedding.weight"] + 0.5 * moved, rtol=1e-9, atol=1e-12
    )


def networks(name, model="dcgan", **settings):
    torch.manual_seed(3)
    G, D = build_models(model, 8, 1, 5, 4, num_classes=K, conditional=name, **settings)
    images, z = torch.rand(N, 1, 8, 8) * 2 - 1, torch.randn(N, 5)
    labels = {"labels": torch.randint(K, (N,)), "real_labels": torch.randint(K, (N,))}
    return G, D, Batch(z, images, torch.rand(N, 1, 1, 1), **labels, noise=torch.randn(images.shape))


def doubled(batch):
    return Batch._make(x.double() if x is not None and x.is_floating_point() else x for x in batch)


@pytest.mark.parametrize("penalty", ["gradient_penalty", "orthonormal", "approximate_r2"])
@pytest.mark.parametrize("name", WITH_CLASSES)
@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_a_conditional_update_in_parts_or_of_two_forwards_is_the_update_at_once(model, name, penalty):
    updated = []
    for accumulate, joint in ((1, True), (3, True), (1, False)):
        G, D, batch = networks(name, model, d_norm="layer", **({} if model == "mlp" else {"attention": 4}))
        objective = Objective(
            *LOSSES["bce"], ((REGULARIZERS[penalty], 0.1),), joint, accumulate, classifies=name == "acgan"
        )
        optimizer = torch.optim.SGD(D.double().parameters(), lr=1.0)
        found = train.discriminator_step(G.double(), D, optimizer, doubled(batch), objective)
        updated.append([*D.state_dict().values(), *found])
    for whole, *others in zip(*updated, strict=True):
        for other in others:
            torch.testing.assert_close(other, whole, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", WITH_CLASSES)
def test_logits_and_class_logits_are_float32_under_half_precision(name):
    G, D, batch = networks(name, attention=4)
    precision = Precision("none", torch.device("cpu"))
    precision.dtype = torch.bfloat16
    seen = []
    D.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].dtype))

    def d_loss(real, fake):
        seen.extend([real.dtype, fake.dtype])
        return LOSSES["hinge"][0](real, fake)

    objective = Objective(d_loss, LOSSES["hinge"][1], classifies=name == "acgan")
    outputs = precision.call(D, batch.real, batch.labels, **({"classify": True} if name == "acgan" else {}))
    assert all(part.dtype == torch.float32 for part in (outputs if name == "acgan" else [outputs]))
    loss, *_ = train.discriminator_step(G, D, torch.optim.SGD(D.parameters(), 0.1), batch, objective, precision)
    batch = batch._replace(real=None)
    loss_G = train.generator_step(G, D, torch.optim.SGD(G.parameters(), 0.1), batch, objective, precision)
    assert set(seen) == {torch.float32} and loss.isfinite() and loss_G.isfinite()


def test_a_moving_average_follows_the_tables_and_copies_the_statistics():
    G, _, batch = networks("projection")
    ema = EMA(G)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.add_(1)
    G(batch.z, batch.labels)
    ema.update(G, 2 / 11)
    tables = [name for name, _ in G.named_parameters() if name == "layers.0.weight"]
    assert torch.allclose(ema.G.get_parameter(*tables), torch.full((K, 32), 1 + 9 / 11))
    assert all(torch.equal(buffer, G.get_buffer(name)) for name, buffer in ema.G.named_buffers())


def test_the_objective_of_a_run_classifies_under_acgan_alone_with_the_runs_weights():
    assert not Objective.of(Config(conditional="projection")).classifies
    found = Objective.of(Config(conditional="acgan", acgan_weight_D=0.5, acgan_weight_G=0.2))
    assert (found.classifies, found.acgan_weight_D, found.acgan_weight_G) == (True, 0.5, 0.2)


RANKS = """
import torch, train
from losses import LOSSES
from models import build_models
from training.objective import Batch, Objective
from utils.distributed import parallel, processes, rank, world_size

with processes():
    found = {}
    for name in ("projection", "acgan"):
        torch.manual_seed(0)
        G, D = (net.double() for net in build_models("resnet", 8, 1, 5, 4, num_classes=3, conditional=name))
        both = [parallel(net, torch.device("cpu")) for net in (G, D)]
        objective = Objective(*LOSSES["hinge"], classifies=name == "acgan")
        opt_G, opt_D = (torch.optim.SGD(net.parameters(), lr=0.1) for net in (G, D))
        for _ in range(3):
            z, real = torch.randn(8, 5).double(), torch.rand(8, 1, 8, 8).double()
            labels = {"labels": torch.randint(3, (8,)), "real_labels": torch.randint(3, (8,))}
            batch = Batch(z, real, **labels).local()
            train.discriminator_step(*both, opt_D, batch, objective)
            train.generator_step(both[0], D, opt_G, batch._replace(real=None, real_labels=None), objective)
        found[name] = [G.state_dict(), D.state_dict()]
    torch.save(found, f"{FOLDER}/{world_size()}_{rank()}.pt")
"""


def test_two_ranks_make_the_conditional_updates_of_one(forks, tmp_path):
    for ranks in (1, 2):
        done = forks.run(f"FOLDER = {str(tmp_path)!r}\n{RANKS}", ranks=ranks)
        assert set(done.codes) == {0}, done.stderr
    alone, *shared = (torch.load(tmp_path / name) for name in ("1_0.pt", "2_0.pt", "2_1.pt"))
    for name, networks in alone.items():
        for found in shared:
            for network, other in zip(networks, found[name], strict=True):
                for key, value in network.items():
                    torch.testing.assert_close(other[key], value, rtol=1e-9, atol=1e-9, msg=f"{name} {key}")
