"""One update of D and one of G, against hand computation and in parts."""

import pytest
import torch

import train
from losses import LOSSES, PAIRED, REGULARIZERS
from models import build_models
from settings.config import PENALTIES
from training.ema import LogitAverages
from training.objective import Batch, Objective


def linear_pair():
    """G(z) = z and D(x) = w . x in float64, so that every update has a closed form."""
    G, D = torch.nn.Identity(), torch.nn.Linear(3, 1, bias=False).double()
    return G, D, torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


def objective(loss="wasserstein", **options):
    return Objective(*LOSSES[loss], **options)


def test_a_wasserstein_update_of_a_linear_D_is_the_difference_of_the_means():
    G, D, real, z = linear_pair()
    before = D.weight.detach().clone()
    optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
    loss, real_logits, fake_logits = train.discriminator_step(G, D, optimizer, Batch(z, real), objective())
    assert torch.allclose(D.weight, before + 0.1 * (real.mean(0) - z.mean(0)), atol=1e-14)
    assert torch.allclose(real_logits, real @ before.t()) and torch.allclose(fake_logits, z @ before.t())
    assert loss.item() == pytest.approx((z.mean(0) - real.mean(0)).dot(before[0]).item())
    assert not (loss.requires_grad or real_logits.requires_grad or fake_logits.requires_grad)


def test_the_penalty_is_added_with_its_weight():
    G, D, real, z = linear_pair()
    before = D.weight.detach().clone()
    optimizer, alpha = torch.optim.SGD(D.parameters(), lr=0.1), torch.rand(5, 1, dtype=torch.float64)
    penalised = objective(regularizers=((REGULARIZERS["gradient_penalty"], 10.0),))
    train.discriminator_step(G, D, optimizer, Batch(z, real, alpha), penalised)
    norm = before.norm()
    penalty_gradient = 10.0 * 2 * (norm - 1) * before / norm
    assert torch.allclose(D.weight, before + 0.1 * (real.mean(0) - z.mean(0)) - 0.1 * penalty_gradient, atol=1e-12)


def test_finite_differences_are_at_real_images_and_at_samples_along_the_noise():
    G, D, real, z = linear_pair()
    before, noise = D.weight.detach().clone(), torch.randn(5, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
    both = tuple((REGULARIZERS[name], weight) for name, weight in (("approximate_r1", 2.0), ("approximate_r2", 3.0)))
    loss, *_ = train.discriminator_step(G, D, optimizer, Batch(z, real, noise=noise), objective(regularizers=both))
    along = noise @ before.t()
    assert loss.item() == pytest.approx((before @ (z - real).mean(0) + 2.5 * along.square().mean()).item())
    moved = 0.1 * (real - z - 5.0 * along * noise).mean(0)
    assert torch.allclose(D.weight, before + moved, atol=1e-11)


@pytest.mark.parametrize("name", ["r1", "gradient_penalty", "approximate_r1", "approximate_r2"])
def test_a_lazy_penalty_is_so_many_times_as_strong_in_its_updates_and_absent_between_them(name):
    real, z, noise = torch.randn(3, 5, 3, dtype=torch.float64)
    alpha = torch.rand(5, 1, dtype=torch.float64)

    def updated(weights, update=None, every=1):
        torch.manual_seed(1)
        D = torch.nn.Linear(3, 1, bias=False).double()
        chosen = tuple((REGULARIZERS[other], weight) for other, weight in weights.items())
        given = objective(regularizers=chosen, every=every)
        given = given if update is None else given.at(update)
        optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
        train.discriminator_step(torch.nn.Identity(), D, optimizer, Batch(z, real, alpha, noise=noise), given)
        return D.weight.detach()

    other = {"orthonormal": 0.3}  # which is not of D's gradient, and never lazy
    once, twice, none = updated({name: 0.7} | other), updated({name: 1.4} | other), updated(other)
    assert not torch.equal(once, none)
    for update, expected in enumerate([twice, none, twice, none]):
        assert torch.equal(updated({name: 0.7} | other, update, every=2), expected)
    assert all(torch.equal(updated({name: 0.7} | other, update), once) for update in range(3))


def test_weights_are_clipped_after_the_update():
    G, D, real, z = linear_pair()
    optimizer = torch.optim.SGD(D.parameters(), lr=100.0)
    clipped = objective(regularizers=((REGULARIZERS["weight_clipping"], 0.01),))
    train.discriminator_step(G, D, optimizer, Batch(z, real), clipped)
    assert D.weight.abs().max().item() == 0.01


def test_the_generator_update_moves_G_alone_and_leaves_no_gradient_in_D():
    G, D = torch.nn.Linear(2, 3, bias=False).double(), torch.nn.Linear(3, 1, bias=False).double()
    z = torch.randn(4, 2, dtype=torch.float64)
    before_G, before_D = G.weight.detach().clone(), D.weight.detach().clone()
    train.generator_step(G, D, torch.optim.SGD(G.parameters(), lr=0.5), Batch(z), objective("hinge"))
    assert torch.allclose(G.weight, before_G + 0.5 * D.weight.t() * z.mean(0), atol=1e-14)
    assert torch.equal(D.weight, before_D) and D.weight.grad is None and D.weight.requires_grad


def test_a_loss_of_G_that_compares_sees_real_images_and_moves_by_its_closed_form():
    G, D = torch.nn.Linear(2, 3, bias=False).double(), torch.nn.Linear(3, 1, bias=False).double()
    z, real = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    before, w = G.weight.detach().clone(), D.weight.detach()[0]
    loss = train.generator_step(
        G, D, torch.optim.SGD(G.parameters(), lr=0.5), Batch(z, real), objective("relativistic")
    )
    gap = real @ w - z @ before.t() @ w  # (4,)
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(gap).mean().item())
    step = (gap.sigmoid().view(-1, 1, 1) * w.view(1, -1, 1) * z.view(4, 1, 2)).mean(0)
    assert torch.allclose(G.weight, before + 0.5 * step, atol=1e-14)


