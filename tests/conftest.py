"""What several tests share: scripts and forks to start, whole runs, one digits classifier, and pictures on disk."""

import importlib
import os
import shutil
import subprocess
import sys

# pytest-xdist's workers share the cores, and so do the processes that their tests start. Before torch is imported.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // workers)))

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser
from forks import Forks
from helpers import ROOT, start
from PIL import Image

import train
from datasets import load_split
from evaluation.inputs.features import load_classifier
from settings.config import Config
from training.reporting.showing import Show
from utils import plots
from utils.errors import run_as_script
from utils.locks import locked


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """One data_dir for all tests of this process. The digits classifier in it is trained once for all processes."""
    folder = tmp_path_factory.mktemp("data")
    shared = tmp_path_factory.getbasetemp()
    if workers:
        shared = shared.parent  # theirs
    config = Config(image_size=8, channels=1, data_dir=str(shared / "classifier"))
    with locked(shared / "classifier.lock"):
        load_classifier(config, load_split(config), torch.device("cpu"), print)
    shutil.copytree(config.data_dir, folder, dirs_exist_ok=True)
    return str(folder)


@pytest.fixture(scope="session")
def forks():
    """What runs Python in forks of a process that has imported torch."""
    made = Forks()
    yield made
    made.close()


@pytest.fixture
def no_pictures(monkeypatch):
    """Curves and animation are most of the time of a run of a few steps."""
    monkeypatch.setattr(Show, "end", lambda *args: None)


@pytest.fixture
def fast_bf16(monkeypatch):
    """A processor that is faster in bfloat16."""
    monkeypatch.setattr("utils.precision.bf16_gain", lambda: 2.0)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The directory of a run of helpers.start() that nothing disturbed, to compare with. It stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Show, "end", lambda *args: None)
        return train.train(start(tmp_path_factory.mktemp("whole"))).parent.parent


@pytest.fixture(scope="session")
def unscored(tmp_path_factory):
    """The directory of a run of digits with checkpoints at the steps 0, 2 and 4, to be scored. It stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Show, "end", lambda *args: None)
        config = start(tmp_path_factory.mktemp("unscored"), total_steps=4, save_every=2)
        return train.train(config).parent.parent


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
def presets(tmp_path, monkeypatch):
    """An empty folder in the place of configs/."""
    folder = tmp_path / "presets"
    folder.mkdir()
    monkeypatch.setattr("settings.layers.CONFIGS_DIR", folder)
    return folder


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


@pytest.fixture
def figures(monkeypatch):
    """The figures that matplotlib draws, in order, which are not closed until the test is over."""
    pyplot = plots.pyplot()

    drawn = []
    with monkeypatch.context() as patch:
        patch.setattr(pyplot, "close", drawn.append)
        yield drawn
    pyplot.close("all")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def browser(tmp_path):
    """A tab of a browser; the test is skipped where there is no Chromium."""
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    made = Browser(tmp_path / "profile")
    yield made
    made.close()
