"""Which device --device names."""

import pytest
import torch

from utils.distributed import select_device
from utils.errors import UserError


def pretend_devices(monkeypatch, cuda=0, mps=0, xpu=0):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    for module, count in ((torch.cuda, cuda), (torch.mps, mps), (torch.xpu, xpu)):
        monkeypatch.setattr(module, "device_count", lambda count=count: count)


def pretend_processes(monkeypatch, rank=0):
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    for name, value in (places | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}).items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, "cpu"),
        ({"cuda": 1}, "cuda"),
        ({"cuda": 4, "xpu": 1}, "cuda"),
        ({"mps": 1}, "mps"),
        ({"xpu": 2}, "xpu"),
    ],
)
def test_auto_takes_cuda_where_there_is_one_and_else_another_accelerator(monkeypatch, there, expected):
    pretend_devices(monkeypatch, **there)
    assert select_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:3", "mps", "mps:0", "xpu", "XPU:1"])
def test_a_device_that_is_there_is_taken(monkeypatch, name):
    pretend_devices(monkeypatch, cuda=4, mps=1, xpu=2)
    assert select_device(name) == torch.device(name.lower())


@pytest.mark.parametrize(
    ("name", "there", "seen"),
    [
        ("cuda", {}, "cpu"),
        ("cuda:0", {"mps": 1}, "cpu, mps:0"),
        ("cuda:2", {"cuda": 2}, "cpu, cuda:0, cuda:1"),
        ("mps", {}, "cpu"),
        ("mps:1", {"mps": 1}, "cpu, mps:0"),
        ("xpu", {"cuda": 1}, "cpu, cuda:0"),
        ("xpu:1", {"xpu": 1}, "cpu, xpu:0"),
    ],
)
def test_a_device_that_is_absent_is_refused_with_those_that_there_are_and_a_way_out(monkeypatch, name, there, seen):
    pretend_devices(monkeypatch, **there)
    with pytest.raises(UserError, match=f"^--device {name} .* torch finds only {seen} here; use --device auto$"):
        select_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "xpu:", "cpu:0", "auto:1", "meta"])
def test_a_name_of_no_supported_device_is_refused(monkeypatch, name):
    pretend_devices(monkeypatch, cuda=1)
    words = f"^--device takes auto, cpu, cuda, mps, xpu or one with a number such as cuda:1, not '{name}'$"
    with pytest.raises(UserError, match=words):
        select_device(name)


def test_several_processes_take_a_gpu_each_or_the_cpu(monkeypatch):
    pretend_devices(monkeypatch, cuda=2, mps=1)
    pretend_processes(monkeypatch, rank=1)
    assert select_device("auto") == select_device("cuda") == torch.device("cuda:1")
    with pytest.raises(UserError, match="use --device cuda, which gives each its own"):
        select_device("cuda:0")
    pretend_devices(monkeypatch, cuda=1)
    with pytest.raises(UserError, match=r"more processes than CUDA devices \(1\): start one for each"):
        select_device("cuda")
    pretend_devices(monkeypatch, mps=1, xpu=2)
    assert select_device("auto") == select_device("cpu") == torch.device("cpu")
    for name in ("mps", "xpu", "xpu:1"):
        with pytest.raises(UserError, match=f"--device {name} is for one process: with several, use --device cuda or"):
            select_device(name)