def test_a_relativistic_update_of_a_linear_D_has_its_closed_form():
    G, D, real, z = linear_pair()
    before = D.weight.detach().clone()
    batch, optimizer = Batch(z, real), torch.optim.SGD(D.parameters(), lr=0.1)
    loss, *_ = train.discriminator_step(G, D, optimizer, batch, objective("relativistic"))
    gap = (z - real) @ before[0]  # (5,)
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(gap).mean().item())
    step = (gap.sigmoid().view(-1, 1) * (z - real)).mean(0)
    assert torch.allclose(D.weight, before - 0.1 * step, atol=1e-14)


def test_lecams_averages_follow_by_hand_and_count_from_their_start_on():
    averages = LogitAverages(start=2)
    found = []
    for step, means in enumerate([(4.0, -4.0), (2.0, -2.0), (1.0, 3.0), (5.0, 5.0)]):
        averages.begin(step)
        averages.update(torch.tensor(means))
        found.append((averages.active, *averages.values.tolist()))
    third, fourth = (0.9 * 2 + 0.1 * 1, 0.9 * -2 + 0.1 * 3), (0.9 * 1.9 + 0.1 * 5, 0.9 * -1.5 + 0.1 * 5)
    expected = [(False, 4, -4), (False, 2, -2), (True, *third), (True, *fourth)]
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert [row[1:] for row in found] == [pytest.approx(row[1:]) for row in expected]


@pytest.mark.parametrize("active", [False, True])
def test_lecam_is_added_to_the_update_of_a_linear_D_once_it_counts(active):
    G, D, real, z = linear_pair()
    before = D.weight.detach().clone()
    averages = LogitAverages(start=1)
    averages.values, averages.active = torch.tensor([1e3, -1e3], dtype=torch.float64), active
    regularized = objective(regularizers=((REGULARIZERS["lecam"], 0.3),), averages=averages)
    train.discriminator_step(G, D, torch.optim.SGD(D.parameters(), lr=1e-3), Batch(z, real), regularized)
    real_logits, fake_logits = real @ before[0], z @ before[0]
    penalty = 2 * (real_logits + 1e3) @ real / 5 - 2 * (1e3 - fake_logits) @ z / 5
    step = real.mean(0) - z.mean(0) - 0.3 * penalty * active
    assert torch.allclose(D.weight, before + 1e-3 * step, atol=1e-12)


def test_several_regularizers_add_up_each_with_its_weight():
    real, z = torch.randn(2, 5, 3, dtype=torch.float64)
    updates = []
    for names in (("r1",), ("orthonormal",), ("r1", "orthonormal"), ()):
        torch.manual_seed(1)
        D = torch.nn.Linear(3, 1, bias=False).double()
        before = D.weight.detach().clone()
        several = objective(regularizers=tuple((REGULARIZERS[name], 0.3) for name in names))
        train.discriminator_step(
            torch.nn.Identity(), D, torch.optim.SGD(D.parameters(), lr=0.1), Batch(z, real), several
        )
        updates.append(D.weight.detach() - before)
    r1, orthonormal, both, none = updates
    assert torch.allclose(both, r1 + orthonormal - none, atol=1e-14) and not torch.allclose(r1, orthonormal)


