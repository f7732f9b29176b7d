"""The adversarial losses against values by hand, torch's losses and finite differences."""

from math import exp, log1p

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from losses import LOSSES, PAIRED, accuracy

REAL, FAKE = torch.tensor([[1.0], [-2.0]]), torch.tensor([[0.5], [3.0]])
REAL_TOO = dict.fromkeys(PAIRED, (REAL,))  # what else g_loss takes


@pytest.mark.parametrize(
    ("name", "loss_D", "loss_G"),
    [
        (
            "bce",
            (log1p(exp(-1)) + log1p(exp(2))) / 2 + (log1p(exp(0.5)) + log1p(exp(3))) / 2,
            (log1p(exp(-0.5)) + log1p(exp(-3))) / 2,
        ),
        ("hinge", (0 + 3) / 2 + (1.5 + 4) / 2, -1.75),
        ("wasserstein", 1.75 - (-0.5), -1.75),
        ("lsgan", ((0 + 9) / 2 + (0.25 + 9) / 2) / 2, (0.25 + 4) / 2 / 2),
        ("relativistic", (log1p(exp(-0.5)) + log1p(exp(5))) / 2, (log1p(exp(0.5)) + log1p(exp(-5))) / 2),
    ],
)
def test_each_loss_has_its_value_by_hand(name, loss_D, loss_G):
    d_loss, g_loss = LOSSES[name]
    torch.testing.assert_close(d_loss(REAL, FAKE), torch.tensor(loss_D))
    torch.testing.assert_close(g_loss(FAKE, *REAL_TOO.get(name, ())), torch.tensor(loss_G))


def test_bce_is_torchs_binary_cross_entropy_and_lsgan_half_its_squared_error():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 16, 1).double()
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    for name, reference, factor in (
        ("bce", F.binary_cross_entropy_with_logits, 1),
        ("lsgan", F.mse_loss, 0.5),
    ):
        d_loss, g_loss = LOSSES[name]
        expected = factor * (reference(real, ones) + reference(fake, zeros))
        torch.testing.assert_close(d_loss(real, fake), expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(g_loss(fake), factor * reference(fake, ones), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_match_finite_differences(name):
    torch.manual_seed(0)
    d_loss, g_loss = LOSSES[name]
    real, fake = (2 * torch.randn(2, 8, 1).double()).requires_grad_()
    assert gradcheck(d_loss, (real, fake))
    assert gradcheck(g_loss, (fake, real) if name in PAIRED else fake)


def test_a_relativistic_loss_depends_on_differences_alone_and_exchanges_the_sides():
    d_loss, g_loss = LOSSES["relativistic"]
    torch.testing.assert_close(d_loss(REAL + 7, FAKE + 7), d_loss(REAL, FAKE))
    torch.testing.assert_close(g_loss(FAKE, REAL), d_loss(FAKE, REAL))


def test_hinge_stops_pushing_beyond_the_margin():
    real, fake = REAL.clone().add_(0.5).requires_grad_(), FAKE.clone().sub_(2).requires_grad_()  # 1.5 -1.5; -1.5 1.0
    LOSSES["hinge"][0](real, fake).backward()
    assert real.grad.flatten().tolist() == [0, -0.5] and fake.grad.flatten().tolist() == [0, 0.5]


@pytest.mark.parametrize("sign", [1, -1])
def test_bce_stays_exact_for_logits_of_ten_thousand(sign):
    d_loss, g_loss = LOSSES["bce"]
    real, fake = (torch.full((2, 1), s * 1e4, requires_grad=True) for s in (sign, -sign))
    loss_D, loss_G = d_loss(real, fake), g_loss(fake)
    (loss_D + loss_G).backward()
    assert (loss_D.item(), loss_G.item()) == ((0, 1e4) if sign > 0 else (2e4, 0))
    assert real.grad.flatten().tolist() == [0 if sign > 0 else -0.5] * 2
    assert fake.grad.flatten().tolist() == [-0.5 if sign > 0 else 0.5] * 2


def test_accuracy_counts_the_images_on_their_side_of_the_losss_boundary():
    real = torch.tensor([[9.0], [0.8], [0.6], [0.4]])  # four above 0, three above 0.5, one above the middle, 1.53
    fake = torch.tensor([[0.9], [0.45], [0.2], [-0.1]])  # one below 0, three below 0.5, four below the middle
    expected = {"bce": 5 / 8, "hinge": 5 / 8, "lsgan": 6 / 8, "wasserstein": 5 / 8, "relativistic": 5 / 8}
    assert {name: accuracy(name, real, fake).item() for name in LOSSES} == expected
    assert accuracy("wasserstein", real - 5, fake - 5) == 5 / 8 and accuracy("bce", real - 5, fake - 5) == 5 / 8
    assert accuracy("wasserstein", fake, real) == 3 / 8
    real, fake = torch.tensor([[5.0], [6], [0], [1]]), torch.tensor([[4.0], [4.5], [-1], [-0.5]])
    means = torch.stack([real.mean(), fake.mean()])  # of both ranks, whose own middles are 4.9 and -0.1
    assert accuracy("relativistic", real, fake) == 0.5
    parts = list(zip(real.chunk(2), fake.chunk(2)))
    assert [sum(accuracy("relativistic", *part, *way) for part in parts) / 2 for way in ([means], [])] == [0.5, 1.0]
    assert accuracy("hinge", real, fake, means) == accuracy("hinge", real, fake)
    assert all(accuracy(name, torch.zeros(4, 1), torch.zeros(4, 1)) == 0.5 for name in ("bce", "hinge", "wasserstein"))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_scalar_means_that_repeated_batches_leave_alone(name):
    d_loss, g_loss = LOSSES[name]
    once, thrice = (REAL, FAKE), (REAL.repeat(3, 1), FAKE.repeat(3, 1))
    of_G = [logits[::-1] if name in PAIRED else logits[1:] for logits in (once, thrice)]
    assert d_loss(*once).shape == g_loss(*of_G[0]).shape == ()
    torch.testing.assert_close(d_loss(*thrice), d_loss(*once))
    torch.testing.assert_close(g_loss(*of_G[1]), g_loss(*of_G[0]))
    if name not in PAIRED:  # batches may differ in size
        torch.testing.assert_close(d_loss(once[0], thrice[1]), d_loss(*once))
