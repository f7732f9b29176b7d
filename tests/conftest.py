"""What several tests share: small settings, one cache of the digits classifier, and pictures on disk."""

import importlib
import os
import subprocess
import sys

# pytest-xdist's workers share the cores, and so do the processes that their tests start. Before torch is imported.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // workers)))

import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image

from utils.errors import run_as_script


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """One data_dir for all tests, so that the digits classifier is trained once."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run_script():
    """Start a script of the project as a user does, from its folder; returns the completed process."""

    def run(*command):
        command = [sys.executable, *map(str, command)] if str(command[0]).endswith(".py") else list(map(str, command))
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def call(monkeypatch, capsys):
    """Start a script's main() in this process, which spares the import of torch; returns what a process would."""

    def call(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        code = 0
        try:
            run_as_script(importlib.import_module(script.removesuffix(".py")).main)
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, printed.out, printed.err)

    return call


@pytest.fixture
def image_folder(tmp_path):
    """Forty colour images of 40x36 pixels in two folders a class, each class of its own brightness."""
    generator = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = generator.integers(low, low + 128, (36, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i:02d}.png")
    return tmp_path / "images"


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """A file in the format of torch-fidelity's Inception weights, with random values that keep the signal's size."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.mul_(6**0.5)  # from torch's variance 1 / (3 fan_in) to He's 2 / fan_in
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