def test_the_discriminator_update_leaves_G_without_gradients():
    G, D = build_models("mlp", image_size=8, channels=1, z_dim=8, base_channels=4)
    optimizer = torch.optim.Adam(D.parameters())
    train.discriminator_step(G, D, optimizer, Batch(torch.randn(4, 8), torch.rand(4, 1, 8, 8)), objective("bce"))
    assert all(parameter.grad is None for parameter in G.parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_one_joint_forward_of_D_gives_the_update_of_two(loss):
    updated = []
    for joint in (True, False):
        torch.manual_seed(3)
        G, D = (net.double() for net in build_models("dcgan", 8, 1, 8, 4, d_norm="layer"))
        real, z = torch.rand(4, 1, 8, 8).double(), torch.randn(4, 8).double()
        optimizer = torch.optim.SGD(D.parameters(), lr=1.0)
        train.discriminator_step(G, D, optimizer, Batch(z, real), objective(loss, joint=joint))
        updated.append(torch.cat([p.detach().flatten() for p in D.parameters()]))
    assert torch.allclose(*updated, rtol=0, atol=1e-13)


# ---- In parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["none", *PENALTIES, "orthonormal"])
@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp", "r3gan"])
def test_an_update_of_D_in_parts_is_the_update_at_once(model, penalty):
    updated = []
    for accumulate in (1, 4):
        torch.manual_seed(3)
        G, D = (net.double() for net in build_models(model, 8, 1, 8, 4, d_norm="spectral"))
        real, z, alpha = torch.rand(8, 1, 8, 8).double(), torch.randn(8, 8).double(), torch.rand(8, 1, 1, 1).double()
        optimizer = torch.optim.SGD(D.parameters(), lr=1.0)
        objective = Objective(*LOSSES["bce"], ((REGULARIZERS[penalty], 0.1),), accumulate=accumulate)
        batch = Batch(z, real, alpha, noise=torch.randn(real.shape).double())
        found = train.discriminator_step(G, D, optimizer, batch, objective)
        updated.append([*D.state_dict().values(), *found])
    for whole, parts in zip(*updated, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-11, atol=1e-12)


def test_a_relativistic_update_of_D_with_lecam_in_parts_is_the_update_at_once():
    updated = []
    for accumulate in (1, 4):
        torch.manual_seed(3)
        G, D = (net.double() for net in build_models("mlp", 8, 1, 8, 4, d_norm="spectral"))
        real, z = torch.rand(8, 1, 8, 8).double(), torch.randn(8, 8).double()
        averages = LogitAverages(start=1)
        averages.values, averages.active = torch.tensor([0.5, -0.5], dtype=torch.float64), True
        both = ((REGULARIZERS["lecam"], 0.3), (REGULARIZERS["r1_r2"], 0.1))
        parts = objective("relativistic", regularizers=both, averages=averages, accumulate=accumulate)
        found = train.discriminator_step(G, D, torch.optim.SGD(D.parameters(), lr=1.0), Batch(z, real), parts)
        updated.append([*D.state_dict().values(), *found])
    for whole, in_parts in zip(*updated, strict=True):
        torch.testing.assert_close(in_parts, whole, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_an_update_of_G_in_parts_is_the_update_at_once(loss):
    updated = []
    for accumulate in (1, 3):
        torch.manual_seed(3)
        G, D = torch.nn.Linear(4, 64).double(), build_models("mlp", 8, 1, 4, 4)[1].double()
        pictures = torch.nn.Sequential(G, torch.nn.Unflatten(1, (1, 8, 8)))
        optimizer = torch.optim.SGD(G.parameters(), lr=1.0)
        z, real = torch.randn(6, 4).double(), torch.rand(6, 1, 8, 8).double()
        batch = Batch(z, real if loss in PAIRED else None)
        found = train.generator_step(pictures, D, optimizer, batch, objective(loss, accumulate=accumulate))
        updated.append([found, *G.parameters(), *D.state_dict().values()])
    for whole, parts in zip(*updated, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
