"""generate.py with a conditional run: images, lines and walks of the classes that are asked for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import SMALL, fails
from PIL import Image

import generate
import train
from datasets import Classes
from evaluation.drawing import class_lines, images_of, weights_of
from evaluation.inputs.sampling import Generated
from training import load_generator, prepare
from training.checkpoints.checkpoint import load_trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of two steps of the conditional digits MLP."""
    run_dir = tmp_path_factory.mktemp("runs") / "digits"
    flags = {"model": "mlp", "conditional": "projection", "total_steps": 2, "run_dir": str(run_dir)}
    path = train.train(prepare({**SMALL, **flags}))
    content = torch.load(path, weights_only=True)
    for value in content["ema"].values():  # tables that tell the classes apart
        if value.dim() == 2 and len(value) == 10:
            value += torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    torch.save(content, path)
    return run_dir


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without classes."""
    run_dir = tmp_path_factory.mktemp("runs") / "plain"
    train.train(prepare({**SMALL, "model": "mlp", "total_steps": 1, "run_dir": str(run_dir)}))
    return run_dir


def drawn(run_dir, label=None):
    """The first 64 images, of their own classes or of one: (64, 8, 8)."""
    loaded = load_trained(run_dir)
    source = Generated(loaded.G, loaded.config.z_dim, 0, CPU, classes=loaded.classes, label=label)
    return source.block(0)[:, 0].numpy(), source.labels(0, 64)


def test_each_class_has_the_image_of_each_seed(run_dir, call, tmp_path):
    done = call("generate.py", run_dir, "--labels", 3, 7, 3, "--seeds", 5, "0-1", "--out", tmp_path / "out")
    assert done.returncode == 0 and "6 images are in" in done.stdout, done.stderr
    names = {f"{label}_seed{seed:06d}.png" for label in (3, 7) for seed in (0, 1, 5)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"grid.png"}
    for label in (3, 7):
        pixels = np.asarray(Image.open(tmp_path / "out" / f"{label}_seed000005.png"))
        assert np.array_equal(pixels, drawn(run_dir, label)[0][5])
    assert Image.open(tmp_path / "out" / "grid.png").size == (4 * 66 + 2, 2 * 66 + 2)  # names, and three images each


def test_without_labels_each_seed_has_its_own_class(run_dir, call, tmp_path):
    assert call("generate.py", run_dir, "--num", 64, "--npz", tmp_path / "own.npz").returncode == 0
    kept, (images, labels) = np.load(tmp_path / "own.npz"), drawn(run_dir)
    assert np.array_equal(kept["samples"][..., 0], images)
    assert np.array_equal(kept["labels"], labels.numpy())
    assert call("generate.py", run_dir, "--num", 2, "--labels", 4, "--npz", tmp_path / "fours.npz").returncode == 0
    assert np.load(tmp_path / "fours.npz")["labels"].tolist() == [4, 4]


def test_lines_between_classes_begin_and_end_at_them(run_dir, call):
    G = load_generator(run_dir)
    z, weights = class_lines(0, 2, G.z_dim, [3, 7, 1], 10)
    assert len(z) == len(weights) == 2 * 19 and torch.equal(z[0], z[18]) and not torch.equal(z[0], z[19])
    assert torch.allclose(weights.sum(1), torch.ones(38))
    assert [int(weights[i].argmax()) for i in (0, 9, 18)] == [3, 7, 1]
    ends = images_of(G, z[[0, 9, 18]], torch.tensor([3, 7, 1]))
    assert torch.equal(images_of(G, z[[0, 9, 18]], weights[[0, 9, 18]]), ends)
    done = call("generate.py", run_dir, "--interpolate", 2, "--labels", 3, 7, 1)
    assert done.returncode == 0, done.stderr
    assert Image.open(done.stdout.strip()).size == (19 * 66 + 2, 2 * 66 + 2)


def test_a_line_without_labels_is_of_one_class(run_dir, call):
    done = call("generate.py", run_dir, "--interpolate", 3)
    assert done.returncode == 0 and Image.open(done.stdout.strip()).size == (10 * 66 + 2, 3 * 66 + 2)


def test_a_walk_comes_by_the_classes_at_one_latent(run_dir, call, tmp_path):
    done = call("generate.py", run_dir, "--walk", tmp_path / "w.gif", "--num", 1, "--labels", 2, 5, "--frames", 4)
    assert done.returncode == 0 and "4 frames via 2 images" in done.stdout, done.stderr
    with Image.open(tmp_path / "w.gif") as gif:
        first = np.asarray(gif.convert("L"))[::8, ::8]
        gif.seek(2)
        middle = np.asarray(gif.convert("L"))[::8, ::8]
    assert np.array_equal(first, drawn(run_dir, 2)[0][0]) and np.array_equal(middle, drawn(run_dir, 5)[0][0])
    assert torch.equal(weights_of([1, 0], 3), torch.tensor([[0.0, 1, 0], [1, 0, 0]]))


def test_an_exported_file_draws_the_classes_too(run_dir, call, tmp_path):
    for suffix in (".pt", ".safetensors"):
        exported = tmp_path / f"G{suffix}"
        assert call("generate.py", run_dir, "--export", exported).returncode == 0
        out = tmp_path / suffix[1:]
        assert call("generate.py", exported, "--labels", 6, "--num", 2, "--out", out).returncode == 0
        pixels = np.asarray(Image.open(out / "6_seed000001.png")).astype(int)
        assert np.abs(pixels - drawn(run_dir, 6)[0][1]).max() <= 1


def test_a_range_of_classes_is_each_of_them(run_dir, call, tmp_path):
    done = call("generate.py", run_dir, "--labels", "3-5", 9, "--num", 1, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name[0] for path in (tmp_path / "out").glob("*_seed*.png")) == ["3", "4", "5", "9"]
    done = call("generate.py", run_dir, "--walk", tmp_path / "w.gif", "--num", 1, "--labels", "0-9", "--frames", 10)
    assert "via 10 images" in done.stdout, done.stderr
    short = call("generate.py", run_dir, "--walk", tmp_path / "v.gif", "--num", 1, "--labels", "0-9", "--frames", 4)
    fails(short, "must be at least 10, one for each image")
    fails(call("generate.py", run_dir, "--labels", "8-4000000000", "--out", tmp_path / "x"), "--labels 10: no such")
    fails(call("generate.py", run_dir, "--labels", "5-3", "--out", tmp_path / "x"), "'5-3' is neither a number")


def test_a_class_whose_name_looks_like_a_range_is_that_class():
    names = ("0-2", "4-6", "8-13")
    loaded = SimpleNamespace(classes=Classes(names, (1, 1, 1)), path="run")
    assert generate.labels_of(loaded, SimpleNamespace(labels=["4-6", "0-1"])) == [1, 0, 1]


def test_labels_that_name_nothing_are_refused(run_dir, plain, call, tmp_path):
    fails(call("generate.py", run_dir, "--labels", "sneaker", "--out", tmp_path / "x"), "The classes are 0, 1, 2")
    fails(call("generate.py", run_dir, "--labels", 3), "name an output for the images")
    fails(call("generate.py", plain, "--labels", 3, "--out", tmp_path / "y"), "trained without classes")
