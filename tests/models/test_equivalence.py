"""train.py's step and the plain implementation's (benchmarks/plain.py) are the same mathematics."""

import sys

import pytest
import torch
from helpers import ROOT

import train
from losses import LOSSES, PAIRED
from models import build_models
from training.objective import Batch, Objective

sys.path.insert(0, str(ROOT / "benchmarks"))
import plain

STEPS, LR = 20, 2e-4


def difference(mine, theirs):
    """The largest difference of two tensors, relative to the largest value."""
    return ((mine - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12)).item()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("d_norm", "g_sn"), [("spectral", False), ("spectral", True), (("spectral", "batch"), False)], ids=str
)
@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_twenty_steps_agree_with_the_plain_implementation(model, d_norm, g_sn, loss):
    torch.manual_seed(0)
    settings = {"image_size": 16, "channels": 3, "z_dim": 8, "base_channels": 4}
    G, D = (network.double() for network in build_models(model, **settings, d_norm=d_norm, g_sn=g_sn))
    plain_G, plain_D = plain.plain_copy(G), plain.plain_copy(D)
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), LR, (0.5, 0.999), fused=True) for net in (G, D))
    plain_opt_G, plain_opt_D = (torch.optim.Adam(net.parameters(), LR, (0.5, 0.999)) for net in (plain_G, plain_D))
    d_loss, g_loss = LOSSES[loss]
    joint = "batch" not in d_norm  # with batch norm in D both sides have two forwards, and two power iterations
    objective = Objective(d_loss, g_loss, joint=joint)
    for _ in range(STEPS):
        real = torch.rand(6, 3, 16, 16, dtype=torch.float64) * 2 - 1
        z, z_G = torch.randn(2, 6, 8, dtype=torch.float64)
        loss_D, _, _ = train.discriminator_step(G, D, opt_D, Batch(z, real), objective)
        # A plain step iterates twice, once a forward; here once, as the paper's algorithm and the fast step do.
        plain_D_loss = plain.discriminator_step(plain_G, plain_D, d_loss, plain_opt_D, real, z, iterate_once=joint)
        real_G = real.flip(0) if loss in PAIRED else None
        loss_G = train.generator_step(G, D, opt_G, Batch(z_G, real_G), objective)
        plain_G_loss = plain.generator_step(plain_G, plain_D, g_loss, plain_opt_G, z_G, real_G, iterate_once=joint)
        assert difference(loss_D, plain_D_loss) < 1e-5 and difference(loss_G, plain_G_loss) < 1e-5
    for mine, theirs in ((G, plain_G), (D, plain_D)):
        theirs = plain.renamed(theirs.state_dict())
        assert mine.state_dict().keys() == theirs.keys()
        # The gradient of a bias that batch norm takes away again is zero: Adam makes a walk of its rounding errors.
        idle = {name for name, p in mine.named_parameters() if p.grad.abs().max() < 1e-12}
        assert all(name.endswith("bias") for name in idle)
        for name, value in mine.state_dict().items():
            assert (value - theirs[name]).abs().max() < 1e-6 if name in idle else difference(value, theirs[name]) < 1e-5


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_the_plain_copy_has_the_same_outputs_and_shares_nothing(model):
    torch.manual_seed(0)
    G, D = build_models(model, 16, 1, 8, 4, g_sn=True)
    copies = plain.plain_copy(G).eval(), plain.plain_copy(D).eval()
    z = torch.randn(4, 8)
    images = G.eval()(z)
    assert torch.allclose(copies[0](z), images, atol=1e-5)
    assert torch.allclose(copies[1](images), D.eval()(images), atol=1e-5)
    own = {p.data_ptr() for network in (G, D) for p in network.parameters()}
    assert not own & {p.data_ptr() for network in copies for p in network.parameters()}
