"""The ready generators: what they draw, without and, where there are real images, with a judge of the classes."""

import json
import re

import pytest
import torch
from helpers import ROOT

from datasets.sources import load_split
from settings.layers import resolve
from training import load_generator
from training.checkpoints.checkpoint import load_trained

PATHS = sorted((ROOT / "pretrained").glob("*.safetensors"))
REAL = ROOT.parent / "shared" / "data"
EACH, NEIGHBOURS = 30, 5


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


def drawn(path):
    """EACH images of each class and their labels: (10 * EACH, 1, 32, 32), (10 * EACH,)."""
    G, labels = load_generator(path), torch.arange(10).repeat_interleave(EACH)
    with torch.inference_mode():
        return G(torch.randn(len(labels), G.z_dim, generator=torch.Generator().manual_seed(0)), labels), labels


def test_there_are_two_small_ones_which_say_what_made_them(path):
    assert [path.stem for path in PATHS] == ["fashion_mnist", "mnist"]
    assert path.stat().st_size <= 1.5e6
    said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    preset = said["command"].removeprefix("python main.py --config ")
    config, _ = resolve({"config": str(ROOT / preset)})
    loaded = load_trained(path)
    names = (
        "dataset",
        "model",
        "conditional",
        "image_size",
        "base_channels",
        "z_dim",
        "lr_G",
        "total_steps",
        "data_dir",
    )
    assert [getattr(loaded.config, name) for name in names] == [getattr(config, name) for name in names]
    assert re.fullmatch("[0-9a-f]{40}", said["commit"])
    scores = said["scores"]
    assert scores["protocol"]["step"] == config.total_steps and scores["protocol"]["dataset"] == path.stem
    assert scores["class_accuracy"]["mean"] >= 0.95


def test_their_images_are_bright_on_black_and_differ_by_class_and_z(path):
    images, _ = drawn(path)
    assert images.shape == (10 * EACH, 1, 32, 32) and images.dtype == torch.float32
    assert images.min() >= -1 and images.max() <= 1
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], dim=-1)
    assert border.mean() < -0.95
    assert (images.flatten(1).max(dim=1).values > -0.2).all()  # none is empty
    groups = images.view(10, EACH, -1)
    assert (groups.std(dim=1).mean(dim=1) > 0.05).all()  # no class is one image
    means = groups.mean(dim=1)
    assert torch.pdist(means).min() > 2


@pytest.mark.skipif(not REAL.is_dir(), reason="no real images beside the project")
def test_each_class_is_what_was_asked_for(path, tmp_path):
    from sklearn.neighbors import KNeighborsClassifier

    config, _ = resolve({"dataset": path.stem, "data_dir": str(REAL), "cache_dir": str(tmp_path)})
    real = load_split(config, "test")
    judge = KNeighborsClassifier(NEIGHBOURS).fit(real.images[:3000].flatten(1).numpy(), real.labels[:3000].numpy())
    images, labels = drawn(path)
    answers = judge.predict(((images + 1) * 127.5).round().flatten(1).numpy())
    share = (answers == labels.numpy()).mean()
    # Of real images it knows 0.90 (MNIST) and 0.76 (Fashion-MNIST), of these 0.96 and 0.82; by chance 0.1
    assert share > {"mnist": 0.9, "fashion_mnist": 0.7}[path.stem]
