"""Feature extractors for the scores: uint8 images (N, C, H, W) -> features (N, d) and class logits (N, k).

One is Inception. The other is a classifier: a small CNN trained once on the data set's own labels, for images that
Inception was not made for. It needs no download.
"""

import contextlib
import dataclasses
import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets import Images, cache_folder, fits, has_test_split, load_split
from datasets.stacked import of_digits
from settings.config import STACKED, Config
from utils.console import progress
from utils.distributed import rank, world_size
from utils.errors import Stopped, UserError
from utils.files import load_tensors, save
from utils.signals import handled
from utils.threads import all_cores

from .inception import Inception, inception_file

CLASSIFIER_FORMAT = "sngan-classifier-2"
CLASSIFIER_FEATURES = 128
Say = Callable[[str], object]  # print() or a substitute
EXAMINED_PIXELS = 1000 * 32**2  # in one batch, to limit the memory
HELD_OUT = 6  # without test images, every sixth training image tests a classifier
MAX_LR = 3e-3  # of the classifier's one-cycle schedule
AUTO = dict.fromkeys(("digits", "mnist", "fashion_mnist", *STACKED), "classifier")


class Classifier(nn.Module):
    """A CNN of three stages, with 128-d features and logits of the data set's classes."""

    name = "classifier"
    warning = None
    sha256: str
    examined: dict[str, Any]  # the accuracy from examine(), and the split

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.resize = f"none ({image_size}x{image_size})"
        stride = 1 if image_size <= 16 else 2

        def stage(fan_in: int, fan_out: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(fan_out), nn.ReLU())

        self.layers = nn.Sequential(stage(channels, 32, stride), stage(32, 64, 2), stage(64, 128, 2))
        side = 2 if image_size <= 16 else 4
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.to_features = nn.Sequential(nn.Linear(128 * side**2, CLASSIFIER_FEATURES), nn.ReLU())
        self.head = nn.Linear(CLASSIFIER_FEATURES, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = self.pool(self.layers(images.float() / 127.5 - 1)).flatten(1)
        features = self.to_features(h)
        return features, self.head(features)


class StackedClassifier(nn.Module):
    """A classifier of single digits on red, green and blue: uint8 stacks (N, 3, S, S) -> (N, 3 * 128), (N, 1000).

    The features of the three channels are concatenated. The logits are the log-probabilities of the combinations, that
    is, sums of the digits' log-probabilities: the largest belongs to the three most probable digits.
    """

    name = "classifier of single digits on each channel"
    warning = None

    def __init__(self, digit: Classifier) -> None:
        super().__init__()
        self.digit, self.resize, self.sha256 = digit, digit.resize, digit.sha256
        seen = digit.examined  # a stack's digits are independent, and so are the mistakes
        self.examined = {"split": seen["split"], "accuracy": seen["accuracy"] ** 3}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found, logits = self.digit(images.flatten(0, 1).unsqueeze(1))
        red, green, blue = logits.log_softmax(1).unflatten(0, (-1, 3)).unbind(1)
        joint = red[:, :, None, None] + green[:, None, :, None] + blue[:, None, None, :]
        return found.unflatten(0, (-1, 3)).flatten(1), joint.flatten(1)


AnyClassifier = Classifier | StackedClassifier
Extractor = Inception | AnyClassifier


def train_classifier(train: Images, device: torch.device, epochs: int, chosen: Tensor | None = None) -> Classifier:
    """Train a Classifier on labelled Images, or only on `chosen` (n,), from a fixed seed. Returns it in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(train.images.size(-1), train.images.size(1), len(train.classes)).to(device)
        images, labels = train.images, train.labels.to(device)
        if fits(images, device):
            images = images.to(device)
        chosen = torch.arange(len(images)) if chosen is None else chosen
        batch_size = min(128, len(chosen))
        batches = len(chosen) // batch_size  # whole batches in an epoch
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LR, total_steps=epochs * batches)
        for _ in progress(range(epochs), "the classifier", unit="epoch", disable=rank() > 0):
            order = chosen[torch.randperm(len(chosen))].to(images.device)
            for batch in order.split(batch_size)[:batches]:
                loss = F.cross_entropy(network(images[batch].to(device))[1], labels[batch.to(device)])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


@torch.inference_mode()
def examine(network: nn.Module, split: Images, device: torch.device) -> float:
    """The classifier's accuracy on a split."""
    at_once = min(1000, EXAMINED_PIXELS // split.images.size(-1) ** 2)
    parts = progress(split.images.split(at_once), "the classifier's test", unit="block", disable=rank() > 0)
    answers = torch.cat([network(images.to(device))[1].argmax(1).cpu() for images in parts])
    return (answers == split.labels).double().mean().item()


def is_labelled(images: Images) -> bool:
    """Whether the Images have labels of at least two classes, to train a classifier."""
    return len(images.classes) > 1 and bool((images.labels >= 0).all())


def check_labels(config: Config, train: Images | None) -> None:
    """Check the labels of the training split. Raises UserError if no classifier can be trained on it."""
    if train is None or not is_labelled(train):
        way = "sort them into a folder for each class, or use" if config.dataset == "folder" else "use"
        raise UserError(
            f"--features classifier needs labelled images of two classes or more, which the training split of "
            f"{config.dataset} lacks; {way} --features inception, or train without scores: python train.py"
        )


def keep(path: Path, content: dict[str, Any], what: str, say: Say) -> None:
    """Save a cache file, or report why not. what: such as "the classifier is"."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, content)
    except (OSError, UserError) as error:
        say(f"{what} not cached for the next time: {error}")


@contextlib.contextmanager
def at_once(left: str) -> Iterator[None]:
    """A context in which Ctrl-C and SIGTERM stop a long computation at once. Otherwise a run only notes them.

    It then raises Stopped with the message `left`. Several processes still only note signals, to stop together.
    """
    if world_size() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(f"{signal.Signals(number).name}: {left}", number)

    noted = [number for number in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(number))]
    with handled(dict.fromkeys(noted, stop)):  # others end the process anyway
        yield


def load_classifier(config: Config, train: Images | None, device: torch.device, say: Say) -> AnyClassifier:
    """Load a data set's classifier, or train it now. That of stacked digits classifies single digits.

    The file's name has a hash of the training images and labels, so weights are never used for other data.
    """
    if config.dataset in STACKED:
        digits = of_digits(config)
        return StackedClassifier(_load_classifier(digits, load_split(digits), device, say)).eval()
    return _load_classifier(config, train, device, say)


def _load_classifier(config: Config, train: Images | None, device: torch.device, say: Say) -> Classifier:
    check_labels(config, train)
    assert train is not None
    key = train.sha256()[:12]
    name = f"classifier_{config.dataset}_{config.image_size}px_{config.channels}ch_{key}.pt"
    path = cache_folder(config) / name
    network = _cached_classifier(path, config, train)
    if network is None:
        epochs = min(max(3, 100_000 // len(train.images)), 100)  # small sets need more passes
        say(f"training the classifier for the scores of {config.dataset}, once ({epochs} epochs)")
        with all_cores(), at_once(f"the classifier of {config.dataset} is not saved; the next score trains it again"):
            network = train_classifier(train, device, epochs)
            if has_test_split(config):
                network.examined = {"split": "test", "accuracy": examine(network, load_split(config, "test"), device)}
            else:
                say(f"training another without every {HELD_OUT}th image, to measure the accuracy on those")
                every, left = torch.arange(len(train.images)), train._replace(labels=train.labels[::HELD_OUT])
                other = train_classifier(train, device, epochs, every[every % HELD_OUT > 0])
                accuracy = examine(other, left._replace(images=train.images[::HELD_OUT]), device)
                network.examined = {"split": "held-out", "accuracy": accuracy}
        weights = {name: value.cpu() for name, value in network.state_dict().items()}
        content = {"format": CLASSIFIER_FORMAT, "weights": weights, "examined": network.examined}
        keep(path, content, "the classifier is", say)
    say(f"classifier of {config.dataset}: {network.examined['split']} accuracy {network.examined['accuracy']:.2%}")
    parts = [name.encode() + value.cpu().numpy().tobytes() for name, value in sorted(network.state_dict().items())]
    network.sha256 = hashlib.sha256(b"".join(parts)).hexdigest()
    return network.to(device).requires_grad_(False)


def _cached_classifier(path: Path, config: Config, train: Images) -> Classifier | None:
    network = Classifier(config.image_size, config.channels, len(train.classes))
    try:
        content = load_tensors(path)
        if content["format"] != CLASSIFIER_FORMAT:
            return None
        network.load_state_dict(content["weights"])
        network.examined = content["examined"]
    except Exception:  # absent, truncated or from another version: it is trained again
        return None
    return network.eval()


def extractor_name(config: Config) -> str:
    """The extractor that --features selects for this data set: inception or classifier."""
    return AUTO.get(config.dataset, "inception") if config.features == "auto" else config.features


def missing_weights(config: Config) -> str | None:
    """Download Inception's weights if the scores need them. Returns the reason if that fails and a classifier may
    replace Inception, else None. Raises UserError if it fails and none may."""
    optional = config.dataset == "folder" and config.features == "auto" and not config.inception_weights
    try:
        if extractor_name(config) == "inception":
            inception_file(config.inception_weights)
    except UserError as error:
        if not optional:
            raise
        return str(error)
    return None


def settled(config: Config, images: Images, missing: str | None, say: Say) -> Config | None:
    """Settle the extractor, given missing_weights(): return a configuration, or None without any. Prints changes."""
    if missing is None:
        return config
    if is_labelled(images):
        say("scores      by a classifier of the folder's own classes, because the Inception weights are missing")
        return dataclasses.replace(config, features="classifier")
    say(f"warning     this run will not be scored: {missing}")
    return None


def load_inception(config: Config, device: torch.device, say: Say = print) -> Inception:
    """Load Inception, with a configuration's weights, onto the device. Raises UserError if they are missing."""
    extractor = Inception(inception_file(config.inception_weights)).to(device)
    if extractor.warning:
        say(f"warning: {extractor.warning}")
    return extractor
