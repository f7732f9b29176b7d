"""Data sets as one uint8 tensor in memory, and batches cut from it on the training device.

A split is loaded once, as (N, C, H, W) uint8 at the size and with the channels of the run; after that there are no
worker processes and no per-image Python.
"""

import contextlib
import hashlib
import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from .errors import UserError
from .image_files import list_images, read_images

DIGITS_TEST_EVERY = 6  # of scikit-learn's 1,797 digits every sixth is held out: 1,498 to train, 299 to test
RESIZE_CHUNK = 2048  # images resized at once, to bound the memory of their float copies
SOCKET_TIMEOUT = 30  # seconds without a byte before a download counts as failed


class Images(NamedTuple):
    """One split in memory: images (N, C, H, W) uint8, labels (N,) int64 (-1: unknown), and the classes' names."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def sha256(self):
        """A hash of all pixels and labels: whether two runs saw the same data."""
        digest = hashlib.sha256(self.images.contiguous().numpy())
        digest.update(self.labels.contiguous().numpy())
        return digest.hexdigest()


# ---- Raw splits: each returns images (N, C, H, W) uint8, labels (N,), class names --------------------------------


def _load_digits(data_dir, split):
    from sklearn.datasets import load_digits

    digits = load_digits()
    held_out = np.arange(len(digits.images)) % DIGITS_TEST_EVERY == DIGITS_TEST_EVERY - 1
    chosen = held_out if split == "test" else ~held_out
    images = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)  # grey values 0 to 16
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(digits.target[chosen]), tuple("0123456789")


def _load_torchvision(name, data_dir, split):
    from torchvision import datasets

    dataset = getattr(datasets, name)(data_dir, train=split == "train", download=True)
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)  # MNIST's (N, H, W); CIFAR's NHWC
    return images, torch.as_tensor(dataset.targets), tuple(dataset.classes)


def _load_stl10(data_dir, split):
    from torchvision import datasets

    dataset = datasets.STL10(data_dir, split="unlabeled" if split == "train" else "test", download=True)
    return (
        torch.from_numpy(dataset.data),
        torch.as_tensor(dataset.labels).long(),
        tuple(getattr(dataset, "classes", ())),
    )


class Source(NamedTuple):
    """A named data set: its loader (data_dir, split) -> raw split, the side of its images, and where to find it."""

    load: Callable
    side: int
    home: str = ""
    files: str = ""


def _torchvision(name):
    return lambda data_dir, split: _load_torchvision(name, data_dir, split)


_MNIST_FILES = "the four files {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz (or unpacked) in"
SOURCES = {
    "digits": Source(_load_digits, 8),
    "mnist": Source(_torchvision("MNIST"), 28, "ossci-datasets.s3.amazonaws.com/mnist", f"{_MNIST_FILES} MNIST/raw/"),
    "fashion_mnist": Source(
        _torchvision("FashionMNIST"),
        28,
        "github.com/zalandoresearch/fashion-mnist",
        f"{_MNIST_FILES} FashionMNIST/raw/",
    ),
    "cifar10": Source(_torchvision("CIFAR10"), 32, "www.cs.toronto.edu/~kriz/cifar.html", "cifar-10-python.tar.gz"),
    "cifar100": Source(_torchvision("CIFAR100"), 32, "www.cs.toronto.edu/~kriz/cifar.html", "cifar-100-python.tar.gz"),
    "stl10": Source(_load_stl10, 96, "cs.stanford.edu/~acoates/stl10", "stl10_binary.tar.gz"),
}


# ---- Loading -------------------------------------------------------------------------------------------------------


def load_split(config, split="train"):
    """Load the "train" or "test" split of config.dataset as Images at config.image_size with config.channels.

    STL-10 trains on its 100,000 unlabelled images, as the paper does. A folder's splits are its subfolders train and
    test where it has them; otherwise every image is in both. Raises UserError where there is no such data.
    """
    if config.dataset == "folder":
        return load_folder(config.data_dir, split, config.image_size, config.channels)
    source = SOURCES[config.dataset]
    try:
        with _download_timeout():
            images, labels, classes = source.load(config.data_dir, split)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
    except Exception as error:  # torchvision asserts, unpickles and unpacks: what it raises for a bad file is open
        raise UserError(_absent(config, source, error)) from error
    return Images(fit(images, config.image_size, config.channels), labels, classes)


@contextlib.contextmanager
def _download_timeout():
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _absent(config, source, error):
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"the data set {config.dataset} is not complete in {Path(config.data_dir).resolve()}, and it could not be "
        f"downloaded ({reason}). To put it there by hand, fetch it from {source.home} and place {source.files} under "
        f"that folder, or name the folder that has it with --data_dir. Without a network, --dataset digits needs no "
        "download."
    )


def fit(images, image_size, channels):
    """Bring raw uint8 images (N, C, H, W) to (N, channels, image_size, image_size).

    28 to 32 pixels is zero padding, the field's way with MNIST; any other size is antialiased bilinear resizing of the
    shorter side and a centre crop. Grey from colour is ITU-R 601 luma.
    """
    if images.size(1) != channels:
        images = to_grey(images) if channels == 1 else images.expand(-1, channels, -1, -1)
    height, width = images.shape[2:]
    if (height, width) == (28, 28) and image_size == 32:
        return F.pad(images, (2, 2, 2, 2))
    if (height, width) == (image_size, image_size):
        return images.contiguous()
    from torchvision.transforms.v2 import functional as TF  # takes seconds, and not every run resizes

    fitted = torch.empty(len(images), channels, image_size, image_size, dtype=torch.uint8)
    for chunk, out in zip(images.split(RESIZE_CHUNK), fitted.split(RESIZE_CHUNK)):
        out.copy_(TF.center_crop(TF.resize(chunk, [image_size], antialias=True), [image_size, image_size]))
    return fitted


def to_grey(images):
    """Colour to grey by ITU-R 601 luma, rounded as Pillow does: (N, 3, H, W) -> (N, 1, H, W) uint8."""
    grey = torch.empty(len(images), 1, *images.shape[2:], dtype=torch.uint8)
    for chunk, out in zip(images.split(RESIZE_CHUNK), grey.split(RESIZE_CHUNK)):
        red, green, blue = chunk.int().unbind(1)
        out.copy_(((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).unsqueeze(1))
    return grey


def folder_root(data_dir, split):
    """The folder that holds a split: data_dir/train and data_dir/test where there are any, else data_dir for both."""
    root = Path(data_dir)
    if split == "test" and (root / "train").is_dir() and (root / "test").is_dir():
        return root / "test"
    return root / "train" if (root / "train").is_dir() else root


def has_test_split(config):
    """Whether test images are other images than the training ones."""
    return config.dataset != "folder" or folder_root(config.data_dir, "test") != folder_root(config.data_dir, "train")


def load_folder(data_dir, split, image_size, channels):
    """Load a directory of images, flat or one folder a class, as Images. UserError names a file that cannot be read."""
    paths, folders = list_images(folder_root(data_dir, split))
    names = list_images(folder_root(data_dir, "train"))[1] if split == "test" else folders
    classes = tuple(sorted(set(names))) if None not in names else ()  # test images have the training classes' numbers
    labels = torch.tensor([classes.index(folder) if folder in classes else -1 for folder in folders])
    return Images(read_images(paths, image_size, channels), labels, classes)


# ---- Batches -------------------------------------------------------------------------------------------------------


def to_float(images, generator):
    """uint8 images to floats in [-1, 1), dequantised: x / 128 - 1 + U(0, 1/128), as in the authors' code."""
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return noise.add_(images).div_(128).sub_(1).clamp_max_(1 - 2**-24)  # 255 + noise can round up to 256


