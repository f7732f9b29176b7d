"""How many threads a step takes, how they wait, and whether others keep them waiting."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, build
from torch import nn

from settings.config import Config
from training.checkpoints.record import recorded_threads
from training.session import threads_of
from utils import threads


@pytest.fixture
def two_cores(monkeypatch):
    """A process that may have two threads."""
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 2)


def test_the_work_of_an_mlp_is_its_products():
    G, D = build("mlp", 8, channels=1, z_dim=128, base_channels=256)
    of_G = 128 * 256 + 256 * 512 + 512 * 1024 + 1024 * 64
    of_D = 64 * 512 + 512 * 256 + 256
    assert threads.work(G, D, 10) == 10 * (of_G + of_D)


def test_the_work_of_conditional_networks_counts_what_stands_beside_their_inputs():
    plain = threads.work(*build("mlp", 8, channels=1), 10)
    conditional = build("mlp", 8, channels=1, num_classes=3, conditional="concat")
    assert threads.work(*conditional, 10) == plain + 10 * (3 * 2 + 3 * 4)  # widths 2 and 4 of the first layers


def test_the_work_of_convolutions_counts_each_position():
    up = nn.Sequential(nn.Unflatten(1, (2, 3, 3)), nn.ConvTranspose2d(2, 4, 4, 2, 1))  # 3x3 inputs, 4x4 weights
    up.z_dim = 18
    down = nn.Conv2d(4, 5, 3, 3)  # 6x6 -> 2x2
    assert threads.work(up, down, 1) == 9 * 2 * 4 * 16 + 4 * 4 * 5 * 9


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_to_count_it_changes_nothing(model):
    networks = build(model, 8)
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in networks]
    threads.work(*networks, 64)
    for net, state in zip(networks, before):
        assert net.training and not any(module._forward_hooks for module in net.modules())
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 32),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "nonsense"}, 32),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "OMP_NUM_THREADS": "1"}, 8),  # torchrun's own 1
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "OMP_NUM_THREADS": "2"}, 2),
        ({"WORLD_SIZE": "64", "LOCAL_WORLD_SIZE": "64"}, 1),
    ],
)
def test_a_process_has_its_share_of_the_cores(monkeypatch, environment, expected):
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if "WORLD_SIZE" in environment else ():
        monkeypatch.setenv(name, "0")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(threads, "cores", lambda: 32)
    assert threads.share() == expected


def test_threads_follow_the_work_up_to_the_share(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    unit = threads.WORK_PER_THREAD
    assert [threads.by_work(unit * factor) for factor in (0, 0.9, 2.5, 4, 100)] == [1, 1, 2, 4, 4]


def test_a_run_has_the_threads_that_were_asked_for_or_that_it_had(two_cores, tmp_path):
    networks = build("mlp", 8, channels=1)
    state = type("State", (), dict(zip("GD", networks)))
    resumed = Config(resume=str(tmp_path))
    assert threads_of(Config(), state) == threads_of(resumed, state) == 1  # so small; and no record is there
    for recorded, expected in ((2, 2), (3, 1), ("many", 1)):  # three are more than this machine has
        (tmp_path / "config.yaml").write_text(f"record:\n- threads: {recorded}\n")
        assert threads_of(resumed, state) == expected
    assert threads_of(Config(threads=5), state) == 5


def test_the_threads_of_the_last_start_are_recorded(tmp_path):
    assert recorded_threads(tmp_path) is None
    (tmp_path / "config.yaml").write_text("record:\n- threads: 2\n- threads: 4\n- host: x\n")
    assert recorded_threads(tmp_path) == 4


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "5"}, "None")],
)
def test_openmp_is_told_to_let_its_threads_sleep_unless_the_user_told_it(given, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    code = "import utils, os, sys; print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [expected, "False"]
