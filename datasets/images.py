"""Images (N, C, H, W) uint8: conversion to a run's size and channels, and to floats and back."""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.console import announced
from utils.errors import refuse_if

SHUFFLED = 20180216  # seed of the order in which --num_images takes images, the same for every run
RESIZE_CHUNK = 2048  # images resized at once, to bound the memory of their float copies


class Origin(NamedTuple):
    """Facts about the picture files that images were decoded from."""

    sha256: str  # of the pixels and labels
    sizes: dict[str, Any]  # smallest, largest and commonest [width, height]; number of different sizes; number enlarged
    skipped: dict[str, str]  # files that could not be read -> reason
    notes: tuple[str, ...]  # sentences about which files were used, and how


class Images(NamedTuple):
    """One split: images (N, C, H, W) uint8, labels (N,) int64 (-1: unknown), and the classes' names.

    The images may be mapped from a file and read-only. origin: where decoded images come from; it is valid only for
    exactly these images and labels.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    origin: Origin | None = None

    def sha256(self) -> str:
        """A hash of all pixels and labels. Runs on the same data have the same hash."""
        if self.origin:
            return self.origin.sha256
        with announced("computing the hash of the images"):
            digest = hashlib.sha256(self.images.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def is_of(self, sha256: str | None) -> bool:
        """Whether a hash is of these images. Earlier versions hashed them unlabelled or in text order."""
        if sha256 == self.sha256() or not (self.origin and self.classes):
            return sha256 == self.sha256()
        order = torch.tensor(sorted(range(len(self.classes)), key=self.classes.__getitem__))
        ways = torch.full_like(self.labels, -1), order.argsort()[self.labels]
        return sha256 in [self._replace(labels=labels, origin=None).sha256() for labels in ways]


def first_of(total: int, count: int) -> Tensor:
    """The first `count` of `total` shuffled indices (count,), always the same. Raises UserError if there are fewer."""
    refuse_if(count > total, f"num_images {count:,} is larger than the number of training images, {total:,}")
    return torch.randperm(total, generator=torch.Generator().manual_seed(SHUFFLED))[:count]


def spaced(total: int, count: int) -> Tensor:
    """At most `count` evenly spaced indices of `total` images. (A folder's images are sorted by class.)"""
    return torch.arange(min(count, total)) * total // min(count, total)


def trained_on(images: Images, count: int | None) -> Images:
    """The images of a training split that --num_images selects. None selects all."""
    if count is None:
        return images
    chosen = first_of(len(images.images), count)
    part = Images(images.images[chosen], images.labels[chosen], images.classes)
    return part._replace(origin=images.origin and images.origin._replace(sha256=part.sha256()))


def fit(images: Tensor, image_size: int, channels: int) -> Tensor:
    """Bring raw uint8 images (N, C, H, W) to (N, channels, image_size, image_size).

    From 28 to 32 pixels they are zero-padded, as is usual for MNIST. For any other size, the shorter side is resized
    (bilinear, antialiased) and the centre is cropped. Colour becomes grey by ITU-R 601 luma.
    """
    if images.size(1) != channels:
        images = to_grey(images) if channels == 1 else images.expand(-1, channels, -1, -1)
    height, width = images.shape[2:]
    if (height, width) == (28, 28) and image_size == 32:
        return F.pad(images, (2, 2, 2, 2))
    if (height, width) == (image_size, image_size):
        return images.contiguous()
    from torchvision.transforms.v2 import functional as TF  # its import takes seconds, and not every run resizes

    fitted = torch.empty(len(images), channels, image_size, image_size, dtype=torch.uint8)
    for chunk, out in zip(images.split(RESIZE_CHUNK), fitted.split(RESIZE_CHUNK)):
        out.copy_(TF.center_crop(TF.resize(chunk, [image_size], antialias=True), [image_size, image_size]))
    return fitted


def to_grey(images: Tensor) -> Tensor:
    """Convert colour to grey by ITU-R 601 luma, rounded like Pillow: (N, 3, H, W) -> (N, 1, H, W) uint8."""
    grey = torch.empty(len(images), 1, *images.shape[2:], dtype=torch.uint8)
    for chunk, out in zip(images.split(RESIZE_CHUNK), grey.split(RESIZE_CHUNK)):
        red, green, blue = chunk.int().unbind(1)
        out.copy_(((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).unsqueeze(1))
    return grey


def to_float(images: Tensor, generator: torch.Generator, mirror: bool = False) -> Tensor:
    """Dequantise uint8 images to floats in [-1, 1): x / 128 - 1 + U(0, 1/128), as in the authors' code.

    mirror: flip each image horizontally with probability 1/2.
    """
    if mirror:
        flipped = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
        images = torch.where(flipped, images.flip(3), images)
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return noise.add_(images).div_(128).sub_(1).clamp_max_(1 - 2**-24)  # 255 + noise can round up to 256


def quantise(images: Tensor) -> Tensor:
    """Quantise floats in [-1, 1] to uint8 by round((x + 1) * 127.5), for scores and pictures."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
