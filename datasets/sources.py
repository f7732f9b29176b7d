"""The sources of images: named data sets and folders of pictures."""

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from settings.config import STACKED, Config
from utils.console import announced
from utils.distributed import say_once
from utils.errors import UserError, explaining_memory, memory_ran_out, refuse_if

from . import listing
from .cache import Say
from .images import Images, fit
from .pictures import load_pictures
from .scan import only_pictures
from .stacked import of_digits, stack

DIGITS_TEST_EVERY = 6  # every sixth of scikit-learn's 1,797 digits: 1,498 to train, 299 to test
SOCKET_TIMEOUT = 30  # seconds without a byte before a download counts as failed
RawSplit = tuple[Tensor, Tensor, tuple[str, ...]]


@functools.cache
def say_first(text: str) -> None:
    """Print a text on rank 0, only once. The same data may be loaded several times."""
    say_once(text)


# ---- Raw splits: each returns images (N, C, H, W) uint8, labels (N,) int64, class names ----------------------------


def _load_digits(data_dir: str, split: str) -> RawSplit:
    from sklearn.datasets import load_digits

    digits = load_digits()  # grey values 0 to 16
    held_out = np.arange(len(digits.images)) % DIGITS_TEST_EVERY == DIGITS_TEST_EVERY - 1
    chosen = held_out if split == "test" else ~held_out
    images = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(digits.target[chosen]).long(), tuple("0123456789")


def _above(data_dir: str, folder: str) -> Path:
    """The folder that holds a data set's `folder`, such as MNIST/raw: data_dir or one above it."""
    place = Path(os.path.abspath(data_dir))
    ways = [above for above in (place, *place.parents[:2]) if (above / folder).is_relative_to(place)]
    return next((above for above in ways if any((above / folder).glob("*"))), place)


def _load_torchvision(name: str, data_dir: str, split: str) -> RawSplit:
    from torchvision import datasets

    kind = getattr(datasets, name)
    place = _above(data_dir, getattr(kind, "base_folder", f"{name}/raw"))  # CIFAR's, or MNIST's
    published = kind(place, train=split == "train", download=True)
    images = torch.as_tensor(published.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)  # MNIST's (N, H, W); CIFAR's NHWC
    return images, torch.as_tensor(published.targets), tuple(published.classes)


def _load_stl10(data_dir: str, split: str) -> RawSplit:
    """Load STL-10. As in the paper, its unlabelled images are for training (2.6 GiB before they are resized)."""
    from torchvision.datasets import STL10

    published = STL10(_above(data_dir, STL10.base_folder), "unlabeled" if split == "train" else "test", download=True)
    return torch.from_numpy(published.data), torch.as_tensor(published.labels).long(), tuple(published.classes)


class Source(NamedTuple):
    """A named data set: a function that reads a raw split, and the origin of its files."""

    load: Callable[[str, str], RawSplit]
    home: str = ""
    files: str = ""


def _torchvision(name: str, home: str, files: str) -> Source:
    return Source(functools.partial(_load_torchvision, name), home, files)


_MNIST_FILES = "the four files {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz (or unpacked) in"
SOURCES = {
    "digits": Source(_load_digits),
    "mnist": _torchvision("MNIST", "ossci-datasets.s3.amazonaws.com/mnist", f"{_MNIST_FILES} MNIST/raw/"),
    "fashion_mnist": _torchvision(
        "FashionMNIST", "github.com/zalandoresearch/fashion-mnist", f"{_MNIST_FILES} FashionMNIST/raw/"
    ),
    "cifar10": _torchvision("CIFAR10", "www.cs.toronto.edu/~kriz/cifar.html", "cifar-10-python.tar.gz"),
    "cifar100": _torchvision("CIFAR100", "www.cs.toronto.edu/~kriz/cifar.html", "cifar-100-python.tar.gz"),
    "stl10": Source(_load_stl10, "cs.stanford.edu/~acoates/stl10", "stl10_binary.tar.gz"),
}


# ---- Loading -------------------------------------------------------------------------------------------------------


def load_split(config: Config, split: str = "train", say: Say = say_first) -> Images:
    """Load the "train" or "test" split of config.dataset as Images at config.image_size with config.channels.

    If a folder has only the subfolders train and test, these are its splits. Otherwise each split has every image.
    say: prints which pictures of a folder are used, and how.
    Raises UserError if the data cannot be found, or do not fit into memory or the cache.
    """
    with explaining_memory(f"the images of {config.dataset}", "choose a smaller --image_size, or use fewer images"):
        if config.dataset == "folder":
            return load_pictures(config, split, say)
        if config.dataset in STACKED:
            digits = load_split(of_digits(config), split, say)
            with announced(f"stacking the digits of {config.dataset}"):
                return stack(digits, split)
        with announced(f"loading {config.dataset}"), _explaining(config):
            images, labels, classes = SOURCES[config.dataset].load(config.data_dir, split)
            if len(images) != len(labels):
                raise ValueError(f"{len(images)} images but {len(labels)} labels")
        with announced(f"resizing the images of {config.dataset}"):
            return Images(fit(images, config.image_size, config.channels), labels, classes)


@contextlib.contextmanager
def _explaining(config: Config) -> Iterator[None]:
    """Explain how to get a data set that is absent or damaged. Limits how long a download waits."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT)
    try:
        yield
    except Exception as error:  # torchvision asserts, unpickles and unpacks, so a bad file can raise anything
        if memory_ran_out(error):
            raise
        source, where = SOURCES[config.dataset], Path(config.data_dir).resolve()
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"the data set {config.dataset} cannot be loaded from {where} ({reason}). If its files there are "
            "damaged, delete them, and they are downloaded again. To install it by hand, download it from "
            f"{source.home} and put {source.files} under that folder, or name the folder that has it with "
            "--data_dir. Without a network, use --dataset digits, which needs no download."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def check_place(config: Config) -> None:
    """Check --data_dir. Raises UserError if it holds pictures, but --dataset names another data set."""
    root, source = Path(config.data_dir), SOURCES.get(STACKED.get(config.dataset, config.dataset))
    if not source or (source.files and (root / source.files).exists()):
        return
    way = "add --dataset folder to use them, or name another --data_dir"
    refuse_if(only_pictures(root), f"--data_dir {root} holds pictures, which {config.dataset} does not use: {way}")


def has_test_split(config: Config) -> bool:
    """Whether there are test images that are not training images."""
    return config.dataset != "folder" or listing.has_test_split(config.data_dir)