def quantise(images):
    """Floats in [-1, 1] to uint8, round((x + 1) * 127.5): what is scored and what is drawn."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def derived_seed(*numbers):
    """A seed of 63 bits from whole numbers, unlike that of any other ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Batches:
    """An endless stream of shuffled batches without replacement, whose position is two numbers.

    The order of an epoch is a function of the seed and the epoch alone, so that a run resumes from (epoch, position).
    A batch at the end of an epoch is filled up from the next.
    """

    def __init__(self, images, batch_size, seed):
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.epoch = self.position = 0
        self._order = self._shuffle(0)

    def _shuffle(self, epoch):
        seed = derived_seed(self.seed, epoch)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))
        if self.images.is_cuda:  # from pinned memory, so that the step does not wait for the transfer
            return order.pin_memory().to(self.images.device, non_blocking=True)
        return order

    def next(self):
        """The next batch: (batch_size, C, H, W) uint8 on the images' device."""
        parts, missing = [], self.batch_size
        while missing:
            if self.position >= len(self.images):
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._shuffle(self.epoch)
            part = self._order[self.position : self.position + missing]
            parts.append(part)
            self.position += len(part)
            missing -= len(part)
        return self.images.index_select(0, torch.cat(parts))

    def change_seed(self, seed):
        """Another order, from the current epoch on."""
        self.seed = seed
        self._order = self._shuffle(self.epoch)

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed}

    def load_state_dict(self, state):
        """Go on where state_dict() was taken. ValueError where that was no such stream."""
        epoch, position, seed = state["epoch"], state["position"], state.get("seed", self.seed)
        if not all(type(number) is int and 0 <= number < 2**63 for number in (epoch, position, seed)):
            raise ValueError(f"no epoch, position and seed: {epoch}, {position}, {seed}")
        self.epoch, self.position, self.seed = epoch, position, seed
        self._order = self._shuffle(self.epoch)


def steps_of(num_epochs, num_images, batch_size, n_dis):
    """G's updates in num_epochs passes of D over the data set."""
    return max(1, math.ceil(num_epochs * num_images / (batch_size * n_dis)))
