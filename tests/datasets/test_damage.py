"""Data that are there but cannot be used: damaged files, and memory that runs out."""

import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from helpers import fails

from datasets import load_split
from datasets.image_files import load_samples, read_images
from datasets.sources import SOURCES, Source
from settings.config import Config
from training.checkpoints import checkpoint
from utils.errors import Damaged, UserError


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def urlopen(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def idx(array):
    """An array in the format of MNIST's files."""
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """The four unpacked files of a small MNIST."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((count, 28, 28), np.uint8)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    return raw


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", ["cut off", "empty", "something else", "another count"])
def test_damaged_files_are_to_be_deleted(mnist, tmp_path, name, damage):
    whole = (mnist / name).read_bytes()
    content = {"cut off": whole[:-5], "empty": b"", "something else": b"PK" + whole}
    content["another count"] = idx(np.zeros((19, 28, 28) if "images" in name else 19, np.uint8))
    (mnist / name).write_bytes(content[damage])
    with pytest.raises(UserError, match=r"mnist cannot be loaded from .*If its files there are damaged, delete them"):
        load_split(Config(dataset="mnist", data_dir=str(tmp_path), channels=1))


def test_images_without_their_labels_are_counted(mnist, tmp_path):
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(19, np.uint8)))
    with pytest.raises(UserError, match=r"mnist cannot be loaded from .* \(20 images but 19 labels\)"):
        load_split(Config(dataset="mnist", data_dir=str(tmp_path), channels=1))


# ---- Memory --------------------------------------------------------------------------------------------------------


def no_memory(*args, **kwargs):
    torch.empty(2**55)


def no_memory_of_numpy(*args, **kwargs):
    np.empty(2**55)


@pytest.mark.parametrize("runs_out", [no_memory, no_memory_of_numpy])
def test_memory_that_runs_out_while_data_are_loaded_says_what_to_do(mnist, tmp_path, monkeypatch, runs_out):
    advice = "out of memory with the images of {}: choose a smaller --image_size, or use fewer images"
    with monkeypatch.context() as patch:
        patch.setattr("datasets.sources.fit", runs_out)
        with pytest.raises(UserError, match=advice.format("mnist")):
            load_split(Config(dataset="mnist", data_dir=str(tmp_path), channels=1))
    with monkeypatch.context() as patch:
        patch.setitem(SOURCES, "mnist", Source(runs_out))
        with pytest.raises(UserError, match=advice.format("mnist")):
            load_split(Config(dataset="mnist", data_dir=str(tmp_path), channels=1))
    monkeypatch.setattr("PIL.Image.open", runs_out)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=advice.format("folder")):
        load_split(Config(dataset="folder", data_dir=str(tmp_path)))


@pytest.mark.parametrize("runs_out", [no_memory, no_memory_of_numpy])
def test_memory_that_runs_out_is_not_taken_for_damage(tmp_path, monkeypatch, runs_out):
    np.savez(tmp_path / "a.npz", samples=np.zeros((12, 8, 8, 1), np.uint8))
    torch.save({"format": checkpoint.FORMAT}, tmp_path / "a.pt")
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setattr(np, "load", runs_out)
    monkeypatch.setattr("PIL.Image.open", runs_out)
    monkeypatch.setattr(checkpoint, "load_tensors", runs_out)
    for read in (
        lambda: load_samples(tmp_path / "a.npz", 8, 1),
        lambda: read_images(tmp_path, 8, 1),
        lambda: checkpoint.load_weights(torch.nn.Linear(1, 1), Loads(runs_out), "a.pt", "generator"),
    ):
        with pytest.raises((MemoryError, RuntimeError)):
            read()
    with pytest.raises(UserError, match=r"cannot read .*a.pt: out of memory") as refused:
        checkpoint.read(tmp_path / "a.pt")
    assert not isinstance(refused.value, Damaged)  # which would set it aside


class Loads(dict):
    """A state dict that runs out of memory when it is looked at."""

    def __init__(self, runs_out):
        self.items = self.copy = self.keys = self.__iter__ = runs_out


def no_memory_of_cuda(*args, **kwargs):
    raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")


@pytest.mark.parametrize("runs_out", [no_memory, no_memory_of_numpy, no_memory_of_cuda])
def test_memory_that_runs_out_anywhere_else_is_one_line(monkeypatch, call, runs_out):
    monkeypatch.setattr("train.prepare", runs_out)
    fails(call("train.py"), "out of memory; ask for fewer images at once (")
