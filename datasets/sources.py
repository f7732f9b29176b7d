"""Where images come from: named data sets, and folders of pictures. A split is loaded once, as Images."""

import contextlib
import importlib.util
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from settings.config import STACKED, Config
from utils.console import announced
from utils.distributed import say_once
from utils.errors import UserError, explaining_memory, memory_ran_out

from . import listing
from .cache import Say
from .images import Images, fit
from .pictures import load_pictures
from .stacked import of_digits, stack
from .stl10 import load_stl10

DIGITS_TEST_EVERY = 6  # of scikit-learn's 1,797 digits every sixth is held out: 1,498 to train, 299 to test
SOCKET_TIMEOUT = 30  # seconds without a byte before a download counts as failed
RawSplit = tuple[Tensor, Tensor, tuple[str, ...]]


_said: set[str] = set()


def say_first(text: str) -> None:
    """print() on rank 0, and each text once: the same data may be loaded several times."""
    if text not in _said:
        _said.add(text)
        say_once(text)


# ---- Raw splits: each returns images (N, C, H, W) uint8, labels (N,), class names --------------------------------


def _load_digits(data_dir: str, split: str) -> RawSplit:
    rows = _digits()  # (1797, 65): 64 grey values 0 to 16, and the label
    held_out = np.arange(len(rows)) % DIGITS_TEST_EVERY == DIGITS_TEST_EVERY - 1
    rows = rows[held_out if split == "test" else ~held_out]
    images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8)
    labels = torch.from_numpy(rows[:, -1]).long()
    return torch.from_numpy(images).view(-1, 1, 8, 8), labels, tuple("0123456789")


def _digits() -> np.ndarray:
    """What load_digits() reads, from its file where it lies today: to import scikit-learn takes a fifth of a start."""
    for folder in getattr(importlib.util.find_spec("sklearn"), "submodule_search_locations", None) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])


def _load_torchvision(name: str, data_dir: str, split: str) -> RawSplit:
    from torchvision import datasets

    dataset = getattr(datasets, name)(data_dir, train=split == "train", download=True)
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)  # MNIST's (N, H, W); CIFAR's NHWC
    return images, torch.as_tensor(dataset.targets), tuple(dataset.classes)


def _fitted(load: Callable[[str, str], RawSplit]) -> Callable[[Config, str, Say], Images]:
    """A loader of Images from that of a raw split that memory holds with ease."""

    def load_fitted(config: Config, split: str, say: Say) -> Images:
        with announced(f"loading {config.dataset}"):
            images, labels, classes = load(config.data_dir, split)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        with announced(f"resizing the images of {config.dataset}"):
            return Images(fit(images, config.image_size, config.channels), labels, classes)

    return load_fitted


class Source(NamedTuple):
    """A named data set: its loader, its class in torchvision, and where to find it."""

    load: Callable[[Config, str, Say], Images]
    kind: str = ""
    home: str = ""
    files: str = ""


def _torchvision(name: str, home: str, files: str) -> Source:
    return Source(_fitted(lambda data_dir, split: _load_torchvision(name, data_dir, split)), name, home, files)


_MNIST_FILES = "the four files {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz (or unpacked) in"
SOURCES = {
    "digits": Source(_fitted(_load_digits)),
    "mnist": _torchvision("MNIST", "ossci-datasets.s3.amazonaws.com/mnist", f"{_MNIST_FILES} MNIST/raw/"),
    "fashion_mnist": _torchvision(
        "FashionMNIST", "github.com/zalandoresearch/fashion-mnist", f"{_MNIST_FILES} FashionMNIST/raw/"
    ),
    "cifar10": _torchvision("CIFAR10", "www.cs.toronto.edu/~kriz/cifar.html", "cifar-10-python.tar.gz"),
    "cifar100": _torchvision("CIFAR100", "www.cs.toronto.edu/~kriz/cifar.html", "cifar-100-python.tar.gz"),
    "stl10": Source(load_stl10, "STL10", "cs.stanford.edu/~acoates/stl10", "stl10_binary.tar.gz"),
}


# ---- Loading -------------------------------------------------------------------------------------------------------


def load_split(config: Config, split: str = "train", say: Say = say_first) -> Images:
    """Load the "train" or "test" split of config.dataset as Images at config.image_size with config.channels.

    STL-10 trains on its 100,000 unlabelled images, as the paper does. A folder's splits are its subfolders train and
    test where it has these alone; otherwise every image is in both. say: is told what was taken of a folder, and how.
    Raises UserError where there is no such data, or no room for it in memory or in the cache.
    """
    with explaining_memory(f"the images of {config.dataset}", "choose a smaller --image_size, or fewer images"):
        if config.dataset == "folder":
            return load_pictures(config, split, say)
        if config.dataset in STACKED:
            digits = load_split(of_digits(config), split, say)
            with announced(f"stacking the digits of {config.dataset}"):
                return stack(digits, split)
        source = SOURCES[config.dataset]
        try:
            with _download_timeout():
                return source.load(config, split, say)
        except UserError:
            raise
        except Exception as error:  # torchvision asserts, unpickles and unpacks: what it raises for a bad file is open
            if memory_ran_out(error):
                raise
            raise UserError(_why_not(config, source, error)) from error


@contextlib.contextmanager
def _download_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _why_not(config: Config, source: Source, error: Exception) -> str:
    """What is wrong with a data set that cannot be loaded, and what to do."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if damaged := [str(path) for path in damaged_files(source.kind, Path(config.data_dir))]:
        them = "them" if len(damaged) > 1 else "it"
        return (
            f"{' and '.join(damaged)} cannot be used, damaged or not the published one ({reason}): delete {them}, so "
            f"that {them} will be downloaded again, or fetch {them} from {source.home}"
        )
    if isinstance(error, ValueError) or not source.kind:
        return f"the data set {config.dataset} in {Path(config.data_dir).resolve()} does not fit together: {reason}"
    return (
        f"the data set {config.dataset} is not complete in {Path(config.data_dir).resolve()}, and it could not be "
        f"downloaded ({reason}). To put it there by hand, fetch it from {source.home} and place {source.files} under "
        f"that folder, or name the folder that has it with --data_dir. Without a network, --dataset digits needs no "
        "download."
    )


def damaged_files(kind: str, root: Path) -> Iterator[Path]:
    """The files of torchvision's data set `kind` below root that are there, but not as they were published."""
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    published: Any = getattr(datasets, kind, None)
    if hasattr(published, "resources"):  # MNIST and its kin, whose unpacked files have no published checksum
        for name, md5 in published.resources:
            packed = root / kind / "raw" / name
            unpacked = packed.with_suffix("")
            try:
                if unpacked.is_file():
                    datasets.mnist.read_sn3_pascalvincent_tensor(str(unpacked))
                elif packed.is_file() and not check_integrity(str(packed), md5):
                    yield packed
            except Exception:  # whatever its numbers lead to
                yield unpacked
    elif published:
        files = {root / published.filename: published.tgz_md5}
        files |= {root / published.base_folder / name: md5 for name, md5 in published.train_list + published.test_list}
        yield from (path for path, md5 in files.items() if path.is_file() and not check_integrity(str(path), md5))


def has_test_split(config: Config) -> bool:
    """Whether test images are other images than the training ones."""
    return config.dataset != "folder" or listing.has_test_split(config.data_dir)
