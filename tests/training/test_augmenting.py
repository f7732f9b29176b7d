"""Augmentation in a run: p by ADA's rule, updates, penalties, resumes, and runs without it."""

import math

import pytest
import torch
from helpers import SMALL, assert_same_end, at_step, go_on, rewrite, start

import train
from datasets import load_split, to_float
from losses import LOSSES, REGULARIZERS
from models import build_models
from models.augmentation import AUGMENTATIONS, augment, draw
from settings.layers import resolve
from training.augmenting import IMAGES, adapted
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import latest
from training.objective import Batch, Objective
from training.reporting.logger import read_stats
from training.reporting.page import content
from training.state import State
from utils.errors import UserError

ALL = tuple(AUGMENTATIONS)
ADAPTIVE = {"augment": ALL, "augment_p": "adaptive"}


def number(p):
    return torch.tensor(p)


def signs(positive, of=10, around=0.0):
    """Logits (of, 1), so many of them above a boundary."""
    return torch.where(torch.arange(of) < positive, 1.0, -1.0).view(-1, 1) + around


# ---- ADA's rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positive", "moves"),
    [(10, 1), (9, 1), (7, -1), (5, -1), (0, -1)],  # mean signs 1, 0.8, 0.4, 0 and -1
)
@pytest.mark.parametrize(("loss", "boundary"), [("hinge", 0.0), ("bce", 0.0), ("lsgan", 0.5)])
def test_p_moves_by_the_mean_sign_of_D_on_real_images(loss, boundary, positive, moves):
    p = adapted(number(0.5), loss, signs(positive, around=boundary), signs(3), 100)
    assert p == number(0.5 + moves * 100 / 500_000)


def test_under_wasserstein_the_sign_is_about_the_middle_of_the_means():
    real, fake = torch.tensor([[7.0], [7.0], [7.0], [6.0]]), torch.full((4, 1), 5.0)  # the middle 5.875
    assert adapted(number(0.5), "wasserstein", real, fake, 64) > 0.5
    assert adapted(number(0.5), "wasserstein", real - 100, fake - 100, 64) > 0.5  # differences alone count
    assert adapted(number(0.5), "wasserstein", signs(5), signs(5), 64) < 0.5


def test_p_goes_from_0_to_1_within_half_a_million_images_and_stays_within():
    p, steps = number(0.0), math.ceil(IMAGES / 4096)
    for step in range(steps + 3):
        before, p = p, adapted(p, "hinge", signs(10), signs(0), 4096)
        assert (p == 1) == (step + 1 >= steps) and before <= p
    assert adapted(number(0.0), "hinge", signs(0), signs(0), 64) == 0


def test_p_is_a_whole_number_of_images_and_goes_on_from_a_p_in_float64():
    p, count = number(0.0), 0
    for step in range(2000):
        up = step % 3 < 2
        p, count = adapted(p, "hinge", signs(10 * up), signs(0), 7), max(0, count + (7 if up else -7))
        assert p == number(count / IMAGES) and p.dtype == torch.float32
    old = torch.tensor(sum([7 / IMAGES] * 100), dtype=torch.float64)  # as earlier versions added up
    assert adapted(number(old.item()), "hinge", signs(10), signs(0), 7) == number(101 * 7 / IMAGES)


# ---- Updates -------------------------------------------------------------------------------------------------------


def pair():
    torch.manual_seed(3)
    return [net.double() for net in build_models("dcgan", 8, 1, 8, 4, d_norm="none")]


def batch(count=8):
    generator = torch.Generator().manual_seed(5)
    drawn = [draw(count, number(0.7), generator).double() for _ in range(2)]
    z, real = torch.randn(count, 8, generator=generator), torch.rand(count, 1, 8, 8, generator=generator)
    alpha = torch.rand(count, 1, 1, 1, generator=generator)
    noise = torch.randn(real.shape, generator=generator).double()
    return Batch(z.double(), real.double(), alpha.double(), drawn=drawn[0], real_drawn=drawn[1], noise=noise)


@pytest.mark.parametrize("joint", [True, False])
def test_D_sees_both_kinds_of_images_augmented_and_G_learns_through_it(joint):
    (G, D), given, objective = pair(), batch(), Objective(*LOSSES["hinge"], augment=ALL, joint=joint)
    with torch.no_grad():
        fake = D(augment(G(given.z), ALL, given.drawn))
        real = D(augment(given.real, ALL, given.real_drawn))
    still = torch.optim.SGD(D.parameters(), lr=0.0)
    _, *found = train.discriminator_step(G, D, still, given, objective)
    torch.testing.assert_close(found, [real, fake])
    loss = train.generator_step(G, D, torch.optim.SGD(G.parameters(), lr=0.0), given._replace(real=None), objective)
    assert loss.item() == pytest.approx(-D(augment(G(given.z), ALL, given.drawn)).mean().item())
    (expected,) = torch.autograd.grad(-D(augment(G(given.z), ALL, given.drawn)).mean(), [next(G.parameters())])
    torch.testing.assert_close(next(G.parameters()).grad, expected)


