"""The moving average of G: closed form, copied buffers, independence of G."""

import pytest
import torch
from torch import nn

from models import build_models
from settings.config import Config
from training.ema import EMA
from training.schedule import ema_decay


def test_after_some_updates_the_average_is_the_closed_form_with_its_warm_up():
    values = torch.randn(13, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist()
    G = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(G.weight, values[0])
    ema, config = EMA(G), Config(ema_decay=0.5)
    for step, value in enumerate(values[1:], 1):
        nn.init.constant_(G.weight, value)
        ema.update(G, ema_decay(config, step))
    # Decays 2/11, 3/12, ... 9/18 from the warm-up, then 0.5: sum of (1 - d_i) x_i times all later decays.
    decays = [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5, 0.5, 0.5]
    expected, later = 0.0, 1.0
    for decay, value in zip(reversed(decays), reversed(values[1:])):
        expected += (1 - decay) * value * later
        later *= decay
    expected += values[0] * later
    assert ema.G.weight.item() == pytest.approx(expected, rel=1e-12)


def trained_pair(decay):
    torch.manual_seed(0)
    G, _ = build_models("dcgan", image_size=8, channels=1, z_dim=4, base_channels=4, g_sn=True)
    ema = EMA(G)
    for step in (1, 2, 3):
        with torch.no_grad():
            for parameter in G.parameters():
                parameter.add_(torch.randn_like(parameter))
            G(torch.randn(8, 4))
        ema.update(G, min(decay, (1 + step) / (10 + step)))
    return G, ema


def test_buffers_are_copied_exactly_and_not_averaged():
    G, ema = trained_pair(0.999)
    buffers = dict(G.named_buffers())
    kinds = {name.rsplit(".", 1)[-1] for name in buffers}
    assert {"u", "v", "running_mean", "running_var", "num_batches_tracked"} <= kinds
    for name, own in ema.G.named_buffers():
        assert torch.equal(own, buffers[name]), name
        if name.endswith("num_batches_tracked"):
            assert own == 3
    weights = dict(G.named_parameters())
    assert not any(torch.equal(own, weights[name]) for name, own in ema.G.named_parameters())


def test_decay_0_is_a_copy_of_g():
    G, ema = trained_pair(0.0)
    assert all(torch.equal(value, G.state_dict()[name]) for name, value in ema.G.state_dict().items())


def test_the_average_is_frozen_in_eval_mode_and_apart_from_g():
    G = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = [value.clone() for value in G.state_dict().values()]
    ema = EMA(G)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.add_(1)
    assert all(torch.equal(own, old) for own, old in zip(ema.G.state_dict().values(), before))
    assert not any(module.training for module in ema.G.modules())
    assert not any(parameter.requires_grad for parameter in ema.G.parameters())
    assert all(module.training for module in G.modules())
    assert all(parameter.requires_grad for parameter in G.parameters())
