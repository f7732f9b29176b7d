"""Which device --device names."""

import pytest
import torch

from utils.distributed import select_device
from utils.errors import UserError


def pretend_devices(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(("count", "expected"), [(0, "cpu"), (1, "cuda"), (4, "cuda")])
def test_auto_takes_cuda_where_there_is_one(monkeypatch, count, expected):
    pretend_devices(monkeypatch, count)
    assert select_device("auto") == torch.device(expected)


@pytest.mark.parametrize(("name", "count"), [("cpu", 0), ("cpu", 1), ("cuda", 1), ("cuda:0", 1), ("cuda:3", 4)])
def test_a_device_that_is_there_is_taken(monkeypatch, name, count):
    pretend_devices(monkeypatch, count)
    assert select_device(name) == torch.device(name)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:4", 4)])
def test_a_cuda_device_that_is_absent_is_refused_with_the_count_and_a_way_out(monkeypatch, name, count):
    pretend_devices(monkeypatch, count)
    with pytest.raises(UserError, match=f"--device {name} .* {count} CUDA devices .* --device auto"):
        select_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "mps", "meta"])
def test_a_name_of_no_supported_device_is_refused(monkeypatch, name):
    pretend_devices(monkeypatch, 1)
    with pytest.raises(UserError, match=f"takes auto, cpu, cuda or cuda:N, not '{name}'"):
        select_device(name)