@pytest.mark.parametrize("penalty", ["r1", "gradient_penalty", "orthonormal", "approximate_r2"])
def test_an_update_in_parts_is_that_at_once_with_its_penalty(penalty):
    updated = []
    for accumulate in (1, 4):
        G, D = pair()
        objective = Objective(*LOSSES["bce"], ((REGULARIZERS[penalty], 0.1),), accumulate=accumulate, augment=ALL)
        found = train.discriminator_step(G, D, torch.optim.SGD(D.parameters(), lr=1.0), batch(), objective)
        updated.append([*D.state_dict().values(), *found])
    for whole, parts in zip(*updated, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-11, atol=1e-12)


def test_R1_is_the_gradient_at_the_image_before_its_augmentation():
    D = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1)).double()
    given = batch()
    kept = augment(torch.ones(8, 1, 8, 8).double(), ("cutout",), given.real_drawn)  # where D's slope is not cut out
    objective = Objective(*LOSSES["hinge"], ((REGULARIZERS["r1"], 3.0),), augment=("cutout",))
    expected = 3.0 * 0.5 * (kept * D[1].weight.view(1, 1, 8, 8)).square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(objective.penalty(D, given), expected)
    for name, drawn in (("approximate_r1", given.real_drawn), ("approximate_r2", given.drawn)):
        kept = augment(torch.ones(8, 1, 8, 8).double(), ("cutout",), drawn)  # as the loss sees them
        along = (kept * given.noise * D[1].weight.view(1, 1, 8, 8)).sum(dim=(1, 2, 3))
        objective = Objective(*LOSSES["hinge"], ((REGULARIZERS[name], 3.0),), augment=("cutout",))
        found = objective.penalty(D, given._replace(fake=torch.rand(8, 1, 8, 8).double()))
        torch.testing.assert_close(found, 1.5 * along.square().mean(), rtol=1e-9, atol=0)


# ---- Runs ----------------------------------------------------------------------------------------------------------


def test_a_run_without_augmentation_draws_what_it_always_did():
    config, _ = resolve(SMALL)
    state = State(config, load_split(config), torch.device("cpu"))
    images, _ = State(config, load_split(config), torch.device("cpu")).batches.next()
    stream = torch.Generator().manual_seed(config.seed)
    to_float(images, stream, config.mirror)
    torch.randn(8, 8, generator=stream)
    torch.rand(8, 1, 1, 1, generator=stream)
    torch.randn(8, 8, generator=stream)
    train.step(state, config)
    assert torch.equal(state.random.get_state(), stream.get_state())
    assert state.state_dict()["augment_p"] is None


def test_an_adaptive_run_is_killed_and_resumed_bit_for_bit_and_shows_p(tmp_path, monkeypatch):
    def killed():
        raise KeyboardInterrupt

    flags = {**ADAPTIVE, "regularizer": ("r1",), "n_dis": 2, "loss": "bce"}
    train.train(start(tmp_path, "whole", **flags))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        at_step(patch, 9, killed)
        train.train(start(tmp_path, "killed", **flags))
    go_on(tmp_path, "killed")
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
    lines = read_stats(tmp_path / "whole")
    assert all(0 <= line["augment_p"] <= 24 * 8 / IMAGES for line in lines)
    assert checkpoint.read(latest(tmp_path / "whole"))["augment_p"] == number(lines[-1]["augment_p"])
    assert "augmented   images that D sees: color, translation" in (tmp_path / "whole" / "log.txt").read_text()
    assert any("probability of augmentation" in chart.title for chart in content(tmp_path / "whole")["charts"])


@pytest.mark.parametrize("p", [torch.tensor(1.5), torch.tensor(float("nan")), torch.zeros(2), "much"])
def test_a_checkpoint_with_a_p_that_is_none_is_refused(tmp_path, p):
    path = train.train(start(tmp_path, total_steps=2, **ADAPTIVE))
    rewrite(path, lambda content: content.update(augment_p=p))
    with pytest.raises(UserError, match="scaler or augmentation does not fit"):
        go_on(tmp_path, total_steps=4)


@pytest.mark.parametrize("flags", [{"loss": loss} for loss in LOSSES] + [{"model": "resnet"}, {"channels": 3}])
def test_losses_models_and_colours_train_with_a_fixed_p(tmp_path, flags):
    path = train.train(start(tmp_path, total_steps=2, augment=ALL, augment_p=0.5, **flags))
    assert "augment_p" not in read_stats(tmp_path / "run")[-1]
    assert checkpoint.read(path)["augment_p"] is None
